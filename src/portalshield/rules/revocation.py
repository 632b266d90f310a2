"""Which verified tokens no longer count: single tokens and sessions, everything a subject, tenant or issuer had before.

Self-contained tokens need a list of ended ones or a "not before" per owner (OWASP ASVS 5.0, 7.4.1). A token's string is
no key: one ECDSA token has several valid spellings, so entries name `jti`, `sid` or whom the token speaks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from portalshield.rules.token_cache import Handles

Kind = Literal["jti", "sid", "subject", "tenant", "issuer"]
KINDS: tuple[Kind, ...] = ("jti", "sid", "subject", "tenant", "issuer")
MAX_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. `before`: tokens issued earlier are refused (Unix seconds). `until`: then it may be forgotten."""

    kind: Kind
    value: str
    before: float
    until: float


@dataclass(frozen=True, slots=True)
class Revocations:
    """All entries of one moment, swapped as a whole, so that readers need no lock."""

    entries: Mapping[tuple[Kind, str], Revocation] = field(default_factory=dict)

    def refuse(self, handles: Handles, issuer: str) -> bool:
        """A token with these handles is revoked. One that does not say when it was issued is, if an entry names it."""
        entries = self.entries
        if not entries:
            return False
        named: tuple[tuple[Kind, str | None], ...] = (
            ("jti", handles.token_id),
            ("sid", handles.session_id),
            ("subject", handles.subject),
            ("tenant", handles.tenant),
            ("issuer", issuer),
        )
        for kind, value in named:
            entry = entries.get((kind, value)) if value is not None else None
            if entry is not None and (handles.issued_at is None or handles.issued_at < entry.before):
                return True
        return False

    def with_all(self, added: Iterable[Revocation], now: float) -> Revocations:
        """A new list: entries that ended are dropped, of two about the same the later `before` counts.

        Above `MAX_ENTRIES` it raises `OverflowError`: forgetting a revocation would let a token back in.
        """
        merged = {key: entry for key, entry in self.entries.items() if entry.until > now}
        for entry in added:
            held = merged.get((entry.kind, entry.value))
            if entry.until > now and (held is None or held.before <= entry.before):
                merged[(entry.kind, entry.value)] = entry
        if len(merged) > MAX_ENTRIES:
            raise OverflowError(f"more than {MAX_ENTRIES} revocations: revoke a subject, tenant or issuer instead")
        return Revocations(merged)


NONE = Revocations()
