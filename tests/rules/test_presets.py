"""Providers: one golden token each, and near misses that a bare signature check would accept."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from portalshield import Principal, Secret
from portalshield.issuers import authority_of
from portalshield.layers.auth import AuthConfig, IssuerConfig
from portalshield.layers.tenant import TenantConfig
from portalshield.rules.authority import Authority
from portalshield.rules.claims import authenticated_at, parse_pointer
from portalshield.rules.jws import TokenError
from portalshield.rules.presets import PERSONAL_ACCOUNTS, PRESETS, names_anybody
from portalshield.rules.tokens import Verifier
from portalshield.stores import discovery
from portalshield.stores.discovery import MetadataError

NOW = 1_800_000_000
SECRET = "correct-horse-battery-staple-and-more-0123456789"
REMOVED: Any = object()

SUPABASE = "https://abcdefgh.supabase.co/auth/v1"
FIREBASE = "https://securetoken.google.com/portal-1"
AUTH0 = "https://portal.eu.auth0.com/"
CLERK = "https://clerk.portal.example"
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab12"
OIDC = "https://id.portal.example/realms/main"


@cache
def rsa_key() -> Any:
    """One RSA key for the whole run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key() -> Any:
    """One P-256 key for the whole run."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def key_set() -> str:
    """Both public halves."""
    rows = (("r1", "RS256", RSAAlgorithm, rsa_key()), ("e1", "ES256", ECAlgorithm, ec_key()))
    keys = [
        {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": alg}
        for kid, alg, algorithm, key in rows
    ]
    return json.dumps({"keys": keys})


TIMES = {"iat": NOW - 60, "exp": NOW + 3600}
GOLDEN: dict[str, dict[str, Any]] = {
    "supabase": {
        **TIMES,
        "iss": SUPABASE,
        "aud": "authenticated",
        "sub": "5f0c3c1e-0d9b-4f9e-8f39-0a8a3f1d7c11",
        "role": "authenticated",
        "session_id": "0e4d2f6b-2f55-4f4c-9a55-1b9d4f0c2b77",
        "aal": "aal1",
        "is_anonymous": False,
        "app_metadata": {"provider": "email", "tenant_id": "north", "roles": ["owner"]},
        "user_metadata": {"tenant_id": "south", "role": "admin"},
        "amr": [{"method": "password", "timestamp": NOW - 900}],
    },
    "firebase": {
        **TIMES,
        "iss": FIREBASE,
        "aud": "portal-1",
        "sub": "Xk893u23H9SI893",
        "user_id": "Xk893u23H9SI893",
        "auth_time": NOW - 900,
        "roles": ["owner"],
        "firebase": {"identities": {}, "sign_in_provider": "password", "tenant": "north"},
    },
    "auth0": {
        **TIMES,
        "iss": AUTH0,
        "aud": ["https://api.portal.example", "https://portal.eu.auth0.com/userinfo"],
        "sub": "auth0|507f1f77bcf86cd799439011",
        "azp": "my_client_id",
        "scope": "openid read:invoices",
        "org_id": "north",
        "permissions": ["owner"],
    },
    "clerk": {
        "iat": NOW - 5,
        "nbf": NOW - 15,
        "exp": NOW + 55,
        "iss": CLERK,
        "sub": "user_2f",
        "sid": "sess_2f",
        "azp": "https://app.portal.example",
        "v": 2,
        "fva": [7, -1],
        "sts": "active",
        "o": {"id": "north", "slg": "north-shore", "rol": "owner", "per": "read,manage", "fpm": "1"},
    },
    "cognito": {
        **TIMES,
        "iss": COGNITO,
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "client_id": "1example23456789",
        "token_use": "access",
        "cognito:groups": ["owner"],
        "scope": "openid invoices/read",
        "auth_time": NOW - 900,
        "username": "jane",
        "tenant_id": "north",
    },
    "oidc": {
        **TIMES,
        "iss": OIDC,
        "aud": "portal",
        "sub": "u1",
        "roles": ["owner"],
        "scope": "read write",
        "tenant_id": "north",
    },
}
CONFIGURED: dict[str, dict[str, Any]] = {
    "supabase": {"issuer": SUPABASE},
    "firebase": {"audience": ("portal-1",)},
    "auth0": {"issuer": AUTH0, "audience": ("https://api.portal.example",)},
    "clerk": {"issuer": CLERK, "authorized_parties": ("https://app.portal.example",)},
    "cognito": {"issuer": COGNITO, "audience": ("1example23456789", "another")},
    "oidc": {"issuer": OIDC, "audience": ("portal",)},
}


def authority(preset: str, claim: tuple[str, ...] | None = None, **terms: Any) -> Authority:
    """The authority of one provider with the keys of this file."""
    settings = {"preset": preset, "jwks": key_set(), **CONFIGURED[preset], **terms}
    config = AuthConfig(**settings)
    assert list(config.problems(development=False)) == []
    found, _, problems = authority_of(config, TenantConfig(claim=claim) if claim else TenantConfig(), development=False)
    assert problems == []
    assert found is not None
    return found


def token(preset: str, changes: dict[str, Any] | None = None, *, alg: str = "RS256", **header: Any) -> bytes:
    """The golden token of a provider with some claims changed; `REMOVED` takes one out, `kid=None` the key id."""
    claims = {**GOLDEN[preset], **(changes or {})}
    claims = {name: value for name, value in claims.items() if value is not REMOVED}
    return signed(claims, alg, **header)


def signed(claims: dict[str, Any], alg: str = "RS256", **header: Any) -> bytes:
    """Any claims, with a good signature."""
    key = {"RS256": rsa_key(), "RS512": rsa_key(), "ES256": ec_key(), "HS256": SECRET}[alg]
    named = {"kid": {"RS256": "r1", "ES256": "e1"}.get(alg), **header}
    body = json.dumps(claims).encode()
    return jwt.api_jws.encode(body, key, alg, headers={name: value for name, value in named.items() if value}).encode()


@pytest.mark.parametrize("preset", GOLDEN)
def test_a_golden_token_becomes_a_principal(preset: str) -> None:
    """Subject, tenant and roles from where this provider keeps them."""
    principal = authority(preset).verify(token(preset), NOW)
    assert isinstance(principal, Principal)
    assert (principal.subject, principal.tenant, principal.roles) == (GOLDEN[preset]["sub"], "north", ("owner",))
    assert principal.issuer == GOLDEN[preset]["iss"]


@pytest.mark.parametrize(
    ("preset", "scopes"),
    [
        pytest.param("auth0", ("openid", "read:invoices"), id="auth0: what the client was granted"),
        pytest.param("cognito", ("openid", "invoices/read"), id="cognito: scope"),
        pytest.param("oidc", ("read", "write"), id="oidc: scope"),
        pytest.param("clerk", (), id="clerk: none, a permission counts only with its bit mask"),
        pytest.param("supabase", (), id="supabase: none"),
        pytest.param("firebase", (), id="firebase: none"),
    ],
)
def test_scopes_are_what_was_granted(preset: str, scopes: tuple[str, ...]) -> None:
    """Never more than the provider says."""
    assert authority(preset).verify(token(preset), NOW).scopes == scopes


API_KEY = {"iss": "supabase", "ref": "abcdefgh", "iat": NOW - 60, "exp": NOW + 3600}
NEAR_MISSES = [
    # supabase
    ("supabase", "the anon key", {**dict.fromkeys(GOLDEN["supabase"], REMOVED), **API_KEY, "role": "anon"}, {}),
    (
        "supabase",
        "the service key",
        {**dict.fromkeys(GOLDEN["supabase"], REMOVED), **API_KEY, "role": "service_role"},
        {},
    ),
    ("supabase", "role anon, all else right", {"role": "anon"}, {}),
    ("supabase", "role service_role, all else right", {"role": "service_role"}, {}),
    ("supabase", "no role", {"role": REMOVED}, {}),
    (
        "supabase",
        "a signed storage address",
        {**dict.fromkeys(GOLDEN["supabase"], REMOVED), "url": "bucket/file.pdf", **TIMES},
        {},
    ),
    ("supabase", "no session", {"session_id": REMOVED}, {}),
    ("supabase", "another project", {"iss": "https://other.supabase.co/auth/v1"}, {}),
    ("supabase", "another audience", {"aud": "anon"}, {}),
    ("supabase", "lives for ten years", {"exp": NOW + 10 * 365 * 86400}, {}),
    # firebase
    ("firebase", "another project's audience", {"aud": "portal-2"}, {}),
    ("firebase", "another project's issuer", {"iss": "https://securetoken.google.com/portal-2"}, {}),
    ("firebase", "a session cookie", {"iss": "https://session.firebase.google.com/portal-1"}, {}),
    (
        "firebase",
        "a custom token",
        {"aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit"},
        {},
    ),
    ("firebase", "no key id", {}, {"kid": None}),
    ("firebase", "no auth_time", {"auth_time": REMOVED}, {}),
    ("firebase", "another algorithm", {}, {"alg": "ES256"}),
    # auth0
    ("auth0", "the issuer without its slash", {"iss": AUTH0.rstrip("/")}, {}),
    ("auth0", "for userinfo only", {"aud": "https://portal.eu.auth0.com/userinfo"}, {}),
    ("auth0", "an ID token: for the client", {"aud": "my_client_id"}, {}),
    ("auth0", "another tenant of Auth0", {"iss": "https://other.eu.auth0.com/"}, {}),
    ("auth0", "another algorithm", {}, {"alg": "ES256"}),
    ("auth0", "lives for a month", {"exp": NOW + 30 * 86400}, {}),
    # clerk
    ("clerk", "made for another site", {"azp": "https://evil.portal.example"}, {}),
    ("clerk", "made for a longer origin", {"azp": "https://app.portal.example.evil.example"}, {}),
    ("clerk", "a pending session", {"sts": "pending"}, {}),
    ("clerk", "version 1", {"v": REMOVED, "o": REMOVED, "org_id": "north"}, {}),
    ("clerk", "version 2 as text", {"v": "2"}, {}),
    ("clerk", "of a JWT template", {"sid": REMOVED}, {}),
    ("clerk", "another instance", {"iss": "https://other.clerk.accounts.dev"}, {}),
    # cognito
    ("cognito", "an ID token", {"token_use": "id", "aud": "1example23456789"}, {}),
    ("cognito", "an ID token with a client_id", {"token_use": "id"}, {}),
    ("cognito", "no token_use", {"token_use": REMOVED}, {}),
    ("cognito", "another client", {"client_id": "9other"}, {}),
    ("cognito", "the client as audience", {"client_id": REMOVED, "aud": "1example23456789"}, {}),
    ("cognito", "a list of clients", {"client_id": ["1example23456789"]}, {}),
    ("cognito", "another pool", {"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Zz99"}, {}),
    # oidc
    ("oidc", "another realm", {"iss": "https://id.portal.example/realms/other"}, {}),
    ("oidc", "no audience", {"aud": REMOVED}, {}),
    ("oidc", "another audience", {"aud": "account"}, {}),
    ("oidc", "a refresh token", {"typ": "Refresh"}, {}),
    ("oidc", "an ID token", {"typ": "ID"}, {}),
    ("oidc", "no end", {"exp": REMOVED}, {}),
    ("oidc", "a secret instead of a key", {}, {"alg": "HS256"}),
]


@pytest.mark.parametrize(
    ("preset", "changes", "header"),
    [pytest.param(preset, changes, header, id=f"{preset}: {words}") for preset, words, changes, header in NEAR_MISSES],
)
def test_a_near_miss_is_refused(preset: str, changes: dict[str, Any], header: dict[str, Any]) -> None:
    """The signature is good, the token is not a user's of this application."""
    with pytest.raises(TokenError):
        authority(preset).verify(token(preset, changes, **header), NOW)


