"""Which ids does a request address: every occurrence of the given names in query, form and cookies.

A framework reads the first or the last of repeated names, so all of them count; `t[]`, `filter[t]` and `filter.t` are
spellings that query libraries unfold, and a value may be JSON. JSON bodies are walked by `strict_json.walk`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from portalshield.rules.strict_json import noting, walk

MAX_PAIRS = 1000
_OPENS = frozenset((b"{", b"[", b"%"))
_BLANKS = b"+ \t\r\n"
JSON_BLANKS = " \t\r\n\ufeff"
"""What may stand before a JSON text, a byte order mark included."""
_COOKIE_ESCAPE = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)
MAX_ID = 128
_MAX_MARKS = 6


class TooManyPairsError(ValueError):
    """More parameters, or deeper ones, than anybody sends on purpose."""


def names_occur(data: bytes, names: tuple[bytes, ...]) -> bool:
    """Could one of the names be in this query? A cheap no for almost all requests; encoded names (`%`, in JSON and
    quoted cookies a backslash) are a maybe."""
    return b"%" in data or b"\\" in data or any(name in data for name in names)


def in_query(data: bytes, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of every parameter of these names in an urlencoded text (WHATWG URL, urlencoded parsing).

    Raises `TooManyPairsError` above 1,000 parameters, and for JSON in a value that goes too deep to be judged.
    """
    pairs = data.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise TooManyPairsError
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        for known in meant(_decode(name), names):
            yield known, _decode(value)
        if value[:1] in _OPENS or value.lstrip(_BLANKS)[:1] in _OPENS:
            yield from in_json_text(_decode(value), names)


def in_cookies(field: bytes, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The same of a Cookie field, unquoted as frameworks do and percent-decoded, as many handlers go on to do. JSON is
    read both before and after that."""
    for pair in field.split(b";"):
        name, _, value = pair.partition(b"=")
        plain = _unquoted(value.strip())
        decoded = unquote_to_bytes(plain)
        text = decoded.decode("utf-8", "replace")
        for known in meant(unquote_to_bytes(name.strip()).decode("utf-8", "replace"), names):
            yield known, text
        yield from in_json_text(text, names)
        if decoded != plain:
            yield from in_json_text(plain.decode("utf-8", "replace"), names)


def _unquoted(value: bytes) -> bytes:
    """`"a\\054b"` -> `a,b`: how Python's frameworks write what a cookie cannot hold."""
    if len(value) < 2 or value[:1] != b'"' or value[-1:] != b'"':
        return value
    return _COOKIE_ESCAPE.sub(lambda found: bytes((int(found[1], 8),)) if len(found[1]) == 3 else found[1], value[1:-1])


def meant(name: str, names: frozenset[str]) -> list[str]:
    """Which of the names a parameter or form field means: itself, or a part of `filter[t]`, `t[]`, `filter.t`."""
    if name in names:
        return [name]
    if "[" not in name and "." not in name:
        return []
    return [part for part in name.replace("]", "").replace("[", ".").split(".") if part in names]


def opens_json(text: str) -> bool:
    """The text may be a JSON object or array."""
    return text.lstrip(JSON_BLANKS)[:1] in ("{", "[")


def in_json_text(text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(name, id) of every member, doubled ones too, of a text that is JSON (`?filter={"tenant_id": ...}`); what is no
    id is empty. Raises `TooManyPairsError` for nesting that this parser cannot follow: another one may."""
    if not opens_json(text):
        return
    pairs: list[tuple[str, Any]] = []
    try:
        pairs += walk(json.loads(text.lstrip(JSON_BLANKS), object_pairs_hook=noting(names, pairs)), names)
    except RecursionError:
        raise TooManyPairsError from None
    except ValueError:
        return
    for name, found in pairs:
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
    """Header names that could carry a field: `tenant_id` -> `tenant-id`, `x-tenant-id`, `tenant_id`, `x_tenant-id`.

    WSGI makes one name of all mixtures of hyphens and underscores.
    """
    found: set[str] = set()
    for field in fields:
        words = "".join("-" + c.lower() if c.isupper() else c for c in field).replace("_", "-").split("-")
        for parts in (words, ["x", *words]):
            for marks in product("-_", repeat=min(len(parts) - 1, _MAX_MARKS)):
                found.add(
                    "".join(part + mark for part, mark in zip(parts, (*marks, *"-" * len(parts)), strict=False))[:-1]
                )
        joined = "".join(words)
        for name in (joined, field.lower()):
            found |= {name, f"x-{name}", f"x_{name}"}
    return frozenset(name.encode() for name in found)
