"""Wrapping a WSGI application changes nothing that it or its server can notice, except what the policy demands."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from connections import OPEN, READ, STREAMED, WsgiServer, environ_of, request_lines, shield_of, wsgi_shielded
from flask import Flask
from portals import flask_portal

import portalshield.wsgi
from portalshield import Policy, Settings, Shield, current_tenant, public
from portalshield.context import CURRENT
from portalshield.testing import environment, mint_token

BODIES = [pytest.param(READ, id="read"), pytest.param(STREAMED, id="streamed")]
PLAIN = [("Content-Type", "text/plain")]


def plain(environ: Any, start_response: Any) -> list[bytes]:
    """An application that reads its body and answers `done`."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"].read(length)
    start_response("200 OK", list(PLAIN))
    return [b"done"]


class Blocks:
    """An application's iterable that counts how often it is asked and closed."""

    def __init__(self, *blocks: Any) -> None:
        self._blocks = iter(blocks)
        self.asked = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        block = next(self._blocks)
        if isinstance(block, BaseException):
            raise block
        return bytes(block)

    def close(self) -> None:
        """Counted."""
        self.closed += 1


def answering(blocks: Any, status: str = "200 OK", fields: list[tuple[str, str]] | None = None) -> Any:
    """An application that returns this iterable."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, list(PLAIN if fields is None else fields))
        return blocks

    return app


class TestWrongWiring:
    """K-01: Flask has no start-up event, so it is found out by the first request."""

    def test_every_request_is_503_and_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """Never "no policy": no view runs, the problems are logged once."""
        app = Flask(__name__)
        calls: list[str] = []

        @app.get("/data")
        @public
        def data() -> str:
            calls.append("data")
            return "data"

        Shield(app, settings=Settings.from_env(environment(**READ)), policies=[Policy("GET /dta", public=True)])
        with caplog.at_level(logging.CRITICAL, "portalshield"):
            answers = [
                WsgiServer().serve(validator(app), environ_of(method, path))
                for method, path in (("GET", "/data"), ("GET", "/data"), ("GET", "/nope"), ("HEAD", "/data"))
            ]
        assert [answer.status for answer in answers] == [503] * 4
        assert [answer.body for answer in answers][-1] == b""
        assert {answer.slug for answer in answers[:3]} == {"unavailable"}
        assert all(len(answer.fields("x-request-id")) == len(answer.fields("retry-after")) == 1 for answer in answers)
        assert calls == []
        assert [record.getMessage().count("PS-POLICY-003") for record in caplog.records] == [1]

    def test_threads_that_come_together_compile_once(self) -> None:
        """One runtime, so one set of counters, however many first requests there are."""
        wrapped = wsgi_shielded(plain)
        opening = wrapped._door._opening
        compile_it, opened, together = opening._open, [], threading.Barrier(16)

        def counting() -> Any:
            opened.append(1)
            return compile_it()

        def first(_: int) -> int:
            together.wait(20)
            return WsgiServer().serve(wrapped, environ_of()).status

        opening._open = counting
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(first, range(16))) == {200}
        assert opened == [1]


class TestBothSides:
    """G-01: `wsgiref.validate` outside and inside."""

    @pytest.mark.parametrize("variables", BODIES)
    @pytest.mark.parametrize("shape", ["list", "generator", "write", "empty", "204"])
    @pytest.mark.parametrize("body", [None, b"", b"question"], ids=["no body", "empty body", "body"])
    def test_neither_side_sees_a_fault(self, variables: dict[str, str], shape: str, body: bytes | None) -> None:
        """The door is a correct server to the application and a correct application to the server."""

        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.input"].read(len(body or b""))
            if shape == "204":
                start_response("204 No Content", [])
                return []
            write = start_response("200 OK", list(PLAIN))
            if shape == "write":
                write(b"written ")
            return (block for block in (b"a", b"b")) if shape == "generator" else [] if shape == "empty" else [b"ab"]

        wrapped = validator(wsgi_shielded(validator(app), variables))
        answer = WsgiServer().serve(wrapped, environ_of("POST", "/", body))
        expected = {"write": b"written ab", "empty": b"", "204": b""}.get(shape, b"ab")
        assert (answer.status, answer.body) == (204 if shape == "204" else 200, expected)
        assert len(answer.fields("x-request-id")) == 1

    @pytest.mark.parametrize(("target", "status"), [("/x", 404), ("//x", 400), ("/own", 401)])
    def test_refusals_are_valid_too(self, target: str, status: int) -> None:
        """404, 400, 401 and their fields pass the same checks."""
        wrapped = validator(wsgi_shielded(validator(plain), READ, [Policy("* /own", tenant=False)]))
        assert WsgiServer().serve(wrapped, environ_of("GET", target)).status == status

    def test_hop_by_hop_fields_stay_here(self) -> None:
        """`Connection: close` of a 413 is not passed to a WSGI server: some refuse it (PEP 3333)."""
        answer = WsgiServer().serve(wsgi_shielded(plain), environ_of("POST", "/", None, CONTENT_LENGTH="99999999"))
        assert (answer.status, answer.fields("connection")) == (413, [])


class TestClose:
    """G-02: exactly once."""

    @pytest.mark.parametrize(
        ("blocks", "stop_after", "error"),
        [
            pytest.param([b"a", b"b"], None, None, id="to the end"),
            pytest.param([], None, None, id="empty"),
            pytest.param([b"a", b"b"], 1, None, id="client leaves"),
            pytest.param([b"a", RuntimeError("boom")], None, RuntimeError, id="crash after a block"),
            pytest.param([RuntimeError("boom")], None, None, id="crash on the first block"),
            pytest.param([SystemExit(3)], None, SystemExit, id="exit"),
        ],
    )
    def test_the_iterable_is_closed_once(
        self, blocks: list[Any], stop_after: int | None, error: type[BaseException] | None
    ) -> None:
        """Whatever happens; and nothing of the request is left in the context."""
        iterable = Blocks(*blocks)
        wrapped = wsgi_shielded(answering(iterable))
        if error is None:
            WsgiServer().serve(wrapped, environ_of(), stop_after=stop_after)
        else:
            with pytest.raises(error):
                WsgiServer().serve(wrapped, environ_of())
        assert iterable.closed == 1
        assert CURRENT.get() is None

    def test_a_close_that_fails_still_ends_the_request(self, capfd: pytest.CaptureFixture[str]) -> None:
        """The exception reaches the server; the line is written, the context is clean."""
        request_lines(capfd)
        iterable = Blocks(b"a")

        def failing() -> None:
            raise RuntimeError("boom")

        iterable.close = failing  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            WsgiServer().serve(wsgi_shielded(answering(iterable)), environ_of())
        assert [line["status"] for line in request_lines(capfd)] == [200]
        assert CURRENT.get() is None


class TestBlocks:
    """G-03, G-06."""

    def test_one_block_out_per_block_in(self) -> None:
        """Empty ones too, and none is asked for ahead."""
        iterable = Blocks(b"a", b"", b"b")
        asked: list[int] = []
        result = wsgi_shielded(answering(iterable))(environ_of(), WsgiServer().start_response)
        blocks = []
        for block in result:
            blocks.append(block)
            asked.append(iterable.asked)
        result.close()  # type: ignore[attr-defined]
        assert blocks == [b"a", b"", b"b"]
        assert asked == [1, 2, 3]

    def test_nothing_is_asked_before_the_server_asks(self) -> None:
        """Calling the application draws no block."""
        iterable = Blocks(b"a")
        result = wsgi_shielded(answering(iterable))(environ_of(), WsgiServer().start_response)
        assert iterable.asked == 0
        result.close()  # type: ignore[attr-defined]

    def test_a_file_wrapper_reaches_the_server_unchanged(self) -> None:
        """The server recognises its own object and may send the file itself."""
        wrapper = FileWrapper(io.BytesIO(b"file"))
        environ = environ_of(**{"wsgi.file_wrapper": FileWrapper})
        assert wsgi_shielded(answering(wrapper))(environ, WsgiServer().start_response) is wrapper
        assert CURRENT.get() is None

    def test_a_file_wrapper_that_is_a_function_still_works(self) -> None:
        """Such a server's object cannot be recognised; its blocks pass one by one."""
        environ = environ_of(**{"wsgi.file_wrapper": lambda source, size=8192: FileWrapper(source, size)})
        app = answering(FileWrapper(io.BytesIO(b"file")))
        assert WsgiServer().serve(wsgi_shielded(app), environ).body == b"file"


