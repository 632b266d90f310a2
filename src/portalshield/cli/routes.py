"""`portalshield routes`: every route with its protections."""

from __future__ import annotations

import json

import click

from portalshield.cli.application import app_argument, json_option, load_shield, or_broken, table


@click.command()
@app_argument
@json_option
def routes(target: str, as_json: bool) -> None:
    """List every route with its protections; one that nobody decided about is marked."""
    found = or_broken(as_json, lambda: load_shield(target).routes())
    if as_json:
        click.echo(json.dumps([report.as_dict() for report in found], indent=2))
        return
    rows = [
        (
            report.method,
            report.path,
            report.access,
            "" if report.decided else "strict default",
            ", ".join(report.limits) or "-",
            report.body or "-",
        )
        for report in found
    ]
    click.echo(table(rows, ("METHOD", "PATH", "ACCESS", "DECIDED", "LIMITS", "BODY")))
