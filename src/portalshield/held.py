"""A response while it leaves: held back until it was judged, kept for those who conclude; and how many of an
application's answers could be judged at all.

Sans-IO: a door feeds it what the application answers, head to last byte, and asks the runtime to settle it.
"""

from __future__ import annotations

from collections.abc import Iterable

from portalshield.model.ending import Ending
from portalshield.model.verdicts import Fields


class Held:
    """The body of one response that somebody reads, at most the length that it declared and the chunk that broke it.

    `waits`: it may be refused, so nothing of it leaves before it was judged. `left` is how many bytes are missing
    still; 0: as much came as was declared.
    """

    __slots__ = ("chunks", "left", "status", "waits")

    def __init__(self, status: int, declared: int, waits: bool) -> None:
        self.status = status
        self.left = declared
        self.waits = waits
        self.chunks: list[bytes] = []

    def take(self, chunk: bytes) -> bool:
        """Keep a chunk. False: more came than was declared, and there is nothing to wait for."""
        self.chunks.append(chunk)
        self.left -= len(chunk)
        return self.left >= 0

    @property
    def body(self) -> bytes:
        """What came."""
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)


class Answered:
    """What an application answers, for those who conclude: its head, and its body as far as somebody keeps it.

    `keeps` is the largest body that anybody wants, in bytes. `concluded`: they were told.
    """

    __slots__ = ("_chunks", "_declared", "_fields", "_left", "_pieces", "_status", "_wanted", "concluded")

    def __init__(self, keeps: int) -> None:
        self.concluded = False
        self._left = keeps
        self._wanted = -1
        self._pieces = 0
        self._declared = False
        self._status = 0
        self._fields: Fields = ()
        self._chunks: list[bytes] = []

    def begin(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Its head, as the application gave it."""
        self._status = status
        self._fields = tuple(fields)
        length = next((value for name, value in self._fields if name.lower() == b"content-length"), b"")
        self._declared = length.isdigit()
        self._wanted = int(length) if self._declared else -1

    def take(self, chunk: bytes) -> bool:
        """A piece of its body. True: with it the declared length is reached."""
        self._left -= len(chunk)
        self._wanted -= len(chunk)
        self._pieces += bool(chunk)
        if self._pieces > 1 and not self._declared:
            self._left = -1  # a stream: nobody knows how long it will be
        if self._left >= 0:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()
        return self._wanted == 0

    def unread(self) -> None:
        """Its body goes out by another way."""
        self._left = -1

    def ending(self, *, whole: bool) -> Ending:
        """How it ended: as it stands, or, where it is not whole, as if there had been none."""
        self.concluded = True
        if not whole:
            return Ending(0)
        return Ending(self._status, self._fields, b"".join(self._chunks) if self._left >= 0 else None)


class Coverage:
    """How many JSON answers of each route showed whose they are. As many entries as there are routes.

    Counted without a lock: where threads run in parallel one of a million may be lost, and nobody waits.
    """

    def __init__(self) -> None:
        self._routes: dict[str, list[int]] = {}

    def count(self, template: str, *, covered: bool) -> None:
        """One more answer of a route."""
        counts = self._routes.get(template)
        if counts is None:
            counts = self._routes.setdefault(template, [0, 0])
        counts[not covered] += 1

    def read(self) -> dict[str, tuple[int, int]]:
        """Template -> (covered, uncovered)."""
        return {template: (counts[0], counts[1]) for template, counts in list(self._routes.items())}
