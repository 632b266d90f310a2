"""Keys: which are loaded, which are skipped or refused, and what they are bound to."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from portalshield.model.secret import Secret
from portalshield.rules.jose import Frozen, from_base64url, json_object
from portalshield.rules.key_loading import MAX_KEYS, load_keys, parse_key_set
from portalshield.rules.keys import (
    NO_KEYS,
    KeySnapshot,
    UnusableKeyError,
    check_algorithms,
    has_roca_fingerprint,
    is_kid,
)
from portalshield.rules.secrets_known import PUBLISHED, guessable

ALGORITHMS = get_default_algorithms()
STRONG = "pQ2vXz7mK9wLr4TnYs8dJh3gFb6cVe1aUo5iRk0tMx"


def b64(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    """An integer as a JWK writes it."""
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def private(kind: str) -> Any:
    """One private key of each kind for the whole run."""
    made: dict[str, Callable[[], Any]] = {
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "Ed448": ed448.Ed448PrivateKey.generate,
        "DSA": lambda: dsa.generate_private_key(2048),
    }
    return made[kind]()


NATIVE = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA"}


def jwk(kind: str, /, **members: Any) -> dict[str, Any]:
    """A public JWK of a kind; a member set to None is removed."""
    found: dict[str, Any]
    if kind == "oct":
        found = {"kty": "oct", "k": b64(STRONG.encode())}
    else:
        found = dict(ALGORITHMS[NATIVE[kind]].to_jwk(private(kind).public_key(), as_dict=True))
    return {name: value for name, value in {**found, **members}.items() if value is not None}


def pem(kind: str) -> str:
    """The public key as PEM text."""
    return str(private(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")


def reason_of(source: Any, algorithms: tuple[str, ...] = ()) -> str:
    """Why a source is refused; `loaded` if it is not."""
    try:
        load_keys(source, algorithms)
    except UnusableKeyError as refused:
        return refused.reason
    return "loaded"


# -- one key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithms", "alg"),
    [
        pytest.param(jwk("RSA"), (), "RS256", id="RSA alone"),
        pytest.param(jwk("RSA"), ("PS256", "RS256"), "PS256", id="RSA takes the first configured"),
        pytest.param(jwk("RSA"), ("ES256", "RS512"), "RS512", id="RSA takes the first that fits"),
        pytest.param(jwk("RSA", alg="PS384"), ("RS256", "PS384"), "PS384", id="RSA with its stated one"),
        pytest.param(jwk("P-256"), ("RS256", "ES256"), "ES256", id="the curve's one"),
        pytest.param(jwk("P-384", alg="ES384"), (), "ES384", id="P-384"),
        pytest.param(jwk("Ed25519", alg="Ed25519"), ("EdDSA",), "EdDSA", id="Ed25519 by its full name"),
        pytest.param(jwk("oct"), (), "HS256", id="oct alone"),
        pytest.param(jwk("oct"), ("HS256", "HS512"), "HS256", id="oct takes the first configured"),
        pytest.param(jwk("RSA", use="sig", key_ops=["verify"]), (), "RS256", id="use and key_ops"),
        pytest.param(jwk("RSA", x5c=["MII"], x5t="a", unknown={"a": 1}), (), "RS256", id="other members are ignored"),
    ],
)
def test_a_key_is_bound_to_one_algorithm(key: dict[str, Any], algorithms: tuple[str, ...], alg: str) -> None:
    """The stated one, else the first configured that fits, else the usual one of its type."""
    (loaded,) = load_keys(key, algorithms).keys.values()
    assert (loaded.alg, loaded.kid) == (alg, None)


@pytest.mark.parametrize(
    ("member", "issuer"),
    [
        pytest.param("https://id.example/{tenantid}/v2.0", "https://id.example/{tenantid}/v2.0", id="a text"),
        pytest.param(["https://id.example"], None, id="a list says nothing"),
        pytest.param(7, None, id="a number says nothing"),
    ],
)
def test_a_key_may_say_whose_tokens_it_signs(member: Any, issuer: str | None) -> None:
    """Microsoft's sets do; elsewhere an unknown member is ignored (RFC 7517, 4)."""
    (loaded,) = load_keys(jwk("P-256", issuer=member)).keys.values()
    assert loaded.issuer == issuer


