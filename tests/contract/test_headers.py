"""Security headers through both doors: byte by byte, on every kind of answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import flask
import pytest
from doors import Answer, AsgiDoor
from fastapi import FastAPI, Request, Response

from conftest import ORIGIN, MakePortal, Portal
from portalshield import ConfigurationError, Policy, Settings, Shield
from portalshield.testing import environment

API = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "cross-origin",
}
PAGE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin-allow-popups",
    "cross-origin-resource-policy": "same-site",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
SCRIPT = {name: value for name, value in API.items() if name != "content-security-policy"}
HSTS = {"strict-transport-security": "max-age=31536000"}
NAMES = {*API, *PAGE, *HSTS, "cross-origin-embedder-policy", "x-xss-protection", "server", "x-powered-by"}
PUBLIC = [Policy("* /*", public=True)]


def security_fields(answer: Answer) -> dict[str, str]:
    """All security fields of an answer, each of which came once."""
    found = [(name.lower(), value) for name, value in answer.headers if name.lower() in NAMES]
    assert len(dict(found)) == len(found), found
    return dict(found)


def adding(content_type: str | None, fields: dict[str, str], body: str = "x") -> Callable[[Any], None]:
    """Gives a portal the route /own, which answers with these header fields."""

    def prepare(app: Any) -> None:
        def answer() -> Any:
            if isinstance(app, FastAPI):
                given = {**fields, **({"content-type": content_type} if content_type else {})}
                return Response(body, headers=given)
            response = flask.Response(body, content_type=content_type or "application/json", headers=fields)
            if content_type is None:
                response.headers.pop("content-type", None)
            return response

        app.add_api_route("/own", answer) if isinstance(app, FastAPI) else app.add_url_rule("/own", "own", answer)

    return prepare


class TestProfiles:
    """One exact set of fields per profile."""

    ANSWERS = (
        pytest.param("GET", "/public", [], b"", 200, id="200"),
        pytest.param("GET", "/search", ["bearer"], b"", 200, id="200 of a principal"),
        pytest.param("GET", "/page", [], b"", 200, id="200 page"),
        pytest.param("GET", "/stream", [], b"", 200, id="200 stream"),
        pytest.param("OPTIONS", "/search", ["preflight"], b"", 204, id="204 preflight"),
        pytest.param("GET", "/nope", ["bearer"], b"", 404, id="404 of the application"),
        pytest.param("POST", "/page", [], b"", 405, id="405 of the application"),
        pytest.param("GET", "/boom", [], b"", 500, id="500 crash"),
        pytest.param("GET", "/boom", ["page"], b"", 500, id="500 crash as a page"),
        pytest.param("GET", "//x", [], b"", 400, id="400"),
        pytest.param("GET", "/search", [], b"", 401, id="401"),
        pytest.param("GET", "/search", ["page"], b"", 401, id="401 as a page"),
        pytest.param("GET", "/scoped", ["bearer"], b"", 403, id="403"),
        pytest.param("GET", "/nope", [], b"", 404, id="404"),
        pytest.param("GET", "/tenants/south/clients/7", ["bearer"], b"", 404, id="404 foreign tenant"),
        pytest.param("POST", "/public", ["xml"], b"x", 415, id="415"),
        pytest.param("POST", "/invoices", ["bearer", "json"], b"{}", 422, id="422"),
        pytest.param("POST", "/invoices", ["bearer", "json", "page"], b"{}", 422, id="422 as a page"),
        pytest.param("GET", "/public", ["long"], b"", 431, id="431"),
    )
    FIELDS: ClassVar[dict[str, list[tuple[str, str]]]] = {
        "json": [("content-type", "application/json")],
        "xml": [("content-type", "application/xml")],
        "page": [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")],
        "long": [("x-long", "a" * 70_000)],
        "preflight": [("origin", ORIGIN), ("access-control-request-method", "PUT")],
    }

    @pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
    @pytest.mark.parametrize(("method", "target", "fields", "body", "status"), ANSWERS)
    def test_every_answer_has_exactly_its_profile(
        self, portal: Portal, method: str, target: str, fields: list[str], body: bytes, status: int, https: bool
    ) -> None:
        """By its content type; Strict-Transport-Security over https only; the second time too."""
        given = [pair for name in fields for pair in (portal.bearer() if name == "bearer" else self.FIELDS[name])]
        for _ in range(2):
            answer = portal.request(method, target, given, body, https=https)
            assert answer.status == status
            is_page = (answer.get("content-type") or "").startswith("text/html")
            assert security_fields(answer) == {**(PAGE if is_page else API), **(HSTS if https else {})}
            assert is_page or "page" not in fields

    def test_a_spent_quota_has_them_too(self, make_portal: MakePortal) -> None:
        """429."""
        portal = make_portal({"RATE__PER_IP": "1/minute"})
        answers = [portal.request("GET", "/public", https=True) for _ in range(2)]
        assert [(answer.status, security_fields(answer)) for answer in answers] == [
            (200, {**API, **HSTS}),
            (429, {**API, **HSTS}),
        ]

    @pytest.mark.parametrize(
        ("content_type", "expected"),
        [
            pytest.param("text/html", PAGE, id="page"),
            pytest.param("TEXT/HTML; Charset=utf-8", PAGE, id="page in capitals"),
            pytest.param("application/xhtml+xml", PAGE, id="page in XML"),
            pytest.param("text/htmlx", API, id="no page"),
            pytest.param("text/plain", API, id="text"),
            pytest.param("application/pdf", API, id="file"),
            pytest.param("image/svg+xml", API, id="image that could run scripts"),
            pytest.param("text/javascript; charset=utf-8", SCRIPT, id="script"),
            pytest.param("application/javascript", SCRIPT, id="script by its old name"),
            pytest.param(None, API, id="none"),
        ],
    )
    def test_the_content_type_chooses(
        self, make_portal: MakePortal, content_type: str | None, expected: dict[str, str]
    ) -> None:
        """What is no page has the strict profile; a script has no policy that its worker would have to obey."""
        portal = make_portal(prepare=adding(content_type, {}), policies=PUBLIC)
        assert security_fields(portal.request("GET", "/own")) == expected

    def test_without_foreign_origins_answers_are_for_the_own_origin(self, make_portal: MakePortal) -> None:
        """Cross-Origin-Resource-Policy follows the CORS policy."""
        portal = make_portal({"CORS__ALLOW_ORIGINS": ""})
        assert portal.request("GET", "/public").get("cross-origin-resource-policy") == "same-origin"
        assert portal.request("GET", "/page").get("cross-origin-resource-policy") == "same-site"

    def test_an_answer_to_a_principal_is_kept_out_of_shared_caches(self, make_portal: MakePortal) -> None:
        """Unless the handler says what may be cached; nobody's answer stays as it is."""
        portal = make_portal(prepare=adding("text/plain", {"Cache-Control": "max-age=60"}))
        private = portal.request("GET", "/search", portal.bearer())
        assert private.get("cache-control") == "private, no-store"
        assert (private.get("vary") or "").split(", ") == ["Origin", "Authorization", "Cookie"]
        own = portal.request("GET", "/own", portal.bearer())
        assert (own.get("cache-control"), own.get("vary")) == ("max-age=60", "Origin")
        anonymous = portal.request("GET", "/public")
        assert (anonymous.get("cache-control"), anonymous.get("vary")) == (None, "Origin")


