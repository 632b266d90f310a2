"""Tokens: what is refused, with which code, and that nothing but `TokenError` ever escapes."""

from __future__ import annotations

import base64
import copy
import json
import math
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms

from portalshield.rules.jws import CODES, claimed_issuer, split_token, token_identity
from portalshield.rules.key_loading import load_keys
from portalshield.rules.keys import NO_KEYS, Key, KeySnapshot
from portalshield.rules.tokens import Claims, Verifier
from portalshield.tokens import TokenError, TokenVerifier, verify_signature

NOW = 1_800_000_000
SECRET = b"Q7x!0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
ISSUER = "https://id.example.com/"
AUDIENCE = "billing"
N_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALGORITHMS = get_default_algorithms()


def b64(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@cache
def private_key(alg: str) -> Any:
    """One signing key per algorithm for the whole run."""
    if alg.startswith("HS"):
        return SECRET
    if alg.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 2048)
    curves: dict[str, Any] = {
        "ES256": ec.SECP256R1,
        "ES384": ec.SECP384R1,
        "ES512": ec.SECP521R1,
        "ES256K": ec.SECP256K1,
    }
    return ed25519.Ed25519PrivateKey.generate() if alg == "EdDSA" else ec.generate_private_key(curves[alg]())


def jwk(alg: str, /, **members: Any) -> dict[str, Any]:
    """The verification key of an algorithm as a JWK."""
    key = private_key(alg)
    public = key if alg.startswith("HS") else key.public_key()
    found: dict[str, Any] = dict(ALGORITHMS[alg].to_jwk(public, as_dict=True))
    return {**found, **members}


def sign(header: str | bytes, payload: str | bytes, alg: str = "HS256") -> str:
    """A correctly signed token around any header and payload bytes."""
    parts = [b64(part if isinstance(part, bytes) else part.encode()) for part in (header, payload)]
    signing_input = ".".join(parts)
    return f"{signing_input}.{b64(ALGORITHMS[alg].sign(signing_input.encode(), private_key(alg)))}"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; None as a value removes the claim, `null()` puts a null."""
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "exp": NOW + 600, "iat": NOW, **changes}
    return {name: value for name, value in found.items() if value is not None}


def token(alg: str = "HS256", /, header: Any = None, **changes: Any) -> str:
    """A good token with changed claims or header members."""
    head = {"alg": alg, "typ": "JWT", **(header or {})}
    return sign(json.dumps(head), json.dumps(claims(**changes)), alg)


def raw_claim(name: str, text: str) -> str:
    """A good token in which one claim is this JSON text, whatever Python thinks of it."""
    members = ",".join(f'"{key}":{json.dumps(value)}' for key, value in claims().items() if key != name)
    return sign('{"alg":"HS256"}', f'{{{members},"{name}":{text}}}')


def verifier(alg: str = "HS256", keys: Any = None, **rules: Any) -> TokenVerifier:
    """The verifier the good token is meant for."""
    terms = {"algorithms": [alg], "issuer": ISSUER, "audience": AUDIENCE, **rules}
    return TokenVerifier(keys=jwk(alg) if keys is None else keys, **terms)


def code_of(text: Any, rules: TokenVerifier | None = None, now: float = NOW) -> str:
    """The code of the refusal; `accepted` if there is none."""
    try:
        (rules or verifier()).verify(text, now)
    except TokenError as refused:
        return refused.code
    return "accepted"


# -- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", sorted(name for name in ALGORITHMS if name not in ("none", "ES521")))
def test_every_algorithm_verifies_its_own_tokens(alg: str) -> None:
    """A good token of each algorithm is accepted, and one changed character of its payload is not."""
    good = token(alg, header={"kid": "k1"})
    rules = verifier(alg, jwk(alg, kid="k1", alg=alg))
    found = rules.verify(good, NOW)
    assert (found["sub"], found.subject, found.issuer, found.expires_at) == ("u1", "u1", ISSUER, NOW + 600)
    assert (found.kid, found.algorithm, found.issued_at, found.not_before) == ("k1", alg, NOW, None)
    head, payload, signature = good.split(".")
    assert code_of(f"{head}.{'A' + payload[1:]}.{signature}", rules) == "bad-signature"


PAYLOAD_A = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
PAYLOAD_7520 = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9h"
    "ZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3"
    "ZXB0IG9mZiB0by4"
)
HS_A1 = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
TOKEN_A1 = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD_A}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
RSA_A2 = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
    "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
    "UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethF"
    "kMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
}
TOKEN_A2 = (
    f"eyJhbGciOiJSUzI1NiJ9.{PAYLOAD_A}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Q"
    "c_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb"
    "1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgG"
    "Y9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)
EC_A3 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
TOKEN_A3 = (
    f"eyJhbGciOiJFUzI1NiJ9.{PAYLOAD_A}."
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
EC_A4 = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
TOKEN_A4 = (
    "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO"
    "0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
)
RSA_7520 = {
    "kty": "RSA",
    "kid": "bilbo.baggins@hobbiton.example",
    "use": "sig",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKr"
    "Kb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI"
    "9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkR"
    "z5iaiQkqgc5gHdrNP5zw",
    "e": "AQAB",
}
TOKEN_7520_RS = (
    f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{PAYLOAD_7520}.MRjdkly7_-oTPTS3AXP41i"
    "QIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3l"
    "fWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGd"
    "jluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg"
)
TOKEN_7520_PS = (
    f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{PAYLOAD_7520}.cu22eBqkYDKgIlTpzDXGva"
    "Ffz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-U"
    "D8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5a"
    "wDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw"
)
EC_7520 = {
    "kty": "EC",
    "kid": "bilbo.baggins@hobbiton.example",
    "use": "sig",
    "crv": "P-521",
    "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
    "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
}
TOKEN_7520_ES = (
    f"eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{PAYLOAD_7520}.AE_R_YZCChjn4791jSQCrd"
    "PZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e"
    "2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2"
)
HS_7520 = {
    "kty": "oct",
    "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037",
    "use": "sig",
    "alg": "HS256",
    "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
}
TOKEN_7520_HS = (
    f"eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.{PAYLOAD_7520}."
    "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
)
ED_8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
TOKEN_8037 = (
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

EXAMPLES = [
    pytest.param(TOKEN_A1, HS_A1, "HS256", id="RFC 7515 A.1"),
    pytest.param(TOKEN_A2, RSA_A2, "RS256", id="RFC 7515 A.2"),
    pytest.param(TOKEN_A3, EC_A3, "ES256", id="RFC 7515 A.3"),
    pytest.param(TOKEN_A4, EC_A4, "ES512", id="RFC 7515 A.4"),
    pytest.param(TOKEN_7520_RS, RSA_7520, "RS256", id="RFC 7520 4.1"),
    pytest.param(TOKEN_7520_PS, RSA_7520, "PS384", id="RFC 7520 4.2"),
    pytest.param(TOKEN_7520_ES, EC_7520, "ES512", id="RFC 7520 4.3"),
    pytest.param(TOKEN_7520_HS, HS_7520, "HS256", id="RFC 7520 4.4"),
    pytest.param(TOKEN_8037, ED_8037, "EdDSA", id="RFC 8037 A.4"),
]


@pytest.mark.parametrize(("text", "key", "alg"), EXAMPLES)
def test_the_examples_of_the_standards_verify(text: str, key: dict[str, Any], alg: str) -> None:
    """With the named algorithm, alone and in a set, and not with any other algorithm."""
    assert verify_signature(text, key, alg)
    assert verify_signature(text, {"keys": [key]}, alg)
    others = {"HS256", "HS384", "RS256", "PS256", "PS384", "ES256", "ES512", "EdDSA", "none", "nonsense"} - {alg}
    assert not any(verify_signature(text, key, other) for other in others)


@pytest.mark.parametrize(("text", "key", "alg"), EXAMPLES)
def test_a_changed_example_does_not_verify(text: str, key: dict[str, Any], alg: str) -> None:
    """Neither a changed payload, nor padding, nor a missing or further segment."""
    head, payload, signature = text.split(".")
    for changed in (
        f"{head}.{'X' + payload[1:]}.{signature}",
        f"{head}.{payload}.{signature}==",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature}.",
        f"{head}.{payload}. {signature}",
        f"{head}.{payload}A.{signature}",
        f"{head}?.{payload}.{signature}",
    ):
        assert not verify_signature(changed, key, alg)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        pytest.param(f"eyJhbGciOiJub25lIn0.{PAYLOAD_A}.", HS_A1, id="RFC 7515 A.5: unsecured"),
        pytest.param(
            "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLm"
            "NvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.",
            HS_A1,
            id="RFC 7515 E: unknown crit",
        ),
        pytest.param(json.dumps({"payload": PAYLOAD_A, "signatures": []}), EC_A3, id="RFC 7515 A.6: JSON form"),
        pytest.param({"payload": PAYLOAD_A}, EC_A3, id="JSON form as an object"),
        pytest.param(None, EC_A3, id="nothing"),
    ],
)
def test_negative_examples_of_the_standards_do_not_verify(text: Any, key: dict[str, Any]) -> None:
    """Unsecured, critical and JSON-serialised tokens are refused, whatever the algorithm."""
    assert not any(verify_signature(text, key, alg) for alg in ("", "HS256", "ES256", "none"))


def test_an_empty_algorithm_means_the_keys_own() -> None:
    """The key's stated algorithm counts, else the one of its type or curve (RS256 and HS256 as the defaults)."""
    for text, key in ((TOKEN_A1, HS_A1), (TOKEN_A2, RSA_A2), (TOKEN_A4, EC_A4)):
        assert verify_signature(text, key)
    assert verify_signature(TOKEN_7520_PS, {**RSA_7520, "alg": "PS384"})
    assert not verify_signature(TOKEN_7520_PS, RSA_7520)
    assert not verify_signature(TOKEN_7520_PS, {**RSA_7520, "alg": "PS256"}, "PS384")


