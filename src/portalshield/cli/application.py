"""Loading `MODULE:APP`: an application, shielded or not, or a factory that makes one."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple, NoReturn

import click

import portalshield
from portalshield.findings import Finding, unshielded
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.shield import Shield, framework_of

app_argument = click.argument("target", metavar="MODULE:APP")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_OURS = str(Path(portalshield.__file__).parent)
_READABLE = "name a FastAPI, Starlette or Flask application, or a function without arguments that returns one"


def load_app(target: str) -> Any:
    """The application `MODULE:APP` names; a factory (`MODULE:create_app` or `MODULE:create_app()`) is called.

    Raises `click.UsageError` where it cannot be found or made, or is of no framework that is known here;
    `ConfigurationError` where the application refuses to start.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise click.UsageError("name the application as MODULE:APP, for example portal.main:app")
    sys.path.insert(0, ".")
    found: Any = _careful(target, "imported", lambda: importlib.import_module(module_name))
    for part in name.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise click.UsageError(f"{target} cannot be loaded: {module_name} has no {part}")
        found = getattr(found, part)
    if name.endswith("()") or _is_factory(found):
        found = _careful(target, "called", found)
    if framework_of(found) is None:
        raise click.UsageError(f"{target} is {_described(found)}")
    return found


def _careful(target: str, done: str, make: Callable[[], Any]) -> Any:
    """What `make` returns. What it raises is told without its text: that may hold the value of a setting."""
    try:
        return make()
    except (ConfigurationError, click.ClickException):
        raise
    except ImportError as error:
        raise click.UsageError(f"{target} cannot be loaded: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise click.UsageError(
            f"{target} raised {type(error).__name__} while it was {done}: {_place(error)}"
        ) from error


def _place(error: Exception) -> str:
    """The line that raised it. The key of a `KeyError` is a name, no value."""
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_theirs(frame.filename)]
    where = f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else "its module"
    if isinstance(error, SyntaxError):
        where = f"line {error.lineno} of {Path(error.filename or '?').name}"
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    return f"{where} looks for {key}" if isinstance(key, str) and key.isidentifier() else where


def _is_theirs(file: str) -> bool:
    """Of the application: neither ours, nor a library's, nor the interpreter's."""
    return not file.startswith((_OURS, "<")) and "site-packages" not in file and not file.startswith(sys.base_prefix)


def _described(found: Any) -> str:
    kind = type(found).__name__
    if kind == "ShieldMiddleware":
        return (
            "a ShieldMiddleware, around an application whose routes cannot be read: its policies alone decide. "
            f"Where it stands around one of a known framework, {_READABLE}"
        )
    return f"of the type {kind}: {_READABLE}"


def _is_factory(found: Any) -> bool:
    return callable(found) and hasattr(found, "__code__") and found.__code__.co_argcount == 0


class Loaded(NamedTuple):
    """A shield to ask; `bare` is the finding of an application that has none of its own."""

    shield: Shield
    bare: Finding | None


def load(target: str) -> Loaded:
    """The shield of the application; where it has none, one from the environment, to see what it would do."""
    app = load_app(target)
    shield = Shield.of(app)
    if shield is not None:
        return Loaded(shield, None)
    bare = unshielded(target)
    try:
        return Loaded(Shield(app), bare)
    except ConfigurationError as error:
        told = ConfigurationProblem(bare.id, bare.where, bare.message, bare.hint)
        raise ConfigurationError((told, *error.problems)) from error


def load_shield(target: str) -> Shield:
    """The same for commands that tell of a missing shield before all else, on stderr."""
    shield, bare = load(target)
    if bare is not None:
        click.echo(f"{bare.message} {bare.hint}\nWhat follows is what a shield would do.\n", err=True)
    return shield


def broken(error: ConfigurationError, as_json: bool) -> NoReturn:
    """Print every mistake of the configuration and exit with 2."""
    if as_json:
        click.echo(json.dumps({"problems": [row(problem) for problem in error.problems]}, indent=2))
    else:
        tell(error.problems)
    raise SystemExit(2)


def tell(problems: Iterable[ConfigurationProblem]) -> None:
    """A line each, on stderr."""
    for problem in problems:
        click.echo(str(problem), err=True)


def row(problem: ConfigurationProblem) -> dict[str, str]:
    """For `--json`."""
    return {name: getattr(problem, name) for name in ("id", "variable", "message", "hint")}


def with_hint(problem: ConfigurationProblem, hint: str) -> ConfigurationProblem:
    """The same with more to go by."""
    return replace(problem, hint=f"{problem.hint} {hint}".strip())


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
