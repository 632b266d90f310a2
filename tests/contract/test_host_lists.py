"""Hosts through both doors: what is served, what is foreign (421), what is no host (400)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from connections import asgi_shielded, http_scope, run

from conftest import ORIGIN, MakePortal, Portal, portal_behind
from portalshield import ConfigurationError, Settings
from portalshield.testing import environment

LIST = "portal.example.com,*.preview.example.com,admin.example.com:8443,192.0.2.7,[2001:db8::7]"
LISTED = {"HOSTS": LIST, "HEALTH": "GET /public", "RATE__PER_IP": "1000000/minute"}

SERVED = [
    *("portal.example.com", "PORTAL.Example.com", "portal.example.com:8000", "x.preview.example.com"),
    *("x-1.preview.example.com:8443", "admin.example.com:8443", "192.0.2.7:80", "[2001:DB8::7]", "[2001:db8::7]:80"),
]
FOREIGN = [
    *("evil.example", "portal.example.com.", "portal.example.com.evil.example", "evilportal.example.com"),
    *("a.b.preview.example.com", "preview.example.com", "admin.example.com", "admin.example.com:8444"),
    *("localhost", "127.0.0.1", "192.0.2.8", "[2001:db8::8]", "[2001:db8:0:0:0:0:0:7]", "xn--portal-.example.com"),
]
MALFORMED = [
    *(
        "user@portal.example.com",
        "portal.example.com@evil.example",
        "portal.example.com/health",
        "portal.example.com?x",
    ),
    *("portal.example.com#x", "portal.example.com\\x", "portal.example.com,evil.example", "portal.example.com evil"),
    *("portal.example.com:", "portal.example.com:80:80", "portal.example.com:99999", "portal.example.com:8x", "[::1"),
    *("http://portal.example.com", "portal..example.com", ".example.com", "[fe80::1%25eth0]", "%70ortal.example.com"),
    *("p\xf6rtal.example.com", "a" * 300),
]


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def listed(request: pytest.FixtureRequest) -> Portal:
    """A portal with a list; its public route is the health route too."""
    return portal_behind(request.param, LISTED)


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def unlisted(request: pytest.FixtureRequest) -> Portal:
    """A portal that serves any host."""
    return portal_behind(request.param, {"RATE__PER_IP": "1000000/minute"})


class TestTheList:
    """`HOSTS`."""

    @pytest.mark.parametrize("host", SERVED)
    def test_served(self, listed: Portal, host: str) -> None:
        """Exact names in any case, one label for a star, any port but where one is configured, addresses."""
        assert listed.request("GET", "/search", [("host", host), *listed.bearer()]).status == 200

    @pytest.mark.parametrize("host", FOREIGN)
    def test_foreign(self, listed: Portal, host: str) -> None:
        """421; whether a route exists and whether the caller may is not told."""
        listed.calls.clear()
        answers = [
            listed.request(method, path, [("host", host), *fields])
            for method, path in (("GET", "/search"), ("POST", "/nope"), ("DELETE", "/tenants/south/clients/7"))
            for fields in ([], listed.bearer())
        ]
        assert {(answer.status, answer.slug) for answer in answers} == {(421, "host-not-allowed")}
        bodies = {answer.body.replace((answer.get("x-request-id") or "?").encode(), b"") for answer in answers}
        assert (len(bodies), listed.calls) == (1, [])
        assert host.encode() not in bodies.pop()

    @pytest.mark.parametrize("host", ["10.0.0.7:8000", "evil.example", ""])
    def test_health_routes_are_exempt(self, listed: Portal, host: str) -> None:
        """Load balancers send an address, or nothing."""
        assert listed.request("GET", "/public", [("host", host)]).status == 200
        assert listed.request("POST", "/public", [("host", host)]).status in (400, 421)

    def test_no_host_is_none_that_is_served(self, listed: Portal, unlisted: Portal) -> None:
        """HTTP/1.0 has none; with a list there is nothing to compare."""
        assert listed.request("GET", "/search", [("host", ""), *listed.bearer()]).status == 400
        assert unlisted.request("GET", "/public", [("host", "")]).status == 200

    @pytest.mark.parametrize("name", ["x-forwarded-host", "x-host", "x-original-host", "forwarded", "x-http-host"])
    def test_no_other_field_is_a_host(self, listed: Portal, name: str) -> None:
        """Neither into the list nor out of it."""
        value = "host=portal.example.com" if name == "forwarded" else "portal.example.com"
        assert listed.request("GET", "/search", [("host", "evil.example"), (name, value)]).status == 421
        evil = value.replace("portal.example.com", "evil.example")
        assert listed.request("GET", "/search", [(name, evil), *listed.bearer()]).status == 200

    def test_a_refusal_is_readable_and_comes_before_a_preflight(self, listed: Portal) -> None:
        """The front end may know that it asked the wrong host."""
        preflight = [("origin", ORIGIN), ("access-control-request-method", "PUT"), ("host", "evil.example")]
        answer = listed.request("OPTIONS", "/search", preflight)
        assert (answer.status, answer.get("access-control-allow-origin")) == (421, ORIGIN)

    @pytest.mark.parametrize(
        ("mode", "status"), [("enforce", 421), ("report", 200), ("off", 200)], ids=["enforce", "report", "off"]
    )
    def test_the_layers_mode_decides(self, make_portal: MakePortal, mode: str, status: int) -> None:
        """Report lets pass."""
        portal = make_portal({"HOSTS": LIST, "MODE__HOSTS": mode})
        assert portal.request("GET", "/public", [("host", "evil.example")]).status == status

    def test_a_star_serves_every_host_that_is_one(self, make_portal: MakePortal) -> None:
        """`check` speaks of it (PS-HOST-101)."""
        portal = make_portal({"HOSTS": "*"})
        assert portal.request("GET", "/public", [("host", "any.example")]).status == 200
        assert portal.request("GET", "/public", [("host", "a/b")]).status == 400

    @pytest.mark.parametrize(("host", "kind"), [(b"portal.example.com", "accept"), (b"evil.example", "close")])
    def test_websocket_handshakes_have_a_host_too(self, host: bytes, kind: str) -> None:
        """Refused before they are accepted."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        scope = http_scope(path="/feed", type="websocket", scheme="ws", headers=[(b"host", host)], method=...)
        found = run(asgi_shielded(app, {"HOSTS": LIST}), scope, {"type": "websocket.connect"})
        assert found.kinds == [f"websocket.{kind}"]


