"""Which ids does a body address: every occurrence of the given names, read the way any handler might read it.

Handlers that call `request.json()` ignore the content type, and the parser there takes UTF-16, NaN and duplicate names:
a body that no strict parser has read is read here as loosely as they would. A string that is JSON is judged as JSON: a
model with a field of type `Json` reads it so.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from portalshield.model.exchange import UNREAD
from portalshield.rules.addressed import JSON_BLANKS, in_form, in_strings, loose_decoder
from portalshield.rules.media_types import parse_media_type
from portalshield.rules.strict_json import inner_needles, mentions, needs_no_escape, occur, walk

_BLANKS = re.compile(f"[{JSON_BLANKS}]*")
# The escape of an ASCII character, or an escape within an escaped text.
_HIDING = re.compile(rb"\\u00[0-7]|\\\\u").search
_FORM = "application/x-www-form-urlencoded"


class UnreadableError(ValueError):
    """Nobody here can say what a handler would read."""


def in_body(
    body: bytes, parsed: Any, content_type: bytes | None, names: frozenset[str], *, cut: bool = False
) -> list[tuple[str, Any]]:
    """(name, value) of every member and field of these names; `parsed` is the strictly parsed JSON or `UNREAD`.

    `cut`: see `in_form`. Not for multipart forms (`rules/multipart.py`). Raises `TooManyPairsError` for a form of more
    than 1,000 fields and for JSON in strings of JSON that goes too deep, `UnreadableError` for other nesting that does.
    """
    if parsed is not UNREAD:
        if not mentions(body, names):
            return []
        found = list(walk(parsed, names))
        return found + list(in_strings(parsed, names)) if _may_nest(body, names) else found
    found = _as_any_json(body, names)
    media = parse_media_type(content_type or b"")
    # A type that is none may still be taken for a form by parsers that look for a part of it.
    if media is None or media.essence == _FORM:
        found += in_form(body, names, cut=cut)
    return found


def _may_nest(body: bytes, names: frozenset[str]) -> bool:
    """A string of this JSON may be JSON that names something: there are quotes in strings, and a name before one, or an
    escape that could hide it."""
    if b'\\"' not in body and b"\\u0022" not in body:
        return False
    needles, any_escape = _inner(names)
    return any_escape or occur(needles, body) or _HIDING(body) is not None


@lru_cache(maxsize=256)
def _inner(names: frozenset[str]) -> tuple[tuple[bytes, ...], bool]:
    """What to look for; whether any escape at all could hide one of the names."""
    return inner_needles(names), not all(name.isascii() and needs_no_escape(name) for name in names)


def _as_any_json(body: bytes, names: frozenset[str]) -> list[tuple[str, Any]]:
    """All JSON texts that stand in the body one after the other (NDJSON), as far as a parser would get.

    Bytes that are no UTF-8 are replaced, as frameworks do that hand a body over as text. Nesting that this parser
    cannot follow another one may: `UnreadableError`.
    """
    found: list[tuple[str, Any]] = []
    values: list[Any] = []
    decode = loose_decoder(names, found, values).raw_decode
    text = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff")
    at = 0
    try:
        while (start := _BLANKS.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, at = decode(text, start)
            found += walk(value, names)
            values.append(value)
    except RecursionError:
        raise UnreadableError from None
    except ValueError:
        pass  # as far as a parser gets
    return found + list(in_strings(values, names))
