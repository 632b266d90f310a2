"""No answer shows another tenant's rows: what a handler lets slip is read before it leaves, and refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import flask
import pytest
from doors import Answer, AsgiDoor, WsgiDoor
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from conftest import MakePortal, Portal
from portalshield import Principal, Settings, Shield, protect, public
from portalshield.layers.response_guard import CAP_BYTES
from portalshield.runtime import Runtime
from portalshield.testing.tokens import environment, mint_token
from portalshield.wsgi import ShieldMiddleware

BLOCK = {"MODE__RESPONSE_GUARD": "enforce"}
JSON = "application/json"

LEAKS = [
    pytest.param(b'{"tenant_id":"south"}', JSON, id="top level"),
    pytest.param(b'{"a":{"b":[{"orgId":"south"}]}}', JSON, id="nested"),
    pytest.param(b'[{"tenant_id":"north"},{"tenant_id":"south"}]', JSON, id="second of a list"),
    pytest.param(b'{\n  "tenant_id" : "south"\n}', JSON, id="spaced"),
    pytest.param(b'{"tenant_id":"north"}\n{"tenant_id":"south"}\n', "application/x-ndjson", id="NDJSON"),
    pytest.param(b'{"tenant_id":"south"}', "application/vnd.portal+json; charset=utf-8", id="a media type of its own"),
    pytest.param(b'{"tenant_id":"south"}', "Application/JSON", id="another case of the media type"),
    pytest.param(b'{"tenant_id":["north","south"]}', JSON, id="a list of ids"),
    pytest.param(b'{"\\u0074enant_id":"south"}', JSON, id="escaped name"),
    pytest.param(b'[{"tenant_id":"north"},{"\\u0074enant_id":"south"}]', JSON, id="escaped name behind an own one"),
    pytest.param(b'{"tenant_i\\u0064":"south","tenant_id":"north"}', JSON, id="escaped name before its double"),
    pytest.param(b'{"tenant_id":"south","tenant_id":"north"}', JSON, id="the first of two"),
    pytest.param(b'{"tenant_id":"north","tenant_id":"south"}', JSON, id="the second of two"),
    pytest.param('{"tenant_id":"south"}'.encode("utf-16"), JSON, id="UTF-16"),
    pytest.param(b'\x1e{"tenant_id":"north"}\n\x1e{"tenant_id":"south"}\n', "application/json-seq", id="a sequence"),
    pytest.param(b'{"detail":"taken","tenant_id":"south"}', "application/problem+json", id="a problem of the handler"),
    pytest.param(b'{"tenant_id":{"id":"south"}}', JSON, id="an object for an id"),
]
HONEST = [
    pytest.param(b'{"tenant_id":"north"}', JSON, (1, 0), id="own"),
    pytest.param(b'{"tenant_id": "north"}', JSON, (1, 0), id="own, spaced"),
    pytest.param(
        b'{"tenant_id":"north","name":"caf\\u00e9 \\u003cb\\u003e"}', JSON, (1, 0), id="own, escapes beside it"
    ),
    pytest.param(
        b'\x1e{"tenant_id":"north"}\n\x1e{"tenant_id":"north"}\n', "application/json-seq", (1, 0), id="own sequence"
    ),
    pytest.param(b'{"tenant_id":"north","filter":"tenant_id"}', JSON, (1, 0), id="own, and the name as a value"),
    pytest.param('{"tenant_id":"north"}'.encode("utf-16"), JSON, (1, 0), id="own, in UTF-16"),
    pytest.param(b'{"text":"he wrote \\"tenant_id\\":\\"south\\" here"}', JSON, (0, 1), id="quoted in a text"),
    pytest.param(b'{"tenant_id":null,"total":3}', JSON, (0, 1), id="a row of nobody"),
    pytest.param(b'{"name":"caf\\u00e9"}', JSON, (0, 1), id="an escaped letter"),
    pytest.param(b"[]", JSON, (0, 1), id="nothing"),
    pytest.param(b'tenant_id,"tenant_id":"south"', "text/csv", None, id="no JSON"),
    pytest.param(b'{"tenant_id":"south"}', "application/json-patch", None, id="a name that only begins like JSON"),
]


def _echoing(request: Any, pieces: list[bytes], length: int | None, status: int, headers: dict[str, str]) -> Any:
    if isinstance(request, Request):

        async def blocks() -> Any:
            for piece in pieces:
                yield piece

        if len(pieces) == 1 and length == len(pieces[0]):
            return Response(pieces[0], status, headers)
        return StreamingResponse(blocks(), status, headers)
    return flask.Response(iter(pieces), status, headers)


class Speaker:
    """What the handler of `/say` (tenant), `/open` (public) and `/all` (cross-tenant) answers next; `spelled`: how it
    writes the names of its fields."""

    def __init__(self) -> None:
        self.spelled: Callable[[str], str] = str.lower
        self.says([b"{}"])

    def says(self, pieces: list[bytes], media: str = JSON, **more: Any) -> None:
        """The body in pieces; `length` is the declared one (right by default, None: not declared)."""
        self.pieces = pieces
        self.length: int | None = more.get("length", sum(map(len, pieces)))
        self.status: int = more.get("status", 200)
        declared = {"content-length": str(self.length)} if self.length is not None else {}
        self.headers: dict[str, str] = {"content-type": media, **declared, **more.get("headers", {})}

    def answer(self, request: Any) -> Any:
        """One response of the framework."""
        headers = {self.spelled(name): value for name, value in self.headers.items()}
        answer = _echoing(request, self.pieces, self.length, self.status, headers)
        if isinstance(answer, Response):  # it has written them in lower case
            answer.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        return answer

    def mount(self, app: Any) -> None:
        """Put the routes into an application."""
        if isinstance(app, Flask):
            app.add_url_rule("/say", "say", lambda: self.answer(flask.request))
            app.add_url_rule("/open", "open", public(lambda: self.answer(flask.request)))
            spanning = protect(cross_tenant=True, roles=["staff"])(lambda: self.answer(flask.request))
            app.add_url_rule("/all", "all", spanning)
            return

        async def say(request: Request) -> Any:
            return self.answer(request)

        async def everybody(request: Request) -> Any:
            return self.answer(request)

        async def everything(request: Request) -> Any:
            return self.answer(request)

        app.add_route("/say", say)
        app.add_route("/open", public(everybody))
        app.add_route("/all", protect(cross_tenant=True, roles=["staff"])(everything))


@pytest.fixture
def speaker() -> Speaker:
    """A handler that says what a test puts into its mouth."""
    return Speaker()


@pytest.fixture
def blocking(make_portal: MakePortal, speaker: Speaker) -> Portal:
    """A portal whose guard refuses."""
    return make_portal(BLOCK, prepare=speaker.mount)


def _ask(portal: Portal, path: str = "/say", method: str = "GET", **claims: Any) -> Answer:
    return portal.request(method, path, portal.bearer(**claims), lint=method != "HEAD")


@pytest.mark.parametrize(("body", "media"), LEAKS)
def test_a_foreign_row_does_not_leave(blocking: Portal, speaker: Speaker, body: bytes, media: str) -> None:
    """An answer with another tenant's id becomes a 500 that shows nothing of it."""
    speaker.says([body], media)
    answer = _ask(blocking)
    assert (answer.status, answer.slug) == (500, "internal-error")
    assert b"south" not in answer.body
    assert answer.get("content-type") == "application/problem+json"
    assert answer.get("content-length") == str(len(answer.body))
    assert blocking.shield.coverage() == {"/say": (1, 0)}


