"""FastAPI: dependencies for handlers, and 422 answers that repeat nothing. `Depends(principal)` also puts the bearer
scheme into OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exception_handlers import (
    request_validation_exception_handler,
    websocket_request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.security import HTTPBearer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from portalshield.context import current_principal
from portalshield.context import payload as current_payload
from portalshield.model.principal import Principal
from portalshield.opening import looked_through

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="JWT")
_DECLARED = Depends(_bearer)

_QUOTING = frozenset(("union_tag_invalid", "uuid_parsing", "get_attribute_error", "iteration_error"))
"""Pydantic's own messages that repeat a piece of what was sent."""


async def principal(_declared: Any = _DECLARED) -> Principal:
    """The verified caller. `LookupError` on a public route without a credential."""
    return current_principal()


async def payload() -> Any:
    """The object that `body=Model` validated, instead of parsing the body again."""
    return current_payload()


# -- 422 --------------------------------------------------------------------------------------------------------------


def keep_input_out(app: Starlette) -> None:
    """FastAPI's own 422 answers lose `input`, `ctx` and `url`: of a missing field, the input is the whole body.

    `type`, `loc` and `msg` stay. Holds for this application and those mounted in it, from the first request on; an
    application's own handler of `RequestValidationError`, registered before or after, keeps its answers.
    """
    build = app.build_middleware_stack

    def building() -> Any:
        for each in _applications(app):
            _replace_handlers(each)
        return build()

    app.build_middleware_stack = building  # type: ignore[method-assign]


def _replace_handlers(app: FastAPI) -> None:
    ours: tuple[tuple[type[Exception], Any, Any], ...] = (
        (RequestValidationError, request_validation_exception_handler, _invalid),
        (WebSocketRequestValidationError, websocket_request_validation_exception_handler, _invalid_handshake),
    )
    for kind, default, handler in ours:
        if app.exception_handlers.get(kind) is default:
            app.exception_handlers[kind] = handler
            app.middleware_stack = None


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    rows = [{"type": row["type"], "loc": row["loc"], "msg": _message(row)} for row in error.errors()]
    return JSONResponse({"detail": jsonable_encoder(rows)}, status_code=422)


async def _invalid_handshake(websocket: WebSocket, error: WebSocketRequestValidationError) -> None:
    # FastAPI gives all errors as the reason, which is a short text (RFC 6455, 5.5.1).
    await websocket.close(code=1008)


def _message(row: Any) -> str:
    return "Input is not valid" if row["type"] in _QUOTING else row["msg"]


def _applications(app: Any) -> Iterator[FastAPI]:
    """The FastAPI applications in this one, itself included."""
    found = next((each for each in looked_through(app) if isinstance(each, Starlette)), None)
    if isinstance(found, FastAPI):
        yield found
    if found is not None:
        yield from _mounted(found.routes)


def _mounted(routes: Iterable[BaseRoute]) -> Iterator[FastAPI]:
    for route in routes:
        mounted = getattr(route, "app", None)
        # An included router, which FastAPI keeps as a node from 0.137 on.
        inner = getattr(getattr(route, "original_router", route), "routes", None)
        if mounted is not None and not hasattr(route, "endpoint"):
            yield from _applications(mounted)
        elif inner:
            yield from _mounted(inner)
