"""Does a JSON response show another tenant's id? Two steps: counting bytes, and a parse where the counts disagree.

Step one: as often as a field's name stands in the text, it must stand with the own tenant's value behind it. A foreign
value, other spacing or an escape breaks the equality and leads to step two. Inside a JSON string the quote is escaped,
so text can neither fake nor hide a match. Rows without a tenant field are invisible to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

from portalshield.rules.addressed import as_id, same_id
from portalshield.rules.strict_json import walk


class Scan(Enum):
    """What a response shows: no tenant field at all, only the own tenant, or another one."""

    UNCOVERED = "uncovered"
    OWN = "own"
    FOREIGN = "foreign"


class TenantScan:
    """Compiled for the field names of one application."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(names)
        self._quoted = tuple(f'"{name}"'.encode() for name in names)

    def scan(self, body: bytes, tenant: str) -> Scan:
        """Judge one body. A text that names a tenant field and cannot be parsed counts as foreign."""
        own = f':"{tenant}"'.encode()
        covered = False
        for quoted in self._quoted:
            shown = body.count(quoted)
            if not shown:
                continue
            covered = True
            if shown != body.count(quoted + own):
                return self._parsed(body, tenant)
        if not covered and b"\\u" in body:
            return self._parsed(body, tenant)
        return Scan.OWN if covered else Scan.UNCOVERED

    def _parsed(self, body: bytes, tenant: str) -> Scan:
        try:
            documents = list(_documents(body))
        except (ValueError, RecursionError):
            return Scan.FOREIGN
        found = [value for document in documents for _, value in walk(document, self._names) if value is not None]
        if not found:
            return Scan.UNCOVERED
        return Scan.OWN if all(_is_own(value, tenant) for value in found) else Scan.FOREIGN


def _documents(body: bytes) -> Iterator[Any]:
    """One JSON text, or one per line (NDJSON)."""
    try:
        yield json.loads(body)
    except json.JSONDecodeError:
        for line in body.splitlines():
            if line.strip():
                yield json.loads(line)


def _is_own(value: Any, tenant: str) -> bool:
    if isinstance(value, list):
        return all(_is_own(item, tenant) for item in value)
    found = as_id(value)
    return found is not None and same_id(found, tenant)
