"""What this interpreter promises to code that takes no lock."""

from __future__ import annotations

import sys


def switches_at_calls_only() -> bool:
    """Other threads get their turn at calls and at jumps backwards, never between two additions (CPython with its
    global lock); False for builds without one (PEP 703)."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
