"""The route that the policy was applied to is the one that runs, and the application does not look for it again."""

from __future__ import annotations

from typing import Any

import fastapi.routing
import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from werkzeug.routing import BaseConverter, MapAdapter, Rule

from portalshield import Settings, Shield, public
from portalshield.testing import environment

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

    @app.get("/static/page")
    @public
    def page() -> str:
        return "page"

    @app.get("/other/<name>")
    @public
    def other(name: str = "none") -> str:
        return name

    door = shielded(app)
    assert door.request("GET", "/other/page").body == b"page"
    app.url_map.add(Rule("/other/page", endpoint="page", methods=["GET"]))
    assert door.request("GET", "/other/page").body == b"page"
    app.url_map.add(Rule("/other/seven", endpoint="page", methods=["GET"]))
    assert door.request("GET", "/other/seven").body == b"page"


class Told(BaseConverter):
    """Makes an object of its own for each request."""

    def to_python(self, value: str) -> Any:
        """Equal to nothing but itself."""
        return [value, object()]


def test_arguments_that_a_converter_made_belong_to_their_request() -> None:
    """What was made for one request is not handed to another, nor made twice for one."""
    app = flask.Flask(__name__)
    app.url_map.converters["told"] = Told
    seen: list[Any] = []

    @app.get("/told/<told:thing>")
    @public
    def told(thing: Any) -> str:
        seen.append(thing)
        return str(thing[0])

    door = shielded(app)
    assert [door.request("GET", "/told/x").body for _ in range(2)] == [b"x", b"x"]
    assert seen[0][1] is not seen[1][1]


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
    assert [door.request("GET", "/clients/7").status for _ in range(2)] == [200, 200]
    assert _Binding.bound == 2


def test_hosts_that_flask_trusts_are_asked_for() -> None:
    """Flask refuses others when it binds; that stays so."""
    app = flask_app()
    app.config["TRUSTED_HOSTS"] = ["portal.example.com"]
    door = shielded(app)
    assert door.request("GET", "/clients/7", [("host", "testserver")]).status == 400
    assert door.request("GET", "/clients/7", [("host", "portal.example.com")]).status == 200


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


def test_a_route_that_was_replaced_serves_nothing_unjudged() -> None:
    """The list is as long as before, so nobody looked: what runs is not what was judged, and is refused."""

    @public
    async def old(request: Request) -> Response:
        return PlainTextResponse("old")

    async def new(request: Request) -> Response:
        return PlainTextResponse("new")

    app = Starlette(routes=[Route("/first", told), Route("/page", old)])
    door = shielded(app)
    assert door.request("GET", "/page").body == b"old"
    app.router.routes[1] = Route("/page", new)
    assert door.request("GET", "/page").status == 500


class Moody(Route):
    """Matches by rules of its own."""

    def matches(self, scope: Any) -> Any:
        """Not when they are told."""
        if (b"x-mood", b"bad") in scope["headers"]:
            return Match.NONE, {}
        return super().matches(scope)


def test_a_route_with_rules_of_its_own_leaves_the_choice_to_the_router() -> None:
    """All are asked, so the answer is what it was without the shield, or a refusal."""

    async def moody(request: Request) -> Response:
        return PlainTextResponse("moody")

    routes: list[BaseRoute] = [Moody("/page", public(moody)), Route("/page", told)]
    door = shielded(Starlette(routes=routes))
    assert door.request("GET", "/page").body == b"moody"
    assert door.request("GET", "/page", [("x-mood", "bad")]).status == 500
