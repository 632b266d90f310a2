"""A flood of mutated tokens: nothing but `TokenError` comes out, and no answer is a server error.

`TOKEN_FUZZ` is the number of tokens, 4,000 in a normal run; a long run is `TOKEN_FUZZ=100000`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from portalshield.tokens import TokenError, TokenVerifier

COUNT = int(os.environ.get("TOKEN_FUZZ", "4000"))
SECRET = "correct-horse-battery-staple-and-more-0123456789"
NOW = 1_800_000_000.0
CLAIMS = {"iss": "https://a.example", "aud": "portal", "sub": "u1", "tenant_id": "north", "iat": NOW, "exp": NOW + 600}
ALPHABET = 'ABCabc012-_.=+/ \n\x00{}[]":,é\ud800'


def mutated(tokens: list[str], count: int, seed: int = 7) -> Iterator[str]:
    """Tokens with characters changed, cut, doubled, swapped and mixed with those of another."""
    chance = random.Random(seed)
    for _ in range(count):
        text = chance.choice(tokens)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text) + 1)
            kind = chance.randrange(5)
            if kind == 0:
                text = text[:at] + chance.choice(ALPHABET) + text[at + 1 :]
            elif kind == 1:
                text = text[:at] + text[at + chance.randint(1, 30) :]
            elif kind == 2:
                text = text[:at] + text[at : at + 20] + text[at:]
            elif kind == 3:
                other = chance.choice(tokens).split(".")
                parts = text.split(".")
                parts[chance.randrange(len(parts))] = chance.choice(other)
                text = ".".join(parts)
            else:
                text = text[:at] + chance.choice(ALPHABET) * chance.randint(1, 40) + text[at:]
        yield text


def test_nothing_but_a_token_error_comes_out() -> None:
    """No foreign exception, and no mutated token is accepted that was not the original."""
    key = ec.generate_private_key(ec.SECP256R1())
    verifiers = [
        TokenVerifier(keys=SECRET, algorithms=["HS256"], issuer="https://a.example", audience="portal"),
        TokenVerifier(keys=_pem(key), algorithms=["ES256"], issuer="https://a.example", audience="portal"),
    ]
    good = [jwt.encode(CLAIMS, SECRET, "HS256"), jwt.encode(CLAIMS, key, "ES256")]
    assert [verifier.verify(token, NOW)["sub"] for verifier, token in zip(verifiers, good, strict=True)] == ["u1", "u1"]
    refused = 0
    for text in mutated(good, COUNT):
        for verifier in verifiers:
            try:
                claims = verifier.verify(text, NOW)
            except TokenError:
                refused += 1
            else:
                assert text in good, text
                assert claims["tenant_id"] == "north"
    assert refused >= COUNT


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()
