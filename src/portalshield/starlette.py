"""Starlette and FastAPI: install the doors, list the routes, confirm the route that really ran.

The table decides with the framework's own patterns and precedence. Then the route confirms: the endpoint that really
matched and its parameters must be those the policy was applied to, or the answer is replaced by a refusal. FastAPI from
0.137 keeps included routers as nodes instead of flattening them, so routes are listed through `iter_route_contexts`
where it exists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Router, WebSocketRoute, compile_path
from starlette.routing import Route as StarletteRoute

from portalshield.asgi import AsgiDoor, InnerDoor
from portalshield.asgi.messages import Receive, Scope, Send
from portalshield.context import CURRENT, INSTALLED, MARK
from portalshield.flow import Plan
from portalshield.model.exchange import Exchange
from portalshield.model.policy import terms_of, terms_of_view
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.plan import Build, unserved_plans
from portalshield.policies import PolicyRow, compile_rows
from portalshield.protection import Protected
from portalshield.routes import Kind, Route, Row, SegmentIndex, tell
from portalshield.rules.patterns import PARAMETER, REST
from portalshield.runtime import CRASHED, UNCONFIRMED, Runtime, marked

_Handle = Callable[[Scope, Receive, Send], Any]
_WRAPPED = 16
"""Wrappers around a mounted application that are looked through."""
_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_][a-zA-Z0-9_]*))?\}")


# -- installation -----------------------------------------------------------------------------------------------------


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
            return AsgiDoor(build_stack(), open_runtime)

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


# -- listing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """A route with what its matching needs. `target` is the object whose `handle` runs, `ways` lead there."""

    route: Route
    target: BaseRoute
    regex: re.Pattern[str]
    convertors: Mapping[str, Any]
    ways: Mapping[int, _Way]
    """By the id of each router that a request passes."""


class _Way(NamedTuple):
    """One of a router's routes, and a router like it that has no other: it asks nobody else whether they match."""

    at: int
    route: BaseRoute
    app: _Handle


def _way(router: Router, at: int) -> dict[int, _Way]:
    """Nothing where the route matches by rules of its own: then others have to be asked."""
    route = router.routes[at]
    if type(route).matches.__module__ not in ("starlette.routing", "fastapi.routing"):
        return {}
    alone = copy(router)
    alone.routes = [route]
    return {id(router): _Way(at, route, alone.app)}


class Listing:
    """All routes of an application in its own order, mounted and included ones too."""

    def __init__(self, app: Starlette) -> None:
        self.listed: list[Listed] = []
        self.routers: list[Router] = []
        self.mounts: set[int] = set()
        self.unread: list[str] = []
        self._documentation = _documentation_paths(app)
        self._add_router(app.router, "", {})

    def shape(self) -> tuple[int, ...]:
        """Changes when a route is added anywhere."""
        return tuple(_count(router.routes) for router in self.routers)

    def _add_router(self, router: Router, prefix: str, ways: Mapping[int, _Way]) -> None:
        self.routers.append(router)
        for at, route in enumerate(router.routes):
            through = {**ways, **_way(router, at)}
            for effective, target in _expanded(route):
                self._add(effective, target, prefix, through)

    def _add(self, effective: Any, target: BaseRoute, prefix: str, ways: Mapping[int, _Way]) -> None:
        if isinstance(target, Mount):
            self._add_mount(target, prefix, ways)
        elif isinstance(target, WebSocketRoute):
            self._append(prefix + effective.path, target, effective.endpoint, "websocket", None, ways)
        elif isinstance(target, StarletteRoute):
            self._append(prefix + effective.path, target, effective.endpoint, "http", effective.methods, ways)
        else:
            self.unread.append(type(target).__name__)

    def _add_mount(self, mount: Mount, prefix: str, ways: Mapping[int, _Way]) -> None:
        path = prefix + mount.path
        inner = _router_of(mount)
        template = path + "/{path:path}"
        if inner is None:
            self._append(template, mount, mount.app, "mount", None, ways)
            return
        self.mounts.add(id(mount.app))
        self._add_router(inner, path, ways)
        # Once a mount matched, no later route of the outer router is asked: a path its routes do not serve ends here.
        self._append(template, mount, None, "mount", None, ways)

    def _append(
        self,
        path: str,
        target: BaseRoute,
        endpoint: Any,
        kind: Kind,
        methods: Iterable[str] | None,
        ways: Mapping[int, _Way],
    ) -> None:
        regex, template, convertors = compile_path(path or "/")
        route = Route(
            template=template,
            segments=segments_of_template(path),
            methods=frozenset(methods) if methods else None,
            key=endpoint,
            kind=kind,
            terms=lambda method: endpoint_terms(endpoint, method),
            source=_source(endpoint),
            parameters=tuple(convertors),
            documentation=path in self._documentation,
        )
        self.listed.append(Listed(route, target, regex, convertors, ways))


