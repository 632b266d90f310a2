"""No spelling of path, method, Host or header opens a protected route or another tenant.

The judge is the bare portal: what the framework alone would run for the same request. Where it runs a protected
handler, the shielded portal must not, unless the caller may.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from doors import Answer, AsgiDoor, WsgiDoor
from portals import fastapi_portal, flask_portal

from conftest import Portal
from portalshield import Settings, Shield
from portalshield.testing import environment

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY", "get", "Post", "GET ", "BREW"]
OPEN = {"public", "public-post"}

# What leads, bare or not, to a handler of tenant south, to a protected one, or nowhere.
SPELLINGS = [
    "/tenants/south/clients/7",
    "//tenants/south/clients/7",
    "///tenants/south/clients/7",
    "/tenants//south/clients/7",
    "/tenants/south//clients/7",
    "/tenants/south/clients//7",
    "/tenants/south/clients/7/",
    "/tenants/south/clients/7//",
    "/./tenants/south/clients/7",
    "/tenants/./south/clients/7",
    "/public/../tenants/south/clients/7",
    "/public/..%2ftenants/south/clients/7",
    "/public/%2e%2e/tenants/south/clients/7",
    "/%2e/tenants/south/clients/7",
    "/tenants/north/../south/clients/7",
    "/tenants/north/%2e%2e/south/clients/7",
    "/tenants/north%2f..%2fsouth/clients/7",
    "/tenants/south%2fclients/7",
    "/tenants/south%2Fclients%2F7",
    "/tenants%2Fsouth%2Fclients%2F7",
    "/%2Ftenants/south/clients/7",
    "/%2ftenants/south/clients/7",
    "/tenants/south%252fclients/7",
    "/tenants/%73outh/clients/7",
    "/%74enants/south/clients/7",
    "/tenants/%2573outh/clients/7",
    "/tenants/south%00/clients/7",
    "/tenants/north%00south/clients/7",
    "/tenants/south%20/clients/7",
    "/tenants/%20south/clients/7",
    "/tenants/south%09/clients/7",
    "/tenants/south%0a/clients/7",
    "/tenants/south%0d%0ax:y/clients/7",
    "/tenants/south%7f/clients/7",
    "/tenants/south;x=1/clients/7",
    "/tenants/south%3bx=1/clients/7",
    "/tenants;/south/clients/7",
    "/public;/../tenants/south/clients/7",
    "/tenants\\south\\clients\\7",
    "/tenants%5csouth%5cclients%5c7",
    "\\tenants/south/clients/7",
    "/public%5c..%5ctenants/south/clients/7",
    "/TENANTS/south/clients/7",
    "/Tenants/South/Clients/7",
    "/tenants/SOUTH/clients/7",
    "/tenants/so%C5%BFuth/clients/7",
    "/tenants/%EF%BD%93outh/clients/7",
    "/tenants/sou%CC%88th/clients/7",
    "/tenants/%C0%AFsouth/clients/7",
    "/tenants/%E0%80%AFsouth/clients/7",
    "/tenants/%FF/clients/7",
    "/tenants/%ED%A0%80/clients/7",
    "/tenants/south/clients/7?tenant_id=north",
    "/tenants/south/clients/7%3Ftenant_id=north",
    "/tenants/south/clients/7%23",
    "/tenants/south/clients/7.json",
    "/tenants/south/clients/7%2e",
    "/tenants/south./clients/7",
    "/tenants/+south/clients/7",
    "/tenants/%2bsouth/clients/7",
    "/tenants/*/clients/7",
    "/tenants/%7Btenant_id%7D/clients/7",
    "/v1/nested/tenants/south/clients/7",
    "/v1//nested/tenants/south/clients/7",
    "/v1/nested/../nested/tenants/south/clients/7",
    "/sub/reports/south",
    "/sub//reports/south",
    "//sub/reports/south",
    "/sub/%2e/reports/south",
    "/sub/reports/south/",
    "/public/../scoped",
    "//scoped",
    "/scoped/",
    "/scoped//",
    "/scoped%2f",
    "/SCOPED",
    "/scoped%00",
    "/scoped;a",
    "/scoped%20",
    "/scoped.",
    "/public/",
    "//public",
    "/publi%63",
    "http://portal.example.com/tenants/south/clients/7",
    "http://portal.example.com/scoped",
    "//evil.example/scoped",
    "scoped",
    "*",
    "",
    "/tenants/south/clients/7/.",
    "/tenants/south/clients/7/..",
    "/tenants/south/clients/%2e%2e/clients/7",
    "/tenants/%2e%2e/tenants/south/clients/7",
    "/tenants/...//south/clients/7",
    "/tenants/south/%2f/clients/7",
    "/tenants/south/clients/7%2f",
    "/tenants/south/clients/7%5c",
    "/tenants/%u0073outh/clients/7",
    "/tenants/sout%68%/clients/7",
    "/tenants/s%C3%B6uth/clients/7",
    "/tenants/%E2%80%AEsouth/clients/7",
    "/tenants/sou%C2%ADth/clients/7",
    "/%EF%BC%8Ftenants/south/clients/7",
    "/tenants/south%EF%BC%8Fclients/7",
    "/%E2%81%84scoped",
    "/sub/%2e%2e/scoped",
    "/sub/..%5cscoped",
    "/sub%2freports%2fsouth",
    "/v1/%2e%2e/sub/reports/south",
    "/scoped%3f",
    "/scoped%23x",
    "/public%00/../scoped",
]
HOSTS = [
    *("portal.example.com", "portal.example.com:80", "PORTAL.example.com", "localhost", "127.0.0.1", "[::1]:80", ""),
    *("localhost.", "my_service:8000"),
]
NO_HOSTS = [
    *("portal.example.com/public?x=", "portal.example.com/public#", "user@portal.example.com", "a b", "..", "/public"),
    *(
        "portal.example.com:public",
        "portal.example.com, public",
        "\\public",
        "[::1",
        "portal.example.com:80:80",
        "\xe9",
    ),
]
OVERRIDES = [
    *("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-URI", "X-Forwarded-Path", "X-Forwarded-Prefix"),
    *("X-Envoy-Original-Path", "X-Override-URL", "X-Proxy-URL", "Request-Uri", "Destination", "Referer", "Base-Url"),
]
METHOD_OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-Method", "_method"]
BYPASSES = [
    ("X-Middleware-Subrequest", "src/middleware:src/middleware:src/middleware:src/middleware"),
    ("X-Custom-IP-Authorization", "127.0.0.1"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;host=localhost;proto=https"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Forwarded-Proto", "https"),
    ("X-Host", "localhost"),
    ("X-Remote-User", "admin"),
    ("Remote-User", "admin"),
    ("X-Authenticated-User", "admin"),
    ("X-WEBAUTH-USER", "admin"),
    ("portalshield", "1"),
    ("portalshield.exchange", "1"),
    ("X-Request-ID", "00000000000000000000000000000000"),
]


@dataclass
class Pair:
    """The portal behind the shield, and bare."""

    portal: Portal
    bare_door: AsgiDoor | WsgiDoor
    bare_calls: list[str]
    tells_raw: bool

    def shielded(self, method: str, target: str, headers: Any = ()) -> tuple[Answer, list[str]]:
        """The answer and the handlers that ran."""
        self.portal.calls.clear()
        return _send(self.portal.door, method, target, headers, self.tells_raw), list(self.portal.calls)

    def bare(self, method: str, target: str, headers: Any = ()) -> list[str]:
        """The handlers that the framework alone runs."""
        self.bare_calls.clear()
        # Without a shield there is no principal: handlers raise after they have said that they ran.
        with contextlib.suppress(LookupError, AssertionError, ValueError):
            _send(self.bare_door, method, target, headers, self.tells_raw)
        return list(self.bare_calls)


def _send(door: AsgiDoor | WsgiDoor, method: str, target: str, headers: Any, tells_raw: bool) -> Answer:
    if isinstance(door, AsgiDoor):
        door.scope_extra = {} if tells_raw else {"raw_path": None}
    else:
        door.environ_extra = {} if tells_raw else {"REQUEST_URI": ...}
    return door.request(method, target, headers, lint=False)


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def applications(request: pytest.FixtureRequest) -> Callable[[bool], Pair]:
    """One pair per door for the whole module: nothing in it depends on what was asked before."""
    make, door = (fastapi_portal, AsgiDoor) if request.param == "asgi" else (flask_portal, WsgiDoor)
    app, calls = make()
    bare, bare_calls = make()
    settings = Settings.from_env(environment(RATE__PER_IP="10000000/minute"))
    portal = Portal(door(app), app, Shield(app, settings=settings), settings, calls)
    return lambda tells_raw: Pair(portal, door(bare), bare_calls, tells_raw)


@pytest.fixture(params=[True, False], ids=["raw path", "no raw path"])
def pair(request: pytest.FixtureRequest, applications: Callable[[bool], Pair]) -> Pair:
    """With servers that tell the raw path and with those that do not."""
    return applications(request.param)


def _leads_to_north(target: str) -> bool:
    """The caller's own tenant, plainly: nothing in the table but what says so."""
    return "south" not in unquote(target).casefold()