@pytest.mark.parametrize(("body", "media", "coverage"), HONEST)
def test_an_honest_answer_is_no_alarm(
    blocking: Portal, speaker: Speaker, body: bytes, media: str, coverage: tuple[int, int] | None
) -> None:
    """It leaves as it came, and is counted by whether it showed whose it is."""
    speaker.says([body], media)
    answer = _ask(blocking)
    assert (answer.status, answer.body) == (200, body)
    assert blocking.shield.coverage() == ({"/say": coverage} if coverage is not None else {})


@pytest.mark.parametrize(("env", "status"), [({}, 500), ({"ENV": "production"}, 200), (BLOCK, 500)])
def test_it_blocks_in_development_and_reports_elsewhere(
    make_portal: MakePortal, speaker: Speaker, env: dict[str, str], status: int
) -> None:
    """Unless its mode says otherwise."""
    portal = make_portal(env, prepare=speaker.mount)
    speaker.says([b'{"tenant_id":"south"}'])
    assert _ask(portal).status == status
    assert portal.shield.coverage() == {"/say": (1, 0)}


@pytest.mark.parametrize(
    ("mode", "told"),
    [("report", (200, "", [("response_guard", "internal-error")])), ("enforce", (500, "response_guard", None))],
)
def test_the_log_is_told(
    make_portal: MakePortal, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, mode: str, told: Any
) -> None:
    """What the line of a request is made from says who refused, or would have."""
    lines: list[Any] = []

    def done(self: Runtime, x: Any, status: int, *rest: Any) -> None:
        lines.append((status, x.layer, x.would_refuse))

    monkeypatch.setattr(Runtime, "done", done)
    portal = make_portal({"MODE__RESPONSE_GUARD": mode}, prepare=speaker.mount)
    speaker.says([b'{"tenant_id":"south"}'])
    _ask(portal)
    assert lines == [told]


