"""Nothing of a request stays behind it: no cycle for the collector, no text that a client makes long."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from conftest import MakePortal
from portalshield.model.exchange import Exchange
from portalshield.runtime import Runtime


def exchanges() -> int:
    """How many are alive."""
    return sum(type(thing) is Exchange for thing in gc.get_objects())


def runtime_of(portal: Any) -> Runtime:
    """The compiled application."""
    found = portal.shield.protection._runtime
    assert isinstance(found, Runtime)
    return found


REQUESTS: list[Any] = [
    pytest.param("GET", "/me", b"", id="answered"),
    pytest.param("POST", "/search", b'{"tenant_id": "north"}', id="with a body"),
    pytest.param("POST", "/search", b'{"tenant_id": "south"}', id="refused"),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_a_request_is_gone_when_it_is_over(make_portal: MakePortal, method: str, path: str, body: bytes) -> None:
    """Without the collector: bodies would wait for it. (Flask's own 404 is a cycle: the error holds its frames.)"""
    portal = make_portal()
    headers = [*portal.bearer(), ("content-type", "application/json")]
    for _ in range(2):
        portal.request(method, path, headers, body)
    gc.collect()
    gc.disable()
    try:
        before = exchanges()
        for _ in range(20):
            portal.request(method, path, headers, body)
        # The one that an error report may ask for is kept (`context.LAST`).
        assert exchanges() - before <= 1
    finally:
        gc.enable()


def test_long_paths_are_not_remembered(make_portal: MakePortal) -> None:
    """Thousands of them would stay, and nobody has to be somebody to ask for them."""
    portal = make_portal()
    portal.request("GET", "/me", portal.bearer())
    known = runtime_of(portal).known
    assert len(known) == 1
    for number in range(3):
        path = f"/v1/nested/tenants/north/clients/{'x' * 600}{number}"
        assert portal.request("GET", path, portal.bearer()).status == 200
    assert len(runtime_of(portal).known) == 1


@pytest.mark.parametrize(("length", "more"), [(100, 3), (300, 0)])
def test_long_origins_are_not_remembered(make_portal: MakePortal, length: int, more: int) -> None:
    """Of refusals, which show them to nobody."""
    portal = make_portal({"CORS__ALLOW_ORIGINS": "https://app.example.com"})

    def remembered() -> int:
        plans = runtime_of(portal).table.plans()
        return sum(len(plan.ready) + len(plan.ready_text) for plan in {id(plan): plan for plan in plans}.values())

    portal.request("GET", "/me")
    before = remembered()
    for number in range(3):
        assert portal.request("GET", "/me", [("origin", f"https://{'x' * length}{number}.example")]).status == 401
    assert remembered() - before == more
