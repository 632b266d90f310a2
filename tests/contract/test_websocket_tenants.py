"""A WebSocket handshake walks the same flow: a foreign tenant is refused before the socket is accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket

from portalshield import Settings, Shield, current_tenant
from portalshield.testing import environment, mint_token


async def _handshake(app: Any, path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> list[str]:
    sent: list[str] = []
    waiting = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"portal.example.com"), *headers],
        "client": ("203.0.113.7", 5000),
        "server": ("testserver", 80),
        "subprotocols": [],
        "state": {},
    }
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "query", "extra", "accepted"),
    [
        pytest.param("/ws/north", b"", [], True, id="own tenant"),
        pytest.param("/ws/south", b"", [], False, id="foreign in the path"),
        pytest.param("/ws/north", b"tenant_id=south", [], False, id="foreign in the query"),
        pytest.param("/ws/north", b"tenant_id=north&tenant_id=south", [], False, id="foreign second in the query"),
        pytest.param("/ws/north", b"", [(b"x-tenant-id", b"south")], False, id="foreign in a header"),
    ],
)
def test_a_foreign_tenant_is_refused_before_the_handshake(
    path: str, query: bytes, extra: list[tuple[bytes, bytes]], accepted: bool
) -> None:
    """The handler of a foreign tenant's socket never runs; without a token nobody's does."""
    app, calls = FastAPI(), []

    @app.websocket("/ws/{tenant_id}")
    async def socket(websocket: WebSocket, tenant_id: str) -> None:
        calls.append((tenant_id, current_tenant()))
        await websocket.accept()

    settings = Settings.from_env(environment())
    Shield(app, settings=settings)
    bearer = [(b"authorization", f"Bearer {mint_token(settings, tenant='north')}".encode())]
    sent = asyncio.run(_handshake(app, path, query, [*bearer, *extra]))
    assert ("websocket.accept" in sent) is accepted
    assert calls == ([("north", "north")] if accepted else [])
    assert "websocket.accept" not in asyncio.run(_handshake(app, path, query, extra))


def test_a_thread_without_context_fails_closed() -> None:
    """`run_in_executor` does not carry the context: there is no tenant there, not somebody's."""
    app, found = FastAPI(), []

    @app.get("/work")
    async def work() -> dict[str, str]:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, current_tenant)
        except LookupError:
            found.append("refused")
        return {"tenant": current_tenant()}

    settings = Settings.from_env(environment())
    Shield(app, settings=settings)
    from doors import AsgiDoor

    headers = [("authorization", f"Bearer {mint_token(settings, tenant='north')}")]
    assert AsgiDoor(app).request("GET", "/work", headers).json == {"tenant": "north"}
    assert found == ["refused"]


def test_key_sets_tell_readiness() -> None:
    """Age, failures and unknown kids of every fetched key set; none where keys are configured."""
    settings = Settings.from_env(
        {
            "PORTALSHIELD_ENV": "development",
            "PORTALSHIELD_AUTH": "jwt",
            "PORTALSHIELD_AUTH__JWKS_URL": "http://127.0.0.1:9/jwks.json",
            "PORTALSHIELD_AUTH__ISSUER": "https://auth.example.test",
            "PORTALSHIELD_AUTH__AUDIENCE": "portal",
        }
    )
    (state,) = Shield(FastAPI(), settings=settings).key_sets().values()
    assert state == {"ready": False, "age_s": None, "generation": -1, "failures": 0, "unknown_kids": 0}
    assert Shield(FastAPI(), settings=Settings.from_env(environment())).key_sets() == {}