def test_a_signed_payload_must_be_canonical_too() -> None:
    """Any bytes may be signed, none at all included, but each in one spelling only."""
    for payload, verdict in (("AA", True), ("AB", False), ("", True), ("A", False), ("AAA", True), ("AAB", False)):
        signing_input = b64(b'{"alg":"HS256"}') + "." + payload
        text = f"{signing_input}.{b64(ALGORITHMS['HS256'].sign(signing_input.encode(), SECRET))}"
        assert verify_signature(text, jwk("HS256"), "HS256") is verdict


def test_a_signature_alone_says_nothing_of_how_guessable_its_secret_is() -> None:
    """32 zero bytes are long enough for HS256; 31 of the best are not (RFC 7518, 3.2)."""
    for secret, verdict in ((b"\0" * 32, True), (bytes(range(31)), False), (b"", False)):
        signing_input = b64(b'{"alg":"HS256"}') + ".Zm9v"
        text = f"{signing_input}.{b64(ALGORITHMS['HS256'].sign(signing_input.encode(), secret))}"
        assert verify_signature(text, {"kty": "oct", "k": b64(secret)}, "HS256") is verdict


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"keys": [HS_7520, EC_7520]}, id="symmetric and public keys in one set"),
        pytest.param({"keys": [HS_7520, {**HS_7520, "k": HS_A1["k"]}]}, id="one kid for two secrets"),
        pytest.param({"keys": []}, id="empty set"),
        pytest.param({"keys": "nonsense"}, id="no set"),
        pytest.param({}, id="empty object"),
        pytest.param("nonsense", id="a text"),
        pytest.param(None, id="nothing"),
        pytest.param(7, id="a number"),
        pytest.param({**HS_7520, "kid": "another"}, id="another kid"),
        pytest.param({**HS_7520, "alg": "A256GCM"}, id="an encryption key"),
        pytest.param({**HS_7520, "alg": ["HS256"]}, id="alg as a list"),
    ],
)
def test_unusable_keys_verify_nothing(keys: Any) -> None:
    """False, and no exception, for every odd key or set."""
    assert verify_signature(TOKEN_7520_HS, keys, "HS256") is False


