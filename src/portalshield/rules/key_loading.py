"""Keys from what operators and issuers give: JWKs, JWK sets, PEM text and HMAC secrets.

The facts this obeys: `use` and `key_ops` restrict a key (RFC 7517, 4.2 and 4.3); a coordinate has the length of its
curve (RFC 7518, 6.2.1.2); a public set has no secrets and no private keys. One odd key never spoils a set: it is
skipped, with a reason. Whether the material is strong enough, `keys.py` says.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from jwt.exceptions import PyJWTError

from portalshield.model.secret import Secret
from portalshield.rules.jose import BASE64URL, TO_STANDARD, from_base64url, json_object
from portalshield.rules.keys import (
    ALGORITHMS,
    CANONICAL,
    CURVES,
    HMAC,
    RSA,
    Key,
    KeySnapshot,
    UnusableKeyError,
    check_rsa,
    hmac_key,
    is_kid,
    public_key,
)

MAX_KEYS = 64
"""A set with more keys is refused whole."""

_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
_COORDINATE_BYTES = {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32}
# "ES521" is a misspelling of ES512 that real key sets carry. The curve decides in any case, so it can only ever mean
# the one algorithm that P-521 has.
_STATED = {**CANONICAL, "ES521": "ES512"}
_PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))

KeySource: TypeAlias = "str | bytes | Secret | Mapping[str, Any] | KeySnapshot | Sequence[KeySource]"
"""A JWK, a JWK set, PEM text, JSON text of the former, an HMAC secret, loaded keys, or several of these."""


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
    raise UnusableKeyError("not-a-key", "keys are JWKs, JWK sets, PEM texts, secrets or loaded keys")


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
    if any(name in HMAC for name in algorithms):
        return hmac_key(None, _bound(None, HMAC, algorithms), _checked_secret(entry))
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
        alg = _bound(_stated(jwk), HMAC, algorithms)
        return hmac_key(kid, alg, _member(jwk, "k"))
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
    alg = _bound(_stated(jwk), RSA, algorithms)
    modulus = int.from_bytes(_member(jwk, "n"), "big")
    exponent = int.from_bytes(_member(jwk, "e"), "big")
    check_rsa(modulus, exponent)
    try:
        return public_key(kid, alg, RSAPublicNumbers(exponent, modulus).public_key())
    except ValueError:
        raise UnusableKeyError("bad-member", "the RSA key is not valid") from None


def _ec_key(kid: str | None, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key:
    curve = jwk.get("crv")
    if not isinstance(curve, str) or curve not in CURVES:
        raise UnusableKeyError("unknown-curve", "the key's curve is not supported")
    alg = _bound(_stated(jwk), (CURVES[curve],), algorithms)
    if any(len(_member(jwk, name)) != _COORDINATE_BYTES[curve] for name in ("x", "y")):
        raise UnusableKeyError("bad-member", "a coordinate of the key has the wrong length for its curve")
    return public_key(kid, alg, _from_jwk(alg, jwk, ("kty", "crv", "x", "y")))


def _okp_key(kid: str | None, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> Key:
    if jwk.get("crv") != "Ed25519":
        raise UnusableKeyError("unknown-curve", "the key's curve is not supported")
    alg = _bound(_stated(jwk), ("EdDSA",), algorithms)
    if len(_member(jwk, "x")) != 32:
        raise UnusableKeyError("bad-member", "the Ed25519 key is not 32 bytes long")
    return public_key(kid, alg, _from_jwk(alg, jwk, ("kty", "crv", "x")))


def _from_jwk(alg: str, jwk: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    try:
        return ALGORITHMS[alg].from_jwk({name: jwk[name] for name in names})
    except (ValueError, TypeError, PyJWTError, UnsupportedAlgorithm):  # a point that is not on its curve, for one
        raise UnusableKeyError("bad-member", "the key is not valid") from None


# -- PEM and secrets --------------------------------------------------------------------------------------------------


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
    return public_key(None, _algorithm_for(material, algorithms), material)


def _algorithm_for(material: Any, algorithms: Sequence[str]) -> str:
    if isinstance(material, RSAPublicKey):
        numbers = material.public_numbers()
        check_rsa(numbers.n, numbers.e)
        return _bound(None, RSA, algorithms)
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVE_NAMES:
        return _bound(None, (CURVES[_CURVE_NAMES[material.curve.name]],), algorithms)
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
        return binascii.a2b_base64(text.translate(TO_STANDARD) + b"==")
    except ValueError:
        return b""


def _is_der(raw: bytes) -> bool:
    try:
        load_der_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
