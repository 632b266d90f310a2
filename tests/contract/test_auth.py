"""Deny by default, and one answer for every unusable token, through both doors."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from flask import Flask

from conftest import MakePortal, Portal
from portalshield import Policy, Principal, current_principal, public


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unsigned(portal: Portal) -> str:
    _, payload, _ = portal.token().split(".")
    return f"{_b64(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{payload}."


MUTATIONS = [("", 1), ("A", 1), ("AA", 0), (".", 1), ("=", 0), ("\u00e9", 1), ("%", 1), ("", 40)]
BAD_TOKENS = [
    pytest.param(lambda p: p.token(ttl_s=-3600), id="expired"),
    pytest.param(lambda p: jwt.encode({"sub": "u1", "tenant_id": "north"}, "x" * 40, "HS256"), id="forged"),
    pytest.param(lambda p: p.token()[:-4] + "AAAA", id="signature changed"),
    pytest.param(_unsigned, id="alg none"),
    pytest.param(lambda p: p.token(iss="https://evil.example"), id="other issuer"),
    pytest.param(lambda p: p.token(aud="other"), id="other audience"),
    pytest.param(lambda p: p.token(exp=None), id="no expiry"),
    pytest.param(lambda p: p.token(nbf=time.time() + 3600), id="not yet valid"),
    pytest.param(lambda p: p.token(ttl_s=90 * 86400), id="lives too long"),
    pytest.param(lambda p: p.token(token_use="refresh"), id="a refresh token"),
    pytest.param(lambda p: p.token(sub=""), id="no subject"),
    pytest.param(lambda p: "not.a.token", id="no token at all"),
    pytest.param(lambda p: "a" * 20_000, id="far too long"),
    pytest.param(lambda p: p.token() + "==", id="padded"),
]


def test_a_route_without_a_decision_needs_a_principal(portal: Portal) -> None:
    """The strict default: no credential is 401 with a bare challenge (RFC 6750, 3.1), the handler never runs."""
    answer = portal.request("GET", "/search")
    assert (answer.status, answer.slug, portal.calls) == (401, "unauthenticated", [])
    assert answer.get("www-authenticate") == "Bearer"


@pytest.mark.parametrize("make", BAD_TOKENS)
def test_every_unusable_token_gets_the_same_answer(portal: Portal, make: Any) -> None:
    """401 invalid-token, the same bytes for every cause; nothing of the token comes back."""
    token = make(portal)
    answer = portal.request("GET", "/search", [("authorization", f"Bearer {token}")])
    document = {name: value for name, value in answer.json.items() if name != "request_id"}
    assert document == {
        "type": "urn:portalshield:problem:invalid-token",
        "title": "The access token is invalid",
        "status": 401,
    }
    assert answer.get("www-authenticate") == 'Bearer error="invalid_token"'
    assert portal.calls == []


@pytest.mark.parametrize("make", BAD_TOKENS)
def test_a_public_route_treats_an_unusable_token_as_none(portal: Portal, make: Any) -> None:
    """A stale token in a browser must not lock anybody out of the login page."""
    answer = portal.request("GET", "/public", [("authorization", f"Bearer {make(portal)}")])
    assert (answer.status, portal.calls) == (200, ["public"])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(portal: Portal, scheme: str) -> None:
    """RFC 9110, 11.1."""
    assert portal.request("GET", "/search", [("authorization", f"{scheme} {portal.token()}")]).status == 200


@pytest.mark.parametrize(
    "field",
    [
        pytest.param("Basic dTpw", id="another scheme"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer  ", id="blanks"),
        pytest.param("Bearer a b", id="two words"),
    ],
)
def test_a_malformed_field_is_refused(portal: Portal, field: str) -> None:
    """Anything but one scheme and one token68 is an invalid token."""
    answer = portal.request("GET", "/search", [("authorization", field)])
    assert (answer.status, portal.calls) == (401, [])


def test_two_authorization_fields_are_refused(portal: Portal) -> None:
    """Two readers could take two different ones: 400, also where a server or proxy has joined them, also on a public
    route."""
    north, south = portal.bearer()[0], portal.bearer("south")[0]
    for target in ("/search", "/public"):
        for headers in ([north, south], [("authorization", f"{north[1]}, {south[1]}")]):
            answer = portal.request("GET", target, headers)
            assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])


def test_a_token_in_the_query_is_no_credential(portal: Portal) -> None:
    """RFC 9700: tokens in addresses end up in logs."""
    assert portal.request("GET", f"/search?access_token={portal.token()}").status == 401


def test_missing_scopes_and_roles_are_403(portal: Portal) -> None:
    """The own tenant, but not this: 403 insufficient-scope with the scope that is missing (RFC 6750, 3.1)."""
    answer = portal.request("GET", "/scoped", portal.bearer())
    assert (answer.status, answer.slug) == (403, "insufficient-scope")
    assert answer.get("www-authenticate") == 'Bearer error="insufficient_scope", scope="invoices:read"'
    assert portal.request("GET", "/owners", portal.bearer(roles=["coach"])).status == 403
    assert portal.calls == []
    assert portal.request("GET", "/scoped", portal.bearer(scopes=["invoices:read"])).status == 200
    assert portal.request("GET", "/owners", portal.bearer(roles=["coach", "owner"])).status == 200


def test_an_unserved_path_tells_strangers_nothing(portal: Portal) -> None:
    """Without a principal our own 404 and the application is not asked; with one it answers itself."""
    assert portal.request("GET", "/nope").slug == "not-found"
    known = portal.request("GET", "/nope", portal.bearer())
    assert known.status == 404
    assert "urn:portalshield" not in known.body.decode()


def test_a_wrong_method_of_a_public_route_is_told(portal: Portal) -> None:
    """405 with Allow, as the framework says it; of a protected route only to a principal."""
    answer = portal.request("DELETE", "/public")
    assert answer.status == 405
    assert "GET" in (answer.get("allow") or "")
    assert portal.request("DELETE", "/me").status == 404


def test_policies_protect_an_application_nobody_wants_to_edit(make_portal: MakePortal) -> None:
    """A policy table says the same as decorators; the decorator wins keyword by keyword."""
    portal = make_portal(policies=[Policy("GET /search", public=True), Policy("* /scoped", roles=["admin"])])
    assert portal.request("GET", "/scoped", portal.bearer(scopes=["invoices:read"])).status == 403
    answer = portal.request("GET", "/scoped", portal.bearer(scopes=["invoices:read"], roles=["admin"]))
    assert answer.status == 200


def test_public_and_health_variables(make_portal: MakePortal) -> None:
    """PUBLIC and HEALTH open routes by pattern; health routes skip host check and limits."""
    portal = make_portal({"PUBLIC": "GET /search", "HEALTH": "GET /limited", "HOSTS": "portal.example.com"})
    assert portal.request("GET", "/limited", [("host", "10.0.0.1")]).status == 200
    assert portal.request("GET", "/public", [("host", "10.0.0.1")]).status == 421


class TestOwnIdentity:
    """`authenticate` and `tenant_of`: an application with its own sessions, a token without a tenant."""

    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_authenticate_replaces_the_token(self, make_portal: MakePortal, colour: str) -> None:
        """The application says who it is, from its own request object; None is nobody."""

        def sync_authenticate(request: Any) -> Principal | None:
            user = request.headers.get("x-user")
            return Principal(user, tenant="north") if user else None

        async def async_authenticate(request: Any) -> Principal | None:
            return sync_authenticate(request)

        chosen = sync_authenticate if colour == "sync" else async_authenticate
        portal = make_portal({"AUTH": "none"}, authenticate=chosen)
        assert portal.request("GET", "/search").status == 401
        assert portal.request("GET", "/search", [("x-user", "u7")]).status == 200
        assert portal.request("GET", "/tenants/south/clients/1", [("x-user", "u7")]).status == 404
        assert portal.request("GET", "/tenants/north/clients/1", [("x-user", "u7")]).status == 200
        assert portal.calls == ["search", "client"]
        body = [("x-user", "u7"), ("content-type", "application/json")]
        assert portal.request("POST", "/search", body, b'{"tenant_id":"south"}').status == 404
        passed = portal.request("POST", "/search", body, b'{"tenant_id":"north"}')
        assert passed.json["body"] == '{"tenant_id":"north"}'

    def test_a_failing_authenticate_is_503(self, make_portal: MakePortal) -> None:
        """Unknown means refuse: an exception is no anonymous visitor."""

        def authenticate(request: Any) -> Principal | None:
            raise RuntimeError("database away")

        portal = make_portal({"AUTH": "none"}, authenticate=authenticate)
        answer = portal.request("GET", "/search")
        assert (answer.status, answer.slug, portal.calls) == (503, "unavailable", [])
        assert answer.get("retry-after") == "5"

    @pytest.mark.parametrize("colour", ["sync", "async"])
    def test_tenant_of_looks_the_tenant_up(self, make_portal: MakePortal, colour: str) -> None:
        """One member: that one. Several: the addressed one. The answer is asked once and kept."""
        asked: list[str] = []
        memberships = {"one": "north", "two": ["north", "south"], "none": None}

        def sync_tenant_of(principal: Principal) -> Any:
            asked.append(principal.subject)
            return memberships[principal.subject]

        async def async_tenant_of(principal: Principal) -> Any:
            return sync_tenant_of(principal)

        portal = make_portal(tenant_of=sync_tenant_of if colour == "sync" else async_tenant_of)
        one, two, none = (portal.bearer(None, subject=name) for name in ("one", "two", "none"))
        assert portal.request("GET", "/search", one).json["tenant"] == "north"
        assert portal.request("GET", "/search", one).json["tenant"] == "north"
        assert asked == ["one"]
        assert portal.request("GET", "/tenants/south/clients/1", one).status == 404
        assert portal.request("GET", "/tenants/south/clients/1", two).json["tenant"] == "south"
        assert portal.request("GET", "/search", two).slug == "no-tenant"
        assert portal.request("GET", "/search", none).slug == "no-tenant"


def test_a_flood_of_mutated_tokens_is_no_server_error(portal: Portal) -> None:
    """400 or 401 for each, the handler never runs."""
    good = portal.token()
    changed = [good[:at] + mark + good[at + width :] for at in range(0, len(good), 23) for mark, width in MUTATIONS]
    statuses = {
        portal.request("GET", "/search", [("authorization", f"Bearer {token}")]).status
        for token in changed
        if token != good
    }
    assert statuses <= {400, 401}
    assert portal.calls == []


def test_a_handler_without_a_caller_is_told_why(make_portal: MakePortal) -> None:
    """Nobody is there on a public route; the message names what may be missing."""
    told: list[str] = []

    def ask() -> dict[str, str]:
        try:
            current_principal()
        except LookupError as error:
            told.append(str(error))
        return {}

    def prepare(app: Any) -> None:
        if isinstance(app, Flask):
            app.add_url_rule("/who", "who", public(ask))
        else:
            app.add_api_route("/who", public(ask))

    portal = make_portal(prepare=prepare)
    assert portal.request("GET", "/who").status == 200
    assert len(told) == 1
    assert "PORTALSHIELD_AUTH is unset or none" in told[0]