# -- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda t: t + "==", "malformed", id="padded signature"),
        pytest.param(lambda t: t + "=", "malformed", id="one padding character"),
        pytest.param(lambda t: t.replace(".", "=."), "malformed", id="padded header"),
        pytest.param(lambda t: " " + t, "malformed", id="leading space"),
        pytest.param(lambda t: t + "\n", "malformed", id="trailing newline"),
        pytest.param(lambda t: t[:30] + "\0" + t[30:], "malformed", id="NUL inside"),
        pytest.param(lambda t: t.replace("-", "+").replace("_", "/") + "/", "malformed", id="standard alphabet"),
        pytest.param(lambda t: t.rpartition(".")[0], "malformed", id="two segments"),
        pytest.param(lambda t: t + ".a.b", "malformed", id="five segments (JWE)"),
        pytest.param(lambda t: t + ".", "malformed", id="four segments"),
        pytest.param(lambda t: t.rpartition(".")[0] + ".", "bad-signature", id="empty signature"),
        pytest.param(lambda t: "." + t.partition(".")[2], "bad-header", id="empty header"),
        pytest.param(lambda t: "", "malformed", id="empty text"),
        pytest.param(lambda t: "..", "bad-header", id="only dots"),
        pytest.param(lambda t: t + "\ud800", "malformed", id="lone surrogate"),
        pytest.param(lambda t: t + "é", "malformed", id="not ASCII"),
        pytest.param(lambda t: t + "A", "bad-signature", id="one more signature character"),
        pytest.param(lambda t: t + "AA", "malformed", id="impossible length"),
        pytest.param(lambda t: json.dumps({"payload": t, "signatures": []}), "malformed", id="JSON serialisation"),
        pytest.param(lambda t: t.encode() + b"\xff", "malformed", id="bytes that are no text"),
        pytest.param(lambda t: t + "A" * 9000, "too-large", id="over the limit"),
        pytest.param(lambda t: "\ud800" * 9000, "too-large", id="over the limit and malformed"),
        pytest.param(lambda t: None, "malformed", id="None"),
        pytest.param(lambda t: [t], "malformed", id="list"),
        pytest.param(lambda t: 17, "malformed", id="number"),
    ],
)
def test_only_the_compact_form_is_read(change: Callable[[str], Any], code: str) -> None:
    """Size first, then alphabet and segments, before anything is decoded."""
    assert code_of(change(token())) == code


def test_unused_bits_of_a_segment_must_be_zero() -> None:
    """A last character with other unused bits is a second spelling of the same bytes and is refused."""
    good = token()
    other = {"A": "B", "E": "F", "I": "J", "M": "N", "Q": "R", "U": "V", "Y": "Z", "c": "d", "g": "h", "k": "l"}
    other |= {"o": "p", "s": "t", "w": "x", "0": "1", "4": "5", "8": "9"}
    assert code_of(good[:-1] + other[good[-1]]) == "malformed"


def test_the_size_limit_is_configurable_within_bounds() -> None:
    """The default is 8 kB; a setting can move it, not beyond 16 kB."""
    long = token(note="x" * 7000)
    assert len(long) > 8192
    assert code_of(long) == "too-large"
    assert code_of(long, verifier(max_token_bytes=16384)) == "accepted"


def test_bytes_are_as_good_as_text() -> None:
    """A door that holds raw header bytes need not decode them."""
    assert verifier().verify(token().encode(), NOW)["sub"] == "u1"  # type: ignore[arg-type]


