"""CORS through both doors: who may read what, and which policies stop the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest
from connections import asgi_shielded, http_scope, run
from doors import Answer
from fastapi import FastAPI, Response
from flask_cors import CORS
from look_alikes import LOOK_ALIKES
from starlette.middleware.cors import CORSMiddleware

from conftest import ORIGIN, MakePortal, Portal, portal_behind
from portalshield import ConfigurationError, Policy, Settings
from portalshield.context import CURRENT
from portalshield.layers.cors import CorsConfig
from portalshield.rules.origins import CODES
from portalshield.testing import environment

EVIL = "https://evil.example"
PREVIEWS = "https://portal-*-acme.vercel.app"
CREDENTIALS = {"CORS__ALLOW_CREDENTIALS": "true"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
FIELDS = ["authorization", "content-type", "idempotency-key", "traceparent", "tracestate", "baggage", "sentry-trace"]


def preflight(origin: str, method: str = "PUT", fields: str = "authorization,content-type") -> list[tuple[str, str]]:
    """What a browser sends before a request that is not simple."""
    named = [("access-control-request-headers", fields)] if fields else []
    return [("origin", origin), ("access-control-request-method", method), *named]


def cors_fields(answer: Answer) -> dict[str, str]:
    """The CORS fields of an answer, each of which came once."""
    names = [name.lower() for name, _ in answer.headers if name.lower().startswith("access-control-")]
    assert len(names) == len(set(names)), names
    return {name: answer.get(name) or "" for name in names}


def vary_of(answer: Answer) -> list[str]:
    """The names in `Vary`, which came as one field."""
    return [name.strip().lower() for name in (answer.get("vary") or "").split(",") if name.strip()]


def adding(path: str, fields: dict[str, str], method: str = "GET") -> Callable[[Any], None]:
    """Gives a portal a public route that answers with these header fields."""

    def prepare(app: Any) -> None:
        def answer() -> Any:
            kind = Response if isinstance(app, FastAPI) else flask.Response
            return kind("{}", headers={"content-type": "application/json", **fields})

        if isinstance(app, FastAPI):
            app.add_api_route(path, answer, methods=[method])
        else:
            app.add_url_rule(path, "added", answer, methods=[method], provide_automatic_options=False)

    return prepare


PUBLIC = [Policy("* /*", public=True)]


class TestAllowedOrigins:
    """C-01, C-07, C-08, C-10, C-11, C-14, C-16."""

    def test_a_preflight_is_answered_without_the_application(self, portal: Portal) -> None:
        """204 with method, headers and age: for protected and unserved paths too, nobody asks for a credential."""
        for path in ("/search", "/tenants/south/clients/7", "/boom", "/nope"):
            answer = portal.request("OPTIONS", path, preflight(ORIGIN))
            assert (answer.status, answer.body, portal.calls) == (204, b"", [])
            assert cors_fields(answer) == {
                "access-control-allow-origin": ORIGIN,
                "access-control-allow-methods": ", ".join(METHODS),
                "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, traceparent, tracestate,"
                " baggage, sentry-trace",
                "access-control-max-age": "7200",
            }

    @pytest.mark.parametrize("method", METHODS)
    def test_every_configured_method_and_header_works(self, portal: Portal, method: str) -> None:
        """Preflight and the request after it, for each of them."""
        for field in FIELDS:
            found = cors_fields(portal.request("OPTIONS", "/search", preflight(ORIGIN, method, field)))
            assert method in found["access-control-allow-methods"].split(", ")
            assert field in found["access-control-allow-headers"].lower().split(", ")
        answer = portal.request(method, "/search", [("origin", ORIGIN), *portal.bearer()])
        assert cors_fields(answer)["access-control-allow-origin"] == ORIGIN
        assert portal.calls == (["search"] if method != "HEAD" or answer.status == 200 else [])

    def test_only_configured_methods_and_headers_work(self, make_portal: MakePortal) -> None:
        """A method or field off the list gets an answer without CORS fields; methods are case-sensitive."""
        portal = make_portal({"CORS__ALLOW_METHODS": "GET,POST", "CORS__ALLOW_HEADERS": "X-Own"})
        for method, fields in (("PUT", ""), ("post", ""), ("P", ""), ("POST", "authorization"), ("POST", "x-own,x-b")):
            answer = portal.request("OPTIONS", "/public", preflight(ORIGIN, method, fields))
            assert answer.status == 204
            assert set(cors_fields(answer)) <= {"access-control-allow-origin"}, (method, fields)
        assert "access-control-allow-headers" in cors_fields(
            portal.request("OPTIONS", "/public", preflight(ORIGIN, "POST", "x-own"))
        )

    @pytest.mark.parametrize(
        ("fields", "allowed"),
        [
            pytest.param("authorization,content-type", True, id="as browsers write it"),
            pytest.param("Authorization, Content-Type", True, id="capitals and a space"),
            pytest.param(" ,authorization ,,\tcontent-type,", True, id="empty elements and tabs"),
            pytest.param("authorization," * 500, True, id="the same again"),
            pytest.param("authorization;content-type", False, id="semicolon"),
            pytest.param("authorization\x0b", False, id="vertical tab"),
            pytest.param("authorization content-type", False, id="two in one"),
            pytest.param("*", False, id="a star is a name"),
            pytest.param(",".join(f"x-{number}" for number in range(2000)), False, id="too many"),
            pytest.param("a" * 20_000, False, id="too long"),
        ],
    )
    def test_the_list_is_read_tolerantly_and_the_result_is_strict(
        self, portal: Portal, fields: str, allowed: bool
    ) -> None:
        """C-08: list syntax (RFC 9110, 5.6.1); every name must be on the list."""
        answer = portal.request("OPTIONS", "/search", preflight(ORIGIN, "PUT", fields), lint=False)
        assert (answer.status, "access-control-allow-methods" in cors_fields(answer)) == (204, allowed)

    def test_a_list_in_two_fields_is_one_list(self, portal: Portal) -> None:
        """What stands in the first counts like what stands in the second."""
        two = [("access-control-request-headers", "x-foreign"), ("access-control-request-headers", "authorization")]
        for fields in (two, two[::-1]):
            answer = portal.request("OPTIONS", "/search", [*preflight(ORIGIN, fields=""), *fields])
            assert "access-control-allow-headers" not in cors_fields(answer)

    @pytest.mark.parametrize(
        ("fields", "method"),
        [
            pytest.param([("origin", ORIGIN)], "OPTIONS", id="no requested method"),
            pytest.param([("access-control-request-method", "PUT")], "OPTIONS", id="no origin"),
            pytest.param([], "OPTIONS", id="neither"),
            pytest.param(preflight(ORIGIN), "GET", id="another method"),
        ],
    )
    def test_what_is_no_preflight_reaches_the_application(
        self, make_portal: MakePortal, fields: list[tuple[str, str]], method: str
    ) -> None:
        """C-07: an application may answer OPTIONS by itself."""
        portal = make_portal(prepare=adding("/own", {"x-own": "1"}, method), policies=PUBLIC)
        answer = portal.request(method, "/own", fields)
        assert (answer.status, answer.get("x-own")) == (200, "1")

    @pytest.mark.parametrize(
        ("age", "sent"), [("10", "10"), ("0", "0"), ("2h", "7200"), ("24h", "7200"), ("7201", "7200")]
    )
    def test_the_age_stands_once_and_on_preflights_only(self, make_portal: MakePortal, age: str, sent: str) -> None:
        """C-10: never more than the smallest cap of a browser; the application's own age goes."""
        portal = make_portal(
            {"CORS__MAX_AGE": age}, prepare=adding("/own", {"access-control-max-age": "9"}), policies=PUBLIC
        )
        assert portal.request("OPTIONS", "/own", preflight(ORIGIN)).all("access-control-max-age") == [sent]
        assert portal.request("GET", "/own", [("origin", ORIGIN)]).all("access-control-max-age") == []

    def test_exposed_fields_are_named_and_set_cookie_never(self, make_portal: MakePortal) -> None:
        """C-11: ours and the configured ones, on the answer and not on the preflight."""
        portal = make_portal({"CORS__EXPOSE_HEADERS": "X-Total, ETag"})
        answer = portal.request("GET", "/public", [("origin", ORIGIN)])
        exposed = cors_fields(answer)["access-control-expose-headers"].split(", ")
        assert exposed == ["X-Total", "ETag", "X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After"]
        assert "access-control-expose-headers" not in cors_fields(
            portal.request("OPTIONS", "/public", preflight(ORIGIN))
        )

    def test_credentials_are_allowed_by_setting(self, make_portal: MakePortal) -> None:
        """`true` in small letters, on preflights, answers and refusals; without the setting nowhere."""
        for env, expected in ((CREDENTIALS, "true"), ({}, None)):
            portal = make_portal(env)
            answers = [
                portal.request("OPTIONS", "/public", preflight(ORIGIN)),
                portal.request("GET", "/public", [("origin", ORIGIN)]),
                portal.request("GET", "/search", [("origin", ORIGIN)]),
            ]
            assert [cors_fields(answer).get("access-control-allow-credentials") for answer in answers] == [expected] * 3

    @pytest.mark.parametrize("name", ["access-control-request-private-network", "access-control-request-local-network"])
    def test_private_network_access_is_neither_granted_nor_a_failure(self, portal: Portal, name: str) -> None:
        """C-14: it is dead, and granting it was CVE-2024-6221."""
        plain = portal.request("OPTIONS", "/search", preflight(ORIGIN))
        asking = portal.request("OPTIONS", "/search", [*preflight(ORIGIN), (name, "true")])
        assert (asking.status, cors_fields(asking)) == (plain.status, cors_fields(plain))

    @pytest.mark.parametrize(
        ("configured", "sent"),
        [
            pytest.param("HTTPS://App.Example.COM", ORIGIN, id="case"),
            pytest.param("https://app.example.com:443", ORIGIN, id="default port"),
            pytest.param("https://app.example.com/", ORIGIN, id="slash"),
            pytest.param("http://app.example.com:80", "http://app.example.com", id="default port of http"),
            pytest.param("https://Müller.example", "https://xn--mller-kva.example", id="international name"),
            pytest.param("http://[2001:DB8:0::1]:8080", "http://[2001:db8::1]:8080", id="ipv6"),
            pytest.param("http://127.0.0.1:5173", "http://127.0.0.1:5173", id="ipv4"),
            pytest.param("https://app.example.com:08443", "https://app.example.com:8443", id="leading zero"),
            pytest.param(PREVIEWS, "https://portal-git-7-acme.vercel.app", id="pattern"),
            pytest.param("http://localhost:*", "http://localhost:4321", id="any port of this machine"),
        ],
    )
    def test_configured_origins_become_what_a_browser_sends(
        self, make_portal: MakePortal, configured: str, sent: str
    ) -> None:
        """C-16: the answer repeats the field byte by byte, never the configured text."""
        portal = make_portal({"CORS__ALLOW_ORIGINS": configured})
        for answer in (
            portal.request("OPTIONS", "/public", preflight(sent)),
            portal.request("GET", "/public", [("origin", sent)]),
        ):
            assert cors_fields(answer)["access-control-allow-origin"] == sent


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def portals(request: pytest.FixtureRequest) -> list[Portal]:
    """One with an exact origin and a pattern, and one that allows credentials."""
    shared = {"RATE__PER_IP": "1000000/minute"}
    return [
        portal_behind(request.param, {"CORS__ALLOW_ORIGINS": f"{ORIGIN},{PREVIEWS}", **shared}),
        portal_behind(request.param, {**CREDENTIALS, **shared}),
    ]


