"""The contract runs through both doors: one portal on FastAPI, the same on Flask, each behind `Shield(app)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from doors import Answer, AsgiDoor, WsgiDoor
from portals import fastapi_portal, flask_portal

from portalshield import Settings, Shield
from portalshield.telemetry import clock  # noqa: F401  (imported early: warnings are errors)
from portalshield.testing.tokens import environment, mint_token

ORIGIN = "https://app.example.com"


@dataclass
class Portal:
    """A shielded portal behind one door. `calls` lists the handlers that ran."""

    door: AsgiDoor | WsgiDoor
    app: Any
    shield: Shield
    settings: Settings
    calls: list[str]

    @property
    def name(self) -> str:
        """asgi or wsgi."""
        return self.door.name

    def token(self, tenant: str | None = "north", **claims: Any) -> str:
        """A valid token of a tenant."""
        return mint_token(self.settings, tenant=tenant, **claims)

    def bearer(self, tenant: str | None = "north", **claims: Any) -> list[tuple[str, str]]:
        """The Authorization field with such a token."""
        return [("authorization", f"Bearer {self.token(tenant, **claims)}")]

    def request(self, method: str, target: str, headers: Any = (), body: Any = b"", **more: Any) -> Answer:
        """Send one request."""
        return self.door.request(method, target, headers, body, **more)

    def json(self, method: str, target: str, document: bytes, headers: Any = ()) -> Answer:
        """Send a JSON body."""
        return self.request(method, target, [*headers, ("content-type", "application/json")], document)


MakePortal = Callable[..., Portal]
FAULTS = pytest.StashKey[list[tuple[str, str, str, str, str]]]()
"""Rows of the table of faults: fault, door, milliseconds of the first request, of the median one, answers."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what each fault of the store cost, where those tests ran."""
    rows = config.stash.get(FAULTS, [])
    if not rows:
        return
    terminalreporter.section("faults of the store")
    for row in (("fault", "door", "first ms", "median ms", "answers"), *rows):
        terminalreporter.write_line("{:32} {:5} {:>9} {:>10}  {}".format(*row))


def portal_behind(
    door: str, env: dict[str, str] | None = None, prepare: Callable[[Any], None] | None = None, **more: Any
) -> Portal:
    """A portal behind `asgi` or `wsgi`; `env` are names without prefix, `more` the keywords of `Shield`."""
    app, calls = fastapi_portal() if door == "asgi" else flask_portal()
    if prepare is not None:
        prepare(app)
    settings = Settings.from_env(environment(**{"CORS__ALLOW_ORIGINS": ORIGIN, **(env or {})}))
    shield = Shield(app, settings=settings, **more)
    return Portal(AsgiDoor(app) if door == "asgi" else WsgiDoor(app), app, shield, settings, calls)


@pytest.fixture(params=["asgi", "wsgi"])
def make_portal(request: pytest.FixtureRequest) -> MakePortal:
    """Makes a portal behind the parametrised door, with the arguments of `portal_behind`."""
    return partial(portal_behind, request.param)


@pytest.fixture
def portal(make_portal: MakePortal) -> Portal:
    """The portal with the variables of a test run."""
    return make_portal()


@pytest.fixture(scope="module")
def own_redis() -> Iterator[Any]:
    """A redis-server of the module's own."""
    from redis_server import Server  # skips where there is none

    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["memory", "redis"])
def storage(request: pytest.FixtureRequest) -> str:
    """An address for `STORAGE`, with nothing in it."""
    if request.param == "memory":
        return "memory://"
    server = request.getfixturevalue("own_redis")
    server.admin("FLUSHALL")
    return str(server.uri)


# -- what is processed once: each module makes its own callers (`make_caller`) ----------------------------------------


@pytest.fixture
def caller(make_caller: Any) -> Any:
    """With records in memory."""
    return make_caller()


@pytest.fixture
def kept(make_caller: Any, storage: str) -> Any:
    """With records in memory, and with records on Redis."""
    return make_caller({"STORAGE": storage})
