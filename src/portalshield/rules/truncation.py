"""Cutting a text so that nothing half is left: half a token, card or IBAN could not be recognised any more."""

from __future__ import annotations

from typing import Final

TRUNCATED: Final = "[TRUNCATED]"
MAX_TEXT: Final = 8192
"""Characters of one text that are looked at; the rest is cut off at a delimiter."""

_DELIMITERS: Final = (" ", "\n", "\t", ",", ";", "&", '"', "'", "<", ">", "|")
_PIECE: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ -.()/+")


def cut_text(text: str, limit: int = MAX_TEXT) -> str:
    """The beginning of a text, with room for the mark, back to a delimiter and past digit groups it may split."""
    head = text[: max(0, limit - len(TRUNCATED))]
    cut = max(map(head.rfind, _DELIMITERS)) + 1
    head = head[:cut]
    while True:
        stripped = head.rstrip()
        space = max(stripped.rfind(mark, len(stripped) - 64 if len(stripped) > 64 else 0) for mark in _DELIMITERS) + 1
        piece = stripped[space:]
        if not piece or len(piece) > 20 or not _PIECE.issuperset(piece) or not any(map(str.isdigit, piece)):
            return head
        head = stripped[:space]
