"""Puts the doors around an application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from portalshield.asgi import AsgiDoor, InnerDoor
from portalshield.context import INSTALLED, marked
from portalshield.protection import Protected
from portalshield.runtime import CRASHED, Runtime
from portalshield.starlette.table import tabulate


def installed(app: Starlette) -> Protected | None:
    """Whoever protects this application already."""
    return getattr(app.state, INSTALLED, None)


def install(app: Starlette, shield: Protected) -> None:
    """Put the doors around the application, outside its ServerErrorMiddleware, in place."""
    setattr(app.state, INSTALLED, shield)
    protection = shield.protection
    build_stack = app.build_middleware_stack
    inside = protection.asks_inside
    guarded = protection.guards_responses
    opened: list[Runtime] = []

    def open_runtime() -> Runtime:
        opened[:] = [protection.open(lambda b, rows: tabulate(app, b, rows), has_inner=inside)]
        return opened[0]

    def shielded_stack() -> Any:
        # Middleware may compress: answers are judged inside of it.
        enters = inside or (guarded and bool(app.user_middleware))
        with _prepared(app, enters, lambda: opened[0] if opened else None):
            return AsgiDoor(build_stack(), open_runtime, steps_aside=lambda outer: outer.table.lists(app.router))

    app.build_middleware_stack = shielded_stack  # type: ignore[method-assign]
    app.middleware_stack = None


class _prepared:  # noqa: N801 (reads as a statement)
    """While the stack is built: our entry innermost, and a safe answer to crashes if the application has none."""

    def __init__(self, app: Starlette, inside: bool, runtime: Callable[[], Runtime | None]) -> None:
        self._app = app
        self._entry = Middleware(InnerDoor, runtime=runtime) if inside else None
        self._debug = app.debug
        self._own = bool({500, Exception} & set(app.exception_handlers))

    def __enter__(self) -> None:
        if self._entry is not None:
            self._app.user_middleware.append(self._entry)
        if not self._own:
            # A debug page shows code and values; it would win over the handler.
            self._app.debug = False
            self._app.exception_handlers[Exception] = _crashed

    def __exit__(self, *exc_info: object) -> None:
        if self._entry is not None:
            self._app.user_middleware.remove(self._entry)
        if not self._own:
            self._app.debug = self._debug
            del self._app.exception_handlers[Exception]


def _crashed(request: Request, error: Exception) -> Response:
    x = marked(request.scope)
    if x is not None:
        x.late, x.crash = x.late or CRASHED, error
    return Response(status_code=500)
