"""The route that the policy was applied to is the one that runs, and the application does not look for it again."""

from __future__ import annotations

from copy import copy
from typing import Any

import fastapi.routing
import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from werkzeug.routing import BaseConverter, Map, MapAdapter, Rule, ValidationError

from portalshield import Settings, Shield, public
from portalshield.testing import environment, mint_token

SETTINGS = Settings.from_env(environment(AUTH="none", HOSTS="testserver,portal.example.com"))


# -- Flask ------------------------------------------------------------------------------------------------------------


def flask_app(app: flask.Flask | None = None) -> flask.Flask:
    """Shows what a view sees of its own routing."""
    made = app or flask.Flask(__name__)

    @made.get("/clients/<int:number>")
    @public
    def client(number: int) -> dict[str, Any]:
        request = flask.request
        assert request.url_rule is not None
        assert request.view_args is not None
        number = request.view_args.pop("number")  # what a view does to its arguments is its own business
        return {"number": number, "rule": request.url_rule.rule, "next": flask.url_for("client", number=number + 1)}

    @made.get("/plain")
    @public
    def plain() -> str:
        return "plain"

    @made.get("/about")
    @public
    def about() -> dict[str, str]:
        return {"url": flask.request.url, "away": flask.url_for("client", number=1, _external=True)}

    return made


def matches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that werkzeug's matcher is asked for."""
    asked: list[str] = []
    match = MapAdapter.match

    def counting(self: MapAdapter, *args: Any, **kwargs: Any) -> Any:
        asked.append(args[0] if args else self.path_info)
        return match(self, *args, **kwargs)

    monkeypatch.setattr(MapAdapter, "match", counting)
    return asked


def shielded(app: Any) -> WsgiDoor | AsgiDoor:
    """Behind the door of its framework."""
    Shield(app, settings=SETTINGS)
    return WsgiDoor(app) if isinstance(app, flask.Flask) else AsgiDoor(app)


def test_flask_is_asked_once_what_serves_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a spelling, however many requests there are; a view is told as ever what serves it."""
    door = shielded(flask_app())
    asked = matches(monkeypatch)
    for _ in range(3):
        answer = door.request("GET", "/clients/7").json
        assert answer == {"number": 7, "rule": "/clients/<int:number>", "next": "/clients/8"}
    assert asked == ["/clients/7"]


def test_flask_binds_addresses_as_ever() -> None:
    """Scheme, host and script name come from the environ when somebody asks for them."""
    answer = shielded(flask_app()).request("GET", "/about", [("host", "portal.example.com")]).json
    assert answer["url"].endswith("://portal.example.com/about")
    assert answer["away"].endswith("://portal.example.com/clients/1")


def test_a_late_rule_that_needs_no_new_view_counts_at_once() -> None:
    """The map has grown, so nothing remembered is believed."""
    app = flask_app()

    @app.get("/other/<name>")
    @public
    def other(name: str) -> str:
        return name

    door = shielded(app)
    assert [door.request("GET", "/other/seven").body for _ in range(2)] == [b"seven"] * 2
    app.url_map.add(Rule("/other/seven", endpoint="plain", methods=["GET"]))
    assert [door.request("GET", "/other/seven").body for _ in range(2)] == [b"plain"] * 2


def test_an_adapter_answers_whatever_else_it_is_asked() -> None:
    """A view may look for other routes."""
    app = flask_app()

    @app.get("/looking")
    @public
    def looking() -> list[str]:
        adapter = flask.globals.request_ctx.url_adapter
        assert adapter is not None
        rule, _ = adapter.match("/about", return_rule=True)
        return [
            rule.endpoint,
            adapter.match("/clients/1")[0],
            adapter.match()[0],
            *sorted(adapter.allowed_methods("/plain")),
        ]

    answer = shielded(app).request("GET", "/looking")
    assert answer.json == ["about", "client", "looking", "GET", "HEAD", "OPTIONS"]


@pytest.mark.parametrize("path", ["/plain", "/loose", "/loose/"])
def test_a_websocket_is_told_of_a_rule_that_takes_none(path: str) -> None:
    """Flask answers it as ever, and no view runs."""

    def made() -> flask.Flask:
        app = flask_app()

        @app.get("/loose/", strict_slashes=False)
        @public
        def loose() -> str:
            return "loose"

        return app

    fields = [("connection", "upgrade"), ("upgrade", "websocket")]
    bare = WsgiDoor(made()).request("GET", path, fields)
    answer = shielded(made()).request("GET", path, fields)
    assert answer.status == bare.status >= 400


def by_host(**options: Any) -> flask.Flask:
    """Each tenant has a host of its own."""
    app = flask.Flask(__name__, **options)
    app.config["SERVER_NAME"] = None if options.get("host_matching") else "example.com"
    named = "host" if options.get("host_matching") else "subdomain"
    domain = ".example.com" if options.get("host_matching") else ""

    @app.get("/clients", **{named: f"<tenant_id>{domain}"})
    def clients(tenant_id: str) -> str:
        return tenant_id

    @app.get("/clients", **{named: f"www{domain}"})
    @public
    def start() -> str:
        return "start"

    return app


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"subdomain_matching": True}, id="subdomains"),
        pytest.param({"host_matching": True, "static_host": "example.com"}, id="hosts"),
    ],
)
def test_rules_may_name_hosts(options: dict[str, Any]) -> None:
    """The rule of this host is found, its parameters are judged; a host that a middleware changes is routed anew."""
    settings = Settings.from_env(environment())
    app = by_host(**options)
    inner = app.wsgi_app

    def changing(environ: dict[str, Any], start: Any) -> Any:
        return inner({**environ, "HTTP_HOST": environ.get("HTTP_X_HOST", environ["HTTP_HOST"])}, start)

    app.wsgi_app = changing  # type: ignore[method-assign]
    Shield(app, settings=settings)
    door = WsgiDoor(app)
    north = ("authorization", f"Bearer {mint_token(settings, tenant='north')}")
    for _ in range(2):
        assert door.request("GET", "/clients", [("host", "north.example.com"), north]).body == b"north"
        assert door.request("GET", "/clients", [("host", "south.example.com"), north]).status == 404
        assert door.request("GET", "/clients", [("host", "www.example.com")]).body == b"start"
        moved = [("host", "north.example.com"), ("x-host", "south.example.com"), north]
        assert door.request("GET", "/clients", moved).status == 500


class Known(BaseConverter):
    """Knows names that come and go."""

    ids: dict[str, Any] = {}  # noqa: RUF012

    def to_python(self, value: str) -> Any:
        """The id of a name, or no match."""
        try:
            return self.ids[value]
        except KeyError:
            raise ValidationError from None


class KnownConvertor(Convertor[Any]):
    """The same for Starlette, where a convertor never declines."""

    regex = "[^/]+"

    def convert(self, value: str) -> Any:
        """The id of a name, or nobody's."""
        return Known.ids.get(value, 0)

    def to_string(self, value: Any) -> str:
        """Its number."""
        return str(value)


