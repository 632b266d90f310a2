"""Calls an ASGI or WSGI application the way a server does, without a socket: what is left is the application's time.

A batch is timed inside the event loop, in CPU time of the process: other programs and waiting do not count, threads of
this process do. Every answer's status is compared, so that a fast refusal is never mistaken for a fast application.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import process_time_ns
from typing import Any, Protocol

Fields = tuple[tuple[bytes, bytes], ...]
AsgiApp = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]

PEER = ("203.0.113.7", 51824)
"""The client's address in every request: a public one (RFC 5737)."""
HOST = b"api.example.com"
"""The Host of every request that names no other."""
_BROWSER: Fields = (
    (b"host", HOST),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"),
    (b"accept", b"application/json, text/plain, */*"),
    (b"accept-language", b"en-US,en;q=0.7,de;q=0.3"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://app.example.com/clients/42"),
    (b"sec-fetch-dest", b"empty"),
    (b"sec-fetch-mode", b"cors"),
    (b"sec-fetch-site", b"same-site"),
    (b"x-request-id", b"0b5e9d3c7f3a4a0fb1d9b0b7c2f6a1e4"),
)


class UnexpectedStatusError(Exception):
    """An answer's status was another than the first answer's: what was measured is not what was meant."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, prepared. Header names are lower-case bytes, as a server hands them over."""

    method: str
    path: str
    headers: Fields
    query: str = ""
    body: bytes = b""

    def with_headers(self, fields: Iterable[tuple[bytes, bytes]]) -> Request:
        """The same request with these fields instead of those of the same names."""
        added = tuple(fields)
        names = {name for name, _ in added}
        return replace(self, headers=(*(field for field in self.headers if field[0] not in names), *added))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application sent."""

    status: int
    headers: Fields
    body: bytes


class Call(Protocol):
    """An application and a request, ready to be called again and again."""

    def answer(self) -> Answer:
        """One call; its status is from now on the expected one."""

    def batch(self, count: int) -> int:
        """CPU nanoseconds of `count` calls. Raises `UnexpectedStatusError`."""


def browser_request(
    method: str, target: str, *, token: str | None = None, origin: str | None = None, body: bytes = b""
) -> Request:
    """What a browser sends for a page's `fetch`: about a dozen fields. `target` is a path with or without a query."""
    path, _, query = target.partition("?")
    fields = [*_BROWSER]
    if origin is not None:
        fields.append((b"origin", origin.encode()))
    if token is not None:
        fields.append((b"authorization", b"Bearer " + token.encode()))
    if body:
        fields += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return Request(method, path, tuple(fields), query, body)


# -- ASGI -------------------------------------------------------------------------------------------------------------


class _Sink:
    """The two callables of one exchange (ASGI HTTP 2.5); keeps what was sent only where it is asked for."""

    __slots__ = ("_body", "_done", "_pending", "chunks", "headers", "keep", "status")

    def __init__(self, body: bytes, keep: bool = False) -> None:
        self._body = body
        self._pending = True
        self._done: asyncio.Event | None = None
        self.keep = keep
        self.status = 0
        self.headers: Fields = ()
        self.chunks: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        if self._pending:
            self._pending = False
            return {"type": "http.request", "body": self._body, "more_body": False}
        # A client that waits for its answer: the connection ends when the response does.
        self._done = asyncio.Event()
        await self._done.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.keep:
                self.headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
            return
        if self.keep:
            self.chunks.append(message.get("body", b""))
        if self._done is not None and not message.get("more_body", False):
            self._done.set()


class AsgiCall:
    """Calls an ASGI application in the loop of `runner`."""

    def __init__(self, app: AsgiApp, request: Request, runner: asyncio.Runner) -> None:
        self._app = app
        self._request = request
        self._runner = runner
        self._expected = 0
        self._scope = asgi_scope(request)

    def answer(self) -> Answer:
        """One call; its status is from now on the expected one."""
        return self._runner.run(self._answer())

    def batch(self, count: int) -> int:
        """CPU nanoseconds of `count` calls."""
        return self._runner.run(self._batch(count))

    async def _answer(self) -> Answer:
        sink = _Sink(self._request.body, keep=True)
        await self._app(self._fresh(), sink.receive, sink.send)
        self._expected = sink.status
        return Answer(sink.status, sink.headers, b"".join(sink.chunks))

    async def _batch(self, count: int) -> int:
        app, body, expected = self._app, self._request.body, self._expected
        began = process_time_ns()
        for _ in range(count):
            sink = _Sink(body)
            await app(self._fresh(), sink.receive, sink.send)
            if sink.status != expected:
                raise UnexpectedStatusError(f"{sink.status} instead of {expected}")
        return process_time_ns() - began

    def _fresh(self) -> dict[str, Any]:
        # Servers build scope, header list and state anew for each request, and applications write into them.
        return {**self._scope, "headers": list(self._request.headers), "state": {}}


def asgi_scope(request: Request) -> dict[str, Any]:
    """The connection scope that uvicorn would build for this request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("203.0.113.1", 8000),
        "client": PEER,
        "scheme": "https",
        "method": request.method,
        "root_path": "",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query.encode(),
    }


@asynccontextmanager
async def lifespan(app: AsgiApp) -> AsyncIterator[None]:
    """Start the application up, and shut it down again; one that knows no lifespan is left alone.

    Raises `RuntimeError` where the application says that its start-up failed.
    """
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    task = asyncio.ensure_future(app(scope, inbox.get, outbox.put))
    task.add_done_callback(lambda _: outbox.put_nowait({"type": "ended"}))
    await inbox.put({"type": "lifespan.startup"})
    started = await outbox.get()
    if started["type"] == "lifespan.startup.failed":
        raise RuntimeError(f"the application did not start: {started.get('message', '')}")
    try:
        yield
    finally:
        if started["type"] == "ended":
            task.exception()  # an application without lifespan raises; that is how it says so
        else:
            await inbox.put({"type": "lifespan.shutdown"})
            await outbox.get()
            await task


# -- WSGI -------------------------------------------------------------------------------------------------------------


class WsgiCall:
    """Calls a WSGI application (PEP 3333)."""

    def __init__(self, app: WsgiApp, request: Request) -> None:
        self._app = app
        self._request = request
        self._expected = ""
        self._environ = wsgi_environ(request)

    def answer(self) -> Answer:
        """One call; its status is from now on the expected one."""
        status, headers, body = self._once()
        self._expected = status
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return Answer(int(status[:3]), fields, body)

    def batch(self, count: int) -> int:
        """CPU nanoseconds of `count` calls."""
        expected, once = self._expected, self._once
        began = process_time_ns()
        for _ in range(count):
            status, _headers, _body = once()
            if status != expected:
                raise UnexpectedStatusError(f"{status[:3]} instead of {expected[:3]}")
        return process_time_ns() - began

    def _once(self) -> tuple[str, list[tuple[str, str]], bytes]:
        held: list[Any] = ["", []]

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
            held[:] = [status, headers]
            return lambda data: None

        blocks = self._app({**self._environ, "wsgi.input": io.BytesIO(self._request.body)}, start_response)
        try:
            body = b"".join(blocks)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()
        return held[0], held[1], body


def wsgi_environ(request: Request) -> dict[str, Any]:
    """The environ that gunicorn would build for this request."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "RAW_URI": request.path + (f"?{request.query}" if request.query else ""),
        "QUERY_STRING": request.query,
        "SERVER_NAME": "203.0.113.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": PEER[0],
        "REMOTE_PORT": str(PEER[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        plain = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        environ[key if plain else f"HTTP_{key}"] = value.decode("latin-1")
    return environ
