"""The ways out: answers are held where somebody judges them, finished, concluded, or replaced by a refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Token
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from portalshield.context import CURRENT, MARK
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
    """The way out of one request: the head is finished as it passes, blocks go one by one, a late verdict wins.

    What a judge may refuse is held back, from its head to its last block, and then goes on as it came, or is replaced.
    """

    # Defaults of the class: a request sets what it needs.
    _iterator: Iterator[bytes] | None = None
    _answered: Answered | None = None
    _held: Held | None = None
    _head: tuple[Any, ...] = ()
    _ready: bytes | None = None
    _done = False
    _started = False
    _sent = False
    _replaced = False
    _overhead_ns = 0
    _bytes_out = 0
    _status = 0
    _body = b""
    blocks: Iterable[bytes] = ()
    token: Any = None

    def __init__(self, x: Exchange, runtime: Runtime, start_response: StartResponse) -> None:
        self._x = x
        self._runtime = runtime
        self._start_response = start_response
        self._write: Callable[[bytes], object] = _nowhere
        if x.plan.concludes:
            self._answered = Answered(x.plan.keeps_body)

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """What the application calls as `start_response`; a second time if it failed before its answer left."""
        if self._replaced:
            return self.write
        began = perf_counter_ns()
        x = self._x
        if x.late is None and x.reached and not x.confirmed and self._runtime.unconfirmed(x):
            x.late = UNCONFIRMED
        code = self._status = int(status[:3])
        self._held = None
        if x.late is None:
            finished, readable, length = x.plan.finish_text(x, code, headers)
            if readable is not None:
                self._held = self._runtime.hold(x, code, readable, length)
        if x.late is not None:
            self._replace(x.late, exc_info)
            return self.write
        if self._answered is not None:
            self._answered.begin(code, [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers])
        self._overhead_ns += perf_counter_ns() - began
        if self._held is not None and self._held.waits:
            self._head = status, finished, exc_info
        else:
            self._write = self._begin(status, finished, exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        """What `start_response` returned to the application; what an answer that was replaced writes goes nowhere."""
        held = self._held
        if held is not None and held.take(data) and held.waits:
            return
        if held is not None and held.left <= 0:
            self._settle(held)
            data = held.body if held.waits else data
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

    def settle_early(self) -> None:
        """The application has been called: judge what is held before anybody asks for its first block; granian takes a
        head only while the application is being called."""
        held = self._held
        if held is not None and held.waits:
            self._iterator = iter(self.blocks)
            self._ready = self._collected(held, self._iterator)

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
        if self._held is not None:
            self._settle(self._held)
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
        # The environ holds the exchange, whose headers stand in the environ: a cycle that only the collector would end.
        x.native.pop(MARK, None)
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
        if self._ready is not None:
            ready, self._ready = self._ready, None
            return ready
        try:
            if self._iterator is None:
                self._iterator = iter(self.blocks)
            block = next(self._iterator)
            held = self._held  # the application may call `start` only when its first block is asked for
            return block if held is None else self._read(held, block)
        except StopIteration:
            if self._replaced:
                return b""
            held = self._held
            if held is not None:
                self._settle(held)
                if held.waits:
                    return held.body  # what was written before there was any block
            self._conclude(whole=True)
            raise
        except Exception as error:
            self._crashed(error)
            return b""

    def _read(self, held: Held, block: bytes) -> bytes:
        """A block of an answer that somebody reads; all of it, where it waits for that."""
        enough = not held.take(block) or held.left == 0
        if held.waits:
            return self._collected(held, () if enough or self._iterator is None else self._iterator)
        if enough:
            self._settle(held)
        return block

    def _collected(self, held: Held, blocks: Iterable[bytes]) -> bytes:
        for block in blocks:
            if not held.take(block):
                break
        self._settle(held)
        return held.body

    def _settle(self, held: Held) -> None:
        """Judge what was read; a head that waited goes out now, or a refusal in its place."""
        x, self._held = self._x, None
        if x.late is None:
            self._runtime.settle(x, held)
        if held.waits:
            status, headers, exc_info = self._head
            if x.late is not None:
                self._replace(x.late, exc_info)
            else:
                self._write = self._begin(status, headers, exc_info)

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
        self._replaced, self._held = True, None
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


def _nothing() -> None:
    """Closes an iterable that has nothing to close."""


def _nowhere(data: bytes) -> None:
    """Takes what is written before there was a head."""
