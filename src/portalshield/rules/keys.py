"""Verification keys: immutable, each bound to one algorithm, its material strong enough for it.

The facts this obeys: a key has exactly one algorithm, checked at use (RFC 8725bis, 3.1); HMAC keys are at least as long
as the hash, RSA keys at least 2048 bits (RFC 7518, 3.2 and 3.3); a curve has one algorithm (RFC 7518, 3.4, RFC 8037,
RFC 8812); `Ed25519` is the full name of `EdDSA` (RFC 9864). Signatures are checked by PyJWT's algorithm objects.
Keys are made by `key_loading.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, get_default_algorithms

from portalshield.rules.nearest import did_you_mean

_HASH_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
HMAC = tuple(_HASH_BYTES)
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "secp256k1": "ES256K"}
"""Each curve as a JWK names it -> its one algorithm."""

CANONICAL: Mapping[str, str] = MappingProxyType(
    {name: name for name in (*HMAC, *RSA, *CURVES.values(), "EdDSA")} | {"Ed25519": "EdDSA"}
)
"""Every algorithm name that a configuration or a token may use -> the name keys are bound to."""

ALGORITHMS: Mapping[str, Algorithm] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if CANONICAL.get(name) == name
}
"""What computes each of them."""


class UnusableKeyError(ValueError):
    """A key, or a whole set, that must not be used. `reason` is a fixed slug; the text never repeats key material.

    The text continues "the setting ...".
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(f"cannot be used: {text}")


def is_kid(value: Any) -> bool:
    """A key id as tokens and key sets may carry it: 1 to 256 printable characters. It is only ever looked up."""
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


@dataclass(frozen=True, slots=True)
class Key:
    """One key for one algorithm. `fingerprint` is the SHA-256 of its algorithm and material, to notice replacement.

    `issuer` is whose tokens it signs by its own word (a member of Microsoft's key sets); None where it says nothing.
    """

    kid: str | None
    alg: str
    fingerprint: bytes = field(repr=False)
    _algorithm: Algorithm = field(repr=False)
    _material: Any = field(repr=False)
    issuer: str | None = None

    def same_as(self, other: Key) -> bool:
        """The same material, for the same algorithm and issuer."""
        return self.fingerprint == other.fingerprint and self.issuer == other.issuer

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        """The signature over `header.payload` is this key's (RFC 7515, 5.2). Never raises for what a client sent."""
        try:
            return self._algorithm.verify(signing_input, self._material, signature)
        except (TypeError, ValueError, OverflowError, UnsupportedAlgorithm):
            return False


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """The keys of one issuer at one moment; swapped as a whole, so readers need no lock.

    `keys` maps (kid, algorithm) to a key. `generation` rises when a key disappears or its material changes: what was
    verified under an earlier one must be verified again. `fetched_at` is in Unix seconds, 0 for static keys. `skipped`
    holds (position in the set, reason) of keys that were not used.
    """

    keys: Mapping[tuple[str | None, str], Key]
    generation: int = 0
    fetched_at: float = 0.0
    skipped: tuple[tuple[int, str], ...] = ()
    _sole: Mapping[str, Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_alg: dict[str, list[Key]] = {}
        for key in self.keys.values():
            by_alg.setdefault(key.alg, []).append(key)
        sole = {alg: found[0] for alg, found in by_alg.items() if len(found) == 1}
        object.__setattr__(self, "keys", MappingProxyType(dict(self.keys)))
        object.__setattr__(self, "_sole", sole)

    def select(self, kid: str | None, alg: str) -> Key | None:
        """The one key a token with this `kid` and canonical algorithm may use.

        A token that names no key gets the key without a name, or the only one of its algorithm. A token that names one
        gets exactly that; a key without a name (a secret, a PEM) serves every name.
        """
        key = self.keys.get((kid, alg))
        if key is not None:
            return key
        return self._sole.get(alg) if kid is None else self.keys.get((None, alg))

    def followed_by(self, newer: KeySnapshot) -> KeySnapshot:
        """`newer` with the generation it has as this one's successor."""
        replaced = any(
            (found := newer.keys.get(name)) is None or not found.same_as(key) for name, key in self.keys.items()
        )
        return KeySnapshot(newer.keys, self.generation + replaced, newer.fetched_at, newer.skipped)


NO_KEYS = KeySnapshot({})
"""What an issuer has before its first fetch."""


def check_algorithms(algorithms: Iterable[str]) -> tuple[str, ...]:
    """The allowlist as a tuple. `ValueError` for a bare string, an empty list, unknown names, `none`, mixed families.

    HMAC and public-key algorithms never stand together: whoever knows the public key could sign with it as the secret.
    """
    if isinstance(algorithms, str | bytes):
        raise ValueError('algorithms is a list of names, not one text: write ["RS256"]')
    names = tuple(algorithms)
    if not names:
        raise ValueError('algorithms is empty: name at least one, for example ["RS256"]')
    for name in names:
        if not isinstance(name, str) or name not in CANONICAL:
            hint = did_you_mean(name, CANONICAL) if isinstance(name, str) else ""
            raise ValueError("algorithms has a name that is not supported" + (f" ({hint})" if hint else ""))
    if len({name in HMAC for name in names}) > 1:
        raise ValueError("algorithms mixes HMAC (HS...) with public-key algorithms: one issuer uses one of the two")
    return names


# -- material ---------------------------------------------------------------------------------------------------------


def hmac_key(kid: str | None, alg: str, secret: bytes) -> Key:
    """The key of a secret that is long enough for `alg`. Raises `UnusableKeyError`."""
    if len(secret) < _HASH_BYTES[alg]:
        raise UnusableKeyError("short-secret", f"an HMAC secret for {alg} has at least {_HASH_BYTES[alg]} bytes")
    return Key(kid, alg, _fingerprint(alg, secret), ALGORITHMS[alg], secret)


def public_key(kid: str | None, alg: str, material: Any) -> Key:
    """The key of one of cryptography's public keys, which the caller has found to fit `alg`."""
    der = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kid, alg, _fingerprint(alg, der), ALGORITHMS[alg], material)


