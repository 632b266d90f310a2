"""The ASGI door: one wrapper around the application (ASGI 3.0; HTTP & WebSocket message format 2.5).

It builds the exchange, drives the walk with `await`, answers needs, writes verdicts and wraps the response. Streams
pass unbuffered; `lifespan` passes; a scope type it does not know goes through untouched.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from time import perf_counter_ns, time

from portalshield.asgi.answers import Concluding, Handshake, Judged, Response, deny, send_whole
from portalshield.asgi.bodies import outgoing
from portalshield.asgi.fields import headers_of, one_cookie
from portalshield.asgi.messages import App, Receive, Scope, Send
from portalshield.asgi.walking import judge, started
from portalshield.context import CURRENT, MARK, marked
from portalshield.flow import Walk
from portalshield.model.exchange import Exchange
from portalshield.model.verdicts import Verdict
from portalshield.opening import Opening, nobody, unopened
from portalshield.protection import Protected, Protection, protection_of
from portalshield.runtime import BODYLESS_METHODS, RequestIds, Runtime

_ids = RequestIds()


class AsgiDoor:
    """The outer door. `open_runtime` compiles the application when the first scope arrives, never before.

    `steps_aside` is asked where a door further out has judged the request already.
    """

    def __init__(
        self, app: App, open_runtime: Callable[[], Runtime], *, steps_aside: Callable[[Runtime], bool] = nobody
    ) -> None:
        self.app = app
        self._steps_aside = steps_aside
        self._opening = Opening(open_runtime)
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope of the server."""
        if MARK in scope and scope["type"] in ("http", "websocket"):
            outer = scope[MARK].runtime
            if outer is None or self._steps_aside(outer):  # None: a probe of the self-test
                await self.app(scope, receive, send)
                return
            scope = dict(scope)  # the outer one keeps its own
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        began = perf_counter_ns()
        runtime = self._opening.runtime or self._opening.attempt()
        if runtime is None:
            await _refuse_unopened(scope, receive, send)
            return
        x, judged = _exchange(scope, runtime, began)
        del scope  # error reports show the locals of every frame: the credential is in there
        token = CURRENT.set(x)
        concluding = Concluding(x, runtime, send) if x.plan.concludes else None
        response = Response(x, runtime, send if concluding is None else concluding.send)
        try:
            if judged is not None and started(x, runtime, judged):
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
            if concluding is not None:
                await concluding.end()
            ended = perf_counter_ns()
            overhead = (x.entered_ns or ended) - began + response.overhead_ns + x.judging_ns
            runtime.done(x, response.status, ended - began, overhead, response.bytes_out)
            CURRENT.reset(token)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
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
        x, judged = _exchange(scope, runtime, began)
        del scope
        token = CURRENT.set(x)
        handshake = Handshake(x, runtime, send)
        try:
            if started(x, runtime, judged):
                await judge(x, runtime, judged, receive)
            if x.verdict is not None:
                await receive()
                await handshake.refuse(x.verdict)
                return
            await self._relay(x, receive, handshake)
        finally:
            runtime.done(x, handshake.status, perf_counter_ns() - began, 0, 0)
            CURRENT.reset(token)

    async def _relay(self, x: Exchange, receive: Receive, handshake: Handshake) -> None:
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


def _exchange(scope: Scope, runtime: Runtime, began_ns: int) -> tuple[Exchange, Verdict | Walk]:
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
    x.runtime = runtime
    x.headers = headers
    x.path = scope["path"]
    x.raw_path = scope.get("raw_path")
    x.query = scope.get("query_string") or b""
    x.request_id = _ids.draw()
    x.began_ns = began_ns
    x.now = time()
    client = scope.get("client")
    x.peer = client[0] if client else None
    x.https = scope.get("scheme") in _SECURE
    if scope.get("root_path"):
        x.rest = _rest(x.path, scope["root_path"])
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


def _rest(path: str, root: str) -> str:
    """What is left of a path behind the root path; all of it, where that ends within a segment (as Starlette does)."""
    rest = path.removeprefix(root)
    return rest if rest.startswith("/") else path if rest else "/"


_SECURE = frozenset(("https", "wss"))
_SAYS_SO = frozenset((None, "1.0", "1.1"))


async def _refuse_unopened(scope: Scope, receive: Receive, send: Send) -> None:
    accept = next((value for name, value in scope.get("headers") or () if name.lower() == b"accept"), None)
    answer = unopened(_ids.draw(), scope.get("method", "GET"), accept)
    if scope["type"] == "http":
        await send_whole(send, "http", answer)
    else:
        await receive()
        await deny(scope, send, answer)


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
        if x.plan.reader is not None and not x.websocket:
            return self._judged(x, runtime, scope, receive, send)
        return self.app(scope, receive, send)

    async def _judged(self, x: Exchange, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        x.judged = False  # a middleware that tries again gets another answer, which nobody has read
        judged = Judged(x, runtime, send)
        answering = self.app(scope, receive, judged.send)
        del scope
        await answering
        await judged.end()

    async def _resumed(self, x: Exchange, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        suspended, x.walk = x.walk, None
        await judge(x, runtime, suspended, receive, inside=True)
        if x.verdict is None:
            received = receive if x.websocket else outgoing(x, receive)
            judged = x.plan.reader is not None and not x.websocket
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
        aside = protection.aside(app, told=shield is not None)
        self._door = AsgiDoor(app, protection.open_opaque, steps_aside=aside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One scope; the caller's own is not changed."""
        coming = self._door(dict(scope), receive, send)
        del scope
        await coming
