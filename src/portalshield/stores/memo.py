"""A bounded memo whose answers expire: two generations, so that eviction costs nothing on a hit and needs no lock."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class TimedMemo(Generic[V]):
    """Keeps at most `entries` values, each for at most `ttl_s` seconds; `ttl_s=0` keeps nothing."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._half = max(1, entries // 2)
        self._ttl_s = ttl_s
        self._young: dict[Hashable, tuple[float, V]] = {}
        self._old: dict[Hashable, tuple[float, V]] = {}

    def get(self, key: Hashable, now: float) -> V | None:
        """The value, unless it is older than `ttl_s` or lies in the future (a clock that stepped back)."""
        entry = self._young.get(key) or self._old.get(key)
        if entry is None or not 0 <= now - entry[0] < self._ttl_s:
            return None
        return entry[1]

    def put(self, key: Hashable, value: V, now: float) -> None:
        """Remember a value; when a generation is full the older one is dropped whole."""
        if self._ttl_s <= 0:
            return
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = (now, value)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
