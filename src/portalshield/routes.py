"""The route table: what an application serves, in its own order of precedence, and a lookup that does not grow with it.

Frameworks list their routes as `Route`s; templates are indexed by segments, so that a lookup visits only the routes
that could match, whatever their number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from portalshield.flow import Plan, insane
from portalshield.model.exchange import Exchange
from portalshield.model.setting import ConfigurationProblem
from portalshield.model.verdicts import Problem
from portalshield.rules.patterns import PARAMETER, REST, Pattern, segments_of

T = TypeVar("T")
_log = logging.getLogger("portalshield")
Kind = Literal["http", "websocket", "mount"]


def _no_terms(method: str) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Route:
    """One route as its framework listed it.

    `template` is for people (`/clients/{client_id}`), `segments` for patterns (`("clients", "{}")`). `methods` is None
    for any. `terms` answers what the decorators said, per method. `key` identifies the handler when it really runs.
    `static`: the framework's own route for static files. `lasting`: its converters are the framework's own, so that a
    path means the same arguments each time.
    """

    template: str
    segments: tuple[str, ...]
    methods: frozenset[str] | None
    key: Any
    kind: Kind = "http"
    terms: Callable[[str], Mapping[str, Any]] = _no_terms
    source: str = ""
    parameters: tuple[str, ...] = ()
    static: bool = False
    documentation: bool = False
    lasting: bool = True


@dataclass(slots=True)
class Row:
    """A route and the plan of each of its methods."""

    route: Route
    plans: dict[str, Plan] = field(default_factory=dict)

    def plan(self, method: str) -> Plan:
        """The plan for one method. `LookupError` where its policy could not be compiled: nobody may come in then."""
        return self.plans[method]


def tell(problems: Iterable[ConfigurationProblem]) -> None:
    """Log what is wrong with routes that were added after the start."""
    for problem in problems:
        _log.error("%s", problem)


class Table(Protocol):
    """Finds the policy of a request; sets template, endpoint, parameters, `served` and `lasting` on the exchange."""

    def fresh(self) -> bool:
        """No route was added since the last look; asked before anything remembered is believed."""

    def find(self, x: Exchange) -> Plan:
        """The plan of the route that will serve this request, or the strict one where none does."""

    def lists(self, served: object) -> bool:
        """The routes of this router or map are in the table."""

    def plans(self) -> Iterable[Plan]:
        """Every plan that a request may get."""


def same_method(judged: str, runs: str) -> bool:
    """What runs has the policy that was applied: they differ by method, and a middleware may have overridden it. (One
    that makes a GET of a HEAD shows nobody more.)"""
    return runs == judged or (runs == "GET" and judged == "HEAD")


def ambiguous(x: Exchange, table: Table) -> Problem | None:
    """A path or method that two readers could read differently; a path, unless the route that serves it takes such."""
    refusal = insane(x)
    if refusal is None or not refusal.why.startswith("path-"):
        return refusal  # a method that nobody may use has no route to ask
    return insane(x, table.find(copy(x)).policy.allow_path)


class _Node(Generic[T]):
    __slots__ = ("here", "literal", "parameter", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node[T]] = {}
        self.parameter: _Node[T] | None = None
        self.here: list[tuple[int, T]] = []
        self.rest: list[tuple[int, T]] = []


class SegmentIndex(Generic[T]):
    """Templates by segment. `candidates(path)` yields, in the order they were added, all that could match."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._count = 0

    def add(self, segments: tuple[str, ...], value: T) -> None:
        """Index one template; a `REST` segment ends it."""
        node = self._root
        self._count += 1
        for segment in segments:
            if segment == REST:
                node.rest.append((self._count, value))
                return
            if segment == PARAMETER:
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        node.here.append((self._count, value))

    def candidates(self, path: str) -> list[T]:
        """Values whose template could match this path, first added first."""
        nodes = [self._root]
        found: list[tuple[int, T]] = list(self._root.rest) if self._root.rest else []
        for segment in path[1:].split("/"):
            following: list[_Node[T]] = []
            for node in nodes:
                child = node.literal.get(segment)
                if child is not None:
                    following.append(child)
                if node.parameter is not None:
                    following.append(node.parameter)
            if not following:
                nodes = following
                break
            nodes = following
            for node in nodes:
                if node.rest:
                    found += node.rest
        for node in nodes:
            found += node.here
        if len(found) > 1:
            found.sort(key=_order)
        return [value for _, value in found]


def _order(entry: tuple[int, Any]) -> int:
    return entry[0]


class PatternTable:
    """For an application without a router to ask: the policies' own patterns decide, everything else is strict."""

    def __init__(self, rows: Iterable[tuple[Pattern, Mapping[str, Plan]]], strict: Plan) -> None:
        self._strict = strict
        self._index: SegmentIndex[tuple[Pattern, Mapping[str, Plan]]] = SegmentIndex()
        self._plans: list[Plan] = []
        for pattern, plans in sorted(rows, key=lambda row: row[0].specificity, reverse=True):
            self._index.add(pattern.segments, (pattern, plans))
            self._plans += plans.values()

    def plans(self) -> Iterable[Plan]:
        """Those of every pattern, and the strict one."""
        return (*self._plans, self._strict)

    def fresh(self) -> bool:
        """Patterns never change."""
        return True

    def lists(self, served: object) -> bool:
        """Nobody's routes are."""
        return False

    def find(self, x: Exchange) -> Plan:
        """The plan of the most specific pattern that covers method and path; parameters are those of all that do.

        The application may forgive a slash at the end, so the pattern without it, or with it, counts too.
        """
        x.served = x.opaque = x.lasting = True
        # A client may have said where the rest begins: gunicorn believes a local `SCRIPT_NAME` field.
        whole = x.rest or x.path
        other = whole[:-1] if whole.endswith("/") else whole + "/"
        for path in (whole, other):
            plan = self._match(x, path)
            if plan is not None:
                return plan
        return self._strict

    def _match(self, x: Exchange, path: str) -> Plan | None:
        segments = segments_of(path)
        found = [row for row in self._index.candidates(path) if x.method in row[1]]
        params: dict[str, str] = {}
        for pattern, _ in reversed(found):
            params.update(pattern.parameters(segments))
        x.params = x.arguments = params
        for pattern, plans in found:
            x.template = "/" + "/".join(
                f"{{{name}}}" if name else segment
                for segment, name in zip(pattern.segments, pattern.names, strict=True)
            )
            return plans[x.method]
        return None