def _expanded(route: BaseRoute) -> Iterator[tuple[Any, BaseRoute]]:
    """(what it serves, whose `handle` runs) of a route, or of all that were included in its place."""
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    if contexts is None:
        yield route, route
        return
    for context in contexts([route]):
        effective = context._effective_route
        # An included APIRoute keeps its own object; everything else was copied with its prefix.
        yield effective, effective if isinstance(effective, BaseRoute) else context.original_route


def _router_of(mount: Mount) -> Router | None:
    app = getattr(mount, "_base_app", mount.app)
    for _ in range(_WRAPPED):
        if isinstance(app, Starlette):
            return app.router
        if isinstance(app, Router):
            return app
        # `app.mount("/x", GZipMiddleware(sub))`: wrappers keep what they wrap in `app`.
        app = getattr(app, "app", None)
    return None


def _lists(routers: Iterable[Any]) -> Iterator[list[BaseRoute]]:
    """The route list of every router, of included ones too."""
    for router in routers:
        yield router.routes
        nested = (getattr(route, "original_router", None) for route in router.routes)
        yield from _lists(found for found in nested if found is not None)


def _count(routes: Iterable[BaseRoute]) -> int:
    total = 0
    for route in routes:
        nested = getattr(route, "original_router", None)
        total += 1 + (_count(nested.routes) if nested is not None else 0)
    return total


def segments_of_template(path: str) -> tuple[str, ...]:
    """`/clients/{client_id:int}` -> `("clients", "{}")`; a `path` convertor takes the rest."""
    segments: list[str] = []
    for part in path[1:].split("/"):
        found = [match.group(2) for match in _PARAMETER.finditer(part)]
        if "path" in found:
            return (*segments, REST)
        segments.append(PARAMETER if found else part)
    return tuple(segments)


def endpoint_terms(endpoint: Any, method: str) -> Mapping[str, Any]:
    """What the decorators said of a handler."""
    return terms_of_view(endpoint, method) if isinstance(endpoint, type) else terms_of(endpoint)


def _source(endpoint: Any) -> str:
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    return f"{getattr(endpoint, '__module__', '?')}.{name}"


def _documentation_paths(app: Any) -> frozenset[str]:
    names = ("openapi_url", "docs_url", "redoc_url", "swagger_ui_oauth2_redirect_url")
    return frozenset(path for name in names if isinstance(path := getattr(app, name, None), str))


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    listed: Listed
    row: Row
    boundary: bool
    """Nothing behind this mount serves the path."""


class StarletteTable:
    """Finds the route that the application's own routers will choose. Relists when a route was added."""

    by_path_alone = True

    def __init__(self, app: Starlette, b: Build, rows: list[PolicyRow]) -> None:
        self._app = app
        self._build = b
        self._rows = rows
        self.strict, self._public = unserved_plans(b)
        self.problems = self.relist()

    def relist(self) -> list[ConfigurationProblem]:
        """Read the routes anew, compile their plans and make each of them confirm."""
        self.listing = listing = Listing(self._app)
        compiled, problems = compile_rows(self._build, self._rows, [item.route for item in listing.listed])
        self._index: SegmentIndex[_Entry] = SegmentIndex()
        self.entries: list[_Entry] = []
        for item, row in zip(listing.listed, compiled, strict=True):
            entry = _Entry(item, row, item.route.kind == "mount" and item.route.key is None)
            self._index.add(item.route.segments, entry)
            self.entries.append(entry)
            if not entry.boundary:
                _confirm(item.target)
        for router in listing.routers:
            _reach(router)
        self._shape = listing.shape()
        self._lists = list(_lists(listing.routers))
        self._lengths = tuple(map(len, self._lists))
        problems += [
            ConfigurationProblem(
                "PS-ROUTE-001", "routes", f"a {name} route cannot be read.", "Serve it as its own app."
            )
            for name in listing.unread
        ]
        return problems

    def listed(self) -> list[Row]:
        """Every route with its plans, in the order of precedence."""
        return [entry.row for entry in self.entries if not entry.boundary]

    def plans(self) -> Iterator[Plan]:
        """Those of every method of every route."""
        return (plan for row in self.listed() for plan in row.plans.values())

    def fresh(self) -> bool:
        """No router has more or fewer routes than at the last look."""
        lists = self._lists
        if len(lists) == 1:  # no router in a router
            return len(lists[0]) == self._lengths[0]
        return self._lengths == tuple(map(len, lists))

    def find(self, x: Exchange) -> Plan:
        """The plan of the route that will serve this request."""
        if not self.fresh():
            self._relisted()
        path = get_route_path(x.native) if x.native.get("root_path") else x.path
        plan = self._match(x, path)
        if plan is None and self.listing.shape() != self._shape:
            self._relisted()
            plan = self._match(x, path)
        return plan or self._unserved(x, path)

    def _relisted(self) -> None:
        """A route came late. What is wrong with it nobody stops the start for any more: it refuses every request."""
        self.problems = self.relist()
        tell(self.problems)

    def _match(self, x: Exchange, path: str) -> Plan | None:
        partial: tuple[_Entry, Mapping[str, str]] | None = None
        wanted = "websocket" if x.websocket else "http"
        for entry in self._index.candidates(path):
            route = entry.listed.route
            if route.kind not in (wanted, "mount"):
                continue
            found = entry.listed.regex.match(path)
            if found is None:
                continue
            if entry.boundary:
                break
            if route.methods is None or x.websocket or x.method in route.methods:
                self._apply(x, entry, found.groupdict())
                x.served = True
                return entry.row.plan("GET" if x.websocket else x.method)
            partial = partial or (entry, found.groupdict())
        if partial is None:
            return None
        self._apply(x, *partial)
        return self._misspelt(partial[0])

    def _apply(self, x: Exchange, entry: _Entry, params: Mapping[str, str]) -> None:
        listed = entry.listed
        x.template = listed.route.template
        x.endpoint = listed.route.key
        x.opaque = listed.route.kind == "mount"
        x.ways = listed.ways
        if params:
            if listed.route.kind == "mount":
                params = {name: text for name, text in params.items() if name != "path"}
            x.params = params
            x.arguments = {name: listed.convertors[name].convert(text) for name, text in params.items()}

    def _misspelt(self, entry: _Entry) -> Plan:
        """A wrong method or slash of a public route is told about; of any other only to a principal."""
        return self._public if any(plan.policy.public for plan in entry.row.plans.values()) else self.strict

    def _unserved(self, x: Exchange, path: str) -> Plan:
        x.native = WatchedScope(x.native, x, self.listing.mounts)
        other = path.rstrip("/") if path.endswith("/") else path + "/"
        for entry in self._index.candidates(other) if path != "/" else ():
            if not entry.boundary and entry.listed.regex.match(other):
                return self._misspelt(entry)
        return self.strict


