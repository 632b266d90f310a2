"""The line writer: whole lines, never a wait for the caller, counted losses, right after a fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from portalshield.telemetry.writer import ATOMIC, LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe; both ends are closed afterwards."""
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    """What was emitted is written, line by line, by the writer's own thread or by flush."""
    writer = LineWriter(pipe[1])
    for number in range(100):
        writer.emit(b"%d\n" % number)
    assert writer.flush(2)
    assert os.read(pipe[0], 65536) == b"".join(b"%d\n" % number for number in range(100))
    assert writer.dropped == 0


def test_no_thread_before_the_first_line(pipe: tuple[int, int]) -> None:
    """Constructing a writer starts nothing; the first line does."""
    writer = LineWriter(pipe[1])
    assert writer._thread is None
    writer.emit(b"x\n")
    assert writer._thread is not None
    assert writer._thread.daemon
    writer.close()
    assert not writer._queue


def test_thread_writes_without_flush(pipe: tuple[int, int]) -> None:
    """A line arrives although nobody flushes: the read below waits for it."""
    writer = LineWriter(pipe[1])
    writer.emit(b"hello\n")
    assert os.read(pipe[0], 100) == b"hello\n"
    writer.close()


def test_sleeping_thread_is_woken_by_a_line(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a silence the thread sleeps for good; the next line wakes it."""
    monkeypatch.setattr("portalshield.telemetry.writer.IDLE_ROUNDS", 1)
    writer = LineWriter(pipe[1])
    writer.emit(b"one\n")
    assert os.read(pipe[0], 100) == b"one\n"
    for _ in range(1000):
        if writer._asleep:
            break
        threading.Event().wait(0.005)
    assert writer._asleep
    writer.emit(b"two\n")
    assert os.read(pipe[0], 100) == b"two\n"
    writer.close()


def test_stalled_reader_costs_lines_not_time(pipe: tuple[int, int]) -> None:
    """With a full pipe `emit` returns, uneventful lines go first, and the loss is counted and reported later."""
    writer = LineWriter(pipe[1], capacity=40)
    filler = b"x" * 4000 + b"\n"
    for _ in range(60):
        writer.emit(filler, eventful=False)
    for _ in range(60):
        writer.emit(b"important" + filler)
    assert not writer.flush(0)
    lost = writer.dropped
    assert lost > 0
    assert len(writer._queue) <= 40
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(_lines(pipe[0])))
    reader.start()
    assert writer.flush(5)
    writer.close()
    os.close(pipe[1])
    reader.join(5)
    reports = [json.loads(line) for line in received if b"log_dropped" in line]
    assert sum(report["count"] for report in reports) == lost
    assert any(line.startswith(b"important") for line in received)


def _lines(fd: int) -> list[bytes]:
    with os.fdopen(os.dup(fd), "rb") as stream:
        return stream.read().splitlines()


def test_one_write_holds_whole_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are joined up to what a pipe keeps together, never beyond, never cut."""
    writes: list[bytes] = []

    def record(fd: int, data: bytes) -> int:
        writes.append(bytes(data))
        return len(data)

    read, write = os.pipe()
    monkeypatch.setattr("portalshield.telemetry.writer.os.write", record)
    writer = LineWriter(write, synchronous=True)
    writer._synchronous = False
    writer._thread = threading.current_thread()  # nobody else writes
    for size in (100, 2000, 1990, 4096, 50, 5000, 7):
        writer.emit(b"y" * (size - 1) + b"\n")
    assert writer.flush(1)
    os.close(read)
    os.close(write)
    assert all(chunk.endswith(b"\n") for chunk in writes)
    assert [len(chunk) for chunk in writes] == [100 + 2000 + 1990, ATOMIC, 50, 5000, 7]


def test_partial_write_is_continued(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """A descriptor that takes a few bytes at a time gets every byte once."""
    taken: list[bytes] = []

    def sip(fd: int, data: bytes) -> int:
        taken.append(bytes(data[:3]))
        return len(taken[-1])

    monkeypatch.setattr("portalshield.telemetry.writer.os.write", sip)
    writer = LineWriter(pipe[1], synchronous=True)
    writer.emit(b"abcdefgh\n")
    assert b"".join(taken) == b"abcdefgh\n"


@pytest.mark.parametrize("kind", ["closed reader", "closed descriptor"])
def test_broken_descriptor_counts_and_never_raises(kind: str, pipe: tuple[int, int]) -> None:
    """EPIPE and EBADF lose lines, nothing else."""
    os.close(pipe[0] if kind == "closed reader" else pipe[1])
    writer = LineWriter(pipe[1], synchronous=True)
    writer.emit(b"x\n")
    writer.emit(b"y\n")
    assert writer.dropped == 2
    assert writer.write_errors == 2


def test_full_disk_is_counted(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """ENOSPC drops the lines it hit, and later lines are written again."""
    real = os.write
    failures = [OSError(28, "No space left on device")]

    def write(fd: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return real(fd, data)

    monkeypatch.setattr("portalshield.telemetry.writer.os.write", write)
    writer = LineWriter(pipe[1], synchronous=True)
    writer.emit(b"lost\n")
    writer.emit(b"kept\n")
    out = os.read(pipe[0], 1000)
    assert b"kept\n" in out
    assert b"lost\n" not in out
    assert b'"count":1' in out


def test_would_block_is_tried_again(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """EAGAIN keeps the line."""
    real = os.write
    failures = [BlockingIOError(11, "again")]

    def write(fd: int, data: bytes) -> int:
        if failures:
            raise failures.pop()
        return real(fd, data)

    monkeypatch.setattr("portalshield.telemetry.writer.os.write", write)
    writer = LineWriter(pipe[1], synchronous=True)
    writer.emit(b"kept\n")
    assert os.read(pipe[0], 100) == b"kept\n"
    assert writer.dropped == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_writes_its_own_lines_and_not_its_parents() -> None:
    """After a fork the child starts with an empty queue and its own thread: no line twice, none lost, exit flushes."""
    code = (
        "import os\n"
        "from portalshield.telemetry.writer import LineWriter\n"
        "w = LineWriter(1)\n"
        "w.emit(b'parent-1\\n'); w.flush(2)\n"
        "w._queue.append(b'parent-2\\n')\n"
        "pid = os.fork()\n"
        "w.emit(b'child\\n' if pid == 0 else b'parent-3\\n')\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=True, env=dict(os.environ)
    )
    assert sorted(done.stdout.splitlines()) == [b"child", b"parent-1", b"parent-2", b"parent-3"]


def test_exit_with_a_stalled_reader_ends() -> None:
    """A process whose output nobody reads ends within the deadline."""
    code = (
        "from portalshield.telemetry.writer import LineWriter\n"
        "w = LineWriter(1)\n"
        "for _ in range(200): w.emit(b'x' * 4000 + b'\\n')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.wait(timeout=20) == 0
    assert process.stdout is not None
    process.stdout.close()


def test_three_processes_on_one_pipe_break_no_line() -> None:
    """6,000 lines of the greatest length from three processes: every one arrives whole."""
    code = (
        "import sys\n"
        "from portalshield.telemetry.writer import ATOMIC, LineWriter\n"
        "w = LineWriter(1)\n"
        "line = (sys.argv[1] * (ATOMIC - 1) + '\\n').encode()\n"
        "for _ in range(2000): w.emit(line)\n"
        "w.flush(30)\n"
    )
    read, write = os.pipe()
    children = [subprocess.Popen([sys.executable, "-c", code, letter], stdout=write) for letter in "abc"]
    os.close(write)
    lines = _lines(read)
    os.close(read)
    assert [child.wait(timeout=30) for child in children] == [0, 0, 0]
    assert len(lines) == 6000
    assert set(lines) == {letter * (ATOMIC - 1) for letter in (b"a", b"b", b"c")}


def test_lost_lines_are_told_as_they_are_lost(pipe: tuple[int, int]) -> None:
    """Whoever counts losses is called for each: a full queue, a reader that is gone."""
    told: list[int] = []
    os.close(pipe[0])
    writer = LineWriter(pipe[1], synchronous=True, lost=told.append)
    writer.emit(b"x\n")
    writer._synchronous, writer._thread = False, threading.current_thread()  # nobody writes any more
    writer._queue.extend([b"y\n"] * writer._capacity)
    writer.emit(b"z\n")
    assert told == [1, 1]
    assert writer.dropped == 2
    writer._queue.clear()
    writer._thread = None
