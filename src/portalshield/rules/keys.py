"""Verification keys: JWKs, JWK sets, PEM text and HMAC secrets become immutable keys, each bound to one algorithm.

The facts this obeys: a key has exactly one algorithm, checked at use (RFC 8725bis, 3.1); `use` and `key_ops` restrict
it (RFC 7517, 4.2 and 4.3); HMAC keys are at least as long as the hash, RSA keys at least 2048 bits (RFC 7518, 3.2 and
3.3); a curve has one algorithm (RFC 7518, 3.4, RFC 8037, RFC 8812); `Ed25519` is the full name of `EdDSA` (RFC 9864).
One odd key never spoils a set: it is skipped, with a reason. Signatures are checked by PyJWT's algorithm objects.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from portalshield.model.secret import Secret
from portalshield.rules.nearest import did_you_mean

MAX_KEYS = 64
"""A set with more keys is refused whole."""

_HASH_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "secp256k1": "ES256K"}
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32}

CANONICAL: Mapping[str, str] = MappingProxyType(
    {name: name for name in (*_HASH_BYTES, *_RSA, *_CURVES.values(), "EdDSA")} | {"Ed25519": "EdDSA"}
)
"""Every algorithm name that a configuration or a token may use -> the name keys are bound to."""

# "ES521" is a misspelling of ES512 that real key sets carry. The curve decides in any case, so it can only ever mean
# the one algorithm that P-521 has.
_STATED = {**CANONICAL, "ES521": "ES512"}
_ALGORITHMS: dict[str, Algorithm] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if CANONICAL.get(name) == name
}
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))


class UnusableKeyError(ValueError):
    """A key, or a whole set, that must not be used. `reason` is a fixed slug; the text never repeats key material.

    The text continues "the setting ...".
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(f"cannot be used: {text}")


# -- how JOSE writes bytes and objects --------------------------------------------------------------------------------

BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
# The last character of a segment whose unused bits are zero, by length modulo 4. Anything else is a second spelling of
# the same bytes: a denylist of token texts would miss it.
_LAST = (BASE64URL, b"", b"AQgw", b"AEIMQUYcgkosw048")


def from_base64url(segment: bytes) -> bytes:
    """The bytes of an unpadded, canonical base64url segment; the caller has checked the alphabet. `ValueError` else."""
    if segment and segment[-1] not in _LAST[len(segment) & 3]:
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(segment.translate(_TO_STANDARD) + b"==")


