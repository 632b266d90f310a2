"""`portalshield init`: a starter environment file and a policy file with every route found."""

from __future__ import annotations

import json
from pathlib import Path

import click

from portalshield.cli.application import json_option, load_app, row, tell
from portalshield.model.setting import ConfigurationError
from portalshield.report import RouteReport, Survey
from portalshield.rules.entrances import entrance
from portalshield.settings import Settings
from portalshield.shield import Shield

_ENV = """\
# portalshield: copy to .env and fill in. The whole list: docs/settings.md
# Nothing reads .env by itself.
# load it: set -a; . ./.env; set +a   (or uvicorn --env-file .env)
PORTALSHIELD_ENV=production
PORTALSHIELD_AUTH=jwt
# one of __SECRET, __PUBLIC_KEY, __JWKS, __JWKS_URL
PORTALSHIELD_AUTH__JWKS_URL=
PORTALSHIELD_AUTH__ISSUER=
PORTALSHIELD_AUTH__AUDIENCE=
PORTALSHIELD_CORS__ALLOW_ORIGINS=
PORTALSHIELD_HOSTS=
PORTALSHIELD_TRUSTED_PROXIES=
# what the platform asks whether you are up, for example "GET /healthz"; the route must be there
PORTALSHIELD_HEALTH=
# where Prometheus reads, for example /metrics; with a token of 32 random characters
PORTALSHIELD_METRICS__PATH=
PORTALSHIELD_METRICS__TOKEN=
# with more than one process:
# PORTALSHIELD_WORKERS=2
# REDIS_URL=
PORTALSHIELD_LOG__PSEUDONYM_KEY=
"""
_POLICY_FILE = "PORTALSHIELD_POLICY_FILE=portalshield.toml\n"
_NO_POLICY_FILE = "# as soon as init has written it:\n# " + _POLICY_FILE
_LINES = """\
Add two lines where the application is made%s:

    from portalshield import Shield
    Shield(app)
"""
_AGAIN = "Fill in .env.example, load it, then run init again for the policy file."


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@json_option
def init(target: str | None, as_json: bool) -> None:
    """Write .env.example and portalshield.toml; never overwrites a file.

    Where the application does not start yet, .env.example alone is written, and the exit status is 2.
    """
    found, loaded, shielded = _survey(target) if target else (Survey(()), True, False)
    written = {name: _write(Path(name), text) for name, text in _files(found, loaded).items()}
    if as_json:
        told = [row(problem) for problem in found.problems]
        names = [name for name, done in written.items() if done]
        click.echo(json.dumps({"written": names, "routes": len(found.routes), "problems": told}))
    else:
        _say(written, found)
        if not loaded:
            click.echo(_AGAIN)
        elif not shielded:
            click.echo(_LINES % ("" if target else ", unless they are there already"))
    raise SystemExit(2 if found.problems else 0)


def _say(written: dict[str, bool], found: Survey) -> None:
    for name, done in written.items():
        click.echo(f"{'wrote' if done else 'kept '} {name}")
    tell(found.problems)


def _survey(target: str) -> tuple[Survey, bool, bool]:
    """What can be told of the application; whether that is more than problems; whether it has a shield."""
    try:
        app = load_app(target)
        own = Shield.of(app)
        shield = own or Shield(app, settings=Settings.from_env({"PORTALSHIELD_ENV": "development"}))
        return shield.survey(), True, own is not None
    except ConfigurationError as error:
        return Survey((), error.problems), False, True


def _files(found: Survey, loaded: bool) -> dict[str, str]:
    senders = "".join(f"PORTALSHIELD_WEBHOOK__{name.upper()}__SECRET=\n" for name in found.senders)
    if not loaded:
        return {".env.example": _ENV + senders + _NO_POLICY_FILE}
    return {".env.example": _ENV + senders + _POLICY_FILE, "portalshield.toml": _policy_file(found.routes)}


_STATIC = frozenset(("static", "assets", "css", "js", "img", "images", "fonts"))
_OWN_FILES = frozenset(("favicon.ico", "robots.txt"))
_SCOPES = '# scopes = ["..."]'
_PUBLIC = "# public = true"
_LOGIN = """\
# public = true
# login = "email"
# limits = ["20/minute"]
# by = "ip\""""


def _policy_file(found: tuple[RouteReport, ...]) -> str:
    """Every route as a comment: what code decided in a line, any other with a policy to uncomment and change."""
    lines = [
        "# Every route has the strict default: a verified principal with a tenant. Uncomment and change what shall",
        "# differ; public = true means anybody on the internet.",
        "",
    ]
    decided = [f"#   {report.method} {report.path}: {report.access}" for report in found if report.decided]
    if decided:
        lines += ["# Decided already:", *dict.fromkeys(decided), ""]
    matches: dict[str, list[RouteReport]] = {}
    for report in found:
        if not report.decided:
            matches.setdefault(_match(report), []).append(report)
    for match, reports in matches.items():
        lines += [*_handshakes(reports), "# [[route]]", f'# match = "{match}"', _agreed(reports), ""]
    return "\n".join(lines)


def _match(report: RouteReport) -> str:
    """The pattern of its policy; files are only read."""
    return report.match.replace("* ", "GET ", 1) if _is_static(report) else report.match


def _handshakes(reports: list[RouteReport]) -> list[str]:
    """A WebSocket as `routes` and `explain` write it: to a pattern its handshake is a GET."""
    paths = dict.fromkeys(report.path for report in reports if report.kind == "websocket")
    return [f"# WS {path} (its handshake is a GET)" for path in paths]


def _agreed(reports: list[RouteReport]) -> str:
    """What is suggested for one pattern: public only if that fits all it covers."""
    told = {_suggestion(report) for report in reports}
    return told.pop() if len(told) == 1 else _SCOPES


def _suggestion(report: RouteReport) -> str:
    """Nobody shall open somebody's data by taking away a mark: public is suggested for the front page, for what a
    platform asks whether the application is up, for files that look like a page's own and, with brakes, for logins."""
    if _is_static(report):
        return _PUBLIC
    if report.kind != "http" or report.decided:
        return _SCOPES
    kind = entrance(report.method.split("|"), report.path)
    if kind == "login":
        return _LOGIN
    reads = report.method == "GET" and report.path.strip("/").lower() in _OWN_FILES | {""}
    return _PUBLIC if kind or reads else _SCOPES


def _is_static(report: RouteReport) -> bool:
    """Mounted files by a name that holds no uploads."""
    first = report.path.strip("/").partition("/")[0].lower()
    return report.kind == "mount" and report.source == "starlette.staticfiles.StaticFiles" and first in _STATIC


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
