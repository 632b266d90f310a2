"""The ways out: answers are held where somebody judges them, finished, concluded, or replaced by a refusal."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from time import perf_counter_ns
from typing import NoReturn

import anyio
import anyio.to_thread

from portalshield.asgi.messages import Message, Scope, Send
from portalshield.asgi.walking import answer_to
from portalshield.held import Answered, Held
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Need
from portalshield.model.verdicts import Problem, Reply
from portalshield.runtime import (
    CRASHED,
    UNCONFIRMED,
    Runtime,
)
from portalshield.wire import Rendered


class ResponseAbortedError(ConnectionError):
    """Raised into an application that goes on answering a request that was refused after its answer had begun."""


async def send_whole(send: Send, kind: str, answer: Rendered) -> None:
    status, fields, body = answer
    await send({"type": f"{kind}.response.start", "status": status, "headers": fields})
    await send({"type": f"{kind}.response.body", "body": body, "more_body": False})


async def deny(scope: Scope, send: Send, answer: Rendered) -> None:
    """A denial response where the server offers it, else close 1008 (RFC 6455, 7.4.1), which servers turn into 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send_whole(send, "websocket.http", answer)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


class Judged:
    """The way out of the application for an answer that has judges: what they want to read is held back, from its head
    to its last byte, and then goes on as it came, or not at all. Where they only report, nothing waits for them. Stands
    at the inner door where there is one."""

    __slots__ = ("_head", "_over", "_runtime", "_send", "_x", "held")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._over = False
        self.held: Held | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """What the application sends; a plain function, so that passing on costs no coroutine of its own."""
        held = self.held
        if held is not None:
            return self._read(held, message)
        if self._over:
            return _nothing()
        return self._started(message) if message["type"] == "http.response.start" else self._go(message)

    async def end(self) -> None:
        """The application returned: what is held now never became what it declared."""
        held = self.held
        if held is not None and held.waits:
            await self._release(held, {"type": "http.response.body", "body": held.body, "more_body": True})
        elif held is not None:
            self._settle(held)

    def _started(self, message: Message) -> Awaitable[None]:
        """The head of an answer comes."""
        x, fields = self._x, list(message.get("headers") or ())
        message = {**message, "headers": fields}
        if x.late is None and not x.judged:
            readable, length = x.plan.reading(message["status"], fields)
            if readable is not None:
                self.held = self._runtime.hold(x, message["status"], readable, length)
        return self._begin(message)

    def _begin(self, head: Message) -> Awaitable[None]:
        """The finished head leaves, unless something is held until it was read."""
        if self._x.late is not None:
            return self._refused(self._x.late)
        if self.held is not None and self.held.waits:
            self._head = head
            return _nothing()
        return self._go(head)

    def _read(self, held: Held, message: Message) -> Awaitable[None]:
        """A message of an answer that somebody reads."""
        if message["type"] != "http.response.body":
            return self._interrupted(message)
        enough = not held.take(message.get("body", b"")) or not message.get("more_body", False)
        if held.waits:
            return self._release(held, message) if enough or self._x.late is not None else _nothing()
        if enough:
            self._settle(held)
        return self._go(message)

    def _settle(self, held: Held) -> None:
        self.held = None
        if self._x.late is None:
            self._runtime.settle(self._x, held)

    async def _interrupted(self, message: Message) -> None:
        """Something else than its body comes after a head that is held: the server sends a file, for example."""
        held = self.held
        if held is not None and held.waits and not held.chunks:
            self._settle(held)
            await self._go(self._head)
        else:
            await self.end()
        await self._go(message)

    async def _release(self, held: Held, message: Message) -> None:
        """Judge what was held; its body goes on as one message, the last of those it came in."""
        x = self._x
        if len(held.chunks) > 1:
            message = {**message, "body": held.body}
        self._settle(held)
        if x.late is not None:
            await self._refused(x.late)
            return
        await self._go(self._head)
        await self._go(message)

    def _go(self, message: Message) -> Awaitable[None]:
        """A message goes on."""
        return self._send(message)

    async def _refused(self, verdict: Problem | Reply) -> None:
        """In place of the answer; the outer door writes the refusal."""
        self._over = True
        await self._send({"type": "http.response.start", "status": 500, "headers": []})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class Response(Judged):
    """The way out of one HTTP request: the head is finished as it passes, a late verdict replaces the answer."""

    __slots__ = ("bytes_out", "overhead_ns", "started", "status")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._over = self.started = False
        self.held = None
        self.status = self.bytes_out = self.overhead_ns = 0

    def _started(self, message: Message) -> Awaitable[None]:
        x = self._x
        if x.late is None and x.reached and not x.confirmed and self._runtime.unconfirmed(x):
            x.late = UNCONFIRMED
        if x.late is not None:
            return self._refused(x.late)
        began = perf_counter_ns()
        status, given = message["status"], message.get("headers")
        fields, readable, length = x.plan.finish_head(x, status, given if type(given) is list else list(given or ()))
        if readable is not None and not x.judged:
            self.held = self._runtime.hold(x, status, readable, length)
        self.overhead_ns = perf_counter_ns() - began
        return self._begin({**message, "headers": fields})

    def _go(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        elif kind == "http.response.start" and not self.started:
            self.started = True
            self.status = message["status"]
            return self._send(message)
        if self._x.late is not None and self.started:
            self._abort(self._x.late)
        return self._send(message)

    async def refuse(self, verdict: Problem | Reply) -> None:
        """Answer with a refusal or an early answer instead of the application."""
        x = self._x
        self._over = self._over or not self.started
        if self.started or x.gone:
            return
        self.started = True
        self.status, fields, body = self._runtime.refuse(x, verdict)
        self.bytes_out = len(body)
        if not (x.native.get("http_version") or "1.1").startswith("1"):
            # `Connection` does not exist in HTTP/2 and later (RFC 9113, 8.2.2).
            fields = [field for field in fields if field[0] != b"connection"]
        await self._send({"type": "http.response.start", "status": self.status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    _refused = refuse

    async def rescue(self, error: Exception) -> bool:
        """The application raised: answer with a safe 500. True: it only stumbled over what we took away from it, which
        is a refusal and no crash; else the server shall hear of it."""
        x = self._x
        if x.late is not None and x.late is not CRASHED:
            x.crash = None
            await self.refuse(x.late)
            return self._over
        x.crash = error
        x.aborted = self.started and not self._over
        if not self.started:
            with suppress(OSError):
                await self.refuse(CRASHED)
        return False

    def _abort(self, verdict: Problem | Reply) -> NoReturn:
        """The answer began before its request was refused: it must not end like a complete one."""
        self._x.aborted = True
        if isinstance(verdict, Problem):
            self._x.problem = verdict
        raise ResponseAbortedError("the request was refused")


async def _nothing() -> None:
    """What is held back, or comes after its answer was replaced, goes nowhere."""


_BODIES = frozenset(("http.response.body", "http.response.pathsend", "http.response.zerocopysend"))
"""Messages that end an answer unless they say `more_body`; files that the server sends by itself nobody has read."""


class Concluding:
    """Between the way out and the server, where somebody must be told how the request ended before its last byte
    leaves: whoever has the answer may build on it."""

    __slots__ = ("_answered", "_owed", "_runtime", "_send", "_x")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._answered = Answered(x.plan.keeps_body)
        self._owed: list[Need] = []

    async def send(self, message: Message) -> None:
        """What is sent to the server."""
        answered, kind = self._answered, message["type"]
        if kind == "http.response.start":
            answered.begin(message["status"], message.get("headers") or ())
        elif kind in _BODIES and not answered.concluded:
            if kind == "http.response.body":
                answered.take(message.get("body", b""))
            else:
                answered.unread()
            if not message.get("more_body", False):
                await self._conclude(whole=True)
        await self._send(message)

    async def end(self) -> None:
        """The request is over. One that was cut, or cancelled, is concluded all the same."""
        if not self._answered.concluded:
            await self._conclude(whole=False)
        elif self._owed:
            await self._settled()

    async def _conclude(self, *, whole: bool) -> None:
        self._owed += self._runtime.conclusions(self._x, self._answered, whole=whole)
        await self._settled()

    async def _settled(self) -> None:
        """Ask everything that is owed. A task that is cancelled in between is shielded (anyio), or comes again from
        `end` (asyncio cancels once): who leaves now leaves nothing half done."""
        with anyio.CancelScope(shield=True):
            while self._owed:
                try:
                    await answer_to(self._x, self._runtime, self._owed[0], _no_more)
                except Exception as error:  # nobody's verdict any more
                    self._runtime.on_crash(self._x, error)
                del self._owed[0]


async def _no_more() -> Message:
    return {"type": "http.disconnect"}


class Handshake:
    """The way out of a WebSocket handshake: refused before it is accepted, relayed untouched afterwards."""

    __slots__ = ("_refused", "_runtime", "_send", "_x", "status")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._refused = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """What the application sends."""
        if self._refused:
            return
        if not self.status:
            x = self._x
            if x.late is None and message["type"] == "websocket.accept" and self._runtime.unconfirmed(x):
                x.late = UNCONFIRMED
            if x.late is not None:
                await self.refuse(x.late)
                return
            message = self._decided(message)
        await self._send(message)

    def _decided(self, message: Message) -> Message:
        """The application accepts, closes (403 on the wire) or denies; a denial is a response like any other."""
        if message["type"] != "websocket.http.response.start":
            self.status = 101 if message["type"] == "websocket.accept" else 403
            return message
        self.status = message["status"]
        fields, *_ = self._x.plan.finish_head(self._x, self.status, list(message.get("headers") or ()))
        return {**message, "headers": fields}

    async def refuse(self, verdict: Problem | Reply) -> None:
        """Refuse before the handshake is accepted."""
        if self._refused:
            return
        self._refused = True
        answer = self._runtime.refuse(self._x, verdict)
        self.status = answer[0]
        await deny(self._x.native, self._send, answer)
