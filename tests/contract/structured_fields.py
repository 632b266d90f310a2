"""A strict reader of structured field lists (RFC 9651, 4.2.1), as far as RateLimit fields use them.

Items are strings or integers with parameters; inner lists, decimals, tokens, byte sequences, dates and display strings
are none of what these fields may hold (draft-ietf-httpapi-ratelimit-headers-10), so they are errors.
"""

from __future__ import annotations

Item = tuple[str, dict[str, int | str]]
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_KEY_START = frozenset(_LOWER + "*")
_KEY = frozenset(_LOWER + "0123456789_-.*")
_DIGITS = frozenset("0123456789")


class _Text:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str = "") -> str:
        found = self.next
        assert found, "the field ends too early"
        assert not wanted or found == wanted, f"{found!r} where {wanted!r} should stand"
        self.at += 1
        return found

    def skip(self, characters: str) -> None:
        while self.next and self.next in characters:
            self.at += 1


def parse_list(field: str) -> list[Item]:
    """The members of a list of strings; AssertionError for anything that is not strictly one."""
    assert field.isascii()
    text = _Text(field)
    text.skip(" ")
    members: list[Item] = []
    while True:
        members.append((_string(text), _parameters(text)))
        text.skip(" \t")
        if not text.next:
            return members
        text.take(",")
        text.skip(" \t")
        assert text.next, "a trailing comma"


def _parameters(text: _Text) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    while text.next == ";":
        text.take()
        text.skip(" ")
        key = text.take()
        assert key in _KEY_START
        while text.next and text.next in _KEY:
            key += text.take()
        assert key not in found, "a parameter twice"
        text.take("=")
        found[key] = _string(text) if text.next == '"' else _integer(text)
    return found


def _string(text: _Text) -> str:
    text.take('"')
    found = ""
    while (character := text.take()) != '"':
        if character == "\\":
            character = text.take()
            assert character in '"\\'
        assert " " <= character <= "~"
        found += character
    return found


def _integer(text: _Text) -> int:
    digits = text.take() if text.next == "-" else ""
    while text.next and text.next in _DIGITS:
        digits += text.take()
    assert 1 <= len(digits.lstrip("-")) <= 15
    return int(digits)