def test_one_kid_for_two_issuers_is_ambiguous() -> None:
    """Which of the two it signs for nobody can tell, though the key is the same."""
    both = [jwk("P-256", kid="a", issuer=name) for name in ("https://a.example", "https://b.example")]
    assert reason_of({"keys": both}) == "no-usable-key"
    assert reason_of({"keys": [both[0], both[0]]}) == "loaded"


def test_an_unreadable_key_makes_its_name_ambiguous() -> None:
    """Two keys of one name: that one of them cannot be read must not decide which is trusted. Others are unharmed."""
    broken = jwk("P-256", kid="a", x="AB")
    rows = [jwk("P-256", kid="a"), broken, jwk("P-384", kid="b"), jwk("RSA", kid="a", use="enc")]
    for found in (load_keys({"keys": rows}), parse_key_set(json.dumps({"keys": rows}).encode(), (), 0.0)):
        assert set(found.keys) == {("b", "ES384")}
        assert (-1, "ambiguous-kid") in found.skipped


@pytest.mark.parametrize(
    ("key", "algorithms", "reason"),
    [
        pytest.param(jwk("RSA", alg="PS256"), ("RS256",), "alg-not-configured", id="another algorithm than configured"),
        pytest.param(jwk("RSA"), ("ES256",), "alg-not-configured", id="another type than configured"),
        pytest.param(jwk("oct"), ("RS256",), "alg-not-configured", id="a secret for public-key algorithms"),
        pytest.param(jwk("RSA", alg="ES256"), (), "alg-mismatch", id="an EC algorithm on an RSA key"),
        pytest.param(jwk("P-256", alg="ES384"), (), "alg-mismatch", id="the algorithm of another curve"),
        pytest.param(jwk("P-256", alg="ES521"), (), "alg-mismatch", id="the misspelling of another curve's"),
        pytest.param(jwk("P-256", alg="ES224"), (), "unknown-alg", id="an unknown algorithm"),
        pytest.param(jwk("RSA", alg="none"), (), "unknown-alg", id="alg none"),
        pytest.param(jwk("RSA", alg="RSA-OAEP"), (), "unknown-alg", id="an encryption algorithm"),
        pytest.param(jwk("RSA", alg=["RS256"]), (), "unknown-alg", id="alg as a list"),
        pytest.param(jwk("RSA", use="enc"), (), "wrong-use", id="use enc"),
        pytest.param(jwk("RSA", key_ops=["encrypt"]), (), "wrong-use", id="key_ops without verify"),
        pytest.param(jwk("RSA", key_ops="verify"), (), "wrong-use", id="key_ops as a text"),
        pytest.param(jwk("RSA", key_ops=[]), (), "wrong-use", id="key_ops empty"),
        pytest.param(jwk("RSA", kid=7), (), "bad-kid", id="kid as a number"),
        pytest.param(jwk("RSA", kid="a\nb"), (), "bad-kid", id="kid with a newline"),
        pytest.param(jwk("RSA", kty="rsa"), (), "unknown-kty", id="kty in lower case"),
        pytest.param(jwk("RSA", kty=["RSA"]), (), "unknown-kty", id="kty as a list"),
        pytest.param(jwk("RSA", kty="EC"), (), "unknown-curve", id="EC without its members"),
        pytest.param(jwk("P-256", kty="RSA"), (), "bad-member", id="RSA without its members"),
        pytest.param(jwk("P-256", crv="P-384"), (), "bad-member", id="coordinates of another curve"),
        pytest.param(jwk("P-256", crv="P-224"), (), "unknown-curve", id="an unsupported curve"),
        pytest.param(jwk("P-256", crv=["P-256"]), (), "unknown-curve", id="crv as a list"),
        pytest.param(jwk("P-256", x=b64(b"\1" * 32)), (), "bad-member", id="a point off the curve"),
        pytest.param(jwk("P-256", y=None), (), "bad-member", id="a missing coordinate"),
        pytest.param(jwk("Ed25519", crv="Ed448"), (), "unknown-curve", id="Ed448"),
        pytest.param(jwk("Ed25519", crv="X25519"), (), "unknown-curve", id="a key-agreement curve"),
        pytest.param(jwk("Ed25519", x=b64(b"\1" * 31)), (), "bad-member", id="Ed25519 too short"),
        pytest.param(jwk("RSA", n=jwk("RSA")["n"] + "=="), (), "bad-member", id="padding in a member"),
        pytest.param(jwk("RSA", n=7), (), "bad-member", id="a number where base64url is meant"),
        pytest.param(jwk("RSA", n="é"), (), "bad-member", id="not ASCII"),
        pytest.param(jwk("RSA", e=number(1)), (), "weak-rsa", id="exponent 1"),
        pytest.param(jwk("RSA", e=number(3)), (), "weak-rsa", id="exponent 3"),
        pytest.param(jwk("RSA", e=number(65538)), (), "weak-rsa", id="exponent even"),
        pytest.param(jwk("RSA", e=number(2**80 + 1)), (), "weak-rsa", id="exponent huge"),
        pytest.param(jwk("RSA", n=number(2**1023 + 1)), (), "weak-rsa", id="1024 bits"),
        pytest.param(jwk("RSA", n=number(2**2046 + 1)), (), "weak-rsa", id="2047 bits"),
        pytest.param(jwk("RSA", n=number(2**8192 + 1)), (), "weak-rsa", id="8193 bits"),
        pytest.param(jwk("RSA", n=number(2**2047 + 2)), (), "weak-rsa", id="modulus even"),
        pytest.param(jwk("RSA", n=jwk("RSA")["n"] + "AAA"), (), "bad-member", id="a member of impossible length"),
        pytest.param(jwk("RSA", d="AQAB"), (), "private-key", id="RSA with d"),
        pytest.param(jwk("RSA", p="AQAB", q="AQAB"), (), "private-key", id="RSA with primes"),
        pytest.param(jwk("P-256", d="AQAB"), (), "private-key", id="EC with d"),
        pytest.param(jwk("Ed25519", d="AQAB"), (), "private-key", id="OKP with d"),
        pytest.param(jwk("oct", k=None), (), "bad-member", id="oct without k"),
        pytest.param(jwk("oct", k=""), (), "short-secret", id="oct empty"),
        pytest.param(jwk("oct", k=b64(bytes(31))), (), "short-secret", id="31 bytes for HS256"),
        pytest.param(jwk("oct", alg="HS384"), (), "short-secret", id="42 bytes for HS384"),
        pytest.param(jwk("oct", alg="A256KW"), (), "unknown-alg", id="a wrapping key"),
        pytest.param({}, (), "unknown-kty", id="empty object"),
        pytest.param({"keys": []}, (), "no-usable-key", id="empty set"),
        pytest.param({"keys": {}}, (), "not-a-set", id="keys as an object"),
        pytest.param({"keys": [7]}, (), "not-a-key", id="a number in a set"),
        pytest.param([], (), "no-usable-key", id="empty list"),
        pytest.param(None, (), "not-a-key", id="nothing"),
        pytest.param(7, (), "not-a-key", id="a number"),
        pytest.param("", (), "not-a-key", id="empty text"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nnonsense", (), "not-a-key", id="broken PEM"),
        pytest.param('{"kty":', (), "not-a-key", id="broken JSON"),
        pytest.param('{"kty":"RSA","kty":"oct"}', (), "not-a-key", id="JSON with a member twice"),
        pytest.param('{"keys":{}}', (), "not-a-set", id="JSON text of no set"),
        pytest.param("\ud800", (), "not-a-key", id="a lone surrogate"),
    ],
)
def test_unfit_keys_are_refused(key: Any, algorithms: tuple[str, ...], reason: str) -> None:
    """Alone, each is an error with a fixed reason; the message repeats nothing of it."""
    assert reason_of(key, algorithms) == reason


def test_a_modulus_with_the_roca_fingerprint_is_refused() -> None:
    """A power of 65537 modulo the product of the small primes, as the broken generator makes them (CVE-2017-15361)."""
    primes = [p for p in range(2, 168) if all(p % q for q in range(2, p))]
    product = reduce(lambda a, b: a * b, primes)
    modulus = (2**2047 // product) * product + product + pow(65537, 12345, product)
    assert modulus.bit_length() == 2048
    assert has_roca_fingerprint(modulus)
    assert reason_of(jwk("RSA", n=number(modulus))) == "weak-rsa"
    assert not has_roca_fingerprint(private("RSA").public_key().public_numbers().n)


def test_the_misspelt_es521_means_es512_on_its_curve_only() -> None:
    """Real sets carry it; the curve has one algorithm in any case."""
    key = ec.generate_private_key(ec.SECP521R1()).public_key()
    members = dict(ALGORITHMS["ES512"].to_jwk(key, as_dict=True))
    (loaded,) = load_keys({**members, "alg": "ES521"}, ("ES512",)).keys.values()
    assert loaded.alg == "ES512"


# -- PEM and secrets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-384", "Ed25519"])
def test_pem_text_is_a_key_without_a_name(kind: str) -> None:
    """Text or bytes, with white space around it, bound like the JWK of the same key and with the same fingerprint."""
    expected = next(iter(load_keys(jwk(kind)).keys.values()))
    for source in (pem(kind), f"\n  {pem(kind)}\n", pem(kind).encode(), Secret(pem(kind)), [pem(kind)]):
        (loaded,) = load_keys(source, (NATIVE[kind],)).keys.values()
        assert (loaded.kid, loaded.alg, loaded.fingerprint) == (None, NATIVE[kind], expected.fingerprint)


@pytest.mark.parametrize("kind", ["DSA", "Ed448", "P-224"])
def test_pem_of_an_unsupported_kind_is_refused(kind: str) -> None:
    """DSA, Ed448 and other curves have no algorithm here."""
    assert reason_of(pem(kind), ("RS256",)) == "unknown-kty"


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
def test_private_pem_is_refused(kind: str) -> None:
    """A verifier has no business with a signing key."""
    text = private(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert reason_of(text, (NATIVE[kind],)) == "private-key"


def test_weak_rsa_pem_is_refused() -> None:
    """The same bounds as for a JWK."""
    weak = rsa.generate_private_key(65537, 1024).public_key()
    assert reason_of(weak.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), ("RS256",)) == "weak-rsa"


def test_with_hmac_algorithms_a_text_is_the_secret() -> None:
    """Text, bytes and `Secret` alike; the length of the hash is the least."""
    prints = {
        key.fingerprint
        for source in (STRONG, STRONG.encode(), Secret(STRONG), [STRONG])
        for key in load_keys(source, ("HS256",)).keys.values()
    }
    assert len(prints) == 1
    assert all(reason_of(STRONG[:length], ("HS256",)) == "loaded" for length in range(32, 42))
    assert reason_of("x" * 31, ("HS256",)) == "short-secret"
    assert reason_of(STRONG, ("HS512",)) == "short-secret"


def _public_texts() -> list[Any]:
    key = private("RSA").public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pkcs1 = key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    text = pem("RSA")
    return [
        pytest.param(text.encode(), id="PEM"),
        pytest.param(text.strip().encode(), id="PEM without its newline"),
        pytest.param(pkcs1, id="PKCS1 PEM"),
        pytest.param(der, id="DER"),
        pytest.param(base64.b64encode(der), id="DER in base64"),
        pytest.param(base64.urlsafe_b64encode(der), id="DER in base64url"),
        pytest.param(base64.encodebytes(der), id="PEM body without its frame"),
        pytest.param(ssh, id="SSH"),
        pytest.param(b" " + ssh, id="SSH with a leading space"),
        pytest.param(json.dumps(json.dumps(jwk("RSA"))).encode(), id="JWK quoted as a JSON text"),
        pytest.param(text.encode("utf-16"), id="PEM in UTF-16"),
        pytest.param(json.dumps(text).encode(), id="PEM quoted as a JSON text"),
    ]


@pytest.mark.parametrize("text", _public_texts())
def test_a_public_key_is_no_secret(text: bytes) -> None:
    """Pasted where the HMAC secret belongs, everybody could sign: refused in every spelling that can be recognised."""
    assert reason_of(text, ("HS256",)) == "public-key-as-secret"


def test_a_jwk_as_text_is_loaded_as_a_jwk() -> None:
    """JSON text of a key or a set is never used as secret bytes."""
    (loaded,) = load_keys(json.dumps(jwk("oct", kid="k1")), ("HS256",)).keys.values()
    assert loaded.kid == "k1"
    assert reason_of(json.dumps(jwk("RSA")), ("HS256",)) == "alg-not-configured"


def test_neither_repr_nor_error_shows_a_secret() -> None:
    """Key material stays out of logs and tracebacks' texts."""
    snapshot = load_keys(STRONG, ("HS256",))
    assert STRONG not in repr(snapshot)
    with pytest.raises(UnusableKeyError) as refused:
        load_keys("s3cr3t", ("HS256",))
    assert "s3cr3t" not in str(refused.value)
    assert str(refused.value) == "cannot be used: an HMAC secret for HS256 has at least 32 bytes"


# -- sets -------------------------------------------------------------------------------------------------------------


def body(*keys: Any) -> bytes:
    """A JWK set as a URL answers it."""
    return json.dumps({"keys": keys}).encode()


def test_one_odd_key_does_not_spoil_a_set() -> None:
    """Each is skipped with its position and reason; the good ones serve."""
    odd = [
        jwk("RSA", alg="none", kid="a"),
        {"kty": "oct", "kid": "b"},
        jwk("RSA", alg=["RS256"], kid="c"),
        jwk("oct", kid="d"),
        jwk("P-256", d="AQAB", kid="e"),
        jwk("RSA", use="enc", kid="f"),
        "nonsense",
        None,
        [jwk("RSA")],
        {"kty": {"a": 1}},
    ]
    found = parse_key_set(body(*odd, jwk("RSA", kid="g")), ("RS256", "ES256"), 5.0)
    assert list(found.keys) == [("g", "RS256")]
    assert found.fetched_at == 5.0
    assert found.skipped == (
        (0, "unknown-alg"),
        (1, "symmetric-key"),
        (2, "unknown-alg"),
        (3, "symmetric-key"),
        (4, "private-key"),
        (5, "wrong-use"),
        (6, "not-a-key"),
        (7, "not-a-key"),
        (8, "not-a-key"),
        (9, "unknown-kty"),
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"<html></html>", "not-a-set", id="HTML"),
        pytest.param(b"", "not-a-set", id="nothing"),
        pytest.param(b"[]", "not-a-set", id="a list"),
        pytest.param(b"{}", "not-a-set", id="no keys"),
        pytest.param(b'{"keys":{}}', "not-a-set", id="keys as an object"),
        pytest.param(b'{"keys":[]}', "no-usable-key", id="no key in it"),
        pytest.param(b'{"keys":[],"keys":[]}', "not-a-set", id="a member twice"),
        pytest.param(b"\xff\xfe{}", "not-a-set", id="UTF-16"),
        pytest.param(b'{"keys":' + b"[" * 5000, "not-a-set", id="deeply nested"),
        pytest.param(body(*[{}] * (MAX_KEYS + 1)), "too-many-keys", id="too many keys"),
        pytest.param(body(jwk("oct")), "no-usable-key", id="only a symmetric key"),
    ],
)
def test_answers_that_are_no_usable_set_are_refused(answer: bytes, reason: str) -> None:
    """One exception type for whatever an endpoint says."""
    with pytest.raises(UnusableKeyError) as refused:
        parse_key_set(answer, ("RS256",), 0.0)
    assert refused.value.reason == reason


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["keys", "kty", "kid", "alg", "n", "e", "k", "x", "y", "crv", "use", "key_ops"]),
                    inner | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB"]),
                    max_size=6,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps({"keys": [value]}).encode()),
    )
)
def test_any_answer_is_a_set_or_one_exception(answer: bytes) -> None:
    """Nothing but `UnusableKeyError` escapes."""
    with contextlib.suppress(UnusableKeyError):
        assert parse_key_set(answer, ("RS256", "ES256", "EdDSA"), 0.0).keys


