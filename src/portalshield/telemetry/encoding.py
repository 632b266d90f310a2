"""One record, one line of JSON that a strict parser reads and no terminal acts on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_LINE: Final = 4096
"""Bytes of a line, its end included: what a pipe keeps together."""
_SHORT: Final = 160
_ESSENTIAL: Final = (
    "timestamp",
    "level",
    "event",
    "request_id",
    "trace_id",
    "method",
    "route",
    "status",
    "duration_ms",
)


def encode(fields: Mapping[str, Any], tail: bytes = b"}") -> bytes:
    """The line, with its end, at most `MAX_LINE` bytes. `tail` holds members that never change (see `tail_of`).

    orjson where it can; what it refuses (lone surrogates, integers over 64 bit, odd keys, objects) or would print raw
    (DEL, C1, U+2028, bidi controls: everything that is not plain ASCII) takes the slow way and comes out escaped.
    """
    try:
        line = orjson.dumps(fields)
    except (TypeError, ValueError):
        line = _escaped(fields)
    if not line.isascii() or b"\x7f" in line:
        line = _escaped(fields)
    if len(line) + len(tail) > MAX_LINE:
        line = _shortened(fields, MAX_LINE - len(tail))
    return b"%b%b\n" % (line[:-1], tail)


def tail_of(fields: Mapping[str, Any]) -> bytes:
    """Members that stand at the end of every line, encoded once."""
    return b"," + _escaped(fields)[1:]


def _escaped(fields: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(_plain(fields, 0), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    except Exception:  # a log call must not fail: an object's own repr or hash may
        text = json.dumps({"event": "log_unprintable", "keys": len(fields)})
    return text.replace("\x7f", "\\u007f").encode("ascii")


def _plain(value: Any, depth: int) -> Any:
    """The value in JSON's own kinds; numbers JSON does not have become null."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value) if abs(int(value)) < 10**100 else "[TRUNCATED]"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > 16:
        return "[TRUNCATED]"
    if isinstance(value, Mapping):
        return {_key(name): _plain(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(member, depth + 1) for member in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _key(name: Any) -> str:
    return name if isinstance(name, str) else str(name)


def _shortened(fields: Mapping[str, Any], room: int) -> bytes:
    """The record with long texts cut and nested values left out; if that is too long still, its essential fields."""
    short = {_key(name)[:64]: _short(value) for name, value in fields.items()}
    line = _escaped({**short, "truncated": True})
    if len(line) <= room:
        return line
    essential: dict[str, Any] = {name: _short(short[name], 40) for name in _ESSENTIAL if name in short}
    return _escaped({**essential, "truncated": True})


def _short(value: Any, length: int = _SHORT) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else f"{value[:length]}[TRUNCATED]"
    if value is None or isinstance(value, bool | int | float):
        return value
    return "[TRUNCATED]"
