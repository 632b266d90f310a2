"""What a refused client sees: one shape for all; the application's own errors stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import MakePortal, Portal

JSON = ("content-type", "application/json")

REFUSALS = [
    pytest.param(400, "malformed-request", "GET", "//search", [], b"", id="ambiguous path"),
    pytest.param(400, "malformed-request", "get", "/search", [], b"", id="method"),
    pytest.param(400, "malformed-request", "GET", "/public", [("host", "a/b")], b"", id="host"),
    pytest.param(400, "malformed-request", "POST", "/search", ["bearer", JSON], b"{", id="JSON"),
    pytest.param(401, "unauthenticated", "GET", "/search", [], b"", id="no credential"),
    pytest.param(401, "invalid-token", "GET", "/search", [("authorization", "Bearer a.b.c")], b"", id="bad credential"),
    pytest.param(403, "insufficient-scope", "GET", "/scoped", ["bearer"], b"", id="scope"),
    pytest.param(404, "not-found", "GET", "/tenants/south/clients/7", ["bearer"], b"", id="foreign tenant"),
    pytest.param(404, "not-found", "GET", "/nowhere", [], b"", id="unserved"),
    pytest.param(413, "body-too-large", "POST", "/search", ["bearer", JSON], b" " * 1_100_000, id="size"),
    pytest.param(414, "uri-too-long", "GET", "/public?" + "a" * 9000, [], b"", id="address"),
    pytest.param(414, "uri-too-long", "GET", "/public?" + "a&" * 1000, [], b"", id="parameters"),
    pytest.param(415, "unsupported-media-type", "POST", "/search", ["bearer"], b"x", id="media type"),
    pytest.param(422, "invalid-payload", "POST", "/invoices", ["bearer", JSON], b'{"amount": "x"}', id="schema"),
    pytest.param(431, "headers-too-large", "GET", "/public", [("x-a", "a" * 70_000)], b"", id="fields"),
    pytest.param(500, "internal-error", "GET", "/boom", [], b"", id="crash"),
]


@pytest.mark.parametrize(("status", "slug", "method", "target", "fields", "body"), REFUSALS)
@pytest.mark.parametrize("page", [False, True], ids=["problem", "page"])
def test_every_refusal_has_one_shape(
    portal: Portal, status: int, slug: str, method: str, target: str, fields: list[Any], body: bytes, page: bool
) -> None:
    """RFC 9457 (for page loads a static page), right length, no-store, nosniff, one request id."""
    headers = [field for item in fields for field in (portal.bearer() if item == "bearer" else [item])]
    headers += [("accept", "text/html,*/*;q=0.8")] if page else []
    answer = portal.request(method, target, headers, body, lint=False)
    assert answer.status == status
    assert answer.get("content-length") == str(len(answer.body))
    assert answer.get("cache-control") == "no-store"
    assert answer.get("x-content-type-options") == "nosniff"
    request_id = answer.get("x-request-id") or ""
    assert len(request_id) == 32
    if page:
        assert answer.get("content-type") == "text/html; charset=utf-8"
        assert request_id.encode() in answer.body
        return
    assert answer.get("content-type") == "application/problem+json"
    assert (answer.json["status"], answer.slug, answer.json["request_id"]) == (status, slug, request_id)
    assert set(answer.json) <= {"type", "title", "status", "request_id", "errors"}
    assert "errors" not in answer.json or status == 422


def test_a_spent_quota_names_the_limit_and_the_time(make_portal: MakePortal) -> None:
    """429 with `Retry-After` of at least a second; the document may name the limit and nothing else."""
    portal = make_portal({"RATE__PER_IP": "1/minute"})
    portal.request("GET", "/public")
    answer = portal.request("GET", "/public")
    assert (answer.status, answer.slug) == (429, "rate-limited")
    assert int(answer.get("retry-after") or 0) >= 1
    assert set(answer.json) <= {"type", "title", "status", "request_id", "limit"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 503])
def test_the_applications_own_errors_are_its_own(make_portal: MakePortal, status: int) -> None:
    """Status, type, fields and bytes pass; only our fields are added."""

    def add(app: Any) -> None:
        if hasattr(app, "wsgi_app"):
            import flask

            def view() -> Any:
                return flask.Response("own", status, {"X-Own": "1"}, mimetype="text/x-own")

            app.add_url_rule("/own", view_func=view)
        else:
            from fastapi import Response

            async def endpoint() -> Response:
                return Response("own", status, {"X-Own": "1"}, "text/x-own")

            app.add_api_route("/own", endpoint)

    portal = make_portal(prepare=add)
    answer = portal.request("GET", "/own", portal.bearer())
    assert (answer.status, answer.body, answer.get("x-own")) == (status, b"own", "1")
    assert (answer.get("content-type") or "").startswith("text/x-own")
    assert len(answer.get("x-request-id") or "") == 32


@pytest.mark.parametrize(
    ("status", "target", "headers"),
    [
        pytest.param(431, "/public", [(f"x-{n}", "1") for n in range(201)], id="fields"),
        pytest.param(431, "/public", [("x-large", "a" * 70_000)], id="bytes"),
        pytest.param(414, "/public?" + "a" * 8_500, [], id="address"),
        pytest.param(414, "/public?" + "a&" * 1_000, [], id="parameters"),
        pytest.param(400, "/public", [("host", "a@b")], id="host"),
        pytest.param(400, "/public", [("authorization", "Bearer a, Basic b")], id="two credentials"),
    ],
)
def test_a_path_that_is_remembered_knows_every_limit(
    make_portal: MakePortal, status: int, target: str, headers: list[tuple[str, str]]
) -> None:
    """What serves a spelling is remembered; what a request is, is looked at every time."""
    portal = make_portal()
    for _ in range(2):
        assert portal.request("GET", "/public").status == 200
        assert portal.request("GET", target, headers).status == status
