"""CSRF without tokens, through both doors: Sec-Fetch-Site x Origin x agreement with Host x method."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from doors import Answer

from conftest import ORIGIN, MakePortal, Portal, portal_behind
from portalshield import ConfigurationError, Policy, Settings
from portalshield.testing import environment

HOST = "portal.example.com"
TRUSTED = "https://partner.example"
COOKIE = ("cookie", "session=1")
FORM = ("content-type", "application/x-www-form-urlencoded")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
SITES = (None, "same-origin", "none", "same-site", "cross-site", "Same-Origin", "same-origin, cross-site", "unknown")
ORIGINS = (None, "own", "other scheme", "other port", "evil", "sub", "trusted", "null")
OPEN = [Policy("* /*", public=True)]


def given(origin: str | None, host: str) -> str | None:
    """The `Origin` field of a row of the matrix, for a request to `host`."""
    kinds = {
        "own": f"https://{host}",
        "other scheme": f"http://{host}",
        "other port": f"https://{host}:8443",
        "evil": "https://evil.example",
        "sub": f"https://evil.{host}",
        "trusted": TRUSTED,
        "null": "null",
    }
    return kinds[origin] if origin is not None else None


def expected(site: str | None, origin: str | None, method: str) -> bool:
    """Whether the rule of Go's CrossOriginProtection refuses, from the first fact that is known."""
    if method in SAFE or origin == "trusted":
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    return origin not in (None, "own", "other scheme")


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def portal(request: pytest.FixtureRequest) -> Portal:
    """One for the whole module, all of it public; one partner may write."""
    variables = {"CSRF__TRUSTED_ORIGINS": TRUSTED, "RATE__PER_IP": "1000000/minute"}
    return portal_behind(request.param, variables, policies=OPEN)


def was_refused(answer: Answer) -> bool:
    """Refused by this layer and by no other."""
    refused = answer.status == 403
    assert not refused or answer.slug == "csrf-refused"
    return refused


def send(portal: Portal, method: str, *fields: tuple[str, str | None], host: str = HOST) -> bool:
    """Whether a request with these fields was refused; a handler ran if and only if it was not."""
    portal.calls.clear()
    named = [("host", host), *((name, value) for name, value in fields if value is not None)]
    answer = portal.request(method, "/search", named, lint=False)
    refused = was_refused(answer)
    if method in ("GET", *UNSAFE):
        try:
            assert portal.calls == ([] if refused else ["search"])
        finally:
            portal.calls.clear()
    return refused


class TestTheRule:
    """The table of the rule, and the whole matrix."""

    @pytest.mark.parametrize("method", [*SAFE, *UNSAFE])
    @pytest.mark.parametrize("host", [HOST, "PORTAL.example.com", f"{HOST}:8000", "[::1]:8000", "localhost"])
    def test_the_whole_matrix(self, portal: Portal, method: str, host: str) -> None:
        """Every value of Sec-Fetch-Site with every kind of origin: the verdict follows from the first known fact."""
        wrong = [
            (site, origin)
            for site, origin in product(SITES, ORIGINS)
            if send(
                portal, method, COOKIE, ("sec-fetch-site", site), ("origin", given(origin, host.lower())), host=host
            )
            is not expected(site, origin, method)
        ]
        # With a port in Host, `https://host:8443` has two: no browser sends that, and it is foreign all the same.
        assert wrong == []

    @pytest.mark.parametrize(
        ("method", "site", "origin", "refused"),
        [
            pytest.param("POST", "same-origin", None, False, id="same-origin allowed"),
            pytest.param("POST", "none", None, False, id="none allowed"),
            pytest.param("POST", "cross-site", None, True, id="cross-site blocked"),
            pytest.param("POST", "same-site", None, True, id="same-site blocked"),
            pytest.param("POST", None, None, False, id="no header with no origin"),
            pytest.param("POST", None, f"https://{HOST}", False, id="no header with matching origin"),
            pytest.param("POST", None, "https://attacker.example", True, id="no header with mismatched origin"),
            pytest.param("POST", None, "null", True, id="no header with null origin"),
            pytest.param("GET", "cross-site", None, False, id="GET allowed"),
            pytest.param("HEAD", "cross-site", None, False, id="HEAD allowed"),
            pytest.param("OPTIONS", "cross-site", None, False, id="OPTIONS allowed"),
            pytest.param("PUT", "cross-site", None, True, id="PUT blocked"),
            pytest.param("POST", None, TRUSTED, False, id="trusted origin"),
            pytest.param("POST", "cross-site", TRUSTED, False, id="trusted origin, cross-site"),
            pytest.param("POST", "cross-site", "https://attacker.example", True, id="untrusted origin, cross-site"),
        ],
    )
    def test_the_published_table(
        self, portal: Portal, method: str, site: str | None, origin: str | None, refused: bool
    ) -> None:
        """The cases that Go tests its own with."""
        assert send(portal, method, COOKIE, ("sec-fetch-site", site), ("origin", origin)) is refused

    @pytest.mark.parametrize(
        ("referer", "refused"),
        [
            (f"https://{HOST}/form?x=1", False),
            (f"{TRUSTED}/page", False),
            ("https://evil.example/", True),
            (f"https://evil.example/?https://{HOST}/", True),
            (f"https://{HOST}@evil.example/", True),
            (f"https://{HOST}.evil.example/", True),
            ("about:blank", True),
        ],
    )
    def test_a_referer_stands_in_where_both_are_missing(self, portal: Portal, referer: str, refused: bool) -> None:
        """Older browsers that leave `Origin` out of form posts."""
        assert send(portal, "POST", COOKIE, ("referer", referer)) is refused
        assert send(portal, "POST", COOKIE, ("referer", referer), ("sec-fetch-site", "same-origin")) is False

    @pytest.mark.parametrize("method", ["post", "Post", "dElete", "PATCh"])
    def test_no_spelling_of_a_method_is_safe(self, portal: Portal, method: str) -> None:
        """Werkzeug would upper-case it: refused as a method that is none."""
        answer = portal.request(method, "/search", [COOKIE, ("sec-fetch-site", "cross-site")], lint=False)
        assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])

    @pytest.mark.parametrize("sites", [("same-origin", "cross-site"), ("cross-site", "same-origin")])
    def test_two_values_are_none(self, portal: Portal, sites: tuple[str, str]) -> None:
        """ASGI hands both over (400), WSGI joins them to one that nobody knows (403)."""
        answer = portal.request("POST", "/search", [COOKIE, *(("sec-fetch-site", site) for site in sites)])
        assert (answer.status, portal.calls) == (400 if portal.name == "asgi" else 403, [])


