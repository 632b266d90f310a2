"""How JOSE writes bytes and objects (RFC 7515, 2 and 4): canonical base64url, and JSON with one meaning.

Read strictly, because two spellings of one token, or two readings of one member, are two tokens for somebody.
"""

from __future__ import annotations

import binascii
import json
import math
from typing import Any, NoReturn

BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TO_STANDARD = bytes.maketrans(b"-_", b"+/")
"""For `bytes.translate`: base64url to plain base64."""
# The last character of a segment whose unused bits are zero, by length modulo 4. Anything else is a second spelling of
# the same bytes: a denylist of token texts would miss it.
_LAST = (BASE64URL, b"", b"AQgw", b"AEIMQUYcgkosw048")


def from_base64url(segment: bytes) -> bytes:
    """The bytes of an unpadded, canonical base64url segment; the caller has checked the alphabet. `ValueError` else."""
    if segment and segment[-1] not in _LAST[len(segment) & 3]:
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(segment.translate(TO_STANDARD) + b"==")


class Frozen(dict[str, Any]):
    """A JSON object that cannot be changed: a handler must not alter what the next request with this token sees."""

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("claims cannot be changed; copy them first: dict(claims)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def _frozen_list(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen_list(value) if type(value) is list else value for value in values)


def _object(pairs: list[tuple[str, Any]]) -> Frozen:
    found = Frozen(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member name comes twice")
    for name, value in pairs:
        if type(value) is list:
            dict.__setitem__(found, name, _frozen_list(value))
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)


def json_object(raw: bytes, max_depth: int) -> Frozen:
    """One JSON object in strict UTF-8, frozen, arrays as tuples.

    `ValueError` for anything else: a BOM, a member name twice, NaN or Infinity, a lone surrogate, more than `max_depth`
    levels (counted before parsing, so that nesting never reaches the parser's recursion).
    """
    if raw.count(b"{") + raw.count(b"[") > max_depth and _depth(raw) > max_depth:
        raise ValueError("nested too deeply")
    found = _DECODER.decode(raw.decode())
    if type(found) is not Frozen:
        raise ValueError("not an object")
    if b"\\ud" in raw or b"\\uD" in raw:  # an escaped surrogate: a lone one would explode later, in a log or a database
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _depth(raw: bytes) -> int:
    outside = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    depth = deepest = 0
    for byte in outside:
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest
