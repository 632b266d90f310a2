"""Which account does somebody try to enter: names that an application might take for the same one are one key.

Databases and frameworks compare names by rules of their own: MySQL's default collation ignores case and accents,
Django compares upper case (in which a dotless i is an I), many lower, normalise and strip. Whoever could spell one
account in many ways would have as many attempts, so what any of them ignores is left out here (Unicode TR 15 and 36).
Two accounts that differ by an accent alone share their count, which costs them nothing but attempts.

The key is a keyed BLAKE2b (RFC 7693): a store that leaks shows no names, and none can be tried out against it.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

LONGEST_NAME = 512
"""Characters, blanks around it aside; no application has longer account names. Cutting one would make a new key."""
_IGNORED = frozenset(("Mn", "Me", "Cf", "Cc", "Cn", "Zs", "Zl", "Zp"))
"""Marks, invisible characters, control characters, what is no character yet, and blanks."""
_LATIN = re.compile(r"LATIN (?:SMALL|CAPITAL) (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH .*)?")
_BLOCKS = ((0xC0, 0x250), (0x250, 0x2B0), (0x1D00, 0x1DC0), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA800))
_OTHERS = {"\u00f0": "d", "\u00fe": "th", "\u014b": "n", "\u0237": "j", "\u0269": "i"}
_FILLERS = dict.fromkeys("\u115f\u1160\u3164\uffa0", "")
"""Letters of Hangul that nobody sees."""


def _base_letters() -> dict[int, str]:
    """`\u00f8` -> `o`, `\u00e6` -> `ae`: strokes, hooks and ligatures, which normalisation leaves alone."""
    letters = [chr(code) for first, end in _BLOCKS for code in range(first, end)]
    named = {
        letter: found[1].lower() for letter in letters if (found := _LATIN.fullmatch(unicodedata.name(letter, "")))
    }
    return str.maketrans({**named, **_OTHERS, **_FILLERS})


_BASE = _base_letters()
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
"""Emoji and rare scripts, all of which are one character to MySQL's older collations."""


class NameTooLongError(ValueError):
    """A name of more than 512 characters."""


def fold(name: str) -> str:
    """The name without case, accents, blanks and invisible characters; compatibility forms are one (NFKC), letters with
    strokes and ligatures are plain letters, and the spellings of a number are one (`+042`, `42.0`, `4_2`).

    A name of marks or invisible characters alone is empty. Raises `NameTooLongError`.
    """
    return _number(_letters(name))


def _number(text: str) -> str:
    """`+042`, `4_2` and `42.0` are `42` to whoever makes a number of it; anything else stays."""
    whole, _, fraction = text.removeprefix("+").partition(".")
    digits = whole.replace("_", "")
    if not (digits.isascii() and digits.isdecimal()) or fraction.strip("0"):
        return text
    return digits.lstrip("0") or "0"


def _letters(name: str) -> str:
    text = name.strip()
    if len(text) > LONGEST_NAME:
        raise NameTooLongError
    if text.isascii() and text.isprintable() and " " not in text:
        return text.casefold()
    for _ in range(_ROUNDS):
        before, text = text, _plainer(text)
        if text == before:
            break
    return text


_ROUNDS = 4
"""What is left of a letter may be one that folds again."""


def _plainer(text: str) -> str:
    # Upper case first: a dotless i has one, and it is that of the i.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).upper().casefold())
    kept = [c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in _IGNORED]
    return _BEYOND.sub("\ufffd", unicodedata.normalize("NFKC", "".join(kept).translate(_BASE)))


class AccountKeys:
    """Keys of accounts under a secret of any length above 0."""

    __slots__ = ("_state",)

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("the secret is empty")
        key = blake2b(secret, digest_size=32, person=b"ps-login-key").digest()
        self._state = blake2b(key=key, digest_size=16, person=b"ps-login")

    def key(self, name: str) -> str:
        """32 hex digits, the same for every spelling that `fold` makes the same; empty for an empty name alone.

        Raises `NameTooLongError`.
        """
        if not name:
            return ""
        folded = fold(name)
        state = self._state.copy()
        state.update(folded.encode("utf-8", "surrogatepass"))
        return state.hexdigest()
