"""Flask: install the doors, find the rule, confirm the view that really runs. Plus the `principal` proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast
from weakref import ref

from flask import Flask, Request, Response, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, SecurityError
from werkzeug.local import LocalProxy
from werkzeug.routing import MapAdapter, RequestRedirect, Rule, WebsocketMismatch

from portalshield.context import CURRENT, INSTALLED, MARK, current_principal
from portalshield.context import payload as payload
from portalshield.flow import Plan
from portalshield.model.exchange import UNREAD, Exchange
from portalshield.model.policy import terms_of, terms_of_view
from portalshield.model.principal import Principal
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.plan import Build, unserved_plans
from portalshield.policies import PolicyRow, compile_rows
from portalshield.protection import Protected
from portalshield.routes import Route, Row, tell
from portalshield.rules.media_types import parse_media_type
from portalshield.rules.patterns import PARAMETER, REST
from portalshield.runtime import CRASHED, UNCONFIRMED, Runtime, marked
from portalshield.wsgi import WsgiDoor
from portalshield.wsgi.bodies import BodyRefusedError, admit_body, holds_body
from portalshield.wsgi.fields import path_of
from portalshield.wsgi.walking import judge

_NO_VIEW = (MethodNotAllowed, SecurityError, WebsocketMismatch)
principal: Principal = cast(Principal, LocalProxy(current_principal))
"""The verified caller, as a proxy. Fails closed: `LookupError` outside a request."""

_CONVERTER = re.compile(r"<(?:(?P<kind>[a-zA-Z_]\w*)(?:\((?P<arguments>[^>]*?)\))?:)?(?P<name>[a-zA-Z_]\w*)>")


# -- installation -----------------------------------------------------------------------------------------------------


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

    app.wsgi_app = WsgiDoor(app.wsgi_app, open_runtime)  # type: ignore[method-assign]
    app.before_request_funcs.setdefault(None, []).insert(0, lambda: _enter(app, opened, inside=inside))
    _reach(app)
    _route_once(app)
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
        at._cached_json = _Judged(app, x, at)
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
        # `Upgrade: websocket` on a rule that takes none, a host that Flask does not trust: no view runs.
        return at.url_rule is None and (not x.served or isinstance(at.routing_exception, _NO_VIEW))
    given = at.view_args
    # A url_value_preprocessor may take arguments away; what is there must be what was judged.
    return given == x.arguments or all(
        name in x.arguments and x.arguments[name] == value for name, value in (given or {}).items()
    )


class _Judged(tuple[Any, Any]):
    """Stands where a request keeps the JSON that it has parsed: once somebody asks for that, it is the value that was
    judged, if `get_json` would read this very body with the standard parser, which finds the same value."""

    _app: Flask
    _x: Exchange
    _at: ref[Request]

    def __new__(cls, app: Flask, x: Exchange, at: Request) -> _Judged:
        """For one request, which keeps it: it does not keep the request."""
        self = super().__new__(cls, (..., ...))
        self._app, self._x, self._at = app, x, ref(at)
        return self

    def __getitem__(self, silent: Any) -> Any:
        """The value, or the mark of one that was not parsed yet."""
        at, x = self._at(), self._x
        if at is None or not _would_parse_the_same(self._app, x, at):
            return ...
        at._cached_json = (x.json, x.json)
        return x.json


def _would_parse_the_same(app: Flask, x: Exchange, at: Request) -> bool:
    environ, most = at.environ, at.max_content_length
    media = parse_media_type(environ.get("CONTENT_TYPE", "").encode("latin-1"))
    return (
        media is not None
        and media.type == "application"
        and media.is_json
        and at.json_module is app.json
        and type(app.json).loads is DefaultJSONProvider.loads
        and (most is None or x.body is None or len(x.body) <= most)
        and holds_body(environ, x.body)
    )


def _reach(app: Flask) -> None:
    dispatch = app.full_dispatch_request

    def reaching(*args: Any) -> Response:
        x = _exchange(_request())
        if x is not None:
            x.reached = True
        return dispatch(*args)

    app.full_dispatch_request = reaching  # type: ignore[method-assign]


def _route_once(app: Flask) -> None:
    """The rule that the policy was applied to is the one that runs: the application does not look for it again."""
    if "create_url_adapter" in vars(app) or type(app).create_url_adapter is not Flask.create_url_adapter:
        return  # an application that binds its own way finds its own way
    create = app.create_url_adapter

    def deciding(at: Request | None) -> MapAdapter | None:
        x = at.environ.get(MARK) if at is not None else None
        if at is None or type(x) is not Exchange or not _found_for(app, x, at.environ):
            return create(at)
        return _Decided(partial(create, at), x.endpoint, dict(x.arguments))

    app.create_url_adapter = deciding  # type: ignore[method-assign, assignment]


def _found_for(app: Flask, x: Exchange, environ: Mapping[str, Any]) -> bool:
    """The table has asked this very map about what the environ still says."""
    return (
        x.served
        and getattr(x.endpoint, "map", None) is app.url_map
        and environ["REQUEST_METHOD"] == x.method
        and path_of(environ.get("PATH_INFO", "")) == (x.rest or x.path)
        and "HTTP_UPGRADE" not in environ  # a WebSocket is told of a rule that takes none
        and app.config["TRUSTED_HOSTS"] is None
        and not app.url_map.host_matching
        and not app.subdomain_matching
    )


class _Decided(MapAdapter):
    """The adapter of a request whose rule is known already. It is bound when anything else is asked of it."""

    def __init__(self, bind: Callable[[], MapAdapter | None], rule: Rule, arguments: Mapping[str, Any]) -> None:
        self._bind = bind
        self._found = rule, arguments

    def __getattr__(self, name: str) -> Any:
        if "map" not in vars(self):
            vars(self).update(vars(self._bind()))
            return getattr(self, name)
        raise AttributeError(name)

    def match(self, *args: Any, **kwargs: Any) -> Any:
        """What was found, where nothing but `return_rule=True` is asked."""
        return self._found if not args and kwargs == _ONLY_RULE else super().match(*args, **kwargs)


_ONLY_RULE = {"return_rule": True}


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


# -- listing ----------------------------------------------------------------------------------------------------------


def _listed(app: Flask, rule: Rule) -> Route:
    view = app.view_functions.get(rule.endpoint)
    return Route(
        template=_CONVERTER.sub(lambda match: "{" + match["name"] + "}", rule.rule),
        segments=_segments(app, rule),
        methods=frozenset(rule.methods) if rule.methods else None,
        key=rule,
        terms=lambda method: _terms(view, method),
        source=f"{getattr(view, '__module__', '?')}.{getattr(view, '__qualname__', '?')}",
        parameters=tuple(sorted(rule.arguments)),
        static=_serves_files(app, rule, view),
    )


def _serves_files(app: Flask, rule: Rule, view: Any) -> bool:
    """The rule that Flask itself made for a static folder; a view that is only called so is like any other."""
    if rule.endpoint == "static":
        return app.has_static_folder and rule.rule == f"{app.static_url_path}/<path:filename>"
    blueprint = app.blueprints.get(rule.endpoint.removesuffix(".static"))
    owner = getattr(view, "__self__", None)
    return blueprint is not None and blueprint.has_static_folder and isinstance(owner, type(blueprint))


def _segments(app: Flask, rule: Rule) -> tuple[str, ...]:
    segments: list[str] = []
    for part in _CONVERTER.sub(lambda match: f"<{match['kind'] or 'default'}>", rule.rule)[1:].split("/"):
        kinds = re.findall(r"<(\w+)>", part)
        if any(not app.url_map.converters[kind].part_isolating for kind in kinds):
            return (*segments, REST)
        segments.append(PARAMETER if kinds else part)
    return tuple(segments)


def _terms(view: Any, method: str) -> Mapping[str, Any]:
    """The view's decorators; of a class-based view the class first, then its method, then the view function."""
    view_class = getattr(view, "view_class", None)
    return {**(terms_of_view(view_class, method) if view_class is not None else {}), **terms_of(view)}


