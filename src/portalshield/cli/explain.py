"""`portalshield explain`: which layer decides, and why."""

from __future__ import annotations

import json

import click

from portalshield.cli.application import app_argument, json_option, load_shield, or_broken, table
from portalshield.explain import Explanation


@click.command()
@app_argument
@click.argument("request_line", metavar='"GET /path"')
@click.option("--token", default=None, help="A bearer token to send along.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header field; may be repeated.")
@click.option("--data", default=None, help="The body, JSON unless a header says otherwise.")
@json_option
def explain(
    target: str, request_line: str, token: str | None, headers: tuple[str, ...], data: str | None, as_json: bool
) -> None:
    """Tell what every layer says to a request. Nothing is sent, counted or asked of the application.

    "WS /path" is a WebSocket. What only the application, a store or a key server could say is "not known here".
    """
    method, _, path = request_line.strip().partition(" ")
    if not method or not path.startswith("/"):
        raise click.UsageError('write the request as "GET /path", a WebSocket as "WS /path"')
    fields = dict(_field(entry) for entry in headers)
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    body = data.encode() if data is not None else None
    found = or_broken(as_json, lambda: _explained(target, method, path, fields, body))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    access = f"  ({found.access})" if found.access else ""
    click.echo(f"{found.method} {found.path}  ->  {found.route}{access}\n")
    rows = [(decision.layer, decision.stage, decision.outcome, decision.why) for decision in found.decisions]
    click.echo(table(rows, ("LAYER", "LOOKS AT", "OUTCOME", "WHY")))


def _explained(target: str, method: str, path: str, fields: dict[str, str], body: bytes | None) -> Explanation:
    shield = load_shield(target)
    try:
        return shield.explain(method, path, fields, body)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _field(entry: str) -> tuple[str, str]:
    name, colon, value = entry.partition(":")
    if not colon:
        raise click.UsageError("write a header as NAME:VALUE")
    return name.strip().lower(), value.strip()
