"""The ASGI door: one wrapper around the application (ASGI 3.0; HTTP & WebSocket message format 2.5).

It builds the exchange, drives the walk with `await`, answers needs, writes verdicts and wraps the response. Streams
pass unbuffered; `lifespan` passes; a scope type it does not know goes through untouched.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextlib import suppress
from time import perf_counter_ns, time
from typing import Any, NoReturn, assert_never

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

from portalshield.context import CURRENT, MARK
from portalshield.flow import Walk
from portalshield.held import Answered, Held
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    INSIDE,
    Answer,
    AskOwner,
    Body,
    BodyAnswer,
    Claim,
    FetchKeys,
    GiveBack,
    Gone,
    Hit,
    Identified,
    Identify,
    Need,
    Owners,
    ReadBody,
    Refreshed,
    Settle,
    TenantOf,
    TimedOut,
    TooLarge,
    Unavailable,
    Work,
    Worked,
)
from portalshield.model.principal import Principal
from portalshield.model.verdicts import Problem, Reply, Verdict
from portalshield.protection import Protected, Protection, protection_of
from portalshield.rules.colour import is_async
from portalshield.runtime import (
    BODYLESS_METHODS,
    CRASHED,
    NO_BODY,
    UNCONFIRMED,
    Opening,
    RequestIds,
    Runtime,
    judged_already,
    marked,
    unopened,
)
from portalshield.wire import Rendered

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ids = RequestIds()


class ResponseAbortedError(ConnectionError):
    """Raised into an application that goes on answering a request that was refused after its answer had begun."""


class RawHeaders(dict[bytes, bytes]):
    """The scope's header list as a dict by lower-case name; `raw` is the list itself, for repeats."""

    __slots__ = ("raw",)
    raw: list[tuple[bytes, bytes]]

    def get_all(self, name: bytes) -> list[bytes]:
        """All values of a field in their order."""
        if name not in self:
            return []
        return [self[name]] if len(self) == len(self.raw) else [value for key, value in self.raw if key == name]

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these names is there."""
        return names.isdisjoint(self)


def headers_of(raw: list[tuple[bytes, bytes]]) -> tuple[RawHeaders, int]:
    """The header fields and the size of all of them in bytes."""
    headers = RawHeaders(raw)
    headers.raw = raw
    names = b"".join(headers)
    if not names.islower() and names:
        # Servers lower the names; what does not may be read by an application that ignores their case.
        return headers_of([(name.lower(), value) for name, value in raw])
    if len(headers) != len(raw):
        return headers, sum([len(name) + len(value) for name, value in raw])
    return headers, len(names) + len(b"".join(headers.values()))


def one_cookie(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Browsers split `Cookie` where the protocol compresses fields (RFC 9113, 8.2.3; RFC 9114, 4.2.1), and not every
    server puts it together again. In HTTP/1 two of them stay two, and are refused."""
    crumbs = [value for name, value in raw if name.lower() == b"cookie"]
    joined = (b"cookie", b"; ".join(crumbs))
    return [field for field in raw if field[0].lower() != b"cookie"] + [joined] if len(crumbs) > 1 else raw