class TestForeignOrigins:
    """C-02, C-03, C-09, C-13, C-18."""

    @pytest.mark.parametrize("origin", [value.decode("latin-1") for value in LOOK_ALIKES])
    def test_look_alikes_share_nothing(self, portals: list[Portal], origin: str) -> None:
        """C-02: no CORS field on preflight, answer and error, with and without credentials; `Vary` all the same."""
        assert len(LOOK_ALIKES) >= 40
        for portal in portals:
            answers = [
                portal.request("OPTIONS", "/search", preflight(origin), lint=False),
                portal.request("GET", "/public", [("origin", origin), ("cookie", "a=b")], lint=False),
                portal.request("GET", "/search", [("origin", origin)], lint=False),
            ]
            assert [answer.status for answer in answers] == [204, 200, 401]
            for answer in answers:
                assert cors_fields(answer) == {}
                assert "origin" in vary_of(answer)

    @pytest.mark.parametrize("origins", [(ORIGIN, EVIL), (EVIL, ORIGIN), (ORIGIN, ORIGIN), (ORIGIN, "null")])
    def test_two_origins_are_refused_or_share_nothing(self, portal: Portal, origins: tuple[str, str]) -> None:
        """C-03: ASGI servers hand both over (400), WSGI servers join them (no origin that anybody configured)."""
        fields = [("origin", origin) for origin in origins]
        answer = portal.request("GET", "/public", fields)
        if portal.name == "asgi":
            assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])
        else:
            assert cors_fields(answer) == {}

    def test_a_foreign_origin_is_no_refusal(self, portal: Portal) -> None:
        """C-13: browsers send `Origin` on same-origin POSTs too, and the own host is on nobody's list."""
        for origin in ("https://portal.example.com", EVIL, "null"):
            answer = portal.request("POST", "/public", [("origin", origin), ("content-type", "application/json")], b"1")
            assert (answer.status, cors_fields(answer)) == (200, {})

    def test_no_star_together_with_credentials(self, make_portal: MakePortal) -> None:
        """C-09: no CORS field has a wildcard at all, whatever the application says."""
        portal = make_portal(
            CREDENTIALS,
            prepare=adding("/own", {f"access-control-allow-{name}": "*" for name in ("origin", "methods", "headers")}),
            policies=PUBLIC,
        )
        for origin in (ORIGIN, EVIL, "null", "*"):
            for answer in (
                portal.request("OPTIONS", "/own", preflight(origin)),
                portal.request("GET", "/own", [("origin", origin)]),
            ):
                assert not any("*" in value for value in cors_fields(answer).values())

    def test_nothing_that_was_sent_is_reflected_as_markup(self, portal: Portal) -> None:
        """C-18: neither origin nor asked-for names nor path come back, in fields, documents or pages."""
        mark = "<script>alert(1)</script>"
        for method, path, accept in (
            ("OPTIONS", "/search", "*/*"),
            ("GET", "/search", "text/html"),
            ("GET", "/nope/" + mark.replace("/", ""), "text/html"),
        ):
            fields = [*preflight(mark, mark, mark), ("accept", accept), ("x-request-id", mark)]
            answer = portal.request(method, path, fields)
            text = str(answer.headers) + answer.body.decode()
            assert "script>" not in text
            assert "alert" not in text


