"""Who vouches for callers: verifier, keys, claim map and cache of one issuer, put together.

Pure: keys are looked at, never fetched; a key set that is not there yet makes every key unknown.
"""

from __future__ import annotations

from typing import Protocol

from portalshield.model.principal import Principal
from portalshield.rules.claims import ClaimMap
from portalshield.rules.keys import NO_KEYS, KeySnapshot
from portalshield.rules.token_cache import Handles, TokenCache
from portalshield.rules.tokens import TokenError, Verifier


class KeyHolder(Protocol):
    """Whoever keeps the current keys: a constant, or a set that is fetched in the background."""

    @property
    def snapshot(self) -> KeySnapshot | None:
        """The keys of this moment; None before the first fetch or after the hard limit."""


class StaticKeys:
    """Keys from the configuration."""

    __slots__ = ("snapshot",)

    def __init__(self, snapshot: KeySnapshot) -> None:
        self.snapshot: KeySnapshot | None = snapshot


class Authority:
    """The tokens of one issuer become principals."""

    def __init__(self, issuer: str, verifier: Verifier, keys: KeyHolder, claims: ClaimMap, cache: TokenCache) -> None:
        self.issuer = issuer
        self._verifier = verifier
        self._keys = keys
        self._claims = claims
        self._cache = cache
        self._generations: dict[str, int] = {}
        self._seen: KeySnapshot | None = None

    def recall(self, token: bytes, now: float) -> Principal | None:
        """The principal of a token that was verified moments ago and still holds."""
        self._current()
        entry = self._cache.get(token, self._generations, now)
        return entry.principal if entry is not None else None

    def verify(self, token: bytes, now: float) -> Principal:
        """The principal of a token that passes every check. Raises `TokenError`; `unknown-key`: fetch and try again."""
        keys = self._current()
        claims = self._verifier.verify(token, keys, now)
        principal = self._claims.principal(claims, auth_method="bearer")
        if principal is None:
            raise TokenError("bad-claim")
        leeway = self._verifier.leeway
        self._cache.put(
            token,
            principal,
            issuer=self.issuer,
            generation=keys.generation,
            now=now,
            valid_from=claims.not_before - leeway if claims.not_before is not None else None,
            valid_until=claims.expires_at + leeway if claims.expires_at is not None else None,
            handles=Handles(
                token_id=claims.get("jti") if isinstance(claims.get("jti"), str) else None,
                session_id=claims.get("sid") if isinstance(claims.get("sid"), str) else None,
                subject=principal.subject,
                tenant=principal.tenant,
                issued_at=claims.issued_at,
            ),
        )
        return principal

    def forget(self) -> None:
        """Drop every remembered token."""
        self._cache.clear()

    def _current(self) -> KeySnapshot:
        keys = self._keys.snapshot or NO_KEYS
        if keys is not self._seen:
            # A hard-limited key set is no keys at all: what it signed is no longer remembered either.
            self._generations = {self.issuer: keys.generation} if keys is not NO_KEYS else {}
            self._seen = keys
        return keys
