"""The ways out: answers are held where somebody judges them, finished, concluded, or replaced by a refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Token
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from portalshield.context import CURRENT
from portalshield.held import Answered, Held
from portalshield.model.exchange import Exchange
from portalshield.model.verdicts import Problem, Reply
from portalshield.runtime import CRASHED, UNCONFIRMED, Runtime
from portalshield.wire import reason
from portalshield.wsgi.bodies import BodyRefusedError
from portalshield.wsgi.walking import answer_to

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


class Response:
    """The way out of one request: the head is finished as it passes, blocks go one by one, a late verdict wins."""

    def __init__(self, x: Exchange, runtime: Runtime, start_response: StartResponse) -> None:
        self._x = x
        self._runtime = runtime
        self._start_response = start_response
        self._iterator: Iterator[bytes] | None = None
        self._done = False
        self._started = False
        self._sent = False
        self._replaced = False
        self._overhead_ns = 0
        self._bytes_out = 0
        self._status = 0
        self._body = b""
        self._answered = Answered(x.plan.keeps_body) if x.plan.concludes else None
        self.blocks: Iterable[bytes] = ()
        self.token: Any = None

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """What the application calls as `start_response`."""
        if self._replaced:
            return self.write
        began = perf_counter_ns()
        x = self._x
        if x.late is None and x.reached and not x.confirmed and self._runtime.unconfirmed(x):
            x.late = UNCONFIRMED
        if x.late is not None:
            self._replace(x.late, exc_info)
            return self.write
        self._status = int(status[:3])
        if self._answered is not None:
            self._answered.begin(self._status, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers])
        headers = x.plan.finish_text(x, self._status, headers)
        self._overhead_ns += perf_counter_ns() - began
        self._write = self._begin(status, headers, exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        """What `start_response` returned to the application; what an answer that was replaced writes goes nowhere."""
        if self._admits():
            self._leaves(data)
            self._write(data)

    def refuse(self, verdict: Problem | Reply) -> Iterable[bytes]:
        """Answer without the application."""
        try:
            self._replace(verdict, None)
        finally:
            self.finish()
        return [self._body]

    def rescued(self, error: Exception) -> Iterable[bytes]:
        """What is answered instead, when the application raised on being called."""
        try:
            self._crashed(error)
        except BaseException:
            self.finish()
            raise
        return self

    def handed_over(self) -> None:
        """The server sends the body by itself."""
        if self._answered is not None:
            self._answered.unread()
            self._conclude(whole=True)
        self.finish()

    def finish(self) -> None:
        """Once: reset the context, write the line."""
        if self._done:
            return
        self._done = True
        self._conclude(whole=False)
        x, ended = self._x, perf_counter_ns()
        overhead = (x.entered_ns or ended) - x.began_ns + self._overhead_ns + x.judging_ns
        self._runtime.done(x, self._status, ended - x.began_ns, overhead, self._bytes_out)
        try:
            CURRENT.reset(self.token)
        except ValueError:
            CURRENT.set(None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._replaced:
            block = self._advance()
            if self._admits():
                self._leaves(block)
                return block
        return self._instead()

    def _leaves(self, block: bytes) -> None:
        self._sent = self._sent or bool(block)
        self._bytes_out += len(block)
        if self._answered is not None and self._answered.take(block):
            self._conclude(whole=True)

    def _conclude(self, *, whole: bool) -> None:
        """Once, before the last byte leaves: whoever has the answer may build on it."""
        if self._answered is not None and not self._answered.concluded:
            for need in self._runtime.conclusions(self._x, self._answered, whole=whole):
                try:
                    answer_to(self._x, self._runtime, need)
                except Exception as error:  # nobody's verdict any more
                    self._runtime.on_crash(self._x, error)

    def close(self) -> None:
        """Close the application's iterable, then finish."""
        try:
            close = getattr(self.blocks, "close", None)
            if close is not None:
                close()
        finally:
            self.finish()

    def _advance(self) -> bytes:
        """The application's next block; none where its answer is replaced while it makes one."""
        try:
            if self._iterator is None:
                self._iterator = iter(self.blocks)
            return next(self._iterator)
        except StopIteration:
            if self._replaced:
                return b""
            self._conclude(whole=True)
            raise
        except Exception as error:
            self._crashed(error)
            return b""

    def _admits(self) -> bool:
        """False, and the answer replaced, if the request was refused after it began. A server that has sent the head
        raises the error instead (PEP 3333): what is out must not end like a complete answer."""
        late = self._x.late
        if late is None or self._replaced:
            return not self._replaced
        error = BodyRefusedError("the request was refused")
        self._replace(late, (BodyRefusedError, error, None) if self._started else None)
        return False

    def _crashed(self, error: Exception) -> None:
        """One safe 500 with the exception for the server; what stumbled over a refusal is refused."""
        if self._replaced:
            return
        late = self._x.late
        if late is None:
            self._x.crash = error
        if self._sent:
            self._x.aborted = True
            raise error
        self._replace(late or CRASHED, sys.exc_info() if late is None or self._started else None)

    def _instead(self) -> bytes:
        """The body of the refusal, once."""
        body, self._body = self._body, b""
        if not body:
            raise StopIteration
        return body

    def _replace(self, verdict: Problem | Reply, exc_info: Any) -> None:
        self._replaced = True
        self._status, fields, self._body = self._runtime.refuse(self._x, verdict)
        self._conclude(whole=False)
        self._bytes_out += len(self._body)
        # Hop-by-hop fields are the server's (PEP 3333): our `Connection: close` stays here.
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields if name != b"connection"]
        self._begin(reason(self._status), headers, exc_info)

    def _begin(self, status: str, headers: list[tuple[str, str]], exc_info: Any) -> Callable[[bytes], object]:
        self._started = True
        if exc_info:
            return self._start_response(status, headers, exc_info)
        return self._start_response(status, headers)


