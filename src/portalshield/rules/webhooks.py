"""Is this request from the provider it claims to be from: signature, time, and an identity that a replay shares.

A signature is checked on the raw bytes, before anybody parses them, against the current and the previous secret, in
constant time. The identity of a delivery is a digest of what was signed: whoever swaps an id or adds a signature that
the provider did not sign still holds the same delivery. What each provider signs stands in `webhook_schemes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from urllib.parse import urlsplit

from portalshield.rules.webhook_schemes import (
    DIGESTS,
    SCHEMES,
    Delivery,
    Offered,
    Parts,
    Scheme,
    SignatureFault,
    UnusableSecretError,
    custom,
    seconds,
)

__all__ = ["NAMES", "Delivery", "SignatureFault", "UnusableSecretError", "WebhookVerifier", "address_spellings"]

NAMES = (*SCHEMES, "hmac")
"""The schemes by name."""
TOLERANCE_S = 300.0
UNTIMED_S = 86_400.0
_PORTS = {"https": 443, "http": 80}
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._:[]")
_PATH = frozenset("/%-._~!$&'()*+,;=:@abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class WebhookVerifier:
    """Verifies deliveries of one sender.

    `scheme` is one of `NAMES`; `secrets` are the current one and those before it. `header`, `digest` (sha1, sha256,
    sha384, sha512), `encoding` (hex, base64) and `time_header` describe the `hmac` scheme. Raises `ValueError` for what
    is no scheme, `UnusableSecretError` for a secret that cannot be one of it.
    """

    def __init__(
        self,
        scheme: str,
        secrets: Iterable[str],
        *,
        tolerance_s: float = TOLERANCE_S,
        header: str = "",
        digest: str = "sha256",
        encoding: str = "hex",
        time_header: str = "",
    ) -> None:
        row = _scheme(scheme, header, digest, encoding, time_header)
        self._read = row.read
        self._marks = row.marks
        self._tolerance_s = tolerance_s if row.timed else None
        self._keys = [key for secret in secrets for key in row.keys(_usable(secret, row))]
        if not self._keys:
            raise UnusableSecretError("is missing")
        self.by_address = row.by_address
        self.keep_s = tolerance_s * 2 if row.timed else UNTIMED_S
        """How long a copy of a delivery could pass: as long its identity must be known."""

    def verify(self, delivery: Delivery, now: float) -> bytes:
        """The identity of an authentic delivery, 32 bytes. Raises `SignatureFault`, and nothing else."""
        offered = self._read(delivery)
        if self._tolerance_s is not None:
            distance = abs(now - seconds(offered.time or b""))
            if not distance <= self._tolerance_s:
                raise SignatureFault("too-old-or-early")
        if not self._signed(offered):
            raise SignatureFault("signature-wrong")
        marks = (b"\n".join(delivery.get_all(name)).strip(b" \t") for name in self._marks)
        return _identity(marks, offered.texts[0])

    def _signed(self, offered: Offered) -> bool:
        """Every secret, spelling and signature is compared: which one fits shows in no time."""
        matches = [
            key.signed(text, signature)
            for key in self._keys
            for version, signature in offered.signatures
            if version == key.version
            for text in offered.texts
        ]
        return any(matches)


def _scheme(name: str, header: str, digest: str, encoding: str, time_header: str) -> Scheme:
    if name in SCHEMES:
        return SCHEMES[name]
    if name != "hmac":
        raise ValueError(f"is none of {', '.join(NAMES)}")
    if not header:
        raise ValueError("hmac needs the name of the header that carries the signature")
    if digest not in DIGESTS or encoding not in ("hex", "base64"):
        raise ValueError(f"hmac knows the digests {', '.join(DIGESTS)} and the encodings hex and base64")
    signature, time = (name.lower().encode("latin-1") for name in (header, time_header))
    return custom(signature, digest, encoding, time or None)


def _usable(secret: str, row: Scheme) -> str:
    if not secret.isprintable():
        raise UnusableSecretError("holds control characters")
    if secret.startswith(row.not_secrets):
        raise UnusableSecretError("is a key of another kind: the provider shows the signing secret beside the webhook")
    return secret


def _identity(marks: Iterable[bytes], text: Parts) -> bytes:
    """Of the text as one: where its pieces end is not signed (an address and a form field may change places)."""
    digest = sha256()
    for mark in marks:
        digest.update(len(mark).to_bytes(4))
        digest.update(mark)
    for part in text:
        digest.update(part)
    return digest.digest()


def address_spellings(base: str) -> tuple[bytes, ...]:
    """`https://api.example.com` -> that, and the same with its port; in front of the path as it was called.

    The sender may have signed either (Twilio does both). `ValueError` for what is no http address, or has a query.
    """
    try:
        parts = urlsplit(base)
        port = parts.port or _PORTS[parts.scheme]
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        path = parts.path.rstrip("/")
        spelled = (f"{parts.scheme}://{host}{path}", f"{parts.scheme}://{host}:{port}{path}")
        found = tuple(text.encode("ascii") for text in spelled)
    except (ValueError, KeyError):  # their own texts would repeat the address
        found = ()
    plain = found and host and _HOST.issuperset(host) and _PATH.issuperset(path)
    if not plain or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("is no address such as https://api.example.com")
    return found