def test_off_reads_nothing(make_portal: MakePortal, speaker: Speaker) -> None:
    """Without the layer nothing is read, refused or counted."""
    portal = make_portal({"MODE__RESPONSE_GUARD": "off"}, prepare=speaker.mount)
    speaker.says([b'{"tenant_id":"south"}'])
    assert (_ask(portal).status, portal.shield.coverage()) == (200, {})


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b'{"tena', b'nt_id":"so', b'uth"}'], id="cut through name and value"),
        pytest.param([b'{"tenant_id":"south"}', b""], id="an empty last piece"),
        pytest.param([b"", b'{"tenant_id":"south"}'], id="an empty first piece"),
        pytest.param([bytes((byte,)) for byte in b'{"tenant_id":"south"}'], id="byte by byte"),
    ],
)
def test_pieces_do_not_hide_a_row(blocking: Portal, speaker: Speaker, pieces: list[bytes]) -> None:
    """A body of declared length is judged as a whole, however it is cut."""
    speaker.says(pieces)
    assert _ask(blocking).status == 500
    honest = [piece.replace(b"so", b"no").replace(b"uth", b"rth") for piece in pieces]
    if b"".join(honest) == b'{"tenant_id":"north"}':
        speaker.says(honest)
        answer = _ask(blocking)
        assert (answer.status, answer.body) == (200, b"".join(honest))


@pytest.mark.parametrize("path", ["/open", "/all"])
def test_routes_that_span_tenants_are_not_read(blocking: Portal, speaker: Speaker, path: str) -> None:
    """Public and cross-tenant routes may show whatever they show."""
    speaker.says([b'{"tenant_id":"south"}'])
    assert _ask(blocking, path, roles=["staff"]).status == 200
    assert blocking.shield.coverage() == {}


UNREAD = [
    pytest.param({"length": None}, id="a stream"),
    pytest.param({"headers": {"content-encoding": "br"}}, id="compressed by the handler"),
    pytest.param({"status": 206}, id="a part"),
]


@pytest.mark.parametrize("more", UNREAD)
def test_what_cannot_be_read_passes_and_is_counted(blocking: Portal, speaker: Speaker, more: dict[str, Any]) -> None:
    """A JSON answer that cannot be judged as a whole goes out as it is, uncovered."""
    speaker.says([b'{"tenant_id":"south"}'], **more)
    answer = _ask(blocking)
    assert (answer.status, answer.body) == (more.get("status", 200), b'{"tenant_id":"south"}')
    assert blocking.shield.coverage() == {"/say": (0, 1)}


HEADS = [
    (JSON, "identity", 200, 500),
    (JSON, "br", 200, 200),
    (JSON, "identity", 206, 206),
    ("text/csv", "identity", 200, 200),
]
"""Media type, coding and status of answers with a foreign row, all with the same names; and what becomes of them."""


@pytest.mark.parametrize("spelled", [str.lower, str.title, str.upper])
def test_what_is_known_of_a_head_is_known_for_that_one_alone(
    blocking: Portal, speaker: Speaker, spelled: Callable[[str], str]
) -> None:
    """Whether an answer can be read is remembered by all that decides it, in whatever order answers come."""
    speaker.spelled = spelled
    for order in permutations(HEADS):
        for media, coding, status, told in order:
            speaker.says([b'{"tenant_id":"south"}'], media, status=status, headers={"content-encoding": coding})
            assert _ask(blocking).status == told, (media, coding, status)


