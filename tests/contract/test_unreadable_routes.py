"""Routes that the shield cannot look into stop the start, with an id."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route

from portalshield import ConfigurationError, Settings, Shield, public
from portalshield.testing import environment


async def page(request: Request) -> Response:
    """Served by whatever leads here."""
    return PlainTextResponse("page")


class Own(BaseRoute):
    """A kind of route that nobody knows."""


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param([Host("a.example.com", Starlette())], ["PS-ROUTE-001"], id="by host"),
        pytest.param([Own(), Own()], ["PS-ROUTE-001", "PS-ROUTE-001"], id="of its own kind"),
        pytest.param([Mount("/{id}", routes=[Route("/{id}", page)])], ["PS-ROUTE-002"], id="a name twice"),
        pytest.param([Mount("/{id}", routes=[Mount("/a", routes=[Own()])])], ["PS-ROUTE-001"], id="mounted"),
    ],
)
def test_a_route_that_cannot_be_read_stops_the_start(routes: list[BaseRoute], expected: list[str]) -> None:
    """All of them at once, before anything is served."""
    app = Starlette(routes=routes)
    shield = Shield(app, settings=Settings.from_env(environment(AUTH="none")))
    with pytest.raises(ConfigurationError) as refused:
        shield.protection.open(lambda b, rows: _tabulate(app, b, rows), has_inner=False)
    assert [problem.id for problem in refused.value.problems] == expected


def _tabulate(app: Starlette, b: object, rows: object) -> object:
    from portalshield.starlette import tabulate

    return tabulate(app, b, rows)  # type: ignore[arg-type]


def test_what_is_included_may_name_a_parameter_twice_only_where_fastapi_allows_it() -> None:
    """FastAPI from 0.137 finds out when it is asked; then it is told like any other."""
    inner, outer, app = APIRouter(prefix="/{id}"), APIRouter(prefix="/{id}"), FastAPI()
    inner.get("/x")(public(lambda id: id))
    try:
        outer.include_router(inner)
        app.include_router(outer)
    except ValueError:
        return  # older ones refuse it by themselves
    shield = Shield(app, settings=Settings.from_env(environment(AUTH="none")))
    with pytest.raises(ConfigurationError) as refused:
        shield.protection.open(lambda b, rows: _tabulate(app, b, rows), has_inner=False)
    assert [problem.id for problem in refused.value.problems] == ["PS-ROUTE-002"]