def flask_by_name() -> flask.Flask:
    """A view behind a converter of one's own."""
    app = flask.Flask(__name__)
    app.url_map.converters["known"] = Known

    @app.get("/named/<known:thing>")
    @public
    def named(thing: Any) -> str:
        return str(thing)

    return app


def starlette_by_name() -> Starlette:
    """A handler behind a convertor of one's own."""
    register_url_convertor("known", KnownConvertor())

    @public
    async def named(request: Request) -> Response:
        return PlainTextResponse(str(request.path_params["thing"]))

    return Starlette(routes=[Route("/named/{thing:known}", named)])


@pytest.mark.parametrize("make", [flask_by_name, starlette_by_name])
def test_what_a_converter_of_ones_own_made_is_not_remembered(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may make something else of the same text a moment later, or nothing any more."""
    monkeypatch.setattr(Known, "ids", {"north": 1})
    door = shielded(make())
    assert [door.request("GET", "/named/north").body for _ in range(2)] == [b"1", b"1"]
    Known.ids["north"] = 2
    assert [door.request("GET", "/named/north").body for _ in range(2)] == [b"2", b"2"]
    Known.ids.clear()
    gone = door.request("GET", "/named/north")
    assert (gone.status, gone.body) == (200, b"0") if isinstance(door, AsgiDoor) else gone.status == 404


def test_objects_that_a_converter_made_belong_to_their_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made for one request is not made twice for it: two of them need not be equal."""
    made: list[object] = []

    class Fresh(dict[str, Any]):
        def __getitem__(self, name: str) -> object:
            made.append(object())
            return made[-1]

    monkeypatch.setattr(Known, "ids", Fresh())
    door = shielded(flask_by_name())
    assert [door.request("GET", "/named/x").status for _ in range(2)] == [200, 200]
    assert len(made) == 2


class _Binding(flask.Flask):
    """An application that binds its own way."""

    bound = 0

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Count it."""
        type(self).bound += request is not None
        return super().create_url_adapter(request)


def test_an_application_that_binds_its_own_way_still_does() -> None:
    """Its method is called for each request."""
    door = shielded(flask_app(_Binding(__name__)))
    assert [door.request("GET", "/plain").status for _ in range(2)] == [200, 200]
    assert _Binding.bound == 2


def test_hosts_that_flask_trusts_are_asked_for() -> None:
    """Flask refuses others when it binds; that stays so."""
    _same_as_bare(_trusting)


def _trusting() -> flask.Flask:
    app = flask_app()
    app.config["TRUSTED_HOSTS"] = ["portal.example.com"]
    return app


def _same_as_bare(make: Any) -> None:
    """Whatever this version of Flask makes of a host that is not trusted."""
    bare, door = WsgiDoor(make()), shielded(make())
    for host in ("testserver", "portal.example.com"):
        fields = [("host", host)]
        assert door.request("GET", "/plain", fields).status == bare.request("GET", "/plain", fields).status


class Trusting(flask.Request):
    """Trusts some hosts, whatever the settings say."""

    trusted_hosts = ["portal.example.com"]  # noqa: RUF012


def test_hosts_that_a_class_of_requests_trusts_are_asked_for() -> None:
    """The same where the list stands there."""
    _same_as_bare(_of_trusting_requests)


def _of_trusting_requests() -> flask.Flask:
    app = flask_app()
    app.request_class = Trusting
    return app


class Choosing(Map):
    """Chooses by a field of the request."""

    def bind_to_environ(self, environ: Any, *args: Any, **kwargs: Any) -> MapAdapter:
        """Another path for the second version."""
        found = super().bind_to_environ(environ, *args, **kwargs)
        if environ.get("HTTP_X_VERSION") == "2":
            found.path_info = "/two"
        return found


class Versioned(flask.Flask):
    """Has such a map."""

    url_map_class = Choosing


def test_a_map_with_rules_of_its_own_is_asked() -> None:
    """What it chooses is not what was judged, so it is refused, and not replaced by what was."""
    app = flask_app(Versioned(__name__))

    @app.get("/two")
    @public
    def two() -> str:
        return "two"

    door = shielded(app)
    assert door.request("GET", "/plain").body == b"plain"
    assert door.request("GET", "/plain", [("x-version", "2")]).status == 500


def test_an_adapter_can_be_copied_and_asked_again() -> None:
    """As any other; what a view did to its arguments changes nothing in it."""
    app = flask.Flask(__name__)

    @app.url_value_preprocessor
    def take(endpoint: str | None, values: dict[str, Any] | None) -> None:
        assert values is not None
        values.pop("lang")

    @app.get("/<lang>/page")
    @public
    def page() -> list[Any]:
        adapter = copy(flask.globals.request_ctx.url_adapter)
        assert adapter is not None
        return [adapter.match(return_rule=True)[1], adapter.build("page", {"lang": "de"})]

    door = shielded(app)
    assert [door.request("GET", "/en/page").json for _ in range(2)] == [[{"lang": "en"}, "/de/page"]] * 2


@pytest.mark.parametrize(("change", "status"), [({"PATH_INFO": "/about"}, 500), ({"REQUEST_METHOD": "POST"}, 405)])
def test_what_a_middleware_changes_on_the_way_is_routed_anew(change: dict[str, str], status: int) -> None:
    """Then the view that would run is not the one that was judged, and none does."""
    app = flask_app()
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner({**environ, **change}, start)  # type: ignore[method-assign]
    assert shielded(app).request("GET", "/clients/7").status == status


# -- Starlette --------------------------------------------------------------------------------------------------------


class Counting(Route):
    """Tells who was asked whether they match."""

    asked: list[str] = []  # noqa: RUF012

    def matches(self, scope: Any) -> Any:
        """As ever."""
        self.asked.append(self.path)
        return super().matches(scope)


Counting.matches.__module__ = Route.matches.__module__  # matches by the framework's own rules


@public
async def told(request: Request) -> Response:
    """What the framework's own scope says."""
    parameters = ",".join(f"{name}={value}" for name, value in request.path_params.items())
    return PlainTextResponse(f"{request.url.path} {parameters} {request.scope['router'] is request.app.router}")


def test_starlette_asks_only_the_route_that_was_found() -> None:
    """Of however many there are; the router that applications see is theirs."""
    routes = [Counting(f"/before/{number}/{{name}}", told) for number in range(20)]
    door = shielded(Starlette(routes=[*routes, Counting("/clients/{number:int}", told)]))
    assert door.request("GET", "/clients/6").status == 200  # the start asks all of them
    Counting.asked.clear()
    for _ in range(2):
        assert door.request("GET", "/clients/7").body == b"/clients/7 number=7 True"
    assert Counting.asked == ["/clients/{number:int}"] * 2


def test_mounted_routers_ask_only_the_routes_on_the_way() -> None:
    """Each router on the way asks the one that leads on."""
    inner = Router([*[Counting(f"/x{number}", told) for number in range(9)], Counting("/clients/{name}", told)])
    outer = Mount("/deep", routes=[Counting("/x", told), Mount("/er", inner)])
    door = shielded(Starlette(routes=[Counting("/first", told), outer, Route("/", told)]))
    assert door.request("GET", "/").status == 200
    Counting.asked.clear()
    assert door.request("GET", "/deep/er/clients/a").body == b"/deep/er/clients/a name=a True"
    assert Counting.asked == ["/clients/{name}"]


def test_included_routers_serve_as_ever() -> None:
    """A prefix, a parameter in it, and the first of two that match."""
    router = APIRouter(prefix="/tenants/{tenant}")

    @router.get("/clients/{number}")
    @public
    async def client(tenant: str, number: int) -> dict[str, Any]:
        return {"tenant": tenant, "number": number}

    app = FastAPI()

    @app.get("/tenants/first/clients/{number}")
    @public
    async def first(number: int) -> dict[str, Any]:
        return {"first": number}

    app.include_router(router, prefix="/v1")
    app.include_router(router)
    door = shielded(app)
    for _ in range(2):
        assert door.request("GET", "/tenants/north/clients/3").json == {"tenant": "north", "number": 3}
        assert door.request("GET", "/v1/tenants/north/clients/4").json == {"tenant": "north", "number": 4}
        assert door.request("GET", "/tenants/first/clients/5").json == {"first": 5}


class CountingApiRoute(APIRoute):
    """The same for FastAPI."""

    def matches(self, scope: Any) -> Any:
        """As ever."""
        Counting.asked.append(self.path)
        return super().matches(scope)


CountingApiRoute.matches.__module__ = APIRoute.matches.__module__


def included(routes: int) -> tuple[FastAPI, APIRouter]:
    """An application whose routes are included, twice deep."""
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(route_class=CountingApiRoute)
    for number in range(routes):

        @inner.get(f"/clients{number}/{{name}}")
        @public
        async def client(name: str, request: Request) -> dict[str, Any]:
            return {"name": name, "path": request.url.path, "of": str(request.url_for("client", name="b"))}

    outer.include_router(inner, prefix="/inner")
    app.include_router(outer)
    return app, inner


def test_included_routers_ask_only_the_route_that_was_found() -> None:
    """However many there are; FastAPI from 0.137 asks once more for each router around it."""
    app, _ = included(20)
    door = shielded(app)
    told = door.request("GET", "/outer/inner/clients19/a").json
    assert told == {
        "name": "a",
        "path": "/outer/inner/clients19/a",
        "of": "http://portal.example.com/outer/inner/clients0/b",
    }
    Counting.asked.clear()
    assert door.request("GET", "/outer/inner/clients19/a").json == told
    assert len(set(Counting.asked)) == 1
    assert len(Counting.asked) <= 3
    assert door.request("POST", "/outer/inner/clients19/a").status == 405


def test_a_late_route_of_an_included_router_is_found() -> None:
    """What was known of the router is forgotten when it grows, where FastAPI itself serves such a route."""
    app, inner = included(3)
    door = shielded(app)
    assert door.request("GET", "/outer/inner/clients0/a").status == 200
    before = door.request("GET", "/outer/inner/late").status

    @inner.get("/late")
    @public
    async def late() -> dict[str, str]:
        return {"late": "yes"}

    served = any(getattr(context, "path", "") == "/outer/inner/late" for context in contexts_of(app))
    assert door.request("GET", "/outer/inner/late").status == (200 if served else before)
    assert door.request("GET", "/outer/inner/clients0/a").status == 200


def contexts_of(app: FastAPI) -> list[Any]:
    """All effective routes, where FastAPI lists them."""
    listing = getattr(fastapi.routing, "iter_route_contexts", None)
    return list(listing(app.routes)) if listing is not None else list(app.routes)


@public
async def old(request: Request) -> Response:
    """What was there at the start."""
    return PlainTextResponse("old")


@public
async def new(request: Request) -> Response:
    """What came later."""
    return PlainTextResponse("new")


def test_a_route_that_was_replaced_serves_nothing_unjudged() -> None:
    """The list is as long as before, and its end the same: what runs is not what was judged, and is refused."""
    app = Starlette(routes=[Route("/first", told), Route("/page", old), Route("/last", told)])
    door = shielded(app)
    assert door.request("GET", "/page").body == b"old"
    app.router.routes[1] = Route("/page", new)
    assert door.request("GET", "/page").status == 500


def test_a_route_that_took_the_place_of_the_last_is_found() -> None:
    """As many as before, but another last one."""
    app = Starlette(routes=[Route("/first", told), Route("/page", old)])
    door = shielded(app)
    assert door.request("GET", "/page").body == b"old"
    app.router.routes[1] = Route("/page", new)
    assert door.request("GET", "/page").body == b"new"
    assert door.request("GET", "/page").body == b"new"


def test_a_route_that_took_the_place_of_an_included_one_is_found() -> None:
    """Where FastAPI itself notices: from 0.137 on, when it is told of the new one."""
    app, inner = included(3)
    door = shielded(app)
    assert door.request("GET", "/outer/inner/clients2/a").status == 200
    inner.routes.pop()

    @inner.get("/clients9/{name}")
    @public
    async def client(name: str) -> dict[str, str]:
        return {"nine": name}

    paths = {getattr(context, "path", "") for context in contexts_of(app)}
    for name in ("clients2", "clients9"):
        served = door.request("GET", f"/outer/inner/{name}/a").status == 200
        assert served is (f"/outer/inner/{name}/{{name}}" in paths)


class LastWins(Router):
    """Chooses in an order of its own, where it is told to."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The last one that matches."""
        if (b"x-order", b"last") not in scope["headers"]:
            await super().app(scope, receive, send)
            return
        for route in reversed(self.routes):
            match, child = route.matches(scope)
            if match == Match.FULL:
                scope.update(child)
                await route.handle(scope, receive, send)
                return


def test_a_router_with_rules_of_its_own_is_asked() -> None:
    """What it chooses is not what was judged, so it is refused, and not replaced by what was."""
    inner = LastWins([Route("/page", old), Route("/{name}", new), Route("/other", old)])
    door = shielded(Starlette(routes=[Mount("/deep", inner)]))
    assert door.request("GET", "/deep/page").body == b"old"
    assert door.request("GET", "/deep/page", [("x-order", "last")]).status == 500


class Moody(Route):
    """Matches by rules of its own."""

    def matches(self, scope: Any) -> Any:
        """Not when they are told."""
        if (b"x-mood", b"bad") in scope["headers"]:
            return Match.NONE, {}
        return super().matches(scope)


def test_a_route_with_rules_of_its_own_leaves_the_choice_to_the_router() -> None:
    """All are asked: where it declines, the next one that has the same handler serves."""
    routes: list[BaseRoute] = [Moody("/page", told), Route("/page", told)]
    door = shielded(Starlette(routes=routes))
    for mood in ("good", "bad"):
        assert door.request("GET", "/page", [("x-mood", mood)]).body == b"/page  True"


class Marking:
    """A router's own middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Marks the request."""
        await self.app({**scope, "state": {**scope.get("state", {}), "marked": True}}, receive, send)


def test_middleware_of_a_router_runs() -> None:
    """A router that has some is asked as ever."""

    @public
    async def marked(request: Request) -> Response:
        return PlainTextResponse(str(getattr(request.state, "marked", False)))

    inner = Router([Route("/a", told), Route("/marked", marked)], middleware=[Middleware(Marking)])
    door = shielded(Starlette(routes=[Route("/marked", marked), Mount("/deep", inner)]))
    assert door.request("GET", "/deep/marked").body == b"True"
    assert door.request("GET", "/marked").body == b"False"


def test_nobody_is_led_where_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test finds out, and the application is served as if there were no such thing."""

    async def nowhere(*_: Any) -> None:
        """A framework that works in another way."""

    monkeypatch.setattr("portalshield.starlette.listing.Way.app", property(lambda self: nowhere))
    door = shielded(Starlette(routes=[Route("/first", told), Mount("/deep", routes=[Route("/clients/{name}", told)])]))
    for _ in range(2):
        assert door.request("GET", "/deep/clients/a").body == b"/deep/clients/a name=a True"
        assert door.request("GET", "/first").body == b"/first  True"


def test_a_method_that_is_served_elsewhere_is_told_there() -> None:
    """A route that has the path and not the method does not hide a mount behind it."""

    def made() -> Starlette:
        return Starlette(
            routes=[
                Route("/{name}/x", told, methods=["POST"]),
                Mount("/app", routes=[Route("/x", told, methods=["PUT"])]),
                Mount("/other", Router(default=PlainTextResponse("other"))),
            ]
        )

    bare, door = AsgiDoor(made()), shielded(made())
    for path in ("/app/x", "/other/x", "/third/x"):
        expected, answer = bare.request("GET", path), door.request("GET", path)
        assert (answer.status, answer.get("allow"), answer.body) == (
            expected.status,
            expected.get("allow"),
            expected.body,
        )
