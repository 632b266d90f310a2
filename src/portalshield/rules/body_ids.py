"""Which ids does a body address: every occurrence of the given names, read the way any handler might read it.

Handlers that call `request.json()` ignore the content type, and the parser there takes UTF-16, NaN and duplicate names:
a body that no strict parser has read is read here as loosely as they would.
"""

from __future__ import annotations

import json
from typing import Any

from portalshield.model.exchange import UNREAD
from portalshield.rules.addressed import in_query
from portalshield.rules.media_types import parse_media_type
from portalshield.rules.strict_json import mentions, walk

_FORM = "application/x-www-form-urlencoded"


def in_body(body: bytes, parsed: Any, content_type: bytes | None, names: frozenset[str]) -> list[tuple[str, Any]]:
    """(name, value) of every member and field of these names; `parsed` is the strictly parsed JSON or `UNREAD`.

    Not for multipart forms (`rules/multipart.py`). Raises `TooManyPairsError` for a form of more than 1,000 fields.
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
    found: list[tuple[str, Any]] = []

    def every_pair(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.extend(pair for pair in pairs if pair[0] in names)
        return dict(pairs)

    try:
        value = json.loads(body, object_pairs_hook=every_pair)
    except (ValueError, RecursionError):
        return []
    return found + list(walk(value, names))