def test_every_provider_has_five_near_misses() -> None:
    """The table above covers the table of providers."""
    assert set(GOLDEN) == set(PRESETS) - {"jwt"}
    for preset in GOLDEN:
        assert sum(row[0] == preset for row in NEAR_MISSES) >= 5


@pytest.mark.parametrize(
    "changes",
    [pytest.param(changes, id=words) for preset, words, changes, _ in NEAR_MISSES if preset == "supabase"],
)
def test_supabase_with_its_legacy_secret(changes: dict[str, Any]) -> None:
    """One secret signs users' tokens, the API keys and storage addresses: only the first are believed."""
    legacy = authority("supabase", jwks=None, secret=Secret(SECRET))
    assert legacy.verify(token("supabase", alg="HS256"), NOW).tenant == "north"
    with pytest.raises(TokenError):
        legacy.verify(token("supabase", changes, alg="HS256"), NOW)


@pytest.mark.parametrize("key", ["sb_secret_abcdefghijklmnop", "sb_publishable_abcdefghijklmnop"])
def test_a_key_for_machines_is_told_apart(key: str) -> None:
    """Supabase's new API keys are no tokens; the log says that one was sent."""
    with pytest.raises(TokenError, match="machine-key"):
        authority("supabase").verify(key.encode(), NOW)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        pytest.param("supabase", {"app_metadata": {"provider": "email"}}, id="supabase: only in user_metadata"),
        pytest.param("auth0", {"org_id": REMOVED, "org_name": "north"}, id="auth0: only the name"),
        pytest.param("clerk", {"o": {"slg": "north", "rol": "owner"}}, id="clerk: only the slug"),
        pytest.param("cognito", {"tenant_id": REMOVED, "custom:tenant_id": "north"}, id="cognito: only an attribute"),
        pytest.param("firebase", {"firebase": {"tenant": ["north"]}}, id="firebase: a list"),
    ],
)
def test_what_is_no_id_proves_no_tenant(preset: str, changes: dict[str, Any]) -> None:
    """A principal without a tenant; routes that need one refuse."""
    assert authority(preset).verify(token(preset, changes), NOW).tenant is None


