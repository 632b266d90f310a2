"""The text of a setting: comma lists, durations, sizes, booleans. A `ValueError` never repeats the text."""

from __future__ import annotations

_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_DIGITS = frozenset("0123456789")


def comma_list(text: str) -> tuple[str, ...]:
    """`"a, b"` -> `("a", "b")`; empty entries (a trailing comma) are dropped."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def boolean(text: str) -> bool:
    """`true`, `false`, `1`, `0`, any case; `yes`, `no`, `on`, `off` too."""
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError("is not a boolean: write true or false") from None


def duration_s(text: str) -> float:
    """`15m`, `30s`, `250ms`, `1.5h`, `7d`; a bare number is seconds."""
    return _measure(text, _SECONDS, "is not a duration: write 30s, 15m, 24h or 7d")


def size_bytes(text: str) -> int:
    """`2MB` = 2,000,000, `1MiB` = 1,048,576; a bare number is bytes."""
    return int(_measure(text, _BYTES, "is not a size: write 500KB, 2MB or 1MiB"))


def number(text: str) -> int:
    """A whole number >= 0 in ASCII digits, underscores allowed between them."""
    digits = text.strip().replace("_", "")
    if not digits or not set(digits) <= _DIGITS or len(digits) > 18:
        raise ValueError("is not a whole number")
    return int(digits)


def share(text: str) -> float:
    """A share from 0 to 1: `0.25` or `25%`."""
    stripped = text.strip()
    value = _decimal(stripped.removesuffix("%"), "is not a share: write 0.25 or 25%")
    value = value / 100 if stripped.endswith("%") else value
    if value > 1:
        raise ValueError("is not a share: write 0.25 or 25%")
    return value


def _measure(text: str, units: dict[str, float] | dict[str, int], complaint: str) -> float:
    stripped = text.strip().lower().replace(" ", "")
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = stripped[len(digits) :]
    if unit not in units:
        raise ValueError(complaint)
    return _decimal(digits, complaint) * units[unit]


def _decimal(digits: str, complaint: str) -> float:
    whole, _, fraction = digits.replace("_", "").partition(".")
    if not set(whole + fraction) <= _DIGITS or not whole or len(whole + fraction) > 18:
        raise ValueError(complaint)
    return float(f"{whole}.{fraction or 0}")