def test_one_name_for_two_keys_refuses_both() -> None:
    """Same kid, same algorithm, other material: neither is trusted. Twice the same key is one key."""
    other = dict(
        ALGORITHMS["ES256"].to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True), kid="a"
    )
    found = load_keys({"keys": [jwk("P-256", kid="a"), other, jwk("RSA", kid="a")]})
    assert list(found.keys) == [("a", "RS256")]
    assert found.skipped == ((-1, "ambiguous-kid"),)
    assert reason_of({"keys": [jwk("P-256", kid="a"), other]}) == "no-usable-key"
    assert len(load_keys({"keys": [jwk("P-256", kid="a"), jwk("P-256", kid="a")]}).keys) == 1


def test_symmetric_and_public_keys_do_not_stand_in_one_configured_set() -> None:
    """It would be the ground for algorithm confusion."""
    assert reason_of({"keys": [jwk("oct", kid="a"), jwk("P-256", kid="b")]}) == "mixed-set"
    assert reason_of([jwk("oct"), jwk("RSA")], ("RS256",)) == "mixed-set"


def test_selection_is_by_name_and_algorithm() -> None:
    """A named token gets exactly its key or a nameless one, a nameless token the only one of its algorithm."""
    named = load_keys({"keys": [jwk("RSA", kid="a"), jwk("P-256", kid="a"), jwk("P-384", kid="b")]})
    for kid, alg, found in (
        ("a", "RS256", True),
        ("a", "ES256", True),
        ("a", "ES384", False),
        ("b", "RS256", False),
        ("c", "RS256", False),
        (None, "RS256", True),
        (None, "HS256", False),
    ):
        assert (named.select(kid, alg) is not None) is found
    nameless = load_keys(pem("RSA"), ("RS256",))
    assert nameless.select("anything", "RS256") is nameless.select(None, "RS256") is not None
    two = load_keys(
        {
            "keys": [
                jwk("P-256", kid="a"),
                dict(
                    ALGORITHMS["ES256"].to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True),
                    kid="b",
                ),
            ]
        }
    )
    assert two.select(None, "ES256") is None
    assert NO_KEYS.select(None, "RS256") is None


