"""Identity providers as rows of one table: what their tokens carry, and what must be checked before one is believed.

A row is data. What is set explicitly always wins over it; the checks that make a provider's token a user's token
(`required`, `demand`, `refuse`, the party) cannot be switched off. Each row names the page it was checked against.
Names and slugs can be changed and are never ids; what users can write themselves is never a tenant or a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from portalshield.rules.claims import Pointer, parse_pointer
from portalshield.rules.tokens import TENANT_PLACEHOLDER

DAY_S = 86_400.0
_PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_NOTHING: Mapping[str, tuple[str | int, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One provider. Texts with `{issuer}` and `{audience}` are filled from the configuration."""

    name: str
    issuer: str = ""
    """The issuer where none is configured; empty: it must be."""
    issuer_form: str = ""
    """How the provider writes its issuer, for messages; empty: anyhow."""
    issuer_begins: str = ""
    issuer_ends: str = ""
    key_set: str = ""
    """Where the key set lies; empty: by discovery, or wherever the configuration says."""
    discovery: bool = False
    """The issuer's metadata says where (OpenID Connect Discovery 1.0)."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Endpoints that stand for every directory -> how the issuers behind them are written."""
    algorithms: tuple[str, ...] = _PUBLIC
    own_secret: tuple[str, ...] = ()
    """Algorithms of tokens signed with a shared secret; empty: this provider has none."""
    party: Literal["aud", "azp", "client_id"] = "aud"
    """The claim that says whom a token is for: the audience or what stands in for it."""
    audience: tuple[str, ...] = ()
    """What `aud` must be where nothing is configured."""
    kid_required: bool = False
    required: tuple[str, ...] = ()
    demand: Mapping[str, tuple[str | int, ...]] = field(default_factory=lambda: _NOTHING)
    refuse: Mapping[str, tuple[str | int, ...]] = field(default_factory=lambda: _NOTHING)
    tenants: tuple[str, ...] = ("/tenant_id",)
    roles: tuple[str, ...] = ("/roles", "/role")
    scopes: tuple[str, ...] = ("/scope", "/scp")
    changeable: tuple[str, ...] = ()
    """Names and slugs: never a tenant. They are changed, given away and taken by others."""
    writable: str = ""
    """Members that begin like this can be written by users."""
    cookie: str | None = None
    """The cookie the provider itself keeps its token in."""
    max_lifetime_s: float = DAY_S
    max_secret_lifetime_s: float = DAY_S
    never_bearer: tuple[str, ...] = ()
    """What begins like this is a key for machines, never a user's token."""

    def issuer_for(self, configured: str | None, audience: tuple[str, ...]) -> str | None:
        """The issuer in force: the configured one, else the provider's own; None where there is none."""
        if configured is not None or not self.issuer or len(audience) != 1:
            return configured
        return self.issuer.format(audience=audience[0])

    def template_for(self, issuer: str | None) -> str | None:
        """How the many issuers behind this one are written, with `{tenantid}`; None: it is one issuer."""
        return self.templates.get(issuer) if issuer is not None else None

    def key_set_for(self, issuer: str) -> str | None:
        """Where the key set or the metadata of this issuer is fetched; None: nowhere by itself."""
        if self.discovery:
            return issuer.rstrip("/") + METADATA_PATH
        return self.key_set.format(issuer=issuer) or None

    def writes(self, issuer: str) -> bool:
        """The provider writes issuers like this one."""
        if self.issuer_form and issuer.endswith("/") != self.issuer_ends.endswith("/"):
            return False
        return issuer.startswith(self.issuer_begins) and issuer.endswith(self.issuer_ends)

    def fault_of(self, pointer: Pointer, *, tenant: bool) -> str | None:
        """Why a claim must not prove a tenant (or, without `tenant`, a role or scope); None: it may."""
        if self.writable and any(part.startswith(self.writable) for part in pointer):
            return "points at an attribute that users can write themselves"
        if tenant and pointer in map(parse_pointer, self.changeable):
            return "points at a name that can be changed: use the id"
        return None


METADATA_PATH = "/.well-known/openid-configuration"

# learn.microsoft.com/entra/identity-platform/access-tokens ("Validate the issuer"): the metadata of these endpoints
# name a template, each key says which issuers it signs for. Version 2.0 only: keys of version 1.0 do not say it.
_CLOUDS = ("login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn")
_ENTRA = {
    f"https://{cloud}/{endpoint}/v2.0": f"https://{cloud}/{TENANT_PLACEHOLDER}/v2.0"
    for cloud in _CLOUDS
    for endpoint in ("common", "organizations")
}
PERSONAL_ACCOUNTS = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""The directory in which Microsoft keeps everybody's personal accounts: nobody's organisation."""
DIRECTORY: Pointer = ("tid",)
"""Where a directory's id stands in its tokens."""

