"""A small application for the command line's tests: one with a shield, and a factory of one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from portalshield import Shield, public

app = FastAPI()


@app.get("/tenants/{tenant_id}/clients")
def clients(tenant_id: str) -> dict[str, str]:
    """Strict default."""
    return {"tenant": tenant_id}


@app.post("/auth/login")
@public
def login() -> dict[str, str]:
    """Public, without a limit: a finding."""
    return {}


@app.websocket("/live")
async def live(socket: WebSocket) -> None:
    """A handshake is a GET, whatever else it could be."""


class Things(HTTPEndpoint):
    """Takes every method; one of them has a policy of its own."""

    @public
    async def get(self, request: Request) -> Response:
        """Everybody may read."""
        return Response()


app.router.routes.append(Route("/things", Things))
app.add_api_route("/both", login, methods=["GET", "POST"])
app.mount("/files", StaticFiles(directory=Path(__file__).parent))


@public
def forgotten() -> None:
    """Decorated, but no route serves it: a finding."""


def create_app() -> Any:
    """A factory."""
    made = FastAPI()
    made.add_api_route("/made", clients)
    return made


Shield(app)
