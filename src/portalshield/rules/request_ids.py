"""Request ids that somebody else drew: whether they may stand in lines, fields and pages as they are."""

from __future__ import annotations

_ALLOWED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


def is_usable(given: bytes) -> bool:
    """8 to 64 letters, digits, hyphens and underscores: nothing that a log, a header field or markup could misread."""
    return 8 <= len(given) <= 64 and not given.translate(None, _ALLOWED)
