"""What the commands say where something is missing: the shield, the application, its settings, a route."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from portalshield import Policy, Settings, __version__
from portalshield.cli.check import _wrapped
from portalshield.cli.init import _ENV, _policy_file, _suggestion
from portalshield.report import RouteReport
from portalshield.testing import environment

SOURCE = Path(__file__).resolve().parents[2] / "src"
SECRET = "correct-horse-battery-staple-and-more-0123456789"
BARE = (
    "from fastapi import FastAPI\n"
    "app = FastAPI(openapi_url=None)\n"
    "@app.get('/healthz')\n"
    "def healthz():\n    return {}\n"
)
_IMPORT, _LINE = "from portalshield import Shield, protect\n", "Shield(app)\n"
SHIELDED = BARE + _IMPORT + _LINE
HOOK = "@app.post('/hook')\n@protect(webhook='stripe')\ndef hook():\n    return {}\n"
HOOKED = BARE + _IMPORT + HOOK + _LINE


def run(
    folder: Path, *arguments: str, module: str = BARE, empty: bool = False, given: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of a command on `main:app` made of `module`. `empty`: no variable is set."""
    (folder / "main.py").write_text(module)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PORTALSHIELD_")}
    variables.update({} if empty else environment(**{"AUTH__SECRET": SECRET, **(given or {})}))
    variables["PYTHONPATH"] = str(SOURCE)
    command = [sys.executable, "-m", "portalshield", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


# -- no shield --------------------------------------------------------------------------------------------------------


def test_check_says_first_that_there_is_no_shield(tmp_path: Path) -> None:
    """Critical, with what to do; with one there is no such finding."""
    status, out, _ = run(tmp_path, "check", "main:app", "--json")
    first, *_ = json.loads(out)
    assert (status, first["id"], first["severity"]) == (1, "PS-WIRE-101", "critical")
    assert first["message"] == "This application has no shield: every route is open."
    assert "Shield(app)" in first["hint"]
    _, out, _ = run(tmp_path, "check", "main:app", "--json", module=SHIELDED)
    assert "PS-WIRE-101" not in {row["id"] for row in json.loads(out)}


@pytest.mark.parametrize("command", [("routes", "main:app"), ("explain", "main:app", "GET /healthz")])
def test_others_say_it_on_stderr(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Before the table, which stays what it is."""
    status, out, err = run(tmp_path, *command)
    assert (status, err.startswith("This application has no shield: every route is open.")) == (0, True)
    assert "/healthz" in out
    _, _, err = run(tmp_path, *command, module=SHIELDED)
    assert err == ""


def test_it_is_said_beside_settings_that_are_wrong(tmp_path: Path) -> None:
    """The one does not hide the other."""
    status, _, err = run(tmp_path, "check", "main:app", given={"RATE__PER_IP": "many"})
    assert status == 2
    assert [line.split()[0] for line in err.splitlines()] == ["PS-WIRE-101", "PS-RATE-001"]


# -- no application ---------------------------------------------------------------------------------------------------

MIDDLEWARE = (
    "from portalshield.asgi import ShieldMiddleware\nasync def inner(s, r, x): ...\napp = ShieldMiddleware(inner)"
)


@pytest.mark.parametrize("command", ["check", "routes", "bench", "init"])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        pytest.param(MIDDLEWARE, "is a ShieldMiddleware", id="our own middleware"),
        pytest.param("app = 7", "of the type int: name a FastAPI, Starlette or Flask", id="a number"),
    ],
)
def test_what_is_no_application_is_told(tmp_path: Path, command: str, module: str, words: str) -> None:
    """With what is needed."""
    status, _, err = run(tmp_path, command, "main:app", module=module)
    assert status == 2
    assert words in err


@pytest.mark.parametrize(
    ("module", "words"),
    [
        pytest.param(
            "import os\nos.environ['PORTAL_DATABASE']",
            "main:app raised KeyError while it was imported: line 2 of main.py looks for PORTAL_DATABASE",
            id="a missing variable",
        ),
        pytest.param(
            "raise ValueError('hunter2')",
            "main:app raised ValueError while it was imported: line 1 of main.py",
            id="any other",
        ),
        pytest.param("def (", "main:app raised SyntaxError while it was imported: line 1 of main.py", id="no Python"),
        pytest.param(
            "def app():\n    return 1 / 0",
            "main:app raised ZeroDivisionError while it was called: line 2 of main.py",
            id="a factory",
        ),
        pytest.param("import not_there_at_all", "No module named 'not_there_at_all'", id="a package is missing"),
        pytest.param("other = 1", "main has no app", id="another name"),
    ],
)
def test_what_an_import_raises_is_told_without_values(tmp_path: Path, module: str, words: str) -> None:
    """The kind and the line; a text may hold a secret."""
    status, out, err = run(tmp_path, "routes", "main:app", module=module)
    assert status == 2
    assert words in err
    assert "hunter2" not in out + err


def test_the_version_needs_no_distribution(tmp_path: Path) -> None:
    """It is that of the package that runs."""
    status, out, _ = run(tmp_path, "--version")
    assert (status, out.strip()) == (0, f"portalshield, version {__version__}")


# -- routes that are not there ----------------------------------------------------------------------------------------


def test_routes_prints_the_table_and_the_problem_below(tmp_path: Path) -> None:
    """A health pattern that covers nothing, with the route that was meant; exit status 2."""
    wrong = {"HEALTH": "GET /health"}
    status, out, err = run(tmp_path, "routes", "main:app", module=SHIELDED, given=wrong)
    assert status == 2
    assert "/healthz" in out
    assert "PS-POLICY-003" in err
    assert "Did you mean GET /healthz?" in err
    _, out, _ = run(tmp_path, "routes", "main:app", "--json", module=SHIELDED, given=wrong)
    found = json.loads(out)
    assert [row["path"] for row in found["routes"]] == ["/healthz"]
    assert [row["id"] for row in found["problems"]] == ["PS-POLICY-003"]


# -- init -------------------------------------------------------------------------------------------------------------


def test_init_helps_before_anything_is_set(tmp_path: Path) -> None:
    """`.env.example` is written, the problems are told, the policy file comes later."""
    status, out, err = run(tmp_path, "init", "main:app", module=SHIELDED, empty=True)
    assert status == 2
    assert "PS-AUTH-001" in err
    assert "run init again for the policy file" in out
    text = (tmp_path / ".env.example").read_text()
    assert "\nPORTALSHIELD_POLICY_FILE" not in text
    assert not (tmp_path / "portalshield.toml").exists()
    assert run(tmp_path, "init", "main:app", module=SHIELDED)[0] == 0
    assert '# match = "GET /healthz"\n# public = true' in (tmp_path / "portalshield.toml").read_text()


def test_init_names_the_secrets_of_webhooks(tmp_path: Path) -> None:
    """Also of those that keep the application from starting, as long as they are missing."""
    status, _, err = run(tmp_path, "init", "main:app", module=HOOKED)
    assert status == 2
    assert "WEBHOOK__STRIPE__SECRET is not set" in err
    assert "\nPORTALSHIELD_WEBHOOK__STRIPE__SECRET=\n" in (tmp_path / ".env.example").read_text()


def test_public_is_suggested_for_nobodys_data_only() -> None:
    """Nobody opens by taking away a mark what changes something or serves somebody's data."""
    read = RouteReport("GET", "/", "http", "", "", False, (), (), None)
    for path in ("/", "/healthz", "/Ready/", "/favicon.ico", "/login"):
        assert _suggestion(replace(read, path=path)) == "# public = true"
    others = (
        replace(read, method="POST"),
        replace(read, method="GET|POST"),
        replace(read, path="/{id}"),
        replace(read, path="/api/v1/invoices/"),
        replace(read, path="/admin/stats"),
        replace(read, path="/admin/healthz"),
        replace(read, path="/auth/users"),
        replace(read, method="DELETE", path="/auth/users"),
        replace(read, method="POST", path="/auth/users"),
        replace(read, method="DELETE", path="/login"),
        replace(read, path="/token"),
        replace(read, method="POST", path="/tokens"),
        replace(read, method="POST", path="/clients/{id}/register"),
        replace(read, method="POST", path="/admin/reset-password"),
        replace(read, method="*", kind="mount", path="/static/{path}", source="other.Application"),
        replace(read, method="*", kind="mount", path="/uploads/{path}", source="starlette.staticfiles.StaticFiles"),
        replace(read, decided=True),
        replace(read, kind="websocket", method="WS"),
        replace(read, kind="websocket", method="WS", path="/login"),
    )
    assert {_suggestion(other) for other in others} == {'# scopes = ["..."]'}


def test_logins_are_suggested_with_their_brakes() -> None:
    """Nobody could log in under the strict default; the lines are a policy that the file takes."""
    login = RouteReport("POST", "/api/login", "http", "", "", False, (), (), None, match="POST /api/login")
    text = _policy_file((login, login))
    assert text.count("[[route]]") == 1
    table = tomllib.loads(re.sub("(?m)^# (?=[a-z\\[])", "", text[text.index("# [[route]]") :]))["route"][0]
    assert Policy(table.pop("match"), **table)
    assert table == {"public": True, "login": "email", "limits": ["20/minute"], "by": "ip"}


def test_files_of_pages_are_suggested_as_public() -> None:
    """Read only; whatever else is mounted under the same name is not."""
    source = "starlette.staticfiles.StaticFiles"
    files = RouteReport("*", "/static/{path}", "mount", source, "", False, (), (), None, match="* /static/*")
    assert '# match = "GET /static/*"\n# public = true' in _policy_file((files,))


def test_a_pattern_is_public_only_if_all_it_covers_may_be() -> None:
    """A WebSocket at the front page's path would be opened with it."""
    page = RouteReport("GET", "/", "http", "", "", False, (), (), None, match="GET /")
    text = _policy_file((page, replace(page, method="WS", kind="websocket")))
    assert "# WS / (its handshake is a GET)" in text
    assert text.count("[[route]]") == 1
    assert "public = true\n" not in text


def test_init_says_how_to_add_a_shield_only_where_there_is_none(tmp_path: Path) -> None:
    """It has just loaded the application."""
    assert "Shield(app)" in run(tmp_path, "init", "main:app")[1]
    assert "Shield(app)" not in run(tmp_path, "init", "main:app", module=SHIELDED)[1]


def test_the_environment_file_parses_as_it_stands() -> None:
    """Filled in where something has to be, each line is a variable that exists and may be empty."""
    lines = [line for line in _ENV.splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines)
    filled = {"PORTALSHIELD_AUTH__ISSUER": "https://a.example", "PORTALSHIELD_AUTH__AUDIENCE": "portal"}
    filled["PORTALSHIELD_AUTH__JWKS_URL"] = "https://a.example/jwks"
    assert Settings.from_env({**variables, **filled}).env == "production"
    assert "set -a; . ./.env; set +a" in _ENV


# -- check and bench --------------------------------------------------------------------------------------------------


def test_hints_fit_the_terminal() -> None:
    """What is to be copied is not broken; a word that is too long stands alone."""
    hint = 'Add Policy("POST /login", public=True, login="email"), or compare with `portalshield routes` and GET /x.'
    text = _wrapped(hint, 60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert all(line.startswith(" " * 24) for line in text.splitlines())
    assert " ".join(text.split()) == hint
    narrow = _wrapped(hint, 10)
    for whole in ('"POST /login"', "`portalshield routes`", "GET /x."):
        assert whole in narrow


def test_an_unknown_finding_cannot_be_silenced(tmp_path: Path) -> None:
    """A typing mistake would silence nothing, unseen."""
    status, _, err = run(tmp_path, "check", "main:app", "--silence", "PS-HOST-110=one host only")
    assert status == 2
    assert "no such finding" in err
    assert "Did you mean PS-HOST-10" in err


def test_bench_sends_a_host_that_is_served(tmp_path: Path) -> None:
    """The first of HOSTS; one that `--header` names is sent as it is, and 421 says what to do."""
    bench = ("bench", "main:app", "--path", "/healthz", "--rounds", "1")
    variables = {"HOSTS": "*.example.org,portal.example.com", "PUBLIC": "GET /healthz"}
    status, out, err = run(tmp_path, *bench, module=SHIELDED, given=variables)
    assert (status, "back to back" in out) == (0, True), err
    for name in ("foreign.example", "api.example.com"):
        status, _, err = run(tmp_path, *bench, "--header", f"host:{name}", module=SHIELDED, given=variables)
        assert status == 2
        assert "answers 421" in err
        assert "--header host:NAME" in err
