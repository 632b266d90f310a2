"""The WSGI door: one wrapper around the application (PEP 3333).

The same walk as the ASGI door, driven synchronously. Blocks pass one by one, `close()` is called exactly once, a
`wsgi.file_wrapper` reaches the server unchanged. A read cannot be interrupted here: slow bodies are the server's.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Token
from operator import itemgetter
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, assert_never

from portalshield.context import CURRENT, MARK
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
    unopened,
)
from portalshield.wire import reason

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ids = RequestIds()
_BLOCK = 65_536


class EnvironHeaders:
    """The header fields of an environ, read where they stand. Servers have joined repeats with a comma."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: bytes) -> bytes | None:
        """The value of a field."""
        value = self._environ.get(_KEYS[name])
        return value.encode("latin-1", "replace") if value is not None else None

    def get_all(self, name: bytes) -> list[bytes]:
        """The value as a list: repeats were joined by the server."""
        value = self.get(name)
        return [] if value is None else [value]

    def __contains__(self, name: bytes) -> bool:
        """A field of this name is there."""
        return _KEYS[name] in self._environ

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these names is there."""
        keys = _KEY_SETS.get(names)
        if keys is None:
            keys = _KEY_SETS[names] = frozenset([_KEYS[name] for name in names])
        return keys.isdisjoint(self._environ)


class _Keys(dict[bytes, str]):
    """`x-tenant-id` -> `HTTP_X_TENANT_ID`. Only names that layers ask for come here, never a client's."""

    def __missing__(self, name: bytes) -> str:
        text = name.decode("latin-1").upper().replace("-", "_")
        key = self[name] = text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"
        return key


_KEYS = _Keys()
_KEY_SETS: dict[frozenset[bytes], frozenset[str]] = {}


