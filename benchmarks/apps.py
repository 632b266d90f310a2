"""The applications that are measured: the same two routes, bare, behind CORS only, and behind the whole shield."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, FastAPI
from flask import Flask
from flask import request as flask_request
from flask_cors import CORS
from pydantic import BaseModel, Field
from starlette.middleware.cors import CORSMiddleware

from portalshield import Policy, Settings, Shield
from portalshield.bench.driver import Request, browser_request
from portalshield.bench.measure import Variant
from portalshield.bench.stacks import NullLines, Stacks, call
from portalshield.fastapi import payload
from portalshield.testing.tokens import environment, mint_token

ORIGIN = "https://app.example.com"
TENANT = "acme"
ORIGINS = f"{ORIGIN},https://admin.example.com,https://*.preview.example.com"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
ENVIRONMENT = environment(
    ENV="production",
    CORS__ALLOW_ORIGINS=ORIGINS,
    CORS__ALLOW_CREDENTIALS="true",
    HOSTS="api.example.com",
    RATE__PER_IP="100000000/minute",
    RATE__DEFAULT="100000000/minute",
    LOG__PSEUDONYM_KEY="the benchmark's own key of the pseudonyms",
)
"""Every layer on. The quotas are out of reach: what is measured is counting, not refusing."""

_PROSE = (
    "Called on Tuesday about the renewal; wants the annual plan, invoices by the 5th, and a second seat for Charles. "
    "Prefers mail over phone. The old contract ends in March, so send the offer before the holidays. "
)


class Client(BaseModel):
    """What the application itself validates, shielded or not."""

    tenant_id: str = Field(max_length=40)
    name: str = Field(max_length=200)
    email: str = Field(max_length=200)
    active: bool
    tags: list[str]
    notes: str = Field(max_length=2000)
    contacts: list[dict[str, str]]


def body_of(size: int) -> bytes:
    """A client as JSON of exactly `size` bytes, its tenant among the fields."""
    document: dict[str, Any] = {
        "tenant_id": TENANT,
        "name": "Ada Lovelace",
        "email": "ada@example.com",
        "active": True,
        "tags": ["gold", "newsletter", "eu"],
        "notes": "",
        "contacts": [{"kind": "phone", "value": "+44 20 7946 0000"}, {"kind": "mail", "value": "a@example.com"}],
    }
    missing = size - len(orjson.dumps(document))
    # Prose, not one letter again and again: searches for a name stumble over those.
    document["notes"] = (_PROSE * (missing // len(_PROSE) + 1))[:missing]
    return orjson.dumps(document)


BODY = body_of(1024)


def settings(**overrides: str) -> Settings:
    """The benchmark's settings; keywords are names without the prefix."""
    return Settings.from_env({**ENVIRONMENT, **{f"PORTALSHIELD_{name}": value for name, value in overrides.items()}})


def token() -> str:
    """A bearer token of about 400 bytes, as identity providers make them."""
    return mint_token(
        settings(),
        tenant=TENANT,
        subject="user_2b7e151628aed2a6",
        roles=["member"],
        email="ada@example.com",
        email_verified=True,
        sid="5f0c7c0e-1c6a-4f0a-9f57-8f1f3a1d2b3c",
    )


def get_request() -> Request:
    """`GET` with one id of the tenant's and one path parameter."""
    return browser_request("GET", f"/tenants/{TENANT}/clients/42", token=token(), origin=ORIGIN)


def post_request(body: bytes = BODY, path: str = "clients") -> Request:
    """`POST` of 1 KB of JSON."""
    return browser_request("POST", f"/tenants/{TENANT}/{path}", token=token(), origin=ORIGIN, body=body)


def fastapi_app() -> FastAPI:
    """The FastAPI application, bare."""
    app = FastAPI()

    @app.get("/tenants/{tenant_id}/clients/{client_id}")
    async def read(tenant_id: str, client_id: str) -> dict[str, str]:
        return {"tenant_id": tenant_id, "id": client_id, "name": "Ada Lovelace"}

    @app.post("/tenants/{tenant_id}/clients")
    async def create(tenant_id: str, client: Client) -> dict[str, str]:
        return {"tenant_id": tenant_id, "name": client.name}

    return app


def portal_app(routers: int = 10) -> FastAPI:
    """A portal of 60 routes in 10 routers, as they are written; the measured route comes last."""
    app = FastAPI()
    for number in range(routers):
        router = APIRouter(prefix=f"/tenants/{{tenant_id}}/things{number}")
        for kind in ("lists", "files", "notes"):

            @router.get(f"/{kind}")
            async def listed(tenant_id: str) -> dict[str, str]:
                return {"tenant_id": tenant_id}

            @router.get(f"/{kind}/{{item_id}}")
            async def read(tenant_id: str, item_id: str) -> dict[str, str]:
                return {"tenant_id": tenant_id, "id": item_id}

        app.include_router(router)
    app.include_router(fastapi_app().router)
    return app


def handed_over_app() -> FastAPI:
    """The same, taking the object that the shield validated instead of parsing the body again."""
    app = FastAPI()

    @app.post("/tenants/{tenant_id}/clients")
    async def create(tenant_id: str, client: Annotated[Client, Depends(payload)]) -> dict[str, str]:
        return {"tenant_id": tenant_id, "name": client.name}

    return app


def flask_app() -> Flask:
    """The Flask application, bare."""
    app = Flask("benchmark")

    @app.get("/tenants/<tenant_id>/clients/<client_id>")
    def read(tenant_id: str, client_id: str) -> Mapping[str, str]:
        return {"tenant_id": tenant_id, "id": client_id, "name": "Ada Lovelace"}

    @app.post("/tenants/<tenant_id>/clients")
    def create(tenant_id: str) -> Mapping[str, str]:
        client = Client.model_validate(flask_request.get_json())
        return {"tenant_id": tenant_id, "name": client.name}

    return app


def with_cors(app: Any) -> Any:
    """The same application behind its framework's usual CORS extension and nothing else."""
    origins = [ORIGIN, "https://admin.example.com"]
    if isinstance(app, Flask):
        CORS(app, origins=origins, methods=METHODS, supports_credentials=True)
    else:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=METHODS, allow_credentials=True)
    return app


@dataclass(frozen=True, slots=True)
class Bench:
    """The loop that all ASGI variants share, and where their lines go."""

    runner: asyncio.Runner
    lines: NullLines

    def plain(self, name: str, app: Any, request: Request) -> Variant:
        """An application as it stands; it must let the request through."""
        subject = call(app, request, self.runner)
        status = subject.answer().status
        if not 200 <= status < 300:
            raise RuntimeError(f"{name} answers {status}")
        return Variant(name, subject.batch)

    def shielded(
        self,
        name: str,
        app: Any,
        request: Request,
        policies: tuple[Policy, ...] = (),
        *,
        expect: int = 200,
        **overrides: str,
    ) -> Variant:
        """An application that gets its shield here; keywords are settings. A refusal is measured with spent quotas."""
        stacks = Stacks(app, Shield(app, settings=settings(**overrides), policies=policies), self.runner, self.lines)
        variant = stacks.shielded(name, request, refill=expect == 200)
        status = stacks.answers[name].status
        if status != expect:
            raise RuntimeError(f"{name} answers {status}, not {expect}")
        return variant
