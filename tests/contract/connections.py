"""The server's side of one connection, message by message, and applications without a router behind the shield."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

import portalshield.asgi
import portalshield.wsgi
from portalshield import Policy, Settings, Shield
from portalshield.telemetry import writer
from portalshield.testing import environment

OPEN = (Policy("* /*", public=True),)
STREAMED = {"BODY__CONTENT_TYPES": "*", "MODE__JSON": "off", "RATE__PER_IP": "1000000/minute"}
"""Nobody judges a body: it streams into the application."""
READ = {"BODY__CONTENT_TYPES": "*", "RATE__PER_IP": "1000000/minute"}
"""Bodies are read, judged and replayed."""

Message = dict[str, Any]


def shield_of(variables: dict[str, str], policies: Iterable[Policy] = OPEN) -> Shield:
    """A shield without an application."""
    return Shield(settings=Settings.from_env(environment(**variables)), policies=policies)


def asgi_shielded(
    app: Any, variables: dict[str, str] = READ, policies: Iterable[Policy] = OPEN
) -> portalshield.asgi.ShieldMiddleware:
    """An ASGI application without a router, all of it public unless `policies` say otherwise."""
    return portalshield.asgi.ShieldMiddleware(app, shield_of(variables, policies))


def wsgi_shielded(
    app: Any, variables: dict[str, str] = READ, policies: Iterable[Policy] = OPEN
) -> portalshield.wsgi.ShieldMiddleware:
    """The same for WSGI."""
    return portalshield.wsgi.ShieldMiddleware(app, shield_of(variables, policies))


def http_scope(method: str = "GET", path: str = "/", **changes: Any) -> dict[str, Any]:
    """A complete HTTP scope; a change of `...` leaves the key out."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"portal.example.com")],
        "client": ("203.0.113.7", 50000),
        "server": ("testserver", 80),
        "state": {},
        "extensions": {},
        **changes,
    }
    return {name: value for name, value in scope.items() if value is not ...}


def post_scope(*fields: tuple[bytes, bytes], length: int | None = None, **changes: Any) -> dict[str, Any]:
    """A POST with a body: chunked, unless a length is given."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    headers = [(b"host", b"portal.example.com"), (b"content-type", b"application/octet-stream"), framing, *fields]
    return http_scope("POST", **{"headers": headers, **changes})


def chunks(*parts: bytes) -> list[Message]:
    """Body messages as a server hands them over."""
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": index < last} for index, part in enumerate(parts)]


class Connection:
    """What a server does: hands over its messages, then waits until the client leaves; keeps what it is sent."""

    def __init__(self, *messages: Message) -> None:
        self.pending = deque(messages)
        self.sent: list[Message] = []
        self.received = 0
        self.waiting = asyncio.Event()
        self.gone = asyncio.Event()
        self.farewell: Message = {"type": "http.disconnect"}

    async def receive(self) -> Message:
        """The next message; with none left, the disconnect, once the client has left."""
        self.received += 1
        if self.pending:
            return self.pending.popleft()
        self.waiting.set()
        await self.gone.wait()
        return self.farewell

    async def send(self, message: Message) -> None:
        """Takes what the application sends."""
        await asyncio.sleep(0)
        self.sent.append(message)

    @property
    def kinds(self) -> list[str]:
        """The types of what was sent."""
        return [message["type"] for message in self.sent]

    @property
    def body(self) -> bytes:
        """All body bytes that were sent."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def start(self) -> Message:
        """The only response start."""
        (found,) = [message for message in self.sent if message["type"].endswith("http.response.start")]
        return found

    def fields(self, name: bytes) -> list[bytes]:
        """Values of a response header field."""
        return [value for key, value in self.start["headers"] if key.lower() == name]

    @property
    def slug(self) -> str:
        """The problem that was answered."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


def run(app: Any, scope: dict[str, Any], *messages: Message) -> Connection:
    """One scope in a loop of its own; what the application raises comes out."""

    async def main() -> Connection:
        connection = Connection(*messages)
        await app(scope, connection.receive, connection.send)
        return connection

    return asyncio.run(main())


async def whole_body(receive: Callable[[], Awaitable[Message]]) -> tuple[list[bytes], str]:
    """The body as an application reads it, and the type of the message that ended it."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return parts, message["type"]
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts, "http.request"


def environ_of(method: str = "GET", path: str = "/", body: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """A complete environ, with a declared body if there is one; a change of `...` leaves the key out."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "203.0.113.7",
        "HTTP_HOST": "portal.example.com",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "application/octet-stream"}
    return {name: value for name, value in {**environ, **changes}.items() if value is not ...}


class WsgiServer:
    """A WSGI server's side: `serve` runs one request as PEP 3333 tells, and keeps what happened."""

    def __init__(self) -> None:
        self.starts: list[tuple[str, list[tuple[str, str]], Any]] = []
        self.tries = 0
        self.written: list[bytes] = []
        self.blocks: list[bytes] = []

    def start_response(self, status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
        """Takes the head; raises `exc_info` once the head is out (PEP 3333)."""
        self.tries += 1
        if exc_info is not None and (any(self.blocks) or any(self.written)):
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not self.starts, "a second start without exc_info"
        self.starts.append((status, fields, exc_info))
        return self.written.append

    def serve(self, app: Any, environ: dict[str, Any], *, stop_after: int | None = None) -> WsgiServer:
        """One request; `stop_after` blocks the client leaves."""
        result = app(environ, self.start_response)
        try:
            for block in result:
                assert self.starts, "a block before the head"
                self.blocks.append(block)
                if len(self.blocks) == stop_after:
                    break
        finally:
            if hasattr(result, "close"):
                result.close()
        return self

    @property
    def status(self) -> int:
        """The status that went out."""
        return int(self.starts[-1][0][:3])

    @property
    def body(self) -> bytes:
        """All bytes that went out."""
        return b"".join([*self.written, *self.blocks])

    def fields(self, name: str) -> list[str]:
        """Values of a response header field."""
        return [value for key, value in self.starts[-1][1] if key.lower() == name]

    @property
    def slug(self) -> str:
        """The problem that was answered."""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


def request_lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The request lines that were written since the last call; a test begins with one, for those of earlier tests."""
    for found in list(writer._writers):
        found.flush()
    return [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