def test_the_tables_are_as_long_as_promised() -> None:
    """Q2: 97 spellings with 4 methods, 12 Host values, 18 routing fields with 3 methods, each once."""
    for table, promised in ((SPELLINGS, 97), ([*HOSTS, *NO_HOSTS], 12), ([*OVERRIDES, *METHOD_OVERRIDES], 18)):
        assert len(set(table)) == len(table) >= promised
    assert len(METHODS) >= 4


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_opens_a_protected_route(pair: Pair, target: str) -> None:
    """Without a credential only public handlers run, and only with the method and path they are registered for."""
    for method in METHODS:
        answer, ran = pair.shielded(method, target)
        assert set(ran) <= OPEN, (method, ran)
        if ran:
            assert unquote(target) == "/public"
            assert ran == pair.bare(method, target)
        elif pair.bare(method, target):
            assert answer.status in (400, 401, 404, 405, 414), method


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_opens_another_tenant(pair: Pair, target: str) -> None:
    """With a credential of tenant north nothing runs for another tenant, and nothing that the framework alone would
    not have run either."""
    headers = pair.portal.bearer("north", scopes=["invoices:read"])
    for method in METHODS:
        _, ran = pair.shielded(method, target, headers)
        if ran:
            assert _leads_to_north(target), (method, ran)
            assert method in ("GET", "POST", "PUT", "DELETE", "HEAD")
            assert ran == pair.bare(method, target)