class TestMalformedHosts:
    """What is no plain authority is 400 on every request, with and without a list, on health routes too."""

    @pytest.mark.parametrize("host", MALFORMED)
    def test_it_never_arrives(self, listed: Portal, unlisted: Portal, host: str) -> None:
        """Frameworks build addresses from it (CVE-2026-48710)."""
        for portal in (listed, unlisted):
            for path in ("/public", "/search", "/nope"):
                portal.calls.clear()
                answer = portal.request("GET", path, [("host", host)], lint=False)
                assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])

    @pytest.mark.parametrize("second", ["portal.example.com", "evil.example", ""])
    def test_two_are_none(self, unlisted: Portal, second: str) -> None:
        """RFC 9112, 3.2; WSGI servers refuse or join them."""
        hosts = [("host", "portal.example.com"), ("host", second)]
        for fields in (hosts, hosts[::-1]):
            answer = unlisted.request("GET", "/public", fields)
            assert (answer.status, answer.slug) == (400, "malformed-request")


class TestSettings:
    """A list that no Host field can equal."""

    def test_every_wrong_entry_is_told_by_number(self) -> None:
        """PS-HOST-001, never the value."""
        wrong = "ok.example,https://hunter2.example,*.ok.example,hunter2.example/x,*.*.example,hunter2:port"
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(HOSTS=wrong))
        problems = caught.value.problems
        assert {(problem.id, problem.variable) for problem in problems} == {("PS-HOST-001", "PORTALSHIELD_HOSTS")}
        assert [problem.message[:8] for problem in problems] == ["entry 2 ", "entry 4 ", "entry 5 ", "entry 6 "]
        assert all(problem.hint for problem in problems)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("variables", "warned"),
        [
            pytest.param({"ENV": "production"}, True, id="production"),
            pytest.param({"ENV": "production", "HOSTS": LIST}, False, id="production with a list"),
            pytest.param({"ENV": "development"}, False, id="development"),
        ],
    )
    def test_serving_any_host_is_warned_of(
        self, make_portal: MakePortal, caplog: pytest.LogCaptureFixture, variables: dict[str, str], warned: bool
    ) -> None:
        """Once at the start, outside development."""
        with caplog.at_level(logging.WARNING, "portalshield"):
            portal = make_portal(variables)
            for _ in range(3):
                portal.request("GET", "/public")
        assert sum("PORTALSHIELD_HOSTS" in record.getMessage() for record in caplog.records) == int(warned)
