"""Does a JSON text show another tenant's id? Two steps: one look at the bytes, and a parse where that does not do.

Step one: wherever a field's name stands in the text, the own tenant's value must stand behind it. A foreign value or
an escape leads to step two. Inside a JSON string the quote is escaped, so text can neither fake nor
hide a match. Rows without a tenant field are invisible to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from portalshield.rules.addressed import MAX_ID, as_id, same_id
from portalshield.rules.strict_json import inner_needles, needs_no_escape, noting, occur, walk

_BLANKS = b" \t\r\n\x1e"
_BACKSLASH, _NUL = 0x5C, 0  # as integers: faster to find than as bytes; UTF-16 has zeros


class Scan(Enum):
    """What a response shows: no tenant field at all, only the own tenant, or another one."""

    UNCOVERED = "uncovered"
    OWN = "own"
    FOREIGN = "foreign"


UNCOVERED, OWN, FOREIGN = Scan
"""As names of the module: looking up a member costs as much as all the comparisons."""


class TenantScan:
    """Compiled for the field names of one application."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(names)
        spelt = b"|".join([re.escape(name.encode()) for name in names])
        # A name as a member, and its value if that is a short text without escapes.
        member = rb'(?:%b)"(?:\s*:\s*"([^"\\]{0,%d})")?' % (spelt, MAX_ID)
        self._members = re.compile(b'"' + member).findall
        # The same, and `op`, which has no value here that could be taken for an own one.
        self._addressed = re.compile(b'"(?:op"|%b)' % member).findall
        self._inner = inner_needles(self._names)
        self._is_plain = all(needs_no_escape(name) for name in names)
        units = {name.encode("utf-16-be")[at : at + 2].hex() for name in names for at in range(0, 2 * len(name), 2)}
        self._escape_of_a_name = re.compile(rb"\\u(?i:%b)" % "|".join(sorted(units)).encode()).search

    def scan(self, body: bytes, tenant: str) -> Scan:
        """Judge one body. A text that names a tenant field and cannot be parsed counts as foreign."""
        found = self._members(body)
        if _NUL in body or (_BACKSLASH in body and self._hides(body)):
            return self._parsed(body, tenant, len(body))
        if not found:
            return UNCOVERED
        own = tenant.encode()
        # One own id behind every name: any other value leads to the parser.
        return OWN if own and found.count(own) == len(found) else self._parsed(body, tenant, len(found))

    def names_only(self, body: bytes, tenant: str) -> bool:
        """A JSON text in UTF-8 has no member of these names but the own tenant's; False: look closer.

        Escapes may hide a name, JSON Patch (RFC 6902) has them in its pointers, and a string may be JSON again.
        """
        if not self._is_plain or (_BACKSLASH in body and self._may_nest(body)):
            return False
        own, found = tenant.encode(), self._addressed(body)
        return not found or (bool(own) and found.count(own) == len(found))

    def _may_nest(self, body: bytes) -> bool:
        return b"\\u" in body or (b'\\"' in body and occur(self._inner, body))

    def _hides(self, body: bytes) -> bool:
        """A letter of a name may stand in the text as an escape."""
        return not self._is_plain or (b"\\u" in body and self._escape_of_a_name(body) is not None)

    def _parsed(self, body: bytes, tenant: str, shown: int) -> Scan:
        try:
            found = [value for value in self._values(body, shown) if value is not None]
        except (ValueError, RecursionError):
            return FOREIGN
        if not found:
            return UNCOVERED
        return OWN if all(_is_own(value, tenant) for value in found) else FOREIGN

    def _values(self, body: bytes, shown: int) -> list[Any]:
        """What stands under the names; `shown`: how often one of them was seen in the text."""
        found = [value for document in _documents(body) for _, value in walk(document, self._names)]
        if len(found) >= shown:
            return found
        # A name may stand twice in one object, and readers differ on which of them counts.
        pairs: list[tuple[str, Any]] = []
        for _ in _documents(body, noting(self._names, pairs)):
            continue
        return found + [value for _, value in pairs]


Hook = Callable[[list[tuple[str, Any]]], Any]


def _documents(body: bytes, hook: Hook | None = None) -> Iterator[Any]:
    """One JSON text, or one per line (NDJSON, and RFC 7464 with its separators)."""
    try:
        yield json.loads(body, object_pairs_hook=hook)
    except json.JSONDecodeError:
        for line in body.splitlines():
            if line.strip(_BLANKS):
                yield json.loads(line.strip(_BLANKS), object_pairs_hook=hook)


def _is_own(value: Any, tenant: str) -> bool:
    """The own id, or lists of nothing else, however deep."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
            continue
        found = as_id(item)
        if found is None or not same_id(found, tenant):
            return False
    return True
