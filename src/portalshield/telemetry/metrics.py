"""What is counted per request: requests, durations, the shield's own time, decisions; in memory of fixed size.

`record` is called for every request, so it is a dictionary look-up and three additions. Labels come from closed sets:
known methods, route templates (500, the rest is `(other)`), status codes; never a tenant, never a path. Without a slot
file the counters are a list of this process; with one (`telemetry/slots.py`) all workers share what is read.

Why additions need no lock: CPython looks for other threads at calls and at jumps backwards, and `counts[i] += 1` is
neither. Interpreters without a global lock get one.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from portalshield.rules.histogram import Buckets
from portalshield.rules.interpreter import switches_at_calls_only
from portalshield.telemetry.lines import METHODS
from portalshield.telemetry.slots import OwnMemory, Slot, SlotFile, SlotsTakenError

MAX_ROUTES: Final = 500
OTHER: Final = "(other)"
MAX_ROWS: Final = 4096
"""Different (method, route, status), decisions and single counters together; what comes later is counted as other."""
DECISIONS: Final = ("allowed", "refused", "would_refuse")
_HEADER: Final = 64
_OVERHEAD_BUCKETS: Final = 64
"""Powers of two of nanoseconds, by `int.bit_length`."""
_ROWS_AT: Final = _HEADER + _OVERHEAD_BUCKETS
_ROUTES_AT: Final = _ROWS_AT + MAX_ROWS
_VERSION: Final = 1
_SEPARATOR: Final = "\t"
_log = logging.getLogger("portalshield")

Name = tuple[str, ...]
"""`("requests", method, status, route)`, `("decisions", layer, decision, problem, route)`, `("route", template)`, or
`(counter, label)`."""
_OVERFLOW: Final[tuple[Name, ...]] = (
    ("requests", "_OTHER", "0", OTHER),
    ("decisions", OTHER, "refused", OTHER, OTHER),
    ("uncounted", ""),
)

_all: weakref.WeakSet[Metrics] = weakref.WeakSet()


class Snapshot:
    """Everything that was counted, summed over all workers."""

    def __init__(self) -> None:
        self.rows: dict[Name, int] = {}
        self.durations: dict[str, list[int]] = {}
        """Counts per bucket of `Metrics.buckets`, by route."""
        self.overhead: list[int] = [0] * _OVERHEAD_BUCKETS
        """Counts per power of two of nanoseconds: member `k` holds what is at least `2**(k-1)` and below `2**k`."""

    def of(self, kind: str) -> dict[Name, int]:
        """Rows of one kind, without their first member."""
        return {name[1:]: count for name, count in self.rows.items() if name[0] == kind}


class Metrics:
    """Counters of one application. `budgets_ms` become exact bucket edges; `folder` is where workers share a file.

    A folder that cannot be used is warned of once, and this process counts for itself.
    """

    def __init__(self, budgets_ms: Iterable[int] = (300, 500), folder: str | Path | None = None) -> None:
        self.budgets_ms = tuple(budgets_ms)
        self.buckets = Buckets(self.budgets_ms)
        self._words = _ROUTES_AT + (MAX_ROUTES + 1) * self.buckets.size
        self._file = self._open(folder)
        self._growing = threading.RLock()
        self._renew()
        self.record: Callable[[str, str, int, int, int], None] = self._recorder()
        """`record(method, route, status, duration_ns, overhead_ns)`: count one request. Never raises for a closed
        set's members; allocates nothing that stays."""
        _all.add(self)

    def _open(self, folder: str | Path | None) -> SlotFile | None:
        if folder is None:
            return None
        layout = f"{_VERSION}-{crc32(repr((self.buckets.bounds, MAX_ROWS, MAX_ROUTES)).encode()):08x}"
        try:
            return _slot_file(Path(folder), layout, self._words)
        except OSError as error:
            _log.warning("metrics are counted per process: %s", type(error).__name__)
            return None

    def _renew(self) -> None:
        """Everything that belongs to one process; a forked child claims a slot with its first request."""
        self._memory: Slot | OwnMemory | None = None
        self._requests: dict[tuple[str, str, int], tuple[Any, int, int]] = {}
        self._decided: dict[tuple[str, str, str, str], tuple[Any, int]] = {}
        self._names: dict[Name, int] = {}
        self._routes: dict[str, int] = {}

    def _after_fork(self) -> None:
        self._growing = threading.RLock()
        # The very dictionary that `record` holds.
        self._requests.clear()
        requests = self._requests
        self._renew()
        self._requests = requests

    # -- counting

    def _recorder(self) -> Callable[[str, str, int, int, int], None]:
        requests, bounds, find, new = self._requests, self.buckets.bounds, bisect_left, self._new_request

        def record(method: str, route: str, status: int, duration_ns: int, overhead_ns: int) -> None:
            try:
                counts, row, durations = requests[method, route, status]
            except KeyError:
                counts, row, durations = new(method, route, status)
            bucket = durations + find(bounds, duration_ns)
            power = 64 + overhead_ns.bit_length()
            counts[row] += 1
            counts[bucket] += 1
            counts[power] += 1

        return record if switches_at_calls_only() else _locked(record)

    def _new_request(self, method: str, route: str, status: int) -> tuple[Any, int, int]:
        with self._growing:
            known = method if method in METHODS else "_OTHER"
            code = status if 100 <= status <= 599 else 0
            route_index = self._route(route)
            shown = route if route_index < MAX_ROUTES else OTHER
            row = self._row(("requests", known, str(code), shown))
            counts = self._counts()
            found = (counts, _ROWS_AT + row, _ROUTES_AT + route_index * self.buckets.size)
            if len(self._requests) < 2 * MAX_ROWS:
                self._requests[(method, route, status)] = found
            return found

    def decision(self, layer: str, decision: str, problem: str, route: str) -> None:
        """Count what a layer decided: `refused`, `would_refuse` or `allowed`, with the problem's slug."""
        held = self._decided.get((layer, decision, problem, route))
        if held is not None:
            held[0][held[1]] += 1
            return
        with self._growing:
            shown = route if self._route(route) < MAX_ROUTES else OTHER
            name = ("decisions", layer, decision if decision in DECISIONS else OTHER, problem, shown)
            self._add(name, 1)
            if switches_at_calls_only() and len(self._decided) < 2 * MAX_ROWS:
                self._decided[(layer, decision, problem, route)] = (self._counts(), _ROWS_AT + self._row(name))

    def count(self, counter: str, label: str = "", by: int = 1) -> None:
        """Count something rare: `log_dropped`, `redactions` by detector. Never raises."""
        with self._growing:
            self._add((counter, label), by)

    def _add(self, name: Name, by: int) -> None:
        at = _ROWS_AT + self._row(name)
        self._counts()[at] += by

    # -- names

    def _counts(self) -> Any:
        return self._held().counters

    def _held(self) -> Slot | OwnMemory:
        memory = self._memory
        return memory if memory is not None else self._start()

    def _start(self) -> Slot | OwnMemory:
        memory = self._memory = self._claim()
        for row, text in enumerate(memory.names()):
            name = tuple(text.split(_SEPARATOR))
            if name[0] == "route":
                self._routes.setdefault(name[1], len(self._routes))
            self._names.setdefault(name, row)
        for name in _OVERFLOW:
            self._row(name)
        return memory

    def _claim(self) -> Slot | OwnMemory:
        if self._file is not None:
            try:
                return self._file.claim()
            except SlotsTakenError:
                _log.warning("metrics of this worker are not shared: more than %d workers", self._file.slots)
        return OwnMemory(self._words, MAX_ROWS)

    def _route(self, route: str) -> int:
        """The route's histogram; `MAX_ROUTES` is that of all others."""
        memory = self._held()
        index = self._routes.get(route)
        if index is not None:
            return index
        if route == OTHER or len(self._routes) >= MAX_ROUTES or _SEPARATOR in route:
            return MAX_ROUTES
        row = memory.add(_SEPARATOR.join(("route", route)))
        if row is None:
            return MAX_ROUTES
        index = self._routes[route] = len(self._routes)
        return index

    def _row(self, name: Name) -> int:
        memory = self._held()
        row = self._names.get(name)
        if row is None:
            row = memory.add(_SEPARATOR.join(part.replace(_SEPARATOR, " ") for part in name))
            if row is None:
                row = self._overflow(name)
            if len(self._names) < 2 * MAX_ROWS:
                self._names[name] = row
        return row

    def _overflow(self, name: Name) -> int:
        kinds = [overflow[0] for overflow in _OVERFLOW]
        return self._names[_OVERFLOW[kinds.index(name[0]) if name[0] in kinds else 2]]

    # -- reading

    def snapshot(self) -> Snapshot:
        """The sum over all workers that ever counted into the file, or of this process."""
        found = Snapshot()
        own = self._memory
        memories: list[Slot | OwnMemory] = list(self._file.used()) if self._file is not None else []
        if isinstance(own, OwnMemory):
            memories.append(own)
        for memory in memories:
            self._merge(found, memory)
        return found

    def _merge(self, found: Snapshot, memory: Slot | OwnMemory) -> None:
        counts, size, route = memory.counters, self.buckets.size, 0
        names = memory.names()
        rows = counts[_ROWS_AT : _ROWS_AT + len(names)]
        for text, count in zip(names, rows, strict=True):
            name = tuple(text.split(_SEPARATOR))
            if name[0] == "route":
                self._merge_durations(found, name[1], counts, _ROUTES_AT + route * size)
                route += 1
            elif count:
                found.rows[name] = found.rows.get(name, 0) + count
        self._merge_durations(found, OTHER, counts, _ROUTES_AT + MAX_ROUTES * size)
        for power, count in enumerate(counts[_HEADER : _HEADER + _OVERHEAD_BUCKETS]):
            found.overhead[power] += count

    def _merge_durations(self, found: Snapshot, route: str, counts: Any, start: int) -> None:
        own = list(counts[start : start + self.buckets.size])
        if not any(own):
            return
        held = found.durations.get(route)
        found.durations[route] = own if held is None else [a + b for a, b in zip(held, own, strict=True)]


_files: dict[Path, SlotFile] = {}


def _slot_file(folder: Path, layout: str, words: int) -> SlotFile:
    """One mapping per file and process: closing a second one would give the first one's locks back (POSIX)."""
    folder = folder.resolve()
    key = folder / layout
    if key not in _files:
        _files[key] = SlotFile(folder, layout, words=words, rows=MAX_ROWS)
    return _files[key]


def _locked(record: Callable[[str, str, int, int, int], None]) -> Callable[[str, str, int, int, int], None]:
    lock = threading.Lock()

    def guarded(method: str, route: str, status: int, duration_ns: int, overhead_ns: int) -> None:
        with lock:
            record(method, route, status, duration_ns, overhead_ns)

    return guarded


def _forked() -> None:
    for metrics in list(_all):
        metrics._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
