"""Which ids does a body address: every occurrence of the given names, read the way any handler might read it.

Handlers that call `request.json()` ignore the content type, and the parser there takes UTF-16, NaN and duplicate names:
a body that no strict parser has read is read here as loosely as they would.
"""

from __future__ import annotations

import json
import re
from typing import Any

from portalshield.model.exchange import UNREAD
from portalshield.rules.addressed import in_query
from portalshield.rules.media_types import parse_media_type
from portalshield.rules.strict_json import mentions, noting, walk

_BLANKS = re.compile(r"[ \t\r\n\x1e]*")
_FORM = "application/x-www-form-urlencoded"


class UnreadableError(ValueError):
    """Nobody here can say what a handler would read."""


def in_body(body: bytes, parsed: Any, content_type: bytes | None, names: frozenset[str]) -> list[tuple[str, Any]]:
    """(name, value) of every member and field of these names; `parsed` is the strictly parsed JSON or `UNREAD`.

    Not for multipart forms (`rules/multipart.py`). Raises `TooManyPairsError` for a form of more than 1,000 fields,
    `UnreadableError` for nesting that goes too deep.
    """
    if parsed is not UNREAD:
        return list(walk(parsed, names)) if mentions(body, names) else []
    found = _as_any_json(body, names)
    media = parse_media_type(content_type or b"")
    # A type that is none may still be taken for a form by parsers that look for a part of it.
    if media is None or media.essence == _FORM:
        found += in_query(body, names)
    return found


def _as_any_json(body: bytes, names: frozenset[str]) -> list[tuple[str, Any]]:
    """All JSON texts that stand in the body one after the other (NDJSON), as far as a parser would get.

    Bytes that are no UTF-8 are replaced, as frameworks do that hand a body over as text. Nesting that this parser
    cannot follow another one may: `UnreadableError`.
    """
    found: list[tuple[str, Any]] = []
    decode = json.JSONDecoder(object_pairs_hook=noting(names, found)).raw_decode
    text = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff")
    at = 0
    try:
        while (start := _BLANKS.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, at = decode(text, start)
            found += walk(value, names)
    except RecursionError:
        raise UnreadableError from None
    except ValueError:
        return found
    return found