# -- the table --------------------------------------------------------------------------------------------------------


class FlaskTable:
    """Asks the application's own `url_map`."""

    def __init__(self, app: Flask, b: Build, rows: list[PolicyRow]) -> None:
        self._app = app
        self._build = b
        self._rows = rows
        self.strict, self._public = unserved_plans(b)
        self.by_path_alone = not (app.url_map.host_matching or app.subdomain_matching)
        self._adapter: MapAdapter = app.url_map.bind("localhost")
        self.problems = self.relist()

    def relist(self) -> list[ConfigurationProblem]:
        """Read the rules anew and compile their plans."""
        self._sizes = self._measured()
        rules = list(self._app.url_map.iter_rules())
        compiled, problems = compile_rows(self._build, self._rows, [_listed(self._app, rule) for rule in rules])
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
        adapter = self._app.url_map.bind_to_environ(x.native) if not self.by_path_alone else self._adapter
        try:
            rule, arguments = adapter.match(path, x.method, return_rule=True)
        except RequestRedirect:
            return self._misspelt(adapter, path + "/", x.method)
        except MethodNotAllowed as error:
            return self._misspelt(adapter, path, next(iter(error.valid_methods or ("GET",))))
        except HTTPException:
            return self.strict
        return self._apply(x, path, rule, arguments)

    def _apply(self, x: Exchange, path: str, rule: Rule, arguments: Mapping[str, Any]) -> Plan:
        if id(rule) not in self.rows:
            self._relisted()
        row = self.rows[id(rule)]
        plan = row.plan(x.method)
        x.endpoint, x.served, x.template = rule, True, row.route.template
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
