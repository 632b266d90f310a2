"""From the auth settings to whoever vouches for callers: verifier, key source, claim map and cache.

Key material is loaded here, once, before the first request; what cannot be used is reported like any other mistake.
"""

from __future__ import annotations

import time

from portalshield.layers.auth import AuthConfig
from portalshield.layers.tenant import TenantConfig
from portalshield.model.setting import ConfigurationProblem
from portalshield.rules.authority import Authority, KeyHolder, StaticKeys
from portalshield.rules.claims import ClaimMap, parse_pointer
from portalshield.rules.keys import KeySnapshot, UnusableKeyError, load_keys, parse_key_set
from portalshield.rules.secrets_known import guessable
from portalshield.rules.token_cache import TokenCache
from portalshield.rules.tokens import Verifier
from portalshield.stores.keysets import RemoteKeys

_PREFIX = "PORTALSHIELD_AUTH__"
_OWN_SECRET = ("HS256",)
_PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_DAY_S = 86_400.0
_GUESSABLE = {
    "published": "is a secret that was published.",
    "placeholder": "is a placeholder.",
    "repeated": "repeats itself.",
    "too-short": "is shorter than its hash.",
    "few-distinct-bytes": "has fewer than 8 different characters.",
}

Fetched = RemoteKeys[KeySnapshot]
Found = tuple[Authority | None, dict[str, Fetched], list[ConfigurationProblem]]


def authority_of(config: AuthConfig, tenant: TenantConfig, *, development: bool) -> Found:
    """The authority, the key sets that are fetched for it by issuer, and what is wrong with the key material."""
    if not config.verifies:
        return None, {}, []
    algorithms = config.algorithms or (_OWN_SECRET if config.secret is not None else _PUBLIC)
    try:
        verifier = _verifier(config, algorithms)
    except ValueError as error:
        return None, {}, [ConfigurationProblem("PS-AUTH-005", _PREFIX + "ALGORITHMS", f"{error}.")]
    problems = list(_secret_problems(config, development))
    try:
        holder = _keys(config, verifier.algorithms, development)
    except UnusableKeyError as error:
        return None, {}, [*problems, ConfigurationProblem("PS-AUTH-009", _source(config), f"{error}.")]
    issuer = config.issuer or "jwt"
    claims = ClaimMap(
        parse_pointer(config.subject_claim),
        tuple(map(parse_pointer, tenant.claim)),
        tuple(map(parse_pointer, config.roles_claim)),
        tuple(map(parse_pointer, config.scopes_claim)),
    )
    authority = Authority(issuer, verifier, holder, claims, TokenCache(config.cache))
    return authority, {issuer: holder} if isinstance(holder, RemoteKeys) else {}, problems


def _verifier(config: AuthConfig, algorithms: tuple[str, ...]) -> Verifier:
    days = 30 if config.secret is not None else 1
    return Verifier(
        algorithms=algorithms,
        issuer=config.issuer,
        audience=config.audience,
        leeway=config.leeway,
        max_lifetime=config.max_lifetime or days * _DAY_S,
        insecure_no_audience=config.insecure_no_audience,
        insecure_no_expiry=config.insecure_no_expiry,
        subject_claim="sub" if config.subject_claim.startswith("/") else config.subject_claim,
    )


def _keys(config: AuthConfig, algorithms: tuple[str, ...], development: bool) -> KeyHolder:
    if config.jwks_url is not None:
        return RemoteKeys(
            config.jwks_url,
            load=lambda raw: parse_key_set(raw, algorithms, time.time()),
            allow_http=development,
        )
    if config.secret is not None:
        return StaticKeys(load_keys(config.secret, algorithms))
    text = config.public_key or config.jwks or ""
    return StaticKeys(load_keys(text.replace("\\n", "\n") if config.public_key else text, algorithms))


def _source(config: AuthConfig) -> str:
    return _PREFIX + ("SECRET" if config.secret is not None else "PUBLIC_KEY" if config.public_key else "JWKS")


def _secret_problems(config: AuthConfig, development: bool) -> list[ConfigurationProblem]:
    if config.secret is None or development:
        return []
    fault = guessable(config.secret.reveal())
    if fault is None:
        return []
    hint = "Make a new one: openssl rand -base64 48"
    return [ConfigurationProblem("PS-AUTH-006", _PREFIX + "SECRET", _GUESSABLE[fault], hint)]
