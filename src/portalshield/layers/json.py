"""Strict JSON: what passes here means the same to every parser behind it (RFC 8259, RFC 7493).

Refuses with 400: no UTF-8, a BOM, duplicate names, infinite numbers, lone surrogates, too deep, too many names or
items, anything behind the value. Parsers disagree on exactly these, and a guard that reads them differently than the
handler is no guard. The bytes are handed on unchanged. Costs one parse.
"""

from __future__ import annotations

from portalshield.model.exchange import Exchange
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.strict_json import JSONFault, parse


class JsonStage:
    """The bounds of one application."""

    layer = "json"
    judges_body = True

    def __init__(self, max_depth: int, max_keys: int, max_items: int) -> None:
        self._max_depth = max_depth
        self._max_keys = max_keys
        self._max_items = max_items

    def check(self, x: Exchange) -> Verdict:
        """Parse a body whose content type is JSON and keep the value."""
        if not x.body or not x.body_complete or x.media is None or not x.media.is_json:
            return None
        try:
            x.json = parse(x.body, max_depth=self._max_depth, max_keys=self._max_keys, max_items=self._max_items)
        except JSONFault as fault:
            return problem("malformed-request", why=f"json-{fault.code}")
        return None
