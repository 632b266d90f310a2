"""`portalshield explain`: which layer decides, and why."""

from __future__ import annotations

import json

import click

from portalshield.cli.application import app_argument, json_option, load_shield, or_broken, table


@click.command()
@app_argument
@click.argument("request_line", metavar='"GET /path"')
@click.option("--token", default=None, help="A bearer token to send along.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header field; may be repeated.")
@json_option
def explain(target: str, request_line: str, token: str | None, headers: tuple[str, ...], as_json: bool) -> None:
    """Tell what every layer says to a request. Nothing is sent, nothing is counted."""
    method, _, path = request_line.partition(" ")
    if not path.startswith("/"):
        raise click.UsageError('write the request as "GET /path"')
    fields = dict(_field(entry) for entry in headers)
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    found = or_broken(as_json, lambda: load_shield(target).explain(method, path, fields))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    click.echo(f"{found.method} {found.path}  ->  {found.route}  ({found.access})\n")
    rows = [(decision.layer, decision.stage, decision.outcome, decision.why) for decision in found.decisions]
    click.echo(table(rows, ("LAYER", "STAGE", "OUTCOME", "WHY")))


def _field(entry: str) -> tuple[str, str]:
    name, colon, value = entry.partition(":")
    if not colon:
        raise click.UsageError("write a header as NAME:VALUE")
    return name.strip(), value.strip()
