"""Does a JSON text show another tenant's id? Two steps: one look at the bytes, and a parse where that does not do.

Step one: wherever a field's name stands in the text, the own tenant's value must stand behind it. A foreign value or
an escape leads to step two. Inside a JSON string the quote is escaped, so text can neither fake nor
hide a match. Rows without a tenant field are invisible to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from portalshield.rules.addressed import MAX_ID, as_id, same_id
from portalshield.rules.strict_json import needs_no_escape, walk


class Scan(Enum):
    """What a response shows: no tenant field at all, only the own tenant, or another one."""

    UNCOVERED = "uncovered"
    OWN = "own"
    FOREIGN = "foreign"


class TenantScan:
    """Compiled for the field names of one application."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(names)
        spelt = b"|".join([re.escape(name.encode()) for name in names])
        # A name as a member, and its value if that is a short text without escapes.
        self._members = re.compile(rb'"(?:%b)"(?:\s*:\s*"([^"\\]{0,%d})")?' % (spelt, MAX_ID)).findall
        self._is_plain = all(needs_no_escape(name) for name in names)

    def scan(self, body: bytes, tenant: str) -> Scan:
        """Judge one body. A text that names a tenant field and cannot be parsed counts as foreign."""
        found = self._members(body)
        if not found:
            return self._parsed(body, tenant) if b"\\u" in body else Scan.UNCOVERED
        own = tenant.encode()
        # One own id behind every name: any other value, spacing or escape leads to the parser.
        return Scan.OWN if found.count(own) == len(found) else self._parsed(body, tenant)

    def names_only(self, body: bytes, tenant: str) -> bool:
        """A JSON text in UTF-8 has no member of these names but the own tenant's; False: look closer.

        Escapes may hide a name, and JSON Patch (RFC 6902) has them in its pointers.
        """
        if not self._is_plain or b"\\u" in body or b'"op"' in body:
            return False
        found = self._members(body)
        return found.count(tenant.encode()) == len(found)

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
