"""Which account does somebody try to enter: names that an application might take for the same one are one key.

Databases and frameworks compare names by rules of their own: MySQL's default collation ignores case and accents,
Django and others lower and normalise, many strip. Whoever could spell one account in many ways would have as many
attempts, so what any of them ignores is left out here (Unicode TR 15 and 36). Two accounts that differ by an accent
alone share their count, which costs them nothing but attempts.

The key is a keyed BLAKE2b (RFC 7693): a store that leaks shows no names, and none can be tried out against it.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b

LONGEST_NAME = 512
"""Characters that are looked at, blanks around it aside; no application has longer account names."""
_IGNORED = frozenset(("Mn", "Me", "Cf", "Cc", "Zs", "Zl", "Zp"))
"""Marks, invisible characters, control characters and blanks."""


def fold(name: str) -> str:
    """The name without case, accents, blanks and invisible characters; compatibility forms are one (NFKC), and so are
    the spellings of a number (`+042`, `42.0`, `4_2`).

    A name of marks or invisible characters alone is empty.
    """
    return _number(_text(name))


def _number(text: str) -> str:
    """`+042`, `4_2` and `42.0` are `42` to whoever makes a number of it; anything else stays."""
    whole, _, fraction = text.removeprefix("+").partition(".")
    digits = whole.replace("_", "")
    if not (digits.isascii() and digits.isdecimal()) or fraction.strip("0"):
        return text
    return digits.lstrip("0") or "0"


def _text(name: str) -> str:
    text = name.strip()[:LONGEST_NAME]
    if text.isascii() and text.isprintable() and " " not in text:
        return text.casefold()
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = (c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in _IGNORED)
    return unicodedata.normalize("NFKC", "".join(kept)).casefold()


class AccountKeys:
    """Keys of accounts under a secret of any length above 0."""

    __slots__ = ("_state",)

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("the secret is empty")
        key = blake2b(secret, digest_size=32, person=b"ps-login-key").digest()
        self._state = blake2b(key=key, digest_size=16, person=b"ps-login")

    def key(self, name: str) -> str:
        """32 hex digits, the same for every spelling that `fold` makes the same; empty for a name without any."""
        folded = fold(name)
        if not folded:
            return ""
        state = self._state.copy()
        state.update(folded.encode("utf-8", "surrogatepass"))
        return state.hexdigest()
