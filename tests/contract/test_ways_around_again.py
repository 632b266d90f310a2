"""More ways around the shield that were found by attacking it: other spellings, other threads, second answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextvars import Context
from itertools import product
from typing import Any

import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import Request
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from conftest import MakePortal, Portal
from portalshield import Settings, Shield, current_tenant, protect
from portalshield.model.exchange import Exchange
from portalshield.model.principal import Principal
from portalshield.model.verdicts import Reply, problem
from portalshield.testing import environment, mint_token

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")
MULTIPART = ("content-type", "multipart/form-data; boundary=b")


@pytest.fixture
def settings() -> Settings:
    """The variables of a test run."""
    return Settings.from_env(environment())


def bearer(settings: Settings, tenant: str | None = "north", **claims: Any) -> list[tuple[str, str]]:
    """The Authorization field of a tenant's user."""
    return [("authorization", f"Bearer {mint_token(settings, tenant=tenant, **claims)}")]


def part(name: str, value: bytes, more: bytes = b"") -> bytes:
    """One part of a multipart form."""
    return b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), more, value)


def route(
    app: Any, path: str, answer: Callable[[Any], Any], mark: Callable[[Any], Any] = lambda handler: handler
) -> None:
    """A POST route that answers what `answer(request)` says, on either framework."""
    if isinstance(app, Flask):

        def view() -> Any:
            found = answer(flask.request)
            return flask.Response(json.dumps(found[1]), found[0], mimetype="application/json")

        app.add_url_rule(path, path, mark(view), methods=["POST"])
        return

    async def handler(request: Request) -> Any:
        await request.body()
        status, document = answer(request)
        return JSONResponse(document, status)

    app.add_api_route(path, mark(handler), methods=["POST"])


# -- ids by other spellings -------------------------------------------------------------------------------------------

FILTERS = [
    pytest.param("filter=+{}", id="behind a plus"),
    pytest.param("filter=%20%0A{}", id="behind encoded blanks"),
    pytest.param("filter=%EF%BB%BF{}", id="behind a byte order mark"),
    pytest.param("a=1&filter=+[1,{}]", id="in a list"),
]
DOCUMENTS = [
    pytest.param('{"tenant_id":"south"}', id="plain"),
    pytest.param('{"tenant_id":"south","tenant_id":"north"}', id="the first of two"),
    pytest.param('{"\\u0074enant_id":"south"}', id="an escaped name"),
    pytest.param('{"a":"+","tenant_id":"south"}', id="a plus in it"),
]


