"""The portal behind the shield, over real sockets, on the servers people deploy."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import SERVERS, START_S, Server, all_running, chunked, http2, request

from portalshield import Settings
from portalshield.testing import environment, mint_token

VARIABLES = environment(RATE__PER_IP="1000000/minute", LOG__LEVEL="error")
SETTINGS = Settings.from_env(VARIABLES)
JSON = "Content-Type: application/json"
INSTALLED = [name for name, recipe in SERVERS.items() if importlib.util.find_spec(recipe.package) is not None]


def bearer(tenant: str = "north") -> str:
    """The field line with a valid token."""
    return "Authorization: Bearer " + mint_token(SETTINGS, tenant=tenant, scopes=["invoices:read"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """All servers at once: they import at the same time; each is stopped by its own id."""
    with all_running(INSTALLED, VARIABLES, tmp_path_factory.mktemp("live")) as servers:
        yield servers


@pytest.fixture(params=INSTALLED)
def server(request: pytest.FixtureRequest, running: dict[str, Server]) -> Server:
    """One of them, listening."""
    return running[request.param].wait()


def test_the_owner_is_served(server: Server) -> None:
    """200 with the own tenant's answer, one request id, the security fields."""
    answer = server.send("GET", "/tenants/north/clients/7", bearer())
    assert answer.status == 200
    assert json.loads(answer.body)["tenant"] == "north"
    assert [name for name, _ in answer.fields].count("x-request-id") == 1
    assert answer.get("x-content-type-options") == "nosniff"


def test_a_body_arrives_exactly(server: Server) -> None:
    """Declared or in chunks, every byte of it."""
    document = json.dumps({"tenant_id": "north", "note": "x" * 50_000}).encode()
    assert json.loads(server.send("POST", "/search", bearer(), JSON, body=document).body)["body"] == document.decode()
    coding = "Transfer-Encoding: chunked"
    parts = [document[at : at + 7_000] for at in range(0, len(document), 7_000)]
    answer = server.send("POST", "/search", bearer(), JSON, coding, body=chunked(*parts))
    assert json.loads(answer.body)["body"] == document.decode()


@pytest.mark.parametrize(
    ("method", "target", "fields", "body"),
    [
        pytest.param("GET", "/tenants/south/clients/7", [], b"", id="path"),
        pytest.param("GET", "/search?tenant_id=south", [], b"", id="query"),
        pytest.param("GET", "/search", ["X-Tenant-Id: south"], b"", id="header"),
        pytest.param("GET", "/search", ["X-Tenant-Id: north", "X-Tenant-Id: south"], b"", id="second header"),
        pytest.param("POST", "/search", [JSON], b'{"a": [{"orgId": "south"}]}', id="body"),
        pytest.param("DELETE", "/search", [JSON], b'{"tenant_id": "south"}', id="body of a DELETE"),
        pytest.param("GET", "/search", [JSON], b'{"tenant_id": "south"}', id="body of a GET"),
        pytest.param(
            "POST",
            "/search",
            [JSON, "Transfer-Encoding: chunked"],
            chunked(b'{"tenant', b'_id": "sou', b'th"}'),
            id="body in chunks",
        ),
    ],
)
def test_a_foreign_tenant_is_404(server: Server, method: str, target: str, fields: list[str], body: bytes) -> None:
    """By path, query, header and body."""
    answer = server.send(method, target, bearer(), *fields, body=body)
    assert (answer.status, answer.slug) == (404, "not-found")


def test_without_a_credential_it_is_401(server: Server) -> None:
    """With a challenge, a problem document and no cache."""
    answer = server.send("GET", "/search")
    assert (answer.status, answer.slug) == (401, "unauthenticated")
    assert (answer.get("www-authenticate") or "").startswith("Bearer")
    assert answer.get("cache-control") == "no-store"


def test_a_declared_body_over_the_limit_is_413(server: Server) -> None:
    """At once, before a byte of it came; servers that read it all first are sent all of it."""
    with server.connect() as client:
        client.write(request("POST", "/search", bearer(), JSON, "Content-Length: 2000000"))
        if server.recipe.reads_first:
            client.write(b" " * 2_000_000)
        answer = client.response()
    assert (answer.status, answer.slug) == (413, "body-too-large")


@pytest.mark.parametrize("target", ["/search", "/upload"])
def test_an_arriving_body_over_the_limit_is_413(server: Server, target: str) -> None:
    """In chunks, whether the body is read first or streams to the handler."""
    kind = JSON if target == "/search" else "Content-Type: multipart/form-data; boundary=x"
    with server.connect() as client:
        client.write(request("POST", target, bearer(), kind, "Transfer-Encoding: chunked"))
        opening = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        client.write(b"%x\r\n%s\r\n" % (len(opening), opening) if target == "/upload" else b"")
        piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = 0
        while sent < 20 and client.write(piece):
            sent += 1
        client.write(b"0\r\n\r\n")
        answer = client.response()
    assert (answer.status, answer.slug) == (413, "body-too-large")


