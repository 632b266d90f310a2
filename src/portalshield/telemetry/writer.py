"""Lines to a file descriptor without ever making a request wait.

`emit` appends to a bounded queue. One daemon thread per process, started by the first line, writes. While there is
traffic it looks every `INTERVAL_S` and nobody wakes it (a wake-up per request costs more than the line); when there is
none it sleeps until it is woken. A full queue drops and counts, uneventful lines first. Lines are joined up to
`ATOMIC` bytes per write, which POSIX keeps together on a pipe (PIPE_BUF).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import orjson

from portalshield.telemetry import clock

ATOMIC: Final = 4096
INTERVAL_S: Final = 0.05
IDLE_ROUNDS: Final = 40
"""Empty looks after which the thread goes to sleep."""
EXIT_DEADLINE_S: Final = 2.0
DEFAULT_CAPACITY: Final = 10_000

Line = bytes | tuple[Any, ...]
"""A line, or a function and its arguments: then the writing thread makes the line."""

_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


class LineWriter:
    """Writes lines (bytes, each with its own line end) to `fd`; None is the process's standard output.

    `capacity` bounds the queue in lines; uneventful lines are dropped from three quarters on. `synchronous` writes in
    `emit` itself, for tests and command lines. `lost` is told how many lines were lost each time some are.
    """

    def __init__(
        self,
        fd: int | None = None,
        capacity: int = DEFAULT_CAPACITY,
        *,
        synchronous: bool = False,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        self._fd = fd
        self._lost = lost
        self._capacity = capacity
        self._soft = capacity * 3 // 4
        self._synchronous = synchronous
        self._held = b""
        self._reported = 0
        self.dropped = 0
        """Lines lost so far: queue full, or the descriptor refused them."""
        self.write_errors = 0
        """Writes the operating system refused."""
        self._renew()
        _writers.add(self)

    def _renew(self) -> None:
        """Everything that belongs to one process: after a fork the parent's queue and thread are the parent's."""
        self._queue: deque[Line] = deque()
        self._held = b""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._asleep = False
        self._closing = False

    def emit(self, line: Line, *, eventful: bool = True) -> None:
        """Hand over one line: never blocks, never raises. `eventful=False`: the first to go when there is no room."""
        if len(self._queue) >= (self._capacity if eventful else self._soft):
            self._lose(1)
            return
        self._queue.append(line)
        if self._thread is None:
            self._start()
        elif self._asleep:
            self._wake.set()

    def flush(self, timeout: float = EXIT_DEADLINE_S) -> bool:
        """Write what is queued, in the calling thread, for at most `timeout` seconds; True if everything went out."""
        deadline = clock.monotonic() + timeout
        if not self._writing.acquire(timeout=max(0.0, timeout)):
            return False
        try:
            return self._drain(deadline)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Flush, and let the thread end; a later line starts another one."""
        self.flush()
        thread = self._thread
        self._closing = True
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(EXIT_DEADLINE_S)
        self._thread, self._closing = None, False

    def _lose(self, lines: int) -> None:
        self.dropped += lines
        if self._lost is not None:
            self._lost(lines)

    # -- the thread

    def _start(self) -> None:
        if self._synchronous:
            self.flush()
            return
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="portalshield-lines", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter shuts down: write it ourselves
                    self.flush()
                else:
                    self._thread = thread

    def _run(self) -> None:
        empty = 0
        while not self._closing:
            empty = 0 if self._queue or self._held else empty + 1
            if empty:
                self._rest(empty)
                continue
            with self._writing:
                done = self._drain(clock.monotonic() + INTERVAL_S)
            self._wake.wait(INTERVAL_S if done else INTERVAL_S / 5)
            self._wake.clear()

    def _rest(self, empty: int) -> None:
        if empty < IDLE_ROUNDS:
            self._wake.wait(INTERVAL_S)
        else:
            self._asleep = True
            # A line may have come between the look and this flag; whoever comes after it sees the flag.
            if not self._queue:
                self._wake.wait()
            self._asleep = False
        self._wake.clear()

    # -- writing, under `_writing`

    def _drain(self, deadline: float) -> bool:
        fd = self._fd if self._fd is not None else _stdout()
        while self._queue or self._held:
            self._held = self._held or self._chunk()
            if not _writable(fd, deadline - clock.monotonic()):
                return False
            self._write(fd)
        self._report(fd, deadline)
        return True

    def _chunk(self) -> bytes:
        """The next line, joined with those after it as long as one atomic write holds them."""
        lines: list[bytes] = []
        size, queue = 0, self._queue
        while queue:
            line = queue.popleft()
            if not isinstance(line, bytes):
                try:
                    line = line[0](*line[1:])
                except Exception:  # one line is lost, not the thread that writes all of them
                    self._lose(1)
                    continue
            size += len(line)
            if lines and size > ATOMIC:
                queue.appendleft(line)
                break
            lines.append(line)
        return b"".join(lines)

    def _write(self, fd: int) -> None:
        try:
            written = os.write(fd, self._held)
        except BlockingIOError:
            return  # EAGAIN: kept for the next look
        except OSError:  # EPIPE, ENOSPC, EBADF: nobody will ever read these
            self.write_errors += 1
            self._lose(self._held.count(b"\n"))
            self._held = b""
            return
        self._held = self._held[written:]

    def _report(self, fd: int, deadline: float) -> None:
        lost = self.dropped - self._reported
        if lost <= 0 or not _writable(fd, deadline - clock.monotonic()):
            return
        self._reported += lost
        line = {"timestamp": clock.stamp(clock.now()), "level": "warning", "event": "log_dropped", "count": lost}
        with contextlib.suppress(OSError):
            os.write(fd, orjson.dumps(line) + b"\n")


def _stdout() -> int:
    try:
        return sys.__stdout__.fileno() if sys.__stdout__ is not None else 1
    except (OSError, ValueError):
        return 1


def _writable(fd: int, patience: float) -> bool:
    """True when a write of up to `ATOMIC` bytes will not block; waits at most `patience` seconds."""
    wait_ms = max(0, int(patience * 1000))
    if hasattr(select, "poll"):
        poll = select.poll()
        try:
            poll.register(fd, select.POLLOUT)
            return bool(poll.poll(wait_ms))  # errors count: the write then tells which
        except OSError:
            return True
    return True


def _after_fork() -> None:
    for writer in list(_writers):
        writer._renew()


def _at_exit() -> None:
    deadline = clock.monotonic() + EXIT_DEADLINE_S
    for writer in list(_writers):
        writer.flush(max(0.0, deadline - clock.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