class AsgiDoor:
    """The outer door. `open_runtime` compiles the application when the first scope arrives, never before."""

    def __init__(self, app: App, open_runtime: Callable[[], Runtime], *, by_patterns: bool = False) -> None:
        self.app = app
        self._by_patterns = by_patterns
        self._opening = Opening(open_runtime)
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope of the server."""
        if scope["type"] != "http" or (MARK in scope and judged_already(scope, self._by_patterns)):
            await self._other(scope, receive, send)
            return
        began = perf_counter_ns()
        runtime = self._opening.runtime or self._opening.attempt()
        if runtime is None:
            await _refuse_unopened(scope, receive, send)
            return
        x, judged = _exchange(scope, runtime)
        del scope  # error reports show the locals of every frame: the credential is in there
        token = CURRENT.set(x)
        concluding = _Concluding(x, runtime, send) if x.plan.concludes else None
        response = _Response(x, runtime, send if concluding is None else concluding.send)
        x.began_ns = began
        try:
            if judged is not None and await_more(x, runtime, judged):
                await judge(x, runtime, judged, receive)
            if x.verdict is not None:
                await response.refuse(x.verdict)
                return
            x.entered_ns = perf_counter_ns()
            try:
                await self.app(x.native, receive if x.walk is not None else outgoing(x, receive), response.send)
                if response.held is not None:
                    await response.end()
            except Exception as error:
                if not await response.rescue(error):
                    raise
            if x.late is not None and not response.started:
                await response.refuse(x.late)
        finally:
            ended = perf_counter_ns()
            if concluding is not None:
                await concluding.end()
            overhead = (x.entered_ns or ended) - began + response.overhead_ns + x.judging_ns
            runtime.done(x, response.status, ended - began, overhead, response.bytes_out)
            CURRENT.reset(token)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket" and not judged_already(scope, self._by_patterns):
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            self._warn_of(kind)
            await self.app(scope, receive, send)

    # -- WebSocket ----------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter_ns()
        runtime = self._opening.runtime or self._opening.attempt()
        if runtime is None:
            await _refuse_unopened(scope, receive, send)
            return
        x, judged = _exchange(scope, runtime)
        del scope
        token = CURRENT.set(x)
        handshake = _Handshake(x, runtime, send)
        try:
            if await_more(x, runtime, judged):
                await judge(x, runtime, judged, receive)
            if x.verdict is not None:
                await receive()
                await handshake.refuse(x.verdict)
                return
            await self._relay(x, receive, handshake)
        finally:
            runtime.done(x, handshake.status, perf_counter_ns() - began, 0, 0)
            CURRENT.reset(token)

    async def _relay(self, x: Exchange, receive: Receive, handshake: _Handshake) -> None:
        try:
            await self.app(x.native, receive, handshake.send)
        except Exception as error:
            if x.late is None or handshake.status:
                x.crash = error
                raise
        if x.late is not None and not handshake.status:
            await handshake.refuse(x.late)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compile before the server listens, so that a wrong configuration stops the start."""
        if self._opening.attempt() is None and self._opening.error is not None:
            # Merely raising would mean "no lifespan here", and many servers would go on.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._opening.error)})
            raise self._opening.error
        await self.app(scope, receive, send)

    def _warn_of(self, kind: str) -> None:
        if kind not in ("http", "websocket") and not self._warned:
            self._warned = True
            warnings.warn(f"portalshield does not know the ASGI scope type {kind[:32]!r}: it passes", stacklevel=2)


def _exchange(scope: Scope, runtime: Runtime) -> tuple[Exchange, Verdict | Walk]:
    """The exchange of a scope, judged as far as that goes without waiting."""
    raw = scope.get("headers")
    if type(raw) is not list:
        # Any iterable is legal; the application must find what we took from one that gives its items once.
        scope["headers"] = raw = list(raw or ())
    headers, size = headers_of(raw)
    if len(headers) != len(raw) and b"cookie" in headers and scope.get("http_version") not in _SAYS_SO:
        scope["headers"] = raw = one_cookie(raw)
        headers, size = headers_of(raw)
    x = Exchange()
    x.native = scope
    x.headers = headers
    x.path = scope["path"]
    x.raw_path = scope.get("raw_path")
    x.query = scope.get("query_string") or b""
    x.request_id = _ids.draw()
    x.now = time()
    client = scope.get("client")
    x.peer = client[0] if client else None
    x.https = scope.get("scheme") in _SECURE
    if scope.get("root_path"):
        x.mounted = True
    if scope["type"] == "websocket":
        x.websocket = True
    else:
        x.method = scope["method"]
        if b"content-length" in headers or b"transfer-encoding" in headers:
            x.has_body = b"transfer-encoding" in headers or headers[b"content-length"] != b"0"
        elif b"content-type" in headers and x.method not in BODYLESS_METHODS:
            # HTTP/1 says so or has none (RFC 9112, 6.3); later versions may send one without saying how long it
            # is. What says nothing at all and comes all the same is refused on its way (`outgoing`).
            x.has_body = scope.get("http_version") not in _SAYS_SO
    scope[MARK] = x
    return x, runtime.begin(x, len(raw), size, len(headers) != len(raw))


_SECURE = frozenset(("https", "wss"))
_SAYS_SO = frozenset((None, "1.0", "1.1"))


async def _refuse_unopened(scope: Scope, receive: Receive, send: Send) -> None:
    accept = next((value for name, value in scope.get("headers") or () if name.lower() == b"accept"), None)
    answer = unopened(_ids.draw(), scope.get("method", "GET"), accept)
    if scope["type"] == "http":
        await _send_whole(send, "http", answer)
    else:
        await receive()
        await _deny(scope, send, answer)


async def _send_whole(send: Send, kind: str, answer: Rendered) -> None:
    status, fields, body = answer
    await send({"type": f"{kind}.response.start", "status": status, "headers": fields})
    await send({"type": f"{kind}.response.body", "body": body, "more_body": False})


