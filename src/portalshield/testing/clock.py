"""A clock that stands still until it is told: for stores, token verifiers and everything else that takes a clock."""

from __future__ import annotations


class FrozenClock:
    """Call it for the time in seconds; `advance` moves it, backwards too."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.now += seconds