class TestEveryAnswer:
    """C-04, C-05, C-06, C-12."""

    REFUSALS = (
        pytest.param("GET", "/%2e%2e/x", [], b"", {}, 400, id="400 ambiguous path"),
        pytest.param("POST", "/public", ["json"], b"{", {}, 400, id="400 json"),
        pytest.param("GET", "/search", [], b"", {}, 401, id="401"),
        pytest.param("GET", "/search", [("authorization", "Bearer x.y.z")], b"", {}, 401, id="401 bad token"),
        pytest.param("GET", "/scoped", ["bearer"], b"", {}, 403, id="403 scope"),
        pytest.param("POST", "/public", [("cookie", "a=b"), ("sec-fetch-site", "cross-site")], b"", {}, 403, id="403"),
        pytest.param("GET", "/nope", [], b"", {}, 404, id="404 unserved"),
        pytest.param("GET", "/tenants/south/clients/7", ["bearer"], b"", {}, 404, id="404 foreign tenant"),
        pytest.param("GET", "/nope", ["bearer"], b"", {}, 404, id="404 of the application"),
        pytest.param("POST", "/page", [], b"", {}, 405, id="405 of the application"),
        pytest.param("POST", "/public", ["json"], b"[1]", {"BODY__MAX_SIZE": "2"}, 413, id="413"),
        pytest.param("GET", "/public?" + "a" * 9000, [], b"", {}, 414, id="414"),
        pytest.param("POST", "/public", [("content-type", "text/x")], b"x", {}, 415, id="415"),
        pytest.param("GET", "/public", [], b"", {"HOSTS": "other.example"}, 421, id="421"),
        pytest.param("POST", "/invoices", ["bearer", "json"], b"{}", {}, 422, id="422"),
        pytest.param("GET", "/public", [("x-long", "a" * 70_000)], b"", {}, 431, id="431"),
        pytest.param("GET", "/boom", [], b"", {}, 500, id="500 crash"),
    )

    @pytest.mark.parametrize(("method", "target", "fields", "body", "env", "status"), REFUSALS)
    def test_errors_are_readable_by_an_allowed_front_end(
        self,
        make_portal: MakePortal,
        method: str,
        target: str,
        fields: list[Any],
        body: bytes,
        env: dict[str, str],
        status: int,
    ) -> None:
        """C-06: CORS fields, `Vary` and a request id on everything that goes wrong; a foreign origin gets none."""
        portal = make_portal({**env, **CREDENTIALS, "CSRF__TRUSTED_ORIGINS": "https://other.example"})
        known = {"bearer": portal.bearer(), "json": [("content-type", "application/json")]}
        given = [pair for field in fields for pair in (known[field] if isinstance(field, str) else [field])]
        answer = portal.request(method, target, [("origin", ORIGIN), *given], body)
        assert answer.status == status
        found = cors_fields(answer)
        assert found.pop("access-control-expose-headers").startswith("X-Request-ID")
        assert found == {"access-control-allow-origin": ORIGIN, "access-control-allow-credentials": "true"}
        assert "origin" in vary_of(answer)
        assert len(answer.all("x-request-id")) == 1
        foreign = portal.request(method, target, [("origin", EVIL), *given], body)
        assert (foreign.status, cors_fields(foreign)) == (status, {})
        assert "origin" in vary_of(foreign)

    def test_a_spent_quota_is_readable(self, make_portal: MakePortal) -> None:
        """C-06: 429 with the fields that say when to come back."""
        portal = make_portal({"RATE__PER_IP": "1/minute"})
        first, second = (portal.request("GET", "/public", [("origin", ORIGIN)]) for _ in range(2))
        assert (first.status, second.status) == (200, 429)
        assert cors_fields(second)["access-control-allow-origin"] == ORIGIN
        assert {"Retry-After", "RateLimit"} <= set(cors_fields(second)["access-control-expose-headers"].split(", "))
        assert second.get("retry-after") is not None

    def test_an_outage_is_readable(self, make_portal: MakePortal) -> None:
        """C-06: 503."""

        def authenticate(request: Any) -> None:
            raise ConnectionError

        portal = make_portal(authenticate=authenticate)
        answer = portal.request("GET", "/search", [("origin", ORIGIN)])
        assert (answer.status, cors_fields(answer)["access-control-allow-origin"]) == (503, ORIGIN)

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            pytest.param(None, ["origin"], id="none"),
            pytest.param("Accept-Encoding", ["accept-encoding", "origin"], id="appended"),
            pytest.param("origin", ["origin"], id="there already"),
            pytest.param("Accept, ORIGIN , Cookie", ["accept", "origin", "cookie"], id="there in capitals"),
            pytest.param("*", ["*"], id="star says it all"),
        ],
    )
    @pytest.mark.parametrize("origin", [None, ORIGIN, EVIL])
    def test_vary_is_appended_once(
        self, make_portal: MakePortal, own: str | None, expected: list[str], origin: str | None
    ) -> None:
        """C-04: with, without and with a foreign origin, the second time too (heads are remembered)."""
        portal = make_portal(prepare=adding("/own", {"vary": own} if own else {}), policies=PUBLIC)
        for _ in range(2):
            answer = portal.request("GET", "/own", [("origin", origin)] if origin else [])
            assert (answer.status, vary_of(answer)) == (200, expected)

    def test_the_applications_own_fields_do_not_survive(self, make_portal: MakePortal) -> None:
        """C-05: one policy, whoever asks."""
        own = {
            "Access-Control-Allow-Origin": "*",
            "access-control-allow-credentials": "true",
            "access-control-allow-methods": "*",
            "access-control-allow-headers": "*",
            "access-control-expose-headers": "Set-Cookie",
            "access-control-allow-private-network": "true",
        }
        portal = make_portal(prepare=adding("/own", own), policies=PUBLIC)
        for fields in ([], [("origin", EVIL)], [("origin", "null")]):
            assert cors_fields(portal.request("GET", "/own", fields)) == {}
        allowed = cors_fields(portal.request("GET", "/own", [("origin", ORIGIN)]))
        assert set(allowed) == {"access-control-allow-origin", "access-control-expose-headers"}
        assert "Set-Cookie" not in allowed["access-control-expose-headers"]

    def test_the_applications_own_middleware_does_not_survive(self, make_portal: MakePortal) -> None:
        """C-05: CORSMiddleware and flask-cors, the most generous they can be."""

        def prepare(app: Any) -> None:
            if isinstance(app, FastAPI):
                app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"])
            else:
                CORS(app, origins="*", supports_credentials=True)

        portal = make_portal(prepare=prepare)
        for origin, expected in ((EVIL, set()), (ORIGIN, {ORIGIN})):
            for answer in (
                portal.request("GET", "/public", [("origin", origin)]),
                portal.request("OPTIONS", "/public", preflight(origin)),
                portal.request("GET", "/boom", [("origin", origin)]),
            ):
                assert set(answer.all("access-control-allow-origin")) == expected
                assert answer.all("access-control-allow-credentials") == []

    def test_without_an_origin_nothing_is_added_but_vary(self, make_portal: MakePortal) -> None:
        """C-12: and without a policy not even that."""
        portal = make_portal()
        bare = make_portal({"CORS__ALLOW_ORIGINS": ""})
        found = [
            sorted(name for name, _ in each.request("GET", "/public").headers if name != "x-request-id")
            for each in (portal, bare)
        ]
        assert [name for name in found[0] if name not in found[1]] == ["vary"]
        assert bare.request("GET", "/public", [("origin", EVIL)]).get("vary") is None

    def test_minted_origins_are_not_kept(self, make_portal: MakePortal) -> None:
        """A pattern fits endlessly many origins: what is remembered of their answers stays bounded."""
        plans: list[Any] = []

        def prepare(app: Any) -> None:
            def seen() -> dict[str, Any]:
                x = CURRENT.get()
                assert x is not None
                plans.append(x.plan)
                return {}

            app.add_api_route("/seen", seen) if isinstance(app, FastAPI) else app.add_url_rule("/seen", "seen", seen)

        variables = {"CORS__ALLOW_ORIGINS": PREVIEWS, "RATE__PER_IP": "100000/minute"}
        portal = make_portal(variables, prepare=prepare, policies=PUBLIC)
        for number in range(600):
            origin = f"https://portal-{number}-acme.vercel.app"
            assert portal.request("GET", "/seen", [("origin", origin)]).get("access-control-allow-origin") == origin
            assert len(plans[-1].ready) <= 512