class TestJsonInValues:
    """A value that a handler may read as JSON is read here too, whatever stands before it and wherever it comes."""

    @pytest.mark.parametrize("where", FILTERS)
    @pytest.mark.parametrize("document", DOCUMENTS)
    def test_in_the_query(self, portal: Portal, where: str, document: str) -> None:
        """JSON parsers skip blanks."""
        target = "/search?" + where.replace("{}", document)
        assert portal.request("GET", target, portal.bearer()).status == 404
        assert portal.calls == []
        assert portal.request("GET", target.replace("south", "north"), portal.bearer()).status == 200

    def test_deeper_than_one_parser_goes(self, portal: Portal) -> None:
        """What this parser cannot follow another one may."""
        target = '/search?filter={"tenant_id":"south","x":' + "[" * 1010 + "]" * 1010 + "}"
        assert portal.request("GET", target, portal.bearer()).status == 400

    @pytest.mark.parametrize("blank", [b" ", b"\t", b"\r\n", b"+", b"%0d"])
    def test_in_a_form(self, portal: Portal, blank: bytes) -> None:
        """Raw blanks too."""
        headers = [*portal.bearer(), FORM]
        assert portal.request("POST", "/search", headers, b'f=%b{"tenant_id":"south"}' % blank).status == 404
        assert portal.request("POST", "/search", headers, b'f=%b{"tenant_id":"north"}' % blank).status == 200

    @pytest.mark.parametrize("document", DOCUMENTS)
    @pytest.mark.parametrize("cut", [1, 7, 10_000])
    def test_in_a_multipart_form(self, portal: Portal, document: str, cut: int) -> None:
        """A field of JSON beside the files, as uploads have it; cut anywhere."""
        for tenant, status in (("south", 404), ("north", 200)):
            value = b" \n" + document.replace("south", tenant).encode()
            body = part("meta", value) + part("f", b"x", b'; filename="a.txt"') + b"--b--\r\n"
            chunks = [body[at : at + cut] for at in range(0, len(body), cut)]
            assert portal.request("POST", "/search", [*portal.bearer(), MULTIPART], chunks).status == status
        assert portal.calls == ["search"]

    def test_behind_a_file_of_a_multipart_form(self, portal: Portal) -> None:
        """Refused whatever its value, as any name that matters there."""
        body = part("f", b"x", b'; filename="a.txt"') + part("meta", b'{"tenant_id":"north"}') + b"--b--\r\n"
        answer = portal.request("POST", "/search", [*portal.bearer(), MULTIPART], body)
        assert (answer.status, answer.slug) == (400, "malformed-request")

    def test_text_that_only_looks_like_it(self, portal: Portal) -> None:
        """Brackets in a message are nobody's id."""
        body = part("text", b"[sic] {tenant_id}") + part("x", b"\xc2\xa0{") + b"--b--\r\n"
        assert portal.request("POST", "/search", [*portal.bearer(), MULTIPART], body).status == 200

    def test_an_object_id(self, make_portal: MakePortal) -> None:
        """Owners are asked about it in the same places."""
        portal = make_portal(owners={"invoice_id": {"1": "north", "9": "south"}.get})
        for number, status in (("9", 404), ("1", 200)):
            assert portal.request("GET", f'/search?f=+{{"invoice_id":{number}}}', portal.bearer()).status == status
            body = part("meta", b'{"invoice_id":%b}' % number.encode()) + b"--b--\r\n"
            assert portal.request("POST", "/search", [*portal.bearer(), MULTIPART], body).status == status

    @pytest.mark.parametrize(
        "cookie",
        [
            pytest.param('p={"tenant_id":"south"}', id="bare"),
            pytest.param('p={"a":"&","tenant_id":"south"}', id="with what separates parameters"),
            pytest.param('p={"a":"%22","tenant_id":"south"}', id="that decoding would break"),
            pytest.param("p=%7B%22tenant_id%22%3A%22south%22%7D", id="encoded"),
            pytest.param('p="{\\"tenant_id\\": \\"south\\"\\054 \\"a\\": 1}"', id="quoted, as Werkzeug writes it"),
            pytest.param('p={"\\u0074enant_id":"south"}', id="an escaped name"),
            pytest.param("tenant_id = south", id="blanks around the name"),
            pytest.param('tenant_id="\\163outh"', id="an octal letter"),
        ],
    )
    def test_in_a_cookie(self, portal: Portal, cookie: str) -> None:
        """As the framework hands it over."""
        assert portal.request("GET", "/search", [*portal.bearer(), ("cookie", cookie)]).status == 404
        own = cookie.replace("\\163outh", "\\156orth").replace("south", "north")
        assert portal.request("GET", "/search", [*portal.bearer(), ("cookie", own)]).status == 200


def test_an_own_id_in_a_cookie_may_be_encoded(portal: Portal) -> None:
    """As scripts write what a cookie cannot hold."""
    for cookie in ("tenant_id=north%20inc", 'tenant_id="north inc"', "p=%7B%22tenant_id%22%3A%22north%20inc%22%7D"):
        assert portal.request("GET", "/search", [*portal.bearer("north inc"), ("cookie", cookie)]).status == 200


@pytest.mark.parametrize("marks", list(product("-_", repeat=3)), ids="".join)
def test_any_mixture_of_hyphens_and_underscores_in_a_header(make_portal: MakePortal, marks: tuple[str, ...]) -> None:
    """A WSGI application behind an ASGI server has one name for all of them."""
    portal = make_portal({"TENANT__FIELDS": "customer_org_id"})
    name = "x{}customer{}org{}id".format(*marks)
    assert portal.request("GET", "/search", [*portal.bearer(), (name, "south")]).status == 404
    assert portal.request("GET", "/search", [*portal.bearer(), (name, "north")]).status == 200


# -- the login brake --------------------------------------------------------------------------------------------------


