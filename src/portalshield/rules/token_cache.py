"""Verified tokens, remembered for a moment: a hit costs one hash and one look-up instead of a signature check.

Only what passed every check is put in; failures are never stored. The key is the SHA-256 of the token's bytes, so the
token itself is not kept. It may serve only this positive cache: one ECDSA token has several valid spellings, so
revocation uses `jti`, `sid` or the signing input instead (RFC 8725bis; see `rules/jws.py`).
Which issuer a token belongs to is known only after parsing it, so the issuer stands in the value, not in the key: a
cache belongs to one configuration, and an issuer that this configuration does not know is a miss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from portalshield.model.principal import Principal


class Handles(NamedTuple):
    """What a verified token can be revoked by; compared on every hit by whoever knows the revocations."""

    token_id: str | None = None
    session_id: str | None = None
    subject: str | None = None
    tenant: str | None = None
    issued_at: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One verified token: whom it proves, under which issuer and key generation, and from when until when it serves.

    `cleared` is the mark of the list of revocations that it was compared with last; only `clear` changes it.
    """

    principal: Principal
    issuer: str
    generation: int
    handles: Handles
    serves_from: float
    serves_until: float
    cleared: object = None

    def clear(self, mark: object) -> None:
        """Note that the list of this mark does not revoke it. A lost race costs one comparison."""
        object.__setattr__(self, "cleared", mark)


class TokenCache:
    """At most `max_entries` verified tokens, none older than `max_age_s`; 0 entries switch it off.

    Two generations of a dict: a full young one becomes the old one, the old one is dropped, a hit in the old one moves
    up. So there is no list to reorder and no lock to take on a hit; each operation is one atomic dict access, and a
    lost race costs one verification.
    """

    __slots__ = ("_half", "_max_age_s", "_old", "_young")

    def __init__(self, max_entries: int = 10_000, max_age_s: float = 60.0) -> None:
        self._half = max_entries // 2 if max_entries > 1 else max_entries
        self._max_age_s = max_age_s
        self.clear()

    def get(self, token: bytes, generations: Mapping[str, int], now: float) -> Entry | None:
        """The entry of this token if it still serves at `now` (Unix seconds), else None.

        `generations` maps each issuer of this configuration to its current key generation: a withdrawn key ends what
        it signed. `exp` and `nbf` hold to the second.
        """
        name = sha256(token).digest()
        young = self._young.get(name)
        entry = young or self._old.get(name)
        if entry is None or not entry.serves_from <= now < entry.serves_until:
            return None
        if generations.get(entry.issuer) != entry.generation:
            return None
        if young is None:
            self._store(name, entry)
        return entry

    def put(
        self,
        token: bytes,
        principal: Principal,
        *,
        issuer: str,
        generation: int,
        now: float,
        valid_from: float | None = None,
        valid_until: float | None = None,
        handles: Handles = Handles(),  # noqa: B008 (an immutable tuple)
    ) -> None:
        """Remember a token that passed every check.

        `generation` is that of the key snapshot it was verified with. `valid_from` and `valid_until` are `nbf` and
        `exp` with the leeway the verifier granted.
        """
        if not self._half:
            return
        # A clock that is set back must not stretch the age: an entry serves at most as long before it was made.
        serves_from = now - self._max_age_s if valid_from is None else max(valid_from, now - self._max_age_s)
        serves_until = now + self._max_age_s if valid_until is None else min(valid_until, now + self._max_age_s)
        entry = Entry(principal, issuer, generation, handles, serves_from, serves_until)
        self._store(sha256(token).digest(), entry)

    def clear(self) -> None:
        """Forget everything (a new configuration, a test)."""
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _store(self, name: bytes, entry: Entry) -> None:
        young = self._young
        if len(young) >= self._half:
            self._old = young
            self._young = young = {}
        young[name] = entry