def test_streams_are_not_held_back(server: Server) -> None:
    """The first block is here while the handler still waits for us."""
    server.signal.unlink(missing_ok=True)
    with server.connect() as client:
        client.write(request("GET", "/waiting"))
        head = client.begin()
        assert head.status == 200
        if (head.get("transfer-encoding") or "").lower() == "chunked":
            assert client.chunk() == b"first"
            server.signal.touch()
            assert (client.chunk(), client.chunk()) == (b"last", b"")
        else:
            assert client.take(5) == b"first"
            server.signal.touch()
            assert client.take(4) == b"last"


def test_a_crash_is_a_problem_with_an_id(server: Server) -> None:
    """500, nothing of the exception."""
    answer = server.send("GET", "/boom")
    assert (answer.status, answer.slug) == (500, "internal-error")
    assert answer.get("x-request-id") == json.loads(answer.body)["request_id"]
    assert b"secret" not in answer.body


def test_a_crash_half_way_does_not_look_complete(server: Server) -> None:
    """The connection is cut: no last chunk. (One server ends every such response cleanly by itself.)"""
    with server.connect() as client:
        client.write(request("GET", "/half"))
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"half")
        chunks = (answer.get("transfer-encoding") or "").lower() == "chunked"
        assert answer.complete is (server.recipe.ends_cleanly and chunks)


@pytest.mark.parametrize(
    "target",
    [
        "//scoped",
        "///scoped",
        "//tenants/north/clients/7",
        "/tenants/north%2fclients/7",
        "/tenants/north%2Fclients%2F7",
        "/%2fscoped",
        "/public/../scoped",
        "/public/%2e%2e/scoped",
        "/public/..%2fscoped",
        "/./scoped",
        "/scoped%5c",
        "/scoped;x",
        "/scoped%00",
        "/tenants/%ff/clients/7",
    ],
)
def test_ambiguous_paths_are_refused(server: Server, target: str) -> None:
    """No handler runs, not even for a caller who may; where the server resolves a spelling before anybody can see it,
    shield and handler at least agree: without a credential it stays closed."""
    assert server.send("GET", target).status in (400, 401, 404)
    answer = server.send("GET", target, bearer())
    if not any(spelling in target.lower() for spelling in server.recipe.rewrites):
        assert answer.status in (400, 404)
    assert "north" not in target or server.send("GET", target, bearer("west")).status in (400, 404)


@pytest.mark.parametrize("method", ["get", "Post", "BREW", "GET\t"])
def test_methods_that_are_none_are_refused(server: Server, method: str) -> None:
    """400, unless the server has made a registered method of it before anybody could see: then that one is refused."""
    answer = server.send(method, "/scoped")
    assert answer.status in (400, 401, 404, 405, 501)


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param(["Host: a.example", "Host: b.example"], b"", id="two hosts"),
        pytest.param(["Host: a.example/public?x="], b"", id="a host that is a path"),
        pytest.param(["Host: a.example", bearer(), bearer("south")], b"", id="two credentials"),
        pytest.param(["Host: a.example", bearer(), "Authorization: Basic eDp5"], b"", id="two schemes"),
        pytest.param(
            ["Host: a.example", JSON, "Transfer-Encoding: chunked", "Content-Length: 4"], chunked(b"{}"), id="TE and CL"
        ),
        pytest.param(
            ["Host: a.example", JSON, "Content-Length: 0", "Transfer-Encoding: chunked"], chunked(b"{}"), id="CL 0, TE"
        ),
        pytest.param(["Host: a.example", JSON, "Content-Length: 2", "Content-Length: 3"], b"{}x", id="two lengths"),
        pytest.param(["Host: a.example", JSON, "Content-Length: +2"], b"{}", id="signed length"),
    ],
)
def test_what_decides_twice_reaches_no_handler_as_something_else(
    server: Server, fields: list[str], body: bytes
) -> None:
    """Refused; or the server has settled it, and then shield and handler saw one and the same value."""
    with server.connect() as client:
        client.write(request("POST" if body else "GET", "/seen", *fields, body=body, host=None))
        answer = client.response()
    if answer.status != 200:
        assert answer.status in (400, 401, 411, 413, 501)
        return
    seen = json.loads(answer.body)
    assert seen["body"] in ("", "{}")
    assert len(seen["host"]) == 1
    assert "," not in seen["host"][0]
    assert len(seen["authorization"]) <= 1
    assert not any("," in value for value in seen["authorization"])


