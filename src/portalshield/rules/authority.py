"""Who vouches for callers: verifier, keys and claim map of one issuer put together, and several issuers as one.

Pure: keys are looked at, never fetched; a key set that is not there yet makes every key unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from portalshield.model.principal import Principal
from portalshield.rules.claims import ClaimMap
from portalshield.rules.jws import TokenError, claimed_issuer
from portalshield.rules.keys import NO_KEYS, KeySnapshot
from portalshield.rules.revocation import NONE, Revocations, canonical
from portalshield.rules.token_cache import Entry, Handles, TokenCache
from portalshield.rules.tokens import Claims, Verifier


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
    """One issuer: its name, rules, keys and claims.

    The name is what `iss` must be, or any name where only one is configured or its verifier has a template.
    """

    name: str
    verifier: Verifier
    keys: KeyHolder
    claims: ClaimMap


class RevocationHolder(Protocol):
    """Whoever keeps the list of revocations."""

    @property
    def current(self) -> Revocations | None:
        """The list of this moment; None: nobody can tell."""


class NothingRevoked:
    """The list of somebody who revokes nothing."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.current: Revocations | None = NONE


class RevocationsUnknownError(Exception):
    """Nobody can tell whether this token was revoked."""


class Authority:
    """The tokens of the configured issuers become principals.

    With several issuers the token says which one it claims to be from, and that one's own rules and keys must confirm
    it: a key of one issuer never verifies a token of another (RFC 8725bis, issuer and key belong together).
    `never_bearer` are beginnings of keys for machines. `revocations` are asked about every token, remembered ones too.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        cache: TokenCache,
        *,
        never_bearer: Iterable[str] = (),
        revocations: RevocationHolder | None = None,
    ) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._all = tuple(self._issuers.values())
        self._templates = tuple(issuer for issuer in self._all if issuer.verifier.template is not None)
        self._sole = self._all[0] if len(self._all) == 1 else None
        self._cache = cache
        self._watched = tuple(issuer for issuer in self._all if not isinstance(issuer.keys, StaticKeys))
        self._never_bearer = tuple(prefix.encode() for prefix in never_bearer)
        self._revocations = revocations if revocations is not None else NothingRevoked()
        self._generations: dict[str, int] = {}
        self._seen: dict[str, KeySnapshot | None] = {}

    @property
    def admits_anybody(self) -> bool:
        """One issuer stands for every directory: who its users are, nobody here has decided."""
        return bool(self._templates)

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
        if entry is None:
            return None
        revoked = self._revocations.current
        if revoked is not NONE and not _stands(entry, revoked):
            return None  # `verify` says why
        return entry.principal

    def verify(self, token: bytes, now: float, auth_method: str = "bearer") -> Principal:
        """The principal of a token that passes every check.

        Raises `TokenError`; `unknown-key`: fetch and try again. `RevocationsUnknownError` for a token that is good,
        unless it was revoked.
        """
        if self._never_bearer and token.startswith(self._never_bearer):
            raise TokenError("machine-key")
        issuer = self._issuer(token)
        keys = self._current(issuer)
        claims = issuer.verifier.verify(token, keys, now)
        principal = issuer.claims.principal(claims, auth_method=auth_method)
        if principal is None:
            raise TokenError("bad-claim")
        handles = _handles(claims, principal)
        self._refuse_revoked(handles, issuer.name)
        leeway = issuer.verifier.leeway
        self._cache.put(
            token,
            principal,
            issuer=issuer.name,
            generation=keys.generation,
            now=now,
            valid_from=claims.not_before - leeway if claims.not_before is not None else None,
            valid_until=claims.expires_at + leeway if claims.expires_at is not None else None,
            handles=handles,
        )
        return principal

    def issuer_of(self, token: bytes) -> str:
        """Whose keys this token needs: the name of the issuer it claims. Raises `TokenError` for an unknown one."""
        return self._issuer(token).name

    @property
    def longest_life_s(self) -> float:
        """How long a token that is accepted now may be accepted, whichever issuer's it is."""
        return max(issuer.verifier.longest_life_s for issuer in self._all)

    def knows(self, issuer: str) -> bool:
        """An issuer of this name is configured."""
        return issuer in self._issuers

    def forget(self) -> None:
        """Drop every remembered token."""
        self._cache.clear()

    def _refuse_revoked(self, handles: Handles, issuer: str) -> None:
        revoked = self._revocations.current
        if revoked is None:
            raise RevocationsUnknownError
        if revoked.refuse(handles, issuer):
            raise TokenError("revoked")

    def _issuer(self, token: bytes) -> Issuer:
        if self._sole is not None:
            return self._sole
        claimed = claimed_issuer(token) or ""
        issuer = self._issuers.get(claimed)
        if issuer is not None:  # one that is named exactly has its own rules, whatever else would take it
            return issuer
        for many in self._templates:
            if many.verifier.may_be_from(claimed):
                return many
        raise TokenError("wrong-issuer")

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


def _stands(entry: Entry, revoked: Revocations | None) -> bool:
    """This remembered token is not revoked, as far as anybody knows. Compared once with each list."""
    if revoked is None:
        return False
    if entry.cleared is not revoked.mark:
        if revoked.refuse(entry.handles, entry.issuer):
            return False
        entry.clear(revoked.mark)
    return True


def _handles(claims: Claims, principal: Principal) -> Handles:
    """Ids as revocations spell them. A session is `sid` (OpenID Connect, Clerk) or `session_id` (Supabase)."""
    return Handles(
        token_id=_text(claims.get("jti")),
        session_id=_text(claims.get("sid")) or _text(claims.get("session_id")),
        subject=canonical(principal.subject),
        tenant=canonical(principal.tenant) if principal.tenant is not None else None,
        issued_at=claims.issued_at,
    )


def _text(value: object) -> str | None:
    return canonical(value) if isinstance(value, str) else None
