"""Ways around the shield that were found by attacking it: each is closed, each stays here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import FastAPI
from flask import Blueprint, Flask
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from conftest import MakePortal, Portal
from portalshield import Policy, Settings, Shield, protect, public
from portalshield.asgi import ShieldMiddleware as AsgiShield
from portalshield.testing import environment, mint_token
from portalshield.wsgi import ShieldMiddleware as WsgiShield


@pytest.fixture
def settings() -> Settings:
    """The variables of a test run."""
    return Settings.from_env(environment())


def bearer(settings: Settings, tenant: str | None = "north", **claims: Any) -> list[tuple[str, str]]:
    """The Authorization field of a tenant's user."""
    return [("authorization", f"Bearer {mint_token(settings, tenant=tenant, **claims)}")]


async def raw(scope: Any, receive: Any, send: Any) -> None:
    """An application without a router."""
    await PlainTextResponse("RAN")(scope, receive, send)


class TestPublic:
    """What somebody more general said of `public` does not outlive who asks something of the caller."""

    @pytest.mark.parametrize(
        "terms",
        [
            pytest.param({"roles": ["staff"]}, id="roles"),
            pytest.param({"scopes": ["x:read"]}, id="scopes"),
            pytest.param({"tenant": "tenant_id"}, id="tenant"),
            pytest.param({"owners": {"id": str}}, id="owners"),
            pytest.param({"impersonation": False}, id="impersonation"),
        ],
    )
    def test_a_specific_policy_takes_it_back(self, make_portal: MakePortal, terms: dict[str, Any]) -> None:
        """A policy of one route over a public one of many."""
        portal = make_portal(policies=[Policy("* /*", public=True), Policy("GET /search", **terms)])
        assert portal.request("GET", "/search").status == 401
        assert portal.request("GET", "/me").status == 401
        assert portal.calls == []

    def test_a_bare_protect_states_the_strict_default(self, settings: Settings) -> None:
        """`@protect()` over a public policy."""
        app = FastAPI()

        @app.get("/x")
        @protect()
        async def x() -> str:
            return "RAN"

        Shield(app, settings=settings, policies=[Policy("GET /*", public=True)])
        assert AsgiDoor(app).request("GET", "/x").status == 401

    def test_a_subclass_does_not_inherit_public(self, settings: Settings) -> None:
        """Nobody said anything about the subclass; what its base asks for it has."""

        @public
        class Base(HTTPEndpoint):
            async def get(self, request: Any) -> PlainTextResponse:
                return PlainTextResponse("RAN")

        @protect(roles=["staff"])
        class Guarded(HTTPEndpoint):
            get = Base.get

        app = Starlette(
            routes=[
                Route("/base", Base),
                Route("/sub", type("Sub", (Base,), {})),
                Route("/guarded", type("SubGuarded", (Guarded,), {})),
            ]
        )
        Shield(app, settings=settings)
        door = AsgiDoor(app)
        assert [door.request("GET", path).status for path in ("/base", "/sub", "/guarded")] == [200, 401, 401]
        assert door.request("GET", "/guarded", bearer(settings)).status == 403

    def test_a_view_that_is_only_called_static_is_like_any_other(self, settings: Settings) -> None:
        """Flask's own static route is public, a view of that name is not."""
        app, blueprint = Flask(__name__, static_folder=None), Blueprint("reports", __name__)

        @blueprint.get("/reports/static/<tenant_id>")
        def static(tenant_id: str) -> str:
            return tenant_id

        app.register_blueprint(blueprint)
        Shield(app, settings=settings)
        assert WsgiDoor(app).request("GET", "/reports/static/south").status == 401


