"""Who vouches for callers: verifier, keys and claim map of one issuer put together, and several issuers as one.

Pure: keys are looked at, never fetched; a key set that is not there yet makes every key unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from portalshield.model.principal import Principal
from portalshield.rules.claims import ClaimMap
from portalshield.rules.keys import NO_KEYS, KeySnapshot
from portalshield.rules.token_cache import Handles, TokenCache
from portalshield.rules.tokens import Claims, TokenError, Verifier, claimed_issuer


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


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer: its name (what `iss` must be, or any name where only one is configured), rules, keys and claims."""

    name: str
    verifier: Verifier
    keys: KeyHolder
    claims: ClaimMap


class Authority:
    """The tokens of the configured issuers become principals.

    With several issuers the token says which one it claims to be from, and that one's own rules and keys must confirm
    it: a key of one issuer never verifies a token of another (RFC 8725bis, issuer and key belong together).
    `never_bearer` are beginnings of keys for machines.
    """

    def __init__(self, issuers: Iterable[Issuer], cache: TokenCache, *, never_bearer: Iterable[str] = ()) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._all = tuple(self._issuers.values())
        self._sole = self._all[0] if len(self._all) == 1 else None
        self._cache = cache
        self._watched = tuple(issuer for issuer in self._all if not isinstance(issuer.keys, StaticKeys))
        self._never_bearer = tuple(prefix.encode() for prefix in never_bearer)
        self._generations: dict[str, int] = {}
        self._seen: dict[str, KeySnapshot | None] = {}

    @property
    def fetches(self) -> bool:
        """Some keys come from outside: an unknown one may be there a moment later."""
        return bool(self._watched)

    def recall(self, token: bytes, now: float) -> Principal | None:
        """The principal of a token that was verified moments ago and still holds."""
        for issuer in self._watched:
            if issuer.keys.snapshot is not self._seen.get(issuer.name):
                self._current(issuer)
        entry = self._cache.get(token, self._generations, now)
        return entry.principal if entry is not None else None

    def verify(self, token: bytes, now: float, auth_method: str = "bearer") -> Principal:
        """The principal of a token that passes every check. Raises `TokenError`; `unknown-key`: fetch and try again."""
        if self._never_bearer and token.startswith(self._never_bearer):
            raise TokenError("machine-key")
        issuer = self._issuer(token)
        keys = self._current(issuer)
        claims = issuer.verifier.verify(token, keys, now)
        principal = issuer.claims.principal(claims, auth_method=auth_method)
        if principal is None:
            raise TokenError("bad-claim")
        leeway = issuer.verifier.leeway
        self._cache.put(
            token,
            principal,
            issuer=issuer.name,
            generation=keys.generation,
            now=now,
            valid_from=claims.not_before - leeway if claims.not_before is not None else None,
            valid_until=claims.expires_at + leeway if claims.expires_at is not None else None,
            handles=_handles(claims, principal),
        )
        return principal

    def issuer_of(self, token: bytes) -> str:
        """Whose keys this token needs: the name of the issuer it claims. Raises `TokenError` for an unknown one."""
        return self._issuer(token).name

    def forget(self) -> None:
        """Drop every remembered token."""
        self._cache.clear()

    def _issuer(self, token: bytes) -> Issuer:
        if self._sole is not None:
            return self._sole
        issuer = self._issuers.get(claimed_issuer(token) or "")
        if issuer is None:
            raise TokenError("wrong-issuer")
        return issuer

    def _current(self, issuer: Issuer) -> KeySnapshot:
        keys = issuer.keys.snapshot
        if keys is not self._seen.get(issuer.name):
            # A hard-limited key set is no keys at all: what it signed is no longer remembered either.
            if keys is None:
                self._generations.pop(issuer.name, None)
            else:
                self._generations[issuer.name] = keys.generation
            self._seen[issuer.name] = keys
        return keys if keys is not None else NO_KEYS


def _handles(claims: Claims, principal: Principal) -> Handles:
    session = claims.get("sid", claims.get("session_id"))
    return Handles(
        token_id=claims.get("jti") if isinstance(claims.get("jti"), str) else None,
        session_id=session if isinstance(session, str) else None,
        subject=principal.subject,
        tenant=principal.tenant,
        issued_at=claims.issued_at,
    )