def test_the_table_would_open_something(applications: Callable[[bool], Pair]) -> None:
    """Bare, the spellings do reach protected handlers: the table is no collection of 404s."""
    pair = applications(True)
    reached = [target for target in SPELLINGS if set(pair.bare("GET", target)) - OPEN]
    assert len(reached) >= 12
    assert any(unquote(target) != target or "//" in target for target in reached)


def test_the_owner_gets_in(pair: Pair) -> None:
    """The same routes, asked for plainly by whom they belong to."""
    headers = pair.portal.bearer("south", scopes=["invoices:read"])
    targets = ["/tenants/south/clients/7", "/v1/nested/tenants/south/clients/7", "/sub/reports/south", "/scoped"]
    assert [pair.shielded("GET", target, headers)[0].status for target in targets] == [200] * 4
    assert pair.shielded("GET", "/tenants/%73outh/clients/7", headers)[1] == ["client"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/scoped", "/owners", "/search", "/me", "/tenants/south/clients/7", "/upload"])
def test_no_method_is_exempt(pair: Pair, method: str, path: str) -> None:
    """J-05, N-03: without a credential no method runs a protected handler, in whatever case it is written."""
    answer, ran = pair.shielded(method, path)
    assert ran == []
    assert answer.status in (400, 401, 404)


@pytest.mark.parametrize("method", ["get", "Get", "gET", "post", "GET ", " GET", "GE T", "G\u0395T", "BREW", "GETS"])
def test_a_method_that_is_none_never_arrives(pair: Pair, method: str) -> None:
    """Methods are case-sensitive; Werkzeug upper-cases them, so `get` is refused before anybody can."""
    answer, ran = pair.shielded(method.encode("utf-8").decode("latin-1"), "/public", pair.portal.bearer())
    assert (answer.status, answer.slug, ran) == (400, "malformed-request", [])


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_opens_anything(pair: Pair, host: str) -> None:
    """The Host field decides nothing about paths and callers."""
    headers = [("host", host)]
    assert pair.shielded("GET", "/public", headers)[1] == ["public"]
    assert pair.shielded("GET", "/scoped", headers)[1] == []
    assert pair.shielded("GET", "/tenants/south/clients/7", [*headers, *pair.portal.bearer()])[1] == []


@pytest.mark.parametrize("host", NO_HOSTS)
@pytest.mark.parametrize("path", ["/public", "/me", "/scoped"])
def test_a_host_that_is_none_never_arrives(pair: Pair, host: str, path: str) -> None:
    """Frameworks build `request.url` from it (CVE-2026-48710), so what is no authority is 400 (RFC 9112, 3.2)."""
    answer, ran = pair.shielded("GET", path, [("host", host), *pair.portal.bearer()])
    assert (answer.status, answer.slug, ran) == (400, "malformed-request", [])


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_no_header_changes_the_path(pair: Pair, name: str, method: str) -> None:
    """What runs and what is refused is decided by the path alone, in both directions."""
    for value in ("/public", "https://portal.example.com/public", "/scoped"):
        _, ran = pair.shielded(method, "/scoped", [(name, value)])
        assert ran == []
        _, ran = pair.shielded(method, "/public", [(name, value)])
        assert ran == [] if method == "HEAD" and not ran else set(ran) <= OPEN


@pytest.mark.parametrize("name", METHOD_OVERRIDES)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_header_changes_the_method(pair: Pair, name: str, method: str) -> None:
    """Neither into a protected route nor from one public method to the other."""
    for value in ("GET", "POST", "OPTIONS", "DELETE"):
        assert pair.shielded(method, "/search", [(name, value)])[1] == []
        assert pair.shielded(method, f"/search?_method={value}", [(name, value)])[1] == []
        assert pair.shielded(method, "/public", [(name, value)])[1] == pair.shielded(method, "/public")[1]


@pytest.mark.parametrize(("name", "value"), BYPASSES)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_header_switches_the_shield_off(pair: Pair, name: str, value: str, method: str) -> None:
    """Nothing a client sends makes it internal, trusted or already checked."""
    for path in ("/search", "/tenants/south/clients/7"):
        answer, ran = pair.shielded(method, path, [(name, value)])
        assert (answer.status, ran) == (401, [])
    _, ran = pair.shielded(method, "/tenants/south/clients/7", [(name, value), *pair.portal.bearer("north")])
    assert ran == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("host", "portal.example.com"), ("host", "evil.example")], id="two hosts"),
        pytest.param([("authorization", "Bearer a"), ("authorization", "Bearer b")], id="two unusable credentials"),
        pytest.param([("content-type", "application/json"), ("content-type", "text/plain")], id="two types"),
        pytest.param([("content-length", "2"), ("content-length", "3")], id="two lengths"),
        pytest.param([("content-length", "2"), ("transfer-encoding", "chunked")], id="length and coding"),
        pytest.param([("content-length", "0"), ("transfer-encoding", "chunked")], id="no length and coding"),
    ],
)
def test_two_of_what_decides_are_none(pair: Pair, headers: list[tuple[str, str]]) -> None:
    """Two readers could choose differently: no handler runs, not even for a caller who may."""
    for extra in ([], pair.portal.bearer()):
        pair.portal.calls.clear()
        answer = pair.portal.request("POST", "/search", [*headers, *extra], b"{}", lint=False)
        assert pair.portal.calls == []
        assert answer.status in (400, 401, 413, 415)