def tabulate(app: Starlette, b: Build, rows: list[PolicyRow]) -> tuple[StarletteTable, Plan]:
    """The table of an application, proven: every route that can be reached confirms."""
    table = StarletteTable(app, b, rows)
    problems = table.problems or [*unproven(table, app)]
    if problems:
        raise ConfigurationError(tuple(problems))
    return table, table.strict


# -- confirmation -----------------------------------------------------------------------------------------------------


class Probe(Exchange):
    """An exchange of the start-up self-test: it confirms and goes no further."""


def _confirm(target: BaseRoute) -> None:
    """Make a route's `handle` compare what really matched with what the policy was applied to; once per route."""
    if getattr(target.handle, INSTALLED, False):
        return
    handle: _Handle = target.handle

    def confirming(scope: Scope, receive: Receive, send: Send) -> Any:
        # A middleware that builds a new scope loses the mark; the context has it still.
        x = scope.get(MARK) or CURRENT.get()
        if x is None:
            return handle(scope, receive, send)
        if (
            x.late is not None
            or x.walk is not None
            or x.endpoint is not scope.get("endpoint")
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


def _reach(router: Router) -> None:
    """Make a router tell that a request arrived, and ask no other route than the one that the table found."""
    if getattr(router.middleware_stack, INSTALLED, False):
        return
    stack = router.middleware_stack
    key = id(router)
    plain = stack == router.app

    def reaching(scope: Scope, receive: Receive, send: Send) -> Any:
        x = scope.get(MARK) or CURRENT.get()
        if x is None:
            return stack(scope, receive, send)
        x.reached = True
        way, routes = x.ways.get(key), router.routes
        # A route may have been replaced since the table was made.
        if way is not None and x.served and plain and way.at < len(routes) and routes[way.at] is way.route:
            if "router" not in scope:
                scope["router"] = router
            return way.app(scope, receive, send)
        return stack(scope, receive, send)

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
    are left out: their `handle` is wrapped all the same.
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
        if (probe.served and not _dispatch(app.router, scope)) or probe.late is not None:
            yield ConfigurationProblem(
                "PS-WIRE-001",
                "routes",
                f"{route.template} does not confirm.",
                "Its router is not one that can be read.",
            )


def _dispatch(router: Router, scope: Scope) -> bool:
    """Run the router up to the probe's confirmation, without an event loop: routing never waits."""
    probe = cast(Probe, scope[MARK])
    coroutine = router.app(scope, _never, _never)
    try:
        coroutine.send(None)
    except StopIteration:
        return probe.confirmed
    except Exception:
        return probe.confirmed or not probe.reached
    coroutine.close()
    return True


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