def test_two_credentials_open_nothing(server: Server) -> None:
    """One valid and one not, in either order: refused."""
    for fields in ([bearer(), "Authorization: Bearer x.y.z"], ["Authorization: Bearer x.y.z", bearer()]):
        assert server.send("GET", "/me", *fields).status in (400, 401)


def test_an_underscore_is_no_dash(server: Server) -> None:
    """`X_Tenant_Id` never hides what `X-Tenant-Id` says from the shield alone."""
    answer = server.send("GET", "/search", bearer(), "X-Tenant-Id: north", "X_Tenant_Id: south")
    assert answer.status in (200, 400, 404)
    if answer.status == 200:
        seen = json.loads(server.send("GET", "/seen", "X-Tenant-Id: north", "X_Tenant_Id: south").body)
        assert seen["x-tenant-id"] == ["north"]


def test_a_refusal_leaves_the_connection_in_order(server: Server) -> None:
    """A body that nobody read is no next request: what follows is answered as itself, or the connection closes."""
    hidden = request("GET", "/public")
    with server.connect() as client:
        client.write(request("POST", "/search", JSON, body=hidden))
        first = client.response()
        assert (first.status, first.slug) == (401, "unauthenticated")
        if not (first.stays and client.write(request("GET", "/me", bearer()))):
            assert client.closed() or not server.recipe.keeps_alive
            return
        if not server.recipe.keeps_alive:
            return
        second = client.response()
        assert json.loads(second.body) == {"subject": "u1", "tenant": "north"}


def test_a_connection_serves_many(server: Server) -> None:
    """Refusals and answers alternate on one connection, each with its own principal and id."""
    if not server.recipe.keeps_alive:
        pytest.skip("this worker closes after every response")
    with server.connect() as client:
        ids = []
        for turn in range(10):
            tenant = f"t{turn}"
            client.write(request("GET", "/me", bearer(tenant)) if turn % 2 else request("GET", "/me"))
            answer = client.response()
            assert answer.status == (200 if turn % 2 else 401)
            assert turn % 2 == 0 or json.loads(answer.body)["tenant"] == tenant
            ids.append(answer.get("x-request-id"))
    assert len(set(ids)) == 10


def test_a_head_request_has_no_body(server: Server) -> None:
    """Neither a refusal nor an answer: the next response on the connection is the next response."""
    with server.connect() as client:
        client.write(request("HEAD", "/search"))
        answer = client.response(head=True)
        assert (answer.status in (401, 404), answer.get("content-length") is not None) == (True, True)
        if server.recipe.keeps_alive:
            client.write(request("GET", "/public"))
            assert client.response().status == 200


@pytest.mark.skipif(importlib.util.find_spec("h2") is None, reason="needs h2")
@pytest.mark.parametrize("name", [name for name in INSTALLED if name.startswith(("hypercorn", "granian"))])
def test_over_http_2_a_body_needs_no_length(running: dict[str, Server], name: str) -> None:
    """It is judged all the same; where nobody expects one (a GET, no type) it does not arrive."""
    server = running[name].wait()
    token, json_type = ("authorization", bearer().partition(" ")[2]), ("content-type", "application/json")
    own, foreign = b'{"tenant_id": "north"}', b'{"tenant_id": "south"}'
    assert json.loads(http2(server, "POST", "/search", [token, json_type], own).body)["body"] == own.decode()
    assert http2(server, "POST", "/search", [token, json_type], foreign).slug == "not-found"
    for method, fields in (("GET", [token, json_type]), ("DELETE", [token]), ("POST", [token])):
        assert http2(server, method, "/search", fields, foreign).slug == "malformed-request"
    assert http2(server, "POST", "/public", []).status == 200


@pytest.mark.parametrize("name", [name for name in ("uvicorn-h11", "hypercorn", "gunicorn-sync") if name in INSTALLED])
def test_a_wrong_wiring_serves_nothing(name: str, tmp_path: Path) -> None:
    """A policy that covers no route: a server with a lifespan does not start, one without answers 503 to everybody."""
    broken = Server(name, {**VARIABLES, "LIVE_POLICY": "GET /no-such-route"}, tmp_path)
    try:
        if broken.recipe.kind == "asgi":
            broken.process.wait(START_S)
        else:
            answers = [broken.wait().send("GET", path, bearer()) for path in ("/public", "/search")]
            assert [(answer.status, answer.slug) for answer in answers] == [(503, "unavailable")] * 2
        assert "PS-POLICY-003" in broken.log.read_text()
    finally:
        broken.stop()