class TestOpaqueApplications:
    """Without a router to ask, each method has its own policy and every pattern's parameters count."""

    @pytest.mark.parametrize("door", [AsgiDoor, WsgiDoor])
    def test_one_methods_policy_is_not_anothers(self, settings: Settings, door: Any) -> None:
        """GET is public, a policy for GET and POST does not make POST so."""
        policies = [Policy("GET /a/*", public=True), Policy("GET|POST /a/b", max_body="4KB")]
        shield = Shield(settings=settings, policies=policies)
        found = door(AsgiShield(raw, shield) if door is AsgiDoor else WsgiShield(_wsgi_raw, shield))
        assert [found.request(method, "/a/b").status for method in ("GET", "POST")] == [200, 401]

    def test_parameters_of_every_pattern_count(self, settings: Settings) -> None:
        """A more specific pattern with other names does not hide the tenant; nor does a slash at the end."""
        policies = [
            Policy("* /t/{tenant_id}/*"),
            Policy("GET /t/{t}/export", max_body="4KB"),
            Policy("* /u/{tenant_id}"),
        ]
        door = AsgiDoor(AsgiShield(raw, Shield(settings=settings, policies=policies)))
        headers = bearer(settings)
        assert [door.request("GET", f"/t/{name}/export", headers).status for name in ("north", "south")] == [200, 404]
        assert [door.request("GET", f"/u/{name}/", headers).status for name in ("north", "south")] == [200, 404]

    @pytest.mark.parametrize("method", ["GET", "QUERY", "PROPFIND", "TRACE", "LINK"])
    def test_no_method_of_a_mount_escapes_its_policy(self, settings: Settings, method: str) -> None:
        """A mount serves every method there is."""
        app = FastAPI()
        app.mount("/legacy", raw)
        Shield(app, settings=settings, policies=[Policy("* /legacy/*", tenant="customer_id", roles=["staff"])])
        assert AsgiDoor(app).request(method, "/legacy/x?customer_id=south", bearer(settings)).status in (403, 404)


def _wsgi_raw(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"RAN"]


def _inner() -> FastAPI:
    inner = FastAPI()

    @inner.get("/t/{tenant_id}")
    async def tenant(tenant_id: str) -> str:
        return tenant_id

    @inner.get("/admin")
    @protect(roles=["staff"])
    async def admin() -> str:
        return "ADMIN"

    return inner


class TestApplicationsInside:
    """An application behind a mount or another middleware keeps its routes' policies."""

    @pytest.mark.parametrize("own", [False, True], ids=["without a shield of its own", "with one"])
    def test_a_mounted_application_in_a_wrapper(self, settings: Settings, own: bool) -> None:
        """`app.mount("/in", GZipMiddleware(sub))`."""
        inner, app = _inner(), FastAPI()
        if own:
            Shield(inner, settings=settings)
        app.mount("/in", GZipMiddleware(inner))
        Shield(app, settings=settings)
        self._holds(AsgiDoor(app), settings, "/in")

    def test_a_mounted_application_in_an_unknown_wrapper_with_its_own_shield(self, settings: Settings) -> None:
        """Nobody can look into a function; the shield inside judges for itself."""
        inner, app = _inner(), FastAPI()
        Shield(inner, settings=settings)

        async def wrapper(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)

        app.mount("/in", wrapper)
        Shield(app, settings=settings)
        self._holds(AsgiDoor(app), settings, "/in")

    def test_an_outer_middleware_does_not_silence_the_shield_inside(self, settings: Settings) -> None:
        """`ShieldMiddleware(app)` around an application with its own shield, even if all is public outside."""
        inner = _inner()
        Shield(inner, settings=settings)
        outer = AsgiShield(inner, Shield(settings=settings, policies=[Policy("GET /*", public=True)]))
        self._holds(AsgiDoor(outer), settings, "")

    @staticmethod
    def _holds(door: AsgiDoor, settings: Settings, prefix: str) -> None:
        headers = bearer(settings)
        assert [door.request("GET", f"{prefix}/t/{name}", headers).status for name in ("north", "south")] == [200, 404]
        assert door.request("GET", f"{prefix}/admin", headers).status == 403
        assert door.request("GET", f"{prefix}/admin").status == 401
        assert door.request("GET", f"{prefix}/admin", bearer(settings, roles=["staff"])).status == 200


class TestSuspendedWalks:
    """`authenticate` is asked inside; nothing in between gets a handler to run without it."""

    def test_a_middleware_that_makes_a_new_environ(self, settings: Settings) -> None:
        """The mark is lost, the context is not."""
        app, calls = Flask(__name__), []

        @app.get("/t/<tenant_id>")
        def tenant(tenant_id: str) -> str:
            calls.append(tenant_id)
            return tenant_id

        inner = app.wsgi_app

        def renewing(environ: Any, start_response: Any) -> Any:
            kept = {name: value for name, value in environ.items() if name.isupper() or name.startswith("wsgi.")}
            return inner(kept, start_response)

        app.wsgi_app = renewing  # type: ignore[method-assign]
        Shield(app, settings=settings, authenticate=lambda request: None)
        assert WsgiDoor(app).request("GET", "/t/south").status == 401
        assert calls == []

    def test_a_middleware_that_tries_again(self, settings: Settings) -> None:
        """The second try is refused like the first."""
        app, calls = FastAPI(), []

        @app.get("/t/{tenant_id}")
        async def tenant(tenant_id: str) -> str:
            calls.append(tenant_id)
            return tenant_id

        class Retry:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                for _ in range(2):
                    sent: list[Any] = []

                    async def keep(message: Any, sent: list[Any] = sent) -> None:
                        sent.append(message)

                    await self.app(scope, receive, keep)
                    if sent and sent[0].get("status", 500) < 500:
                        break
                for message in sent:
                    await send(message)

        app.add_middleware(Retry)
        Shield(app, settings=settings, authenticate=lambda request: None)
        assert AsgiDoor(app).request("GET", "/t/south").status == 401
        assert calls == []


