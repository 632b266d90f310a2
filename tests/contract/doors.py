"""Both doors for one test: the same requests through ASGI and WSGI, in memory, each side linted.

`Door.request` returns status, header fields and body. The ASGI side runs under `AsgiLint`, the WSGI side under
`wsgiref.validate`.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from wsgiref.validate import validator

Headers = Iterable[tuple[str, str]]


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    error: BaseException | None = None

    def all(self, name: str) -> list[str]:
        """Every value of a header field."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The only value of a header field; None if it is absent."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        import json

        return json.loads(self.body)

    @property
    def slug(self) -> str:
        """The last part of the problem's type."""
        return str(self.json["type"]).rpartition(":")[2]


class AsgiLint:
    """Checks the messages on both sides of an ASGI application (HTTP & WebSocket format 2.5)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        state = {"started": False, "ended": False}

        async def checked_send(message: Any) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                assert not state["started"], "a second response start"
                state["started"] = True
                assert type(message["status"]) is int
                for name, value in message.get("headers", ()):
                    assert type(name) is bytes
                    assert type(value) is bytes
                    assert b"\n" not in value
                    assert b"\r" not in value
            elif kind == "http.response.body":
                assert state["started"], "a body before its start"
                assert not state["ended"], "a body after the last one"
                assert type(message.get("body", b"")) is bytes
                state["ended"] = not message.get("more_body", False)
            await send(message)

        await self.app(scope, receive, checked_send)


@dataclass
class AsgiDoor:
    """Drives an ASGI application."""

    app: Any
    name: str = "asgi"
    scope_extra: dict[str, Any] = field(default_factory=dict)

    def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | list[bytes] = b"",
        *,
        peer: str | None = "203.0.113.7",
        https: bool = False,
        length: bool = True,
        lint: bool = True,
    ) -> Answer:
        """One request in a loop of its own."""
        return asyncio.run(self.arequest(method, target, headers, body, peer=peer, https=https, length=length))

    async def arequest(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | list[bytes] = b"",
        *,
        peer: str | None = "203.0.113.7",
        https: bool = False,
        length: bool = True,
    ) -> Answer:
        """One request in the running loop."""
        chunks = body if isinstance(body, list) else [body]
        scope = self._scope(method, target, _with_length(headers, chunks, length), peer, https)
        sent: list[Any] = []
        pending = [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
            for index, chunk in enumerate(chunks)
        ]

        async def receive() -> Any:
            return pending.pop(0) if pending else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        error: BaseException | None = None
        try:
            await AsgiLint(self.app)(scope, receive, send)
        except Exception as raised:
            error = raised
        start = next((message for message in sent if message["type"] == "http.response.start"), None)
        if start is None:
            assert error is not None, "no response"
            raise error
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
        data = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
        return Answer(start["status"], fields, data, error)

    def _scope(self, method: str, target: str, headers: Headers, peer: str | None, https: bool) -> dict[str, Any]:
        from urllib.parse import unquote

        path, _, query = target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https" if https else "http",
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": (peer, 50000) if peer is not None else None,
            "server": ("testserver", 80),
            "state": {},
            **self.scope_extra,
        }


@dataclass
class WsgiDoor:
    """Drives a WSGI application under wsgiref.validate. A key of `environ_extra` that is `...` is left out."""

    app: Any
    name: str = "wsgi"
    environ_extra: dict[str, Any] = field(default_factory=dict)

    def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | list[bytes] = b"",
        *,
        peer: str | None = "203.0.113.7",
        https: bool = False,
        length: bool = True,
        lint: bool = True,
    ) -> Answer:
        """One request; `lint=False` for what wsgiref.validate itself refuses to send."""
        data = b"".join(body) if isinstance(body, list) else body
        environ = _environ(method, target, _with_length(headers, [data], length), data, peer, https)
        environ = {key: value for key, value in {**environ, **self.environ_extra}.items() if value is not ...}
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., Any]:
            started[:] = [status, fields, exc_info]
            return written.append

        result = (validator(self.app) if lint else self.app)(environ, start_response)
        try:
            blocks = list(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        status, fields, exc_info = started
        error = exc_info[1] if exc_info else None
        return Answer(int(status.split()[0]), fields, b"".join([*written, *blocks]), error)


def _with_length(headers: Headers, chunks: list[bytes], length: bool) -> list[tuple[str, str]]:
    fields = list(headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("host", "portal.example.com"))
    size = sum(map(len, chunks))
    if length and size and "content-length" not in names and "transfer-encoding" not in names:
        fields.append(("content-length", str(size)))
    return fields


def _environ(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes, peer: str | None, https: bool
) -> dict[str, Any]:
    from urllib.parse import unquote_to_bytes

    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "REQUEST_URI": target,
        "QUERY_STRING": query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "443" if https else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if https else "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if "HTTP_TRANSFER_ENCODING" in environ:
        environ["wsgi.input_terminated"] = True
    return environ


Request = Callable[..., Answer]
AsyncRequest = Callable[..., Awaitable[Answer]]
