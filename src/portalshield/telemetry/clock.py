"""Wall time for telemetry: the one place besides the doors that reads it."""

from __future__ import annotations

import time

_second = -1
_prefix = ""


def now() -> float:
    """Unix seconds."""
    return time.time()


def monotonic() -> float:
    """Seconds of a clock that never goes back."""
    return time.monotonic()


def stamp(at: float) -> str:
    """Unix seconds as `2026-01-02T03:04:05.678Z`; the text of the last second is kept, only milliseconds are new."""
    global _second, _prefix
    second, millisecond = divmod(int(at * 1000), 1000)
    if second == _second:
        prefix = _prefix
    else:
        prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        # Two threads may store different seconds; each uses its own text, the pair is only a memo.
        _second, _prefix = -1, prefix
        _second = second
    return f"{prefix}{millisecond:03d}Z"