def test_the_generation_rises_when_a_key_goes_or_changes() -> None:
    """A further key keeps it; a missing one, or new material under an old name, raises it."""
    a, b = jwk("RSA", kid="a"), jwk("P-256", kid="b")
    changed = dict(
        ALGORITHMS["ES256"].to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True), kid="b"
    )
    first = NO_KEYS.followed_by(load_keys(a))
    assert first.generation == 0
    more = first.followed_by(parse_key_set(body(a, b), (), 9.0))
    assert (more.generation, more.fetched_at, len(more.keys)) == (0, 9.0, 2)
    assert more.followed_by(load_keys([a, b])).generation == 0
    assert more.followed_by(load_keys([a, changed])).generation == 1
    assert more.followed_by(load_keys([a])).followed_by(load_keys([b])).generation == 2


def test_a_snapshot_cannot_be_changed() -> None:
    """Readers share it without a lock."""
    snapshot = load_keys(jwk("RSA"))
    with pytest.raises(TypeError):
        snapshot.keys[("x", "RS256")] = next(iter(snapshot.keys.values()))  # type: ignore[index]
    with pytest.raises(AttributeError):
        snapshot.generation = 7  # type: ignore[misc]
    assert load_keys(snapshot) is snapshot
    assert isinstance(snapshot, KeySnapshot)


