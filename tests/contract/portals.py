"""One small portal, twice: FastAPI and Flask, with the same paths. `calls` tells which handlers really ran."""

from __future__ import annotations

from typing import Any

import flask
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from flask import Blueprint, Flask
from pydantic import BaseModel

from portalshield import current_principal, current_tenant, limit, payload, protect, public


class NewInvoice(BaseModel):
    """The body of POST /invoices."""

    amount: int
    note: str = ""


def fastapi_portal() -> tuple[Any, list[str]]:
    """The portal on FastAPI: included, nested and mounted routers."""
    app = FastAPI()
    calls: list[str] = []
    inner = APIRouter()
    outer = APIRouter()

    async def echo(request: Request, name: str, **found: Any) -> dict[str, Any]:
        body = await request.body()
        calls.append(name)
        return {"handler": name, "tenant": current_tenant(), "body": body.decode("utf-8", "replace"), **found}

    @inner.api_route("/tenants/{tenant_id}/clients/{client_id}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def client(request: Request, tenant_id: str, client_id: str) -> dict[str, Any]:
        return await echo(request, "client", client=client_id)

    @outer.get("/numbers/{org_id:int}")
    async def number(request: Request, org_id: int) -> dict[str, Any]:
        return await echo(request, "number", org=org_id)

    @app.api_route("/search", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def search(request: Request) -> dict[str, Any]:
        return await echo(request, "search")

    @app.get("/public")
    @public
    async def open_page() -> dict[str, str]:
        calls.append("public")
        return {"handler": "public"}

    @app.post("/public")
    @public
    async def open_post(request: Request) -> dict[str, int]:
        calls.append("public-post")
        return {"size": len(await request.body())}

    @app.post("/invoices")
    @protect(body=NewInvoice)
    async def invoices() -> dict[str, Any]:
        calls.append("invoices")
        return {"amount": payload().amount}

    @protect(scopes=["invoices:read"])
    @app.get("/scoped")
    async def scoped() -> dict[str, str]:
        calls.append("scoped")
        return {"handler": "scoped"}

    @app.get("/owners")
    @protect(roles=["owner"])
    async def owners() -> dict[str, str]:
        calls.append("owners")
        return {"handler": "owners"}

    @app.get("/me")
    @protect(tenant=False)
    async def me() -> dict[str, Any]:
        calls.append("me")
        return {"subject": current_principal().subject, "tenant": current_principal().tenant}

    @app.get("/limited")
    @limit("3/minute")
    async def limited() -> dict[str, str]:
        calls.append("limited")
        return {"handler": "limited"}

    @app.get("/boom")
    @public
    async def boom() -> None:
        raise RuntimeError("secret-in-exception")

    @app.get("/page", response_class=HTMLResponse)
    @public
    async def page() -> str:
        return "<h1>hello</h1>"

    @app.get("/stream")
    @public
    async def stream() -> StreamingResponse:
        async def blocks() -> Any:
            yield b"one"
            yield b"two"

        return StreamingResponse(blocks(), media_type="text/plain")

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        calls.append("upload")
        return {"size": size}

    mounted = FastAPI()

    @mounted.get("/reports/{tenant_id}")
    async def report(request: Request, tenant_id: str) -> dict[str, Any]:
        return await echo(request, "report")

    outer.include_router(inner, prefix="/nested")
    app.include_router(inner)
    app.include_router(outer, prefix="/v1")
    app.mount("/sub", mounted)
    return app, calls


def flask_portal() -> tuple[Any, list[str]]:
    """The portal on Flask: blueprints, nested ones, the same paths."""
    request = flask.request
    app = Flask(__name__)
    calls: list[str] = []
    inner = Blueprint("inner", __name__)
    outer = Blueprint("outer", __name__)
    sub = Blueprint("sub", __name__)

    def echo(name: str, **found: Any) -> dict[str, Any]:
        body = request.get_data()
        calls.append(name)
        return {"handler": name, "tenant": current_tenant(), "body": body.decode("utf-8", "replace"), **found}

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]

    @inner.route("/tenants/<tenant_id>/clients/<client_id>", methods=methods)
    def client(tenant_id: str, client_id: str) -> dict[str, Any]:
        return echo("client", client=client_id)

    @outer.get("/numbers/<int:org_id>")
    def number(org_id: int) -> dict[str, Any]:
        return echo("number", org=org_id)

    @app.route("/search", methods=methods)
    def search() -> dict[str, Any]:
        return echo("search")

    @app.get("/public")
    @public
    def open_page() -> dict[str, str]:
        calls.append("public")
        return {"handler": "public"}

    @app.post("/public")
    @public
    def open_post() -> dict[str, int]:
        calls.append("public-post")
        return {"size": len(request.get_data())}

    @app.post("/invoices")
    @protect(body=NewInvoice)
    def invoices() -> dict[str, Any]:
        calls.append("invoices")
        return {"amount": payload().amount}

    @protect(scopes=["invoices:read"])
    @app.get("/scoped")
    def scoped() -> dict[str, str]:
        calls.append("scoped")
        return {"handler": "scoped"}

    @app.get("/owners")
    @protect(roles=["owner"])
    def owners() -> dict[str, str]:
        calls.append("owners")
        return {"handler": "owners"}

    @app.get("/me")
    @protect(tenant=False)
    def me() -> dict[str, Any]:
        calls.append("me")
        return {"subject": current_principal().subject, "tenant": current_principal().tenant}

    @app.get("/limited")
    @limit("3/minute")
    def limited() -> dict[str, str]:
        calls.append("limited")
        return {"handler": "limited"}

    @app.get("/boom")
    @public
    def boom() -> None:
        raise RuntimeError("secret-in-exception")

    @app.get("/page")
    @public
    def page() -> str:
        return "<h1>hello</h1>"

    @app.get("/stream")
    @public
    def stream() -> flask.Response:
        return flask.Response(iter([b"one", b"two"]), mimetype="text/plain")

    @app.post("/upload")
    def upload() -> dict[str, int]:
        size = 0
        while chunk := request.stream.read(65536):
            size += len(chunk)
        calls.append("upload")
        return {"size": size}

    @sub.get("/reports/<tenant_id>")
    def report(tenant_id: str) -> dict[str, Any]:
        return echo("report")

    outer.register_blueprint(inner, url_prefix="/nested", name="nested")
    app.register_blueprint(inner)
    app.register_blueprint(outer, url_prefix="/v1")
    app.register_blueprint(sub, url_prefix="/sub")
    return app, calls
