"""A user of tenant A never reads or changes tenant B, whatever id stands in path, query, header or body."""

from __future__ import annotations

import pytest

from conftest import MakePortal, Portal

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
FOREIGN_PATHS = [
    pytest.param("/tenants/south/clients/7", id="included router"),
    pytest.param("/v1/nested/tenants/south/clients/7", id="nested router"),
]
FOREIGN_QUERIES = [
    pytest.param("tenant_id=south", id="alone"),
    pytest.param("tenant_id=north&tenant_id=south", id="last of two"),
    pytest.param("tenant_id=south&tenant_id=north", id="first of two"),
    pytest.param("tenant_id[]=south", id="brackets"),
    pytest.param("filter[tenant_id]=south", id="nested brackets"),
    pytest.param("tenant%5Fid=south", id="encoded name"),
    pytest.param("tenant_id=%73outh", id="encoded value"),
    pytest.param("orgId=south", id="other spelling"),
    pytest.param("tenant_id=", id="empty"),
    pytest.param("tenant_id=NORTH", id="other case"),
    pytest.param("tenant_id=north%00", id="NUL behind"),
    pytest.param("tenant_id=*", id="wildcard"),
]
FOREIGN_HEADERS = [
    pytest.param([("X-Tenant-Id", "south")], id="x-tenant-id"),
    pytest.param([("x-tenant-id", "south")], id="lower case"),
    pytest.param([("X-Org-Id", "south")], id="x-org-id"),
    pytest.param([("Tenant-Id", "south")], id="without x"),
    pytest.param([("X-Tenant-Id", "north"), ("X-Tenant-Id", "south")], id="second of two"),
    pytest.param([("X-Tenant-Id", "north, south")], id="joined"),
]
FOREIGN_BODIES = [
    pytest.param(b'{"tenant_id": "south"}', "application/json", id="top level"),
    pytest.param(b'{"a": [{"b": {"orgId": "south"}}]}', "application/json", id="nested"),
    pytest.param(b'[{"tenant_id": "north"}, {"tenant_id": "south"}]', "application/json", id="second of a batch"),
    pytest.param(b'{"tenant_id": ["north", "south"]}', "application/json", id="a list"),
    pytest.param(b'{"tenant_id": {"$ne": "north"}}', "application/json", id="an operator"),
    pytest.param(b'{"\\u0074enant_id": "south"}', "application/json", id="escaped name"),
    pytest.param(b'{"tenant_id": true}', "application/json", id="a boolean"),
    pytest.param(b'[{"op": "replace", "path": "/tenant_id", "value": "south"}]', "application/json", id="JSON Patch"),
    pytest.param(b'{"tenant_id": "south"}', "application/merge-patch+json", id="merge patch"),
    pytest.param(b"tenant_id=south", "application/x-www-form-urlencoded", id="form"),
    pytest.param(b"a=1&tenant_id=north&tenant_id=south", "application/x-www-form-urlencoded", id="form, second"),
    pytest.param(b'{"tenant_id": "south"}', "application/x-www-form-urlencoded", id="JSON under a form's label"),
]
UNREADABLE_BODIES = [
    pytest.param('{"tenant_id": "south"}'.encode("utf-16"), "application/json", id="UTF-16"),
    pytest.param('{"tenant_id": "south"}'.encode("utf-32"), "application/json", id="UTF-32"),
    pytest.param(b'\xef\xbb\xbf{"tenant_id": "south"}', "application/json", id="BOM"),
    pytest.param(b'{"tenant_id": "north", "tenant_id": "south"}', "application/json", id="duplicate name"),
    pytest.param(b'{"tenant_id": "south"}', "multipart/form-data; boundary=x", id="JSON under a multipart label"),
    pytest.param(b'{"tenant_id": "south"}', "text/plain", id="JSON under a text label"),
    pytest.param(b'{"tenant_id": "south"}', None, id="JSON without a label"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", FOREIGN_PATHS)
def test_user_of_a_cannot_reach_b_by_path(portal: Portal, method: str, path: str) -> None:
    """A foreign tenant in the path is 404 with every method, and the handler never runs."""
    answer = portal.request(method, path, portal.bearer())
    assert (answer.status, answer.slug, portal.calls) == (404, "not-found", [])


def test_user_of_a_cannot_reach_b_by_mounted_path(portal: Portal) -> None:
    """A foreign tenant in the path of a mounted application is 404; the own one passes."""
    assert portal.request("GET", "/sub/reports/south", portal.bearer()).status == 404
    assert portal.calls == []
    assert portal.request("GET", "/sub/reports/north", portal.bearer()).status == 200


def test_an_id_that_the_converter_would_change_is_refused(portal: Portal) -> None:
    """`007` reaches the handler as 7: it is not the id that was proven."""
    assert portal.request("GET", "/v1/numbers/007", portal.bearer("7")).status == 404
    # The path says the caller's own id, the handler would be given another one.
    assert portal.request("GET", "/v1/numbers/007", portal.bearer("007")).status == 404
    assert portal.calls == []
    assert portal.request("GET", "/v1/numbers/7", portal.bearer("7")).status == 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("query", FOREIGN_QUERIES)
def test_user_of_a_cannot_reach_b_by_query(portal: Portal, method: str, query: str) -> None:
    """Every occurrence and spelling of a tenant parameter is compared."""
    answer = portal.request(method, f"/search?{query}", portal.bearer())
    assert (answer.status, portal.calls) == (404, [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("headers", FOREIGN_HEADERS)
def test_user_of_a_cannot_reach_b_by_header(portal: Portal, method: str, headers: list[tuple[str, str]]) -> None:
    """Every tenant header counts, repeats too."""
    answer = portal.request(method, "/search", [*portal.bearer(), *headers])
    assert (answer.status, portal.calls) == (404, [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("body", "content_type"), FOREIGN_BODIES)
def test_user_of_a_cannot_reach_b_by_body(portal: Portal, method: str, body: bytes, content_type: str) -> None:
    """Every occurrence at any depth of a body is compared, with every method that carries one."""
    answer = portal.request(method, "/search", [*portal.bearer(), ("content-type", content_type)], body)
    assert (answer.status, portal.calls) == (404, [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("body", "content_type"), UNREADABLE_BODIES)
def test_a_body_that_parsers_read_differently_never_arrives(
    portal: Portal, method: str, body: bytes, content_type: str | None
) -> None:
    """What a handler's parser might read but ours would not is refused, not passed."""
    headers = [*portal.bearer(), *([("content-type", content_type)] if content_type else [])]
    answer = portal.request(method, "/upload" if method == "POST" else "/search", headers, body)
    assert answer.status in (400, 404, 415)
    assert portal.calls == []


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        pytest.param("/search?tenant_id=north", [], b"", id="query"),
        pytest.param("/search?tenant_id=north&tenant_id=north&q=south", [], b"", id="query, twice"),
        pytest.param("/search", [("X-Tenant-Id", "north")], b"", id="header"),
        pytest.param("/search", [], b'{"tenant_id":"north","items":[{"orgId":"north"}]}', id="body"),
        pytest.param("/search", [], b'{"note": "tenant_id south", "tenant_id": null}', id="a text that mentions one"),
        pytest.param("/search", [], b'{"client_id": "south"}', id="another field"),
        pytest.param("/tenants/north/clients/south", [], b"", id="path"),
    ],
)
def test_own_traffic_passes_unchanged(portal: Portal, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
    """The own tenant's requests arrive, byte for byte."""
    fields = [*portal.bearer(), *headers, *([("content-type", "application/json")] if body else [])]
    answer = portal.request("POST", target, fields, body)
    assert answer.status == 200
    assert answer.json["body"].encode() == body
    assert answer.json["tenant"] == "north"


def test_foreign_and_unknown_tenant_answer_alike(portal: Portal) -> None:
    """A tenant that exists elsewhere and one that does not exist give the same bytes, the request id aside."""
    answers = [portal.request("GET", f"/tenants/{name}/clients/7", portal.bearer()) for name in ("south", "nobody")]
    bodies = [{k: v for k, v in answer.json.items() if k != "request_id"} for answer in answers]
    fields = [[f for f in answer.headers if f[0] not in ("x-request-id", "ratelimit")] for answer in answers]
    assert bodies[0] == bodies[1]
    assert fields[0] == fields[1]


def test_without_a_proven_tenant_a_route_refuses(portal: Portal) -> None:
    """There is no default tenant: a token that proves none is 403, except where the route says tenant=False."""
    headers = portal.bearer(None)
    assert portal.request("GET", "/search", headers).slug == "no-tenant"
    assert portal.request("GET", "/me", headers).json == {"subject": "u1", "tenant": None}


def test_uuids_compare_as_uuids(portal: Portal) -> None:
    """The same UUID in another spelling is the same tenant."""
    tenant = "6f1e0b1a-5d0c-4f4e-9d7b-0c8a3f2e1d4c"
    assert portal.request("GET", f"/search?tenant_id={tenant.upper()}", portal.bearer(tenant)).status == 200
    assert portal.request("GET", f"/search?tenant_id={tenant[:-1]}d", portal.bearer(tenant)).status == 404


def test_a_route_may_name_its_own_tenant_parameter(make_portal: MakePortal) -> None:
    """`TENANT__FIELDS` names what addresses a tenant in this application."""
    portal = make_portal({"TENANT__FIELDS": "client_id"})
    assert portal.request("GET", "/tenants/x/clients/south", portal.bearer()).status == 404
    assert portal.request("GET", "/tenants/x/clients/north", portal.bearer()).status == 200