class TestWhatItActsOn:
    """What a browser adds by itself: cookies, and credentials of its own log-in window."""

    CROSS = ("sec-fetch-site", "cross-site")

    @pytest.mark.parametrize(
        ("fields", "refused"),
        [
            pytest.param([COOKIE], True, id="cookie"),
            pytest.param([("cookie", "")], True, id="empty cookie"),
            pytest.param([], False, id="nothing to ride on"),
            pytest.param([("authorization", "Bearer x.y.z")], False, id="bearer"),
            pytest.param([("authorization", "Bearer x.y.z"), COOKIE], False, id="bearer and cookie"),
            pytest.param([("authorization", "Basic dTpw")], True, id="basic"),
            pytest.param([("authorization", "basic dTpw"), COOKIE], True, id="basic and cookie"),
            pytest.param([("authorization", "Digest username=u")], True, id="digest"),
            pytest.param([("authorization", "Negotiate YII="), COOKIE], True, id="negotiate"),
            pytest.param([("authorization", "NTLM TlRM"), COOKIE], True, id="ntlm"),
            pytest.param([("authorization", ""), COOKIE], True, id="empty authorization and cookie"),
        ],
    )
    def test_a_cross_site_post_rides_on_it_or_not(
        self, portal: Portal, fields: list[tuple[str, str]], refused: bool
    ) -> None:
        """A bearer token has to be added by a script, and CORS decides whose may."""
        assert send(portal, "POST", self.CROSS, *fields) is refused
        assert send(portal, "POST", *fields) is False, "no browser"

    def test_a_form_post_is_refused_before_the_cookie_is_looked_at(self, make_portal: MakePortal) -> None:
        """With tokens in cookies: 403 for a valid and an invalid one alike, and the own page passes."""
        portal = make_portal({"AUTH__COOKIE": "__Host-token"})
        answers = []
        for token in (portal.token(), "x.y.z"):
            cookie = ("cookie", f"__Host-token={token}")
            answers.append(portal.request("POST", "/search", [cookie, FORM, self.CROSS], b"a=1"))
        assert [(answer.status, answer.slug) for answer in answers] == [(403, "csrf-refused")] * 2
        own = [("cookie", f"__Host-token={portal.token()}"), FORM, ("sec-fetch-site", "same-origin")]
        assert portal.request("POST", "/search", own, b"a=1").status == 200
        assert portal.calls == ["search"]

    def test_no_path_is_exempt(self, portal: Portal) -> None:
        """Mounted, nested and unserved ones; there is no list of paths (CVE-2025-47910)."""
        for path in ("/public", "/invoices", "/v1/nested/tenants/north/clients/7", "/nope", "/upload", "/"):
            answer = portal.request("POST", path, [COOKIE, self.CROSS])
            assert (answer.status, answer.slug) == (403, "csrf-refused"), path


