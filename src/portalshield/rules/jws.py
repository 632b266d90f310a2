"""One compact JWS taken apart and read, before anything in it is believed: form, header, signature, claims as JSON.

The facts this obeys: RFC 7515 (compact form, canonical base64url, UTF-8), RFC 8725bis (no key from the header). Nothing
is decoded before its size and alphabet were checked. Whether the claims are acceptable, `tokens.py` says.
A token has several spellings that verify (an ECDSA signature (r, s) and (r, n-s)): see `token_identity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from portalshield.rules.jose import BASE64URL, Frozen, from_base64url, json_object
from portalshield.rules.keys import CANONICAL, Key, is_kid

MAX_TOKEN_BYTES = 8192
"""The default size limit; `HARD_MAX_TOKEN_BYTES` is the most that can be configured."""
HARD_MAX_TOKEN_BYTES = 16384

_HEADER_DEPTH = 4
_CLAIMS_DEPTH = 32
_ALPHABET = BASE64URL + b"."

# Each of these asks the verifier to take the key from the token or from an address in it (SSRF): an attack probe.
_KEY_MEMBERS = frozenset(("jku", "jwk", "x5u", "x5c"))
# `crit` and `b64` change what is signed, `zip` and `enc` what is read, `cty` nests a token: none is supported.
_REFUSED_MEMBERS = _KEY_MEMBERS | {"crit", "b64", "zip", "enc", "cty"}

CODES = frozenset(
    (
        "too-large",
        "malformed",
        "bad-header",
        "embedded-key",
        "header-not-supported",
        "algorithm-not-allowed",
        "wrong-type",
        "unknown-key",
        "bad-signature",
        "bad-claims",
        "missing-claim",
        "bad-claim",
        "expired",
        "lifetime-too-long",
        "not-yet-valid",
        "issued-in-future",
        "wrong-issuer",
        "wrong-audience",
        "wrong-party",
        "wrong-kind",
        "claim-refused",
        "machine-key",
        "revoked",
    )
)
"""Every code of a `TokenError`. `unknown-key`: ask for fresh keys, once. `embedded-key`: worth counting, an attack.
`machine-key`: a provider's key for servers came where a user's token belongs. `revoked`: by whoever
knows revocations, not by a `Verifier`."""


class TokenError(Exception):
    """The token is not acceptable; `code` is one of `CODES`, for the log alone: clients see one answer for all."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Segments(NamedTuple):
    """The four parts of a compact JWS, checked for size and alphabet but not decoded."""

    header: bytes
    payload: bytes
    signature: bytes
    signing_input: bytes


def split_token(token: str | bytes, max_bytes: int = MAX_TOKEN_BYTES) -> Segments:
    """The segments of a token (RFC 7515, 7.1). Raises `TokenError`: `too-large` before anything else, `malformed`.

    Costs the same for a megabyte as for nothing: the length is looked at first.
    """
    if not isinstance(token, str | bytes):
        raise TokenError("malformed")
    if len(token) > max_bytes:
        raise TokenError("too-large")
    if isinstance(token, str):
        if not token.isascii():
            raise TokenError("malformed")
        token = token.encode()
    parts = token.split(b".")
    if len(parts) != 3 or token.translate(None, _ALPHABET):
        raise TokenError("malformed")
    header, payload, signature = parts
    return Segments(header, payload, signature, token[: -len(signature) - 1])


def token_identity(token: str | bytes) -> bytes:
    """What a token is known by where `jti` is missing: SHA-256 of what was signed, the same for every spelling.

    Revocation, replay and audit use this or `jti`, never the token's text. Raises `TokenError`.
    """
    return sha256(split_token(token, HARD_MAX_TOKEN_BYTES).signing_input).digest()


def claimed_issuer(token: str | bytes, max_bytes: int = MAX_TOKEN_BYTES) -> str | None:
    """The issuer an unverified token names, only to choose the verifier that must then confirm it."""
    issuer = read_claims(split_token(token, max_bytes).payload).get("iss")
    return issuer if isinstance(issuer, str) else None


class Header(NamedTuple):
    """What of a header the verification needs; `alg` is canonical."""

    alg: str
    kid: str | None
    typ: str | None


def read_header(segment: bytes, algorithms: Mapping[str, str] = CANONICAL) -> Header:
    """Parse and judge the header of a token (RFC 7515, 4.1); `algorithms` maps allowed names to canonical ones."""
    try:
        header = json_object(from_base64url(segment), _HEADER_DEPTH)
    except (ValueError, RecursionError):
        raise TokenError("bad-header") from None
    if not _REFUSED_MEMBERS.isdisjoint(header):
        raise TokenError("header-not-supported" if _KEY_MEMBERS.isdisjoint(header) else "embedded-key")
    alg = header.get("alg")
    if type(alg) is not str or alg not in algorithms:
        raise TokenError("algorithm-not-allowed")
    kid = header.get("kid")
    if "kid" in header and not is_kid(kid):
        raise TokenError("bad-header")
    typ = header.get("typ")
    if "typ" in header and type(typ) is not str:
        raise TokenError("wrong-type")
    return Header(algorithms[alg], kid, typ)


def check_signature(key: Key, segments: Segments) -> None:
    """Raises `TokenError` unless the signature is the key's and written canonically."""
    try:
        signature = from_base64url(segments.signature)
    except ValueError:
        raise TokenError("malformed") from None
    if not signature or not key.verify(segments.signing_input, signature):
        raise TokenError("bad-signature")


def read_claims(segment: bytes) -> Frozen:
    """The payload as a JSON object, whatever it claims. Raises `TokenError`."""
    try:
        return json_object(from_base64url(segment), _CLAIMS_DEPTH)
    except (ValueError, RecursionError):
        raise TokenError("bad-claims") from None