# -- encodings --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=40))
def test_base64url_has_one_spelling(raw: bytes) -> None:
    """What was written is read back, and no other last character is read as the same bytes."""
    text = b64(raw).encode()
    assert from_base64url(text) == raw
    for last in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" if text else b"":
        other = text[:-1] + bytes((last,))
        if other != text:
            try:
                assert from_base64url(other) != raw
            except ValueError:
                assert len(text) % 4 in (2, 3)


VALUES = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=6
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES))
def test_strict_json_agrees_with_the_standard_parser(value: dict[str, Any]) -> None:
    """On what both accept; arrays come back as tuples."""
    raw = json.dumps(value).encode()
    try:
        found = json_object(raw, 32)
    except ValueError:
        assert re.search(rb"\\u[dD]", raw) or raw.count(b"[") > 31
    else:
        assert isinstance(found, Frozen)
        assert json.loads(json.dumps(found)) == json.loads(raw)


def test_depth_is_counted_outside_of_texts() -> None:
    """Brackets, escaped quotes and backslashes inside a text open nothing."""
    for text in ('"[[[["', '"\\"[[[["', '"\\\\\\"[[[["', '"\\\\"'):
        assert json_object(f'{{"a":{text}}}'.encode(), 1)
    for deep in (b'{"a":[]}', b'{"a":"\\\\","b":[]}', b'{"a":"\\"","b":{}}'):
        with pytest.raises(ValueError, match="deep"):
            json_object(deep, 1)


