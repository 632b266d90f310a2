"""The command line: `portalshield`, also `python -m portalshield`.

Exit status 0: nothing at or above `--fail-on`; 1: findings; 2: usage or configuration.
"""

from __future__ import annotations

import click

from portalshield import __version__
from portalshield.cli.alerts import alerts
from portalshield.cli.bench import bench
from portalshield.cli.check import check
from portalshield.cli.explain import explain
from portalshield.cli.init import init
from portalshield.cli.routes import routes
from portalshield.cli.token import token


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="portalshield")
def main() -> None:
    """Protect a FastAPI or Flask app, and see what its protection does."""


for _command in (init, check, routes, explain, bench, token, alerts):
    main.add_command(_command)