# -- header -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        pytest.param('{"alg":"none"}', "algorithm-not-allowed", id="alg none"),
        pytest.param('{"alg":"None"}', "algorithm-not-allowed", id="alg None"),
        pytest.param('{"alg":"nOnE"}', "algorithm-not-allowed", id="alg nOnE"),
        pytest.param("{}", "algorithm-not-allowed", id="alg missing"),
        pytest.param('{"alg":"hs256"}', "algorithm-not-allowed", id="alg lower-case"),
        pytest.param('{"alg":256}', "algorithm-not-allowed", id="alg int"),
        pytest.param('{"alg":null}', "algorithm-not-allowed", id="alg null"),
        pytest.param('{"alg":["HS256"]}', "algorithm-not-allowed", id="alg list"),
        pytest.param('{"alg":{"HS256":1}}', "algorithm-not-allowed", id="alg object"),
        pytest.param('{"alg":"HS384"}', "algorithm-not-allowed", id="alg not configured"),
        pytest.param('{"alg":"RS256"}', "algorithm-not-allowed", id="alg of the other family"),
        pytest.param('{"alg":"HS256","crit":["exp"],"exp":1}', "header-not-supported", id="crit"),
        pytest.param('{"alg":"HS256","crit":[]}', "header-not-supported", id="crit empty"),
        pytest.param('{"alg":"HS256","crit":null}', "header-not-supported", id="crit null"),
        pytest.param('{"alg":"HS256","b64":false}', "header-not-supported", id="b64 false"),
        pytest.param('{"alg":"HS256","b64":true,"crit":["b64"]}', "header-not-supported", id="b64 true with crit"),
        pytest.param('{"alg":"HS256","b64":0}', "header-not-supported", id="b64 0"),
        pytest.param('{"alg":"HS256","b64":"false"}', "header-not-supported", id="b64 as text"),
        pytest.param('{"alg":"HS256","zip":"DEF"}', "header-not-supported", id="zip"),
        pytest.param('{"alg":"HS256","enc":"A128GCM"}', "header-not-supported", id="enc"),
        pytest.param('{"alg":"HS256","cty":"JWT"}', "header-not-supported", id="cty"),
        pytest.param('{"alg":"HS256","jku":"https://evil.example/"}', "embedded-key", id="jku"),
        pytest.param('{"alg":"HS256","x5u":"https://evil.example/"}', "embedded-key", id="x5u"),
        pytest.param('{"alg":"HS256","jwk":{"kty":"oct"}}', "embedded-key", id="jwk"),
        pytest.param('{"alg":"HS256","x5c":["MII"]}', "embedded-key", id="x5c"),
        pytest.param('{"alg":"HS256","kid":7}', "bad-header", id="kid int"),
        pytest.param('{"alg":"HS256","kid":null}', "bad-header", id="kid null"),
        pytest.param('{"alg":"HS256","kid":""}', "bad-header", id="kid empty"),
        pytest.param('{"alg":"HS256","kid":"a\\u0000b"}', "bad-header", id="kid with a control character"),
        pytest.param('{"alg":"HS256","kid":"a\\nb"}', "bad-header", id="kid with a newline"),
        pytest.param('{"alg":"HS256","kid":"' + "k" * 257 + '"}', "bad-header", id="kid too long"),
        pytest.param('{"alg":"HS256","kid":"\\ud800"}', "bad-header", id="kid lone surrogate"),
        pytest.param('{"alg":"HS256","alg":"HS256"}', "bad-header", id="member twice"),
        pytest.param('{"alg":"none","\\u0061lg":"HS256"}', "bad-header", id="member twice, escaped"),
        pytest.param('{"alg":"HS256","x":NaN}', "bad-header", id="NaN"),
        pytest.param('{"alg":"HS256","x":-Infinity}', "bad-header", id="-Infinity"),
        pytest.param('{"alg":"HS256","x":1e999}', "bad-header", id="a number beyond all bounds"),
        pytest.param('{"alg":"HS256","x":[[[[1]]]]}', "bad-header", id="five levels"),
        pytest.param('{"alg":"HS256","x":[[[1]]]}', "accepted", id="four levels"),
        pytest.param('{"alg":"HS256","x":"[[[[{{{{"}', "accepted", id="brackets in a text are no levels"),
        pytest.param('{"alg":"HS256","x":' + "[" * 2000, "bad-header", id="2000 levels"),
        pytest.param('["HS256"]', "bad-header", id="a list"),
        pytest.param('"HS256"', "bad-header", id="a text"),
        pytest.param("null", "bad-header", id="null"),
        pytest.param('{"alg":"HS256"} x', "bad-header", id="something behind it"),
        pytest.param('{"alg":"HS256",}', "bad-header", id="trailing comma"),
        pytest.param(b'\xef\xbb\xbf{"alg":"HS256"}', "bad-header", id="BOM"),
        pytest.param('{"alg":"HS256"}'.encode("utf-16"), "bad-header", id="UTF-16"),
        pytest.param('{"alg":"HS256"}'.encode("utf-16-le"), "bad-header", id="UTF-16 without BOM"),
        pytest.param(b'{"alg":"HS256","x":"\xff"}', "bad-header", id="not UTF-8"),
        pytest.param('{\r\n "alg" : "HS256"\t}', "accepted", id="white space"),
        pytest.param('{"alg":"HS256","typ":"JWT"}', "accepted", id="typ JWT"),
        pytest.param('{"alg":"HS256","typ":"jwt"}', "accepted", id="typ in lower case"),
        pytest.param('{"alg":"HS256","typ":"application/at+jwt"}', "accepted", id="typ with application/"),
        pytest.param('{"alg":"HS256","typ":"logout+jwt"}', "wrong-type", id="typ logout+jwt"),
        pytest.param('{"alg":"HS256","typ":"dpop+jwt"}', "wrong-type", id="typ dpop+jwt"),
        pytest.param('{"alg":"HS256","typ":"secevent+jwt"}', "wrong-type", id="typ secevent+jwt"),
        pytest.param('{"alg":"HS256","typ":""}', "wrong-type", id="typ empty"),
        pytest.param('{"alg":"HS256","typ":7}', "wrong-type", id="typ int"),
        pytest.param('{"alg":"HS256","typ":["JWT"]}', "wrong-type", id="typ list"),
        pytest.param('{"alg":"HS256","typ":null}', "wrong-type", id="typ null"),
    ],
)
def test_header_verdicts(header: str | bytes, code: str) -> None:
    """Each token is signed with the right secret: only its header decides."""
    assert code_of(sign(header, json.dumps(claims()))) == code


def test_a_profile_can_demand_type_and_key_name() -> None:
    """RFC 9068: `at+jwt` must be named; Firebase: `kid` must be."""
    strict = verifier(typ="at+jwt", typ_required=True)
    assert code_of(token(), strict) == "wrong-type"
    assert code_of(sign('{"alg":"HS256"}', json.dumps(claims())), strict) == "wrong-type"
    assert code_of(token(header={"typ": "at+jwt"}), strict) == "accepted"
    assert code_of(token(), verifier(kid_required=True)) == "bad-header"


def test_ed25519_and_eddsa_are_one_algorithm() -> None:
    """RFC 9864: either name in the token, the key and the allowlist."""
    signing_input = b64(b'{"alg":"Ed25519"}') + "." + b64(json.dumps(claims()).encode())
    text = f"{signing_input}.{b64(ALGORITHMS['EdDSA'].sign(signing_input.encode(), private_key('EdDSA')))}"
    for alg in ("Ed25519", "EdDSA"):
        rules = TokenVerifier(keys=jwk("EdDSA", alg=alg), algorithms=[alg], issuer=ISSUER, audience=AUDIENCE)
        assert rules.verify(text, NOW).algorithm == "EdDSA"
        assert rules.verify(token("EdDSA"), NOW)["sub"] == "u1"
        assert verify_signature(text, jwk("EdDSA", alg=alg), alg)


# -- keys and signatures ----------------------------------------------------------------------------------------------


def test_an_unknown_kid_has_a_code_of_its_own() -> None:
    """The caller can ask for fresh keys; before the first fetch every token is in that case."""
    rules = Verifier(algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE)
    keys = load_keys({"keys": [jwk("ES256", kid="k1")]}, rules.algorithms)
    for name, held in (("k2", keys), ("k1", NO_KEYS)):
        with pytest.raises(TokenError) as refused:
            rules.verify(token("ES256", header={"kid": name}), held, NOW)
        assert refused.value.code == "unknown-key"


def test_the_key_decides_which_algorithm_it_verifies() -> None:
    """A token whose algorithm is allowed but is not its key's finds no key."""
    rules = verifier("RS256", jwk("RS256", kid="k1", alg="RS256"), algorithms=["RS256", "PS256", "ES256"])
    assert code_of(token("RS256", header={"kid": "k1"}), rules) == "accepted"
    signing_input = b64(b'{"alg":"PS256","kid":"k1"}') + "." + b64(json.dumps(claims()).encode())
    text = f"{signing_input}.{b64(ALGORITHMS['PS256'].sign(signing_input.encode(), private_key('RS256')))}"
    assert code_of(text, rules) == "unknown-key"
    assert code_of(token("ES256", header={"kid": "k1"}), rules) == "unknown-key"


