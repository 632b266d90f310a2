"""`portalshield check`: what a deployment should know before it goes live."""

from __future__ import annotations

import json
import re
from shutil import get_terminal_size
from textwrap import wrap

import click

from portalshield.cli.application import app_argument, json_option, load, or_broken
from portalshield.findings import IDS, SEVERITIES, Finding
from portalshield.rules.nearest import did_you_mean

_INDENT = " " * 24
_LEAST = 24
"""Columns for a hint, however narrow the terminal."""
_WHOLE = re.compile(r'"[^"]*"|`[^`]*`|[A-Z|*]+ /\S*')


@click.command()
@app_argument
@json_option
@click.option(
    "--fail-on", type=click.Choice(SEVERITIES), default="high", show_default=True, help="Exit 1 from here on."
)
@click.option("--silence", multiple=True, metavar="ID=REASON", help="Leave a finding out, with a reason.")
def check(target: str, as_json: bool, fail_on: str, silence: tuple[str, ...]) -> None:
    """Check settings, wiring, routes and environment of an application."""
    silenced = dict(_reason(entry) for entry in silence)
    found = [finding for finding in or_broken(as_json, lambda: _found(target)) if finding.id not in silenced]
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in found], indent=2))
    else:
        _print(found)
    least = SEVERITIES.index(fail_on)
    raise SystemExit(int(any(SEVERITIES.index(finding.severity) >= least for finding in found)))


def _found(target: str) -> list[Finding]:
    shield, bare = load(target)
    return [*([bare] if bare is not None else []), *shield.check()]


def _reason(entry: str) -> tuple[str, str]:
    name, equals, reason = entry.partition("=")
    if not equals or not reason.strip():
        raise click.UsageError("--silence needs a reason: --silence PS-HOST-101='one host only'")
    if name not in IDS:
        raise click.UsageError(f"--silence {name}: there is no such finding. {did_you_mean(name, IDS)}".strip())
    return name, reason


def _print(found: list[Finding]) -> None:
    for finding in found:
        click.echo(f"{finding.severity.upper():8} {finding.id:14} {finding.where}: {finding.message}")
        if finding.hint:
            click.echo(_wrapped(finding.hint, get_terminal_size().columns))
    counts = ", ".join(f"{n} {name}" for name in reversed(SEVERITIES) if (n := sum(f.severity == name for f in found)))
    click.echo(f"{len(found)} finding{'' if len(found) == 1 else 's'}" + (f": {counts}" if counts else ""))


def _wrapped(hint: str, columns: int) -> str:
    """Within the terminal (80 columns where there is none); what is quoted and a route stay whole: they are copied."""
    whole = _WHOLE.sub(lambda quoted: quoted[0].replace(" ", "\0"), hint)
    width = max(columns - len(_INDENT), _LEAST)
    lines = wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(_INDENT + line.replace("\0", " ") for line in lines)
