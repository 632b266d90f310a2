"""The ASGI door: one wrapper around the application (ASGI 3.0; HTTP & WebSocket message format 2.5).

It builds the exchange, drives the walk with `await`, answers needs, writes verdicts and wraps the response. Streams
pass unbuffered; `lifespan` passes; a scope type it does not know goes through untouched.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter_ns
from typing import Any, assert_never

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

from portalshield.context import CURRENT, MARK
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    INSIDE,
    Answer,
    Body,
    BodyAnswer,
    FetchKeys,
    Gone,
    Hit,
    Identified,
    Identify,
    Need,
    ReadBody,
    Refreshed,
    TenantOf,
    TimedOut,
    TooLarge,
    Unavailable,
)
from portalshield.model.principal import Principal
from portalshield.model.verdicts import Problem, Reply, Verdict
from portalshield.protection import Protected, Protection, protection_of
from portalshield.runtime import CRASHED, UNCONFIRMED, RequestIds, Runtime, marked, sum_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODYLESS_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))
_DISCONNECT: Message = {"type": "http.disconnect"}
_ids = RequestIds()


class RawHeaders(dict[bytes, bytes]):
    """The scope's header list as a dict; the list is kept for repeats."""

    __slots__ = ("raw",)

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw)
        self.raw = raw

    def get_all(self, name: bytes) -> list[bytes]:
        """All values of a field in their order."""
        if name not in self:
            return []
        return [self[name]] if len(self) == len(self.raw) else [value for key, value in self.raw if key == name]

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these names is there."""
        return names.isdisjoint(self)


class AsgiDoor:
    """The outer door. `open_runtime` compiles the application when the first scope arrives, never before."""

    def __init__(self, app: App, open_runtime: Callable[[], Runtime]) -> None:
        self.app = app
        self._open = open_runtime
        self._runtime: Runtime | None = None
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope of the server."""
        kind = scope["type"]
        if kind == "http" and MARK not in scope:
            await self._http(scope, receive, send)
        elif kind == "websocket" and MARK not in scope:
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            self._warn_of(kind)
            await self.app(scope, receive, send)

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter_ns()
        runtime = self._runtime or self._start()
        x, judged = self._exchange(scope, runtime)
        token = CURRENT.set(x)
        response = _Response(x, runtime, send)
        entered = 0
        try:
            verdict = await judge(x, runtime, judged, receive)
            if verdict is not None:
                x.verdict = verdict
                await response.refuse(verdict)
                return
            entered = perf_counter_ns()
            await self._call(x, receive, response)
        finally:
            ended = perf_counter_ns()
            CURRENT.reset(token)
            overhead = (entered or ended) - began + response.overhead_ns
            runtime.done(x, response.status, ended - began, overhead, (x.bytes_in or len(x.body or b""), response.bytes_out))

    async def _call(self, x: Exchange, receive: Receive, response: _Response) -> None:
        inner_receive = receive if x.walk is not None else outgoing(x, receive)
        try:
            await self.app(x.native, inner_receive, response.send)
        except Exception as error:
            if x.late is not None and x.late is not CRASHED:
                # The application stumbled over what we took away from it: that is a refusal, no crash.
                x.crash = None
                await response.refuse(x.late)
                return
            x.crash = error
            if not response.started:
                await response.refuse(CRASHED)
            raise
        if not response.started and x.late is not None:
            await response.refuse(x.late)

    # -- WebSocket ----------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter_ns()
        runtime = self._runtime or self._start()
        x, judged = self._exchange(scope, runtime)
        token = CURRENT.set(x)
        handshake = _Handshake(x, runtime, send, "websocket.http.response" in (scope.get("extensions") or {}))
        try:
            verdict = await judge(x, runtime, judged, receive)
            if verdict is not None:
                x.verdict = verdict
                await receive()
                await handshake.refuse(verdict)
                return
            await self.app(x.native, receive, handshake.send)
            if x.late is not None:
                await handshake.refuse(x.late)
        finally:
            CURRENT.reset(token)
            runtime.done(x, handshake.status, perf_counter_ns() - began, 0, (0, 0))

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compile before the server listens, so that a wrong configuration stops the start."""
        if self._runtime is None:
            self._start()
        await self.app(scope, receive, send)

    def _start(self) -> Runtime:
        self._runtime = runtime = self._open()
        for keys in runtime.keys.values():
            keys.start()
        return runtime

    def _warn_of(self, kind: str) -> None:
        if kind not in ("http", "websocket") and not self._warned:
            self._warned = True
            warnings.warn(f"portalshield does not know the ASGI scope type {kind[:32]!r}: it passes", stacklevel=2)

    def _exchange(self, scope: Scope, runtime: Runtime) -> tuple[Exchange, Any]:
        raw = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        headers = RawHeaders(raw)
        x = Exchange()
        x.native = scope
        x.headers = headers
        x.path = scope["path"]
        x.raw_path = scope.get("raw_path")
        x.query = scope.get("query_string") or b""
        x.request_id = _ids.draw()
        x.now = time.time()
        client = scope.get("client")
        x.peer = client[0] if client else None
        scheme = scope.get("scheme", "http")
        x.https = scheme in ("https", "wss")
        if scope["type"] == "websocket":
            x.websocket = True
        else:
            x.method = scope["method"]
            x.has_body = _may_have_body(headers, scope.get("http_version"), x.method)
        scope[MARK] = x
        return x, runtime.begin(x, len(raw), sum_of(raw), len(headers) != len(raw))


def _may_have_body(headers: RawHeaders, version: str | None, method: str) -> bool:
    length = headers.get(b"content-length")
    if length is not None:
        return length != b"0"
    if b"transfer-encoding" in headers:
        return True
    # HTTP/1 says so or has none (RFC 9112, 6.3); later versions may send one without saying.
    return version not in (None, "1.0", "1.1") and method not in _BODYLESS_METHODS


# -- driving the walk -------------------------------------------------------------------------------------------------


async def judge(x: Exchange, runtime: Runtime, judged: Any, receive: Receive, *, inside: bool = False) -> Verdict:
    """Drive a walk to its verdict. Outside, a need of the inner door suspends it: `x.walk` stays set, verdict None."""
    if judged is None or isinstance(judged, (Problem, Reply)):
        return judged
    try:
        need = judged.send(None) if not inside else x.pending
        while True:
            answer: Answer | None = runtime.at_once(x, need)
            if answer is None:
                if isinstance(need, INSIDE) and runtime.has_inner and not inside:
                    x.walk, x.pending = judged, need
                    return None
                answer = await _answer(x, runtime, need, receive)
            need = judged.send(answer)
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return verdict
    except Exception as error:
        return runtime.stage_failed(x, error)


async def _answer(x: Exchange, runtime: Runtime, need: Need, receive: Receive) -> Answer:
    match need:
        case Hit():
            return await runtime.store.ahit(need)
        case ReadBody():
            return await read_body(receive, need.limit, runtime.settings.body.read_timeout)
        case FetchKeys():
            keys = runtime.keys.get(need.issuer)
            if keys is None or await keys.refresh(need.kid):
                return Refreshed()
            return Unavailable("no-keys")
        case Identify():
            return await _identify(x, runtime)
        case TenantOf():
            return await _tenant_of(x, runtime, need)
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


async def _application(function: Callable[[Any], Any] | None, argument: Any) -> Any:
    """Call a function of the application's: awaited if it is async, in a worker thread if not."""
    if function is None:
        raise LookupError("the application gave no function to ask")
    if inspect.iscoroutinefunction(function):
        return await function(argument)
    return await anyio.to_thread.run_sync(function, argument)