class TestBodies:
    """What another parser would read is read here too."""

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'{"tenant_id":"south","x":"\xff"}', id="bytes that are no UTF-8"),
            pytest.param(b'{"tenant_id":"north"}\n{"tenant_id":"south"}\n', id="one document after the other"),
            pytest.param(b'{"tenant_id":"south","x":' + b"[" * 1010 + b"]" * 1010 + b"}", id="nested too deep"),
        ],
    )
    def test_under_a_forms_label(self, portal: Portal, body: bytes) -> None:
        """Handlers that call `json.loads` ignore the content type."""
        headers = [*portal.bearer(), ("content-type", "application/x-www-form-urlencoded")]
        assert portal.request("POST", "/search", headers, body).status in (400, 404)
        assert portal.calls == []

    def test_own_documents_one_after_the_other_pass(self, make_portal: MakePortal) -> None:
        """NDJSON of the own tenant."""
        portal = make_portal(policies=[Policy("POST /search", content_types=["application/x-ndjson"])])
        headers = [*portal.bearer(), ("content-type", "application/x-ndjson")]
        own, foreign = b'{"tenant_id":"north"}\n' * 3, b'{"tenant_id":"north"}\n{"tenant_id":"south"}\n'
        assert portal.request("POST", "/search", headers, own).status == 200
        assert portal.request("POST", "/search", headers, foreign).status == 404

    def test_of_a_member_of_several_on_a_route_that_needs_none(self, make_portal: MakePortal) -> None:
        """`tenant=False`: a tenant that is named all the same must be one of the caller's."""
        portal = make_portal(
            tenant_of=lambda principal: ["north", "east"], policies=[Policy("POST /search", tenant=False)]
        )
        headers = portal.bearer(None)
        assert portal.json("POST", "/search", b'{"tenant_id":"south"}', headers).status == 404
        assert portal.calls == []

    @pytest.mark.parametrize("query", ['filter={"tenant_id":"south"}', "filter=%7B%22tenant_id%22%3A%22south%22%7D"])
    def test_json_in_a_query_parameter(self, portal: Portal, query: str) -> None:
        """A filter that is sent as JSON."""
        assert portal.request("GET", f"/search?{query}", portal.bearer()).status == 404
        assert portal.request("GET", f"/search?{query.replace('south', 'north')}", portal.bearer()).status == 200

    def test_a_cookie_that_names_a_tenant(self, portal: Portal) -> None:
        """Some portals keep the chosen tenant in a cookie."""
        foreign, own = ("cookie", "a=1; tenant_id=south"), ("cookie", "a=1; tenant_id=north")
        assert portal.request("GET", "/search", [*portal.bearer(), foreign]).status == 404
        assert portal.request("GET", "/search", [*portal.bearer(), own]).status == 200


class TestRoutesThatChange:
    """A route that comes later is found before anything remembered is believed."""

    def test_one_in_front_of_a_remembered_path(self, settings: Settings) -> None:
        """`routes.insert(0, ...)` after the path was served."""
        calls: list[str] = []

        async def old(request: Any) -> PlainTextResponse:
            return PlainTextResponse("old")

        async def new(request: Any) -> PlainTextResponse:
            calls.append(request.path_params["tenant_id"])
            return PlainTextResponse("new")

        app = Starlette(routes=[Route("/{kind}/{name}", public(old))])
        Shield(app, settings=settings)
        door = AsgiDoor(app)
        assert door.request("GET", "/tenants/south").status == 200
        app.router.routes.insert(0, Route("/tenants/{tenant_id}", new))
        assert door.request("GET", "/tenants/south").status == 401
        assert door.request("GET", "/tenants/south", bearer(settings)).status == 404
        assert calls == []

    def test_one_in_an_included_router_in_front_of_a_catch_all(self, settings: Settings) -> None:
        """The nested router's routes are counted too."""
        from fastapi import APIRouter

        app, router, calls = FastAPI(), APIRouter(), []
        app.include_router(router, prefix="/api")

        @app.get("/{path:path}")
        @public
        async def page(path: str) -> str:
            return "page"

        Shield(app, settings=settings)
        door = AsgiDoor(app)
        assert door.request("GET", "/api/late/south").status == 200

        @router.get("/late/{tenant_id}")
        async def late(tenant_id: str) -> str:
            calls.append(tenant_id)
            return tenant_id

        door.request("GET", "/api/late/south")
        assert calls == []

    def test_a_get_does_not_decide_for_a_websocket(self, settings: Settings) -> None:
        """A public page and a protected WebSocket may share a path."""

        async def page(request: Any) -> PlainTextResponse:
            return PlainTextResponse("page")

        async def socket(websocket: Any) -> None:
            await websocket.accept()
            await websocket.close()

        app = Starlette(routes=[Route("/w/{tenant_id}", public(page)), WebSocketRoute("/w/{tenant_id}", socket)])
        shield = Shield(app, settings=settings)
        assert AsgiDoor(app).request("GET", "/w/north").status == 200
        runtime = shield.protection._runtime
        assert runtime is not None
        assert all(key[0] == "GET" for key in runtime.known)
        from portalshield.asgi.fields import RawHeaders
        from portalshield.model.exchange import Exchange

        x = Exchange()
        x.websocket, x.path, x.headers = True, "/w/north", RawHeaders()
        x.headers.raw = []
        x.native = {"type": "websocket", "path": "/w/north", "root_path": "", "headers": []}
        runtime.begin(x, 0, 0, False)
        assert x.endpoint is socket