def _fingerprint(alg: str, material: bytes) -> bytes:
    return hashlib.sha256(alg.encode() + b"\0" + material).digest()


def check_rsa(modulus: int, exponent: int) -> None:
    """Raises `UnusableKeyError` for numbers whose private half, or whose signatures, others could make."""
    if not 2048 <= modulus.bit_length() <= 8192 or modulus % 2 == 0:
        raise UnusableKeyError("weak-rsa", "an RSA key has 2048 to 8192 bits and an odd modulus")
    # Small exponents allow forged signatures where padding is checked loosely; huge ones only cost time.
    if exponent < 65537 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise UnusableKeyError("weak-rsa", "an RSA key's exponent is odd, at least 65537 and at most 64 bits")
    if has_roca_fingerprint(modulus):
        raise UnusableKeyError("weak-rsa", "the RSA key comes from a broken generator (ROCA) and can be factored")


def _roca_groups() -> tuple[tuple[int, frozenset[int]], ...]:
    groups = []
    for prime in (p for p in range(3, 168) if all(p % small for small in range(2, 13) if small < p)):
        powers, power = set(), 1
        while power not in powers:
            powers.add(power)
            power = power * 65537 % prime
        if len(powers) < prime - 1:  # where 65537 generates the whole group, the remainder says nothing
            groups.append((prime, frozenset(powers)))
    return tuple(groups)


_ROCA = _roca_groups()


def has_roca_fingerprint(modulus: int) -> bool:
    """The modulus is a power of 65537 modulo every small prime, as those of one broken library (CVE-2017-15361)."""
    return all(modulus % prime in powers for prime, powers in _ROCA)