class TestStart:
    """G-04, G-05."""

    def test_start_response_may_come_with_the_first_block(self) -> None:
        """A generator that starts late gets the same head."""

        def app(environ: Any, start_response: Any) -> Any:
            start_response("201 Created", list(PLAIN))
            yield b"late"

        answer = WsgiServer().serve(validator(wsgi_shielded(validator(app))), environ_of())
        assert (answer.status, answer.body, len(answer.fields("x-request-id"))) == (201, b"late", 1)

    @pytest.mark.parametrize("path", ["/me", "/page", "/stream", "/public", "/boom", "/nowhere"])
    def test_the_head_is_out_when_the_application_has_returned(self, path: str) -> None:
        """An application that starts before it returns still does: granian sends no head that comes later."""
        app, _ = flask_portal()
        settings = Settings.from_env(environment())
        Shield(app, settings=settings)
        server = WsgiServer()
        token = mint_token(settings, tenant="north")
        result = app(environ_of(path=path, HTTP_AUTHORIZATION=f"Bearer {token}"), server.start_response)
        assert len(server.starts) == 1
        assert b"".join(result)
        if hasattr(result, "close"):
            result.close()

    def test_an_error_page_of_the_applications_own(self) -> None:
        """`exc_info` before the first byte replaces the head; ours stands on the second one too."""

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            try:
                raise RuntimeError("boom")
            except RuntimeError as error:
                start_response("500 Own Page", list(PLAIN), (RuntimeError, error, error.__traceback__))
            return [b"own page"]

        answer = WsgiServer().serve(validator(wsgi_shielded(validator(app))), environ_of())
        assert [start[0] for start in answer.starts] == ["200 OK", "500 Own Page"]
        assert (answer.body, len(answer.fields("x-request-id"))) == (b"own page", 1)

    def test_an_error_page_that_comes_too_late(self) -> None:
        """Once bytes are out the server raises `exc_info`, through the door and the application."""

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            yield b"half"
            error = RuntimeError("boom")
            start_response("500 Own Page", list(PLAIN), (RuntimeError, error, None))
            yield b"never"

        server = WsgiServer()
        with pytest.raises(RuntimeError, match="boom"):
            server.serve(wsgi_shielded(app), environ_of())
        assert (server.status, server.body) == (200, b"half")

    def test_written_bytes_count_as_sent(self) -> None:
        """After `write()` a crash is raised, not answered a second time."""

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))(b"half")
            raise RuntimeError("boom")

        server = WsgiServer()
        with pytest.raises(RuntimeError, match="boom"):
            server.serve(wsgi_shielded(app), environ_of())
        assert (server.tries, server.body) == (1, b"half")
        assert CURRENT.get() is None

    def test_repeated_fields_keep_their_order(self) -> None:
        """Two cookies stay two."""
        fields = [*PLAIN, ("Set-Cookie", "a=1"), ("X-A", "y"), ("Set-Cookie", "b=2")]
        answer = WsgiServer().serve(wsgi_shielded(answering([b""], fields=fields)), environ_of())
        assert answer.starts[0][1][:4] == fields

    @pytest.mark.parametrize(
        ("method", "status", "fields"),
        [
            pytest.param("HEAD", "200 OK", [("Content-Length", "1234"), *PLAIN], id="HEAD"),
            pytest.param("GET", "204 No Content", [], id="204"),
            pytest.param("GET", "304 Not Modified", [("ETag", '"1"')], id="304"),
            pytest.param("GET", "299 Odd Reason", [("Content-Length", "0"), *PLAIN], id="own reason"),
        ],
    )
    def test_framing_is_the_applications(self, method: str, status: str, fields: list[tuple[str, str]]) -> None:
        """Status line and lengths stay as they are, no body appears."""
        answer = WsgiServer().serve(wsgi_shielded(answering([], status, fields)), environ_of(method))
        assert answer.starts[0][0] == status
        assert answer.starts[0][1][: len(fields)] == fields
        assert answer.fields("content-length") == [value for name, value in fields if name == "Content-Length"]
        assert answer.body == b""