class TestLoginBrake:
    """Guesses that the brake did not see, and counts that somebody else cleared."""

    @pytest.fixture
    def logins(self, make_portal: MakePortal) -> Portal:
        """A handler that looks into the query, as `request.values` and plain FastAPI parameters do."""

        def login(request: Any) -> tuple[int, Any]:
            query = request.args if hasattr(request, "args") else request.query_params
            return (200, {}) if query.get("password") == "right" else (401, {})

        mark = protect(public=True, login="email")
        return make_portal(prepare=lambda app: route(app, "/login", login, mark))

    def test_an_attempt_without_a_body(self, logins: Portal) -> None:
        """The account stands in the query, and there is nothing else."""
        found = [logins.request("POST", "/login?email=v@x&password=w", peer=f"198.51.100.{n}").status for n in range(9)]
        assert found == [401] * 5 + [429] * 4

    def test_an_own_success_does_not_clear_another_account(self, logins: Portal) -> None:
        """The victim in the body, oneself in the query: whoever was let in, it was not both."""
        found = []
        for n in range(3):
            for guess in range(4):
                target = "/login?email=victim@x&password=wrong"
                found.append(logins.request("POST", target, [JSON], b"{}", peer=f"198.51.{n}.{guess}").status)
            body = b'{"email":"victim@x"}'
            logins.request("POST", "/login?email=me@x&password=right", [JSON], body, peer=f"203.0.113.{n}")
        assert found == [401] * 5 + [429] * 7

    def test_a_page_in_answer_to_a_query_is_no_success(self, make_portal: MakePortal) -> None:
        """A body of another type does not turn the form that is shown again into a success."""

        def prepare(app: Any) -> None:
            if isinstance(app, Flask):
                app.add_url_rule("/login", "login", mark(lambda: "<form>"), methods=["POST"])
            else:
                app.add_route("/login", mark(page), methods=["POST"])

        async def page(request: Any) -> Response:
            return Response("<form>", media_type="text/html")

        mark = protect(public=True, login="email")
        portal = make_portal(prepare=prepare)
        target = "/login?email=v@x&password=w"
        found = [portal.request("POST", target, [JSON], b"{}", peer=f"198.51.100.{n}").status for n in range(7)]
        assert found == [200] * 5 + [429] * 2


# -- Flask: threads, requests within requests -------------------------------------------------------------------------


