"""A path that a client divides by itself opens nothing: patterns judge what the application routes on."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from doors import WsgiDoor

from portalshield import Policy, Settings, Shield
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
@pytest.mark.parametrize("script", ["/public", "/public/x", "/tenants/north", "/x"])
def test_user_of_a_cannot_reach_b_by_a_script_name(script: str, token: bool) -> None:
    """gunicorn believes a `SCRIPT_NAME` field of a local client."""
    status, calls = ask(script, "/tenants/south/clients", token=token)
    assert status == (404 if token else 401)
    assert calls == []


def test_a_mounted_application_is_judged_by_its_own_paths() -> None:
    """Whoever mounts it elsewhere need not write its policies anew."""
    assert ask("/portal", "/tenants/north/clients", token=True) == (200, ["north"])
    assert ask("/portal", "/public/page", token=False)[0] == 200
