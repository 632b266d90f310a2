"""Stable names for people and tenants that nobody can turn back without the key.

`u_<16 hex>` is keyed BLAKE2b over domain, tenant and the normalised value: the same user in two tenants, or the same
text as user and as e-mail, gets unlinkable names. An unkeyed hash of an e-mail or address is reversed by enumeration,
so there is none here. RFC 7693 (BLAKE2).
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final, Literal

Domain = Literal["user", "tenant", "email", "ip", "path"]

PREFIXES: Final[dict[Domain, str]] = {"user": "u_", "tenant": "t_", "email": "e_", "ip": "i_", "path": "p_"}
"""How a pseudonym of a domain begins."""
MIN_KEY_BYTES = 16
"""A shorter key could be guessed; the constructor refuses it."""


class _Key:
    """One key: a keyed state per domain (copying a state is cheaper than keying a new one) and the key's public id."""

    __slots__ = ("id", "states")

    def __init__(self, material: bytes) -> None:
        if len(material) < MIN_KEY_BYTES:
            raise ValueError(f"a pseudonym key has at least {MIN_KEY_BYTES} bytes")
        key = hashlib.blake2b(material, digest_size=32, person=b"ps-pseudonym-key").digest()
        self.id = hashlib.blake2b(b"id", key=key, digest_size=3).hexdigest()
        self.states = {domain: hashlib.blake2b(key=key, digest_size=8, person=domain.encode()) for domain in PREFIXES}

    def name(self, domain: Domain, value: str, tenant: str) -> str:
        state = self.states[domain].copy()
        bound = tenant.encode("utf-8", "surrogatepass")
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        state.update(b"%d:%b" % (len(bound), bound))
        state.update(_normal(value).encode("utf-8", "surrogatepass"))
        return PREFIXES[domain] + state.hexdigest()


class Pseudonyms:
    """Names values under `key`; `previous` stays known so that names from before a rotation can be recomputed.

    Keys are bytes of at least 16, best random 32. Where no key is configured the caller hands over random bytes, and
    the names then hold within one process only.
    """

    __slots__ = ("_current", "_previous", "key_id")

    def __init__(self, key: bytes, previous: bytes | None = None) -> None:
        self._current = _Key(key)
        self._previous = _Key(previous) if previous is not None else None
        self.key_id = self._current.id
        """Six hex digits that tell which key a line was written with; says nothing about the key."""

    def name(self, domain: Domain, value: str, tenant: str = "") -> str:
        """The pseudonym: two characters for the domain and 16 hex digits, whatever the value."""
        return self._current.name(domain, value, tenant)

    def candidates(self, domain: Domain, value: str, tenant: str = "") -> tuple[tuple[str, str], ...]:
        """`(key id, pseudonym)` under every key that is held, the current one first: to find a value in old lines."""
        keys = (self._current,) if self._previous is None else (self._current, self._previous)
        return tuple((key.id, key.name(domain, value, tenant)) for key in keys)


def _normal(value: str) -> str:
    lowered = value.lower()
    return lowered if lowered.isascii() else unicodedata.normalize("NFC", lowered)
