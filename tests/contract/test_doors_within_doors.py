"""An application within another one: whoever knows its routes judges it, and nobody else does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import FastAPI, WebSocket
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import portalshield.asgi
import portalshield.wsgi
from portalshield import ConfigurationError, Policy, Settings, Shield, protect, public
from portalshield.context import MARK
from portalshield.routes import PatternTable
from portalshield.starlette import tabulate
from portalshield.testing import environment, mint_token

ENVIRONMENT = environment()
SETTINGS = Settings.from_env(ENVIRONMENT)
OURS = [Policy("GET /t/{tenant_id}"), Policy("GET /admin", roles=["admin"])]
WRITTEN = """
[[route]]
match = "GET /t/{tenant_id}"
[[route]]
match = "GET /admin"
roles = ["admin"]
"""
TENANTS = [("north", 200), ("south", 404)]
Headers = list[tuple[str, str]]


def bearer(**claims: Any) -> Headers:
    """A user of north."""
    return [("authorization", f"Bearer {mint_token(SETTINGS, tenant='north', **claims)}")]


def fastapi_app(calls: list[str], name: str = "") -> FastAPI:
    """Rows of tenants, and something for admins."""
    app = FastAPI()

    @app.get("/t/{tenant_id}")
    async def rows(tenant_id: str) -> str:
        calls.append(tenant_id)
        return tenant_id

    @app.get("/admin")
    @protect(roles=["admin"])
    async def admin() -> str:
        calls.append("admin")
        return "admin"

    return app


def flask_app(calls: list[str], name: str) -> flask.Flask:
    """The same."""
    app = flask.Flask(name)

    @app.get("/t/<tenant_id>")
    def rows(tenant_id: str) -> str:
        calls.append(tenant_id)
        return tenant_id

    @app.get("/admin")
    @protect(roles=["admin"])
    def admin() -> str:
        calls.append("admin")
        return "admin"

    return app


def within(make: Any, middleware: Any, calls: list[str], kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Two applications, and the second one with a shield of its own: on the application, around it, or around it with
    what the environment says."""
    outer, inner = make(calls, "outer"), make(calls, "inner")
    if kind == "Shield":
        Shield(inner, settings=SETTINGS)
    elif kind == "ShieldMiddleware":
        inner = middleware(inner, Shield(settings=SETTINGS, policies=OURS))
    else:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        inner = middleware(inner)
    return outer, inner


def dispatched(*given: Any) -> AsgiDoor:
    """A shielded FastAPI application whose middleware hands `/b` to another one that has a shield of its own."""
    outer, inner = within(fastapi_app, portalshield.asgi.ShieldMiddleware, *given)

    @outer.get("/{page:path}")
    @public
    async def front_end(page: str) -> str:
        return page

    class Dispatch:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"].startswith("/b/"):
                moved = {**scope, "path": scope["path"][2:], "raw_path": scope["raw_path"][2:]}
                await inner(moved, receive, send)
            else:
                await self.app(scope, receive, send)

    outer.add_middleware(Dispatch)
    Shield(outer, settings=SETTINGS)
    return AsgiDoor(outer)


def mounted(*given: Any) -> AsgiDoor:
    """The other one is mounted."""
    outer, inner = within(fastapi_app, portalshield.asgi.ShieldMiddleware, *given)
    outer.mount("/b", inner)
    Shield(outer, settings=SETTINGS)
    return AsgiDoor(outer)


def beside(*given: Any) -> WsgiDoor:
    """The same for Flask, within the first one's door."""
    outer, inner = within(flask_app, portalshield.wsgi.ShieldMiddleware, *given)

    @outer.get("/<path:page>")
    @public
    def front_end(page: str) -> str:
        return page

    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/b": inner})
    Shield(outer, settings=SETTINGS)
    return WsgiDoor(outer)


