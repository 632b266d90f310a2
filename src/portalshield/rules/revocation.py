"""Which verified tokens no longer count: single tokens and sessions, everything a subject, tenant or issuer had before.

Self-contained tokens need a list of ended ones or a "not before" per owner (OWASP ASVS 5.0, 7.4.1). A token's string is
no key: one ECDSA token has several valid spellings, so entries name `jti`, `sid` or whom the token speaks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal
from uuid import UUID

from portalshield.rules.token_cache import Handles

Kind = Literal["jti", "sid", "subject", "tenant", "issuer"]
KINDS: tuple[Kind, ...] = ("jti", "sid", "subject", "tenant", "issuer")
MAX_ENTRIES = 100_000
MAX_VALUE = 1024
_ENDED_WHOLE: tuple[Kind, ...] = ("jti", "sid")


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. `before`: tokens issued earlier are refused (Unix seconds). `until`: then it may be forgotten."""

    kind: Kind
    value: str
    before: float
    until: float


@dataclass(frozen=True, slots=True)
class Revocations:
    """All entries of one moment, swapped as a whole, so that readers need no lock.

    `mark` is this list's own: who was compared with it need not be compared again.
    """

    entries: Mapping[tuple[Kind, str], Revocation] = field(default_factory=dict)
    mark: object = field(default_factory=object, compare=False, repr=False)

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
        """A new list: entries that ended are dropped, of two about the same the later times count, in any order.

        Above `MAX_ENTRIES` it raises `OverflowError`: forgetting a revocation would let a token back in.
        """
        merged = {key: entry for key, entry in self.entries.items() if entry.until > now}
        for entry in added:
            if entry.until > now:
                key = (entry.kind, entry.value)
                held = merged.get(key)
                merged[key] = entry if held is None else _later(held, entry)
        if len(merged) > MAX_ENTRIES:
            raise OverflowError(f"more than {MAX_ENTRIES} revocations: revoke a subject, tenant or issuer instead")
        return Revocations(merged) if merged else NONE


NONE = Revocations()
"""Nothing is revoked; an empty list is always this very one."""


def _later(one: Revocation, other: Revocation) -> Revocation:
    return Revocation(one.kind, one.value, max(one.before, other.before), max(one.until, other.until))


def revoked(
    named: Mapping[Kind, str | None], *, before: float | None, now: float, longest_life_s: float
) -> list[Revocation]:
    """An entry for each handle that is named; each counts by itself.

    `before` None: a token or session is ended for good, of a subject, tenant or issuer what was issued before `now`.
    Entries live as long as such a token may, `longest_life_s`. Raises `ValueError` or `TypeError` where nothing, or
    nothing sensible, would be revoked.
    """
    given = {kind: value for kind, value in named.items() if value is not None}
    if not given:
        raise ValueError(f"nothing to revoke: name at least one of {', '.join(KINDS)}")
    if before is not None and not 0 <= before < inf:
        raise ValueError("before is a time in Unix seconds")
    found = []
    for kind, value in given.items():
        _check(kind, value)
        limit = before if before is not None else inf if kind in _ENDED_WHOLE else now
        until = (max(now, limit) if limit < inf else now) + longest_life_s
        found.append(Revocation(kind, canonical(value), limit, until))
    return found


def _check(kind: Kind, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{kind} is a text, as it stands in tokens")
    if not 0 < len(value) <= MAX_VALUE:
        raise ValueError(f"{kind} has 1 to {MAX_VALUE} characters")
    value.encode()  # a lone surrogate: ValueError


def canonical(value: str) -> str:
    """Ids are compared as text, UUIDs as UUIDs, however they are spelt."""
    if not 32 <= len(value) <= 45 or (len(value) == 36 and value == value.lower()):
        return value
    try:
        return str(UUID(value))
    except ValueError:
        return value
