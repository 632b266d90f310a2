"""A route may take spellings of its path that no other route gets; what they address is judged all the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from doors import WsgiDoor
from flask import Flask

from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, Settings, Shield, protect
from portalshield.testing import environment
from portalshield.wsgi import ShieldMiddleware

TAKES = Policy("GET /tenants/{tenant_id}/files/*", allow_path=["encoded-slash", "double-slash", "parameter"])


def with_files(app: Any, seen: list[str]) -> None:
    """A route whose last parameter takes the rest of the path."""
    if isinstance(app, Flask):
        app.url_map.merge_slashes = False

        @app.get("/tenants/<tenant_id>/files/<path:name>")
        def read(tenant_id: str, name: str) -> dict[str, str]:
            seen.append(name)
            return {"tenant_id": tenant_id, "name": name}

        return

    @app.get("/tenants/{tenant_id}/files/{name:path}")
    async def read_file(tenant_id: str, name: str) -> dict[str, str]:
        seen.append(name)
        return {"tenant_id": tenant_id, "name": name}


@pytest.fixture
def seen() -> list[str]:
    """What the handler was given."""
    return []


@pytest.fixture
def portal(make_portal: MakePortal, seen: list[str]) -> Portal:
    """A portal in which that route takes encoded slashes, double ones and parameters."""
    return make_portal(prepare=partial(with_files, seen=seen), policies=[TAKES])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param("/tenants/north/files/a%2Fb", "a/b", id="encoded slash"),
        pytest.param("/tenants/north/files/a//b", "a//b", id="double slash"),
        pytest.param("/tenants/north/files/a;v=1", "a;v=1", id="parameter"),
        pytest.param("/tenants/north/files/a%2Fb//c;d", "a/b//c;d", id="all of them"),
    ],
)
def test_what_a_route_takes_reaches_it(portal: Portal, seen: list[str], path: str, name: str) -> None:
    """As the framework reads it, the second time too."""
    for _ in range(2):
        assert portal.request("GET", path, portal.bearer(), lint=False).status == 200
    assert seen == [name, name]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/tenants/north/files/../clients/7", id="dot segment"),
        pytest.param("/tenants/north/files/a%2F..%2Fb", id="dot segment between encoded slashes"),
        pytest.param("/tenants/north/files/..;/b", id="dot segment with a parameter"),
        pytest.param("/tenants/north/files/a%00", id="control"),
        pytest.param("/tenants/north/files/a%5Cb", id="backslash, which it does not take"),
        pytest.param("/tenants/north/files/a%252Fb", id="encoded twice, which it does not take"),
        pytest.param("/tenants/north//files/a%2Fb/..", id="several, one of them never"),
    ],
)
def test_what_it_does_not_take_is_refused(portal: Portal, seen: list[str], path: str) -> None:
    """400, and no handler runs."""
    answer = portal.request("GET", path, portal.bearer(), lint=False)
    assert (answer.status, seen) == (400, [])


@pytest.mark.parametrize(
    "path", ["/tenants/north/clients//7", "/tenants/north%2Fclients/7", "//tenants/north/clients/7", "/public;x"]
)
def test_no_other_route_gets_them(portal: Portal, path: str) -> None:
    """The opt-in of one route is nobody else's."""
    answer = portal.request("GET", path, portal.bearer(), lint=False)
    assert (answer.status, portal.calls) == (400, [])


@pytest.mark.parametrize(
    "path",
    [
        "/tenants/south/files/a%2Fb",
        "/tenants/south/files//north",
        "/tenants/south%2Ffiles/a//b",
        "/tenants/south;north/files/a//b",
        "//tenants/south/files/a",
        "/tenants//south/files/a",
    ],
)
def test_a_user_of_a_cannot_reach_b_by_it(portal: Portal, seen: list[str], path: str) -> None:
    """The tenant in the path is compared as the framework hands it over."""
    answer = portal.request("GET", path, portal.bearer(), lint=False)
    assert answer.status in (400, 404)
    assert seen == []


def test_without_a_credential_nothing_opens(portal: Portal, seen: list[str]) -> None:
    """It is a protected route like any other."""
    assert (portal.request("GET", "/tenants/north/files/a%2Fb", [], lint=False).status, seen) == (401, [])


EVERYTHING = ["encoded-slash", "encoded-backslash", "double-slash", "parameter", "percent", "not-nfc"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("%252e%252e/south", id="dots encoded twice"),
        pytest.param("%252E./south", id="one of them"),
        pytest.param("a%252f%252e%252e%252fb", id="with their slashes"),
        pytest.param("%25252e%25252e/x", id="three times"),
        pytest.param("%2525252525252e/x", id="more often than anybody means it"),
        pytest.param("%2500", id="NUL encoded twice"),
        pytest.param(";%5C..%5C..%5Csouth", id="behind a parameter"),
        pytest.param(";%252f..%252f..", id="behind a parameter, encoded"),
        pytest.param("..%CD%BE/x", id="a Greek question mark, which NFC makes a semicolon"),
        pytest.param("%EF%BC%8E%EF%BC%8E/x", id="full-width dots"),
    ],
)
def test_dots_and_controls_pass_in_no_reading(make_portal: MakePortal, seen: list[str], name: str) -> None:
    """Also where a route takes every other spelling."""
    takes = Policy("GET /tenants/{tenant_id}/files/*", allow_path=EVERYTHING)
    portal = make_portal(prepare=partial(with_files, seen=seen), policies=[takes])
    answer = portal.request("GET", f"/tenants/north/files/{name}", portal.bearer(), lint=False)
    assert (answer.status, seen) == (400, [])


def test_an_application_that_cannot_be_read_takes_none() -> None:
    """Nobody knows what it makes of such a path: the start stops."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError("nobody comes this far")

    shield = Shield(settings=Settings.from_env(environment()), policies=[TAKES])
    with pytest.raises(ConfigurationError) as caught:
        shield.protection.open_opaque()
    assert [problem.id for problem in caught.value.problems] == ["PS-POLICY-005"]
    door = WsgiDoor(ShieldMiddleware(application, shield))
    assert door.request("GET", "/tenants/north/files/a", []).status == 503


@pytest.mark.parametrize("kinds", [["dot-segment"], ["control"], ["everything"], "encoded-slash"])
def test_what_nobody_may_take_is_an_error(kinds: Any) -> None:
    """Where it is written."""
    with pytest.raises(TypeError, match="allow_path"):
        protect(allow_path=kinds)


def test_a_wrong_word_in_a_policy_file_stops_the_start(make_portal: MakePortal, tmp_path: Any) -> None:
    """With all other mistakes."""
    file = tmp_path / "policies.toml"
    file.write_text('[[route]]\nmatch = "GET /public"\nallow_path = ["dots"]\n')
    with pytest.raises(ConfigurationError) as caught:
        make_portal({"POLICY_FILE": str(file)})
    assert [problem.id for problem in caught.value.problems] == ["PS-POLICY-002"]