@pytest.mark.parametrize("kind", ["Shield", "ShieldMiddleware", "environment"])
@pytest.mark.parametrize("make", [dispatched, mounted, beside])
def test_user_of_a_cannot_reach_b_through_an_application_in_another(
    make: Any, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each request is judged by whoever knows the routes, whatever the outer one serves everywhere; honest ones are
    answered, again and again."""
    calls: list[str] = []
    (tmp_path / "policies.toml").write_text(WRITTEN, encoding="utf-8")
    monkeypatch.setenv("PORTALSHIELD_POLICY_FILE", str(tmp_path / "policies.toml"))
    door = make(calls, kind, monkeypatch)
    for _ in range(2):
        for path in ("/t", "/b/t"):
            for tenant, status in TENANTS:
                assert door.request("GET", f"{path}/{tenant}", bearer()).status == status, path
            assert door.request("GET", f"{path}/north").status in (401, 404)
        for path in ("/admin", "/b/admin"):
            assert door.request("GET", path, bearer()).status == 403
            assert door.request("GET", path, bearer(roles=["admin"])).status == 200
    assert set(calls) == {"north", "admin"}


EVERYTHING = [Policy("* /*", public=True)]


def _wrapped_publicly(policies: list[Policy]) -> AsgiDoor:
    inner = portalshield.asgi.ShieldMiddleware(
        Starlette(routes=[Mount("/b", fastapi_app([]))]), Shield(settings=SETTINGS, policies=policies)
    )
    return AsgiDoor(portalshield.asgi.ShieldMiddleware(inner, Shield(settings=SETTINGS, policies=EVERYTHING)))


def _wsgi_wrapped_publicly(policies: list[Policy]) -> WsgiDoor:
    app = DispatcherMiddleware(flask.Flask("none"), {"/b": flask_app([], "inner")})
    inner = portalshield.wsgi.ShieldMiddleware(app, Shield(settings=SETTINGS, policies=policies))
    return WsgiDoor(portalshield.wsgi.ShieldMiddleware(inner, Shield(settings=SETTINGS, policies=EVERYTHING)))


@pytest.mark.parametrize("make", [_wrapped_publicly, _wsgi_wrapped_publicly])
def test_policies_inside_hold_where_the_outer_ones_let_everybody_in(make: Any) -> None:
    """Two doors of patterns: the inner one was told more."""
    door = make([Policy("* /b/t/{tenant_id}"), Policy("* /b/*")])
    for _ in range(2):
        assert door.request("GET", "/b/t/north", bearer()).status == 200
        assert door.request("GET", "/b/t/south", bearer()).status == 404
        assert door.request("GET", "/b/t/south").status == 401


def test_a_strict_shield_at_a_public_mount_asks_for_a_token() -> None:
    """It was told nothing, which is more than that everybody may come in."""
    calls: list[str] = []
    outer = FastAPI()
    outer.mount("/b", portalshield.asgi.ShieldMiddleware(fastapi_app(calls), Shield(settings=SETTINGS)))
    Shield(outer, settings=SETTINGS, policies=EVERYTHING)
    door = AsgiDoor(outer)
    assert door.request("GET", "/b/t/south").status == 404
    assert door.request("GET", "/b/t/north", bearer()).status == 200
    assert calls == ["north"]


@pytest.mark.parametrize("make", [dispatched, beside])
def test_the_outer_request_keeps_its_mark(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever handed a request to another application goes on with his own."""
    seen: list[tuple[Any, Any]] = []
    door = make([], "ShieldMiddleware", monkeypatch)
    if isinstance(door, WsgiDoor):
        handing = door.app.wsgi_app.app

        def watched(environ: Any, start: Any) -> Any:
            before = environ[MARK]
            blocks = handing(environ, start)
            yield from blocks
            getattr(blocks, "close", tuple)()
            seen.append((before, environ.get(MARK)))

        door.app.wsgi_app.app = watched
    else:
        assert door.request("GET", "/t/north", bearer()).status == 200  # the stack is built
        stack = door.app.middleware_stack
        inner = stack.app

        async def looking(scope: Any, receive: Any, send: Any) -> None:
            before = scope[MARK]
            await inner(scope, receive, send)
            seen.append((before, scope.get(MARK)))

        stack.app = looking
    assert door.request("GET", "/b/t/north", bearer()).status == 200
    assert [before is after for before, after in seen] == [True]


def _fastapi_twice() -> AsgiDoor:
    app = fastapi_app([])
    app.add_middleware(portalshield.asgi.ShieldMiddleware)
    Shield(app)
    return AsgiDoor(app)


def _flask_twice() -> WsgiDoor:
    app = flask_app([], "twice")
    app.wsgi_app = portalshield.wsgi.ShieldMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    Shield(app)
    return WsgiDoor(app)


@pytest.mark.parametrize("make", [_fastapi_twice, _flask_twice])
def test_a_door_that_reads_the_environment_steps_aside(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds the middleware to an application that has a shield already is judged once: one budget."""
    for name, value in environment(RATE__PER_IP="3/minute").items():
        monkeypatch.setenv(name, value)
    door = make()
    asked: list[Any] = []
    monkeypatch.setattr(PatternTable, "find", lambda *given: asked.append(given))
    token = mint_token(Settings.from_env(), tenant="north")
    headers = [("authorization", f"Bearer {token}")]
    assert [door.request("GET", "/t/north", headers).status for _ in range(4)] == [200, 200, 200, 429]
    assert asked == []


def test_websockets_of_another_application_are_judged_there() -> None:
    """The handshake, by its own shield."""
    inner, calls = FastAPI(), []

    @inner.websocket("/ws/{tenant_id}")
    async def talk(websocket: WebSocket, tenant_id: str) -> None:
        calls.append(tenant_id)
        await websocket.accept()
        await websocket.close()

    Shield(inner, settings=SETTINGS)

    class Everything:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await (inner if scope["type"] == "websocket" else self.app)(scope, receive, send)

    outer = fastapi_app([])
    outer.add_middleware(Everything)
    Shield(outer, settings=SETTINGS)
    assert shake(outer, "/ws/north") == ["websocket.accept", "websocket.close"]
    assert shake(outer, "/ws/south") == ["websocket.close"]
    assert calls == ["north"]


def shake(app: Any, path: str) -> list[str]:
    """What a handshake by a user of north brings."""
    sent: list[str] = []
    scope = AsgiDoor(app)._scope("GET", path, [("host", "portal.example.com"), *bearer()], "203.0.113.7", False)
    del scope["method"]

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app({**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}, receive, send))
    return sent


# -- methods ----------------------------------------------------------------------------------------------------------


def method_override(app: Any) -> Any:
    """A middleware that many have: a form says what it cannot send."""
    inner = app.wsgi_app

    def overriding(environ: Any, start: Any) -> Any:
        method = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", environ["REQUEST_METHOD"])
        return inner({**environ, "REQUEST_METHOD": method}, start)

    app.wsgi_app = overriding
    return app


def flask_by_method(calls: list[str]) -> WsgiDoor:
    """One view, two methods, two policies."""

    class Invoice(MethodView):
        def get(self) -> str:
            calls.append("get")
            return "got"

        def delete(self) -> str:
            calls.append("delete")
            return "deleted"

    app = method_override(flask.Flask(__name__))
    app.add_url_rule("/invoice", view_func=Invoice.as_view("invoice"))
    policies = [Policy("GET /invoice", public=True), Policy("DELETE /invoice", roles=["admin"])]
    Shield(app, settings=SETTINGS, policies=policies)
    return WsgiDoor(app)


class Overriding:
    """The same for ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Another method, where a field says so."""
        found = dict(scope.get("headers", ())).get(b"x-http-method-override")
        if found is not None:
            scope["method"] = found.decode()
        await self.app(scope, receive, send)


def starlette_by_method(calls: list[str]) -> AsgiDoor:
    """One endpoint, two methods, two policies."""

    class Invoice(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            calls.append("get")
            return PlainTextResponse("got")

        async def delete(self, request: Request) -> Response:
            calls.append("delete")
            return PlainTextResponse("deleted")

    app = Starlette(routes=[Route("/invoice", Invoice)])
    app.add_middleware(Overriding)
    policies = [Policy("GET /invoice", public=True), Policy("DELETE /invoice", roles=["admin"])]
    Shield(app, settings=SETTINGS, policies=policies)
    return AsgiDoor(app)


@pytest.mark.parametrize("make", [flask_by_method, starlette_by_method])
def test_a_method_that_is_overridden_gets_nowhere(make: Any) -> None:
    """The policy of the method that was judged is not that of the one that would run."""
    calls: list[str] = []
    door = make(calls)
    assert door.request("GET", "/invoice").body == b"got"
    assert door.request("DELETE", "/invoice", bearer()).status == 403
    assert door.request("GET", "/invoice", [("x-http-method-override", "DELETE")]).status == 500
    assert door.request("GET", "/invoice", [("x-http-method-override", "DELETE"), *bearer()]).status == 500
    assert calls == ["get"]


@pytest.mark.parametrize("make", [flask_by_method, starlette_by_method])
def test_a_head_that_is_made_a_get_is_answered(make: Any) -> None:
    """Some middleware does that, and the policy is the same."""
    calls: list[str] = []
    assert make(calls).request("HEAD", "/invoice", [("x-http-method-override", "GET")]).status == 200


def test_policies_of_a_mounted_application_stop_the_start() -> None:
    """They would be lost: the outer shield's table decides, and knows nothing of them."""

    @public
    async def page(request: Request) -> Response:
        return PlainTextResponse("page")

    inner = Starlette(routes=[Route("/all", page, methods=["DELETE"])])
    Shield(inner, settings=SETTINGS, policies=[Policy("DELETE /all", roles=["admin"])])
    app = Starlette(routes=[Mount("/billing", inner)])
    shield = Shield(app, settings=SETTINGS)
    with pytest.raises(ConfigurationError) as refused:
        shield.protection.open(lambda b, rows: tabulate(app, b, rows), has_inner=False)
    assert [problem.id for problem in refused.value.problems] == ["PS-ROUTE-003"]