def test_a_key_without_alg_is_built_with_the_configured_one() -> None:
    """PS256 configured: an RSA key that states nothing verifies PS256."""
    assert code_of(token("PS256"), verifier("PS256", jwk("PS256"))) == "accepted"


def _es256_with(change: Callable[[int, int], tuple[int, int]]) -> str:
    head, payload, signature = token("ES256").split(".")
    raw = unb64(signature)
    r, s = change(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return f"{head}.{payload}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.mark.parametrize(
    ("r_of", "s_of"),
    [
        pytest.param(lambda r: 0, lambda s: 0, id="zeros"),
        pytest.param(lambda r: N_P256, lambda s: N_P256, id="the order"),
        pytest.param(lambda r: 1, lambda s: 1, id="ones"),
        pytest.param(lambda r: r, lambda s: 0, id="s zero"),
        pytest.param(lambda r: 0, lambda s: s, id="r zero"),
        pytest.param(lambda r: N_P256 - r, lambda s: s, id="n-r"),
    ],
)
def test_degenerate_ecdsa_signatures_are_refused(r_of: Callable[[int], int], s_of: Callable[[int], int]) -> None:
    """Psychic signatures and their relatives (CVE-2022-21449)."""
    text = _es256_with(lambda r, s: (r_of(r), s_of(s)))
    assert code_of(text, verifier("ES256")) == "bad-signature"


def test_ecdsa_signatures_have_one_length_and_are_not_der() -> None:
    """DER, a byte more, a byte less: refused."""
    head, payload, signature = token("ES256").split(".")
    raw = unb64(signature)
    der = private_key("ES256").sign(f"{head}.{payload}".encode(), ec.ECDSA(ALGORITHMS["ES256"].hash_alg()))  # type: ignore[attr-defined]
    for changed in (der, raw + b"\0", b"\0" + raw, raw[:-1], raw[:32] + b"\0" + raw[32:] + b"\0"):
        assert code_of(f"{head}.{payload}.{b64(changed)}", verifier("ES256")) == "bad-signature"


def test_spellings_of_one_token_share_their_identity() -> None:
    """(r, n-s) is valid ECDSA and verifies; revocation by identity or `jti` meets it all the same."""
    one = token("ES256", jti="t1")
    head, payload, signature = one.split(".")
    raw = unb64(signature)
    flipped = raw[:32] + (N_P256 - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    other = f"{head}.{payload}.{b64(flipped)}"
    assert other != one
    assert verifier("ES256").verify(other, NOW)["jti"] == "t1"
    assert token_identity(one) == token_identity(other.encode())
    assert token_identity(one) != token_identity(token("ES256", jti="t2"))


def test_a_forged_hmac_is_refused_whatever_the_key_text_is() -> None:
    """Signing with the public key's texts as the secret never passes a verifier of the public-key family."""
    key = private_key("RS256").public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ssh = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    modulus = unb64(jwk("RS256")["n"])
    rules = verifier("RS256", pem.decode())
    for secret in (pem, pem.strip(), der, base64.b64encode(der), ssh, b" " + ssh, modulus, b64(modulus).encode()):
        signing_input = b64(b'{"alg":"HS256"}') + "." + b64(json.dumps(claims()).encode())
        text = f"{signing_input}.{b64(ALGORITHMS['HS256'].sign(signing_input.encode(), secret))}"
        assert code_of(text, rules) == "algorithm-not-allowed"
        assert not verify_signature(text, jwk("RS256"))


def test_an_algorithm_that_fails_is_a_signature_that_fails() -> None:
    """Whatever a cryptographic library raises for a client's bytes, the answer stays a refusal."""

    class Failing:
        def verify(self, *args: Any) -> bool:
            raise ValueError("odd bytes")

    good = load_keys(jwk("HS256"), ("HS256",)).keys[None, "HS256"]
    failing = Key(None, "HS256", good.fingerprint, cast(Any, Failing()), b"")
    assert code_of(token(), verifier(keys=KeySnapshot({(None, "HS256"): failing}))) == "bad-signature"


# -- claims: form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'"x"', id="text"),
        pytest.param(b"foo", id="no JSON"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(claims()).encode(), id="BOM"),
        pytest.param(json.dumps(claims()).encode("utf-16"), id="UTF-16"),
        pytest.param(json.dumps(claims()).encode("utf-32-be"), id="UTF-32"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":"\xc3"}', id="not UTF-8"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"sub":"u2"}', id="claim twice"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":{"t":1,"t":2}}', id="claim twice, nested"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":NaN}', id="NaN"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":Infinity}', id="Infinity"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":1e400}', id="overflow to infinity"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":"\\ud800"}', id="lone surrogate"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":"\\uDFFF"}', id="lone surrogate, capitals"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":"a\nb"}', id="raw newline in a text"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":' + b"[" * 32 + b"]" * 32 + b"}", id="33 levels"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":' + b"[" * 900 + b"]" * 900 + b"}", id="900 levels"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":' + b'{"a":' * 1000, id="1000 open objects"),
        pytest.param(json.dumps(claims()).encode()[:-1] + b',"x":' + b"9" * 5000 + b"}", id="5000 digits"),
    ],
)
def test_claims_that_are_no_strict_json_object_are_refused(payload: bytes) -> None:
    """Correctly signed, and still not read: parsers would disagree about them."""
    assert code_of(sign('{"alg":"HS256"}', payload)) == "bad-claims"


def test_claims_may_be_wide_and_moderately_deep() -> None:
    """Many objects side by side, escaped quotes and brackets in texts, 32 levels: all fine."""
    wide = [{"id": f'{{[{index}]}}"\\'} for index in range(60)]
    deep: Any = 1
    for _ in range(31):
        deep = [deep]
    assert code_of(token(wide=wide)) == "accepted"
    assert code_of(token(deep=deep)) == "accepted"
    assert code_of(token(deep=[deep])) == "bad-claims"
    assert code_of(token(name="Zoë \U0001f600")) == "accepted"


