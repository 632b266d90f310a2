"""The command line: what it prints, what it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from portalshield.testing import environment

HERE = Path(__file__).parent


def _run(*arguments: str, cwd: Path = HERE, **overrides: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PORTALSHIELD_")}
    variables.update(environment(**overrides))
    variables["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])
    command = [sys.executable, "-m", "portalshield", *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=60, check=False)


def test_routes_lists_every_route_once_and_marks_the_undecided() -> None:
    """Method, path, access; methods with one policy in one line; a route nobody decided about is visible."""
    result = _run("routes", "sample_app:app")
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines() if "/openapi" not in line]
    assert [line for line in lines if "doc" not in line] == [
        "METHOD PATH ACCESS DECIDED",
        "GET /tenants/{tenant_id}/clients user of the tenant strict default",
        "POST /auth/login anybody -",
        "WS /live user of the tenant strict default",
        "GET /things anybody -",
        "* /things user of the tenant strict default",
        "GET|POST /both anybody -",
        "* /files/{path} user of the tenant strict default",
    ]


def test_routes_as_json_of_a_factory() -> None:
    """`MODULE:create_app()` is called."""
    found = json.loads(_run("routes", "sample_app:create_app()", "--json").stdout)
    assert {row["path"] for row in found} >= {"/made"}


def test_check_finds_what_is_wrong_and_exits_1() -> None:
    """A login without a limit and a decorated function no route serves are high findings."""
    result = _run("check", "sample_app:app", "--json")
    found = {row["id"]: row for row in json.loads(result.stdout)}
    assert result.returncode == 1
    assert found["PS-RATE-101"]["where"] == "POST /auth/login"
    assert found["PS-ROUTE-102"]["where"].endswith("forgotten")
    assert {"WS /live", "* /files/{path}", "* /things"} <= set(found["PS-ROUTE-101"]["routes"])


def test_check_silences_with_a_reason_only() -> None:
    """`--silence ID=REASON`."""
    silenced = ["--silence", "PS-RATE-101=the proxy limits it", "--silence", "PS-ROUTE-102=used elsewhere"]
    assert _run("check", "sample_app:app", *silenced).returncode == 0
    assert _run("check", "sample_app:app", "--silence", "PS-RATE-101").returncode == 2


def test_five_wrong_variables_print_five_messages_and_exit_2() -> None:
    """All mistakes with their ids; no value appears."""
    wrong = {
        "BODY__MAX_SIZE": "hunter2",
        "AUTH__LEEWAY": "hunter2",
        "CORS__ALLOW_ORIGIN": "hunter2",
        "RATE__PER_IP": "hunter2",
        "CORS__ALLOW_ORIGINS": "hunter2",
    }
    result = _run("check", "sample_app:app", **wrong)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 5
    assert all(line.startswith("PS-") for line in result.stderr.splitlines())
    assert "hunter2" not in result.stdout + result.stderr


def test_explain_names_the_layer_that_refuses() -> None:
    """A foreign tenant's id is decided by the tenant layer; without a token by auth."""
    secret = "correct-horse-battery-staple-and-more-0123456789"
    token = _run("token", "--tenant", "north", AUTH__SECRET=secret).stdout.strip()
    request = "GET /tenants/south/clients"
    last = json.loads(
        _run("explain", "sample_app:app", request, "--token", token, "--json", AUTH__SECRET=secret).stdout
    )
    assert last["route"] == "/tenants/{tenant_id}/clients"
    assert (last["decisions"][-1]["layer"], last["decisions"][-1]["outcome"]) == ("tenant", "404 not-found")
    bare = json.loads(_run("explain", "sample_app:app", request, "--json").stdout)
    assert bare["decisions"][-1]["outcome"] == "401 unauthenticated"


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        pytest.param("X-Tenant-Id: south", "404 not-found", id="foreign-tenant"),
        pytest.param("X-Tenant-Id: north", "passes", id="own-tenant"),
    ],
)
def test_explain_reads_every_header_that_layers_read(header: str, outcome: str) -> None:
    """A field that stages ask for with all its repeats decides as it would in a request."""
    secret = "correct-horse-battery-staple-and-more-0123456789"
    token = _run("token", "--tenant", "north", AUTH__SECRET=secret).stdout.strip()
    request = ("GET /tenants/north/clients", "--token", token, "--header", header)
    found = _run("explain", "sample_app:app", *request, "--json", AUTH__SECRET=secret)
    assert json.loads(found.stdout)["decisions"][-1]["outcome"] == outcome


def test_token_is_minted_for_development_only() -> None:
    """Refused in production; what it mints is what was asked for."""
    secret = "correct-horse-battery-staple-and-more-0123456789"
    minted = _run("token", "--tenant", "north", "--subject", "u7", "--role", "owner", AUTH__SECRET=secret)
    claims = jwt.decode(minted.stdout.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["tenant_id"], claims["roles"]) == ("u7", "north", ["owner"])
    refused = _run("token", "--tenant", "north", ENV="production", AUTH__SECRET=secret)
    assert refused.returncode == 2


def test_init_writes_two_files_and_never_overwrites(tmp_path: Path) -> None:
    """A starter environment and a policy file with every route; a second run keeps what is there."""
    assert _run("init", "sample_app:app", cwd=tmp_path).returncode == 0
    policies = (tmp_path / "portalshield.toml").read_text()
    assert '# match = "GET /tenants/{tenant_id}/clients"' in policies
    assert '# WS /live (its handshake is a GET)\n# [[route]]\n# match = "GET /live"' in policies
    assert "#   POST /auth/login: anybody\n" in policies
    assert '# match = "POST /auth/login"' not in policies
    (tmp_path / ".env.example").write_text("mine")
    again = _run("init", cwd=tmp_path).stdout
    assert "kept" in again
    assert "unless they are there already" in again
    assert (tmp_path / ".env.example").read_text() == "mine"


@pytest.mark.parametrize("target", ["nowhere:app", "sample_app:nothing", "sample_app", ":app"])
def test_an_application_that_cannot_be_found_exits_2(target: str) -> None:
    """With a sentence, not a traceback."""
    result = _run("routes", target)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_check_looks_at_modules_with_flask_s_proxies(tmp_path: Path) -> None:
    """`request`, `g` and our own `principal` raise outside of a request; a forgotten route beside them is found."""
    (tmp_path / "proxied.py").write_text(
        "from flask import Flask, current_app, g, request, session\n"
        "from portalshield import Shield, protect\n"
        "from portalshield.flask import principal\n"
        "app = Flask(__name__)\n"
        "@app.get('/')\n"
        "def home():\n    return {'path': request.path}\n"
        "@protect(roles=['owner'])\n"
        "def forgotten():\n    return {}\n"
        "Shield(app)\n"
    )
    done = _run("check", "proxied:app", cwd=tmp_path)
    assert "PS-ROUTE-102" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
