"""From the auth settings to whoever vouches for callers: for each issuer a verifier, a key source and a claim map.

A provider's row says what is known of it, explicit settings win. Key material is loaded here, once, before the first
request; what cannot be used is reported like any other mistake.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from portalshield.layers.auth import AuthConfig, IssuerConfig, Verified
from portalshield.layers.tenant import TenantConfig
from portalshield.model.setting import ConfigurationProblem
from portalshield.rules.authority import Authority, Issuer, KeyHolder, RevocationHolder, StaticKeys
from portalshield.rules.claims import ClaimMap, Pointer, parse_pointer
from portalshield.rules.key_loading import load_keys, parse_key_set
from portalshield.rules.keys import KeySnapshot, UnusableKeyError
from portalshield.rules.presets import DIRECTORY, PERSONAL_ACCOUNTS, Preset
from portalshield.rules.secrets_known import guessable
from portalshield.rules.token_cache import TokenCache
from portalshield.rules.tokens import Verifier
from portalshield.stores.discovery import STEP_TIMEOUT_S, discovered
from portalshield.stores.keysets import RemoteKeys

_GUESSABLE = {
    "published": "is a secret that was published.",
    "placeholder": "is a placeholder.",
    "repeated": "repeats itself.",
    "too-short": "is shorter than its hash.",
    "few-distinct-bytes": "has fewer than 8 different characters.",
}

_NOBODY = {DIRECTORY[0]: (PERSONAL_ACCOUNTS,)}
"""Every directory, but for the one that is no organisation's."""
_EVERYBODY = ConfigurationProblem(
    "PS-AUTH-018",
    "PORTALSHIELD_TENANT__CLAIM",
    "does not name the directory, and AUTH__ISSUER lets every directory in.",
    "Write /tid, then each directory is a tenant, or name the directories one by one under AUTH__ISSUERS.",
)

Fetched = RemoteKeys[KeySnapshot]
Found = tuple[Authority | None, dict[str, Fetched], list[ConfigurationProblem]]


def authority_of(
    config: AuthConfig, tenant: TenantConfig, *, development: bool, revocations: RevocationHolder | None = None
) -> Found:
    """The authority, the key sets that are fetched for it by issuer, and what is wrong with the key material.

    Expects settings without problems of their own.
    """
    issuers: list[Issuer] = []
    problems: list[ConfigurationProblem] = []
    for verified in config.verified():
        found, faults = _issuer(verified, tenant, development)
        issuers += [found] if found is not None else []
        problems += faults
    if not issuers:
        return None, {}, problems
    never_bearer = {prefix for verified in config.verified() for prefix in verified.row.never_bearer}
    authority = Authority(issuers, TokenCache(config.cache), never_bearer=sorted(never_bearer), revocations=revocations)
    fetched = {issuer.name: issuer.keys for issuer in issuers if isinstance(issuer.keys, RemoteKeys)}
    return authority, fetched, problems


def _issuer(
    verified: Verified, tenant: TenantConfig, development: bool
) -> tuple[Issuer | None, list[ConfigurationProblem]]:
    prefix, row, config = verified
    template = row.template_for(config.issuer)
    if template is not None and DIRECTORY not in _pointers(tenant.claim):
        return None, [_EVERYBODY]
    try:
        verifier = _verifier(row, config)
    except ValueError as error:
        what = str(error).removeprefix("algorithms ")
        return None, [ConfigurationProblem("PS-AUTH-005", f"{prefix}__ALGORITHMS", f"{what}.")]
    problems = list(_secret_problems(verified, development))
    try:
        keys = _keys(row, config, verifier.algorithms, development)
    except UnusableKeyError as error:
        return None, [*problems, ConfigurationProblem("PS-AUTH-009", prefix + _source(config), f"{error}.")]
    return Issuer(config.named_issuer(row) or "jwt", verifier, keys, _claim_map(row, config, tenant)), problems


def _verifier(row: Preset, config: IssuerConfig) -> Verifier:
    own_secret = config.secret is not None
    template = row.template_for(config.issuer)
    # Cognito's access tokens name the client they are for in `client_id`: the configured audience is compared there.
    audience = () if row.party == "client_id" else config.audience or row.audience
    return Verifier(
        algorithms=config.algorithms or (row.own_secret if own_secret else row.algorithms),
        issuer=config.named_issuer(row) if template is None else None,
        issuer_template=template,
        audience=audience,
        client_ids=config.audience if row.party == "client_id" else (),
        authorized_parties=config.authorized_parties,
        authorized_party_optional=row.party == "azp",
        kid_required=row.kid_required,
        leeway=config.leeway,
        max_lifetime=config.max_lifetime or (row.max_secret_lifetime_s if own_secret else row.max_lifetime_s),
        subject_claim="sub" if config.subject_claim.startswith("/") else config.subject_claim,
        required=row.required,
        demand=row.demand,
        refuse=row.refuse if template is None else {**row.refuse, **_NOBODY},
        insecure_no_audience=config.insecure_no_audience,
        insecure_no_expiry=config.insecure_no_expiry,
    )


def _claim_map(row: Preset, config: IssuerConfig, tenant: TenantConfig) -> ClaimMap:
    """What was set, even to the default, wins over what the provider's row says."""
    said = config.model_fields_set
    tenants = _pointers(tenant.claim if "claim" in tenant.model_fields_set else row.tenants)
    if row.template_for(config.issuer) is not None:
        # Whatever else stands in such a token, its directory can write: only the directory's id was proven.
        tenants = (DIRECTORY,)
    return ClaimMap(
        parse_pointer(config.subject_claim),
        tenants,
        _pointers(config.roles_claim if "roles_claim" in said else row.roles),
        _pointers(config.scopes_claim if "scopes_claim" in said else row.scopes),
    )


def _pointers(texts: tuple[str, ...]) -> tuple[Pointer, ...]:
    return tuple(map(parse_pointer, texts))


def _keys(row: Preset, config: IssuerConfig, algorithms: tuple[str, ...], development: bool) -> KeyHolder:
    if config.secret is not None:
        return StaticKeys(load_keys(config.secret, algorithms))
    if config.public_key is not None:
        return StaticKeys(load_keys(config.public_key.replace("\\n", "\n"), algorithms))
    if config.jwks is not None:
        return StaticKeys(load_keys(config.jwks, algorithms))
    issuer = config.named_issuer(row) or ""

    def load(body: bytes) -> KeySnapshot:
        return parse_key_set(body, algorithms, time.time())

    if config.jwks_url is None and row.discovery:
        return RemoteKeys(
            row.key_set_for(issuer) or "",
            load=discovered(row.template_for(issuer) or issuer, load, allow_http=development),
            timeout_s=STEP_TIMEOUT_S,
            allow_http=development,
        )
    return RemoteKeys(config.jwks_url or row.key_set_for(issuer) or "", load=load, allow_http=development)


def _source(config: IssuerConfig) -> str:
    return "__SECRET" if config.secret is not None else "__PUBLIC_KEY" if config.public_key is not None else "__JWKS"


def _secret_problems(verified: Verified, development: bool) -> Iterator[ConfigurationProblem]:
    secret = verified.config.secret
    if secret is None or development:
        return
    fault = guessable(secret.reveal())
    if fault is not None:
        hint = "Make a new one: openssl rand -base64 48"
        yield ConfigurationProblem("PS-AUTH-006", f"{verified.prefix}__SECRET", _GUESSABLE[fault], hint)
