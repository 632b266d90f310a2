"""Limits, bodies, errors, remembered heads and policies, through both doors, in their first form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import ORIGIN, MakePortal, Portal
from portalshield import ConfigurationError, Policy


class TestLimits:
    """Per address before authentication, per subject after it."""

    def test_a_flood_from_one_address_is_429(self, make_portal: MakePortal) -> None:
        """Exactly the quota passes; the answer says when to come back."""
        portal = make_portal({"RATE__PER_IP": "5/minute"})
        answers = [portal.request("GET", "/public") for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        last = answers[-1]
        assert last.slug == "rate-limited"
        assert int(last.get("retry-after") or "0") >= 1
        assert (last.get("ratelimit-policy") or "").endswith(";q=5;w=60")
        assert ";r=0;t=" in (last.get("ratelimit") or "")
        assert portal.request("GET", "/public", peer="203.0.113.99").status == 200

    def test_a_subject_has_its_own_quota(self, portal: Portal) -> None:
        """`@limit("3/minute")` counts the verified subject; another one is not touched."""
        statuses = [portal.request("GET", "/limited", portal.bearer(subject="a")).status for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert portal.request("GET", "/limited", portal.bearer(subject="b")).status == 200

    def test_two_quotas_stand_on_one_answer(self, portal: Portal) -> None:
        """Both policies are named once."""
        answer = portal.request("GET", "/limited", portal.bearer())
        assert len((answer.get("ratelimit-policy") or "").split(",")) == 2
        assert len((answer.get("ratelimit") or "").split(",")) == 2


class TestBodies:
    """Sizes, codings, media types, strict JSON, schemas."""

    def test_a_declared_body_over_the_limit_is_not_read(self, make_portal: MakePortal) -> None:
        """413 by declaration."""
        portal = make_portal({"BODY__MAX_SIZE": "1KB"})
        answer = portal.request("POST", "/public", [("content-type", "application/json")], b"[" + b"1" * 2000 + b"]")
        assert (answer.status, answer.slug, portal.calls) == (413, "body-too-large", [])

    def test_an_arriving_body_over_the_limit_is_cut(self, make_portal: MakePortal) -> None:
        """413 by arrival, chunk after chunk."""
        portal = make_portal({"BODY__MAX_SIZE": "1KB"})
        headers = [("content-type", "application/json"), ("transfer-encoding", "chunked")]
        answer = portal.request("POST", "/public", headers, [b"1" * 600, b"1" * 600])
        assert (answer.status, portal.calls) == (413, [])

    def test_a_streamed_upload_over_the_limit_is_cut(self, make_portal: MakePortal) -> None:
        """Multipart streams past the counter; the answer is 413 even though the application had started."""
        portal = make_portal({"BODY__MAX_SIZE": "1KB"})
        headers = [
            *portal.bearer(),
            ("content-type", "multipart/form-data; boundary=b"),
            ("transfer-encoding", "chunked"),
        ]
        file = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        answer = portal.request("POST", "/upload", headers, [file + b"1" * 600, b"1" * 600])
        assert (answer.status, portal.calls) == (413, [])

    @pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1, 1", " 5", "٣"])
    def test_a_malformed_length_is_refused(self, portal: Portal, length: str) -> None:
        """ASCII digits, one value (RFC 9112, 6.3)."""
        headers = [("content-type", "application/json"), ("content-length", length.encode().decode("latin-1"))]
        answer = portal.request("POST", "/public", headers, b"[1]", lint=False)
        assert (answer.status, portal.calls) == (400, [])

    def test_codings_and_types_off_the_list_are_415(self, portal: Portal) -> None:
        """A compressed body stays zipped, an unknown type unread."""
        gzip = portal.request(
            "POST", "/public", [("content-type", "application/json"), ("content-encoding", "gzip")], b"x"
        )
        assert (gzip.status, gzip.get("accept-encoding")) == (415, "identity")
        xml = portal.request("POST", "/public", [("content-type", "application/xml")], b"<x/>")
        assert (xml.status, xml.slug) == (415, "unsupported-media-type")
        assert portal.calls == []

    @pytest.mark.parametrize("body", [b"{", b"nul", b"[1]x", b'{"a":1,"a":2}', b"NaN", b"1e999", b'"\\ud800"', b"\xff"])
    def test_json_that_parsers_disagree_on_is_400(self, portal: Portal, body: bytes) -> None:
        """Strict JSON on every route."""
        answer = portal.json("POST", "/public", body)
        assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])

    def test_a_schema_refuses_with_pointers_and_no_input(self, portal: Portal) -> None:
        """422 names where and what, never what was sent; unknown members are refused."""
        document = json.dumps({"amount": "hunter2", "hunter2-name": 1}).encode()
        answer = portal.json("POST", "/invoices", document, portal.bearer())
        assert (answer.status, answer.slug, portal.calls) == (422, "invalid-payload", [])
        assert b"hunter2" not in answer.body
        assert {error["pointer"] for error in answer.json["errors"]} == {"/amount", ""}

    def test_a_valid_payload_is_handed_over(self, portal: Portal) -> None:
        """The handler takes the object that was validated at the edge."""
        assert portal.json("POST", "/invoices", b'{"amount": 3}', portal.bearer()).json == {"amount": 3}


class TestErrors:
    """What a refused client sees."""

    def test_a_crash_answers_one_safe_500(self, portal: Portal) -> None:
        """Request id, no exception text."""
        answer = portal.request("GET", "/boom")
        assert (answer.status, answer.slug) == (500, "internal-error")
        assert answer.json["request_id"] == answer.get("x-request-id")
        assert b"secret-in-exception" not in answer.body

    def test_a_page_load_gets_a_page(self, portal: Portal) -> None:
        """Accept: text/html."""
        answer = portal.request("GET", "/search", [("accept", "text/html,*/*")])
        assert answer.status == 401
        assert (answer.get("content-type") or "").startswith("text/html")
        assert (answer.get("x-request-id") or "?").encode() in answer.body

    def test_report_mode_lets_pass_and_tells(self, make_portal: MakePortal) -> None:
        """MODE__TENANT=report: the foreign request passes; MODE=report does not weaken size caps."""
        portal = make_portal({"MODE__TENANT": "report"})
        assert portal.request("GET", "/tenants/south/clients/7", portal.bearer()).status == 200
        weakened = make_portal({"MODE": "report", "BODY__MAX_SIZE": "10"})
        assert weakened.request("GET", "/search", weakened.bearer(scopes=[])).status == 200
        body = weakened.request("POST", "/public", [("content-type", "application/json")], b"[1,2,3,4,5,6,7,8]")
        assert body.status == 413


class TestRememberedHeads:
    """What was added to a response is remembered for the next one like it, and only for that."""

    def test_what_the_application_says_in_vary_is_its_own_case(self, make_portal: MakePortal) -> None:
        """After one answer with `Vary: *`, one with `Vary: accept` still names Origin and the credentials."""

        def prepare(app: Any) -> None:
            import flask
            from fastapi import FastAPI, Response

            varying = iter(("*", "accept", "*", "accept"))
            if isinstance(app, FastAPI):

                @app.get("/varying")
                async def asgi_varying() -> Response:
                    return Response("{}", media_type="application/json", headers={"vary": next(varying)})
            else:

                @app.get("/varying")
                def wsgi_varying() -> flask.Response:
                    return flask.Response("{}", content_type="application/json", headers={"vary": next(varying)})

        portal = make_portal(prepare=prepare)
        found = [portal.request("GET", "/varying", portal.bearer()).get("vary") for _ in range(4)]
        assert found == ["*", "accept, Origin, Authorization, Cookie"] * 2

    def test_a_principal_of_one_answer_is_none_of_the_next(self, portal: Portal) -> None:
        """The private fields of an answer to a principal do not stand on a public one, nor the other way."""
        for _ in range(2):
            assert portal.request("GET", "/public", portal.bearer()).get("cache-control") == "private, no-store"
            assert portal.request("GET", "/public").get("cache-control") is None
            assert portal.request("GET", "/public", [("origin", ORIGIN)]).get("access-control-allow-origin") == ORIGIN
            assert portal.request("GET", "/public").get("access-control-allow-origin") is None


class TestPolicies:
    """A policy that is wrong stops the start, with the route it stands at."""

    @pytest.mark.parametrize(
        "terms",
        [
            pytest.param({"limits": ["often"]}, id="no quota"),
            pytest.param({"max_body": "much"}, id="no size"),
            pytest.param({"mode": "maybe"}, id="no mode"),
        ],
    )
    def test_a_wrong_value_names_its_route(self, make_portal: MakePortal, terms: dict[str, Any]) -> None:
        """PS-POLICY-004, without the value."""
        portal = make_portal(policies=[Policy("GET /search", **terms)])
        with pytest.raises(ConfigurationError) as caught:
            portal.shield.routes()
        assert {problem.id for problem in caught.value.problems} == {"PS-POLICY-004"}
        assert "/search" in str(caught.value)
        assert not {"often", "much", "maybe"} & set(str(caught.value).split())
