"""Puts the doors around an application, and confirms the view that runs."""

from __future__ import annotations

from typing import Any, cast

from flask import Flask, Request, Response, request
from werkzeug.exceptions import InternalServerError

from portalshield.context import CURRENT, INSTALLED, MARK, marked
from portalshield.flask.leading import lead
from portalshield.flask.parsed import JudgedJson
from portalshield.flask.table import tabulate
from portalshield.model.exchange import UNREAD, Exchange
from portalshield.protection import Protected
from portalshield.routes import same_method
from portalshield.runtime import CRASHED, UNCONFIRMED, Runtime
from portalshield.wsgi import WsgiDoor
from portalshield.wsgi.bodies import BodyRefusedError, admit_body
from portalshield.wsgi.walking import judge


def installed(app: Flask) -> Protected | None:
    """Whoever protects this application already."""
    return cast("Protected | None", app.extensions.get(INSTALLED))


def install(app: Flask, shield: Protected) -> None:
    """Put the doors around the application: the outer at `wsgi_app`, the inner as the first `before_request`."""
    app.extensions[INSTALLED] = shield
    protection = shield.protection
    inside = protection.asks_inside
    opened: list[Runtime] = []

    def open_runtime() -> Runtime:
        opened[:] = [
            protection.open(
                lambda b, rows: tabulate(app, b, rows),
                has_inner=inside,
                request_of=lambda environ: _request(),
            )
        ]
        return opened[0]

    door = WsgiDoor(app.wsgi_app, open_runtime, steps_aside=lambda outer: outer.table.lists(app.url_map))
    app.wsgi_app = door  # type: ignore[method-assign]
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: _enter(app, opened, inside=inside))
    lead(app)
    _replace_default_page(app)


def _enter(app: Flask, opened: list[Runtime], *, inside: bool) -> Response | None:
    """The inner door: finish a suspended walk, then confirm the rule; a verdict is left for the outer door to write."""
    at = _request()
    x = _exchange(at)
    if x is None:
        # Nobody asked the application who this is, and both witnesses are gone: no view runs.
        return Response(status=500) if inside and opened else None
    if x.late is None and x.walk is not None:
        suspended, x.walk = x.walk, None
        x.late = judge(x, opened[0], suspended, inside=True)
        if x.late is None:
            admit_body(x)
    if x.late is None and not _confirmed(x, at):
        x.late = UNCONFIRMED
    if x.late is not None:
        return Response(status=500)
    x.confirmed = True
    if x.json is not UNREAD and "_cached_json" not in vars(at):
        at._cached_json = JudgedJson(app, x, at)
    return None


def _request() -> Request:
    """The request itself: each look through Flask's proxy costs more than the whole comparison."""
    return cast(Request, cast(Any, request)._get_current_object())


def _exchange(at: Request) -> Exchange | None:
    """A WSGI middleware that builds a new environ loses the mark, one that answers from another thread the context."""
    found = at.environ.get(MARK)
    return found if isinstance(found, Exchange) else CURRENT.get()


def _confirmed(x: Exchange, at: Request) -> bool:
    if at.url_rule is not x.endpoint:
        # Flask found none: its own answer says why (a method, a host, `Upgrade: websocket`), and no view runs.
        return at.url_rule is None and (not x.served or at.routing_exception is not None)
    if not same_method(x.method, at.environ["REQUEST_METHOD"]):
        return False
    given = at.view_args
    # A url_value_preprocessor may take arguments away; what is there must be what was judged.
    return given == x.arguments or all(
        name in x.arguments and x.arguments[name] == value for name, value in (given or {}).items()
    )


def _replace_default_page(app: Flask) -> None:
    """An unhandled exception keeps the application's own handler's answer; Flask's own default page is replaced."""
    handle = app.handle_exception
    default = InternalServerError().get_body()

    def handling(*args: Any) -> Response:
        x = marked(request.environ)
        if x is not None and x.late is not None and isinstance(args[-1], BodyRefusedError):
            return Response(status=500)  # it stumbled over a refusal, which the door answers with: no crash to tell of
        if x is not None:
            x.crash = args[-1]
        response = handle(*args)
        if x is not None and response.status_code == 500 and response.get_data(as_text=True) == default:
            x.late = x.late or CRASHED
        return response

    app.handle_exception = handling  # type: ignore[method-assign, assignment]
