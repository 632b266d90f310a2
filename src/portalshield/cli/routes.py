"""`portalshield routes`: every route with its protections."""

from __future__ import annotations

import json
from itertools import compress

import click

from portalshield.cli.application import app_argument, json_option, load_shield, or_broken, row, table, tell, with_hint
from portalshield.model.setting import ConfigurationProblem
from portalshield.report import RouteReport, Survey
from portalshield.rules.nearest import nearest

_HEADER = ("METHOD", "PATH", "ACCESS", "DECIDED", "LIMITS", "TAKES", "OPEN")
_ALWAYS = 3
"""Columns that stand there whatever they say."""
_NOTHING = "-"


@click.command()
@app_argument
@json_option
def routes(target: str, as_json: bool) -> None:
    """List every route with its protections; one that nobody decided about is marked.

    What keeps the application from starting stands below the table, and the exit status is 2.
    """
    found: Survey = or_broken(as_json, lambda: load_shield(target).survey())
    problems = [_with_nearest(problem, found) for problem in found.problems]
    if as_json:
        listed = [report.as_dict() for report in found.routes]
        told = {"routes": listed, "problems": [row(problem) for problem in problems]}
        click.echo(json.dumps(told if problems else listed, indent=2))
    else:
        click.echo(_listed(found))
    if problems:
        tell(() if as_json else problems)
        raise SystemExit(2)


def _listed(found: Survey) -> str:
    """The table without the columns that say nothing of any route."""
    rows = [_cells(report) for report in found.routes]
    said = [at < _ALWAYS or any(row[at] != _NOTHING for row in rows) for at in range(len(_HEADER))]
    header, *kept = (tuple(compress(row, said)) for row in (_HEADER, *rows))
    return table(kept, header)


def _cells(report: RouteReport) -> tuple[str, ...]:
    lists = (", ".join(words) or _NOTHING for words in (report.limits, report.takes, report.opens))
    return (report.method, report.path, report.access, _decided(report), *lists)


def _decided(report: RouteReport) -> str:
    if report.decided:
        return _NOTHING
    return "strict default" if report.strict else "nobody decided"


def _with_nearest(problem: ConfigurationProblem, found: Survey) -> ConfigurationProblem:
    """A pattern that covers no route is often a misspelt one."""
    if problem.id != "PS-POLICY-003":
        return problem
    pattern = problem.message.partition('"')[2].partition('"')[0]
    near = nearest(pattern, [report.match for report in found.routes])
    return with_hint(problem, f"Did you mean {near}?") if near else problem