# -- bodies -----------------------------------------------------------------------------------------------------------


async def read_body(receive: Receive, limit: int, timeout_s: float) -> BodyAnswer:
    """Read a whole body of at most `limit` bytes within `timeout_s` seconds."""
    chunks: list[bytes] = []
    size = 0
    with anyio.move_on_after(timeout_s):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return Gone()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                return TooLarge(b"".join(chunks))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return Body(chunks[0] if len(chunks) == 1 else b"".join(chunks))
    return TimedOut()


def outgoing(x: Exchange, receive: Receive) -> Receive:
    """What the application receives: the body that was read, once, then the real messages; else a guarded stream."""
    if x.body is not None:
        return _replay(x.body, x.body_complete, receive)
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
            return _DISCONNECT
        message = await receive()
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            x.bytes_in += len(chunk)
            for judge_chunk in judges:
                refusal = judge_chunk(chunk)
                if refusal is not None:
                    x.late, x.layer = refusal, "body"
                    return _DISCONNECT
        return message

    return guarded


# -- responses --------------------------------------------------------------------------------------------------------


class _Response:
    """The way out of one HTTP request: the head is finished as it passes, a late verdict replaces the answer."""

    __slots__ = ("_replaced", "_runtime", "_send", "_x", "bytes_out", "overhead_ns", "started", "status")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._replaced = False
        self.started = False
        self.status = 0
        self.bytes_out = 0
        self.overhead_ns = 0

    async def send(self, message: Message) -> None:
        """What the application sends."""
        if self._replaced:
            return
        kind = message["type"]
        if kind == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        elif kind == "http.response.start":
            began = perf_counter_ns()
            x = self._x
            if x.late is None and self._runtime.unconfirmed(x):
                x.late = UNCONFIRMED
            if x.late is not None:
                await self.refuse(x.late)
                self._replaced = True
                return
            head = self._runtime.finish_head(x, message["status"], list(message.get("headers") or ()))
            message = {**message, "headers": head.fields}
            self.started = True
            self.status = message["status"]
            self.overhead_ns = perf_counter_ns() - began
        await self._send(message)

    async def refuse(self, verdict: Problem | Reply) -> None:
        """Answer with a refusal or an early answer instead of the application."""
        x = self._x
        if self.started or x.gone:
            return
        self.started = self._replaced = True
        self.status, fields, body = self._runtime.refuse(x, verdict)
        self.bytes_out = len(body)
        await self._send({"type": "http.response.start", "status": self.status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class _Handshake:
    """The way out of a WebSocket handshake: refused before it is accepted, relayed untouched afterwards."""

    __slots__ = ("_denial", "_refused", "_runtime", "_send", "_x", "status")

    def __init__(self, x: Exchange, runtime: Runtime, send: Send, denial: bool) -> None:
        self._x = x
        self._runtime = runtime
        self._send = send
        self._denial = denial
        self._refused = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """What the application sends."""
        if self._refused:
            return
        if message["type"] == "websocket.accept":
            x = self._x
            if x.late is None and self._runtime.unconfirmed(x):
                x.late = UNCONFIRMED
            if x.late is not None:
                await self.refuse(x.late)
                return
            self.status = 101
        await self._send(message)

    async def refuse(self, verdict: Problem | Reply) -> None:
        """A denial response where the server offers it, else close 1008 (RFC 6455, 7.4.1)."""
        if self._refused:
            return
        self._refused = True
        self.status, fields, body = self._runtime.refuse(self._x, verdict)
        if not self._denial:
            await self._send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await self._send({"type": "websocket.http.response.start", "status": self.status, "headers": fields})
        await self._send({"type": "websocket.http.response.body", "body": body})


class InnerDoor:
    """The inner door: resumes a suspended walk where sessions are there, as the application's innermost middleware."""

    def __init__(self, app: App, runtime: Callable[[], Runtime | None]) -> None:
        self.app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Finish the walk, or set its verdict for the outer door to write."""
        x = marked(scope)
        runtime = self._runtime()
        if x is None or x.walk is None or runtime is None:
            await self.app(scope, receive, send)
            return
        suspended, x.walk = x.walk, None
        verdict = await judge(x, runtime, suspended, receive, inside=True)
        if verdict is None:
            await self.app(scope, receive if x.websocket else outgoing(x, receive), send)
            return
        x.late = verdict
        kind = "websocket.accept" if x.websocket else "http.response.start"
        await send({"type": kind, "status": 500, "headers": []} if not x.websocket else {"type": kind})


class ShieldMiddleware:
    """For any ASGI application, and for `app.add_middleware(ShieldMiddleware)`. `shield=None` reads the environment."""

    def __init__(self, app: App, shield: Protected | None = None) -> None:
        protection: Protection = protection_of(shield)
        self._door = AsgiDoor(app, protection.open_opaque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope; the caller's own is not changed."""
        await self._door(dict(scope), receive, send)
