"""`portalshield alerts`: Prometheus rules and a Grafana dashboard for the budgets that the environment sets."""

from __future__ import annotations

import json
from pathlib import Path

import click

from portalshield.cli.application import json_option, or_broken
from portalshield.settings import Settings
from portalshield.telemetry.alerts import rule_file
from portalshield.telemetry.config import BudgetConfig
from portalshield.telemetry.dashboard import dashboard

RULES, DASHBOARD = "portalshield.rules.yml", "portalshield.dashboard.json"


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write to; it is made where it does not exist.",
)
@json_option
def alerts(out: Path, as_json: bool) -> None:
    """Write alert rules and a dashboard for the configured budgets; files of that name are replaced."""
    budget: BudgetConfig = or_broken(as_json, lambda: Settings.from_env().budget)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in ((RULES, rule_file(budget)), (DASHBOARD, dashboard(budget))):
        path = out / name
        path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        written.append(str(path))
    if as_json:
        click.echo(json.dumps({"written": written}, indent=2))
        return
    for line in written:
        click.echo(f"wrote {line}")
    click.echo(f"Prometheus: rule_files: [{RULES}]. Grafana: Dashboards, New, Import.")
