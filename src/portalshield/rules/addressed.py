"""Which ids does a request address: every occurrence of the given names in query, form and cookies.

A framework reads the first or the last of repeated names, so all of them count; `t[]`, `filter[t]` and `filter.t` are
spellings that query libraries unfold, and a value may be JSON, whose strings may be JSON again. JSON bodies are walked
by `strict_json.walk`.

Readers differ on blanks: a server hands over bytes, and a framework that makes text of them as Latin-1 strips U+00A0
and U+0085 along with the blanks of ASCII. So a name is looked at without any blanks around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from portalshield.rules.strict_json import noting, walk

MAX_PAIRS = 1000
MAX_TEXTS = 1000
"""JSON texts in the strings of one value that are judged."""
MAX_LAYERS = 8
"""Of JSON in a string of JSON in a string, and so on."""
_OPENS = frozenset((b"{", b"[", b"%"))
JSON_BLANKS = (
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""What may stand around a JSON text: all that `str.strip` removes, and a byte order mark."""
_LATIN_BLANKS = JSON_BLANKS[:12].encode("latin-1")
"""What `str.strip` removes of a text in Latin-1."""
_BEFORE = bytes(range(0x21)) + b"+" + bytes(range(0x80, 0x100))
"""What may stand before a JSON text in a query: blanks, in any encoding."""
_COOKIE_ESCAPE = re.compile(rb"\\([0-3][0-7]{2}|.)", re.DOTALL)
_QUOTED = re.compile(rb'=[ \t]*+(?=("[^"\\]*+(?:\\.[^"\\]*+)*+"))', re.DOTALL)
"""A quoted cookie value, semicolons included. Each opening quote ends the look at the one before it: linear."""
_LONGEST_NUMBER = 4300
MAX_ID = 128
_MAX_MARKS = 6


class TooManyPairsError(ValueError):
    """More parameters, or deeper ones, than anybody sends on purpose."""


def names_occur(data: bytes, names: tuple[bytes, ...]) -> bool:
    """Could one of the names be in this query? A cheap no for almost all requests; encoded names (`%`, in JSON and
    quoted cookies a backslash, in Latin-1 whatever is not ASCII) are a maybe."""
    return b"%" in data or b"\\" in data or not data.isascii() or any(name in data for name in names)


def in_query(data: bytes, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of every parameter of these names in an urlencoded text (WHATWG URL, urlencoded parsing).

    Raises `TooManyPairsError` above 1,000 parameters, and for JSON in a value that goes too deep to be judged.
    """
    pairs = data.split(b"&")
    if len(pairs) > MAX_PAIRS:
        raise TooManyPairsError
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        for known in meant(_text(_bytes(name)), names):
            yield known, _bytes(value).decode("utf-8", "replace")
        if value[:1] in _OPENS or value.lstrip(_BEFORE)[:1] in _OPENS:
            yield from in_json_text(_text(_bytes(value)), names)


def in_form(data: bytes, names: frozenset[str], *, cut: bool = False) -> Iterator[tuple[str, str]]:
    """The same of a form in a body, which python-multipart before 0.0.30 splits at `;` too: both readings.

    What stands behind a `;` may be a field, up to the next one or, at the beginning of a pair, to the `&`. `cut`: a
    value that has a `;` is also what stands before that; without it only if that is JSON, so that an id with a `;` in
    it is one id.
    """
    yield from in_query(data, names)
    if b";" not in data:
        return
    fields: list[bytes] = []
    for whole in data.split(b"&"):
        pair = whole.lstrip(b";")
        if pair != whole:
            fields.append(pair)
        first, semicolon, rest = pair.partition(b";")
        if semicolon:
            _, equals, value = first.partition(b"=")
            fields += [first if cut or not equals else b"=" + value, *rest.split(b";")]
    yield from in_query(b"&".join(fields), names)


def in_cookies(field: bytes, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The same of a Cookie field, unquoted as frameworks do and percent-decoded, as many handlers go on to do. JSON is
    read both before and after that, stripped of the blanks of ASCII and of those of Latin-1."""
    texts: dict[bytes, None] = {}
    for pair in field.split(b";"):
        name, equals, value = pair.partition(b"=")
        value = value if equals else name  # Starlette gives it the empty name
        plain = _unquoted(value.strip())
        for known in meant(_text(unquote_to_bytes(name)).strip(), names) if equals else ():
            yield known, _text(unquote_to_bytes(plain))
        texts |= {plain: None, _unquoted(value.strip(_LATIN_BLANKS)): None}
    if b'"' in field:
        # Werkzeug takes a semicolon between quotes for one of the value.
        texts |= {_unquoted(found[1]): None for found in _QUOTED.finditer(field) if b";" in found[1]}
    for text in texts:
        decoded = unquote_to_bytes(text)
        yield from in_json_text(_text(decoded), names)
        if decoded != text:
            yield from in_json_text(_text(text), names)


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
    if opens_json(text):
        for name, found in in_strings([text], names):
            yield name, as_id(found) or ""


def in_strings(value: Any, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every member of the JSON texts that stand as strings anywhere in a value, and in their strings.

    A string that is no JSON is left alone. Raises `TooManyPairsError` above 1,000 texts that might name something, and
    for nesting, within one or of one in the other, that goes too deep.
    """
    texts = list(_telling(value, names))
    seen = 0
    for _ in range(MAX_LAYERS):
        seen += len(texts)
        if seen > MAX_TEXTS:
            raise TooManyPairsError
        inner: list[str] = []
        for text in texts:
            found: list[tuple[str, Any]] = []
            document = _document(text, names, found)
            yield from found
            inner += _telling(document, names)
        texts = inner
    if texts:
        raise TooManyPairsError


def _telling(value: Any, names: frozenset[str]) -> Iterator[str]:
    """Strings that open JSON, with a name or an escape in it."""
    left = [value]
    while left:
        item = left.pop()
        if type(item) is str:
            if '"' in item and opens_json(item) and ("\\" in item or any(name in item for name in _pointed(names))):
                yield item
        elif type(item) is dict:
            left += item.values()
        elif type(item) is list:
            left += item


@lru_cache(maxsize=256)
def _pointed(names: frozenset[str]) -> tuple[str, ...]:
    """The names, also as JSON Patch spells them (RFC 6901, section 3)."""
    return tuple(sorted(names | {name.replace("~", "~0").replace("/", "~1") for name in names}))


def _document(text: str, names: frozenset[str], found: list[tuple[str, Any]]) -> list[Any]:
    """The value of a JSON text, and whatever stood under doubled names in it; adds the members of the names."""
    members: list[tuple[str, Any]] = []
    values: list[Any] = []
    try:
        values.append(loose_decoder(names, members, values).decode(text.strip(JSON_BLANKS)))
    except RecursionError:
        raise TooManyPairsError from None
    except ValueError:
        return []
    found += members
    found += walk(values[-1], names)
    return values


def loose_decoder(names: frozenset[str], found: list[tuple[str, Any]], doubled: list[Any]) -> json.JSONDecoder:
    """Reads what any parser might: line ends in strings, numbers of any length (as text, which is no id).

    Adds members of these names to `found`, and to `doubled` the values of objects in which a name stands twice.
    """
    note = noting(names, found)

    def every_pair(members: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = note(members)
        if len(unique) < len(members):
            doubled.append([value for _, value in members])
        return unique

    return json.JSONDecoder(object_pairs_hook=every_pair, parse_int=_whole, strict=False)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else digits


def _bytes(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _text(data: bytes) -> str:
    """UTF-8; what is none is Latin-1, as the frameworks of ASGI read all of it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


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