def test_claims_cannot_be_changed() -> None:
    """Neither they nor what is nested in them, so that a cached identity stays what it was."""
    found = verifier().verify(token(app={"tenant": "a", "roles": ["x", ["y"]]}), NOW)
    for target in (found, found["app"]):
        changes: tuple[Callable[[Any], Any], ...] = (
            lambda t: t.__setitem__("tenant", "b"),
            lambda t: t.update(tenant="b"),
            lambda t: t.setdefault("zz", 1),
            lambda t: t.pop("tenant", None),
            lambda t: t.popitem(),
            lambda t: t.clear(),
            lambda t: t.__delitem__("tenant"),
            lambda t: t.__ior__({"tenant": "b"}),
        )
        for change in changes:
            with pytest.raises(TypeError, match="cannot be changed"):
                change(target)
    assert found["app"] == {"tenant": "a", "roles": ("x", ("y",))}
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == dict(found)
    assert json.loads(json.dumps(found))["app"]["roles"] == ["x", ["y"]]


# -- claims: times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        pytest.param("exp", f'"{NOW + 600}"', "bad-claim", id="exp as text"),
        pytest.param("exp", f'" {NOW + 600} "', "bad-claim", id="exp as text with spaces"),
        pytest.param("exp", '"9_999_999_999"', "bad-claim", id="exp with underscores"),
        pytest.param("exp", '"١٨٠٠٠٠٠٦٠٠"', "bad-claim", id="exp in Arabic digits"),
        pytest.param("exp", "1e300", "lifetime-too-long", id="exp 1e300"),
        pytest.param("exp", "1" + "0" * 29, "lifetime-too-long", id="exp 10**29"),
        pytest.param("exp", "1" + "0" * 400, "lifetime-too-long", id="exp beyond any float"),
        pytest.param("exp", "true", "bad-claim", id="exp true"),
        pytest.param("exp", "false", "bad-claim", id="exp false"),
        pytest.param("exp", "NaN", "bad-claims", id="exp NaN"),
        pytest.param("exp", "Infinity", "bad-claims", id="exp Infinity"),
        pytest.param("exp", "null", "bad-claim", id="exp null"),
        pytest.param("exp", f"[{NOW + 600}]", "bad-claim", id="exp list"),
        pytest.param("exp", "{}", "bad-claim", id="exp object"),
        pytest.param("exp", "-1", "bad-claim", id="exp negative"),
        pytest.param("exp", "0", "expired", id="exp 0"),
        pytest.param("exp", f"{NOW + 600}.5", "accepted", id="exp with a fraction"),
        pytest.param("exp", f"{NOW - 30}", "expired", id="exp just over the leeway ago"),
        pytest.param("exp", f"{NOW - 29}", "accepted", id="exp within the leeway"),
        pytest.param("exp", f"{NOW + 86400 + 30}", "accepted", id="exp at the longest lifetime"),
        pytest.param("exp", f"{NOW + 86400 + 31}", "lifetime-too-long", id="exp beyond the longest lifetime"),
        pytest.param("nbf", "true", "bad-claim", id="nbf true"),
        pytest.param("nbf", "false", "bad-claim", id="nbf false"),
        pytest.param("nbf", "-5", "bad-claim", id="nbf negative"),
        pytest.param("nbf", '"0"', "bad-claim", id="nbf text"),
        pytest.param("nbf", "null", "bad-claim", id="nbf null"),
        pytest.param("nbf", f"{NOW + 30}", "accepted", id="nbf within the leeway"),
        pytest.param("nbf", f"{NOW + 31}", "not-yet-valid", id="nbf in the future"),
        pytest.param("iat", "true", "bad-claim", id="iat true"),
        pytest.param("iat", "false", "bad-claim", id="iat false"),
        pytest.param("iat", "-5", "bad-claim", id="iat negative"),
        pytest.param("iat", f'"{NOW}"', "bad-claim", id="iat text"),
        pytest.param("iat", f"{NOW + 30}", "accepted", id="iat within the leeway"),
        pytest.param("iat", f"{NOW + 31}", "issued-in-future", id="iat in the future"),
    ],
)
def test_times_are_numbers_and_hold(name: str, text: str, code: str) -> None:
    """JSON numbers only, compared to the second, with 30 s of leeway and 24 h of lifetime."""
    assert code_of(raw_claim(name, text)) == code


def test_exp_is_required_and_iat_is_not() -> None:
    """A token without end is refused unless that was asked for by its insecure name."""
    assert code_of(token(exp=None)) == "missing-claim"
    assert verifier(insecure_no_expiry=True).verify(token(exp=None), NOW).expires_at is None
    assert code_of(token(exp=NOW - 60), verifier(insecure_no_expiry=True)) == "expired"
    assert code_of(token(iat=None)) == "accepted"
    assert code_of(token(iat=None), verifier(required=["iat"])) == "missing-claim"