class TestFlaskContexts:
    """Whose request it is stands in the environ, the context is only the second witness."""

    def test_a_middleware_that_answers_from_another_thread(self, settings: Settings) -> None:
        """`authenticate` is asked all the same: the context is not there, the mark is."""
        app, calls = Flask(__name__), []

        @app.get("/t/<tenant_id>")
        def tenant(tenant_id: str) -> str:
            calls.append(tenant_id)
            return tenant_id

        inner = app.wsgi_app

        def hopping(environ: Any, start_response: Any) -> Any:
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(inner(environ, start_response)))
            thread.start()
            thread.join()
            return found[0]

        app.wsgi_app = hopping  # type: ignore[method-assign]
        user = [None, Principal("u", "north")]
        Shield(app, settings=settings, authenticate=lambda request: user[0])
        assert WsgiDoor(app).request("GET", "/t/south").status == 401
        user.reverse()
        assert [WsgiDoor(app).request("GET", f"/t/{name}").status for name in ("south", "north")] == [404, 200]
        assert calls == ["north"]

    def test_a_middleware_that_loses_context_and_mark(self, settings: Settings) -> None:
        """Where `authenticate` could not be asked, no view runs."""
        app, calls = Flask(__name__), []

        @app.get("/t")
        def view() -> str:
            calls.append("view")
            return "RAN"

        inner = app.wsgi_app

        def losing(environ: Any, start_response: Any) -> Any:
            kept = {name: value for name, value in environ.items() if name.isupper() or name.startswith("wsgi.")}
            return Context().run(inner, kept, start_response)

        app.wsgi_app = losing  # type: ignore[method-assign]
        Shield(app, settings=settings, authenticate=lambda request: None)
        assert WsgiDoor(app).request("GET", "/t").status == 500
        assert calls == []

    @pytest.mark.parametrize("order", ["outside", "inside"])
    def test_applications_side_by_side(self, settings: Settings, order: str) -> None:
        """`DispatcherMiddleware` around two shielded applications, or within the first one's door: nobody's routes are
        judged by the other's policies."""
        calls: list[str] = []
        first, second = Flask("first"), Flask("second")
        for app in (first, second):

            @app.get("/t/<tenant_id>")
            def tenant(tenant_id: str) -> str:
                calls.append(tenant_id)
                return tenant_id

        if order == "inside":
            first.wsgi_app = DispatcherMiddleware(first.wsgi_app, {"/b": second})  # type: ignore[method-assign]
        Shield(first, settings=settings)
        Shield(second, settings=settings)
        app_of_both = first if order == "inside" else DispatcherMiddleware(first, {"/b": second})
        door, headers = WsgiDoor(app_of_both), bearer(settings)
        assert door.request("GET", "/t/south", headers).status == 404
        assert door.request("GET", "/b/t/south", headers).status >= 400
        assert door.request("GET", "/b/t/north").status >= 400
        assert calls == []

    @pytest.mark.parametrize("read", [False, True], ids=["left alone", "read and closed"])
    def test_a_request_within_a_request(self, settings: Settings, read: bool) -> None:
        """`app.test_client()` in a handler: the outer request's principal stays its own."""
        app, seen, kept = Flask(__name__), [], []

        @app.get("/inner")
        def inner() -> Any:
            def blocks() -> Any:
                seen.append(current_tenant())
                yield b"a"
                seen.append(current_tenant())
                yield b"b"

            return flask.Response(blocks())

        @app.get("/outer")
        def outer() -> Any:
            answer = app.test_client().get("/inner", headers=dict(bearer(settings, "south")))
            kept.append(answer)
            between = current_tenant()
            if read:
                assert answer.data == b"ab"
                answer.close()

            def blocks() -> Any:
                yield between.encode() + b" " + current_tenant().encode()

            return flask.Response(blocks())

        Shield(app, settings=settings)
        door = WsgiDoor(app)
        assert door.request("GET", "/outer", bearer(settings)).body == b"north north"
        for answer in kept:
            answer.close()  # the outer request is over by now
        assert set(seen) == {"south"}
        with pytest.raises(LookupError):
            current_tenant()

    def test_an_upgrade_is_no_alarm(self, make_portal: MakePortal) -> None:
        """`Upgrade: websocket` on an ordinary route: Werkzeug runs no view, and nobody calls that a wrong route."""
        portal = make_portal()
        headers = [("upgrade", "websocket"), ("connection", "Upgrade")]
        assert portal.request("GET", "/public", headers, lint=False).status < 500


# -- answers ----------------------------------------------------------------------------------------------------------


