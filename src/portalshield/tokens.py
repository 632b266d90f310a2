"""Tokens on their own: verify a JWT's signature and claims, without an application around it.

    verifier = TokenVerifier(keys=jwks, algorithms=["RS256"], issuer="https://id.example.com/", audience="billing")
    claims = verifier.verify(token)          # raises TokenError(code), nothing else

The rules are those of `portalshield.rules.tokens`; this module only adds the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from portalshield.rules.jose import from_base64url
from portalshield.rules.jws import (
    CODES,
    HARD_MAX_TOKEN_BYTES,
    TokenError,
    check_signature,
    read_header,
    split_token,
    token_identity,
)
from portalshield.rules.key_loading import KeySource, load_keys
from portalshield.rules.keys import CANONICAL, KeySnapshot, UnusableKeyError, check_algorithms
from portalshield.rules.tokens import Claims, RuleTerms, Verifier

__all__ = [
    "CODES",
    "Claims",
    "KeySet",
    "TokenError",
    "TokenVerifier",
    "UnusableKeyError",
    "token_identity",
    "verify_signature",
]

KeySet = KeySnapshot
"""Loaded keys: `KeySnapshot` of `portalshield.rules.keys`; `load_keys` of `key_loading` beside it makes one."""


class TokenVerifier:
    """Verifies tokens of one issuer with fixed keys.

    `keys`: a JWK dict, a JWK set, PEM text of a public key, a `KeySet`, or a list of these; with HS algorithms a text
    is the secret itself. `algorithms`: a list of one family. `issuer`, `audience` and what may stand in for them, and
    the further keywords: see `RuleTerms`. Raises `ValueError` (`UnusableKeyError` for keys) when it could not protect.
    """

    def __init__(self, *, keys: KeySource, algorithms: Iterable[str], **rules: Unpack[RuleTerms]) -> None:
        self._verifier = Verifier(algorithms=algorithms, **rules)
        self.keys = load_keys(keys, self._verifier.algorithms)

    def verify(self, token: str, now: float | None = None) -> Claims:
        """The verified claims. `now` is in Unix seconds, the system's clock if None. Raises `TokenError` only."""
        return self._verifier.verify(token, self.keys, time.time() if now is None else now)


def verify_signature(token: str, jwk_or_set: str | Mapping[str, Any] | KeySet, alg: str = "") -> bool:
    """The compact JWS is signed by a key of the set with `alg` (an empty text: with each key's own algorithm).

    Checks the JWS alone: form, header, the key's fitness for this algorithm, and the signature; no claims, the payload
    may be anything. False for everything that does not verify, unusable keys and unknown algorithms included.
    """
    try:
        algorithms = check_algorithms((alg,)) if alg else ()
        allowed = {name: own for name, own in CANONICAL.items() if not alg or own == CANONICAL[alg]}
        segments = split_token(token, HARD_MAX_TOKEN_BYTES)
        from_base64url(segments.payload)  # whatever it says, it has one spelling
        header = read_header(segments.header, allowed)
        key = load_keys(jwk_or_set, algorithms).select(header.kid, header.alg)
        if key is None:
            return False
        check_signature(key, segments)
    except (TokenError, ValueError):
        return False
    return True
