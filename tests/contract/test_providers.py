"""Providers, several issuers, cookies, step-up and impersonation, through both doors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, Principal, current_principal

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
SECRET = "correct-horse-battery-staple-and-more-0123456789"
COOKIE = "__Host-session"


def _key_set(key: Any, kid: str) -> str:
    return json.dumps({"keys": [{**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256"}]})


def _signed(claims: dict[str, Any], key: Any = KEY, kid: str | None = "k1", alg: str = "ES256") -> str:
    now = int(time.time())
    headers = {"kid": kid} if kid else None
    return jwt.encode({"sub": "u1", "iat": now, "exp": now + 600, **claims}, key, alg, headers=headers)


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def _cookie(token: str, name: str = COOKIE) -> list[tuple[str, str]]:
    return [("cookie", f"theme=dark; {name}={token}")]


def _how(app: Any) -> None:
    """A route that tells how the caller was known."""

    def how() -> dict[str, Any]:
        principal = current_principal()
        return {"how": principal.auth_method, "issuer": principal.issuer, "actor": principal.actor}

    app.get("/how")(how)


class Documents:
    """An issuer on this machine: what it publishes by path, and what was asked for."""

    def __init__(self) -> None:
        self.published: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        documents = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                documents.asked.append((self.path, threading.current_thread().name))
                body = documents.published.get(self.path, "").encode()
                self.send_response(200 if body else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def issuer() -> Iterator[Documents]:
    """An issuer that answers on loopback."""
    documents = Documents()
    yield documents
    documents.server.shutdown()
    documents.server.server_close()


@pytest.fixture
def make(make_portal: MakePortal) -> Iterator[MakePortal]:
    """Portals whose key sets are no longer fetched when the test ends. There is no secret unless one is given."""
    made: list[Portal] = []

    def build(env: dict[str, str], **more: Any) -> Portal:
        none = {"AUTH__SECRET": "", "AUTH__ISSUER": "", "AUTH__AUDIENCE": ""}
        made.append(make_portal({**none, **env}, **more))
        return made[-1]

    yield build
    for portal in made:
        for keys in portal.shield.protection.keys.values():
            keys.stop()


class TestKeySets:
    """Where keys come from."""

    def test_a_provider_s_key_set_is_fetched(self, make: MakePortal, issuer: Documents) -> None:
        """Supabase: below the issuer. Users come in, the other tokens of the project do not."""
        issuer.published["/auth/v1/.well-known/jwks.json"] = _key_set(KEY, "k1")
        portal = make({"AUTH": "supabase", "AUTH__ISSUER": f"{issuer.address}/auth/v1"})
        user = {
            "iss": f"{issuer.address}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "session_id": "s1",
            "app_metadata": {"tenant_id": "north"},
            "user_metadata": {"tenant_id": "south"},
        }
        assert portal.request("GET", "/search", _bearer(_signed(user))).json["tenant"] == "north"
        assert portal.request("GET", "/tenants/south/clients/1", _bearer(_signed(user))).status == 404
        for changes in ({"role": "anon"}, {"role": "service_role"}, {"aud": "anon"}, {"session_id": None}):
            token = _signed({name: value for name, value in {**user, **changes}.items() if value is not None})
            assert portal.request("GET", "/search", _bearer(token)).slug == "invalid-token"
        assert portal.request("GET", "/search", _bearer("sb_secret_abcdefghijklmnop")).slug == "invalid-token"
        assert portal.calls == ["search"]

    def test_discovery_finds_the_keys(self, make: MakePortal, issuer: Documents) -> None:
        """oidc: the issuer's metadata says where; both documents are fetched by the thread that refreshes keys."""
        issuer.published["/realm/.well-known/openid-configuration"] = json.dumps(
            {"issuer": f"{issuer.address}/realm", "jwks_uri": f"{issuer.address}/somewhere/keys"}
        )
        issuer.published["/somewhere/keys"] = _key_set(KEY, "k1")
        portal = make({"AUTH": "oidc", "AUTH__ISSUER": f"{issuer.address}/realm", "AUTH__AUDIENCE": "portal"})
        claims = {"iss": f"{issuer.address}/realm", "aud": "portal", "tenant_id": "north"}
        assert portal.request("GET", "/search", _bearer(_signed(claims))).status == 200
        assert portal.request("GET", "/search", _bearer(_signed(claims, OTHER_KEY))).status == 401
        assert [path for path, _ in issuer.asked][:2] == [
            "/realm/.well-known/openid-configuration",
            "/somewhere/keys",
        ]

    @pytest.mark.parametrize(
        "metadata",
        [
            pytest.param({"issuer": "{address}/", "jwks_uri": "{address}/keys"}, id="a slash more"),
            pytest.param({"issuer": "https://evil.example", "jwks_uri": "{address}/keys"}, id="another issuer"),
            pytest.param({"jwks_uri": "{address}/keys"}, id="no issuer"),
            pytest.param({"issuer": "{address}"}, id="no key set"),
            pytest.param({"issuer": "{address}", "jwks_uri": "http://198.51.100.1/keys"}, id="plain http elsewhere"),
            pytest.param({"issuer": "{address}", "jwks_uri": "file:///etc/passwd"}, id="a file"),
        ],
    )
    def test_metadata_that_is_not_the_issuer_s_own_brings_no_keys(
        self, make: MakePortal, issuer: Documents, metadata: dict[str, str]
    ) -> None:
        """Nobody can tell, so 503; the key set is not even asked for."""
        written = {name: text.format(address=issuer.address) for name, text in metadata.items()}
        issuer.published["/.well-known/openid-configuration"] = json.dumps(written)
        issuer.published["/keys"] = _key_set(KEY, "k1")
        portal = make({"AUTH": "oidc", "AUTH__ISSUER": issuer.address, "AUTH__AUDIENCE": "portal"})
        token = _signed({"iss": issuer.address, "aud": "portal", "tenant_id": "north"})
        answer = portal.request("GET", "/search", _bearer(token))
        assert (answer.status, answer.slug, portal.calls) == (503, "unavailable", [])
        assert [path for path, _ in issuer.asked if path == "/keys"] == []

    def test_several_issuers(self, make: MakePortal, issuer: Documents) -> None:
        """The token says which; a key of one never verifies a token of the other; each names its own tenant."""
        issuer.published["/.well-known/jwks.json"] = _key_set(OTHER_KEY, "k2")
        portal = make(
            {
                "AUTH": "jwt",
                "AUTH__ISSUER": "https://auth.example.test",
                "AUTH__AUDIENCE": "portal",
                "AUTH__JWKS": _key_set(KEY, "k1"),
                "AUTH__ISSUERS__PARTNER": "auth0",
                "AUTH__ISSUERS__PARTNER__ISSUER": f"{issuer.address}/",
                "AUTH__ISSUERS__PARTNER__AUDIENCE": "https://api.example.test",
                "AUTH__ISSUERS__PARTNER__ALGORITHMS": "ES256",
            },
            prepare=_how,
        )
        own = {"iss": "https://auth.example.test", "aud": "portal", "tenant_id": "north"}
        theirs = {"iss": f"{issuer.address}/", "aud": "https://api.example.test", "org_id": "south"}
        for _ in range(2):  # verified, then recalled
            answer = portal.request("GET", "/how", _bearer(_signed(own)))
            assert answer.json["issuer"] == "https://auth.example.test"
            answer = portal.request("GET", "/how", _bearer(_signed(theirs, OTHER_KEY, "k2")))
            assert answer.json["issuer"] == f"{issuer.address}/"
        assert portal.request("GET", "/search", _bearer(_signed(theirs, OTHER_KEY, "k2"))).json["tenant"] == "south"
        for claims, key, kid in (
            (own, OTHER_KEY, "k2"),
            (theirs, KEY, "k1"),
            ({**own, "iss": "https://evil.example"}, KEY, "k1"),
            ({**theirs, "aud": "portal"}, OTHER_KEY, "k2"),
        ):
            assert portal.request("GET", "/search", _bearer(_signed(claims, key, kid))).slug == "invalid-token"

    def test_every_directory_of_entra(self, make: MakePortal) -> None:
        """Users of any organisation come in, each into its own tenant; without its claim the portal does not start."""
        directory, other = "6babcaad-604b-40ac-a9d7-9fd97c0b779f", "b8a0d5e2-7c3f-4f3e-9d3b-0c5a1f2e3d4c"
        cloud = "https://login.microsoftonline.com"
        keys = [
            {**json.loads(_key_set(key, kid))["keys"][0], "issuer": f"{cloud}/{issuer}/v2.0"}
            for key, kid, issuer in ((KEY, "k1", "{tenantid}"), (OTHER_KEY, "k2", other))
        ]
        env = {
            "AUTH": "oidc",
            "AUTH__ISSUER": f"{cloud}/organizations/v2.0",
            "AUTH__AUDIENCE": "portal",
            "AUTH__JWKS": json.dumps({"keys": keys}),
        }
        with pytest.raises(ConfigurationError, match="PS-AUTH-018"):
            make(env)
        portal = make({**env, "TENANT__CLAIM": "/tid"})
        claims = {"iss": f"{cloud}/{directory}/v2.0", "tid": directory, "aud": "portal"}
        theirs = {**claims, "iss": f"{cloud}/{other}/v2.0", "tid": other}
        for _ in range(2):  # verified, then recalled
            for user, key, kid in ((claims, KEY, "k1"), (theirs, KEY, "k1"), (theirs, OTHER_KEY, "k2")):
                answer = portal.request("GET", "/search", _bearer(_signed(user, key, kid)))
                assert (answer.status, answer.json["tenant"]) == (200, user["tid"])
        assert portal.request("GET", f"/tenants/{other}/clients/1", _bearer(_signed(claims))).status == 404
        for user, key, kid in (
            ({**claims, "tid": other}, KEY, "k1"),
            ({**claims, "iss": theirs["iss"]}, KEY, "k1"),
            (claims, OTHER_KEY, "k2"),
        ):
            assert portal.request("GET", "/search", _bearer(_signed(user, key, kid))).slug == "invalid-token"

    @pytest.mark.parametrize(
        ("terms", "mode"),
        [
            pytest.param({"cross_tenant": True, "roles": ["support"]}, "enforce", id="roles of anybody's"),
            pytest.param({"mode": "report"}, "enforce", id="one route reports"),
            pytest.param({}, "off", id="tenants off"),
        ],
    )
    def test_every_directory_needs_tenants_enforced(
        self, make: MakePortal, terms: Any, mode: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever lets every directory in cannot open a route across tenants, or do without them: nobody is served."""
        env = {
            "AUTH": "oidc",
            "AUTH__ISSUER": "https://login.microsoftonline.com/organizations/v2.0",
            "AUTH__AUDIENCE": "portal",
            "AUTH__JWKS": _key_set(KEY, "k1"),
            "TENANT__CLAIM": "/tid",
            "MODE__TENANT": mode,
        }
        portal = make(env, policies=[Policy("GET /search", **terms)] if terms else [])
        assert portal.request("GET", "/search").status == 503
        assert ("GET /search" if terms else "GET /me") in caplog.text
        assert "PS-POLICY-004" in caplog.text

    def test_supabase_s_legacy_secret(self, make: MakePortal) -> None:
        """`AUTH__SECRET` with the preset: no key set is fetched, the API keys of the same secret are refused."""
        portal = make(
            {"AUTH": "supabase", "AUTH__ISSUER": "https://abc.supabase.co/auth/v1", "AUTH__SECRET": SECRET},
        )
        user = {
            "iss": "https://abc.supabase.co/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "session_id": "s1",
            "app_metadata": {"tenant_id": "north"},
        }
        assert portal.request("GET", "/search", _bearer(_signed(user, SECRET, None, "HS256"))).status == 200
        anon = {"iss": "supabase", "ref": "abc", "role": "anon"}
        assert portal.request("GET", "/search", _bearer(_signed(anon, SECRET, None, "HS256"))).status == 401
        assert portal.shield.protection.keys == {}


class TestCookie:
    """A token in a cookie."""

    @pytest.fixture
    def portal(self, make_portal: MakePortal) -> Portal:
        """The portal with a cookie of its own choice."""
        return make_portal({"AUTH__COOKIE": COOKIE}, prepare=_how)

    def test_the_cookie_is_a_credential(self, portal: Portal) -> None:
        """And the principal says so, also when the token was seen in a header before, and the other way round."""
        token = portal.token()
        for _ in range(2):
            assert portal.request("GET", "/how", _cookie(token)).json["how"] == "cookie"
            assert portal.request("GET", "/how", _bearer(token)).json["how"] == "bearer"

    def test_the_same_token_twice_is_one_credential(self, portal: Portal) -> None:
        """Header and cookie agree."""
        token = portal.token()
        assert portal.request("GET", "/how", [*_bearer(token), *_cookie(token)]).json["how"] == "bearer"

    @pytest.mark.parametrize("other", ["another user", "another tenant", "garbage"])
    def test_two_different_ones_are_refused(self, portal: Portal, other: str) -> None:
        """Two readers could take two different users."""
        second = {
            "another user": portal.token(subject="u2"),
            "another tenant": portal.token("south"),
            "garbage": "garbage",
        }[other]
        for headers in (
            [*_bearer(portal.token()), *_cookie(second)],
            [*_bearer(second), *_cookie(portal.token())],
            [("cookie", f"{COOKIE}={portal.token()}; {COOKIE}={second}")],
        ):
            answer = portal.request("GET", "/search", headers)
            assert (answer.status, answer.slug, portal.calls) == (400, "malformed-request", [])

    @pytest.mark.parametrize("name", ["__host-session", "session", "x__Host-session", "__Host-session2"])
    def test_only_the_exact_name_counts(self, portal: Portal, name: str) -> None:
        """Cookie names compare exactly (RFC 6265, 5.3)."""
        assert portal.request("GET", "/search", _cookie(portal.token(), name)).slug == "unauthenticated"

    def test_without_the_setting_no_cookie_counts(self, make_portal: MakePortal) -> None:
        """Off by default."""
        portal = make_portal()
        assert portal.request("GET", "/search", _cookie(portal.token())).status == 401

    @pytest.mark.parametrize(
        ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
    )
    def test_unsafe_requests_that_ride_on_it_are_judged(self, portal: Portal, site: str, status: int) -> None:
        """The csrf layer acts on cookies, not on a token in the header."""
        fetched = [("sec-fetch-site", site), ("content-type", "application/json")]
        answer = portal.request("POST", "/search", [*_cookie(portal.token()), *fetched], b"{}")
        assert answer.status == status
        assert portal.request("POST", "/search", [*portal.bearer(), *fetched], b"{}").status == 200

    def test_a_provider_s_own_cookie(self, make: MakePortal) -> None:
        """Clerk keeps its token in `__session`; production too, where a name of one's own needs `__Host-`."""
        portal = make(
            {
                "ENV": "production",
                "AUTH": "clerk",
                "AUTH__ISSUER": "https://clerk.example.test",
                "AUTH__AUTHORIZED_PARTIES": "https://app.example.test",
                "AUTH__ALGORITHMS": "ES256",
                "AUTH__JWKS": _key_set(KEY, "k1"),
            },
            prepare=_how,
        )
        claims = {
            "iss": "https://clerk.example.test",
            "azp": "https://app.example.test",
            "sid": "sess_1",
            "v": 2,
            "o": {"id": "north", "slg": "north-shore", "rol": "owner"},
        }
        assert portal.request("GET", "/how", _cookie(_signed(claims), "__session")).json["how"] == "cookie"
        assert portal.request("GET", "/search", _bearer(_signed(claims))).json["tenant"] == "north"
        assert portal.request("GET", "/owners", _bearer(_signed(claims))).status == 200
        for changes in ({"azp": "https://evil.example"}, {"sts": "pending"}, {"v": 1}):
            headers = _cookie(_signed({**claims, **changes}), "__session")
            assert portal.request("GET", "/search", headers).slug == "invalid-token"


class TestStepUp:
    """`max_age`: the user logged in less than this ago."""

    @pytest.fixture
    def portal(self, make_portal: MakePortal) -> Portal:
        """/me asks for a login of the last five minutes."""
        return make_portal(policies=[Policy("GET /me", max_age="5m")])

    @pytest.mark.parametrize(
        ("claims", "status"),
        [
            pytest.param({"auth_time": -60}, 200, id="logged in a minute ago"),
            pytest.param({"auth_time": -301}, 401, id="logged in too long ago"),
            pytest.param({"auth_time": -3600, "iat": -1}, 401, id="a fresh token of an old login"),
            pytest.param({"iat": -60}, 200, id="only iat, young"),
            pytest.param({"iat": -600}, 401, id="only iat, old"),
            pytest.param({"auth_time": "text"}, 401, id="a time that is none"),
            pytest.param({"iat": None}, 401, id="nobody says when"),
        ],
    )
    def test_the_login_must_be_young(self, portal: Portal, claims: dict[str, Any], status: int) -> None:
        """`auth_time` counts, else `iat`; who cannot say is refused."""
        now = int(time.time())
        told: dict[str, Any] = {
            name: now + value if isinstance(value, int) else value for name, value in claims.items()
        }
        token = portal.token(**{name: value for name, value in told.items() if value is not None})
        if claims == {"iat": None}:
            token = jwt.encode(
                {
                    "sub": "u1",
                    "iss": portal.settings.auth.issuer,
                    "aud": "portal",
                    "tenant_id": "north",
                    "exp": now + 600,
                },
                portal.settings.auth.secret.reveal() if portal.settings.auth.secret else "",
                "HS256",
            )
        assert portal.request("GET", "/me", _bearer(token)).status == status
        assert portal.request("GET", "/search", _bearer(token)).status == 200

    def test_the_challenge_says_what_to_do(self, portal: Portal) -> None:
        """RFC 9470, section 3: 401 with the error and `max_age` in seconds; the body tells no more than the title."""
        answer = portal.request("GET", "/me", portal.bearer(auth_time=int(time.time()) - 3600))
        assert (answer.status, answer.slug) == (401, "insufficient-user-authentication")
        assert answer.get("www-authenticate") == 'Bearer error="insufficient_user_authentication", max_age="300"'
        assert set(answer.json) == {"type", "title", "status", "request_id"}
        assert portal.calls == []

    def test_no_credential_is_still_401_without_an_error(self, portal: Portal) -> None:
        """First somebody must be there."""
        assert portal.request("GET", "/me").get("www-authenticate") == "Bearer"

    def test_an_application_s_own_principal_says_it_in_its_claims(self, make_portal: MakePortal) -> None:
        """`Principal(claims={"auth_time": ...})`; without, a step-up route refuses."""
        now = time.time()

        def authenticate(request: Any) -> Principal:
            claims = {"auth_time": now} if request.headers.get("x-fresh") else {}
            return Principal("u1", tenant="north", claims=claims)

        policies = [Policy("GET /me", max_age=300)]
        portal = make_portal({"AUTH": "none"}, authenticate=authenticate, policies=policies)
        assert portal.request("GET", "/me").slug == "insufficient-user-authentication"
        assert portal.request("GET", "/me", [("x-fresh", "1")]).status == 200


class TestImpersonation:
    """Somebody acts in a user's name: the token carries `act` (RFC 8693, section 4.1)."""

    @pytest.fixture
    def portal(self, make_portal: MakePortal) -> Portal:
        """/me is for the user alone."""
        return make_portal(policies=[Policy("GET /me", impersonation=False)], prepare=_how)

    def test_the_actor_is_known(self, portal: Portal) -> None:
        """The handler sees both."""
        assert portal.request("GET", "/how", portal.bearer(act={"sub": "support-7"})).json["actor"] == "support-7"
        assert portal.request("GET", "/how", portal.bearer()).json["actor"] is None

    def test_a_sensitive_route_refuses_him(self, portal: Portal) -> None:
        """403, the handler never runs; the user himself passes."""
        answer = portal.request("GET", "/me", portal.bearer(act={"sub": "support-7"}))
        assert (answer.status, answer.slug, portal.calls) == (403, "insufficient-scope", [])
        assert "support-7" not in answer.body.decode()
        assert portal.request("GET", "/me", portal.bearer()).status == 200

    @pytest.mark.parametrize("act", [{}, {"sub": ""}, {"sub": 7.5}, "support-7", [], {"sub": {"id": 1}}])
    def test_an_actor_without_a_readable_name_is_one_all_the_same(self, portal: Portal, act: Any) -> None:
        """Whoever carries `act` does not act for himself; null is nobody."""
        assert portal.request("GET", "/me", portal.bearer(act=None)).status == 200
        assert portal.request("GET", "/me", portal.bearer(act=act)).status == 403

    def test_a_decorator_says_the_same(self, make_portal: MakePortal) -> None:
        """`@protect(max_age=..., impersonation=False)`, and a general policy that opens the route gives way."""
        from portalshield import protect

        def prepare(app: Any) -> None:
            @protect(max_age="5m", impersonation=False)
            def export() -> dict[str, str]:
                return {"handler": "export"}

            app.get("/export")(export)

        portal = make_portal(prepare=prepare, policies=[Policy("GET /*", public=True)])
        assert portal.request("GET", "/export").status == 401
        assert portal.request("GET", "/export", portal.bearer()).status == 200
        assert portal.request("GET", "/export", portal.bearer(act={"sub": "s"})).status == 403
        stale = portal.bearer(auth_time=int(time.time()) - 900)
        assert portal.request("GET", "/export", stale).slug == "insufficient-user-authentication"


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param({"max_age": "soon"}, id="no duration"),
        pytest.param({"max_age": 0}, id="zero"),
        pytest.param({"max_age": -5}, id="negative"),
        pytest.param({"max_age": True}, id="a boolean"),
        pytest.param({"max_age": "5m", "public": True}, id="public"),
    ],
)
def test_a_wrong_age_is_told_where_it_stands(terms: dict[str, Any]) -> None:
    """At the decorator, not at the first request."""
    with pytest.raises(TypeError):
        Policy("GET /me", **terms)
