"""The policy file: TOML with a `[[route]]` table per policy, for applications nobody wants to edit."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from portalshield.model.policy import KEYWORDS, Policy
from portalshield.model.setting import ConfigurationProblem
from portalshield.rules.nearest import did_you_mean

_VARIABLE = "PORTALSHIELD_POLICY_FILE"
_IN_FILES = KEYWORDS - {"owners"}
"""Functions are named in code."""
_SCHEMAS = ("body", "query")
_ABOVE = "A model in the file that calls Shield(app) must stand above it."


def read_policies(path: str | None) -> tuple[list[Policy], list[ConfigurationProblem]]:
    """The policies of the file and every mistake in it. `body = "module:Model"` (and `query`) name a pydantic type."""
    if path is None:
        return [], []
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError:
        return [], [_problem("names a file that cannot be read (relative to the working directory).")]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return [], [_problem("names a file that is no TOML.")]
    problems = list(_unknown(document, ("route",), "has an unknown table"))
    policies: list[Policy] = []
    tables = document.get("route", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        return [], [*problems, _problem("has a route that is no list of tables.", "Write [[route]] above each.")]
    for number, table in enumerate(tables, 1):
        policy, faults = _policy(table, f"route {number}")
        policies += [policy] if policy is not None else []
        problems += faults
    return policies, problems


def _policy(table: Mapping[str, Any], where: str) -> tuple[Policy | None, list[ConfigurationProblem]]:
    """One policy, or every mistake in it: what is known is looked at even where something is not."""
    match, terms = table.get("match"), {name: value for name, value in table.items() if name in _IN_FILES}
    problems = list(_unknown(table, (*_IN_FILES, "match"), f"{where} has an unknown key"))
    if not isinstance(match, str):
        problems.append(_problem(f'{where} has no match = "GET /path".'))
    for name in _SCHEMAS:
        if isinstance(terms.get(name), str):
            terms[name], fault = _model(terms[name], f"{where} names a {name} that")
            problems += [fault] if fault is not None else []
    if isinstance(terms.get("by"), list):
        terms["by"] = tuple(terms["by"])
    try:
        policy = Policy(match if isinstance(match, str) else "", **terms)
    except (TypeError, ValueError) as error:
        return None, [*problems, _problem(f"{where}: {error}.")]
    return (None if problems else policy), problems


def _unknown(table: Mapping[str, Any], known: Iterable[str], fault: str) -> Iterator[ConfigurationProblem]:
    for name in sorted(table.keys() - set(known)):
        hint = "Owners are functions: name them in code." if name == "owners" else did_you_mean(name, known)
        yield _problem(f"{fault}: {name}.", hint)


def _model(written: str, fault: str) -> tuple[Any, ConfigurationProblem | None]:
    """What `module:Name` stands for."""
    module, _, name = written.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return None, _problem(f'{fault} is not written as "module:Name".')
    try:
        return getattr(import_module(module), name), None
    except Exception as error:  # the module's own code runs: it may fail in any way
        hint = _ABOVE if not isinstance(error, ModuleNotFoundError) else ""
        return None, _problem(f"{fault} cannot be imported: {written} ({type(error).__name__}).", hint)


def _problem(message: str, hint: str = "") -> ConfigurationProblem:
    return ConfigurationProblem("PS-POLICY-002", _VARIABLE, message, hint)