class Watched(io.BytesIO):
    """An input that counts reads and refuses to be read beyond its end, as a socket would block."""

    def __init__(self, data: bytes, *, blocks: bool = True) -> None:
        super().__init__(data)
        self.reads = 0
        self._blocks = blocks

    def read(self, size: int | None = -1) -> bytes:
        """At most what is there; asking for more would wait for ever."""
        self.reads += 1
        left = len(self.getvalue()) - self.tell()
        assert not self._blocks or (size is not None and 0 <= size <= left), "this read would block"
        return super().read(size)


class TestLengths:
    """G-07, G-09, G-14, B-02."""

    @pytest.mark.parametrize(
        ("length", "status"),
        [
            pytest.param(..., 200, id="missing"),
            pytest.param("", 200, id="empty"),
            pytest.param("0", 200, id="zero"),
            pytest.param("5", 200, id="right"),
            pytest.param("00005", 200, id="leading zeros"),
            pytest.param("abc", 400, id="letters"),
            pytest.param("-5", 400, id="negative"),
            pytest.param("+5", 400, id="plus"),
            pytest.param(" 5", 400, id="space before"),
            pytest.param("5 ", 400, id="space behind"),
            pytest.param("5,5", 400, id="two of them"),
            pytest.param("0x5", 400, id="hexadecimal"),
            pytest.param("5.0", 400, id="decimal"),
            pytest.param("1_0", 400, id="underscore"),
            pytest.param("\xb2", 400, id="superscript digit"),
            pytest.param("\u0665", 400, id="Arabic digit"),
            pytest.param("9" * 17, 413, id="huge"),
            pytest.param("9" * 5000, 400, id="absurd"),
        ],
    )
    @pytest.mark.parametrize("variables", BODIES)
    def test_an_odd_length_never_blocks(self, variables: dict[str, str], length: Any, status: int) -> None:
        """Only ASCII digits are a length; nothing is read beyond what was declared."""
        source = Watched(b"hello")
        environ = environ_of("POST", "/", b"", **{"CONTENT_LENGTH": length, "wsgi.input": source})
        answer = WsgiServer().serve(wsgi_shielded(plain, variables), environ)
        assert answer.status == status
        assert status == 200 or source.reads == 0

    def test_in_report_mode_a_malformed_length_is_the_applications(self) -> None:
        """It is noted, nothing is read, the application gets everything as it came."""
        source = Watched(b"hello")
        seen: list[Any] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.extend((environ["CONTENT_LENGTH"], environ["wsgi.input"].read(5)))
            start_response("200 OK", list(PLAIN))
            return [b""]

        environ = environ_of("POST", "/", b"", **{"CONTENT_LENGTH": "\xb2", "wsgi.input": source})
        assert WsgiServer().serve(wsgi_shielded(app, {**READ, "MODE__BODY": "report"}), environ).status == 200
        assert seen == ["\xb2", b"hello"]

    @pytest.mark.parametrize("terminated", [True, False])
    def test_a_body_without_a_length(self, terminated: bool) -> None:
        """Read to its end where the server ends the input; where nobody knows the end, nothing is read."""
        source = Watched(b"hello", blocks=not terminated)
        seen: list[bytes] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append(environ["wsgi.input"].read())
            start_response("200 OK", list(PLAIN))
            return [b""]

        extra = {"wsgi.input_terminated": True} if terminated else {}
        environ = environ_of("POST", "/", b"", CONTENT_LENGTH=..., HTTP_TRANSFER_ENCODING="chunked", **extra)
        environ["wsgi.input"] = source
        assert WsgiServer().serve(wsgi_shielded(app), environ).status == 200
        assert seen == [b"hello" if terminated else b""]

    def test_two_lengths_are_refused(self) -> None:
        """A length beside a transfer coding never reaches the application."""
        source = Watched(b"hello")
        environ = environ_of("POST", "/", b"hello", HTTP_TRANSFER_ENCODING="chunked")
        environ |= {"wsgi.input": source, "wsgi.input_terminated": True}
        answer = WsgiServer().serve(wsgi_shielded(plain), environ)
        assert (answer.status, source.reads) == (400, 0)

    def test_too_much_is_refused_unread(self) -> None:
        """413 without a read, so no server sends `100 Continue`."""
        source = Watched(b"hello")
        environ = environ_of("POST", "/", b"", **{"CONTENT_LENGTH": "2000000", "wsgi.input": source})
        answer = WsgiServer().serve(wsgi_shielded(plain), environ)
        assert (answer.status, answer.slug, source.reads) == (413, "body-too-large", 0)

    @pytest.mark.parametrize("variables", BODIES)
    def test_an_endless_body_is_cut(self, variables: dict[str, str]) -> None:
        """Of a chunked body without an end little more than the limit is ever read."""

        class Endless(io.RawIOBase):
            given = 0

            def read(self, size: int | None = -1) -> bytes:
                assert size is not None
                assert 0 <= size <= 65_536
                self.given += size
                return bytes(size)

        source = Endless()

        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.input"].read()
            start_response("200 OK", list(PLAIN))
            return [b"read"]

        environ = environ_of("POST", "/", b"", CONTENT_LENGTH=..., HTTP_TRANSFER_ENCODING="chunked")
        environ |= {"wsgi.input": source, "wsgi.input_terminated": True}
        answer = WsgiServer().serve(wsgi_shielded(app, variables), environ)
        assert (answer.status, answer.slug) == (413, "body-too-large")
        assert source.given <= 1_048_576 + 65_536

    def test_a_short_body_is_never_whole(self) -> None:
        """Read first: the application is not called, nothing is logged as an error. Streamed: it sees what came."""
        seen: list[bytes] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append(environ["wsgi.input"].read(10))
            start_response("200 OK", list(PLAIN))
            return [environ["CONTENT_LENGTH"].encode()]

        answer = WsgiServer().serve(wsgi_shielded(app, READ), environ_of("POST", "/", b"short", CONTENT_LENGTH="10"))
        assert (answer.status, seen) == (400, [])
        answer = WsgiServer().serve(
            wsgi_shielded(app, STREAMED), environ_of("POST", "/", b"short", CONTENT_LENGTH="10")
        )
        assert (answer.status, seen, answer.body) == (200, [b"short"], b"10")

    def test_a_connection_that_breaks_is_no_error_of_ours(self, capfd: pytest.CaptureFixture[str]) -> None:
        """An `OSError` from the server's input is a client that left: no 500, no error in the log."""
        request_lines(capfd)

        class Broken(io.RawIOBase):
            def read(self, size: int | None = -1) -> bytes:
                raise ConnectionResetError

        environ = environ_of("POST", "/", b"", **{"CONTENT_LENGTH": "10", "wsgi.input": Broken()})
        assert WsgiServer().serve(wsgi_shielded(plain), environ).status == 400
        (line,) = request_lines(capfd)
        assert line["level"] != "error"

    def test_an_unannounced_body_never_arrives(self) -> None:
        """HTTP/2 may send one without a length; nobody judged it, so the application does not get it."""
        seen: list[bytes] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append(environ["wsgi.input"].read())
            start_response("200 OK", list(PLAIN))
            return [b"read"]

        environ = environ_of("GET", "/", None, **{"SERVER_PROTOCOL": "HTTP/2.0", "wsgi.input_terminated": True})
        environ["wsgi.input"] = io.BytesIO(b'{"tenant_id": "south"}')
        answer = WsgiServer().serve(wsgi_shielded(app), environ)
        assert (answer.status, answer.slug, seen) == (400, "malformed-request", [])

    @pytest.mark.parametrize(("body", "status"), [(b'{"a": 1}', 200), (b'{"a": 1', 400), (b"", 200)])
    def test_http_2_needs_no_length(self, body: bytes, status: int) -> None:
        """There a POST may leave it out: a body with a type is read to its end and judged like any other."""
        environ = environ_of("POST", "/", b"", **{"CONTENT_LENGTH": ..., "CONTENT_TYPE": "application/json"})
        environ |= {"SERVER_PROTOCOL": "HTTP/2.0", "wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
        assert WsgiServer().serve(wsgi_shielded(plain), environ).status == status

    @pytest.mark.parametrize("length", ["3000", "2048"])
    def test_report_mode_hands_everything_on(self, length: str) -> None:
        """What was read to find out that it is too much is not lost."""
        data = bytes(range(256)) * 12
        variables = {**READ, "MODE__BODY": "report", "BODY__MAX_SIZE": "1KB"}

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

        environ = environ_of("POST", "/", data, CONTENT_LENGTH=length)
        assert WsgiServer().serve(wsgi_shielded(app, variables), environ).body == data[: int(length)]


class TestInput:
    """G-08."""

    DATA = b"first\nsecond\r\n\nlast without end"

    @pytest.mark.parametrize("variables", BODIES)
    @pytest.mark.parametrize(
        ("read", "found"),
        [
            pytest.param(lambda s: s.read(31), DATA, id="read all"),
            pytest.param(
                lambda s: [s.read(4), s.read(0), s.read(27), s.read(1)], [DATA[:4], b"", DATA[4:], b""], id="read"
            ),
            pytest.param(lambda s: s.read(), DATA, id="read without a size"),
            pytest.param(
                lambda s: [s.readline() for _ in range(5)],
                [b"first\n", b"second\r\n", b"\n", b"last without end", b""],
                id="readline",
            ),
            pytest.param(lambda s: [s.readline(3), s.readline(100)], [b"fir", b"st\n"], id="readline with a size"),
            pytest.param(
                lambda s: s.readlines(), [b"first\n", b"second\r\n", b"\n", b"last without end"], id="readlines"
            ),
            pytest.param(lambda s: s.readlines(7), [b"first\n", b"second\r\n"], id="readlines with a hint"),
            pytest.param(list, [b"first\n", b"second\r\n", b"\n", b"last without end"], id="iteration"),
        ],
    )
    def test_the_input_can_be_read_in_every_way(
        self, variables: dict[str, str], read: Callable[[Any], Any], found: Any
    ) -> None:
        """The same bytes and line ends as from the server's own input."""
        seen: list[Any] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append(read(environ["wsgi.input"]))
            start_response("200 OK", list(PLAIN))
            return [b""]

        WsgiServer().serve(wsgi_shielded(app, variables), environ_of("POST", "/", self.DATA))
        assert seen == [found]

    def test_a_long_line_is_one_line(self) -> None:
        """Lines longer than a block arrive whole."""
        line = b"x" * 150_000 + b"\n"
        seen: list[bytes] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.extend(environ["wsgi.input"])
            start_response("200 OK", list(PLAIN))
            return [b""]

        WsgiServer().serve(wsgi_shielded(app, STREAMED), environ_of("POST", "/", line + b"end"))
        assert seen == [line, b"end"]

    def test_a_replayed_input_is_terminated(self) -> None:
        """It ends by itself, and says so; the length is the body's."""
        seen: list[Any] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.extend((environ["CONTENT_LENGTH"], environ["wsgi.input_terminated"]))
            start_response("200 OK", list(PLAIN))
            return [b""]

        environ = environ_of("POST", "/", b"", CONTENT_LENGTH=..., HTTP_TRANSFER_ENCODING="chunked")
        environ |= {"wsgi.input": io.BytesIO(b"hello"), "wsgi.input_terminated": True}
        WsgiServer().serve(wsgi_shielded(app), environ)
        assert seen == ["5", True]

    @pytest.mark.parametrize("catches", [True, False])
    def test_a_body_that_is_refused_on_the_way_ends_the_answer(self, catches: bool) -> None:
        """Before the first byte the refusal is the answer, even where the application swallows the error."""

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            try:
                while environ["wsgi.input"].read(500):
                    pass
            except OSError:
                if not catches:
                    raise
            yield b"looks fine"

        variables = {**STREAMED, "BODY__MAX_SIZE": "1KB"}
        environ = environ_of("POST", "/", b"", CONTENT_LENGTH=..., HTTP_TRANSFER_ENCODING="chunked")
        environ |= {"wsgi.input": io.BytesIO(b"x" * 5000), "wsgi.input_terminated": True}
        answer = WsgiServer().serve(wsgi_shielded(app, variables), environ)
        assert (answer.status, answer.slug) == (413, "body-too-large")

    def test_an_answer_that_began_is_cut_off_when_its_request_is_refused(self) -> None:
        """An echo of a body that turns out too large does not end like a complete one."""

        def echo(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            yield b"began"
            try:
                environ["wsgi.input"].read()
            except OSError:
                yield b"the end"

        variables = {**STREAMED, "BODY__MAX_SIZE": "1KB"}
        environ = environ_of("POST", "/", b"", CONTENT_LENGTH=..., HTTP_TRANSFER_ENCODING="chunked")
        environ |= {"wsgi.input": io.BytesIO(b"x" * 5000), "wsgi.input_terminated": True}
        server = WsgiServer()
        with pytest.raises(OSError, match="refused"):
            server.serve(wsgi_shielded(echo, variables), environ)
        assert server.body == b"began"


class TestEnviron:
    """G-10."""

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            pytest.param({"PATH_INFO": "/caf\xc3\xa9"}, 200, id="UTF-8 in the guise of latin-1"),
            pytest.param({"PATH_INFO": "/\xe9"}, 400, id="no UTF-8"),
            pytest.param({"PATH_INFO": "/\xc0\xaf"}, 400, id="overlong slash"),
            pytest.param({"PATH_INFO": "/\xed\xa0\x80"}, 400, id="encoded surrogate"),
            pytest.param({"PATH_INFO": "/\u5317"}, 400, id="no latin-1 at all"),
            pytest.param({"PATH_INFO": "/cafe\xcc\x81"}, 400, id="not NFC"),
            pytest.param({"PATH_INFO": "/x", "SCRIPT_NAME": "/app"}, 200, id="script name"),
            pytest.param({"PATH_INFO": "", "SCRIPT_NAME": "/app"}, 200, id="script name alone"),
            pytest.param({"PATH_INFO": "/x", "SCRIPT_NAME": "/app/"}, 400, id="doubled slash between them"),
            pytest.param({"PATH_INFO": "", "SCRIPT_NAME": ""}, 200, id="both empty"),
            pytest.param({"PATH_INFO": ...}, 200, id="no PATH_INFO"),
            pytest.param({"SCRIPT_NAME": ...}, 200, id="no SCRIPT_NAME"),
            pytest.param({"QUERY_STRING": ...}, 200, id="no QUERY_STRING"),
            pytest.param({"QUERY_STRING": "a=\u5317"}, 200, id="query that is no latin-1"),
            pytest.param({"REMOTE_ADDR": ...}, 200, id="no REMOTE_ADDR"),
            pytest.param({"REMOTE_ADDR": ""}, 200, id="empty REMOTE_ADDR"),
            pytest.param({"HTTP_HOST": ...}, 200, id="no Host"),
            pytest.param({"SERVER_PROTOCOL": ...}, 200, id="no SERVER_PROTOCOL"),
            pytest.param({"CONTENT_TYPE": "", "CONTENT_LENGTH": ""}, 200, id="empty content fields"),
            pytest.param({"HTTP_X_A": "\u5317"}, 200, id="field that is no latin-1"),
            pytest.param({"HTTP_AUTHORIZATION": "Bearer \u5317"}, 200, id="credential that is no latin-1"),
            pytest.param({"wsgi.url_scheme": "https"}, 200, id="https"),
            pytest.param({"REQUEST_URI": "/?a=1"}, 200, id="REQUEST_URI"),
            pytest.param({"RAW_URI": "http://portal.example.com/"}, 200, id="absolute RAW_URI"),
            pytest.param({"REQUEST_METHOD": "get"}, 400, id="method in lower case"),
            pytest.param({"REQUEST_METHOD": ""}, 400, id="empty method"),
        ],
    )
    def test_paths_and_optional_keys(self, changes: dict[str, Any], status: int) -> None:
        """What was there arrives as it was; ambiguous paths are refused."""
        seen: list[dict[str, Any]] = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append(environ)
            start_response("200 OK", list(PLAIN))
            return [b""]

        environ = environ_of(**changes)
        before = dict(environ)
        assert WsgiServer().serve(wsgi_shielded(app), environ).status == status
        assert len(seen) == (status == 200)
        for found in seen:
            assert {name: found[name] for name in before} == before

    def test_two_doors_of_one_shield_are_one(self) -> None:
        """The inner one steps aside: one request id, one count, the body read once."""
        shield = shield_of({**READ, "RATE__PER_IP": "2/minute"}, OPEN)
        outer = portalshield.wsgi.ShieldMiddleware(portalshield.wsgi.ShieldMiddleware(plain, shield), shield)
        answers = [WsgiServer().serve(outer, environ_of("POST", "/", b"abc")) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert all(len(answer.fields("x-request-id")) == 1 for answer in answers)


def crash_on_call(environ: Any, start_response: Any) -> Any:
    """Raises before anything."""
    raise RuntimeError("secret-in-exception")


def crash_after_start(environ: Any, start_response: Any) -> Any:
    """Raises with a head that is not out yet."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
    raise RuntimeError("secret-in-exception")


def crash_on_first_block(environ: Any, start_response: Any) -> Any:
    """A generator that raises at once."""
    start_response("200 OK", list(PLAIN))
    raise RuntimeError("secret-in-exception")
    yield b""


def no_iterable(environ: Any, start_response: Any) -> Any:
    """Returns nothing at all."""
    start_response("200 OK", list(PLAIN))


class TestCrash:
    """G-11, G-12, E-05."""

    @pytest.mark.parametrize("app", [crash_on_call, crash_after_start, crash_on_first_block, no_iterable])
    def test_before_the_first_byte_it_is_one_safe_500(self, app: Any, capfd: pytest.CaptureFixture[str]) -> None:
        """The client learns nothing but an id; the server gets the exception through `exc_info`."""
        request_lines(capfd)
        answer = WsgiServer().serve(wsgi_shielded(app), environ_of())
        status, fields, exc_info = answer.starts[-1]
        assert status == "500 Internal Server Error"
        assert isinstance(exc_info[1], (RuntimeError, TypeError))
        assert answer.slug == "internal-error"
        assert b"secret" not in answer.body
        assert dict(fields)["x-request-id"].encode() in answer.body
        assert dict(fields)["content-length"] == str(len(answer.body))
        (line,) = request_lines(capfd)
        assert line["status"] == 500
        assert line["error"] in ("RuntimeError", "TypeError")

    def test_after_the_first_byte_it_propagates(self) -> None:
        """No second start; the server cuts the connection."""
        server = WsgiServer()
        with pytest.raises(RuntimeError):
            server.serve(wsgi_shielded(answering(Blocks(b"half", RuntimeError("boom")))), environ_of())
        assert (server.tries, server.body) == (1, b"half")

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    @pytest.mark.parametrize("on", ["call", "block"])
    def test_what_is_no_exception_is_not_swallowed(self, error: type[BaseException], on: str) -> None:
        """It ends the worker, as it would without the shield; the context is clean."""

        def app(environ: Any, start_response: Any) -> Any:
            raise error

        server = WsgiServer()
        with pytest.raises(error):
            server.serve(wsgi_shielded(app if on == "call" else answering(Blocks(error()))), environ_of())
        assert server.blocks == []
        assert CURRENT.get() is None

    @pytest.mark.parametrize("path", ["/own", "/default"])
    def test_flask_keeps_its_own_handler(self, path: str) -> None:
        """An answer of the application's stands; Flask's default page is replaced by ours."""
        app = Flask(__name__)

        @app.get("/own")
        @public
        def own() -> str:
            raise KeyError("secret")

        @app.get("/default")
        @public
        def default() -> str:
            raise RuntimeError("secret")

        @app.errorhandler(KeyError)
        def handler(error: KeyError) -> tuple[str, int]:
            return "our page", 500

        Shield(app, settings=Settings.from_env(environment()))
        answer = WsgiServer().serve(validator(app), environ_of(path=path))
        assert answer.status == 500
        assert b"secret" not in answer.body
        if path == "/own":
            assert answer.body == b"our page"
        else:
            assert answer.slug == "internal-error"


def test_a_bug_in_the_route_table_refuses() -> None:
    """What breaks before there is a policy is no open door: one safe 500, the application is not called."""
    called: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        called.append("app")
        return plain(environ, start_response)

    wrapped = wsgi_shielded(app)
    runtime = wrapped._door._opening.attempt()
    assert runtime is not None
    runtime.table = None  # type: ignore[assignment]
    answer = WsgiServer().serve(wrapped, environ_of())
    assert (answer.status, answer.slug, called) == (500, "internal-error", [])


class TestLateRefusals:
    """A verdict after the application was called replaces whatever comes out, in every way it can come out."""

    @pytest.mark.parametrize("shape", ["list", "generator", "write", "raise"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_nothing_of_the_application_gets_out(self, shape: str, method: str) -> None:
        """Neither its head nor its first block nor what it writes."""

        def app(environ: Any, start_response: Any) -> Any:
            CURRENT.get().late = portalshield.wsgi.UNCONFIRMED  # type: ignore[union-attr]
            if shape == "generator":
                return late(start_response)
            write = start_response("200 OK", [("X-App", "1")])
            if shape == "write":
                write(b"leak")
            if shape == "raise":
                raise RuntimeError("boom")
            return [b"leak", b"leak"]

        def late(start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("X-App", "1")])
            yield b"leak"

        answer = WsgiServer().serve(wsgi_shielded(app), environ_of(method))
        assert (answer.status, answer.fields("x-app"), len(answer.starts)) == (500, [], 1)
        assert b"leak" not in answer.body
        assert answer.body == b"" if method == "HEAD" else answer.slug == "internal-error"


class TestContext:
    """G-13."""

    def test_the_request_is_current_while_its_answer_streams(self) -> None:
        """`current_tenant()` works in the generator, block after block, and nothing is left afterwards."""
        shield = shield_of(READ, ())

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            for _ in range(3):
                yield current_tenant().encode()

        token = mint_token(shield.settings, tenant="north")
        wrapped = portalshield.wsgi.ShieldMiddleware(app, shield)
        answer = WsgiServer().serve(wrapped, environ_of(HTTP_AUTHORIZATION=f"Bearer {token}"))
        assert answer.blocks == [b"north"] * 3
        assert CURRENT.get() is None

    def test_sixteen_threads_do_not_mix(self) -> None:
        """Sixteen threads with 200 requests each: every answer belongs to its own principal and body."""
        shield = shield_of(READ, ())
        tokens = [mint_token(shield.settings, tenant=f"t{number}") for number in range(16)]

        def app(environ: Any, start_response: Any) -> Any:
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("200 OK", list(PLAIN))
            yield current_tenant().encode()
            yield body

        wrapped = portalshield.wsgi.ShieldMiddleware(app, shield)
        together = threading.Barrier(16)

        def visit(number: int) -> list[tuple[bytes, str]]:
            found = []
            together.wait(20)
            for turn in range(200):
                body = b"%d-%d" % (number, turn)
                environ = environ_of("POST", "/", body, HTTP_AUTHORIZATION=f"Bearer {tokens[number]}")
                answer = WsgiServer().serve(wrapped, environ)
                assert answer.blocks == [b"t%d" % number, body]
                found.append((answer.body, answer.fields("x-request-id")[0]))
            return found

        with ThreadPoolExecutor(16) as pool:
            answers = [row for rows in pool.map(visit, range(16)) for row in rows]
        assert len({request_id for _, request_id in answers}) == 16 * 200
