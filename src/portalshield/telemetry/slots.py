"""Counters that several worker processes share, in one file of fixed size.

The file has a slot per worker. A process locks the first free slot, writes only there, and goes on with the counts it
finds: a worker that is restarted takes over a slot, so totals never go back and nothing piles up (Prometheus' own
multi-process mode keeps a file per process that ever lived). Counts are in the file as soon as they are counted, a
killed worker loses none. Reading adds the slots up. The kernel gives a lock back when its process ends.

A slot is `words` 64-bit counters and, behind them, `rows` names of `NAME_BYTES`. Name `i` says what counter `first + i`
counts. The file is sparse: pages that nobody wrote take no room.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

try:
    import fcntl
except ImportError:  # no such locks here (Windows): every process counts for itself
    fcntl = None  # type: ignore[assignment]

NAME_BYTES: Final = 192
MAX_NAME: Final = NAME_BYTES - 2
SLOTS: Final = 64
"""Workers at the same time."""
_PAGE: Final = 4096
_USED: Final = 0
"""The word that tells how many names are valid; written after the name itself."""


class SlotsTakenError(OSError):
    """Every slot belongs to a living process."""


class SlotFile:
    """One mapped file in `folder`. Raises `OSError` where it cannot be made or the platform has no locks.

    `layout` (any text) is part of the file's name, so that versions that count differently never share one.
    """

    def __init__(self, folder: Path, layout: str, *, words: int, rows: int, slots: int = SLOTS) -> None:
        if fcntl is None:
            raise OSError("this platform has no record locks")
        self.words = words
        self.rows = rows
        self.slots = slots
        self._slot_bytes = -(-(words * 8 + rows * NAME_BYTES) // _PAGE) * _PAGE
        self.path = folder / f"portalshield-{layout}.slots"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        size = self._slot_bytes * slots
        if os.fstat(self._fd).st_size != size:
            os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        self._all = memoryview(self._map)
        self._claimed: list[Slot] = []

    def claim(self) -> Slot:
        """A slot of this process's own, until it ends; raises `SlotsTakenError`.

        Record locks belong to the process: a forked child holds none and claims one of its own.
        """
        mine = {slot.index for slot in self._claimed if slot.pid == os.getpid()}
        for index in range(self.slots):
            if index not in mine and self._locked(index):
                slot = self._slot(index)
                self._claimed.append(slot)
                return slot
        raise SlotsTakenError(f"all {self.slots} slots are taken")

    def _locked(self, index: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except OSError:
            return False
        return True

    def release(self, slot: Slot) -> None:
        """Give a slot back before the process ends (tests)."""
        self._claimed.remove(slot)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot.index)

    def _slot(self, index: int) -> Slot:
        start = index * self._slot_bytes
        counters = self._all[start : start + self.words * 8].cast("Q")
        names = self._all[start + self.words * 8 : start + self.words * 8 + self.rows * NAME_BYTES]
        return Slot(index, counters, names, self.rows)

    def used(self) -> Iterator[Slot]:
        """Every slot that somebody ever wrote a name to, the living ones' and the dead ones'."""
        for index in range(self.slots):
            slot = self._slot(index)
            if slot.counters[_USED]:
                yield slot


class Slot:
    """One process's counters. `counters[0]` is the number of names."""

    __slots__ = ("_names", "_rows", "counters", "index", "pid")

    def __init__(self, index: int, counters: memoryview, names: memoryview, rows: int) -> None:
        self.index = index
        self.pid = os.getpid()
        self.counters: Any = counters
        self._names = names
        self._rows = rows

    def names(self) -> list[str]:
        """The names in the order of their counters."""
        used = min(self.counters[_USED], self._rows)
        return [self._name(row) for row in range(used)]

    def _name(self, row: int) -> str:
        cell = bytes(self._names[row * NAME_BYTES : (row + 1) * NAME_BYTES])
        return cell[2 : 2 + int.from_bytes(cell[:2], "little")].decode("utf-8", "replace")

    def add(self, name: str) -> int | None:
        """The row of a new name; None if there is no room for it."""
        row, text = self.counters[_USED], name.encode("utf-8", "replace")
        if row >= self._rows or len(text) > MAX_NAME:
            return None
        start = row * NAME_BYTES
        self._names[start : start + 2 + len(text)] = len(text).to_bytes(2, "little") + text
        self.counters[_USED] = row + 1
        return int(row)


class OwnMemory:
    """The same for a process that counts for itself: a plain list, which is also faster than a mapped file."""

    __slots__ = ("_names", "_rows", "counters", "index", "pid")

    def __init__(self, words: int, rows: int) -> None:
        self.index = -1
        self.pid = os.getpid()
        self.counters: Any = [0] * words
        self._names: list[str] = []
        self._rows = rows

    def names(self) -> list[str]:
        """The names in the order of their counters."""
        return list(self._names)

    def add(self, name: str) -> int | None:
        """The row of a new name; None if there is no room for it."""
        if len(self._names) >= self._rows or len(name.encode("utf-8", "replace")) > MAX_NAME:
            return None
        self._names.append(name)
        return len(self._names) - 1
