"""A response that is held back until it was judged, and how many of an application's answers could be judged at all.

Sans-IO: a door feeds it what the application answers, head to last byte, and asks the runtime to settle it.
"""

from __future__ import annotations

import threading
from typing import Any


class Held:
    """The body of one response, at most the length that it declared and the chunk that broke it."""

    __slots__ = ("_chunks", "_left", "judges", "status")

    def __init__(self, judges: list[tuple[Any, float]], status: int, declared: int) -> None:
        self.judges = judges
        self.status = status
        self._left = declared
        self._chunks: list[bytes] = []

    def take(self, chunk: bytes) -> bool:
        """Keep a chunk. False: more came than was declared, and there is nothing to wait for."""
        self._chunks.append(chunk)
        self._left -= len(chunk)
        return self._left >= 0

    @property
    def complete(self) -> bool:
        """As much came as was declared."""
        return not self._left

    @property
    def body(self) -> bytes:
        """What came."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


class Coverage:
    """How many JSON answers of each route showed whose they are. As many entries as there are routes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: dict[str, list[int]] = {}

    def count(self, template: str, *, covered: bool) -> None:
        """One more answer of a route."""
        with self._lock:
            counts = self._routes.get(template)
            if counts is None:
                counts = self._routes[template] = [0, 0]
            counts[0 if covered else 1] += 1

    def read(self) -> dict[str, tuple[int, int]]:
        """Template -> (covered, uncovered)."""
        with self._lock:
            return {template: (counts[0], counts[1]) for template, counts in self._routes.items()}