# -- claims: parties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        pytest.param("aud", '"other"', "wrong-audience", id="aud of somebody else"),
        pytest.param("aud", '["other","billing"]', "accepted", id="aud list with ours"),
        pytest.param("aud", '["other"]', "wrong-audience", id="aud list without ours"),
        pytest.param("aud", "[]", "wrong-audience", id="aud empty list"),
        pytest.param("aud", '""', "wrong-audience", id="aud empty text"),
        pytest.param("aud", "null", "bad-claim", id="aud null"),
        pytest.param("aud", "0", "bad-claim", id="aud 0"),
        pytest.param("aud", "false", "bad-claim", id="aud false"),
        pytest.param("aud", '{"billing":1}', "bad-claim", id="aud object"),
        pytest.param("aud", '["billing",7]', "bad-claim", id="aud list with a number"),
        pytest.param("aud", '[["billing"]]', "bad-claim", id="aud nested list"),
        pytest.param("aud", json.dumps(["billing"] * 16), "accepted", id="aud list of 16"),
        pytest.param("aud", json.dumps(["billing"] * 17), "bad-claim", id="aud list of 17"),
        pytest.param("aud", '"Billing"', "wrong-audience", id="aud in another case"),
        pytest.param("iss", '"https://id.example.com"', "wrong-issuer", id="iss without its slash"),
        pytest.param("iss", '""', "wrong-issuer", id="iss empty"),
        pytest.param("iss", "null", "bad-claim", id="iss null"),
        pytest.param("iss", '["https://id.example.com/"]', "bad-claim", id="iss list"),
        pytest.param("sub", '""', "bad-claim", id="sub empty"),
        pytest.param("sub", '"a\\u0000"', "bad-claim", id="sub with NUL"),
        pytest.param("sub", '"a\\nb"', "bad-claim", id="sub with a newline"),
        pytest.param("sub", "7", "bad-claim", id="sub number"),
        pytest.param("sub", "null", "bad-claim", id="sub null"),
        pytest.param("sub", json.dumps("u" * 255), "accepted", id="sub of 255"),
        pytest.param("sub", json.dumps("u" * 256), "bad-claim", id="sub of 256"),
        pytest.param("jti", "7", "bad-claim", id="jti number"),
        pytest.param("jti", '""', "bad-claim", id="jti empty"),
        pytest.param("jti", '"t-1"', "accepted", id="jti text"),
        pytest.param("type", '"refresh"', "wrong-kind", id="type refresh"),
        pytest.param("type", '"access"', "accepted", id="type access"),
        pytest.param("token_type", '"Refresh_Token"', "wrong-kind", id="token_type refresh"),
        pytest.param("token_type", '"reset"', "wrong-kind", id="token_type reset"),
        pytest.param("token_type", '"Bearer"', "accepted", id="token_type Bearer"),
        pytest.param("token_use", '"id"', "wrong-kind", id="token_use id"),
        pytest.param("token_use", '"access"', "accepted", id="token_use access"),
        pytest.param("typ", '"Refresh"', "wrong-kind", id="typ claim Refresh"),
    ],
)
def test_party_and_kind_verdicts(name: str, text: str, code: str) -> None:
    """Issuer, audience, subject, token id and kind of token."""
    assert code_of(raw_claim(name, text)) == code


@pytest.mark.parametrize("name", ["iss", "aud", "sub"])
def test_issuer_audience_and_subject_are_mandatory(name: str) -> None:
    """A token without one of them is refused."""
    assert code_of(token(**{name: None})) == "missing-claim"


def test_one_of_several_issuers_or_audiences_suffices() -> None:
    """Lists of exact texts."""
    rules = verifier(issuer=("accounts.example", ISSUER), audience=["a", AUDIENCE])
    assert code_of(token(), rules) == "accepted"
    assert code_of(token(iss="accounts.example", aud="a"), rules) == "accepted"
    assert code_of(token(iss="accounts.examples"), rules) == "wrong-issuer"


def test_authorized_parties_and_client_ids_stand_in_for_an_audience() -> None:
    """They must then be there, unless absence was allowed; a malformed `aud` is refused all the same."""
    by_party = verifier(audience=(), authorized_parties=["https://app.example.com"])
    assert code_of(token(aud=None, azp="https://app.example.com"), by_party) == "accepted"
    assert code_of(token(aud=None, azp="https://evil.example"), by_party) == "wrong-party"
    assert code_of(token(aud=None, azp=["https://app.example.com"]), by_party) == "wrong-party"
    assert code_of(token(aud=None), by_party) == "missing-claim"
    assert code_of(token(aud=7, azp="https://app.example.com"), by_party) == "bad-claim"
    optional = verifier(audience=(), authorized_parties=["x"], authorized_party_optional=True)
    assert code_of(token(aud=None), optional) == "accepted"
    assert code_of(token(aud=None, azp="y"), optional) == "wrong-party"
    by_client = verifier(audience=(), client_ids=["c1"])
    assert code_of(token(aud=None, client_id="c1"), by_client) == "accepted"
    assert code_of(token(aud=None, client_id="c2"), by_client) == "wrong-party"
    assert code_of(token(aud=None), by_client) == "missing-claim"


def test_an_own_secret_may_leave_the_issuer_out() -> None:
    """Then `iss` is not compared, but still a text if it is there."""
    rules = verifier(issuer=None)
    assert rules.verify(token(iss=None), NOW).issuer is None
    assert rules.verify(token(iss="anyone"), NOW).issuer == "anyone"
    assert code_of(raw_claim("iss", "7"), rules) == "bad-claim"


def test_presets_are_data() -> None:
    """Required, demanded and refused claims are tables; 1 is not true and a list never slips past a refusal."""
    rules = verifier(
        required=["session_id"],
        demand={"v": [2]},
        refuse={"role": ["anon", "service_role"], "is_anonymous": [True], "sts": ["pending"]},
    )
    good = {"session_id": "s", "v": 2, "role": "authenticated"}
    assert code_of(token(**good), rules) == "accepted"
    assert code_of(token(**good, is_anonymous=False), rules) == "accepted"
    assert code_of(token(**good, is_anonymous=1), rules) == "accepted"
    assert code_of(token(**{**good, "session_id": None}), rules) == "missing-claim"
    assert code_of(token(**{**good, "v": None}), rules) == "missing-claim"
    for change in ({"v": 3}, {"v": "2"}, {"v": [2]}, {"role": "anon"}, {"role": ["anon"]}, {"is_anonymous": True}):
        assert code_of(token(**{**good, **change}), rules) == "claim-refused"


