"""Webhook signatures on their own, without an application around them.

    if not webhooks.verify("stripe", secret, request.headers, body):
        ...                                     # not from Stripe, or too old

The rules are those of `portalshield.rules.webhooks`; this module only adds the clock. It remembers nothing: a copy of a
delivery verifies as often as it comes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from portalshield.rules.webhooks import (
    NAMES,
    TOLERANCE_S,
    Delivery,
    SignatureFault,
    UnusableSecretError,
    WebhookVerifier,
    address_spellings,
)

__all__ = ["NAMES", "UnusableSecretError", "verify"]

Text = str | bytes


class _Items(Protocol):
    """Whatever has header fields: a mapping, Starlette's and Werkzeug's header objects."""

    def items(self) -> Iterable[tuple[Text, Text]]:
        """Names and values."""


Headers = Mapping[str, str] | Mapping[bytes, bytes] | _Items | Iterable[tuple[Text, Text]]


def verify(
    scheme: str,
    secret: str | Iterable[str],
    headers: Headers,
    body: bytes,
    now: float | None = None,
    *,
    url: str = "",
    tolerance_s: float = TOLERANCE_S,
    header: str = "",
    digest: str = "sha256",
    encoding: str = "hex",
    time_header: str = "",
) -> bool:
    """The delivery is signed with the secret (or one of several), and its time, where it has one, is near `now`.

    `scheme` is one of `NAMES`, `headers` has names in any case, as text or bytes, `body` is as it came, `now` in Unix
    seconds (the system's clock if None). `url` is the address as it was called, query included (twilio); `header`,
    `digest`, `encoding`, `time_header` describe the hmac scheme. False for whatever else comes in; `ValueError`
    (`UnusableSecretError`) only for a scheme, secret or `url` that is none.
    """
    secrets = (secret,) if isinstance(secret, str) else tuple(secret)
    verifier = WebhookVerifier(
        scheme,
        secrets,
        tolerance_s=tolerance_s,
        header=header,
        digest=digest,
        encoding=encoding,
        time_header=time_header,
    )
    delivery = Delivery(_Fields(headers), bytes(body), _spelled(url) if verifier.by_address else ())
    try:
        verifier.verify(delivery, time.time() if now is None else now)
    except SignatureFault:
        return False
    return True


class _Fields:
    """The values of a field by lower-case name."""

    def __init__(self, headers: Headers) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
        self._found: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            self._found.setdefault(_raw(name).lower(), []).append(_raw(value))

    def __call__(self, name: bytes) -> list[bytes]:
        return self._found.get(name, [])


def _raw(text: Text) -> bytes:
    """Servers decode fields as latin-1; what cannot have come from one is no field that anybody signed."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _spelled(url: str) -> tuple[bytes, ...]:
    if not url:
        raise ValueError("this scheme signs the address: pass url=")
    start = url.find("/", url.find("://") + 3)
    cut = min((index for index in (start, url.find("?")) if index >= 0), default=len(url))
    rest = url[cut:].encode("utf-8", "surrogatepass")
    return tuple(base + rest for base in address_spellings(url[:cut]))