class TestPolicies:
    """C-15: dangerous or broken policies stop the start, each with its own id and a hint, never with the value."""

    ENTRIES = (
        pytest.param({"CORS__ALLOW_ORIGINS": "*"}, "002", id="a lone star"),
        pytest.param({"CORS__ALLOW_ORIGINS": "*", **CREDENTIALS}, "003", id="a lone star with credentials"),
        pytest.param({"CORS__ALLOW_ORIGINS": "null"}, "004", id="null"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.example/login"}, "005", id="a path"),
        pytest.param({"CORS__ALLOW_ORIGINS": "hunter2.example"}, "006", id="no scheme"),
        pytest.param({"CORS__ALLOW_ORIGINS": "chrome-extension://hunter2"}, "007", id="another scheme"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2:pw@app.example"}, "008", id="a user name"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2..example"}, "009", id="a broken host"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.example:99999"}, "010", id="a broken port"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.example x"}, "011", id="white space"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.*.example"}, "012", id="a star in another label"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://*-hunter2-*.example.com"}, "013", id="two stars"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://*.vercel.app"}, "014", id="a suffix that strangers share"),
        pytest.param({"CORS__ALLOW_ORIGINS": PREVIEWS, **CREDENTIALS}, "015", id="such a pattern with credentials"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.example:*"}, "016", id="a wildcard port"),
        pytest.param({"CORS__ALLOW_ORIGINS": "http://localhost:*", "ENV": "production"}, "016", id="in production"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2.example;https://b.example"}, "017", id="semicolon"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://hunter2-faß.example"}, "018", id="two readings of a letter"),
        pytest.param({"CORS__ALLOW_ORIGINS": "https://*.com"}, "019", id="a whole top level"),
        pytest.param({"CORS__ALLOW_METHODS": "GET,PSOT"}, "101", id="a method misspelt"),
        pytest.param({"CORS__ALLOW_METHODS": "patch"}, "101", id="a method in small letters"),
        pytest.param({"CORS__ALLOW_METHODS": "*"}, "101", id="a star for methods"),
        pytest.param({"CORS__ALLOW_METHODS": "GET,TRACE"}, "101", id="a method no browser sends"),
        pytest.param({"CORS__ALLOW_HEADERS": "*"}, "102", id="a star for headers"),
        pytest.param({"CORS__ALLOW_HEADERS": "X Hunter2"}, "102", id="no header name"),
        pytest.param({"CORS__EXPOSE_HEADERS": "*"}, "102", id="a star for exposed headers"),
        pytest.param({"CORS__MAX_AGE": "30d"}, "103", id="an age no browser keeps"),
        pytest.param({"CORS__EXPOSE_HEADERS": "Set-Cookie"}, "104", id="cookies for scripts"),
    )

    @pytest.mark.parametrize(("variables", "code"), ENTRIES)
    def test_it_does_not_start(self, variables: dict[str, str], code: str) -> None:
        """One id, the variable, what to do."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(**variables))
        (problem,) = caught.value.problems
        assert problem.id == f"PS-CORS-{code}"
        assert problem.variable.startswith("PORTALSHIELD_CORS__")
        assert problem.hint
        assert "hunter2" not in str(caught.value).lower()

    def test_every_entry_has_an_id_of_its_own(self) -> None:
        """At least fifteen kinds are told apart, and every id is reached (an empty entry by code only)."""
        ids = {param.values[1] for param in self.ENTRIES}
        assert ids | {"001"} == set(CODES) | {"101", "102", "103", "104"}
        (empty,) = CorsConfig(allow_origins=("",)).problems(credentials=False, development=False)
        assert empty.id == "PS-CORS-001"

    def test_a_near_miss_is_named(self) -> None:
        """`PSOT`: did you mean POST."""
        with pytest.raises(ConfigurationError, match="Did you mean POST"):
            Settings.from_env(environment(CORS__ALLOW_METHODS="PSOT"))

    def test_all_are_told_at_once(self) -> None:
        """Three broken entries are three messages, by number."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(CORS__ALLOW_ORIGINS="null, https://ok.example, x.example, https://*.com"))
        assert [problem.message.split(" is ")[0].split(" has ")[0] for problem in caught.value.problems] == [
            "entry 1",
            "entry 3",
            "entry 4",
        ]

    @pytest.mark.parametrize("env", ["development", "staging", "production"])
    def test_an_exact_localhost_origin_is_fine_everywhere(self, env: str) -> None:
        """`check` speaks of it in production (PS-CORS-201)."""
        settings = Settings.from_env(environment(ENV=env, CORS__ALLOW_ORIGINS="http://localhost:3000"))
        assert settings.cors.allow_origins == ("http://localhost:3000",)


class TestWebSockets:
    """C-17: no CORS there, so the handshake itself is refused."""

    OWN = "http://portal.example.com"

    @staticmethod
    def _kinds(origin: bytes | None, **variables: str) -> list[str]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})

        fields = [(b"host", b"portal.example.com"), *([(b"origin", origin)] if origin is not None else [])]
        scope = http_scope(path="/feed", type="websocket", scheme="ws", headers=fields, subprotocols=[], method=...)
        shielded = asgi_shielded(app, {"CORS__ALLOW_ORIGINS": f"{ORIGIN},{PREVIEWS}", **variables})
        return run(shielded, scope, {"type": "websocket.connect"}).kinds

    @pytest.mark.parametrize(
        "origin",
        [
            *LOOK_ALIKES,
            b"https://evil.example",
            b"http://portal.example.com.evil.example",
            b"http://portal.example.com:8080",
            b"file://portal.example.com",
            b"portal.example.com",
            b"://portal.example.com",
        ],
    )
    def test_foreign_handshakes_are_closed(self, origin: bytes) -> None:
        """Before they are accepted; what only looks like the own host or an allowed origin too."""
        assert self._kinds(origin) == ["websocket.close"]

    @pytest.mark.parametrize(
        "origin",
        [None, ORIGIN.encode(), b"https://portal-x-acme.vercel.app", OWN.encode(), b"https://PORTAL.example.com"],
    )
    def test_own_and_allowed_ones_pass(self, origin: bytes | None) -> None:
        """So does who sends no origin: no browser."""
        assert self._kinds(origin) == ["websocket.accept"]

    def test_report_mode_has_to_name_the_layer(self) -> None:
        """`MODE=report` alone does not open sockets to foreign pages."""
        assert self._kinds(EVIL.encode(), MODE="report") == ["websocket.close"]
        assert self._kinds(EVIL.encode(), MODE__CORS="report") == ["websocket.accept"]