async def _deny(scope: Scope, send: Send, answer: Rendered) -> None:
    """A denial response where the server offers it, else close 1008 (RFC 6455, 7.4.1), which servers turn into 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _send_whole(send, "websocket.http", answer)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


# -- driving the walk -------------------------------------------------------------------------------------------------


def await_more(x: Exchange, runtime: Runtime, judged: Verdict | Walk) -> bool:
    """Start a walk. False: it ended or there was none, see `x.verdict`; True: it waits, see `x.pending`."""
    if judged is None or isinstance(judged, (Problem, Reply)):
        x.verdict = judged
        return False
    return _advance(x, runtime, judged, None)


def _advance(x: Exchange, runtime: Runtime, walk: Any, answer: Answer | None) -> bool:
    try:
        x.pending = walk.send(answer)
        return True
    except StopIteration as stop:
        x.verdict = stop.value
    except Exception as error:
        x.verdict = runtime.stage_failed(x, error)
    return False


async def judge(x: Exchange, runtime: Runtime, walk: Any, receive: Receive, *, inside: bool = False) -> None:
    """Answer what a walk waits for until it has ended. Outside, a need of the inner door suspends it in `x.walk`."""
    waiting = True
    while waiting:
        answer = runtime.remembered(x, x.pending)
        if answer is None:
            if isinstance(x.pending, INSIDE) and runtime.has_inner and not inside:
                x.walk = walk
                return
            answer = await _answer(x, runtime, x.pending, receive)
        waiting = _advance(x, runtime, walk, answer)


async def _answer(x: Exchange, runtime: Runtime, need: Need, receive: Receive) -> Answer:
    match need:
        case Hit():
            return await runtime.store.ahit(need)
        case GiveBack():
            return await runtime.store.agive_back(need)
        case Claim():
            return await runtime.records.aclaim(need)
        case Settle():
            return await runtime.records.asettle(need)
        case ReadBody():
            return await read_body(receive, need.limit, runtime.settings.body.read_timeout, need.until)
        case FetchKeys():
            keys = runtime.keys.get(need.issuer)
            if keys is None or await keys.refresh(need.kid):
                return Refreshed()
            return Unavailable("no-keys")
        case Identify():
            return await _identify(x, runtime)
        case TenantOf():
            return await _tenant_of(x, runtime, need)
        case AskOwner():
            return await _owners(x, runtime, need)
        case Work():
            return Worked(await anyio.to_thread.run_sync(need.function))
        case _:
            assert_never(need)


async def _identify(x: Exchange, runtime: Runtime) -> Answer:
    try:
        found = await _application(runtime.authenticate, HTTPConnection(x.native))
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("authenticate-failed")
    return Identified(found if isinstance(found, Principal) else None)


async def _tenant_of(x: Exchange, runtime: Runtime, need: TenantOf) -> Answer:
    try:
        found = await _application(runtime.tenant_of, need.principal)
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("tenant-of-failed")
    return runtime.remember_tenants(x, need.principal, found)


async def _owners(x: Exchange, runtime: Runtime, need: AskOwner) -> Answer:
    """Ask the application's owners: async ones in turn, all sync ones in one worker thread."""
    tenants: list[Any] = [None] * len(need.questions)
    waiting = []
    try:
        for index, (owner, _, value) in enumerate(need.questions):
            if is_async(owner):
                tenants[index] = await owner(value)
            else:
                waiting.append((index, owner, value))
        if waiting:
            found = await anyio.to_thread.run_sync(lambda: [owner(value) for _, owner, value in waiting])
            for (index, _, _), tenant in zip(waiting, found, strict=True):
                tenants[index] = tenant
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("owner-failed")
    return Owners(tuple(str(tenant) if tenant is not None else None for tenant in tenants))


async def _application(function: Callable[[Any], Any] | None, argument: Any) -> Any:
    """Call a function of the application's: awaited if it is async, in a worker thread if not."""
    if function is None:
        raise LookupError("the application gave no function to ask")
    if is_async(function):
        return await function(argument)
    return await anyio.to_thread.run_sync(function, argument)


# -- bodies -----------------------------------------------------------------------------------------------------------


async def read_body(
    receive: Receive, limit: int, timeout_s: float, until: Callable[[bytes], bool] | None = None
) -> BodyAnswer:
    """Read a body of at most `limit` bytes within `timeout_s` seconds, all of it or as far as `until` wants.

    Most bodies have arrived with the request: the time-out is set up only when there is something to wait for.
    """
    reading = _Reading(limit, until)
    ready, begun = _begin(receive)
    if ready is not None and (answer := reading.take(ready)) is not None:
        return answer
    with anyio.move_on_after(timeout_s):
        while True:
            message = await (begun if begun is not None else receive())
            begun = None
            answer = reading.take(message)
            if answer is not None:
                return answer
    return TimedOut(b"".join(reading.chunks))