def test_supabase_roles_are_not_postgres_roles() -> None:
    """`role` says `authenticated` for everybody, `user_metadata` what users like: neither is a role of the portal."""
    principal = authority("supabase").verify(token("supabase", {"app_metadata": {"tenant_id": "north"}}), NOW)
    assert principal.roles == ()


def test_clerk_may_leave_the_party_out() -> None:
    """Clerk omits `azp` where no origin was sent, for example in a native application."""
    assert authority("clerk").verify(token("clerk", {"azp": REMOVED}), NOW).subject == "user_2f"


def test_what_is_set_wins() -> None:
    """Audience, roles, scopes and tenant; what makes it a user's token stays."""
    found = authority(
        "supabase",
        claim=("/app_metadata/customer",),
        audience=("portal",),
        roles_claim=("/portal_roles",),
        scopes_claim=("/portal_scopes",),
    )
    changes = {
        "aud": "portal",
        "app_metadata": {"customer": "c1", "tenant_id": "north"},
        "portal_roles": ["coach"],
        "portal_scopes": "a b",
    }
    principal = found.verify(token("supabase", changes), NOW)
    assert (principal.tenant, principal.roles, principal.scopes) == ("c1", ("coach",), ("a", "b"))
    with pytest.raises(TokenError):
        found.verify(token("supabase", {**changes, "role": "service_role"}), NOW)
    with pytest.raises(TokenError):
        found.verify(token("supabase"), NOW)


