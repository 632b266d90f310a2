"""Signed texts with their verdicts: our own, and public collections in the form of Wycheproof's `json_web_*` files.

`JWS_VECTORS` names a folder with such files (`json_web_signature_test.json`, `json_web_key_test.json` of C2SP's
Wycheproof, which are not part of this project). Without it our own are judged, in the same form.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, RSAAlgorithm

from portalshield.tokens import verify_signature

# Verdicts of the public files that contradict the standards, or the files themselves: the opposite is demanded.
CONTRADICTED = {
    ("json_web_signature_test", 346): "the key is for PS256, the token says PS384 (RFC 7517, 4.4)",
    ("json_web_signature_test", 350): "the key is for PS256, the token says PS384 (RFC 7517, 4.4)",
    ("json_web_signature_test", 367): "byte for byte the token of 357, which is valid",
    ("json_web_signature_test", 370): "byte for byte the token of 357, which is valid",
    ("json_web_signature_test", 372): "a question mark is no base64url (RFC 7515, 2), and was not signed",
    ("json_web_signature_test", 373): "a question mark is no base64url (RFC 7515, 2), and was not signed",
}
RSA_FAMILY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


class Case(NamedTuple):
    """One signed text, a key or set, and whether the one verifies with the other."""

    number: int
    words: str
    text: str
    key: dict[str, Any]
    valid: bool


def in_file(path: Path) -> list[Case]:
    """The cases of one public file."""
    groups = json.loads(path.read_text("utf-8"))["testGroups"]
    return [
        Case(
            test["tcId"],
            test["comment"],
            test["jws"],
            group.get("public") or group["private"],
            test["result"] == "valid",
        )
        for group in groups
        for test in group["tests"]
    ]


def b64(raw: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def own() -> list[Case]:
    """Ours: what is signed right, and right signatures that must not count."""
    rows = [*_algorithms(), *_keys(), *_spellings()]
    return [Case(number, *row) for number, row in enumerate(rows, 1)]


Row = tuple[str, str, dict[str, Any], bool]


def _algorithms() -> Iterator[Row]:
    """One RSA key can make signatures of six kinds: key, header and signature must name the same."""
    key = rsa.generate_private_key(65537, 2048)
    public = dict(RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))
    for stated in RSA_FAMILY:
        jwk = {**public, "kid": "k", "alg": stated}
        for named in RSA_FAMILY:
            for payload in (b"", b"\0" * 20, b"foo") if named == stated else (b"foo",):
                text = jwt.api_jws.encode(payload, key, named, headers={"kid": "k"})
                yield f"a key for {stated}, a token of {named}", text, jwk, named == stated
            body = text.split(".")[1]
            for lied in RSA_FAMILY:
                if lied != named:
                    other = b64(json.dumps({"alg": lied, "kid": "k"}).encode())
                    signed = jwt.get_algorithm_by_name(named).sign(f"{other}.{body}".encode(), key)
                    yield f"{stated}: says {lied}, signed by {named}", f"{other}.{body}.{b64(signed)}", jwk, False
        head, body, signature = jwt.api_jws.encode(b"foo", key, stated, headers={"kid": "k"}).split(".")
        longer = base64.urlsafe_b64decode(signature + "==") + bytes(1)
        for words, bad in (("zeros", bytes(256)), ("one", bytes(255) + b"\1"), ("a zero more", longer)):
            yield f"{stated}: {words}", f"{head}.{body}.{b64(bad)}", jwk, False


def _keys() -> Iterator[Row]:
    """One good token, and what its key set says."""
    secret = bytes(range(40, 80))
    text = jwt.api_jws.encode(b"foo", secret, "HS256", headers={"kid": "a"})
    jwk = {**HMACAlgorithm.to_jwk(secret, as_dict=True), "kid": "a", "alg": "HS256"}
    other = {**jwk, "k": b64(bytes(range(60, 100)))}
    yield "one of two keys", text, {"keys": [jwk, {**other, "kid": "b"}]}, True
    yield "two keys of one name", text, {"keys": [jwk, other]}, False
    yield "two keys of one name, the other way round", text, {"keys": [other, jwk]}, False
    unreadable = {**jwk, "k": "-xxuDNsVZ2iJtos-akfXTSCt4UO2cruLCsbWlBingge"}  # unused bits are set
    yield "an unreadable key of the same name", text, {"keys": [jwk, unreadable]}, False
    yield "an unreadable key of the same name, first", text, {"keys": [unreadable, jwk]}, False
    yield "an unreadable key of another name", text, {"keys": [jwk, {**unreadable, "kid": "b"}]}, True
    yield "an unreadable key without a name", text, {"keys": [jwk, {**unreadable, "kid": None}]}, True
    yield "a key of the same name for encryption", text, {"keys": [jwk, {**other, "use": "enc"}]}, True
    for words, members in (
        ("enc", {"use": "enc"}),
        ("another name", {"kid": "b"}),
        ("wrapping keys", {"alg": "A256KW"}),
        ("a longer hash", {"alg": "HS512"}),
        ("encryption", {"key_ops": ["encrypt"]}),
        ("signing alone", {"key_ops": ["sign"]}),
    ):
        yield f"a key for {words}", text, {**jwk, **members}, False
    yield "a key for verification", text, {**jwk, "key_ops": ["sign", "verify"]}, True


def _spellings() -> Iterator[Row]:
    """One good token, written differently."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k", "alg": "ES256"}
    text = jwt.api_jws.encode(b"Test", key, "ES256", headers={"kid": "k"})
    head, body, signature = text.split(".")
    yield "as it was signed", text, jwk, True
    for mark in ("?", "#", " ", "=", "\n", "\0", "+", "é"):
        for at in range(3):
            parts = [head, body, signature]
            for spelt in (mark + parts[at], parts[at] + mark, parts[at][:-1] + mark + parts[at][-1]):
                yield f"{mark!r} in segment {at}", ".".join([*parts[:at], spelt, *parts[at + 1 :]]), jwk, False
    for words, other in (("unused bits are set", "AB"), ("an impossible length", "AAAAA"), ("padding", "AA==")):
        signed = jwt.get_algorithm_by_name("ES256").sign(f"{head}.{other}".encode(), key)
        yield f"the payload was signed so: {words}", f"{head}.{other}.{b64(signed)}", jwk, False
    for header in (
        '{ "kid" : "k", "alg" : "ES256" }',
        '{"kid":"k",\n\t"alg":"ES256"}\r\n',
        '{"kid":"\\u006b","alg":"ES256"}',
    ):
        signing = f"{b64(header.encode())}.{body}"
        signed = jwt.get_algorithm_by_name("ES256").sign(signing.encode(), key)
        yield "space in the header's JSON", f"{signing}.{b64(signed)}", jwk, True


FOLDER = os.environ.get("JWS_VECTORS")
FILES = sorted(Path(FOLDER).glob("json_web_*_test.json")) if FOLDER else []


@pytest.mark.parametrize("path", [None, *FILES], ids=lambda path: path.stem if path else "our own")
def test_every_verdict_is_the_expected_one(path: Path | None) -> None:
    """No wrong accept, no wrong reject, no exception."""
    cases = in_file(path) if path else own()
    name = path.stem if path else ""
    assert {case.valid for case in cases} == {True, False}
    wrong = [
        f"{case.number} {case.words}"
        for case in cases
        if verify_signature(case.text, case.key) is not (case.valid is not ((name, case.number) in CONTRADICTED))
    ]
    assert wrong == []


def test_the_folder_that_was_named_has_vectors() -> None:
    """A misspelt `JWS_VECTORS` is told, and not passed over."""
    assert bool(FOLDER) is bool(FILES)