def test_above_the_cap_nothing_is_held(blocking: Portal, speaker: Speaker) -> None:
    """An answer larger than the cap streams through, uncovered."""
    body = b'{"tenant_id":"south","x":"' + b"x" * CAP_BYTES + b'"}'
    speaker.says([body])
    answer = _ask(blocking)
    assert (answer.status, answer.body) == (200, body)
    assert blocking.shield.coverage() == {"/say": (0, 1)}


@pytest.mark.parametrize(("length", "what"), [(5, "longer"), (500, "shorter")])
def test_a_wrong_length_passes_as_it_is(blocking: Portal, speaker: Speaker, length: int, what: str) -> None:
    """A body that is not what it declared is the server's to deal with; it counts as uncovered."""
    body = [b'{"tenant', b'_id":"north"}']
    speaker.says(body, length=length)
    answer = _ask(blocking)
    assert (answer.status, answer.body) == (200, b"".join(body)), what
    assert answer.get("content-length") == str(length)
    assert blocking.shield.coverage() == {"/say": (0, 1)}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_an_answer_without_a_body_is_not_waited_for(
    blocking: Portal, speaker: Speaker, method: str, status: int
) -> None:
    """HEAD, 204 and 304 pass untouched."""
    length = 40 if method == "HEAD" else None
    speaker.says([b""], status=status, length=length)
    answer = blocking.request(method, "/say", blocking.bearer(), lint=False)
    assert (answer.status, answer.body, blocking.shield.coverage()) == (status, b"", {})


def test_an_error_page_is_judged_but_not_counted(blocking: Portal, speaker: Speaker) -> None:
    """The application's own errors say nothing about coverage, and must not show a row either."""
    speaker.says([b'{"detail":"no"}'], status=409)
    assert (_ask(blocking).status, blocking.shield.coverage()) == (409, {})
    speaker.says([b'{"tenant_id":"south"}'], status=409)
    assert (_ask(blocking).status, blocking.shield.coverage()) == (500, {})


def test_coverage_is_per_route(blocking: Portal, speaker: Speaker) -> None:
    """Template -> (covered, uncovered); paths share their template's numbers."""
    speaker.says([b'{"tenant_id":"north"}'])
    _ask(blocking)
    speaker.says([b"[]"])
    _ask(blocking)
    blocking.request("GET", "/tenants/north/clients/7", blocking.bearer())
    blocking.request("GET", "/tenants/north/clients/8", blocking.bearer())
    template = "/tenants/{tenant_id}/clients/{client_id}"
    assert blocking.shield.coverage() == {"/say": (1, 1), template: (0, 2)}


def test_an_authenticated_answer_may_not_be_cached(blocking: Portal, speaker: Speaker) -> None:
    """Nobody's cache keeps a tenant's rows, unless the application says so."""
    speaker.says([b'{"tenant_id":"north"}'])
    answer = _ask(blocking)
    assert "no-store" in (answer.get("cache-control") or "")
    assert "authorization" in (answer.get("vary") or "").lower()
    speaker.says([b'{"tenant_id":"north"}'], headers={"cache-control": "max-age=5"})
    assert _ask(blocking).get("cache-control") == "max-age=5"


def test_an_application_that_authenticates_itself_is_judged(make_portal: MakePortal, speaker: Speaker) -> None:
    """The tenant that `authenticate=` established is the one that rows are compared with."""
    portal = make_portal(BLOCK, prepare=speaker.mount, authenticate=lambda request: Principal("u1", "north"))
    for tenant, status in (("north", 200), ("south", 500)):
        speaker.says([b'{"tenant_id":"%s"}' % tenant.encode()])
        assert portal.request("GET", "/say").status == status


# -- ASGI -------------------------------------------------------------------------------------------------------------


def _starlette(handler: Any, *, middleware: Any = (), mode: str = "enforce", **more: Any) -> tuple[Portal, list[Any]]:
    app = Starlette(routes=[Route("/say", handler)])
    sent: list[Any] = []
    for item, options in middleware:
        app.add_middleware(item, **options)
    settings = Settings.from_env(environment(MODE__RESPONSE_GUARD=mode))
    shield = Shield(app, settings=settings, **more)

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        async def remembering(message: Any) -> None:
            sent.append(message)
            await send(message)

        await app(scope, receive, remembering)

    return Portal(AsgiDoor(observed), app, shield, settings, []), sent


