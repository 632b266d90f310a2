"""`portalshield init`: a starter environment file and a policy file with every route found."""

from __future__ import annotations

import json
from pathlib import Path

import click

from portalshield.cli.application import json_option, load_app, or_broken
from portalshield.report import RouteReport
from portalshield.settings import Settings
from portalshield.shield import Shield

_ENV = """\
# portalshield: copy to .env and fill in. The whole list: docs/settings.md
PORTALSHIELD_ENV=production
PORTALSHIELD_AUTH=jwt
# one of __SECRET, __PUBLIC_KEY, __JWKS, __JWKS_URL
PORTALSHIELD_AUTH__JWKS_URL=
PORTALSHIELD_AUTH__ISSUER=
PORTALSHIELD_AUTH__AUDIENCE=
PORTALSHIELD_CORS__ALLOW_ORIGINS=
PORTALSHIELD_HOSTS=
PORTALSHIELD_TRUSTED_PROXIES=
# with more than one process:
# REDIS_URL=
PORTALSHIELD_LOG__PSEUDONYM_KEY=
PORTALSHIELD_POLICY_FILE=portalshield.toml
"""
_LINES = """\
Add two lines where the application is made, unless they are there already:

    from portalshield import Shield
    Shield(app)
"""


@click.command()
@click.argument("target", metavar="[MODULE:APP]", required=False)
@json_option
def init(target: str | None, as_json: bool) -> None:
    """Write .env.example and portalshield.toml; never overwrites a file."""
    found = or_broken(as_json, lambda: _routes(target)) if target else []
    written = {name: _write(Path(name), text) for name, text in _files(found).items()}
    if as_json:
        click.echo(json.dumps({"written": [name for name, done in written.items() if done], "routes": len(found)}))
        return
    for name, done in written.items():
        click.echo(f"{'wrote' if done else 'kept '} {name}")
    click.echo(_LINES)


def _routes(target: str) -> list[RouteReport]:
    app = load_app(target)
    shield = Shield.of(app) or Shield(app, settings=Settings.from_env({"PORTALSHIELD_ENV": "development"}))
    return shield.routes()


def _files(found: list[RouteReport]) -> dict[str, str]:
    return {".env.example": _ENV, "portalshield.toml": _policy_file(found)}


def _policy_file(found: list[RouteReport]) -> str:
    """Every route as a comment with the strict default; uncomment what shall differ."""
    lines = [
        "# Every route has the strict default: a verified principal with a tenant. Uncomment and change what shall",
        "# differ; public = true means anybody on the internet.",
        "",
    ]
    for report in found:
        method = "GET" if report.kind == "websocket" else report.method
        path = report.path.replace("{path}", "*") if report.kind == "mount" else report.path
        # A route with a parameter serves somebody's data: nobody shall open it by taking away a few marks.
        suggestion = "# public = true" if "{" not in path else '# scopes = ["..."]'
        lines += ["# [[route]]", f'# match = "{method} {path}"', suggestion, ""]
    return "\n".join(lines)


def _write(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
