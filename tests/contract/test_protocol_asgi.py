"""Wrapping an ASGI application changes nothing that it or its server can notice, except what the policy demands."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging
from contextvars import ContextVar
from typing import Any

import pytest
from connections import (
    OPEN,
    READ,
    STREAMED,
    Connection,
    Message,
    asgi_shielded,
    chunks,
    http_scope,
    post_scope,
    request_lines,
    run,
    shield_of,
    whole_body,
)
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import portalshield.asgi
from conftest import ORIGIN
from portalshield import ConfigurationError, Policy, Settings, Shield, current_tenant, public
from portalshield.context import CURRENT
from portalshield.runtime import UNCONFIRMED
from portalshield.testing import environment, mint_token

BODIES = [pytest.param(READ, id="read"), pytest.param(STREAMED, id="streamed")]
START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END: Message = {"type": "http.response.body", "body": b"done", "more_body": False}


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads its body and answers `done`."""
    await whole_body(receive)
    await send(dict(START))
    await send(dict(END))


def sending(*messages: Message) -> Any:
    """An application that sends exactly these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def starlette_shielded(*routes: Any, variables: dict[str, str] = READ, **more: Any) -> Starlette:
    """A Starlette application with the shield installed, all of it public."""
    app = Starlette(routes=list(routes), **more)
    Shield(app, settings=Settings.from_env(environment(**variables)), policies=OPEN)
    return app


class TestLifespan:
    """A-01."""

    def test_it_is_forwarded_with_its_state(self) -> None:
        """What the application puts into `state` at start is in the server's own object."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["pool"] = "open"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})

        state: dict[str, str] = {}
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        connection = run(asgi_shielded(app), {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, *events)
        assert connection.kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert state == {"pool": "open"}

    def test_its_failure_is_forwarded(self) -> None:
        """The application's reason reaches the server."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        connection = run(asgi_shielded(app), {"type": "lifespan", "asgi": {}}, {"type": "lifespan.startup"})
        assert connection.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]

    def test_an_application_without_lifespan_still_starts(self) -> None:
        """Its exception tells the server so, and requests are served."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError
            await plain(scope, receive, send)

        wrapped = asgi_shielded(app)
        with pytest.raises(NotImplementedError):
            run(wrapped, {"type": "lifespan", "asgi": {}}, {"type": "lifespan.startup"})
        assert run(wrapped, http_scope(), *chunks(b"")).body == b"done"


class TestWrongWiring:
    """K-01, where it can be found out only once there are routes."""

    @staticmethod
    def broken() -> tuple[FastAPI, list[str]]:
        """An application whose policy covers no route."""
        app = FastAPI()
        calls: list[str] = []

        @app.get("/data")
        @public
        async def data() -> None:
            calls.append("data")

        policies = [Policy("GET /dta", public=True)]
        Shield(app, settings=Settings.from_env(environment(**READ)), policies=policies)
        return app, calls

    def test_it_stops_the_start(self) -> None:
        """`lifespan.startup.failed` with every mistake, then the exception: a server that only looks at one stops."""
        app, _ = self.broken()
        connections: list[Connection] = []

        async def main() -> None:
            connections.append(Connection({"type": "lifespan.startup"}))
            await app({"type": "lifespan", "asgi": {}}, connections[0].receive, connections[0].send)

        with pytest.raises(ConfigurationError, match="PS-POLICY-003"):
            asyncio.run(main())
        (failed,) = connections[0].sent
        assert failed["type"] == "lifespan.startup.failed"
        assert "PS-POLICY-003" in failed["message"]

    def test_without_lifespan_every_request_is_503(self, caplog: pytest.LogCaptureFixture) -> None:
        """Never "no policy": no handler runs, the problems are logged once."""
        app, calls = self.broken()
        with caplog.at_level(logging.CRITICAL, "portalshield"):
            answers = [run(app, http_scope(path=path), *chunks(b"")) for path in ("/data", "/data", "/nope")]
        assert [answer.start["status"] for answer in answers] == [503, 503, 503]
        assert {answer.slug for answer in answers} == {"unavailable"}
        assert all(len(answer.fields(b"x-request-id")) == len(answer.fields(b"retry-after")) == 1 for answer in answers)
        assert answers[0].fields(b"content-length") == [b"%d" % len(answers[0].body)]
        assert answers[0].fields(b"x-content-type-options") == [b"nosniff"]
        assert calls == []
        assert [record.getMessage().count("PS-POLICY-003") for record in caplog.records] == [1]

    def test_a_head_request_is_answered_without_a_body(self) -> None:
        """503 with the length of the GET answer."""
        app, _ = self.broken()
        answer = run(app, http_scope("HEAD", "/data"), *chunks(b""))
        assert (answer.start["status"], answer.body) == (503, b"")

    @pytest.mark.parametrize(
        ("extensions", "kinds"),
        [
            ({}, ["websocket.close"]),
            ({"websocket.http.response": {}}, ["websocket.http.response.start", "websocket.http.response.body"]),
        ],
        ids=["close", "denial"],
    )
    def test_a_websocket_is_refused_before_it_is_accepted(self, extensions: Any, kinds: list[str]) -> None:
        """The handshake is denied."""
        app, _ = self.broken()
        assert run(app, websocket_scope("/data", extensions=extensions), CONNECT).kinds == kinds

    def test_another_bug_while_compiling_refuses_too(self, caplog: pytest.LogCaptureFixture) -> None:
        """Any exception while the application is compiled: 503, and no message that could hold a value."""
        wrapped = asgi_shielded(plain)

        value = "".join(("redis://user:hunt", "er2@host"))

        def explode() -> Any:
            raise ValueError(value)

        wrapped._door._opening._open = explode
        with caplog.at_level(logging.CRITICAL, "portalshield"):
            answer = run(wrapped, http_scope(), *chunks(b""))
        assert answer.start["status"] == 503
        assert "ValueError" in caplog.text
        assert "hunter2" not in caplog.text


class TestScope:
    """A-02, A-03, A-04, A-18."""

    def test_an_unknown_type_goes_through(self) -> None:
        """The scope arrives as it came; the one warning says so."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((scope, await receive()))
            await send({"type": "mqtt.pong"})

        wrapped = asgi_shielded(app)
        scope = {"type": "mqtt", "asgi": {"version": "3.0"}, "topic": "a/b"}
        with pytest.warns(UserWarning, match="mqtt"):
            connection = run(wrapped, scope, {"type": "mqtt.ping"})
        assert seen == [({"type": "mqtt", "asgi": {"version": "3.0"}, "topic": "a/b"}, {"type": "mqtt.ping"})]
        assert connection.kinds == ["mqtt.pong"]
        run(wrapped, scope, {"type": "mqtt.ping"})

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            pytest.param({"client": None}, 200, id="client None"),
            pytest.param({"client": ...}, 200, id="no client"),
            pytest.param({"client": ("203.0.113.7", "50000")}, 200, id="client port as text"),
            pytest.param({"client": ["203.0.113.7", 50000]}, 200, id="client as a list"),
            pytest.param({"client": ("", 0)}, 200, id="client empty"),
            pytest.param({"client": (None, None)}, 200, id="client of Nones"),
            pytest.param({"client": ("unix:/run/a.sock", 0)}, 200, id="client is a Unix socket"),
            pytest.param({"client": ("fe80::1%eth0", 1)}, 200, id="client with a zone"),
            pytest.param({"client": ("::ffff:203.0.113.7", 1)}, 200, id="client mapped"),
            pytest.param({"server": None}, 200, id="server None"),
            pytest.param({"server": ...}, 200, id="no server"),
            pytest.param({"server": ("/run/app.sock", None)}, 200, id="server is a Unix socket"),
            pytest.param({"raw_path": ...}, 200, id="no raw path"),
            pytest.param({"raw_path": None}, 200, id="raw path None"),
            pytest.param({"raw_path": b"/?a=1"}, 200, id="raw path with a query"),
            pytest.param({"state": ...}, 200, id="no state"),
            pytest.param({"state": None}, 200, id="state None"),
            pytest.param({"extensions": ...}, 200, id="no extensions"),
            pytest.param({"extensions": None}, 200, id="extensions None"),
            pytest.param({"root_path": ...}, 200, id="no root path"),
            pytest.param({"root_path": "/api", "path": "/api/x"}, 200, id="root path"),
            pytest.param({"query_string": ...}, 200, id="no query"),
            pytest.param({"query_string": b"a=\xff\xfe"}, 200, id="query bytes over 0x7f"),
            pytest.param({"scheme": ...}, 200, id="no scheme"),
            pytest.param({"scheme": "https"}, 200, id="https"),
            pytest.param({"http_version": "1.0"}, 200, id="HTTP/1.0"),
            pytest.param({"http_version": "2"}, 200, id="HTTP/2"),
            pytest.param({"http_version": "3"}, 200, id="HTTP/3"),
            pytest.param({"asgi": {"version": "3.0"}}, 200, id="no spec_version"),
            pytest.param({"asgi": ...}, 200, id="no asgi"),
            pytest.param({"headers": []}, 200, id="no fields"),
            pytest.param({"headers": ...}, 200, id="no headers"),
            pytest.param({"headers": ((b"host", b"a"), (b"x", b"1"))}, 200, id="headers as a tuple"),
            pytest.param({"headers": [[b"host", b"a"], [b"x", b"1"]]}, 200, id="fields as lists"),
            pytest.param({"headers": [(b"Host", b"a"), (b"X-Thing", b"1")]}, 200, id="names in mixed case"),
            pytest.param({"headers": [(b"x-1", b"\xff\xe9")]}, 200, id="value bytes over 0x7f"),
            pytest.param({"headers": [(b"x-1", b"")]}, 200, id="empty value"),
            pytest.param({"headers": [(b"x-1", b"a"), (b"x-1", b"b")]}, 200, id="repeated field"),
            pytest.param({"headers": [(b"cookie", b"a=\xe9; b")]}, 200, id="odd cookie"),
            pytest.param({"headers": [(b"host", b"")]}, 200, id="empty host"),
            pytest.param({"path": "/é", "raw_path": b"/%C3%A9"}, 200, id="path in Unicode"),
            pytest.param({"path": "/\udcff", "raw_path": b"/%FF"}, 400, id="lone surrogate in the path"),
            pytest.param({"path": ""}, 400, id="empty path"),
            pytest.param({"path": "*"}, 400, id="asterisk form"),
            pytest.param({"path": "http://portal.example.com/"}, 400, id="absolute form"),
            pytest.param({"method": "PROPFIND"}, 200, id="registered method"),
            pytest.param({"method": "get"}, 400, id="method in lower case"),
            pytest.param({"method": "BREW"}, 400, id="unknown method"),
            pytest.param({"method": ""}, 400, id="empty method"),
            pytest.param({"vendor.thing": object()}, 200, id="unknown key"),
        ],
    )
    @pytest.mark.parametrize("kind", ["opaque", "starlette"])
    def test_an_odd_scope_is_survived(self, kind: str, changes: dict[str, Any], status: int) -> None:
        """Every legal scope is answered; ambiguous ones are refused."""
        if kind == "opaque":
            app: Any = asgi_shielded(plain)
        else:

            async def handler(scope: Any, receive: Any, send: Any) -> None:
                await plain(scope, receive, send)

            app = starlette_shielded(Route("/{rest:path}", _Endpoint(handler), methods=["GET", "PROPFIND"]))
        assert run(app, http_scope(**changes), *chunks(b"")).start["status"] == status

    def test_one_shot_headers_reach_the_application(self) -> None:
        """An iterator that gives its fields once is read for the shield and for the application."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.extend(scope["headers"])
            await plain(scope, receive, send)

        fields = [(b"host", b"a"), (b"x-1", b"a"), (b"x-1", b"b")]
        run(asgi_shielded(app), http_scope(headers=iter(fields)), *chunks(b""))
        assert seen == fields

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param([(b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")], id="two credentials"),
            pytest.param([(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")], id="two lengths"),
        ],
    )
    def test_mixed_case_hides_nothing(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Names are compared in lower case, whatever a server made of them."""
        called: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.append("app")
            await plain(scope, receive, send)

        answer = run(asgi_shielded(app), http_scope("POST", headers=fields), *chunks(b""))
        assert (answer.start["status"], answer.slug, called) == (400, "malformed-request", [])

    def test_the_callers_scope_is_not_changed(self) -> None:
        """The middleware works on its own scope; fields keep order and repeats."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope)
            await plain(scope, receive, send)

        fields = [(b"host", b"a"), (b"x-1", b"a"), (b"accept", b"*/*"), (b"x-1", b"b")]
        scope = http_scope(headers=fields, root_path="/api", path="/api/x", raw_path=b"/api/x")
        before = copy.deepcopy(scope)
        run(asgi_shielded(app), scope, *chunks(b""))
        assert scope == before
        assert {name: seen[0][name] for name in before} == before

    def test_two_doors_of_one_shield_are_one(self) -> None:
        """The inner one steps aside: one request id, one count, the body read once."""
        shield = shield_of({**READ, "RATE__PER_IP": "2/minute"}, OPEN)
        outer = portalshield.asgi.ShieldMiddleware(portalshield.asgi.ShieldMiddleware(plain, shield), shield)
        answers = [run(outer, post_scope(), *chunks(b"abc")) for _ in range(3)]
        assert [answer.start["status"] for answer in answers] == [200, 200, 429]
        assert all(len(answer.fields(b"x-request-id")) == 1 for answer in answers)


class _Endpoint:
    """An ASGI application as a Starlette endpoint (a function would be called with a request)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


class TestBodies:
    """A-07, A-08, A-09, and the bodies that nobody announced."""

    @pytest.mark.parametrize("variables", BODIES)
    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param([b"whole"], id="one chunk"),
            pytest.param([b"a", b"b\x00\xff", b"c" * 70_000], id="several"),
            pytest.param([b"a", b""], id="an empty last one"),
            pytest.param([b"", b"a"], id="an empty first one"),
            pytest.param([b""], id="empty"),
        ],
    )
    def test_a_body_arrives_exactly(self, variables: dict[str, str], parts: list[bytes]) -> None:
        """Byte for byte; what follows blocks until the client really leaves."""
        found: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            found.append(b"".join((await whole_body(receive))[0]))
            following = asyncio.ensure_future(receive())
            await connection.waiting.wait()
            found.append(following.done())
            connection.gone.set()
            found.append(await following)
            await send(dict(START))
            await send(dict(END))

        async def main() -> Connection:
            nonlocal connection
            connection = Connection(*chunks(*parts))
            await asgi_shielded(app, variables)(post_scope(), connection.receive, connection.send)
            return connection

        connection: Connection
        answer = asyncio.run(main())
        assert found == [b"".join(parts), False, {"type": "http.disconnect"}]
        assert answer.body == b"done"

    def test_an_uninspected_body_streams(self) -> None:
        """A chunk is in the application before the next one exists."""
        seen: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(3):
                seen.append((await receive())["body"])
                assert not connection.pending
                connection.pending.append({"type": "http.request", "body": b"%d" % len(seen), "more_body": True})
            await send(dict(START))
            await send(dict(END))

        async def main() -> None:
            nonlocal connection
            connection = Connection({"type": "http.request", "body": b"0", "more_body": True})
            await asgi_shielded(app, STREAMED)(post_scope(), connection.receive, connection.send)

        connection: Connection
        asyncio.run(main())
        assert seen == [b"0", b"1", b"2"]

    def test_an_upload_streams_whatever_layers_are_on(self) -> None:
        """Multipart is judged as it passes, not read first."""
        app = starlette_shielded(Route("/", self.count, methods=["POST"]))
        parts = [b"--x\r\n", *[b"y" * 1000] * 50, b"--x--\r\n"]
        scope = post_scope()
        scope["headers"][1] = (b"content-type", b"multipart/form-data; boundary=x")
        assert json.loads(run(app, scope, *chunks(*parts)).body) == {"chunks": 52, "size": 50_012}

    @staticmethod
    async def count(request: Request) -> Response:
        """Counts chunks and bytes."""
        sizes = [len(chunk) async for chunk in request.stream() if chunk]
        return Response(json.dumps({"chunks": len(sizes), "size": sum(sizes)}))

    @pytest.mark.parametrize("variables", BODIES)
    def test_a_huge_body_is_not_kept(self, variables: dict[str, str]) -> None:
        """Of 256 MiB against a limit of 1 MiB little more than the limit is ever taken from the server."""
        chunk = bytes(65_536)

        async def main() -> Connection:
            connection = Connection(*[{"type": "http.request", "body": chunk, "more_body": True}] * 4096)
            await asgi_shielded(plain, variables)(post_scope(), connection.receive, connection.send)
            return connection

        answer = asyncio.run(main())
        assert (answer.start["status"], answer.slug) == (413, "body-too-large")
        assert answer.received <= 1 + 1_048_576 // 65_536

    def test_a_declared_length_is_refused_unread(self) -> None:
        """413 without a single `receive()`, so no server sends `100 Continue`."""
        answer = run(asgi_shielded(plain), post_scope(length=2_000_000), *chunks(b"x"))
        assert (answer.start["status"], answer.received) == (413, 0)
        assert answer.fields(b"connection") == [b"close"]

    def test_http_2_knows_no_connection_field(self) -> None:
        """The same refusal there has none (RFC 9113, 8.2.2)."""
        answer = run(asgi_shielded(plain), post_scope(length=2_000_000, http_version="2"), *chunks(b"x"))
        assert (answer.start["status"], answer.fields(b"connection")) == (413, [])

    def test_a_disconnect_while_reading_calls_nobody(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Half a body is no body: the application is not called, nothing is sent, and that is no error of anybody's."""
        request_lines(capfd)
        called: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.append("app")

        half = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        connection = run(asgi_shielded(app), post_scope(), *half)
        assert (called, connection.sent) == ([], [])
        (line,) = request_lines(capfd)
        assert (line["level"], line["error"]) == ("info", "disconnected")

    def test_a_disconnect_while_streaming_is_told(self) -> None:
        """The application sees `http.disconnect`, never a shorter body that looks whole."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(await whole_body(receive))

        half = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
        run(asgi_shielded(app, STREAMED), post_scope(), *half)
        assert seen == [([b"half"], "http.disconnect")]

    @pytest.mark.parametrize(
        "messages",
        [
            pytest.param(chunks(b"x" * 1500, b"y" * 1500, b"z"), id="over the limit, more to come"),
            pytest.param(chunks(b"x" * 1500, b"y" * 1500), id="over the limit with the last chunk"),
            pytest.param(chunks(b"x" * 3000), id="over the limit in one chunk"),
        ],
    )
    def test_report_mode_hands_everything_on(self, messages: list[Message]) -> None:
        """What was read to find out that it is too much is not lost."""
        seen: list[bytes] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            parts, end = await whole_body(receive)
            seen.append(b"".join(parts))
            await send({**START, "headers": [(b"x-end", end.encode())]})
            await send(dict(END))

        variables = {**READ, "MODE__BODY": "report", "BODY__MAX_SIZE": "2KB"}
        answer = run(asgi_shielded(app, variables), post_scope(), *messages)
        assert seen == [b"".join(message["body"] for message in messages)]
        assert answer.fields(b"x-end") == [b"http.request"]

    @pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS"])
    def test_an_unannounced_body_never_arrives(self, method: str) -> None:
        """HTTP/2 may send one without a length; nobody judged it, so the application does not get it."""
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(await whole_body(receive))
            await send(dict(START))
            await send(dict(END))

        answer = run(asgi_shielded(app), http_scope(method, http_version="2"), *chunks(b'{"tenant_id": "south"}'))
        assert answer.start["status"] == 400
        assert seen == [([], "http.disconnect")]

    @pytest.mark.parametrize(
        ("fields", "body", "status"),
        [
            pytest.param([(b"content-type", b"application/json")], b'{"a": 1}', 200, id="with a type"),
            pytest.param([(b"content-type", b"application/json")], b'{"a": 1', 400, id="with a type, malformed"),
            pytest.param([(b"content-type", b"application/json")], b"", 200, id="with a type, empty"),
            pytest.param([], b"", 200, id="none at all"),
            pytest.param([], b"x", 400, id="without a type"),
        ],
    )
    def test_http_2_needs_no_length(self, fields: list[tuple[bytes, bytes]], body: bytes, status: int) -> None:
        """There a POST may leave it out: its body is judged like any other, none is none."""
        variables = {"RATE__PER_IP": "1000000/minute"}
        answer = run(
            asgi_shielded(plain, variables), http_scope("POST", http_version="2", headers=fields), *chunks(body)
        )
        assert answer.start["status"] == status

    @pytest.mark.parametrize("length", [b"0", b"5"])
    def test_two_lengths_are_refused(self, length: bytes) -> None:
        """A length beside a transfer coding: two readers, two bodies (RFC 9112, 6.1)."""
        called: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            called.append("app")

        answer = run(asgi_shielded(app), post_scope((b"content-length", length)), *chunks(b"hello"))
        assert (answer.start["status"], answer.slug, called) == (400, "malformed-request", [])

    def test_an_answer_that_began_is_cut_off_when_its_request_is_refused(self) -> None:
        """An echo of a body that turns out too large does not end like a complete one."""

        async def echo(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))
            more = True
            while more:
                message = await receive()
                more = message.get("more_body", False)
                await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})

        wrapped = asgi_shielded(echo, {**STREAMED, "BODY__MAX_SIZE": "2KB"})
        sent = _failing(wrapped, post_scope(), ConnectionError, *chunks(b"x" * 1500, b"y" * 1500, b"z"))
        assert [message.get("more_body") for message in sent] == [None, True]


def _failing(app: Any, scope: dict[str, Any], error: type[BaseException], *messages: Message) -> list[Message]:
    """What was sent until the application raised."""

    async def main() -> list[Message]:
        connection = Connection(*messages)
        with pytest.raises(error):
            await app(scope, connection.receive, connection.send)
        return connection.sent

    return asyncio.run(main())


class TestResponses:
    """A-05, A-06, A-10 to A-15."""

    @pytest.mark.parametrize("first", [b"", b"one"], ids=["empty", "with bytes"])
    def test_nothing_is_held_back(self, first: bytes) -> None:
        """Start and first block, even an empty one, are with the server before the application goes on."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))
            await send({"type": "http.response.body", "body": first, "more_body": True})
            assert connection.kinds == ["http.response.start", "http.response.body"]
            await send({"type": "http.response.body", "body": b"two", "more_body": True})
            assert len(connection.sent) == 3
            await send(dict(END))

        async def main() -> None:
            nonlocal connection
            connection = Connection(*chunks(b""))
            await asgi_shielded(app)(http_scope(), connection.receive, connection.send)

        connection: Connection
        asyncio.run(main())
        assert [message.get("body") for message in connection.sent[1:]] == [first, b"two", b"done"]

    @pytest.mark.parametrize(
        ("scope", "messages"),
        [
            pytest.param(http_scope(), chunks(b""), id="GET"),
            pytest.param(post_scope(), chunks(b"question"), id="POST, replayed"),
        ],
    )
    @pytest.mark.parametrize("kind", ["opaque", "starlette"])
    def test_a_disconnect_ends_an_event_stream(self, kind: str, scope: Any, messages: list[Message]) -> None:
        """An endless stream learns that its reader left."""
        ended: list[str] = []

        async def events() -> Any:
            try:
                while True:
                    yield b"data: 1\n\n"
                    connection.gone.set()
                    await asyncio.sleep(0)
            finally:
                ended.append("stream")

        async def endpoint(request: Request) -> Response:
            await request.body()
            return StreamingResponse(events(), media_type="text/event-stream")

        async def opaque(scope: Any, receive: Any, send: Any) -> None:
            await whole_body(receive)
            await send(dict(START))
            watch = asyncio.ensure_future(receive())
            while not watch.done():
                await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
                connection.gone.set()
            assert watch.result() == {"type": "http.disconnect"}
            ended.append("stream")

        # Servers before 2.4 do not raise from send(): the disconnect must come through receive().
        scope = {**copy.deepcopy(scope), "asgi": {"version": "3.0", "spec_version": "2.3"}}
        routes = Route("/", endpoint, methods=["GET", "POST"])
        app: Any = asgi_shielded(opaque) if kind == "opaque" else starlette_shielded(routes)

        async def main() -> None:
            nonlocal connection
            connection = Connection(*messages)
            await asyncio.wait_for(app(scope, connection.receive, connection.send), 20)

        connection: Connection
        asyncio.run(main())
        assert ended == ["stream"]

    @pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
    def test_a_send_that_fails_is_not_answered_again(self, at: str) -> None:
        """`OSError` from the server propagates; nobody tries a second response."""
        assert (
            self._tries(sending(dict(START), dict(END)), at)
            == ["http.response.start", "http.response.body"][: 1 if at == "http.response.start" else 2]
        )

    @staticmethod
    def _tries(app: Any, at: str) -> list[str]:
        tried: list[str] = []

        async def send(message: Message) -> None:
            tried.append(message["type"])
            if message["type"] == at:
                raise OSError("gone")

        async def main() -> None:
            with pytest.raises(OSError, match="gone"):
                await asgi_shielded(app)(http_scope(), Connection(*chunks(b"")).receive, send)

        asyncio.run(main())
        return tried

    def test_a_refusal_that_cannot_be_sent_propagates(self) -> None:
        """The server's own exception comes back to it."""
        tried: list[str] = []

        async def send(message: Message) -> None:
            tried.append(message["type"])
            raise OSError("gone")

        async def main() -> None:
            with pytest.raises(OSError, match="gone"):
                await asgi_shielded(plain)(http_scope("get"), Connection().receive, send)

        asyncio.run(main())
        assert tried == ["http.response.start"]

    def test_a_crash_is_not_hidden_by_a_send_that_fails(self) -> None:
        """The application's exception reaches the server even when the safe answer cannot be sent."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError("the real one")

        async def send(message: Message) -> None:
            raise OSError("gone")

        async def main() -> None:
            with pytest.raises(RuntimeError, match="the real one"):
                await asgi_shielded(app)(http_scope(), Connection().receive, send)

        asyncio.run(main())

    @pytest.mark.parametrize(
        "messages",
        [
            pytest.param([START, {"type": "http.response.pathsend", "path": "/etc/hostname"}], id="pathsend"),
            pytest.param(
                [START, {"type": "http.response.zerocopysend", "file": 7, "count": 3}, END], id="zerocopysend"
            ),
            pytest.param(
                [
                    {**START, "trailers": True},
                    END,
                    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
                ],
                id="trailers",
            ),
            pytest.param([{"type": "http.response.early_hint", "links": [b"</a.css>"]}, START, END], id="early hint"),
            pytest.param([{"type": "http.response.push", "path": "/a", "headers": []}, START, END], id="push"),
            pytest.param([{"type": "http.response.debug", "info": {"template": "x"}}, START, END], id="debug"),
        ],
    )
    def test_extensions_pass(self, messages: list[Message]) -> None:
        """Extension messages go through untouched and in order; `start` keeps every other key."""
        offered = {
            "http.response." + name: {} for name in ("pathsend", "zerocopysend", "trailers", "early_hint", "push")
        }
        seen: list[Any] = []
        inner = sending(*messages)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["extensions"])
            await inner(scope, receive, send)

        sent = run(asgi_shielded(app), http_scope(extensions=offered), *chunks(b"")).sent
        assert seen == [offered]
        assert len(sent) == len(messages)
        for mine, given in zip(sent, messages, strict=True):
            expected = {**given, "headers": mine["headers"]} if given["type"] == "http.response.start" else given
            assert mine == expected

    @pytest.mark.parametrize(
        ("headers", "found"),
        [
            pytest.param(..., [], id="missing"),
            pytest.param(None, [], id="None"),
            pytest.param((), [], id="empty tuple"),
            pytest.param(((b"a", b"1"), (b"b", b"2")), [(b"a", b"1"), (b"b", b"2")], id="tuple"),
            pytest.param([[b"a", b"1"]], [(b"a", b"1")], id="lists"),
            pytest.param([(b"A", b"1"), (b"a", b"2")], [(b"A", b"1"), (b"a", b"2")], id="repeats in other case"),
            pytest.param(
                [(b"set-cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")],
                [(b"set-cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")],
                id="two cookies",
            ),
            pytest.param([(b"x", b"\xff")], [(b"x", b"\xff")], id="bytes over 0x7f"),
            pytest.param([(b"x", b"")], [(b"x", b"")], id="empty value"),
            pytest.param("generator", [(b"a", b"1"), (b"a", b"2")], id="generator"),
        ],
    )
    def test_any_iterable_of_fields_is_sent(self, headers: Any, found: list[tuple[bytes, bytes]]) -> None:
        """Fields keep order, repeats and spelling; ours come behind them; the application's list is not changed."""
        given = iter([(b"a", b"1"), (b"a", b"2")]) if headers == "generator" else headers
        start = {"type": "http.response.start", "status": 200, "headers": given}
        if headers is ...:
            del start["headers"]
        before = copy.deepcopy(headers)
        answer = run(asgi_shielded(sending(start, dict(END))), http_scope(), *chunks(b""))
        assert [tuple(field) for field in answer.start["headers"]][: len(found)] == found
        assert headers == before

    @pytest.mark.parametrize(
        ("method", "status", "fields"),
        [
            pytest.param("HEAD", 200, [(b"content-length", b"1234")], id="HEAD"),
            pytest.param("HEAD", 200, [], id="HEAD without a length"),
            pytest.param("GET", 204, [], id="204"),
            pytest.param("GET", 304, [(b"etag", b'"1"'), (b"content-length", b"77")], id="304"),
        ],
    )
    def test_framing_is_the_applications(self, method: str, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """No length is added, changed or removed, no body appears."""
        messages = [
            {"type": "http.response.start", "status": status, "headers": fields},
            {"type": "http.response.body"},
        ]
        answer = run(asgi_shielded(sending(*messages)), http_scope(method), *chunks(b""))
        framing = (b"content-length", b"transfer-encoding", b"etag")
        assert [field for field in answer.start["headers"] if field[0] in framing] == fields
        assert (answer.start["status"], answer.sent[1]) == (status, {"type": "http.response.body"})

    @pytest.mark.parametrize("kind", ["opaque", "starlette", "debug"])
    def test_a_crash_before_the_start_is_one_safe_500_and_raised_again(self, kind: str) -> None:
        """The client learns nothing but an id; the server still gets the exception."""

        async def opaque(scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError("secret-in-exception")

        async def endpoint(request: Request) -> Response:
            raise RuntimeError("secret-in-exception")

        routes = Route("/", endpoint)
        app: Any = asgi_shielded(opaque) if kind == "opaque" else starlette_shielded(routes, debug=kind == "debug")
        sent = _failing(app, http_scope(headers=[(b"accept", b"text/html")]), RuntimeError, *chunks(b""))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        fields = dict(sent[0]["headers"])
        assert sent[0]["status"] == 500
        assert b"secret" not in sent[1]["body"]
        assert fields[b"x-request-id"] in sent[1]["body"]
        assert fields[b"content-length"] == b"%d" % len(sent[1]["body"])

    def test_the_applications_own_500_stands(self) -> None:
        """Its handler's answer goes out, and the exception is raised again as Starlette does."""

        async def endpoint(request: Request) -> Response:
            raise RuntimeError("boom")

        async def own(request: Request, error: Exception) -> Response:
            return PlainTextResponse("our page", 500)

        app = starlette_shielded(Route("/", endpoint), exception_handlers={Exception: own})
        sent = _failing(app, http_scope(), RuntimeError, *chunks(b""))
        assert (sent[0]["status"], sent[1]["body"]) == (500, b"our page")

    @pytest.mark.parametrize("kind", ["opaque", "starlette"])
    def test_a_crash_after_the_start_ends_nothing(self, kind: str) -> None:
        """No second start, no closing chunk: the server cuts the connection, the client knows it was cut."""

        async def blocks() -> Any:
            yield b"half"
            raise RuntimeError("boom")

        async def endpoint(request: Request) -> Response:
            return StreamingResponse(blocks())

        async def opaque(scope: Any, receive: Any, send: Any) -> None:
            await send(dict(START))
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("boom")

        app: Any = asgi_shielded(opaque) if kind == "opaque" else starlette_shielded(Route("/", endpoint))
        sent = _failing(app, http_scope(), Exception, *chunks(b""))
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        assert (sent[1]["body"], sent[1]["more_body"]) == (b"half", True)

    def test_cancellation_is_not_swallowed(self) -> None:
        """A cancelled request ends as cancelled, without an answer."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            connection.waiting.set()
            await asyncio.Event().wait()

        async def main() -> None:
            nonlocal connection
            connection = Connection()
            task = asyncio.ensure_future(asgi_shielded(app)(http_scope(), connection.receive, connection.send))
            await connection.waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        connection: Connection
        asyncio.run(main())
        assert connection.sent == []


def test_a_bug_in_the_route_table_refuses() -> None:
    """What breaks before there is a policy is no open door: one safe 500, the application is not called."""
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append("app")

    wrapped = asgi_shielded(app)
    runtime = wrapped._door._opening.attempt()
    assert runtime is not None
    runtime.table = None  # type: ignore[assignment]
    answer = run(wrapped, http_scope(), *chunks(b""))
    assert (answer.start["status"], answer.slug, called) == (500, "internal-error", [])


class TestLateRefusals:
    """A verdict after the application was called replaces whatever comes out, in every way it can come out."""

    @pytest.mark.parametrize("shape", ["answers", "streams", "raises", "returns", "answers and raises"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_nothing_of_the_application_gets_out(self, shape: str, method: str) -> None:
        """Neither its head nor its blocks; that it stumbles over the refusal is no crash."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            CURRENT.get().late = UNCONFIRMED  # type: ignore[union-attr]
            if shape == "returns":
                return
            if shape != "raises":
                await send({**START, "headers": [(b"x-app", b"1")]})
                await send({"type": "http.response.body", "body": b"leak", "more_body": shape == "streams"})
            if shape == "streams":
                await send({"type": "http.response.body", "body": b"leak"})
            if shape.endswith("raises"):
                raise LookupError("leak")

        answer = run(asgi_shielded(app), http_scope(method), *chunks(b""))
        assert (answer.start["status"], answer.fields(b"x-app")) == (500, [])
        assert answer.kinds == ["http.response.start", "http.response.body"]
        assert answer.body == b"" if method == "HEAD" else answer.slug == "internal-error"

    @pytest.mark.parametrize("shape", ["accepts", "raises", "returns", "closes", "denies"])
    def test_a_handshake_is_refused_instead(self, shape: str) -> None:
        """Before it is accepted, whatever the application wants."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            CURRENT.get().late = UNCONFIRMED  # type: ignore[union-attr]
            if shape == "raises":
                raise LookupError("leak")
            if shape == "denies":
                await send({"type": "websocket.http.response.start", "status": 200, "headers": []})
                await send({"type": "websocket.http.response.body", "body": b"leak"})
            if shape in ("accepts", "closes"):
                await send({"type": "websocket.accept" if shape == "accepts" else "websocket.close"})

        answer = run(asgi_shielded(app), websocket_scope("/", extensions={"websocket.http.response": {}}), CONNECT)
        assert (answer.start["status"], answer.slug) == (500, "internal-error")
        assert answer.kinds == ["websocket.http.response.start", "websocket.http.response.body"]


class TestContext:
    """A-16, A-17, A-21."""

    def test_the_application_runs_in_the_callers_task_and_context(self) -> None:
        """The server's variables are visible inside, the application's outside, ours nowhere afterwards."""
        outer: ContextVar[str] = ContextVar("outer", default="unset")
        inner: ContextVar[str] = ContextVar("inner", default="unset")
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((outer.get(), asyncio.current_task()))
            inner.set("by the application")
            await plain(scope, receive, send)

        async def main() -> None:
            outer.set("by the server")
            wrapped = asgi_shielded(app)
            for _ in range(2):
                connection = Connection(*chunks(b"x"))
                await wrapped(post_scope(), connection.receive, connection.send)
                assert seen[-1] == ("by the server", asyncio.current_task())
                assert inner.get() == "by the application"
                assert CURRENT.get() is None

        asyncio.run(main())
        assert len(seen) == 2

    @pytest.mark.parametrize("leaves", [False, True], ids=["reader stays", "reader leaves"])
    def test_background_work_runs_after_the_answer(self, leaves: bool) -> None:
        """It starts when the last byte is out, and a disconnect does not stop it."""
        seen: list[Any] = []

        async def work() -> None:
            seen.append([message.get("more_body") for message in connection.sent])
            if leaves:
                connection.gone.set()
            await asyncio.sleep(0)
            seen.append("finished")

        async def endpoint(request: Request) -> Response:
            return PlainTextResponse("ok", background=BackgroundTask(work))

        async def main() -> None:
            nonlocal connection
            connection = Connection(*chunks(b""))
            await starlette_shielded(Route("/", endpoint))(http_scope(), connection.receive, connection.send)

        connection: Connection
        asyncio.run(main())
        assert seen[0][0] is None
        assert not seen[0][-1]
        assert seen[1] == "finished"

    def test_a_thousand_requests_at_once_do_not_mix(self) -> None:
        """Each sees its own principal, body and id, however they interleave."""
        shield = shield_of(READ, ())
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = b"".join((await whole_body(receive))[0])
            await gate.wait()
            await asyncio.sleep(0)
            await send({**START, "headers": []})
            await send({"type": "http.response.body", "body": current_tenant().encode() + b" " + body})

        async def one(number: int) -> Connection:
            token = mint_token(shield.settings, tenant=f"t{number % 50}").encode()
            connection = Connection(*chunks(b"%d" % number, b"."))
            await wrapped(post_scope((b"authorization", b"Bearer " + token)), connection.receive, connection.send)
            return connection

        async def main() -> list[Connection]:
            tasks = [asyncio.ensure_future(one(number)) for number in range(1000)]
            await asyncio.sleep(0)
            gate.set()
            return list(await asyncio.gather(*tasks))

        from portalshield.asgi import ShieldMiddleware

        wrapped = ShieldMiddleware(app, shield)
        answers = asyncio.run(main())
        assert [answer.body for answer in answers] == [b"t%d %d." % (n % 50, n) for n in range(1000)]
        assert len({answer.fields(b"x-request-id")[0] for answer in answers}) == 1000


CONNECT: Message = {"type": "websocket.connect"}


def websocket_scope(path: str, *fields: tuple[bytes, bytes], **changes: Any) -> dict[str, Any]:
    """A handshake."""
    headers = [(b"host", b"portal.example.com"), (b"upgrade", b"websocket"), *fields]
    scope = http_scope(
        path=path, **{"type": "websocket", "scheme": "ws", "headers": headers, "subprotocols": [], **changes}
    )
    del scope["method"]
    return scope


class TestWebSockets:
    """A-19, A-20, C-17."""

    @pytest.fixture
    def portal(self) -> tuple[Starlette, Settings, list[str]]:
        """An application with one protected and one public socket."""
        calls: list[str] = []

        async def feed(socket: WebSocket) -> None:
            calls.append("feed")
            await socket.accept()
            with contextlib.suppress(Exception):
                while True:
                    await socket.send_text(current_tenant() + ":" + await socket.receive_text())

        @public
        async def lobby(socket: WebSocket) -> None:
            calls.append("lobby")
            await socket.send_denial_response(PlainTextResponse("full", 409))

        async def crash(socket: WebSocket) -> None:
            raise RuntimeError("boom")

        routes = [
            WebSocketRoute("/feed/{tenant_id}", feed),
            WebSocketRoute("/lobby", lobby),
            WebSocketRoute("/x", crash),
        ]
        app = Starlette(routes=routes)
        settings = Settings.from_env(environment(CORS__ALLOW_ORIGINS=ORIGIN))
        Shield(app, settings=settings)
        return app, settings, calls

    @staticmethod
    def bearer(settings: Settings) -> tuple[bytes, bytes]:
        """A valid credential."""
        return b"authorization", b"Bearer " + mint_token(settings, tenant="north").encode()

    @pytest.mark.parametrize("origin", [None, ORIGIN, "http://portal.example.com"])
    def test_messages_are_relayed_one_to_one(self, portal: Any, origin: str | None) -> None:
        """Accept, texts and the disconnect pass in their order; own and allowed origins enter."""
        app, settings, calls = portal
        fields = [self.bearer(settings), *([(b"origin", origin.encode())] if origin else [])]
        texts = [{"type": "websocket.receive", "text": text} for text in ("a", "b")]
        leave = {"type": "websocket.disconnect", "code": 1001}
        answer = run(app, websocket_scope("/feed/north", *fields), CONNECT, *texts, leave)
        assert answer.kinds == ["websocket.accept", "websocket.send", "websocket.send"]
        assert [message.get("text") for message in answer.sent[1:]] == ["north:a", "north:b"]
        assert calls == ["feed"]

    @pytest.mark.parametrize(
        ("path", "fields", "status"),
        [
            pytest.param("/feed/north", [], 401, id="no credential"),
            pytest.param("/feed/north", [(b"authorization", b"Bearer x.y.z")], 401, id="unusable credential"),
            pytest.param("/feed/south", ["bearer"], 404, id="foreign tenant"),
            pytest.param("/feed/north", ["bearer", (b"origin", b"https://evil.example")], 403, id="foreign origin"),
            pytest.param("/feed/north", ["bearer", (b"origin", b"null")], 403, id="opaque origin"),
            pytest.param("/nowhere", [], 404, id="unserved"),
            pytest.param("//feed/north", ["bearer"], 400, id="ambiguous path"),
        ],
    )
    @pytest.mark.parametrize("denial", [True, False], ids=["denial", "close"])
    def test_a_refusal_comes_before_the_handshake_is_accepted(
        self, portal: Any, path: str, fields: list[Any], status: int, denial: bool
    ) -> None:
        """A denial response where the server offers it, else close 1008; no message beyond `connect` is waited for."""
        app, settings, calls = portal
        extensions = {"websocket.http.response": {}} if denial else {}
        given = [self.bearer(settings) if field == "bearer" else field for field in fields]
        answer = run(app, websocket_scope(path, *given, extensions=extensions), CONNECT)
        assert (calls, answer.received) == ([], 1)
        if not denial:
            assert answer.sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]
            return
        assert answer.kinds == ["websocket.http.response.start", "websocket.http.response.body"]
        assert answer.start["status"] == status
        assert answer.fields(b"content-length") == [b"%d" % len(answer.body)]
        if status == 401:
            assert answer.fields(b"www-authenticate")[0].startswith(b"Bearer")

    def test_the_applications_own_denial_passes(self, portal: Any) -> None:
        """Its status and body go out, with our fields."""
        app, _, calls = portal
        answer = run(app, websocket_scope("/lobby", extensions={"websocket.http.response": {}}), CONNECT)
        assert (answer.start["status"], answer.body, calls) == (409, b"full", ["lobby"])
        assert len(answer.fields(b"x-request-id")) == 1

    def test_a_crash_reaches_the_server(self, portal: Any, capfd: pytest.CaptureFixture[str]) -> None:
        """The exception propagates, nothing is sent; the line names its class."""
        request_lines(capfd)
        app, settings, _ = portal
        assert _failing(app, websocket_scope("/x", self.bearer(settings)), RuntimeError, CONNECT) == []
        (line,) = request_lines(capfd)
        assert line["error"] == "RuntimeError"

    def test_the_line_tells_what_became_of_it(self, portal: Any, capfd: pytest.CaptureFixture[str]) -> None:
        """101 for an accepted handshake, the problem's status for a refused one."""
        request_lines(capfd)
        app, settings, _ = portal
        run(app, websocket_scope("/feed/north", self.bearer(settings)), CONNECT, {"type": "websocket.disconnect"})
        run(app, websocket_scope("/feed/north"), CONNECT)
        assert [line["status"] for line in request_lines(capfd)] == [101, 401]