def test_a_second_credential_never_helps(pair: Pair) -> None:
    """A valid and an invalid one, in either order: refused."""
    good, bad = pair.portal.bearer()[0], ("authorization", "Bearer x.y.z")
    for headers in ([good, bad], [bad, good], [good, good]):
        answer, ran = pair.shielded("GET", "/me", headers)
        assert (answer.status in (400, 401), ran) == (True, [])


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/me?access_token={token}", id="access_token"),
        pytest.param("/me?token={token}", id="token"),
        pytest.param("/me?jwt={token}", id="jwt"),
        pytest.param("/me?authorization=Bearer%20{token}", id="authorization"),
    ],
)
def test_a_token_in_the_address_is_none(pair: Pair, target: str) -> None:
    """RFC 9700: credentials in URLs end in logs and caches, so they open nothing."""
    answer, ran = pair.shielded("GET", target.format(token=pair.portal.token()))
    assert (answer.status, ran) == (401, [])


def test_an_address_that_is_too_long_is_refused(pair: Pair) -> None:
    """414 beyond 8 KiB; a long one below passes."""
    assert pair.shielded("GET", "/public?" + "a" * 8_000)[0].status == 200
    answer, ran = pair.shielded("GET", "/public?" + "a" * 8_300)
    assert (answer.status, answer.slug, ran) == (414, "uri-too-long", [])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(f"x-{number}", "a") for number in range(2_000)], id="2000 fields"),
        pytest.param([("x-long", "a" * 70_000)], id="one of 70 kB"),
    ],
)
def test_too_many_fields_are_refused(pair: Pair, headers: list[tuple[str, str]]) -> None:
    """431, whatever the server lets through."""
    answer, ran = pair.shielded("GET", "/public", headers)
    assert (answer.status, answer.slug, ran) == (431, "headers-too-large", [])
