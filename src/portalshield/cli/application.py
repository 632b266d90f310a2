"""Loading `MODULE:APP`: an application, shielded or not, or a factory that makes one."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import click

from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.shield import Shield

app_argument = click.argument("target", metavar="MODULE:APP")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load_app(target: str) -> Any:
    """The object `MODULE:APP` names; a factory (`MODULE:create_app` or `MODULE:create_app()`) is called.

    Raises `click.UsageError` where it cannot be found, `ConfigurationError` where the application refuses to start.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise click.UsageError("name the application as MODULE:APP, for example portal.main:app")
    sys.path.insert(0, ".")
    try:
        module = importlib.import_module(module_name)
        found: Any = module
        for part in name.removesuffix("()").split("."):
            found = getattr(found, part)
    except ConfigurationError:
        raise
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"{target} cannot be loaded: {type(error).__name__}: {error}") from error
    return found() if name.endswith("()") or _is_factory(found) else found


def _is_factory(found: Any) -> bool:
    return callable(found) and hasattr(found, "__code__") and found.__code__.co_argcount == 0


def load_shield(target: str) -> Shield:
    """The shield of the application; one from the environment where it has none yet."""
    app = load_app(target)
    shield = Shield.of(app)
    return shield if shield is not None else Shield(app)


def broken(error: ConfigurationError, as_json: bool) -> NoReturn:
    """Print every mistake of the configuration and exit with 2."""
    if as_json:
        click.echo(json.dumps({"problems": [_row(problem) for problem in error.problems]}, indent=2))
    else:
        for problem in error.problems:
            click.echo(str(problem), err=True)
    raise SystemExit(2)


def _row(problem: ConfigurationProblem) -> dict[str, str]:
    return {name: getattr(problem, name) for name in ("id", "variable", "message", "hint")}


def or_broken(as_json: bool, make: Callable[[], Any]) -> Any:
    """What `make` returns; a broken configuration is told and ends the command with 2."""
    try:
        return make()
    except ConfigurationError as error:
        broken(error, as_json)


def table(rows: Iterable[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Aligned columns, two spaces between them."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
