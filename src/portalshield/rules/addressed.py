"""Which ids does a request address: every occurrence of the given names in query and form.

A framework reads the first or the last of repeated names, so all of them count; `t[]`, `filter[t]` and `filter.t` are
spellings that query libraries unfold. JSON bodies are walked by `strict_json.walk`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes
from uuid import UUID

from portalshield.rules.strict_json import walk

MAX_PAIRS = 1000
_OPENS = frozenset((b"{", b"[", b"%"))
MAX_ID = 128


class TooManyPairsError(ValueError):
    """More parameters than anybody sends on purpose."""


def names_occur(data: bytes, names: tuple[bytes, ...]) -> bool:
    """Could one of the names be in this query? A cheap no for almost all requests; encoded names (`%`) are a maybe."""
    return b"%" in data or any(name in data for name in names)


def in_query(data: bytes, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of every parameter of these names in an urlencoded text (WHATWG URL, urlencoded parsing).

    Raises `TooManyPairsError` above 1,000 parameters.
    """
    pairs = data.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise TooManyPairsError
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        for known in meant(_decode(name), names):
            yield known, _decode(value)
        if value[:1] in _OPENS:
            yield from _in_json(_decode(value), names)


def meant(name: str, names: frozenset[str]) -> list[str]:
    """Which of the names a parameter or form field means: itself, or a part of `filter[t]`, `t[]`, `filter.t`."""
    if name in names:
        return [name]
    if "[" not in name and "." not in name:
        return []
    return [part for part in name.replace("]", "").replace("[", ".").split(".") if part in names]


def _in_json(text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """A filter that is sent as JSON (`?filter={"tenant_id": ...}`)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    for name, found in walk(value, names):
        yield name, as_id(found) or ""


def _decode(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")


def same_id(addressed: str, proven: str) -> bool:
    """Exact comparison as text; where both parse as UUIDs, as UUIDs."""
    if addressed == proven:
        return True
    if len(proven) != 36 or len(addressed) > 45:
        return False
    try:
        return UUID(addressed) == UUID(proven)
    except ValueError:
        return False


def as_id(value: object) -> str | None:
    """The text of an id in JSON: a string or a whole number; None for anything else (lists, objects, booleans)."""
    if type(value) is str:
        return value if 0 < len(value) <= MAX_ID else None
    if type(value) is int:
        return str(value) if -(10**MAX_ID) < value < 10**MAX_ID else None
    return None


def header_names(fields: tuple[str, ...]) -> frozenset[bytes]:
    """Header names that could carry a field: `tenant_id` -> `tenant-id`, `x-tenant-id`, `tenant_id`, `x_tenant_id`."""
    found: set[bytes] = set()
    for field in fields:
        kebab = "".join("-" + c.lower() if c.isupper() else c for c in field).replace("_", "-")
        for name in (kebab, kebab.replace("-", "_"), kebab.replace("-", ""), field.lower()):
            found |= {name.encode(), b"x-" + name.encode(), b"x_" + name.encode()}
    return frozenset(found)
