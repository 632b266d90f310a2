"""A route that is added after the start has its own policy, or nobody comes in."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask

from conftest import MakePortal
from portalshield import Policy, protect

WRONG = [
    pytest.param({"limits": ["bogus"]}, id="no quota"),
    pytest.param({"max_body": "bogus"}, id="no size"),
    pytest.param({"mode": "bogus"}, id="no mode"),
]


def add(app: Any, path: str, terms: dict[str, Any], calls: list[str]) -> None:
    """A route that comes late; Flask only takes one by force."""
    if isinstance(app, Flask):

        def view() -> dict[str, str]:
            calls.append(path)
            return {}

        app._got_first_request = False
        app.add_url_rule(path, path, protect(**terms)(view))
        return

    async def handler() -> dict[str, str]:
        calls.append(path)
        return {}

    app.get(path)(protect(**terms)(handler))


@pytest.mark.parametrize("terms", WRONG)
def test_a_late_route_with_a_wrong_policy_lets_nobody_in(
    make_portal: MakePortal, caplog: pytest.LogCaptureFixture, terms: dict[str, Any]
) -> None:
    """500 and a line in the log: neither the strict default nor what was meant can be known."""
    portal = make_portal()
    assert portal.request("GET", "/me", portal.bearer()).status == 200
    portal.calls.clear()
    add(portal.app, "/late", {"roles": ["staff"], **terms}, portal.calls)
    with caplog.at_level(logging.ERROR, "portalshield"):
        for headers in ([], portal.bearer(), portal.bearer(roles=["staff"])):
            assert portal.request("GET", "/late", headers).status == 500
    assert portal.calls == []
    assert "PS-POLICY-004" in caplog.text
    assert portal.request("GET", "/me", portal.bearer()).status == 200


def test_a_late_route_with_a_right_policy_has_it(make_portal: MakePortal) -> None:
    """As if it had been there from the start."""
    portal = make_portal()
    assert portal.request("GET", "/me", portal.bearer()).status == 200
    add(portal.app, "/late", {"roles": ["staff"]}, portal.calls)
    assert portal.request("GET", "/late", portal.bearer()).status == 403
    assert portal.request("GET", "/late", portal.bearer(roles=["staff"])).status == 200


def test_what_serves_a_path_is_remembered(make_portal: MakePortal) -> None:
    """The second request for it asks no table; a late route makes everything be asked again."""
    portal = make_portal()
    for _ in range(2):
        assert portal.request("GET", "/me", portal.bearer()).status == 200
    runtime = portal.shield.protection._runtime
    assert runtime is not None
    assert [spelling[:2] for spelling in runtime.known] == [("GET", "/me")]
    add(portal.app, "/late", {}, portal.calls)
    assert portal.request("GET", "/late", portal.bearer()).status == 200
    assert [spelling[:2] for spelling in runtime.known] == [("GET", "/late")]


@pytest.mark.parametrize("order", [("POST", "GET"), ("GET", "POST")])
def test_what_is_known_of_a_path_is_known_for_its_method_alone(make_portal: MakePortal, order: tuple[str, str]) -> None:
    """Each method keeps its own policy, whichever of them was asked for first."""
    roles = {"POST": "staff", "GET": "admin"}
    portal = make_portal(policies=[Policy(f"{method} /search", roles=[role]) for method, role in roles.items()])
    for _ in range(2):
        for method in order:
            answers = [portal.request(method, "/search", portal.bearer(roles=[role])) for role in ("staff", "admin")]
            assert [answer.status for answer in answers] == {"POST": [200, 403], "GET": [403, 200]}[method], method