class TestOwnFields:
    """What the handler says stays, once; what it says about its software goes."""

    @pytest.mark.parametrize("name", sorted({*API, *PAGE, *HSTS}))
    @pytest.mark.parametrize("content_type", ["text/html", "application/json"])
    def test_a_field_of_the_handler_stays_once(self, make_portal: MakePortal, name: str, content_type: str) -> None:
        """In whatever case it is written; all others are added."""
        expected = {**(PAGE if content_type == "text/html" else API), **HSTS}
        for spelling in (name, name.title(), name.upper()):
            portal = make_portal(prepare=adding(content_type, {spelling: "own"}), policies=PUBLIC)
            answer = portal.request("GET", "/own", https=True)
            assert security_fields(answer) == {**expected, name: "own"}

    def test_software_is_not_advertised(self, make_portal: MakePortal) -> None:
        """`Server` and `X-Powered-By` of the application go, every time; other fields keep their order."""
        own = {"X-First": "1", "Server": "portal/1.2.3", "X-Powered-By": "a framework", "X-Last": "2"}
        portal = make_portal(prepare=adding("text/plain", own), policies=PUBLIC)
        for _ in range(2):
            answer = portal.request("GET", "/own")
            assert security_fields(answer) == API
            assert [value for name, value in answer.headers if name.lower() in ("x-first", "x-last")] == ["1", "2"]