class Frozen(dict[str, Any]):
    """A JSON object that cannot be changed: a handler must not alter what the next request with this token sees."""

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("claims cannot be changed; copy them first: dict(claims)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def _frozen_list(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen_list(value) if type(value) is list else value for value in values)


def _object(pairs: list[tuple[str, Any]]) -> Frozen:
    found = Frozen(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member name comes twice")
    for name, value in pairs:
        if type(value) is list:
            dict.__setitem__(found, name, _frozen_list(value))
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)


def json_object(raw: bytes, max_depth: int) -> Frozen:
    """One JSON object in strict UTF-8, frozen, arrays as tuples.

    `ValueError` for anything else: a BOM, a member name twice, NaN or Infinity, a lone surrogate, more than `max_depth`
    levels (counted before parsing, so that nesting never reaches the parser's recursion).
    """
    if raw.count(b"{") + raw.count(b"[") > max_depth and _depth(raw) > max_depth:
        raise ValueError("nested too deeply")
    found = _DECODER.decode(raw.decode())
    if type(found) is not Frozen:
        raise ValueError("not an object")
    if b"\\ud" in raw or b"\\uD" in raw:  # an escaped surrogate: a lone one would explode later, in a log or a database
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _depth(raw: bytes) -> int:
    outside = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    depth = deepest = 0
    for byte in outside:
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


# -- keys -------------------------------------------------------------------------------------------------------------


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

KeySource: TypeAlias = "str | bytes | Secret | Mapping[str, Any] | KeySnapshot | Sequence[KeySource]"
"""A JWK, a JWK set, PEM text, JSON text of the former, an HMAC secret, loaded keys, or several of these."""


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
    if len({name in _HASH_BYTES for name in names}) > 1:
        raise ValueError("algorithms mixes HMAC (HS...) with public-key algorithms: one issuer uses one of the two")
    return names


def load_keys(source: KeySource, algorithms: Sequence[str] = ()) -> KeySnapshot:
    """Keys that the operator configured.

    `algorithms` is the checked allowlist; the first one that fits binds a key that states none (without an allowlist:
    HS256, RS256, the curve's own). A text is PEM, JSON or, with HMAC algorithms, the secret itself. Odd keys of a set
    are skipped; raises `UnusableKeyError` when nothing usable remains, or symmetric and public keys stand in one set.
    """
    if isinstance(source, KeySnapshot):
        return source
    entries = _entries(source)
    if len({isinstance(entry, Mapping) and entry.get("kty") == "oct" for entry in entries if _is_jwk(entry)}) > 1:
        raise UnusableKeyError("mixed-set", "the set mixes symmetric and public keys: use one kind for one issuer")
    return _load_all(entries, algorithms, remote=False, fetched_at=0.0)


def parse_key_set(body: bytes, algorithms: Sequence[str], fetched_at: float) -> KeySnapshot:
    """A JWK set that came from a URL: symmetric and private keys are skipped too.

    Raises `UnusableKeyError` only: not a JWK set, too many keys, or none usable. Give it to `KeySnapshot.followed_by`.
    """
    try:
        document = json_object(body, 8)
    except (ValueError, RecursionError):
        raise UnusableKeyError("not-a-set", "the answer is not a JWK set") from None
    return _load_all(_members(document), algorithms, remote=True, fetched_at=fetched_at)


def _load_all(entries: list[Any], algorithms: Sequence[str], *, remote: bool, fetched_at: float) -> KeySnapshot:
    found: list[Key] = []
    skipped: list[tuple[int, str]] = []
    unreadable: set[str] = set()
    refusal: UnusableKeyError | None = None
    for position, entry in enumerate(entries):
        try:
            found.append(_load(entry, algorithms, remote=remote))
        except UnusableKeyError as refused:
            skipped.append((position, refused.reason))
            refusal = refusal or refused
            if refused.reason == "bad-member" and entry.get("kid") is not None:
                unreadable.add(entry["kid"])
    keys, ambiguous = _named(found, unreadable)
    if keys:
        return KeySnapshot(keys, 0, fetched_at, (*skipped, *((-1, "ambiguous-kid") for _ in ambiguous)))
    if refusal is not None and not remote:
        raise refusal
    raise UnusableKeyError("no-usable-key", "there is no usable key")


_Name = tuple[str | None, str]


def _named(found: list[Key], unreadable: set[str]) -> tuple[dict[_Name, Key], set[_Name]]:
    """The keys by name, and the names that stand for several: nobody can tell which of them is meant.

    One that cannot be read counts too, or a slip of the issuer would decide which of two keys is trusted.
    """
    keys: dict[_Name, Key] = {}
    ambiguous: set[_Name] = set()
    for key in found:
        name = (key.kid, key.alg)
        if key.kid in unreadable or (name in keys and not keys[name].same_as(key)):
            ambiguous.add(name)
        keys[name] = key
    for name in ambiguous:
        del keys[name]
    return keys, ambiguous


def _entries(source: Any) -> list[Any]:
    if isinstance(source, Secret):
        return _entries(source.reveal())
    if isinstance(source, str | bytes):
        raw = source.encode("utf-8", "surrogatepass") if isinstance(source, str) else source
        return _entries_of_json(raw) if raw.lstrip().startswith(b"{") else [raw]
    if isinstance(source, Mapping):
        return _members(source) if "keys" in source and "kty" not in source else [source]
    if isinstance(source, Iterable):
        return [entry for part in source for entry in _entries(part)]
    raise UnusableKeyError("not-a-key", "keys are JWKs, JWK sets, PEM texts, secrets or a KeySet")


def _entries_of_json(raw: bytes) -> list[Any]:
    try:
        return _entries(json_object(raw, 8))
    except UnusableKeyError:
        raise
    except (ValueError, RecursionError):
        raise UnusableKeyError("not-a-key", "the text looks like a JWK but is not valid JSON") from None


def _members(document: Mapping[str, Any]) -> list[Any]:
    members = document.get("keys")
    if not isinstance(members, list | tuple):
        raise UnusableKeyError("not-a-set", "the document is not a JWK set")
    if len(members) > MAX_KEYS:
        raise UnusableKeyError("too-many-keys", f"the set has more than {MAX_KEYS} keys")
    return list(members)


def _is_jwk(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "kty" in entry


def _load(entry: Any, algorithms: Sequence[str], *, remote: bool) -> Key:
    if isinstance(entry, Mapping):
        return replace(_load_jwk(entry, algorithms, remote=remote), issuer=_own_issuer(entry))
    if not isinstance(entry, bytes):
        raise UnusableKeyError("not-a-key", "an entry of the set is not a key")
    if any(name in _HASH_BYTES for name in algorithms):
        return _hmac_key(None, _bound(None, tuple(_HASH_BYTES), algorithms), _checked_secret(entry))
    return _load_pem(entry, algorithms)


# -- JWK --------------------------------------------------------------------------------------------------------------


def _load_jwk(jwk: Mapping[str, Any], algorithms: Sequence[str], *, remote: bool) -> Key:
    kid = jwk.get("kid")
    if kid is not None and not is_kid(kid):
        raise UnusableKeyError("bad-kid", "the key's kid is not 1 to 256 printable characters")
    _check_purpose(jwk)
    kty = jwk.get("kty")
    if kty == "oct":
        if remote:
            raise UnusableKeyError("symmetric-key", "a symmetric key in a public set is no secret")
        alg = _bound(_stated(jwk), tuple(_HASH_BYTES), algorithms)
        return _hmac_key(kid, alg, _member(jwk, "k"))
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise UnusableKeyError("private-key", "the key has private members: give the public half only")
    if kty == "RSA":
        return _rsa_key(kid, jwk, algorithms)
    if kty == "EC":
        return _ec_key(kid, jwk, algorithms)
    if kty == "OKP":
        return _okp_key(kid, jwk, algorithms)
    raise UnusableKeyError("unknown-kty", "the key's type is not supported: RSA, EC, OKP or oct")


def _own_issuer(jwk: Mapping[str, Any]) -> str | None:
    issuer = jwk.get("issuer")
    return issuer if isinstance(issuer, str) else None


def is_kid(value: Any) -> bool:
    """A key id as tokens and key sets may carry it: 1 to 256 printable characters. It is only ever looked up."""
    return isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable()


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise UnusableKeyError("wrong-use", "the key is not for signatures (use)")
    operations = jwk.get("key_ops", ("verify",))
    if not isinstance(operations, list | tuple) or "verify" not in operations:
        raise UnusableKeyError("wrong-use", "the key is not for verification (key_ops)")


def _stated(jwk: Mapping[str, Any]) -> str | None:
    if "alg" not in jwk:
        return None
    stated = jwk["alg"]
    if not isinstance(stated, str) or stated not in _STATED:
        raise UnusableKeyError("unknown-alg", "the key is for an algorithm that is not supported")
    return _STATED[stated]


def _bound(stated: str | None, fitting: tuple[str, ...], algorithms: Sequence[str]) -> str:
    """The one algorithm of a key whose kind allows `fitting`: the stated, else the first configured, else the first."""
    configured = [CANONICAL[name] for name in algorithms]
    alg = stated or next((name for name in configured if name in fitting), fitting[0])
    if alg not in fitting:
        raise UnusableKeyError("alg-mismatch", "the key's algorithm does not fit its type or curve")
    if configured and alg not in configured:
        raise UnusableKeyError("alg-not-configured", "the key is for an algorithm that is not configured")
    return alg


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not value.isascii() or value.encode().translate(None, BASE64URL):
        raise UnusableKeyError("bad-member", "a member of the key is not base64url text")
    try:
        return from_base64url(value.encode())
    except ValueError:
        raise UnusableKeyError("bad-member", "a member of the key is not base64url text") from None


def _rsa_key(kid: str | None, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key:
    alg = _bound(_stated(jwk), _RSA, algorithms)
    modulus = int.from_bytes(_member(jwk, "n"), "big")
    exponent = int.from_bytes(_member(jwk, "e"), "big")
    _check_rsa(modulus, exponent)
    try:
        return _public_key(kid, alg, RSAPublicNumbers(exponent, modulus).public_key())
    except ValueError:
        raise UnusableKeyError("bad-member", "the RSA key is not valid") from None


def _ec_key(kid: str | None, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in _CURVES:
        raise UnusableKeyError("unknown-curve", "the key's curve is not supported")
    alg = _bound(_stated(jwk), (_CURVES[curve],), algorithms)
    if any(len(_member(jwk, name)) != _COORDINATE_BYTES[curve] for name in ("x", "y")):
        raise UnusableKeyError("bad-member", "a coordinate of the key has the wrong length for its curve")
    return _public_key(kid, alg, _from_jwk(alg, jwk, ("kty", "crv", "x", "y")))


def _okp_key(kid: str | None, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key:
    if jwk.get("crv") != "Ed25519":
        raise UnusableKeyError("unknown-curve", "the key's curve is not supported")
    alg = _bound(_stated(jwk), ("EdDSA",), algorithms)
    if len(_member(jwk, "x")) != 32:
        raise UnusableKeyError("bad-member", "the Ed25519 key is not 32 bytes long")
    return _public_key(kid, alg, _from_jwk(alg, jwk, ("kty", "crv", "x")))


def _from_jwk(alg: str, jwk: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    try:
        return _ALGORITHMS[alg].from_jwk({name: jwk[name] for name in names})
    except (ValueError, TypeError, PyJWTError, UnsupportedAlgorithm):  # a point that is not on its curve, for one
        raise UnusableKeyError("bad-member", "the key is not valid") from None


# -- material ---------------------------------------------------------------------------------------------------------


def _hmac_key(kid: str | None, alg: str, secret: bytes) -> Key:
    if len(secret) < _HASH_BYTES[alg]:
        raise UnusableKeyError("short-secret", f"an HMAC secret for {alg} has at least {_HASH_BYTES[alg]} bytes")
    return Key(kid, alg, _fingerprint(alg, secret), _ALGORITHMS[alg], secret)


def _public_key(kid: str | None, alg: str, material: Any) -> Key:
    der = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(kid, alg, _fingerprint(alg, der), _ALGORITHMS[alg], material)


def _fingerprint(alg: str, material: bytes) -> bytes:
    return hashlib.sha256(alg.encode() + b"\0" + material).digest()


def _load_pem(raw: bytes, algorithms: Sequence[str]) -> Key:
    text = raw.strip()
    if b"PRIVATE KEY-----" in text:
        raise UnusableKeyError("private-key", "the PEM text is a private key: give the public key")
    if not text.startswith(b"-----BEGIN "):
        raise UnusableKeyError("not-a-key", "the text is no PEM public key (-----BEGIN PUBLIC KEY-----)")
    try:
        material = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("not-a-key", "the PEM text is not a public key that can be read") from None
    return _public_key(None, _algorithm_for(material, algorithms), material)


def _algorithm_for(material: Any, algorithms: Sequence[str]) -> str:
    if isinstance(material, RSAPublicKey):
        numbers = material.public_numbers()
        _check_rsa(numbers.n, numbers.e)
        return _bound(None, _RSA, algorithms)
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVE_NAMES:
        return _bound(None, (_CURVES[_CURVE_NAMES[material.curve.name]],), algorithms)
    if isinstance(material, Ed25519PublicKey):
        return _bound(None, ("EdDSA",), algorithms)
    raise UnusableKeyError("unknown-kty", "the key's type is not supported: RSA, EC or Ed25519")


def _checked_secret(secret: bytes) -> bytes:
    """A public key that was pasted where the secret belongs: everybody could sign. Plain, wide, quoted or bare DER."""
    plain = secret.translate(None, b"\0\\").strip(b"\xff\xfe \t\r\n\"'")
    suspicious = b"-----BEGIN" in plain or plain.startswith((b"ssh-", b"ecdsa-sha2-")) or b'"kty"' in plain
    if suspicious or _is_der(secret) or _is_der(_loose_base64(plain)):
        raise UnusableKeyError("public-key-as-secret", "the secret is a public key: anyone could sign with it")
    return secret


def _loose_base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text.translate(_TO_STANDARD) + b"==")
    except ValueError:
        return b""


def _is_der(raw: bytes) -> bool:
    try:
        load_der_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _check_rsa(modulus: int, exponent: int) -> None:
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