def entra(directory: str, version: str = "/v2.0") -> str:
    """The issuer of one directory of Microsoft Entra."""
    return f"https://login.microsoftonline.com/{directory}{version}"


NORTH, SOUTH = "6babcaad-604b-40ac-a9d7-9fd97c0b779f", "b8a0d5e2-7c3f-4f3e-9d3b-0c5a1f2e3d4c"
EVERYBODY, TEMPLATE = entra("organizations"), entra("{tenantid}")
EMPLOYEE = {
    **TIMES,
    "iss": entra(NORTH),
    "tid": NORTH,
    "aud": "5f0c3c1e-0d9b-4f9e-8f39-0a8a3f1d7c11",
    "sub": "AAAAAJw1",
    "oid": "0e4d2f6b-2f55-4f4c-9a55-1b9d4f0c2b77",
    "ver": "2.0",
    "scp": "invoices.read",
    "roles": ["owner"],
    "tenant_id": "of-somebody-else",
}


class TestEveryDirectory:
    """Microsoft Entra's endpoint for every organisation: token, issuer and key must be of one directory."""

    def signs_for(self, of_key: Any, claim: tuple[str, ...] = ("/tid",), **terms: Any) -> Authority:
        """Every directory, with the RSA key saying whose tokens it signs; `REMOVED`: it says nothing."""
        keys = [{**row, "issuer": of_key} for row in json.loads(key_set())["keys"]]
        written = [{name: value for name, value in row.items() if value is not REMOVED} for row in keys]
        settings = {"issuer": EVERYBODY, "audience": (EMPLOYEE["aud"],), "jwks": json.dumps({"keys": written})}
        return authority("oidc", claim, **{**settings, **terms})

    @pytest.mark.parametrize("of_key", [TEMPLATE, entra(NORTH)], ids=["a key for all", "a key for this one"])
    @pytest.mark.parametrize("endpoint", ["common", "organizations"])
    def test_each_directory_is_a_tenant(self, endpoint: str, of_key: str) -> None:
        """The tenant is the directory, whatever other tenant the token names."""
        found = self.signs_for(of_key, ("/tenant_id", "/tid"), issuer=entra(endpoint))
        principal = found.verify(signed(EMPLOYEE), NOW)
        assert (principal.tenant, principal.issuer, principal.roles) == (NORTH, entra(NORTH), ("owner",))
        recalled = found.recall(signed(EMPLOYEE), NOW)
        assert recalled == principal

    @pytest.mark.parametrize(
        ("changes", "of_key", "code"),
        [
            pytest.param({"tid": SOUTH}, TEMPLATE, "wrong-issuer", id="another directory's id"),
            pytest.param({"iss": entra(SOUTH)}, TEMPLATE, "wrong-issuer", id="another directory's issuer"),
            pytest.param({}, entra(SOUTH), "wrong-issuer", id="a key of another directory"),
            pytest.param({}, entra(PERSONAL_ACCOUNTS), "wrong-issuer", id="the key of personal accounts"),
            pytest.param({}, entra("{tenantid}", "/"), "wrong-issuer", id="a key for another template"),
            pytest.param({}, "https://sts.windows.net/{tenantid}/", "wrong-issuer", id="a key for version 1"),
            pytest.param({}, EVERYBODY, "wrong-issuer", id="a key for the endpoint's name"),
            pytest.param({}, "", "wrong-issuer", id="a key for nothing"),
            pytest.param({}, [TEMPLATE], "wrong-issuer", id="a key for a list"),
            pytest.param({}, REMOVED, "wrong-issuer", id="a key that does not say for whom"),
            pytest.param({"tid": REMOVED}, TEMPLATE, "missing-claim", id="no directory"),
            pytest.param({"tid": "north"}, TEMPLATE, "bad-claim", id="a directory that is no GUID"),
            pytest.param({"tid": "north", "iss": entra("north")}, TEMPLATE, "bad-claim", id="no GUID, twice"),
            pytest.param({"tid": "", "iss": entra("")}, TEMPLATE, "bad-claim", id="an empty directory"),
            pytest.param({"tid": [NORTH]}, TEMPLATE, "bad-claim", id="a list of directories"),
            pytest.param({"tid": None}, TEMPLATE, "bad-claim", id="null"),
            pytest.param({"tid": NORTH.upper(), "iss": entra(NORTH.upper())}, TEMPLATE, "bad-claim", id="upper case"),
            pytest.param({"tid": NORTH.upper()}, TEMPLATE, "bad-claim", id="the id in upper case"),
            pytest.param({"iss": entra(NORTH.upper())}, TEMPLATE, "wrong-issuer", id="the issuer in upper case"),
            pytest.param({"tid": NORTH.replace("-", "")}, TEMPLATE, "bad-claim", id="a GUID without dashes"),
            pytest.param({"tid": f"{{{NORTH}}}"}, TEMPLATE, "bad-claim", id="a GUID in braces"),
            pytest.param({"iss": f"https://sts.windows.net/{NORTH}/"}, TEMPLATE, "wrong-issuer", id="version 1"),
            pytest.param({"iss": entra(NORTH, "")}, TEMPLATE, "wrong-issuer", id="without its version"),
            pytest.param({"iss": entra(NORTH) + "/"}, TEMPLATE, "wrong-issuer", id="a slash more"),
            pytest.param({"iss": TEMPLATE}, TEMPLATE, "wrong-issuer", id="the template itself"),
            pytest.param({"iss": TEMPLATE, "tid": "{tenantid}"}, TEMPLATE, "bad-claim", id="the template, twice"),
            pytest.param({"iss": EVERYBODY}, TEMPLATE, "wrong-issuer", id="the endpoint's name"),
            pytest.param({"iss": REMOVED}, TEMPLATE, "wrong-issuer", id="no issuer"),
            pytest.param({"iss": [entra(NORTH)]}, TEMPLATE, "bad-claim", id="a list of issuers"),
            pytest.param({"iss": f"https://evil.example/{NORTH}/v2.0"}, TEMPLATE, "wrong-issuer", id="another host"),
            pytest.param(
                {"tid": PERSONAL_ACCOUNTS, "iss": entra(PERSONAL_ACCOUNTS)},
                entra(PERSONAL_ACCOUNTS),
                "claim-refused",
                id="a personal account",
            ),
            pytest.param(
                {"tid": PERSONAL_ACCOUNTS, "iss": entra(PERSONAL_ACCOUNTS)},
                TEMPLATE,
                "claim-refused",
                id="a personal account by the common key",
            ),
            pytest.param({"aud": "another"}, TEMPLATE, "wrong-audience", id="for another application"),
            pytest.param({"aud": REMOVED}, TEMPLATE, "missing-claim", id="for nobody"),
        ],
    )
    def test_a_near_miss_is_refused(self, changes: dict[str, Any], of_key: Any, code: str) -> None:
        """The signature is good; directory, issuer and key do not agree."""
        claims = {name: value for name, value in {**EMPLOYEE, **changes}.items() if value is not REMOVED}
        with pytest.raises(TokenError, match=f"^{code}$"):
            self.signs_for(of_key).verify(signed(claims), NOW)

    @pytest.mark.parametrize(
        ("claim", "started"),
        [
            pytest.param(None, False, id="unset"),
            pytest.param(("/tenant_id",), False, id="what its admins write"),
            pytest.param(("/oid",), False, id="the user"),
            pytest.param(("/tid/id",), False, id="below it"),
            pytest.param(("/o/id", "/tid"), True, id="beside another provider's"),
            pytest.param(("tid",), True, id="by name"),
        ],
    )
    def test_it_starts_only_where_the_directory_is_the_tenant(
        self, claim: tuple[str, ...] | None, started: bool
    ) -> None:
        """Everybody with a Microsoft account of some organisation comes in: they must not share a tenant."""
        config = AuthConfig(preset="oidc", issuer=EVERYBODY, audience=("a",), jwks=key_set())
        tenant = TenantConfig(claim=claim) if claim else TenantConfig()
        found, _, problems = authority_of(config, tenant, development=True)
        assert (found is not None) is started
        told = [] if started else [("PS-AUTH-018", "PORTALSHIELD_TENANT__CLAIM")]
        assert [(problem.id, problem.variable) for problem in problems] == told

    def test_its_metadata_must_name_the_template(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asked for below the endpoint's own name; the metadata of one directory bring no keys for all."""
        monkeypatch.setattr(discovery, "fetch", lambda *terms: key_set().encode())
        config = AuthConfig(preset="oidc", issuer=EVERYBODY, audience=("a",))
        _, fetched, problems = authority_of(config, TenantConfig(claim=("/tid",)), development=False)
        assert problems == []
        keys = fetched[EVERYBODY]
        assert keys._url == EVERYBODY + "/.well-known/openid-configuration"
        metadata = {"issuer": TEMPLATE, "jwks_uri": "https://login.microsoftonline.com/keys"}
        assert set(keys._load(json.dumps(metadata).encode()).keys) == {("r1", "RS256"), ("e1", "ES256")}
        for issuer in (EVERYBODY, entra(NORTH), entra("{tenantid}", "/")):
            with pytest.raises(MetadataError):
                keys._load(json.dumps({**metadata, "issuer": issuer}).encode())

    def test_one_that_is_named_exactly_has_its_own_rules(self) -> None:
        """Beside the endpoint for all: personal accounts, and a directory with an audience of its own."""
        jwks = json.dumps({"keys": [{**row, "issuer": TEMPLATE} for row in json.loads(key_set())["keys"]]})
        named = {
            "people": IssuerConfig(
                preset="oidc",
                issuer=entra(PERSONAL_ACCOUNTS),
                audience=("shop",),
                jwks=key_set(),
                algorithms=("ES256",),
            ),
            "south": IssuerConfig(preset="oidc", issuer=entra(SOUTH), audience=("south",), jwks=jwks),
        }
        found = self.signs_for(TEMPLATE, issuers=named)
        person = {**EMPLOYEE, "iss": entra(PERSONAL_ACCOUNTS), "tid": PERSONAL_ACCOUNTS, "aud": "shop"}
        southerner = {**EMPLOYEE, "iss": entra(SOUTH), "tid": SOUTH}
        for claims, alg in ((EMPLOYEE, "RS256"), (person, "ES256"), ({**southerner, "aud": "south"}, "RS256")):
            assert found.verify(signed(claims, alg), NOW).tenant == claims["tid"]
        assert found.issuer_of(signed(EMPLOYEE)) == EVERYBODY
        for claims, alg in ((person, "RS256"), (southerner, "RS256"), ({**EMPLOYEE, "iss": "https://x"}, "RS256")):
            with pytest.raises(TokenError):
                found.verify(signed(claims, alg), NOW)

    def test_a_key_that_changes_hands_ends_what_it_signed(self) -> None:
        """The same key, now for another directory only: what was remembered is verified anew, and refused."""
        found = self.signs_for(TEMPLATE)
        found._watched = found._all  # as key sets that are fetched are
        assert found.verify(signed(EMPLOYEE), NOW).tenant == NORTH
        holder: Any = found._all[0].keys
        later = self.signs_for(entra(SOUTH))._all[0].keys.snapshot
        holder.snapshot = holder.snapshot.followed_by(later)
        assert found.recall(signed(EMPLOYEE), NOW) is None
        with pytest.raises(TokenError):
            found.verify(signed(EMPLOYEE), NOW)

    @pytest.mark.parametrize(
        ("terms", "words"),
        [
            pytest.param({"issuer_template": EVERYBODY}, "tenantid", id="no place for the directory"),
            pytest.param({"issuer_template": TEMPLATE + "{tenantid}"}, "once", id="two places"),
            pytest.param({"issuer_template": ""}, "tenantid", id="empty"),
            pytest.param({"issuer_template": TEMPLATE, "issuer": OIDC}, "exclude", id="one and many"),
        ],
    )
    def test_a_template_that_could_not_be_checked_is_refused(self, terms: dict[str, Any], words: str) -> None:
        """Before the first token."""
        with pytest.raises(ValueError, match=words):
            Verifier(algorithms=["RS256"], audience="a", **terms)


class TestSeveral:
    """Several issuers: the token says which, that one's own rules and keys must confirm it."""

    def both(self) -> Authority:
        """Clerk, and a partner that signs with the EC key."""
        partner = json.dumps({"keys": [row for row in json.loads(key_set())["keys"] if row["kid"] == "e1"]})
        mine = json.dumps({"keys": [row for row in json.loads(key_set())["keys"] if row["kid"] == "r1"]})
        return authority(
            "clerk",
            jwks=mine,
            issuers={"partner": IssuerConfig(issuer=OIDC, audience=("portal",), jwks=partner)},
        )

    def test_each_is_verified_by_its_own(self) -> None:
        """And remembered under its own name."""
        both = self.both()
        first, second = token("clerk"), token("oidc", alg="ES256")
        assert both.verify(first, NOW).issuer == CLERK
        assert both.verify(second, NOW).issuer == OIDC
        assert (both.issuer_of(first), both.issuer_of(second)) == (CLERK, OIDC)
        recalled = both.recall(second, NOW)
        assert recalled is not None
        assert recalled.issuer == OIDC

    @pytest.mark.parametrize(
        ("preset", "changes", "header"),
        [
            pytest.param("oidc", {}, {}, id="the other one's key"),
            pytest.param("oidc", {"iss": CLERK}, {"alg": "ES256"}, id="the other one's name"),
            pytest.param("oidc", {"iss": "https://evil.example"}, {"alg": "ES256"}, id="a stranger"),
            pytest.param("oidc", {"iss": REMOVED}, {"alg": "ES256"}, id="nobody"),
            pytest.param("oidc", {"iss": [OIDC]}, {"alg": "ES256"}, id="a list"),
            pytest.param("oidc", {"aud": "other"}, {"alg": "ES256"}, id="for another service"),
            pytest.param("clerk", {"azp": "https://evil.example"}, {}, id="the first one's rules hold"),
        ],
    )
    def test_nothing_crosses(self, preset: str, changes: dict[str, Any], header: dict[str, Any]) -> None:
        """A key of one issuer never verifies a token of another."""
        with pytest.raises(TokenError):
            self.both().verify(token(preset, changes, **header), NOW)

    def test_a_withdrawn_key_ends_only_its_own_tokens(self) -> None:
        """Generations are counted by issuer."""
        both = self.both()
        both._watched = both._all  # as key sets that are fetched are
        first, second = token("clerk"), token("oidc", alg="ES256")
        both.verify(first, NOW)
        both.verify(second, NOW)
        holder: Any = both._issuers[OIDC].keys
        holder.snapshot = None
        assert both.recall(first, NOW) is not None
        assert both.recall(second, NOW) is None


@pytest.mark.parametrize(
    ("claims", "at"),
    [
        pytest.param({"auth_time": 100, "iat": 900}, 100, id="auth_time wins"),
        pytest.param({"auth_time": "100", "iat": 900}, None, id="auth_time that is none is no reason to take iat"),
        pytest.param({"auth_time": True, "iat": 900}, None, id="a boolean is no time"),
        pytest.param({"amr": ["pwd", "otp"], "iat": 900}, 900, id="methods without times"),
        pytest.param({"amr": ({"timestamp": 100}, {"timestamp": 300}), "iat": 900}, 300, id="supabase: the newest"),
        pytest.param({"amr": ({"method": "password"},), "iat": 900}, None, id="supabase: a method without its time"),
        pytest.param({"fva": (7, -1), "iat": 900}, 480, id="clerk: minutes before iat"),
        pytest.param({"fva": (-1, -1), "iat": 900}, None, id="clerk: never"),
        pytest.param({"fva": (), "iat": 900}, None, id="clerk: empty"),
        pytest.param({"fva": (7, -1)}, None, id="clerk: no iat"),
        pytest.param({"iat": 900}, 900, id="iat, where nothing else is there"),
        pytest.param({"iat": 10**400}, None, id="a number no clock shows"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_when_the_user_logged_in(claims: dict[str, Any], at: float | None) -> None:
    """The time of the login, not of the token, wherever the provider says it."""
    assert authenticated_at(claims) == at


@pytest.mark.parametrize(
    ("issuer", "anybody"),
    [
        pytest.param("https://login.microsoftonline.com/common/v2.0", True, id="common"),
        pytest.param("https://login.microsoftonline.com/organizations/v2.0", True, id="organizations"),
        pytest.param("https://login.microsoftonline.com/{tenantid}/v2.0", True, id="a template"),
        pytest.param("https://sts.windows.net/{tenantid}/", True, id="an old template"),
        pytest.param("https://login.microsoftonline.us/Consumers/v2.0", True, id="another cloud"),
        pytest.param("https://login.microsoftonline.com/6babcaad-604b-40ac-a9d7-9fd97c0b779f/v2.0", False, id="one"),
        pytest.param("https://login.partner.microsoftonline.cn/common/v2.0", True, id="the cloud in China"),
        pytest.param("https://id.example.com/realms/common", False, id="a realm of that name"),
        pytest.param("common", False, id="no address"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_an_issuer_that_stands_for_everybody(issuer: str, anybody: bool) -> None:
    """Whose tokens name issuers that nobody configured."""
    assert names_anybody(issuer) is anybody


@pytest.mark.parametrize(
    ("preset", "written", "other"),
    [
        pytest.param("supabase", SUPABASE, "https://abcdefgh.supabase.co", id="supabase"),
        pytest.param("supabase", "http://127.0.0.1:54321/auth/v1", SUPABASE + "/", id="supabase on this machine"),
        pytest.param("firebase", FIREBASE, "https://session.firebase.google.com/portal-1", id="firebase"),
        pytest.param("auth0", AUTH0, AUTH0.rstrip("/"), id="auth0"),
        pytest.param("clerk", CLERK, CLERK + "/", id="clerk"),
        pytest.param("cognito", COGNITO, "https://portal.auth.eu-west-1.amazoncognito.com", id="cognito"),
    ],
)
def test_how_a_provider_writes_its_issuer(preset: str, written: str, other: str) -> None:
    """A near miss is told at the start, not by refusing every token."""
    assert PRESETS[preset].writes(written)
    assert not PRESETS[preset].writes(other)


def test_every_pointer_of_the_table_can_be_read() -> None:
    """And none of them points at what its own row forbids."""
    for row in PRESETS.values():
        for text in row.tenants:
            assert row.fault_of(parse_pointer(text), tenant=True) is None
        for text in (*row.roles, *row.scopes):
            assert row.fault_of(parse_pointer(text), tenant=False) is None
