"""Tokens and variables for test runs and development. There is no bypass: these are verified like any other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from math import ceil, floor
from typing import Any

import jwt

from portalshield.rules.claims import parse_pointer
from portalshield.settings import PREFIX, Settings


def environment(**overrides: str) -> dict[str, str]:
    """The variables of a test run: `AUTH=jwt` with a throw-away secret; keywords are names without the prefix."""
    variables = {
        "ENV": "development",
        "AUTH": "jwt",
        "AUTH__SECRET": secrets.token_urlsafe(48),
        "AUTH__ISSUER": "https://auth.example.test",
        "AUTH__AUDIENCE": "portal",
        **overrides,
    }
    return {PREFIX + name: value for name, value in variables.items()}


def mint_token(
    settings: Settings,
    *,
    tenant: str | None = None,
    subject: str = "u1",
    roles: Iterable[str] = (),
    scopes: Iterable[str] = (),
    ttl_s: float = 3600,
    now: float | None = None,
    **claims: Any,
) -> str:
    """A token that `settings` (with an own secret) accept, unless `claims` say otherwise.

    A negative `ttl_s` has expired, `-1` too: the clock difference that `AUTH__LEEWAY` tolerates is taken off.
    """
    auth = settings.auth
    if auth.secret is None:
        raise ValueError("minting needs AUTH=jwt with an own secret")
    at = int(time.time() if now is None else now)
    lives_s = int(ttl_s) if ttl_s >= 0 else floor(ttl_s) - ceil(auth.leeway)
    document: dict[str, Any] = {"sub": subject, "iat": at, "exp": at + lives_s}
    if auth.issuer is not None:
        document["iss"] = auth.issuer
    if auth.audience:
        document["aud"] = auth.audience[0]
    if tenant is not None:
        _put(document, parse_pointer(settings.tenant.claim[0]), tenant)
    if roles:
        _put(document, parse_pointer(auth.roles_claim[0]), list(roles))
    if scopes:
        _put(document, parse_pointer(auth.scopes_claim[0]), " ".join(scopes))
    document.update(claims)
    algorithm = auth.algorithms[0] if auth.algorithms else "HS256"
    return jwt.encode(document, auth.secret.reveal(), algorithm=algorithm)


def _put(document: dict[str, Any], pointer: tuple[str, ...], value: Any) -> None:
    for part in pointer[:-1]:
        document = document.setdefault(part, {})
    document[pointer[-1]] = value