def test_another_claim_can_name_the_subject() -> None:
    """`subject_claim` is held to the same form; `sub` is then optional but still checked."""
    rules = verifier(subject_claim="oid")
    assert rules.verify(token(sub=None, oid="o1"), NOW).subject == "o1"
    assert code_of(token(), rules) == "missing-claim"
    assert code_of(token(sub="", oid="o1"), rules) == "bad-claim"


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        pytest.param({"algorithms": "HS256,RS256"}, "not one text", id="algorithms as a text"),
        pytest.param({"algorithms": []}, "empty", id="no algorithms"),
        pytest.param({"algorithms": ["none"]}, "not supported", id="none"),
        pytest.param({"algorithms": ["HS265"]}, "Did you mean HS256", id="a typo"),
        pytest.param({"algorithms": [7]}, "not supported", id="a number"),
        pytest.param({"algorithms": ["HS256", "RS256"]}, "mixes", id="two families"),
        pytest.param({"leeway": math.nan}, "leeway", id="leeway NaN"),
        pytest.param({"leeway": math.inf}, "leeway", id="leeway infinite"),
        pytest.param({"leeway": -1}, "leeway", id="leeway negative"),
        pytest.param({"leeway": 121}, "leeway", id="leeway over 120 s"),
        pytest.param({"leeway": True}, "leeway", id="leeway true"),
        pytest.param({"max_lifetime": 0}, "max_lifetime", id="no lifetime"),
        pytest.param({"max_lifetime": math.inf}, "max_lifetime", id="endless lifetime"),
        pytest.param({"max_token_bytes": 10**6}, "max_token_bytes", id="huge tokens"),
        pytest.param({"audience": None}, "audience is missing", id="no audience"),
        pytest.param({"audience": ""}, "audience", id="empty audience"),
        pytest.param({"audience": ["a", ""]}, "audience", id="empty entry"),
        pytest.param({"issuer": ""}, "issuer", id="empty issuer"),
        pytest.param({"refuse": {"role": "anon"}}, "refuse", id="a text where a list is meant"),
    ],
)
def test_rules_that_protect_nothing_do_not_start(rules: dict[str, Any], text: str) -> None:
    """`ValueError` at construction, with a text that says what to write."""
    with pytest.raises(ValueError, match=text):
        verifier(**rules)


def test_public_keys_need_an_issuer() -> None:
    """Only an own secret may do without; the insecure switches have names that say so."""
    with pytest.raises(ValueError, match="issuer is missing"):
        verifier("RS256", issuer=None)
    assert code_of(token("RS256", iss=None), verifier("RS256", issuer=None, insecure_no_issuer=True)) == "accepted"
    assert code_of(token(aud=None), verifier(audience=None, insecure_no_audience=True)) == "accepted"


def test_unknown_keywords_are_refused() -> None:
    """A misspelt rule must not be silently without effect."""
    with pytest.raises(TypeError, match="audiences"):
        verifier(audiences=["x"])


def test_the_system_clock_is_used_without_now() -> None:
    """`now` is optional in the facade: what ended in 1970 is expired today."""
    with pytest.raises(TokenError, match="expired"):
        verifier().verify(token(exp=10))


def test_the_claimed_issuer_only_selects() -> None:
    """It is read without a signature, so it is None or a text and nothing else; odd tokens raise `TokenError`."""
    assert claimed_issuer(token()) == ISSUER
    assert claimed_issuer(token(iss=None)) is None
    assert claimed_issuer(raw_claim("iss", "[1]")) is None
    with pytest.raises(TokenError, match="bad-claims"):
        claimed_issuer("a.b.c")


# -- properties -------------------------------------------------------------------------------------------------------

RULES = [verifier(), verifier("ES256"), verifier("EdDSA"), verifier("RS256")]
GOOD = [token(), token("ES256"), token("EdDSA"), token("RS256")]
SEGMENTS = st.text("ABCDabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0é\ud800", max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def refused_or_accepted(text: Any) -> None:
    """Every verifier either accepts or raises `TokenError` with a known code; `verify_signature` only answers."""
    for rules in RULES:
        assert code_of(text, rules) in CODES | {"accepted"}
    assert verify_signature(text, jwk("ES256")) in (True, False)


@settings(max_examples=300, deadline=None)
@given(st.one_of(SEGMENTS, st.binary(max_size=120), st.text(max_size=60)))
def test_random_input_gives_token_errors_only(text: str | bytes) -> None:
    """Any text, any bytes."""
    refused_or_accepted(text)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.integers(0, 2000), st.sampled_from("ABz09-_.=\n{é"), st.integers(0, 2))
def test_mutated_tokens_give_token_errors_only(good: str, at: int, character: str, how: int) -> None:
    """One character replaced, inserted or removed; none of them may verify unless the token stayed as it was."""
    place = at % len(good)
    changed = good[:place] + ("" if how == 0 else character) + good[place + (how != 1) :]
    refused_or_accepted(changed)
    if changed != good:
        assert all(code_of(changed, rules) != "accepted" for rules in RULES)


@settings(max_examples=200, deadline=None)
@given(JSON, JSON, st.booleans())
def test_signed_nonsense_gives_token_errors_only(header: Any, payload: Any, merge: bool) -> None:
    """Whatever JSON a key's owner signs, the answer is a verdict."""
    if merge and isinstance(header, dict) and isinstance(payload, dict):
        header, payload = {"alg": "HS256", **header}, claims() | payload
    text = sign(json.dumps(header), json.dumps(payload))
    assert code_of(text) in CODES | {"accepted"}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "type", "azp", "client_id", "role"]), JSON)
def test_any_value_of_any_claim_is_judged(name: str, value: Any) -> None:
    """No value of a claim that is looked at makes anything but a verdict."""
    rules = verifier(
        authorized_parties=["a"], authorized_party_optional=True, refuse={"role": ["anon"]}, demand={"sub": ["u1"]}
    )
    text = sign('{"alg":"HS256"}', json.dumps({**claims(), name: value}))
    assert code_of(text, rules) in CODES | {"accepted"}


def test_the_alphabet_check_equals_a_whole_token_pattern() -> None:
    """Exactly the 64 characters and two dots pass; every other byte is malformed."""
    allowed = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    for byte in range(256):
        text = b"YWJj.YW" + bytes((byte,)) + b"j.YWJj"
        if byte in allowed:
            assert split_token(text).payload == text.split(b".")[1]
        else:
            with pytest.raises(TokenError, match="malformed"):
                split_token(text)


def test_verified_claims_are_the_public_type() -> None:
    """`Claims` is a dict for every reader, and a snapshot of keys can be handed in as it is."""
    keys = load_keys(jwk("HS256"), ("HS256",))
    assert isinstance(keys, KeySnapshot)
    found = verifier(keys=keys).verify(token(), NOW)
    assert isinstance(found, Claims)
    assert isinstance(found, dict)
