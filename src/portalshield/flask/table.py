"""Finds the rule that the application will choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter, RequestRedirect, Rule

from portalshield.context import MARK
from portalshield.flask.listing import listed
from portalshield.flow import Plan
from portalshield.model.exchange import Exchange
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.plan import Build, unserved_plans
from portalshield.policies import PolicyRow, compile_rows
from portalshield.routes import Route, Row, tell
from portalshield.rules.patterns import PARAMETER
from portalshield.wsgi.fields import path_of


class FlaskTable:
    """Asks the application's own `url_map`."""

    def __init__(self, app: Flask, b: Build, rows: list[PolicyRow]) -> None:
        self._app = app
        self._build = b
        self._rows = rows
        self.strict, self._public = unserved_plans(b)
        self._by_path_alone = not (app.url_map.host_matching or app.subdomain_matching)
        self._adapter: MapAdapter = app.url_map.bind("localhost")
        self.problems = self.relist()

    def relist(self) -> list[ConfigurationProblem]:
        """Read the rules anew and compile their plans."""
        self._sizes = self._measured()
        rules = list(self._app.url_map.iter_rules())
        compiled, problems = compile_rows(self._build, self._rows, [listed(self._app, rule) for rule in rules])
        # A Rule has no hash; the list keeps the objects alive, so their ids stay theirs.
        self._rules = rules
        self.rows: dict[int, Row] = {id(rule): row for rule, row in zip(rules, compiled, strict=True)}
        return problems

    def listed(self) -> list[Row]:
        """Every rule with its plans, in the order of the map."""
        return list(self.rows.values())

    def plans(self) -> Iterator[Plan]:
        """Those of every method of every route."""
        return (plan for row in self.listed() for plan in row.plans.values())

    def lists(self, served: object) -> bool:
        """This map is the application's own."""
        return served is self._app.url_map

    def fresh(self) -> bool:
        """No rule and no view was added or taken away since the last look."""
        return self._measured() == self._sizes

    def _measured(self) -> tuple[int, int]:
        return len(self._app.url_map._rules), len(self._app.view_functions)

    def find(self, x: Exchange) -> Plan:
        """The plan of the rule that the application will choose."""
        path = _path_info(x)
        if not self.fresh():
            self._relisted()
        adapter = self._adapter
        try:
            adapter = adapter if self._by_path_alone else self._bound(x.native)
            rule, arguments = adapter.match(path, x.method, return_rule=True)
        except RequestRedirect:
            return self._misspelt(adapter, path + "/", x.method)
        except MethodNotAllowed as error:
            return self._misspelt(adapter, path, next(iter(error.valid_methods or ("GET",))))
        except HTTPException:
            return self.strict
        return self._apply(x, path, rule, arguments)

    def _bound(self, environ: Mapping[str, Any]) -> MapAdapter:
        """As the application binds it where its rules name hosts or subdomains; in an environ of its own, for the
        request has not arrived there yet. `HTTPException` for a host that it does not trust."""
        at = self._app.request_class({name: value for name, value in environ.items() if name != MARK})
        adapter = self._app.create_url_adapter(at)
        at.environ.clear()  # it holds the request, and the request holds it
        return adapter or self._adapter

    def _apply(self, x: Exchange, path: str, rule: Rule, arguments: Mapping[str, Any]) -> Plan:
        if id(rule) not in self.rows:
            self._relisted()
        row = self.rows[id(rule)]
        plan = row.plan(x.method)
        x.endpoint, x.served, x.template = rule, True, row.route.template
        x.lasting = self._by_path_alone and row.route.lasting
        if arguments or rule.arguments:
            x.arguments = arguments
            x.params = _texts(row.route, path, arguments)
        return plan

    def _relisted(self) -> None:
        """A rule came late. What is wrong with it nobody stops the start for any more: it refuses every request."""
        self.problems = self.relist()
        tell(self.problems)

    def _misspelt(self, adapter: MapAdapter, path: str, method: str) -> Plan:
        """A wrong method or slash of a public route is told about; of any other only to a principal."""
        try:
            rule, _ = adapter.match(path, method, return_rule=True)
        except HTTPException:
            return self.strict
        row = self.rows.get(id(rule))
        return self._public if row and any(plan.policy.public for plan in row.plans.values()) else self.strict


def _path_info(x: Exchange) -> str:
    return path_of(x.native.get("PATH_INFO", ""))


def _texts(route: Route, path: str, arguments: Mapping[str, Any]) -> Mapping[str, str]:
    """Parameters as they stand in the path, where each is a whole segment; else as the converter understood them."""
    pieces = path[1:].split("/")
    names = [name[1:-1] for name in route.template[1:].split("/")]
    whole = {
        name: piece
        for name, segment, piece in zip(names, route.segments, pieces, strict=False)
        if segment == PARAMETER and name in arguments
    }
    return {name: whole.get(name, str(value)) for name, value in arguments.items()}


def tabulate(app: Flask, b: Build, rows: list[PolicyRow]) -> tuple[FlaskTable, Plan]:
    """The table of an application. The inner door must be the first thing that runs inside it."""
    table = FlaskTable(app, b, rows)
    if table.problems:
        raise ConfigurationError(tuple(table.problems))
    return table, table.strict
