"""The route that runs is the one that was judged: routers are led there, routes confirm, and a self-test proves it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router

from portalshield.asgi.messages import Receive, Scope, Send
from portalshield.context import CURRENT, INSTALLED, MARK
from portalshield.model.exchange import Exchange
from portalshield.model.setting import ConfigurationProblem
from portalshield.routes import same_method
from portalshield.runtime import UNCONFIRMED
from portalshield.starlette.listing import FRAMEWORKS, Handle, Listed

if TYPE_CHECKING:
    from portalshield.starlette.table import StarletteTable


class Probe(Exchange):
    """An exchange of the start-up self-test: it confirms and goes no further."""


def confirm(target: BaseRoute) -> None:
    """Make a route's `handle` compare what really matched with what the policy was applied to; once per route."""
    if getattr(target.handle, INSTALLED, False):
        return
    handle: Handle = target.handle

    def confirming(scope: Scope, receive: Receive, send: Send) -> Any:
        # A middleware that builds a new scope loses the mark; the context has it still.
        x = scope.get(MARK) or CURRENT.get()
        if x is None:
            return handle(scope, receive, send)
        if (
            x.late is not None
            or x.walk is not None
            or x.endpoint is not scope.get("endpoint")
            or not same_method(x.method, scope.get("method", x.method))
            or x.arguments != scope.get("path_params")
        ):
            x.late = x.late or UNCONFIRMED
            return _nothing()
        x.confirmed = True
        return handle(scope, receive, send) if type(x) is not Probe else _nothing()

    setattr(confirming, INSTALLED, True)
    target.handle = confirming  # type: ignore[method-assign]


async def _nothing() -> None:
    """In place of a handler that must not run."""


def reach(router: Router) -> None:
    """Make a router tell that a request arrived, and ask no other route than the one that the table found."""
    if getattr(router.middleware_stack, INSTALLED, False):
        return
    stack = router.middleware_stack
    key = id(router)
    # Middleware of its own, or an `app` of its own, may choose otherwise.
    leads = stack == router.app and type(router).app.__module__ in FRAMEWORKS

    def reaching(scope: Scope, receive: Receive, send: Send) -> Any:
        x = scope.get(MARK)
        if x is None:
            x = CURRENT.get()  # a new scope, perhaps not for the same application
            if x is not None:
                x.reached = True
            return stack(scope, receive, send)
        x.reached = True
        way, routes = x.ways.get(key), router.routes
        # A route may have been replaced since the table was made.
        if way is None or not leads or way.at >= len(routes) or routes[way.at] is not way.route:
            return stack(scope, receive, send)
        if "router" not in scope:
            scope["router"] = router
        return way.app(scope, receive, send)

    setattr(reaching, INSTALLED, True)
    router.middleware_stack = reaching


class WatchedScope(dict[str, Any]):
    """The scope of a request that no known route serves: refuses when a router chooses an endpoint all the same."""

    def __init__(self, scope: Mapping[str, Any], x: Exchange, mounts: set[int]) -> None:
        super().__init__(scope)
        self._x = x
        self._mounts = mounts

    def update(self, *args: Any, **kwargs: Any) -> None:
        """A router writes what it chose."""
        chosen = dict(*args, **kwargs)
        endpoint = chosen.get("endpoint")
        if endpoint is not None and id(endpoint) not in self._mounts:
            self._x.late = UNCONFIRMED
            raise LookupError("a route that the table does not know")
        super().update(chosen)


def unproven(table: StarletteTable, app: Starlette) -> Iterator[ConfigurationProblem]:
    """The start-up self-test: sends a probe through the application's router for each route; it must confirm.

    Only routing runs, no middleware and no handler. Routes behind a mounted application with middleware of its own
    are left out: their `handle` is wrapped all the same. Where the way that requests are led does not get there, nobody
    is led: that is no reason to stop.
    """
    for entry in table.entries:
        route = entry.listed.route
        path = _sample(entry.listed)
        if entry.boundary or path is None:
            continue
        method = min(route.methods) if route.methods else "GET"
        probe = Probe()
        probe.websocket = route.kind == "websocket"
        probe.method, probe.path = method, path
        scope: Scope = {
            "type": "websocket" if probe.websocket else "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "app": app,
            MARK: probe,
        }
        probe.native = scope
        table.find(probe)
        if not probe.served:
            continue
        way = probe.ways.get(id(app.router))
        if way is not None and not _dispatch(way.app, probe, scope):
            table.leads = False
        if not _dispatch(app.router.app, probe, scope):
            yield ConfigurationProblem(
                "PS-WIRE-001",
                "routes",
                f"{route.template} does not confirm.",
                "Its router is not one that can be read.",
            )


def _dispatch(app: Handle, probe: Probe, scope: Scope) -> bool:
    """Run a router up to the probe's confirmation, without an event loop: routing never waits."""
    probe.confirmed = probe.reached = False
    probe.late = None
    coroutine = app(dict(scope), _never, _never)
    try:
        coroutine.send(None)
    except StopIteration:
        return probe.confirmed and probe.late is None
    except Exception:
        return (probe.confirmed or not probe.reached) and probe.late is None
    coroutine.close()
    return probe.late is None


async def _never(*_: Any) -> Any:
    raise RuntimeError("a probe neither receives nor sends")


_SAMPLES = ("a", "1", "1.5", "00000000-0000-4000-8000-000000000000", "2026-01-01", "a.b")


def _sample(listed: Listed) -> str | None:
    """A path that the route matches; None where a convertor is not one that we can guess for."""
    path = listed.route.template
    for name, convertor in listed.convertors.items():
        text = next((text for text in _SAMPLES if re.fullmatch(convertor.regex, text)), None)
        if text is None:
            return None
        path = path.replace("{" + name + "}", text)
    return path if listed.regex.match(path) else None