class TestConfirmation:
    """The endpoint that really runs must be the one whose policy was applied."""

    @pytest.mark.parametrize("door", ["asgi", "wsgi"])
    def test_a_middleware_that_rewrites_the_path(self, settings: Settings, door: str) -> None:
        """A public path that becomes a protected one inside the application: refused, its handler never runs."""
        found, calls = _rewriting_asgi(settings) if door == "asgi" else _rewriting_wsgi(settings)
        answer = found.request("GET", "/open")
        assert (answer.status, calls) == (500, [])
        assert b"SECRET" not in answer.body

    def test_routes_that_change_places(self, settings: Settings) -> None:
        """Same number, same end, same parameters, another handler: the comparison of endpoints notices."""
        calls: list[str] = []

        async def page(request: Any) -> PlainTextResponse:
            return PlainTextResponse("page")

        async def secret(request: Any) -> PlainTextResponse:
            calls.append("secret")
            return PlainTextResponse("SECRET")

        app = Starlette(routes=[Route("/{name}", public(page)), Route("/{name}", secret), Route("/a/b", page)])
        Shield(app, settings=settings)
        door = AsgiDoor(app)
        assert door.request("GET", "/x").body == b"page"
        routes = app.router.routes
        routes[:2] = routes[1], routes[0]
        assert door.request("GET", "/x").status == 500
        routes.reverse()
        assert door.request("GET", "/x").body == b"page"
        routes.reverse()
        assert door.request("GET", "/x").status == 401
        assert calls == []

    def test_what_was_refused_is_not_tried_again(self) -> None:
        """After a refusal inside, a second try at the right path runs nothing either; without an inner door too."""
        settings = Settings.from_env(environment(MODE__RESPONSE_GUARD="off"))
        calls: list[str] = []
        app = FastAPI()

        @app.get("/open")
        @public
        async def page() -> str:
            calls.append("open")
            return "page"

        @app.get("/secret")
        async def secret() -> str:
            calls.append("secret")
            return "SECRET"

        class Twice:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                await self.app({**scope, "path": "/secret"}, receive, send)
                await self.app(scope, receive, send)

        app.add_middleware(Twice)
        Shield(app, settings=settings)
        assert AsgiDoor(app).request("GET", "/open").status == 500
        assert calls == []


def _rewriting_asgi(settings: Settings) -> tuple[Any, list[str]]:
    app, calls = FastAPI(), []

    @app.get("/open")
    @public
    async def page() -> str:
        return "page"

    @app.get("/secret")
    async def secret() -> str:
        calls.append("secret")
        return "SECRET"

    class Rewrite:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "path": "/secret"}, receive, send)

    app.add_middleware(Rewrite)
    Shield(app, settings=settings)
    return AsgiDoor(app), calls


def _rewriting_wsgi(settings: Settings) -> tuple[Any, list[str]]:
    app, calls = Flask(__name__), []

    @app.get("/open")
    @public
    def page() -> str:
        return "page"

    @app.get("/secret")
    def secret() -> str:
        calls.append("secret")
        return "SECRET"

    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner({**environ, "PATH_INFO": "/secret"}, start)  # type: ignore[method-assign]
    Shield(app, settings=settings)
    return WsgiDoor(app), calls
