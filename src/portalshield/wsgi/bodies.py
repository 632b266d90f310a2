"""Request bodies: read within limits, handed on exactly as they came, guarded where they stream."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    Body,
    BodyAnswer,
    Gone,
    TooLarge,
)
from portalshield.model.verdicts import Problem
from portalshield.runtime import (
    NO_BODY,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_BLOCK = 65_536


def read_body(environ: WSGIEnvironment, limit: int, until: Callable[[bytes], bool] | None = None) -> BodyAnswer:
    """Read a body of at most `limit` bytes, all of it or as far as `until` wants; one that is shorter than declared is
    a client that went away."""
    source = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not (length.isascii() and length.isdigit()):
        return TooLarge()
    if not length and not environ.get("wsgi.input_terminated"):
        # Nobody knows where such a body ends: frameworks see none, and a read could wait for ever.
        return Body(b"")
    wanted = int(length) if length else limit + 1
    try:
        data, enough = _read(source, min(wanted, limit + 1), until)
    except OSError:
        return Gone()
    complete = bool(length) and len(data) == wanted
    if len(data) > limit:
        return TooLarge(data, complete=complete)
    if length and not complete and not enough:
        return Gone()
    return Body(data, complete=complete or not enough)


def _read(source: Any, wanted: int, until: Callable[[bytes], bool] | None) -> tuple[bytes, bool]:
    """The bytes, and whether `until` had enough of them."""
    chunks: list[bytes] = []
    size = 0
    enough = False
    while size < wanted and not enough:
        chunk = source.read(min(wanted - size, _BLOCK))
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
        enough = until is not None and until(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks), enough


def admit_body(x: Exchange) -> None:
    """Hand the application the body that was read, or what was read of it and the stream behind its guards."""
    environ = x.native
    if x.body is not None and x.body_complete:
        environ["wsgi.input"] = io.BytesIO(x.body)
        environ["CONTENT_LENGTH"] = str(len(x.body))
        environ["wsgi.input_terminated"] = True
        return
    if x.has_body:
        judges = [judge_chunk for guard in x.plan.guards if (judge_chunk := guard(x)) is not None]
    else:
        judges = NO_BODY if environ.get("wsgi.input_terminated") and not announces(environ) else []
    if x.body is not None:
        environ["wsgi.input"] = _Guarded(x, judges, _Joined(x.body, environ["wsgi.input"]))
    elif judges:
        environ["wsgi.input"] = _Guarded(x, judges, environ["wsgi.input"])


def holds_body(environ: WSGIEnvironment, body: bytes | None) -> bool:
    """Whoever reads the input gets this body, from its first byte to its last: nobody on the way has changed it."""
    source = environ.get("wsgi.input")
    return body is not None and type(source) is io.BytesIO and source.tell() == 0 and source.getvalue() == body


def announces(environ: WSGIEnvironment) -> bool:
    """HTTP/1 says that a body follows or has none (RFC 9112, 6.3); later versions may send one without saying."""
    return str(environ.get("SERVER_PROTOCOL", "HTTP/1.1")).startswith("HTTP/1.")


class _Joined:
    """What was read already, then the rest: a form with files; in report mode, a body over the limit."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def read(self, size: int) -> bytes:
        chunk = self._head.read(size)
        return chunk if len(chunk) == size else chunk + bytes(self._rest.read(size - len(chunk)))

    def readline(self, size: int) -> bytes:
        line = self._head.readline(size)
        if len(line) == size or line.endswith(b"\n"):
            return line
        return line + bytes(self._rest.readline(size - len(line)))


class BodyRefusedError(OSError):
    """Raised into an application that reads a body which a guard refused; the door then answers in its place."""


class _Guarded:
    """A body that streams to the application, judged as it passes. Never asks for more than the application did."""

    def __init__(self, x: Exchange, judges: list[Callable[[bytes], Problem | None]], source: Any) -> None:
        self._x = x
        self._judges = judges
        self._source = source
        length = x.headers.get(b"content-length") or b""
        self._left = int(length) if length.isdigit() else -1

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; all of them, block by block, without a size."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        return self._judged(self._source.read, size)

    def readline(self, size: int | None = -1) -> bytes:
        """One line with its end, or as much of it as `size` allows."""
        left = sys.maxsize if size is None or size < 0 else size
        parts: list[bytes] = []
        while left > 0:
            parts.append(self._judged(self._source.readline, min(left, _BLOCK)))
            left -= len(parts[-1])
            if not parts[-1] or parts[-1].endswith(b"\n"):
                break
        return b"".join(parts)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """Lines, until they are `hint` bytes or more."""
        lines: list[bytes] = []
        left = sys.maxsize if hint is None or hint <= 0 else hint
        while left > 0 and (line := self.readline()):
            lines.append(line)
            left -= len(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _judged(self, read: Callable[[int], bytes], size: int) -> bytes:
        x = self._x
        if x.late is not None:
            raise BodyRefusedError("the body was refused")
        chunk = read(size)
        if not chunk and not size:
            return chunk  # nothing was asked for: this is not the end
        x.bytes_in += len(chunk)
        self._left -= len(chunk)
        # Nobody reads on behind the last byte that was declared.
        for piece in (chunk, b"") if chunk and self._left == 0 else (chunk,):
            for judge_chunk in self._judges:
                refusal = judge_chunk(piece)
                if refusal is not None:
                    x.late, x.layer = refusal, x.layer or "body"
                    raise BodyRefusedError("the body was refused")
        return chunk