_ROWS = (
    # Everything comes from the configuration. Portals made from templates issue 8-day tokens with their own secret.
    Preset(name="jwt", own_secret=("HS256",), max_secret_lifetime_s=30 * DAY_S),
    # OpenID Connect Discovery 1.0, sections 4.1 to 4.3. Microsoft Entra, Keycloak, WorkOS, Okta and others work so.
    Preset(name="oidc", discovery=True, templates=_ENTRA),
    # supabase.com/docs/guides/auth/jwt-fields (required claims, role), /auth/jwts (issuer, key set, shared secret),
    # /api/api-keys (the anon and service_role keys are tokens of the same secret; sb_ keys are no tokens at all).
    # Signed storage addresses carry neither a subject nor a session. `role` is a Postgres role, no role of the portal.
    Preset(
        name="supabase",
        issuer_form="https://<project>.supabase.co/auth/v1",
        issuer_ends="/auth/v1",
        key_set="{issuer}/.well-known/jwks.json",
        algorithms=("ES256", "RS256", "EdDSA"),
        own_secret=("HS256",),
        audience=("authenticated",),
        required=("session_id", "role"),
        refuse={"role": ("anon", "service_role", "supabase_admin")},
        tenants=("/app_metadata/tenant_id", "/app_metadata/org_id", "/app_metadata/organization_id", "/tenant_id"),
        roles=("/app_metadata/roles", "/app_metadata/role"),
        scopes=(),
        never_bearer=("sb_secret_", "sb_publishable_"),
    ),
    # firebase.google.com/docs/auth/admin/verify-id-tokens (RS256, kid, aud and iss of the project, auth_time).
    # The page names the certificates; the same keys as JWKs are where the issuer's own metadata says. Custom claims
    # stand at the top level. Session cookies have another issuer, custom tokens another audience: both are refused.
    Preset(
        name="firebase",
        issuer="https://securetoken.google.com/{audience}",
        issuer_form="https://securetoken.google.com/<project id>",
        issuer_begins="https://securetoken.google.com/",
        discovery=True,
        algorithms=("RS256",),
        kid_required=True,
        required=("auth_time", "iat"),
        tenants=("/firebase/tenant", "/tenant_id"),
        scopes=(),
    ),
    # auth0.com/docs/manage-users/organizations/using-tokens (org_id; org_name only if switched on, and it changes),
    # /secure/tokens/access-tokens (issuer with its slash, RS256, permissions). Access tokens may live 24h by default.
    # `permissions` is what the user may do, `scope` what this client was granted of it.
    Preset(
        name="auth0",
        issuer_form="https://<domain>/",
        issuer_ends="/",
        key_set="{issuer}.well-known/jwks.json",
        algorithms=("RS256",),
        tenants=("/org_id",),
        roles=("/permissions",),
        scopes=("/scope",),
        changeable=("/org_name",),
    ),
    # clerk.com/docs/guides/sessions/session-tokens (version 2: v, sid, o, sts, act), /manual-jwt-verification (azp,
    # which may be absent where the browser told no origin; cookie; sts=pending). There is no `aud`. `sid` keeps out
    # tokens of JWT templates, which are made for other services. `o.per` counts only together with `o.fpm` and `fea`,
    # so it grants no scopes. `o.slg` changes.
    Preset(
        name="clerk",
        issuer_form="https://<your Frontend API>",
        key_set="{issuer}/.well-known/jwks.json",
        algorithms=("RS256",),
        party="azp",
        required=("sid",),
        demand={"v": (2,)},
        refuse={"sts": ("pending",)},
        tenants=("/o/id",),
        roles=("/o/rol",),
        scopes=(),
        changeable=("/o/slg", "/org_slug"),
        cookie="__session",
    ),
    # docs.aws.amazon.com/cognito: "Understanding the access token" (client_id, token_use, cognito:groups, scope, 5
    # minutes to 1 day), "Verifying JSON web tokens" (issuer, key set). Access tokens have no `aud`: AUTH__AUDIENCE
    # lists the app clients. A tenant gets into an access token by a pre token generation trigger. An access token lets
    # its user write every attribute the app client may write (WriteAttributes), `custom:` ones among them.
    Preset(
        name="cognito",
        issuer_form="https://cognito-idp.<region>.amazonaws.com/<pool>",
        issuer_begins="https://cognito-idp.",
        key_set="{issuer}/.well-known/jwks.json",
        algorithms=("RS256",),
        party="client_id",
        demand={"token_use": ("access",)},
        roles=("/cognito:groups",),
        scopes=("/scope",),
        writable="custom:",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({row.name: row for row in _ROWS})
"""Every provider by its name in `PORTALSHIELD_AUTH`."""

_ANYBODY = frozenset(("common", "organizations", "consumers"))
_MICROSOFT = ("login.microsoftonline.", "login.partner.microsoftonline.")


def names_anybody(issuer: str) -> bool:
    """The issuer is a template or Microsoft Entra's endpoint for every directory: its tokens name other issuers.

    Whoever accepts those must check for each token that `tid`, `iss` and the key's own issuer agree, which is possible
    where a row has a template for it.
    """
    if "{" in issuer:
        return True
    _, _, host, *path = (*issuer.lower().split("/"), "", "")
    return host.startswith(_MICROSOFT) and not _ANYBODY.isdisjoint(path)