def apart(blocks: Iterable[bytes], x: Exchange, token: Token[Exchange | None]) -> Iterable[bytes]:
    """The blocks of a request; of one that another request makes while it is handled itself (`app.test_client()` in a
    handler), kept apart: between its blocks the other one is the current request."""
    outer = token.old_value
    return _Nested(blocks, x, outer) if isinstance(outer, Exchange) else blocks


class _Nested:
    """The way out of a request within another one."""

    def __init__(self, blocks: Iterable[bytes], x: Exchange, outer: Exchange) -> None:
        self._blocks = iter(blocks)
        self._x = x
        CURRENT.set(outer)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._current():
            return next(self._blocks)

    def close(self) -> None:
        """Close the application's iterable; by then the other request may be over."""
        with self._current():
            getattr(self._blocks, "close", _nothing)()

    @contextmanager
    def _current(self) -> Iterator[None]:
        before = CURRENT.get()
        CURRENT.set(self._x)
        try:
            yield
        finally:
            CURRENT.set(before)


class Judged:
    """Between the application and the way out, for an answer that has judges: what they want to read is held back, from
    its head to its last block, and then goes on as it came, or is refused."""

    __slots__ = (
        "_blocks",
        "_head",
        "_held",
        "_iterator",
        "_ready",
        "_runtime",
        "_start_response",
        "_write",
        "_x",
        "close",
    )

    def __init__(self, x: Exchange, runtime: Runtime, start_response: StartResponse) -> None:
        self._x = x
        self._runtime = runtime
        self._start_response = start_response
        self._blocks: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] | None = None
        self._held: Held | None = None
        self._head: tuple[Any, ...] = ()
        self._write: Callable[[bytes], object] | None = None
        self._ready: bytes | None = None
        self.close: Callable[[], object] = _nothing

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """What the application calls as `start_response`; a second time if it failed before its answer left."""
        x = self._x
        self._held, self._head = None, (status, headers, exc_info)
        if x.late is None and self._write is None:
            fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            self._held = self._runtime.hold(x, int(status[:3]), fields)
            if self._held is not None:
                return self.write
        self._write = self._start_response(*self._head)
        return self._write

    def write(self, data: bytes) -> None:
        """What `start_response` returned to the application."""
        if self._held is not None:
            if self._held.take(data):
                return
            data = self.release()
        if self._write is not None:
            self._write(data)

    def over(self, blocks: Iterable[bytes]) -> Iterable[bytes]:
        """The application's blocks, once they were judged; themselves, where nothing is held that has begun."""
        if self._held is None and self._write is not None:
            return blocks
        self._blocks = blocks
        self.close = getattr(blocks, "close", _nothing)
        if self._held is not None:
            # granian takes a head only while the application is being called, so what is held is judged at once.
            self._iterator = iter(blocks)
            self._ready = self._judged(self._iterator, next(self._iterator, None))
        return self

    def release(self) -> bytes:
        """Judge what is held; the head goes out, and what came of the body is handed over."""
        held, self._held = self._held, None
        if held is None:
            return b""
        if self._x.late is None:
            self._runtime.settle(self._x, held)
        # A refusal is in `x.late` now: the way out answers with it instead.
        self._write = self._start_response(*self._head)
        return held.body

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        ready, self._ready = self._ready, None
        if ready is not None:
            return ready
        if self._iterator is None:
            self._iterator = iter(self._blocks)
        block = next(self._iterator, None)
        if self._held is not None:
            # The application may call `start` only when its first block is asked for.
            return self._judged(self._iterator, block)
        if block is None:
            raise StopIteration
        return block

    def _judged(self, blocks: Iterator[bytes], block: bytes | None) -> bytes:
        while block is not None and self._held is not None and self._held.take(block):
            block = next(blocks, None)
        return self.release()


def _nothing() -> None:
    """Closes an iterable that has nothing to close."""
