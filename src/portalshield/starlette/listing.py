"""What an application serves, in its own order, and the way to each route.

FastAPI from 0.137 keeps included routers as nodes instead of flattening them, so routes are listed through
`iter_route_contexts` where it exists. (0.137.0 and 0.137.1 have the nodes and no list: `PS-ROUTE-001`.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Router, WebSocketRoute, compile_path
from starlette.routing import Route as StarletteRoute

from portalshield.asgi.messages import Receive, Scope, Send
from portalshield.context import INSTALLED
from portalshield.model.policy import terms_of, terms_of_view
from portalshield.model.setting import ConfigurationProblem
from portalshield.opening import looked_through
from portalshield.routes import Kind, Route
from portalshield.rules.patterns import PARAMETER, REST

Handle = Callable[[Scope, Receive, Send], Any]
FRAMEWORKS = ("starlette.routing", "fastapi.routing")
"""Where methods are defined that nobody has overridden."""
_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_][a-zA-Z0-9_]*))?\}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A route with what its matching needs. `target` is the object whose `handle` runs, `ways` lead there."""

    route: Route
    target: BaseRoute
    regex: re.Pattern[str]
    convertors: Mapping[str, Any]
    ways: Mapping[int, Way]
    """By the id of each router that a request passes."""
    mounts_from: int | None = None
    """Of a mount that was looked into: the number of its first route."""


@dataclass(frozen=True)
class Way:
    """The route of a router, by its place, that leads to an endpoint; of an included router the `part` that does."""

    router: Router
    at: int
    route: BaseRoute
    part: BaseRoute

    @cached_property
    def app(self) -> Handle:
        """A router like it that has no other route: it asks nobody else whether they match."""
        alone = copy(self.router)
        alone.routes = [self.part]
        return alone.app


class Listing:
    """All routes of an application in its own order, mounted and included ones too."""

    def __init__(self, app: Starlette) -> None:
        self.listed: list[Listed] = []
        self.routers: list[Router] = []
        self.mounts: set[int] = set()
        self.problems: list[ConfigurationProblem] = []
        self._shield = getattr(app.state, INSTALLED, None)
        self._documentation = _documentation_paths(app)
        self._add_router(app.router, "", {})

    def shape(self) -> tuple[int, ...]:
        """Changes when a route is added anywhere."""
        return tuple(_count(router.routes) for router in self.routers)

    def _add_router(self, router: Router, prefix: str, ways: Mapping[int, Way]) -> None:
        self.routers.append(router)
        found = [(at, route, *leaf) for at, route in enumerate(router.routes) for leaf in self._leaves(route, prefix)]
        # Where one of them matches by rules of its own, all of them have to be asked.
        by_path = all(_matches_by_path(route) and _matches_by_path(target) for _, route, _, target, _ in found)
        for at, route, effective, target, part in found:
            through = {**ways, id(router): Way(router, at, route, part)} if by_path else ways
            self._add(effective, target, prefix, through)

    def _leaves(self, route: BaseRoute, prefix: str) -> list[tuple[Any, BaseRoute, BaseRoute]]:
        try:
            return list(_expanded(route))
        except ValueError:  # FastAPI compiles what is included only when it is asked
            self._twice(f"what is included at {prefix or '/'}")
            return []

    def _twice(self, what: str) -> None:
        told = f"{what} names a parameter twice."
        self.problems.append(ConfigurationProblem("PS-ROUTE-002", "routes", told, "Rename one of them."))

    def _add(self, effective: Any, target: BaseRoute, prefix: str, ways: Mapping[int, Way]) -> None:
        if isinstance(target, Mount):
            self._add_mount(target, prefix, ways)
        elif isinstance(target, WebSocketRoute):
            self._append(prefix + effective.path, target, effective.endpoint, "websocket", None, ways)
        elif isinstance(target, StarletteRoute):
            self._append(prefix + effective.path, target, effective.endpoint, "http", effective.methods, ways)
        else:
            told = f"a {type(target).__name__} route cannot be read."
            self.problems.append(ConfigurationProblem("PS-ROUTE-001", "routes", told, "Serve it as its own app."))

    def _add_mount(self, mount: Mount, prefix: str, ways: Mapping[int, Way]) -> None:
        path = prefix + mount.path
        inner = _application_of(mount)
        template = path + "/{path:path}"
        if inner is None:
            self._append(template, mount, mount.app, "mount", None, ways)
            return
        first = len(self.listed)
        self.mounts.add(id(mount.app))
        if isinstance(inner, Starlette):
            self._refuse_lost_policies(inner, path)
        self._add_router(inner.router if isinstance(inner, Starlette) else inner, path, ways)
        # Once a mount matched, no later route of the outer router is asked: a path its routes do not serve ends here.
        self._append(template, mount, None, "mount", None, ways, first)

    def _refuse_lost_policies(self, inner: Starlette, path: str) -> None:
        """The outer shield decides about mounted routes: what only the inner one was told would be lost."""
        own = getattr(inner.state, INSTALLED, None)
        if own is not None and own is not self._shield and own.protection.alone:
            told = f"what is mounted at {path} has a shield that was given policies or functions of its own."
            hint = "Give them to the outer shield, the patterns with the prefix."
            self.problems.append(ConfigurationProblem("PS-ROUTE-003", "routes", told, hint))

    def _append(
        self,
        path: str,
        target: BaseRoute,
        endpoint: Any,
        kind: Kind,
        methods: Iterable[str] | None,
        ways: Mapping[int, Way],
        mounts_from: int | None = None,
    ) -> None:
        try:
            regex, template, convertors = compile_path(path or "/")
        except ValueError:  # legal for mounts: the parameter of the inner one wins
            self._twice(path)
            return
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
            lasting=all(type(convertor).__module__ == "starlette.convertors" for convertor in convertors.values()),
        )
        self.listed.append(Listed(route, target, regex, convertors, ways, mounts_from))


def _matches_by_path(route: BaseRoute) -> bool:
    return type(route).matches.__module__ in FRAMEWORKS


def _expanded(route: BaseRoute) -> Iterator[tuple[Any, BaseRoute, BaseRoute]]:
    """(what it serves, whose `handle` runs, the part of it that leads there) of a route, or of all that were included
    in its place."""
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    if contexts is None:
        yield route, route, route
        return
    found, parts = list(contexts([route])), list(_parts(route))
    for context, part in zip(found, parts if len(parts) == len(found) else [route] * len(found), strict=True):
        effective = context._effective_route
        # An included APIRoute keeps its own object; everything else was copied with its prefix.
        yield effective, effective if isinstance(effective, BaseRoute) else context.original_route, part


def _parts(route: Any) -> Iterator[Any]:
    """An included router once for each route in it, with that one as its only candidate."""
    candidates = getattr(route, "effective_candidates", None)
    if candidates is None:
        yield route
        return
    for candidate in candidates():
        for part in _parts(candidate):
            alone = copy(route)
            alone.effective_candidates = partial(list, (part,))
            yield alone


def _application_of(mount: Mount) -> Starlette | Router | None:
    within = looked_through(getattr(mount, "_base_app", mount.app))
    return next((each for each in within if isinstance(each, Starlette | Router)), None)


def router_lists(routers: Iterable[Any]) -> Iterator[list[BaseRoute]]:
    """The route list of every router, of included ones too."""
    for router in routers:
        yield router.routes
        nested = (getattr(route, "original_router", None) for route in router.routes)
        yield from router_lists(found for found in nested if found is not None)


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
