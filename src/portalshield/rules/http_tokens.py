"""Tokens of HTTP (RFC 9110, 5.6.2): names of fields, methods, parameters and cookies are such."""

from __future__ import annotations

_TCHARS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def is_token(text: str) -> bool:
    """One or more of the characters that a token may have; no blank, no separator, nothing beyond ASCII."""
    return bool(text) and _TCHARS.issuperset(text)
