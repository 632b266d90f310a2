"""A path that a client divides by itself opens nothing: patterns judge what the application routes on."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from portalshield import Policy, Settings, Shield
from portalshield.asgi import ShieldMiddleware as AsgiShieldMiddleware
from portalshield.testing import environment, mint_token
from portalshield.wsgi import ShieldMiddleware

POLICIES = [Policy("GET /public/*", public=True), Policy("* /tenants/{tenant_id}/*")]


def ask(script: str, rest: str, *, token: bool) -> tuple[int, list[str]]:
    """A request that the server divides like this, and the tenants that the handler was asked for."""
    calls: list[str] = []
    app = flask.Flask(__name__)

    @app.get("/tenants/<tenant_id>/clients")
    def clients(tenant_id: str) -> str:
        calls.append(tenant_id)
        return tenant_id

    @app.get("/public/<path:name>")
    def public_page(name: str) -> str:
        return name

    settings = Settings.from_env(environment())
    served = ShieldMiddleware(app, Shield(settings=settings, policies=POLICIES))

    def divided(environ: dict[str, Any], start: Any) -> Any:
        return served({**environ, "SCRIPT_NAME": script, "PATH_INFO": rest}, start)

    headers = [("authorization", f"Bearer {mint_token(settings, tenant='north')}")] if token else []
    return WsgiDoor(divided).request("GET", script + rest, headers).status, calls


@pytest.mark.parametrize("token", [False, True])
@pytest.mark.parametrize("script", ["/public", "/public/", "/public/x", "/public/x/", "/tenants/north", "/x", "/"])
def test_user_of_a_cannot_reach_b_by_a_script_name(script: str, token: bool) -> None:
    """gunicorn believes a `SCRIPT_NAME` field of a local client, and cuts the path where that ends."""
    rest = "tenants/south/clients"
    status, calls = ask(script, rest if script.endswith("/") else f"/{rest}", token=token)
    assert status == (404 if token else 401)
    assert calls == []


def test_a_mounted_application_is_judged_by_its_own_paths() -> None:
    """Whoever mounts it elsewhere need not write its policies anew."""
    assert ask("/portal", "/tenants/north/clients", token=True) == (200, ["north"])
    assert ask("/portal", "/public/page", token=False)[0] == 200


@pytest.mark.parametrize(
    ("root", "path", "status", "reached"),
    [
        pytest.param("/portal", "/portal/tenants/north/clients", 200, ["north"], id="own"),
        pytest.param("/portal", "/portal/tenants/south/clients", 404, [], id="foreign"),
        pytest.param("/public", "/public/tenants/south/clients", 404, [], id="foreign, below a public prefix"),
        pytest.param("/pub", "/public/page", 200, [], id="a root path that ends within a segment"),
    ],
)
def test_an_asgi_application_is_judged_by_what_it_routes_on(
    root: str, path: str, status: int, reached: list[str]
) -> None:
    """The same for a root path, which a server or a mount gives."""
    calls: list[str] = []

    async def clients(request: Request) -> PlainTextResponse:
        calls.append(request.path_params["tenant_id"])
        return PlainTextResponse("clients")

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("page")

    app = Starlette(routes=[Route("/tenants/{tenant_id}/clients", clients), Route("/public/{name:path}", page)])
    settings = Settings.from_env(environment())
    served = AsgiShieldMiddleware(app, Shield(settings=settings, policies=POLICIES))

    async def divided(scope: Any, receive: Any, send: Any) -> None:
        await served({**scope, "root_path": root}, receive, send)

    headers = [("authorization", f"Bearer {mint_token(settings, tenant='north')}")]
    assert AsgiDoor(divided).request("GET", path, headers).status == status
    assert calls == reached