def test_key_ids_are_short_printable_texts() -> None:
    """They are only ever looked up."""
    assert all(is_kid(text) for text in ("a", "bilbo.baggins@hobbiton.example", "../../etc/passwd", "é" * 256))
    assert not any(is_kid(value) for value in ("", "a" * 257, "a\0", "a\x7f", "\ud800", 7, None, ["a"], b"a"))


def test_algorithms_are_a_list_of_one_family() -> None:
    """The checked tuple keeps order; `Ed25519` and `EdDSA` may stand side by side."""
    assert check_algorithms(["ES256", "Ed25519", "EdDSA", "RS256"]) == ("ES256", "Ed25519", "EdDSA", "RS256")
    for wrong in ("RS256", b"RS256", [], ["RS256", "HS256"], ["rs256"], ["ES521"], [None], ["RS256", ""]):
        with pytest.raises(ValueError, match="algorithms"):
            check_algorithms(wrong)  # type: ignore[arg-type]


# -- guessable secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", PUBLISHED)
def test_every_published_secret_is_refused(secret: str) -> None:
    """As published, in capitals, with other separators, and repeated until it is long enough."""
    for spelling in (secret, secret.upper(), secret.replace("-", "_"), secret * 4, f"{secret} "):
        assert guessable(spelling) == "published"


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        pytest.param("change-me-to-a-random-secret-at-least-32-chars", "placeholder", id="change me"),
        pytest.param("your_super_secret_jwt_key_change_this_in_production", "placeholder", id="template text"),
        pytest.param("REPLACE_WITH_A_SECURE_RANDOM_STRING!!", "placeholder", id="replace with"),
        pytest.param("acme-dev-secret-key-2026-acme-portal", "placeholder", id="a name around it"),
        pytest.param(STRONG[:31], "too-short", id="31 characters"),
        pytest.param("", "too-short", id="empty"),
        pytest.param("aabbccddeeff" + "a" * 30, "few-distinct-bytes", id="few distinct bytes"),
        pytest.param("a1b2c3d4" * 5, "repeated", id="a short text repeated"),
        pytest.param("prod-secret-" + STRONG, None, id="a prefix before a random text"),
        pytest.param(STRONG, None, id="random"),
        pytest.param("f3a9c1" + "7b2d4e8061c5" * 1 + "9f" + "d07e31ab52c8" * 1 + "64", None, id="random hex"),
    ],
)
def test_guessable_secrets_have_a_reason(secret: str, reason: str | None) -> None:
    """What a setting refuses in production."""
    assert guessable(secret) == reason


def test_longer_hashes_need_longer_secrets() -> None:
    """HS512 wants 64 bytes."""
    assert guessable(STRONG, 64) == "too-short"


@given(st.binary(min_size=32, max_size=64))
def test_random_bytes_are_never_called_published(raw: bytes) -> None:
    """Neither as base64url nor as hex are real secrets mistaken for words."""
    for text in (b64(raw), raw.hex()):
        assert guessable(text) in (None, "few-distinct-bytes", "repeated")