@pytest.mark.parametrize("application_authenticates", [False, True])
@pytest.mark.parametrize("tenant", ["north", "south"])
def test_an_answer_is_judged_inside_of_compression(application_authenticates: bool, tenant: str) -> None:
    """GZipMiddleware compresses what was judged, whether the inner door is there for authenticate= or not."""

    async def say(request: Request) -> Response:
        return Response(json.dumps([{"tenant_id": tenant}] * 100), media_type=JSON)

    async def authenticate(request: Any) -> Principal:
        return Principal("u1", "north")

    more: dict[str, Any] = {"authenticate": authenticate} if application_authenticates else {}
    portal, _ = _starlette(say, middleware=[(GZipMiddleware, {"minimum_size": 10})], **more)
    answer = portal.request("GET", "/say", [*portal.bearer(), ("accept-encoding", "gzip")])
    assert portal.shield.coverage() == {"/say": (1, 0)}
    if tenant == "south":
        assert (answer.status, answer.slug, answer.all("content-encoding")) == (500, "internal-error", [])
    else:
        assert (answer.status, answer.get("content-encoding")) == (200, "gzip")
        assert len(json.loads(gzip.decompress(answer.body))) == 100


def test_a_middleware_that_answers_by_itself_is_judged_too() -> None:
    """A cache outside of the inner door cannot bring up another tenant's rows."""

    class Cache:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await Response(b'{"tenant_id":"south"}', media_type=JSON)(scope, receive, send)

    async def say(request: Request) -> Response:
        return Response(b"{}", media_type=JSON)

    portal, _ = _starlette(say, middleware=[(Cache, {})])
    answer = portal.request("GET", "/say", portal.bearer())
    assert answer.status == 500
    assert b"south" not in answer.body


@pytest.mark.parametrize("middleware", [[], [(GZipMiddleware, {})]])
def test_a_stream_goes_out_piece_by_piece(middleware: Any) -> None:
    """A stream is not collected: each piece has left before the next is made."""
    seen: list[int] = []

    async def say(request: Request) -> Response:
        async def blocks() -> Any:
            for _ in range(3):
                yield b'{"tenant_id":"north"}\n'
                seen.append(sum(message["type"] == "http.response.body" for message in sent))

        return StreamingResponse(blocks(), media_type="application/x-ndjson")

    portal, sent = _starlette(say, middleware=middleware)
    assert portal.request("GET", "/say", portal.bearer()).status == 200
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("middleware", [[], [(GZipMiddleware, {"minimum_size": 10_000})]])
def test_nothing_waits_for_a_report(middleware: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the guard only reports, an answer of known length goes out piece by piece, and is reported all the same."""
    pieces, seen = [b'{"tena', b'nt_id":"so', b'uth"}'], []
    noted: list[Any] = []

    def done(self: Runtime, x: Any, *_: Any) -> None:
        noted.append((x.would_refuse, x.covered))

    monkeypatch.setattr(Runtime, "done", done)

    async def say(request: Request) -> Response:
        async def blocks() -> Any:
            for piece in pieces:
                yield piece
                seen.append(sum(message["type"] == "http.response.body" for message in sent))

        length = str(sum(map(len, pieces)))
        return StreamingResponse(blocks(), media_type=JSON, headers={"content-length": length})

    portal, sent = _starlette(say, middleware=middleware, mode="report")
    answer = portal.request("GET", "/say", portal.bearer())
    assert (answer.status, answer.body, seen) == (200, b"".join(pieces), [1, 2, 3])
    assert noted == [([("response_guard", "internal-error")], True)]


@pytest.mark.parametrize("hook", ["judge", "wants", "reads"])
def test_a_bug_in_a_reporting_guard_changes_no_answer(
    make_portal: MakePortal, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """It is logged."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(f"portalshield.layers.response_guard.ResponseGuardStage.{hook}", broken)
    crashes: list[BaseException] = []
    portal = make_portal({"MODE__RESPONSE_GUARD": "report"}, prepare=speaker.mount)
    monkeypatch.setattr("portalshield.protection._report", lambda x, error: crashes.append(error))
    speaker.says([b'{"tenant_id":"north"}'])
    answer = _ask(portal)
    assert (answer.status, answer.body) == (200, b'{"tenant_id":"north"}')
    assert [type(error) for error in crashes] == [RuntimeError]


@pytest.mark.parametrize("depth", [300, 450, 900])
def test_nested_lists_of_own_ids_pass(make_portal: MakePortal, speaker: Speaker, depth: int) -> None:
    """However deep a handler nests them, as long as JSON can be read at all."""
    portal = make_portal({"MODE__RESPONSE_GUARD": "report"}, prepare=speaker.mount)
    body = b'{"tenant_id":' + b"[" * depth + b'"north"' + b"]" * depth + b"}"
    speaker.says([body])
    answer = _ask(portal)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("middleware", [[], [(GZipMiddleware, {})]])
def test_a_crash_behind_a_held_head_is_a_clean_500(middleware: Any) -> None:
    """What was held goes nowhere; the server hears of the exception."""

    async def say(request: Request) -> Response:
        async def blocks() -> Any:
            yield b'{"tenant_id":'
            raise RuntimeError("secret-in-exception")

        return StreamingResponse(blocks(), headers={"content-length": "21"}, media_type=JSON)

    portal, _ = _starlette(say, middleware=middleware)
    answer = portal.request("GET", "/say", portal.bearer())
    assert (answer.status, answer.slug) == (500, "internal-error")
    assert isinstance(answer.error, RuntimeError)


def test_a_file_is_held_back_like_anything_else(tmp_path: Any) -> None:
    """FileResponse declares its length and sends pieces."""
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"tenant_id":"south"}]' + b" " * 100_000)

    async def say(request: Request) -> Response:
        return FileResponse(path)

    portal, _ = _starlette(say)
    assert portal.request("GET", "/say", portal.bearer()).status == 500


