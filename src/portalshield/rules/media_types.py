"""Media types: a strict reading of `Content-Type`, and lists of what is accepted.

Grammar of RFC 9110, 8.3.1 and 5.6: `type/subtype` and parameters, tokens or quoted strings. What two parsers could read
differently (a doubled parameter, bytes beyond ASCII) is no media type here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from portalshield.rules.http_tokens import is_token

_MAX_BYTES = 512
_MEMO_ENTRIES = 512
_QUOTABLE = frozenset("\t " + "".join(map(chr, range(0x21, 0x7F))))
_BLANK = " \t"


class MediaType:
    """A media type. `type`, `subtype` and parameter names are in lower case, values as they came, unquoted.

    `essence` is `type/subtype`; `is_json`: `application/json`, `text/json` and every `+json` type, what frameworks hand
    to a JSON parser. Shared between requests: treat it as frozen.
    """

    __slots__ = ("essence", "is_json", "parameters", "subtype", "type")

    def __init__(self, type: str, subtype: str, parameters: tuple[tuple[str, str], ...] = ()) -> None:
        self.type = type
        self.subtype = subtype
        self.parameters = parameters
        self.essence = f"{type}/{subtype}"
        self.is_json = subtype.endswith("+json") or self.essence in ("application/json", "text/json")

    def parameter(self, name: str) -> str | None:
        """The value of a parameter by its lower-case name."""
        return next((value for key, value in self.parameters if key == name), None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MediaType):
            return NotImplemented
        return self.essence == other.essence and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash((self.essence, self.parameters))

    def __repr__(self) -> str:
        return f"MediaType({self.essence!r}, {self.parameters!r})"


_MEMO: dict[bytes, MediaType] = {}


def parse_media_type(value: bytes) -> MediaType | None:
    """The media type in a `Content-Type` value; None if it is not exactly one well-formed media type.

    One dict lookup for a value that came before; the memo holds at most 512 well-formed values.
    """
    known = _MEMO.get(value)
    if known is not None:
        return known
    media = _parse(value)
    if media is not None:
        if len(_MEMO) >= _MEMO_ENTRIES:
            _MEMO.clear()
        _MEMO[value] = media
    return media


def matches(media: MediaType, allowed: Sequence[str]) -> bool:
    """Whether a media type is on a list.

    Entries are exact types without parameters, or ranges: `*` and `*/*`, `image/*`, `application/*+json`, `*/*+json`;
    in any case.
    """
    if media.essence in allowed:
        return True
    return _judge(media.type, media.subtype, tuple(allowed))


@lru_cache(maxsize=_MEMO_ENTRIES)
def _judge(type: str, subtype: str, allowed: tuple[str, ...]) -> bool:
    return any(_in_range(type, subtype, entry.strip().lower()) for entry in allowed)


def _in_range(type: str, subtype: str, entry: str) -> bool:
    if entry == "*":
        return True
    wanted_type, _, wanted = entry.partition("/")
    if wanted_type not in ("*", type):
        return False
    if wanted.startswith("*+"):
        suffix = wanted[1:]
        return subtype.endswith(suffix) and len(subtype) > len(suffix)
    return wanted in ("*", subtype)


# -- grammar ----------------------------------------------------------------------------------------------------------


def _parse(value: bytes) -> MediaType | None:
    if len(value) > _MAX_BYTES or not value.isascii():
        return None
    head, semicolon, rest = value.decode("ascii").strip(_BLANK).partition(";")
    type, slash, subtype = head.rstrip(_BLANK).lower().partition("/")
    if not slash or not is_token(type) or not is_token(subtype) or "*" in (type, subtype):
        return None
    parameters = _parameters(semicolon + rest)
    return None if parameters is None else MediaType(type, subtype, parameters)


def _parameters(text: str) -> tuple[tuple[str, str], ...] | None:
    """`; a=b; c="d"` from left to right; None where the grammar ends or a name comes twice."""
    found: dict[str, str] = {}
    while text:
        if not text.startswith(";"):
            return None
        text = text[1:].lstrip(_BLANK)
        if not text or text.startswith(";"):
            continue
        name, equals, text = text.partition("=")
        name = name.lower()
        if not equals or not is_token(name) or name in found:
            return None
        value, text = _value(text)
        if value is None:
            return None
        found[name] = value
        text = text.lstrip(_BLANK)
    return tuple(found.items())


def _value(text: str) -> tuple[str | None, str]:
    """A token or a quoted string, and what stands behind it."""
    if not text.startswith('"'):
        value, semicolon, rest = text.partition(";")
        value = value.rstrip(_BLANK)
        return (value if is_token(value) else None), semicolon + rest
    characters: list[str] = []
    position = 1
    while position < len(text):
        character = text[position]
        if character == '"':
            return "".join(characters), text[position + 1 :]
        if character == "\\":
            position += 1
            character = text[position : position + 1]
        if character not in _QUOTABLE:
            break
        characters.append(character)
        position += 1
    return None, ""