class WsgiDoor:
    """The outer door. `open_runtime` compiles the application when the first request arrives, never before."""

    def __init__(self, app: WSGIApplication, open_runtime: Callable[[], Runtime], *, by_patterns: bool = False) -> None:
        self.app = app
        self._by_patterns = by_patterns
        self._opening = Opening(open_runtime)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request of the server."""
        if MARK in environ and judged_already(environ, self._by_patterns):
            return self.app(environ, start_response)
        began = perf_counter_ns()
        runtime = self._opening.runtime or self._opening.attempt()
        if runtime is None:
            return _refuse_unopened(environ, start_response)
        x, judged = _exchange(environ, runtime)
        del environ  # error reports show the locals of every frame: the credential is in there
        token = CURRENT.set(x)
        x.began_ns = began
        response = _Response(x, runtime, start_response)
        response.token = token
        verdict = judge(x, runtime, judged)
        if verdict is not None:
            x.verdict = verdict
            return response.refuse(verdict)
        if x.walk is None:
            admit_body(x)
        x.entered_ns = perf_counter_ns()
        judging = _Judged(x, runtime, response.start) if x.plan.judges else None
        try:
            response.blocks = self.app(x.native, response.start if judging is None else judging.start)
            file_wrapper = x.native.get("wsgi.file_wrapper") if x.native is not None else None
            if x.late is None and isinstance(file_wrapper, type) and isinstance(response.blocks, file_wrapper):
                # The server recognises its own wrapper by type and sends the file itself.
                if judging is not None:
                    judging.release()
                response.handed_over()
                return response.blocks
            if judging is not None:
                response.blocks = judging.over(response.blocks)
        except Exception as error:
            return _apart(response.rescued(error), x, token)
        except BaseException:
            response.finish()
            raise
        return _apart(response, x, token)


def _refuse_unopened(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    accept = environ.get("HTTP_ACCEPT", "").encode("latin-1", "replace")
    status, fields, body = unopened(_ids.draw(), environ["REQUEST_METHOD"], accept)
    start_response(reason(status), [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
    return [body]


def _exchange(environ: WSGIEnvironment, runtime: Runtime) -> tuple[Exchange, Any]:
    x = Exchange()
    x.native = environ
    x.headers = EnvironHeaders(environ)
    x.method = environ["REQUEST_METHOD"]
    x.mounted = bool(environ.get("SCRIPT_NAME"))
    x.path = path_of(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    x.raw_path = raw.partition("?")[0].encode("latin-1", "replace") if raw else None
    x.query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
    x.https = environ.get("wsgi.url_scheme") == "https"
    x.peer = environ.get("REMOTE_ADDR") or None
    x.request_id = _ids.draw()
    x.now = time.time()
    length = environ.get("CONTENT_LENGTH")
    if length or "HTTP_TRANSFER_ENCODING" in environ:
        x.has_body = length != "0" or "HTTP_TRANSFER_ENCODING" in environ
    elif environ.get("CONTENT_TYPE") and x.method not in BODYLESS_METHODS:
        x.has_body = not _announces(environ) and bool(environ.get("wsgi.input_terminated"))
    fields, size = _measured(environ)
    environ[MARK] = x
    return x, runtime.begin(x, fields, size, False)


def _measured(environ: WSGIEnvironment) -> tuple[int, int]:
    """The number of header fields, and their size in bytes."""
    keys = tuple(environ)
    known = _SHAPES.get(keys)
    if known is None:
        names = [key for key in keys if key.startswith("HTTP_")]
        known = len(names), sum(map(len, names)), itemgetter(*names, *_TWO_MORE)
        if len(_SHAPES) >= _MAX_SHAPES:
            _SHAPES.clear()
        if len(keys) <= _LONGEST_SHAPE:
            _SHAPES[keys] = known
    fields, size, values = known
    return fields, size + len("".join(values(environ)))


_SHAPES: dict[tuple[str, ...], tuple[int, int, Callable[[WSGIEnvironment], tuple[str, ...]]]] = {}
"""What the keys of an environ say: how many header fields there are, how long their names, how to get the values."""
_TWO_MORE = ("REQUEST_METHOD", "REQUEST_METHOD")  # an itemgetter of at least two answers a tuple
_MAX_SHAPES, _LONGEST_SHAPE = 1024, 100


def path_of(text: str) -> str:
    """A path as an environ has it (bytes in the guise of latin-1, PEP 3333) as text; U+FFFD where it is no UTF-8."""
    if text.isascii():
        return text or "/"
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return "\ufffd"


# -- driving the walk -------------------------------------------------------------------------------------------------


def judge(x: Exchange, runtime: Runtime, judged: Any, *, inside: bool = False) -> Verdict:
    """Drive a walk to its verdict. Outside, a need of the inner door suspends it: `x.walk` stays set, verdict None."""
    if judged is None or isinstance(judged, (Problem, Reply)):
        return judged
    try:
        need = judged.send(None) if not inside else x.pending
        while True:
            answer = runtime.remembered(x, need)
            if answer is None:
                if isinstance(need, INSIDE) and runtime.has_inner and not inside:
                    x.walk, x.pending = judged, need
                    return None
                answer = _answer(x, runtime, need)
            need = judged.send(answer)
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return verdict
    except Exception as error:
        return runtime.stage_failed(x, error)


def _answer(x: Exchange, runtime: Runtime, need: Need) -> Answer:
    match need:
        case Hit():
            return runtime.store.hit(need)
        case GiveBack():
            return runtime.store.give_back(need)
        case Claim():
            return runtime.records.claim(need)
        case Settle():
            return runtime.records.settle(need)
        case ReadBody():
            return read_body(x.native, need.limit, need.until)
        case FetchKeys():
            keys = runtime.keys.get(need.issuer)
            fresh = keys is None or keys.refresh_sync(need.kid)
            return Refreshed() if fresh else Unavailable("no-keys")
        case Identify():
            return _identify(x, runtime)
        case TenantOf():
            return _tenant_of(x, runtime, need)
        case AskOwner():
            return _owners(x, runtime, need)
        case Work():
            return Worked(need.function())
        case _:
            assert_never(need)


def _identify(x: Exchange, runtime: Runtime) -> Answer:
    try:
        found = _application(runtime.authenticate, runtime.request_of(x.native))
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("authenticate-failed")
    return Identified(found if isinstance(found, Principal) else None)


def _tenant_of(x: Exchange, runtime: Runtime, need: TenantOf) -> Answer:
    try:
        found = _application(runtime.tenant_of, need.principal)
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("tenant-of-failed")
    return runtime.remember_tenants(x, need.principal, found)


def _owners(x: Exchange, runtime: Runtime, need: AskOwner) -> Answer:
    try:
        found = [_application(owner, value) for owner, _, value in need.questions]
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("owner-failed")
    return Owners(tuple(str(tenant) if tenant is not None else None for tenant in found))


def _application(function: Callable[[Any], Any] | None, argument: Any) -> Any:
    """Call a function of the application's; an async one gets a loop of its own."""
    if function is None:
        raise LookupError("the application gave no function to ask")
    if is_async(function):
        return asyncio.run(function(argument))
    return function(argument)


# -- bodies -----------------------------------------------------------------------------------------------------------


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
        judges = NO_BODY if environ.get("wsgi.input_terminated") and not _announces(environ) else []
    if x.body is not None:
        environ["wsgi.input"] = _Guarded(x, judges, _Joined(x.body, environ["wsgi.input"]))
    elif judges:
        environ["wsgi.input"] = _Guarded(x, judges, environ["wsgi.input"])


def _announces(environ: WSGIEnvironment) -> bool:
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
        x.bytes_in += len(chunk)
        for judge_chunk in self._judges:
            refusal = judge_chunk(chunk)
            if refusal is not None:
                x.late, x.layer = refusal, x.layer or "body"
                raise BodyRefusedError("the body was refused")
        return chunk


# -- responses --------------------------------------------------------------------------------------------------------


class _Response:
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
                _answer(self._x, self._runtime, need)

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


def _apart(blocks: Iterable[bytes], x: Exchange, token: Token[Exchange | None]) -> Iterable[bytes]:
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


class _Judged:
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


class ShieldMiddleware:
    """For any WSGI application: `app.wsgi_app = ShieldMiddleware(app.wsgi_app)`; `shield=None`: the environment."""

    def __init__(self, app: WSGIApplication, shield: Protected | None = None) -> None:
        protection: Protection = protection_of(shield)
        self._door = WsgiDoor(app, protection.open_opaque, by_patterns=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        return self._door(environ, start_response)
