"""Finds the route that the application's own routers will choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from portalshield.flow import Plan
from portalshield.model.exchange import Exchange
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.plan import Build, unserved_plans
from portalshield.policies import PolicyRow, compile_rows
from portalshield.routes import Row, SegmentIndex, tell
from portalshield.starlette.confirming import WatchedScope, confirm, reach, unproven
from portalshield.starlette.listing import Listed, Listing, router_lists

_LAST = itemgetter(slice(-1, None))


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    listed: Listed
    row: Row

    @property
    def boundary(self) -> bool:
        """Nothing behind this mount serves the path."""
        return self.listed.mounts_from is not None


class StarletteTable:
    """Finds the route that the application's own routers will choose. Relists when a route was added."""

    def __init__(self, app: Starlette, b: Build, rows: list[PolicyRow]) -> None:
        self._app = app
        self._build = b
        self._rows = rows
        self.strict, self._public = unserved_plans(b)
        self.leads = True
        self.problems = self.relist()

    def relist(self) -> list[ConfigurationProblem]:
        """Read the routes anew, compile their plans and make each of them confirm."""
        self.listing = listing = Listing(self._app)
        compiled, problems = compile_rows(self._build, self._rows, [item.route for item in listing.listed])
        self._index: SegmentIndex[_Entry] = SegmentIndex()
        self.entries: list[_Entry] = []
        for number, (item, row) in enumerate(zip(listing.listed, compiled, strict=True)):
            entry = _Entry(number, item, row)
            self._index.add(item.route.segments, entry)
            self.entries.append(entry)
            if not entry.boundary:
                confirm(item.target)
        for router in listing.routers:
            reach(router)
        self._shape = listing.shape()
        self._lists = list(router_lists(listing.routers))
        self._ends = self._seen()
        return problems + listing.problems

    def listed(self) -> list[Row]:
        """Every route with its plans, in the order of precedence."""
        return [entry.row for entry in self.entries if not entry.boundary]

    def plans(self) -> Iterator[Plan]:
        """Those of every method of every route."""
        return (plan for row in self.listed() for plan in row.plans.values())

    def lists(self, served: object) -> bool:
        """This router is the application's own, or one that it mounts."""
        return any(router is served for router in self.listing.routers)

    def fresh(self) -> bool:
        """No router has more or fewer routes than at the last look, or another last one."""
        return self._seen() == self._ends

    def _seen(self) -> tuple[list[int], list[list[BaseRoute]]]:
        return list(map(len, self._lists)), list(map(_LAST, self._lists))

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
        partial: list[tuple[_Entry, Mapping[str, str]]] = []
        wanted = "websocket" if x.websocket else "http"
        for entry in self._index.candidates(path):
            route = entry.listed.route
            if route.kind not in (wanted, "mount"):
                continue
            found = entry.listed.regex.match(path)
            if found is None:
                continue
            first = entry.listed.mounts_from
            if first is not None:  # what stands before the mount was asked in vain: the mount takes the request
                partial = [each for each in partial if each[0].number >= first]
                break
            if route.methods is None or x.websocket or x.method in route.methods:
                self._apply(x, entry, found.groupdict())
                x.served = True
                x.ways = entry.listed.ways if self.leads else {}
                return entry.row.plan("GET" if x.websocket else x.method)
            partial.append((entry, found.groupdict()))
        if not partial:
            return None
        self._apply(x, *partial[0])
        return self._misspelt(partial[0][0])

    def _apply(self, x: Exchange, entry: _Entry, params: Mapping[str, str]) -> None:
        listed = entry.listed
        x.template = listed.route.template
        x.endpoint = listed.route.key
        x.opaque = listed.route.kind == "mount"
        x.lasting = listed.route.lasting
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