def test_every_answer_of_a_middleware_that_tries_again_is_read() -> None:
    """The first was harmless, the second shows another tenant's row."""
    answers = [(503, b"{}"), (200, b'{"tenant_id":"south"}')]

    async def say(request: Any) -> Response:
        status, body = answers.pop(0)
        return Response(body, status, {"content-type": "application/json"})

    class Retry:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            while True:
                sent: list[Any] = []

                async def keep(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                await self.app(scope, receive, keep)
                if sent[0]["status"] != 503:
                    break
            for message in sent:
                await send(message)

    app = Starlette(routes=[Route("/say", say)])
    app.add_middleware(Retry)
    settings = Settings.from_env(environment(MODE__RESPONSE_GUARD="enforce"))
    Shield(app, settings=settings)
    answer = AsgiDoor(app).request("GET", "/say", bearer(settings))
    assert (answer.status, b"south" in answer.body) == (500, False)


class TestIdempotency:
    """The whole of a request counts, also where nobody looks for tenants in it."""

    def test_another_form_under_the_same_key(self, make_portal: MakePortal) -> None:
        """Multipart, without the tenant layer, the difference behind a file's beginning, cut there."""
        portal = make_portal(
            {"MODE__TENANT": "off"},
            prepare=lambda app: route(app, "/once", lambda request: (200, {"ok": 1}), protect(idempotent=True)),
        )
        headers = [*portal.bearer(), MULTIPART, ("idempotency-key", "k")]
        head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n'
        found = [
            portal.request("POST", "/once", headers, [head, value, b"\r\n--b--\r\n"]).status
            for value in (b"one", b"one", b"two")
        ]
        assert found == [200, 200, 422]


# -- what is remembered -----------------------------------------------------------------------------------------------


HEADS: list[list[tuple[bytes, bytes]]] = [
    [(b"content-type", kind), (b"content-length", b"2"), *more]
    for kind in (b"application/json", b"text/html")
    for more in (
        [],
        [(b"set-cookie", b"sid=a")],
        [(b"set-cookie", b"sid=b"), (b"set-cookie", b"x=1")],
        [(b"cache-control", b"public")],
        [(b"vary", b"Accept")],
        [(b"vary", b"Cookie, *")],
        [(b"access-control-allow-origin", b"*")],
        [(b"x-user", b"a"), (b"server", b"x")],
    )
] + [[(b"Content-Type", b"text/html"), (b"Vary", b"Accept")], [(b"ratelimit", b"fake")]]


def _facts(number: int) -> Exchange:
    """Exchanges of different callers, origins, schemes and outcomes."""
    x = Exchange()
    x.request_id = f"{number:032x}"
    x.origin = (None, b"https://app.example.com", b"https://two.example.com")[number % 3]
    x.https = bool(number & 1)
    x.principal = (None, Principal("a", "north"), Principal("b", "south"))[number // 3 % 3]
    x.problem = problem("not-found") if number % 7 == 0 else None
    x.verdict = Reply(204) if number % 5 == 0 else None
    x.headers = _Fields({b"origin": x.origin} if x.origin else {})
    return x


class _Fields(dict[bytes, bytes]):
    def get_all(self, name: bytes) -> list[bytes]:
        return [self[name]] if name in self else []


def test_a_remembered_head_is_what_a_fresh_one_would_be(make_portal: MakePortal) -> None:
    """Nothing of one caller's answer gets into another's, in whatever order they come."""
    env = {"CORS__ALLOW_ORIGINS": "https://app.example.com,https://two.example.com", "CORS__ALLOW_CREDENTIALS": "true"}
    portal = make_portal(env)
    portal.request("GET", "/search", portal.bearer())
    runtime = portal.shield.protection._runtime
    assert runtime is not None
    plan = runtime.strict
    for number, head in product(range(105), HEADS):
        text = [(name.decode().title(), value.decode()) for name, value in head]
        x = _facts(number)
        remembered = plan.finish_head(x, 200, list(head)), plan.finish_text(x, 200, list(text))
        kept, kept_text = dict(plan.ready), dict(plan.ready_text)
        plan.ready.clear()
        plan.ready_text.clear()
        assert remembered == (plan.finish_head(x, 200, list(head)), plan.finish_text(x, 200, list(text)))
        plan.ready.update(kept)
        plan.ready_text.update(kept_text)
    assert plan.ready
    assert plan.ready_text


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        pytest.param("", [("host", "a b")], 400, id="a host that is none"),
        pytest.param("", [("host", "portal.example.com"), ("host", "evil.example.com")], 400, id="two hosts"),
        pytest.param("", [("authorization", "Bearer a")], 400, id="two credentials"),
        pytest.param("?" + "a&" * 1200, [], 414, id="a thousand parameters"),
        pytest.param("?" + "a" * 9000, [], 414, id="a long query"),
        pytest.param("", [(f"x-{n}", "1") for n in range(220)], 431, id="many fields"),
        pytest.param("", [("x-big", "1" * 70_000)], 431, id="a large field"),
        pytest.param("", [("transfer-encoding", "chunked"), ("content-length", "1")], 400, id="two lengths"),
        pytest.param("?tenant_id=south", [], 404, id="another tenant"),
    ],
)
def test_a_known_path_is_known_for_its_spelling_alone(
    portal: Portal, query: str, headers: list[tuple[str, str]], status: int
) -> None:
    """What else may be wrong with a request is judged each time."""
    assert portal.request("GET", "/search", portal.bearer()).status == 200
    found = portal.request("GET", "/search" + query, [*portal.bearer(), *headers], lint=False)
    assert (found.status, portal.calls) == (status, ["search"])