class TestSettings:
    """`HEADERS__...`: on, off or a value."""

    VARIABLES: ClassVar[dict[str, tuple[str, str]]] = {
        "HSTS": ("strict-transport-security", "max-age=63072000; includeSubDomains; preload"),
        "CSP": ("content-security-policy", "default-src 'self'"),
        "FRAME_OPTIONS": ("x-frame-options", "DENY"),
        "REFERRER_POLICY": ("referrer-policy", "no-referrer, same-origin"),
        "PERMISSIONS_POLICY": ("permissions-policy", "camera=(self)"),
        "OPENER_POLICY": ("cross-origin-opener-policy", "same-origin"),
        "RESOURCE_POLICY": ("cross-origin-resource-policy", "same-origin"),
    }

    @pytest.mark.parametrize("variable", VARIABLES)
    def test_a_value_replaces_and_off_removes_on_pages(self, make_portal: MakePortal, variable: str) -> None:
        """One field, none of the others."""
        name, value = self.VARIABLES[variable]
        replaced = make_portal({f"HEADERS__{variable}": value}).request("GET", "/page", https=True)
        assert security_fields(replaced) == {**PAGE, **HSTS, name: value}
        removed = make_portal({f"HEADERS__{variable}": "off"}).request("GET", "/page", https=True)
        assert security_fields(removed) == {key: text for key, text in {**PAGE, **HSTS}.items() if key != name}

    @pytest.mark.parametrize("variable", VARIABLES)
    def test_other_answers_keep_their_strict_policy(self, make_portal: MakePortal, variable: str) -> None:
        """`CSP` speaks of pages: elsewhere the strict value stays, unless it is off; fields of pages stay there."""
        name, value = self.VARIABLES[variable]
        replaced = make_portal({f"HEADERS__{variable}": value}).request("GET", "/public", https=True)
        own = {name: value} if name in {**API, **HSTS} and variable != "CSP" else {}
        assert security_fields(replaced) == {**API, **HSTS, **own}
        removed = make_portal({f"HEADERS__{variable}": "off"}).request("GET", "/public", https=True)
        assert security_fields(removed) == {key: text for key, text in {**API, **HSTS}.items() if key != name}

    def test_cache_control_is_a_setting_too(self, make_portal: MakePortal) -> None:
        """`off`: the answer is the application's business."""
        portal = make_portal({"HEADERS__CACHE_CONTROL": "off"})
        answer = portal.request("GET", "/search", portal.bearer())
        assert (answer.get("cache-control"), answer.get("vary")) == (None, "Origin")
        portal = make_portal({"HEADERS__CACHE_CONTROL": "private, max-age=5"})
        assert portal.request("GET", "/search", portal.bearer()).get("cache-control") == "private, max-age=5"

    @pytest.mark.parametrize(
        ("variable", "value", "code"),
        [
            pytest.param("CSP", "", "001", id="empty"),
            pytest.param("CSP", "default-src 'self'\r\nSet-Cookie: hunter2=1", "001", id="a line break"),
            pytest.param("CSP", "default-src 'sélf'", "001", id="another alphabet"),
            pytest.param("PERMISSIONS_POLICY", "camera=()\x00", "001", id="a control character"),
            pytest.param("HSTS", "hunter2", "002", id="no age"),
            pytest.param("HSTS", "max-age=1y", "002", id="an age in years"),
            pytest.param("HSTS", "max-age=1; max-age=2", "002", id="two ages"),
            pytest.param("HSTS", "max-age=31536000; includeSubdomain", "002", id="a directive misspelt"),
            pytest.param("HSTS", "max-age=31536000; preload", "002", id="preload without sub-domains"),
            pytest.param("HSTS", "max-age=300; includeSubDomains; preload", "002", id="preload for minutes"),
            pytest.param("FRAME_OPTIONS", "ALLOW-FROM https://hunter2.example", "003", id="what no browser does"),
            pytest.param("FRAME_OPTIONS", "SAMEORIGN", "003", id="misspelt"),
            pytest.param("REFERRER_POLICY", "no-referer", "003", id="misspelt like the field"),
            pytest.param("REFERRER_POLICY", "no-referrer, hunter2", "003", id="one of two"),
            pytest.param("OPENER_POLICY", "same-site", "003", id="of another field"),
            pytest.param("RESOURCE_POLICY", "*", "003", id="a star"),
        ],
    )
    def test_a_value_that_browsers_would_ignore_stops_the_start(self, variable: str, value: str, code: str) -> None:
        """One id, the variable, what to do; never the value."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(**{f"HEADERS__{variable}": value}))
        (problem,) = caught.value.problems
        assert (problem.id, problem.variable) == (f"PS-HEAD-{code}", f"PORTALSHIELD_HEADERS__{variable}")
        assert problem.hint
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("on", 31_536_000),
            ("off", 0),
            ("max-age=0", 0),
            ('max-age="600"; includeSubDomains', 600),
            ("includesubdomains;max-age=99;", 99),
        ],
    )
    def test_the_age_of_hsts_is_read(self, value: str, seconds: int) -> None:
        """Quoted, in any order, with an empty directive (RFC 6797, 6.1)."""
        settings = Settings.from_env(environment(HEADERS__HSTS=value))
        assert settings.headers.hsts_max_age_s == seconds


class TestDocumentation:
    """FastAPI's pages, which are public in development."""

    @pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
    def test_the_default_policy_breaks_none_of_them(self, path: str) -> None:
        """Their scripts, styles, images and connections are limited by no directive."""
        answer = _documented("development").request("GET", path)
        assert answer.status == 200
        assert security_fields(answer) == PAGE
        directives = {part.split()[0] for part in (answer.get("content-security-policy") or "").split(";")}
        assert directives == {"frame-ancestors", "object-src", "base-uri"}
        assert b"<script" in answer.body

    def test_the_document_behind_them_is_there(self) -> None:
        """`/openapi.json`, readable by the page that asks."""
        answer = _documented("development").request("GET", "/openapi.json", [("sec-fetch-site", "same-origin")])
        assert (answer.status, "openapi" in answer.json) == (200, True)

    @pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
    def test_they_are_not_public_elsewhere(self, path: str) -> None:
        """In production nobody sees them without a credential."""
        assert _documented("production").request("GET", path).status == 401


def _documented(env: str) -> AsgiDoor:
    app = FastAPI()
    Shield(app, settings=Settings.from_env(environment(ENV=env, CORS__ALLOW_ORIGINS=ORIGIN)))
    return AsgiDoor(app)


class TestSplitCookies:
    """RFC 9113, 8.2.3: HTTP/2 clients may send `Cookie` in several fields."""

    @pytest.mark.parametrize(("version", "status"), [("2", 200), ("3", 200), ("1.1", 400)])
    def test_they_are_one_for_us_and_for_the_application(self, version: str, status: int) -> None:
        """Joined where the protocol allows it; in HTTP/1 two of them are two requests."""
        app = FastAPI()
        seen: list[list[str]] = []

        @app.get("/own")
        async def own(request: Request) -> None:
            seen.append(request.headers.getlist("cookie"))

        Shield(app, settings=Settings.from_env(environment()), policies=PUBLIC)
        door = AsgiDoor(app, scope_extra={"http_version": version})
        answer = door.request("GET", "/own", [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")])
        assert answer.status == status
        assert seen == ([["a=1; b=2"]] if status == 200 else [])