class TestTrustedOrigins:
    """Who may write from elsewhere."""

    @staticmethod
    def _writes(portal: Portal, origin: str) -> bool:
        return not send(portal, "POST", COOKIE, ("sec-fetch-site", "cross-site"), ("origin", origin))

    @pytest.mark.parametrize(
        ("variables", "origin", "writes"),
        [
            pytest.param({}, ORIGIN, False, id="a CORS origin without credentials"),
            pytest.param({"CORS__ALLOW_CREDENTIALS": "true"}, ORIGIN, True, id="a CORS origin with credentials"),
            pytest.param(
                {"CORS__ALLOW_CREDENTIALS": "true", "CORS__ALLOW_ORIGINS": "https://*.example.com"},
                "https://a.example.com",
                True,
                id="a CORS pattern with credentials",
            ),
            pytest.param(
                {"CORS__ALLOW_CREDENTIALS": "true", "CORS__ALLOW_ORIGINS": "https://*.example.com"},
                "https://a.b.example.com",
                False,
                id="what the pattern does not cover",
            ),
            pytest.param(
                {"CORS__ALLOW_CREDENTIALS": "true", "CORS__ALLOW_ORIGINS": "http://localhost:*"},
                "http://localhost:5173",
                True,
                id="any port in development",
            ),
            pytest.param(
                {"CORS__ALLOW_CREDENTIALS": "true", "CSRF__TRUSTED_ORIGINS": TRUSTED},
                ORIGIN,
                False,
                id="named ones only",
            ),
            pytest.param({"CSRF__TRUSTED_ORIGINS": "HTTPS://Partner.example:443/"}, TRUSTED, True, id="canonicalised"),
            pytest.param({"CSRF__TRUSTED_ORIGINS": TRUSTED}, TRUSTED + ".evil.example", False, id="look-alike"),
            pytest.param({"CSRF__TRUSTED_ORIGINS": TRUSTED}, "http://partner.example", False, id="without TLS"),
        ],
    )
    def test_they_are_named_or_those_of_cors_with_credentials(
        self, make_portal: MakePortal, variables: dict[str, str], origin: str, writes: bool
    ) -> None:
        """Exact origins and patterns alike."""
        assert self._writes(make_portal(variables, policies=OPEN), origin) is writes

    @pytest.mark.parametrize(
        "entry", ["*", "null", "https://*.vercel.app", "hunter2.example", "https://hunter2.example/x"]
    )
    def test_a_dangerous_entry_stops_the_start(self, entry: str) -> None:
        """With the reason that CORS would give, and without the value."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(CSRF__TRUSTED_ORIGINS=f"https://ok.example,{entry}"))
        (problem,) = caught.value.problems
        assert (problem.id, problem.variable) == ("PS-CSRF-001", "PORTALSHIELD_CSRF__TRUSTED_ORIGINS")
        assert problem.message.startswith("entry 2")
        assert "hunter2" not in str(caught.value)

    def test_all_wrong_entries_are_told(self) -> None:
        """One message each."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(CSRF__TRUSTED_ORIGINS="null,partner.example"))
        assert [problem.id for problem in caught.value.problems] == ["PS-CSRF-001"] * 2


class TestModes:
    """Enforce, report, off."""

    @pytest.mark.parametrize(
        ("mode", "status"), [("enforce", 403), ("report", 200), ("off", 200)], ids=["enforce", "report", "off"]
    )
    def test_the_layers_mode_decides(self, make_portal: MakePortal, mode: str, status: int) -> None:
        """Report lets pass."""
        portal = make_portal({"MODE__CSRF": mode})
        fields: list[Any] = [COOKIE, ("sec-fetch-site", "cross-site")]
        assert portal.request("POST", "/public", fields).status == status


class TestRoute:
    """`csrf=False`: a decision about one route."""

    def test_it_lets_foreign_pages_write_there_and_nowhere_else(self, make_portal: MakePortal) -> None:
        """A route that an embedded form of a partner posts to."""
        portal = make_portal(policies=[*OPEN, Policy("POST /public", csrf=False)])
        fields: list[Any] = [COOKIE, ("sec-fetch-site", "cross-site")]
        assert portal.request("POST", "/public", fields).status == 200
        assert portal.request("POST", "/search", fields).slug == "csrf-refused"

    def test_it_is_a_finding(self, make_portal: MakePortal) -> None:
        """Whoever reads `check` learns where cookies are taken from foreign pages."""
        portal = make_portal(policies=[*OPEN, Policy("POST /public", csrf=False)])
        found = [(finding.id, finding.where) for finding in portal.shield.check() if finding.id == "PS-CSRF-102"]
        assert found == [("PS-CSRF-102", "POST /public")]
