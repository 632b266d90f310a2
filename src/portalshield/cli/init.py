"""`portalshield init`: a starter environment file and a policy file with every route found."""

from __future__ import annotations

import json
from pathlib import Path

import click

from portalshield.cli.application import json_option, load_app, row, tell
from portalshield.findings import login_like
from portalshield.model.setting import ConfigurationError
from portalshield.report import RouteReport, Survey
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
Add two lines where the application is made, unless they are there already:

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
    found, loaded = _survey(target) if target else (Survey(()), True)
    written = {name: _write(Path(name), text) for name, text in _files(found, loaded).items()}
    if as_json:
        told = [row(problem) for problem in found.problems]
        names = [name for name, done in written.items() if done]
        click.echo(json.dumps({"written": names, "routes": len(found.routes), "problems": told}))
    else:
        _say(written, found, loaded)
    raise SystemExit(2 if found.problems else 0)


def _say(written: dict[str, bool], found: Survey, loaded: bool) -> None:
    for name, done in written.items():
        click.echo(f"{'wrote' if done else 'kept '} {name}")
    tell(found.problems)
    click.echo(_LINES if loaded else _AGAIN)


def _survey(target: str) -> tuple[Survey, bool]:
    """What can be told of the application; False: not even its routes."""
    try:
        app = load_app(target)
        shield = Shield.of(app) or Shield(app, settings=Settings.from_env({"PORTALSHIELD_ENV": "development"}))
        return shield.survey(), True
    except ConfigurationError as error:
        return Survey((), error.problems), False


def _files(found: Survey, loaded: bool) -> dict[str, str]:
    senders = "".join(f"PORTALSHIELD_WEBHOOK__{name.upper()}__SECRET=\n" for name in found.senders)
    if not loaded:
        return {".env.example": _ENV + senders + _NO_POLICY_FILE}
    return {".env.example": _ENV + senders + _POLICY_FILE, "portalshield.toml": _policy_file(found.routes)}


_HEALTH = frozenset(("health", "healthz", "livez", "live", "readyz", "ready", "ping"))
_LOGIN = """\
# public = true
# login = "email"
# limits = ["20/minute"]
# by = "ip\""""


def _policy_file(found: tuple[RouteReport, ...]) -> str:
    """Every route as a comment with the strict default; uncomment what shall differ."""
    lines = [
        "# Every route has the strict default: a verified principal with a tenant. Uncomment and change what shall",
        "# differ; public = true means anybody on the internet.",
        "",
    ]
    for match, report in {report.match: report for report in found}.items():
        lines += ["# [[route]]", f'# match = "{match}"', _suggestion(report), ""]
    return "\n".join(lines)


def _suggestion(report: RouteReport) -> str:
    """Nobody shall open somebody's data by taking away a mark: public is suggested for the front page, for what a
    platform asks whether the application is up, and, with brakes, for logins."""
    if report.kind == "http" and not report.decided:
        if login_like(report.path) and "GET" not in report.method.split("|"):
            return _LOGIN
        if report.method == "GET" and report.path.strip("/").lower() in _HEALTH | {""}:
            return "# public = true"
    return '# scopes = ["..."]'


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
