"""The policy file: TOML with a `[[route]]` table per policy, for applications nobody wants to edit."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from portalshield.model.policy import KEYWORDS, Policy
from portalshield.model.setting import ConfigurationProblem
from portalshield.rules.nearest import did_you_mean

_VARIABLE = "PORTALSHIELD_POLICY_FILE"
_IN_FILES = KEYWORDS - {"owners"}
"""Functions are named in code."""


def read_policies(path: str | None) -> tuple[list[Policy], list[ConfigurationProblem]]:
    """The policies of the file and every mistake in it. `body = "module:Model"` (and `query`) name a pydantic type."""
    if path is None:
        return [], []
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError:
        return [], [ConfigurationProblem("PS-POLICY-002", _VARIABLE, "names a file that cannot be read.")]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return [], [ConfigurationProblem("PS-POLICY-002", _VARIABLE, "names a file that is no TOML.")]
    policies: list[Policy] = []
    unknown = sorted(document.keys() - {"route"})
    problems = [
        _problem("the file", f"has an unknown table. {did_you_mean(name, ['route'])}".strip()) for name in unknown
    ]
    for number, table in enumerate(document.get("route", ()), 1):
        faults = list(_faults(table))
        if not faults:
            try:
                policies.append(Policy(table["match"], **_terms(table)))
                continue
            except (TypeError, ImportError, AttributeError, ValueError) as error:
                faults = [str(error) if isinstance(error, TypeError) else "names a body that cannot be imported"]
        problems += [_problem(f"route {number}", fault) for fault in faults]
    return policies, problems


def _faults(table: dict[str, Any]) -> Iterator[str]:
    if not isinstance(table.get("match"), str):
        yield 'has no match = "GET /path"'
    for name in sorted(table.keys() - _IN_FILES - {"match"}):
        yield f"has an unknown key. {did_you_mean(name, _IN_FILES)}".strip()


def _terms(table: dict[str, Any]) -> dict[str, Any]:
    terms = {name: value for name, value in table.items() if name != "match"}
    for schema in ("body", "query"):
        if isinstance(terms.get(schema), str):
            module, _, name = terms[schema].partition(":")
            terms[schema] = getattr(import_module(module), name)
    if isinstance(terms.get("by"), list):
        terms["by"] = tuple(terms["by"])
    return terms


def _problem(where: str, fault: str) -> ConfigurationProblem:
    return ConfigurationProblem("PS-POLICY-002", _VARIABLE, f"{where} {fault}.")