def test_a_file_that_the_server_sends_is_not_read(tmp_path: Any) -> None:
    """`http.response.pathsend` hands over a path: the head goes out first, uncovered."""
    path = tmp_path / "rows.json"
    path.write_bytes(b'{"tenant_id":"south"}')

    async def say(request: Request) -> Response:
        return FileResponse(path)

    portal, _ = _starlette(say)
    door = portal.door
    assert isinstance(door, AsgiDoor)
    door.scope_extra["extensions"] = {"http.response.pathsend": {}}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = door._scope("GET", "/say", [("host", "x.example"), *portal.bearer()], "203.0.113.7", False)
    asyncio.run(portal.app(scope, lambda: asyncio.sleep(0, {"type": "http.disconnect"}), send))
    assert sent == ["http.response.start", "http.response.pathsend"]
    assert portal.shield.coverage() == {"/say": (0, 1)}


@pytest.mark.parametrize("hook", ["judge", "wants", "reads"])
def test_a_bug_in_the_guard_refuses(
    blocking: Portal, speaker: Speaker, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """A stage that fails never lets an answer pass; its refusal is complete."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    speaker.says([b'{"tenant_id":"north"}'])
    with monkeypatch.context() as patched:
        patched.setattr(f"portalshield.layers.response_guard.ResponseGuardStage.{hook}", broken)
        for _ in range(2):
            answer = _ask(blocking)
            assert (answer.status, answer.get("content-type")) == (500, "application/problem+json")
            assert answer.get("x-request-id")
    assert _ask(blocking).status == 200


# -- WSGI -------------------------------------------------------------------------------------------------------------


def _flask(view: Any) -> Portal:
    app = Flask(__name__)
    app.add_url_rule("/say", "say", view)
    settings = Settings.from_env(environment(**BLOCK))
    return Portal(WsgiDoor(app), app, Shield(app, settings=settings), settings, [])


def test_wsgi_a_stream_goes_out_block_by_block() -> None:
    """A generator is asked for one block at a time."""
    made: list[bytes] = []

    def say() -> flask.Response:
        def blocks() -> Iterator[bytes]:
            for _ in range(3):
                made.append(b"x")
                yield b'{"tenant_id":"north"}\n'

        return flask.Response(blocks(), mimetype="application/x-ndjson")

    portal = _flask(say)
    taken: list[int] = []
    door = portal.door
    inner = portal.app.wsgi_app

    def observed(environ: Any, start_response: Any) -> Any:
        result = inner(environ, start_response)
        try:
            for block in result:
                taken.append(len(made))
                yield block
        finally:
            result.close()

    door.app = observed
    assert door.request("GET", "/say", portal.bearer(), lint=False).status == 200
    assert taken == [1, 2, 3]


def test_wsgi_a_crash_behind_a_held_head_is_a_clean_500() -> None:
    """What was held goes nowhere; the server is told of the exception."""

    def say() -> flask.Response:
        def blocks() -> Iterator[bytes]:
            yield b'{"tenant_id":'
            raise RuntimeError("secret-in-exception")

        return flask.Response(blocks(), headers={"content-length": "21"}, mimetype=JSON)

    portal = _flask(say)
    answer = portal.request("GET", "/say", portal.bearer())
    assert (answer.status, answer.slug) == (500, "internal-error")
    assert isinstance(answer.error, RuntimeError)


def _written(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [("Content-Type", JSON), ("Content-Length", "21")])
    write(b'{"tenant_id":')
    write(environ["wsgi.told"])
    return []


def _written_later(environ: Any, start_response: Any) -> Any:
    _written(environ, start_response)
    return
    yield


def _late(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", JSON), ("Content-Length", "21")])
    yield b'{"tenant_id":'
    yield environ["wsgi.told"]


def _restarted(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", JSON), ("Content-Length", "3")])
    try:
        raise RuntimeError
    except RuntimeError:
        start_response("409 Conflict", [("Content-Type", JSON), ("Content-Length", "21")], sys.exc_info())
    return [b'{"tenant_id":' + environ["wsgi.told"]]


@pytest.mark.parametrize(
    ("application", "status"),
    [
        pytest.param(_written, 200, id="through write"),
        pytest.param(_written_later, 200, id="through write, of a generator"),
        pytest.param(_late, 200, id="started by its first block"),
        pytest.param(_restarted, 409, id="started twice"),
    ],
)
def test_wsgi_every_way_of_answering_is_judged(application: Any, status: int) -> None:
    """`write()`, generators that start late, and a second start with exc_info (PEP 3333)."""
    settings = Settings.from_env(environment(**BLOCK))
    wrapped = ShieldMiddleware(application, Shield(settings=settings))
    for told, expected in ((b'"north"}', status), (b'"south"}', 500)):
        door = WsgiDoor(wrapped, environ_extra={"wsgi.told": told})
        token = mint_token(settings, tenant="north")
        answer = door.request("GET", "/say", [("authorization", f"Bearer {token}")], lint=False)
        assert answer.status == expected
        assert len(answer.body) == int(answer.get("content-length") or 0)
        assert b"south" not in answer.body


class Wrapper:
    """A server's own `wsgi.file_wrapper`."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file, self.size = file, size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.size), b"")

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def test_wsgi_a_file_that_the_server_sends_is_not_read(tmp_path: Any) -> None:
    """The server's own wrapper reaches it unchanged, uncovered."""
    path = tmp_path / "rows.json"
    path.write_bytes(b'{"tenant_id":"south"}')
    portal = _flask(lambda: flask.send_file(path))
    door = portal.door
    inner = portal.app.wsgi_app
    results: list[Any] = []

    def observed(environ: Any, start_response: Any) -> Any:
        results.append(inner(environ, start_response))
        return results[0]

    door.app = observed
    door.environ_extra = {"wsgi.file_wrapper": Wrapper}  # type: ignore[union-attr]
    answer = door.request("GET", "/say", portal.bearer(), lint=False)
    assert (answer.status, type(results[0]), portal.shield.coverage()) == (200, Wrapper, {"/say": (0, 1)})


def test_fastapi_itself_is_judged() -> None:
    """A FastAPI handler that forgot its WHERE clause."""
    app = FastAPI()

    @app.get("/clients")
    async def clients() -> list[dict[str, str]]:
        return [{"name": "Ada", "tenant_id": "north"}, {"name": "Dario", "tenant_id": "south"}]

    settings = Settings.from_env(environment(**BLOCK))
    portal = Portal(AsgiDoor(app), app, Shield(app, settings=settings), settings, [])
    assert portal.request("GET", "/clients", portal.bearer()).status == 500