class _Reading:
    """A body while it arrives."""

    __slots__ = ("_limit", "_size", "_until", "chunks")

    def __init__(self, limit: int, until: Callable[[bytes], bool] | None) -> None:
        self._limit = limit
        self._until = until
        self._size = 0
        self.chunks: list[bytes] = []

    def take(self, message: Message) -> BodyAnswer | None:
        """One message more; the answer when it was enough."""
        if message["type"] == "http.disconnect":
            return Gone()
        chunk = message.get("body", b"")
        ended = not message.get("more_body", False)
        chunks = self.chunks
        chunks.append(chunk)
        self._size += len(chunk)
        enough = ended if self._until is None else self._until(chunk) or ended
        if self._size > self._limit:
            return TooLarge(b"".join(chunks), complete=ended)
        return Body(chunks[0] if len(chunks) == 1 else b"".join(chunks), complete=ended) if enough else None


def _begin(receive: Receive) -> tuple[Message | None, Awaitable[Message] | None]:
    """The next message if it is there already, else what to await for it."""
    coming = receive()
    if not isinstance(coming, Coroutine):
        return None, coming
    try:
        return None, _Begun(coming, coming.send(None))
    except StopIteration as stop:
        message: Message = stop.value
        return message, None


class _Begun:
    """A coroutine that was stepped once and now waits: awaiting it goes on from there, what it waits for first."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Message], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as stop:
            message: Message = stop.value
            return message


def outgoing(x: Exchange, receive: Receive) -> Receive:
    """What the application receives: what was read of the body, once, then the real messages, guarded where a body
    was not read to its end."""
    if x.body is not None:
        receive = _replay(x.body, x.body_complete, receive)
        if x.body_complete:
            return receive
    elif not x.has_body:
        return _guarded(x, NO_BODY, receive)
    judges = [judge for guard in x.plan.guards if (judge := guard(x)) is not None]
    return _guarded(x, judges, receive) if judges else receive


def _replay(body: bytes, complete: bool, receive: Receive) -> Receive:
    pending = True

    async def replayed() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": not complete}
        return await receive()

    return replayed


def _guarded(x: Exchange, judges: list[Callable[[bytes], Problem | None]], receive: Receive) -> Receive:
    async def guarded() -> Message:
        if x.late is not None:
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            x.bytes_in += len(chunk)
            for judge_chunk in judges:
                refusal = judge_chunk(chunk)
                if refusal is not None:
                    x.late, x.layer = refusal, x.layer or "body"
                    return {"type": "http.disconnect"}
        return message

    return guarded


# -- responses --------------------------------------------------------------------------------------------------------


class _Judged:
    """The way out of the application for an answer that has judges: what they want to read is held back, from its head
    to its last byte, and then goes on as it came, or not at all. Stands at the inner door where there is one."""

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
            if message["type"] != "http.response.body":
                return self._interrupted(message)
            enough = not held.take(message.get("body", b"")) or not message.get("more_body", False)
            return self._release(held, message) if enough or self._x.late is not None else _nothing()
        if self._over:
            return _nothing()
        x = self._x
        if message["type"] == "http.response.start":
            head = self._begun(message)
            if x.late is None and not x.judged and x.plan.judges:
                self.held = self._runtime.hold(x, message["status"], message.get("headers") or ())
            if x.late is not None:
                return self._refused(x.late)
            if self.held is not None:
                self._head = head
                return _nothing()
            message = head
        self._passed(message)
        return self._send(message)

    async def end(self) -> None:
        """The application returned: what is held now never became what it declared."""
        if self.held is not None:
            await self._release(self.held, {"type": "http.response.body", "body": self.held.body, "more_body": True})

    async def _interrupted(self, message: Message) -> None:
        """Something else than its body comes after a head that is held."""
        await self.end()
        self._passed(message)
        await self._send(message)

    async def _release(self, held: Held, message: Message) -> None:
        """Judge what was held; its body goes on as one message, the last of those it came in."""
        self.held = None
        x = self._x
        if len(held.chunks) > 1:
            message = {**message, "body": held.body}
        if x.late is None:
            self._runtime.settle(x, held)
        if x.late is not None:
            await self._refused(x.late)
            return
        self._passed(self._head)
        await self._send(self._head)
        self._passed(message)
        await self._send(message)

    def _begun(self, message: Message) -> Message:
        """The head of the answer as it shall go on."""
        return message

    def _passed(self, message: Message) -> None:
        """A message is about to go on."""

    async def _refused(self, verdict: Problem | Reply) -> None:
        """In place of the answer; the outer door writes the refusal."""
        self._over = True
        await self._send({"type": "http.response.start", "status": 500, "headers": []})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Response(_Judged):
    """The way out of one HTTP request: the head is finished as it passes, a late verdict replaces the answer."""

    __slots__ = ("bytes_out", "overhead_ns", "started", "status")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._over = self.started = False
        self.held = None
        self.status = self.bytes_out = self.overhead_ns = 0

    def _begun(self, message: Message) -> Message:
        x = self._x
        if x.late is None and x.reached and not x.confirmed and self._runtime.unconfirmed(x):
            x.late = UNCONFIRMED
        if x.late is not None:
            return message
        began = perf_counter_ns()
        head = {**message, "headers": x.plan.finish_head(x, message["status"], list(message.get("headers") or ()))}
        self.overhead_ns = perf_counter_ns() - began
        return head

    def _passed(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        if self.started:
            if self._x.late is not None:
                self._abort(self._x.late)
        elif message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]

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
        x.aborted = self.started
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


class _Concluding:
    """Between the way out and the server, where somebody must be told how the request ended before its last byte
    leaves: whoever has the answer may build on it."""

    __slots__ = ("_answered", "_runtime", "_send", "_x")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._answered = Answered(x.plan.keeps_body)

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
            with anyio.CancelScope(shield=True):
                await self._conclude(whole=False)

    async def _conclude(self, *, whole: bool) -> None:
        for need in self._runtime.conclusions(self._x, self._answered, whole=whole):
            await _answer(self._x, self._runtime, need, _no_more)


async def _no_more() -> Message:
    return {"type": "http.disconnect"}


class _Handshake:
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
        fields = self._x.plan.finish_head(self._x, self.status, list(message.get("headers") or ()))
        return {**message, "headers": fields}

    async def refuse(self, verdict: Problem | Reply) -> None:
        """Refuse before the handshake is accepted."""
        if self._refused:
            return
        self._refused = True
        answer = self._runtime.refuse(self._x, verdict)
        self.status = answer[0]
        await _deny(self._x.native, self._send, answer)


class InnerDoor:
    """The inner door, the application's innermost middleware: resumes a suspended walk where sessions are there, and
    has answers judged before other middleware compresses them."""

    def __init__(self, app: App, runtime: Callable[[], Runtime | None]) -> None:
        self.app = app
        self._runtime = runtime

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Finish the walk, or set its verdict for the outer door to write; then have the answer judged."""
        x = marked(scope) or CURRENT.get()
        runtime = self._runtime()
        if x is None or runtime is None:
            return self.app(scope, receive, send)
        if x.late is not None:
            return self._refused(x, send)  # a middleware that tries again is refused again
        if x.walk is not None:
            return self._resumed(x, runtime, scope, receive, send)
        if x.plan.judges and not x.websocket:
            return self._judged(x, runtime, scope, receive, send)
        return self.app(scope, receive, send)

    async def _judged(self, x: Exchange, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        x.judged = False  # a middleware that tries again gets another answer, which nobody has read
        judged = _Judged(x, runtime, send)
        answering = self.app(scope, receive, judged.send)
        del scope
        await answering
        await judged.end()

    async def _resumed(self, x: Exchange, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        suspended, x.walk = x.walk, None
        await judge(x, runtime, suspended, receive, inside=True)
        if x.verdict is None:
            received = receive if x.websocket else outgoing(x, receive)
            judged = x.plan.judges and not x.websocket
            coming = self._judged(x, runtime, scope, received, send) if judged else self.app(scope, received, send)
            del scope
            await coming
            return
        x.late, x.verdict = x.verdict, None
        await self._refused(x, send)

    async def _refused(self, x: Exchange, send: Send) -> None:
        """Something to replace; the outer door writes the refusal."""
        kind = "websocket.accept" if x.websocket else "http.response.start"
        await send({"type": kind, "status": 500, "headers": []} if not x.websocket else {"type": kind})


class ShieldMiddleware:
    """For any ASGI application, and for `app.add_middleware(ShieldMiddleware)`. `shield=None` reads the environment."""

    def __init__(self, app: App, shield: Protected | None = None) -> None:
        protection: Protection = protection_of(shield)
        self._door = AsgiDoor(app, protection.open_opaque, by_patterns=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope; the caller's own is not changed."""
        coming = self._door(dict(scope), receive, send)
        del scope
        await coming
