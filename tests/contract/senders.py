"""Senders of webhooks as the tests need them: signers written from each provider's description, and forgeries."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from portalshield.rules.webhooks import Delivery, SignatureFault, WebhookVerifier, address_spellings

NOW = 1_800_000_000
BODY = b'{"type":"paid","note":"\xc3\xa9 \xff\x00 odd bytes","n":1}'
FORM = [("Body", "caf\u00e9 & more"), ("From", "+14158675309"), ("Empty", ""), ("Digits", "5678"), ("Digits", "1234")]
ADDRESS = "https://hooks.example.com/twilio?tenant=north"
Fields = list[tuple[bytes, bytes]]


def mac(secret: bytes, text: bytes, digest: str = "sha256") -> bytes:
    """HMAC, for the signers."""
    return hmac.new(secret, text, digest).digest()


def b64(raw: bytes) -> bytes:
    """Base64 as bytes."""
    return base64.b64encode(raw)


# -- signers: what each provider's page says -----------------------------------------------------------------------


def sign_standard(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """`v1,` and base64 of HMAC-SHA256(decoded secret, id.time.body)."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b"v1," + b64(mac(key, b"msg_1." + time + b"." + body, digest))
    return [(b"webhook-id", b"msg_1"), (b"webhook-timestamp", time), (b"webhook-signature", signed)]


def sign_stripe(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """`t=`, and `v1=` hex of HMAC-SHA256(secret, t.body)."""
    signed = mac(secret.encode(), time + b"." + body, digest).hex().encode()
    return [(b"stripe-signature", b"t=" + time + b",v1=" + signed)]


def sign_github(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """`sha256=` hex of HMAC-SHA256(secret, body)."""
    return [
        (b"x-github-delivery", b"guid-1"),
        (b"x-hub-signature-256", b"sha256=" + mac(secret.encode(), body, digest).hex().encode()),
    ]


def sign_slack(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """`v0=` hex of HMAC-SHA256(secret, v0:time:body)."""
    signed = mac(secret.encode(), b"v0:" + time + b":" + body, digest).hex().encode()
    return [(b"x-slack-request-timestamp", time), (b"x-slack-signature", b"v0=" + signed)]


def sign_shopify(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """Base64 of HMAC-SHA256(client secret, body)."""
    signed = b64(mac(secret.encode(), body, digest))
    return [
        (b"x-shopify-webhook-id", b"id-1"),
        (b"x-shopify-topic", b"orders/paid"),
        (b"x-shopify-hmac-sha256", signed),
    ]


def sign_twilio(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """Base64 of HMAC-SHA1(auth token, address and the form's names and values, sorted)."""
    text = ADDRESS + "".join(name + value for name, value in sorted(FORM))
    signed = b64(mac(secret.encode(), text.encode(), digest))
    return [(b"x-twilio-signature", signed), (b"content-type", b"application/x-www-form-urlencoded; charset=UTF-8")]


def sign_plain(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """Hex of HMAC-SHA256(secret, body)."""
    return [(b"x-signature", mac(secret.encode(), body, digest).hex().encode())]


def sign_timed(secret: str, body: bytes, time: bytes, digest: str) -> Fields:
    """Base64 of HMAC-SHA512(secret, time.body)."""
    signed = b64(mac(secret.encode(), time + b"." + body, digest))
    return [(b"x-time", time), (b"x-signature", b"sha512=" + signed)]


@dataclass
class Sender:
    """One provider: how it signs, and how it is configured here."""

    scheme: str
    sign: Callable[[str, bytes, bytes, str], Fields]
    signature: bytes
    secret: str = "3f9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4U"
    other: str = "8sJ2mQvR5tXkZ9bLcN4wYh7PfD0gAe3T"
    time: bytes = b""
    body: bytes = BODY
    digest: str = "sha256"
    options: dict[str, str] = field(default_factory=dict)

    def sent(self, time: bytes = b"%d" % NOW, secret: str = "", digest: str = "") -> Fields:
        """The fields of an authentic delivery."""
        return self.sign(secret or self.secret, self.body, time, digest or self.digest)

    def verifier(self, *secrets: str) -> WebhookVerifier:
        """Ours."""
        return WebhookVerifier(self.scheme, secrets or (self.secret,), **self.options)

    def judge(
        self, fields: Fields, body: bytes | None = None, now: float = NOW, verifier: object = None
    ) -> bytes | str:
        """The identity, or the code of the fault."""
        judge = verifier if isinstance(verifier, WebhookVerifier) else self.verifier()
        return judged(judge, fields, self.body if body is None else body, now)


def judged(verifier: WebhookVerifier, fields: Fields, body: bytes, now: float = NOW, url: str = ADDRESS) -> bytes | str:
    """The identity, or the code of the fault."""
    base, _, rest = url.partition("/twilio")
    addresses = tuple(spelled + b"/twilio" + rest.encode() for spelled in address_spellings(base))
    by_name = lambda name: [value for key, value in fields if key == name]  # noqa: E731
    try:
        return verifier.verify(Delivery(by_name, body, addresses), now)
    except SignatureFault as fault:
        return fault.code


FORM_BODY = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in FORM).encode()
WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()
WHSEC_2 = "whsec_" + base64.b64encode(bytes(range(30, 94))).decode()
SENDERS = {
    "standard": Sender(
        "standard", sign_standard, b"webhook-signature", secret=WHSEC, other=WHSEC_2, time=b"webhook-timestamp"
    ),
    "stripe": Sender("stripe", sign_stripe, b"stripe-signature", time=b"stripe-signature"),
    "github": Sender("github", sign_github, b"x-hub-signature-256"),
    "slack": Sender("slack", sign_slack, b"x-slack-signature", time=b"x-slack-request-timestamp"),
    "shopify": Sender("shopify", sign_shopify, b"x-shopify-hmac-sha256"),
    "twilio": Sender("twilio", sign_twilio, b"x-twilio-signature", body=FORM_BODY, digest="sha1"),
    "twilio-sha256": Sender("twilio", sign_twilio, b"x-twilio-signature", body=FORM_BODY),
    "hmac": Sender("hmac", sign_plain, b"x-signature", options={"header": "X-Signature"}),
    "hmac-timed": Sender(
        "hmac",
        sign_timed,
        b"x-signature",
        time=b"x-time",
        digest="sha512",
        options={"header": "X-Signature", "time_header": "X-Time", "digest": "sha512", "encoding": "base64"},
    ),
}


def replaced(fields: Fields, name: bytes, change: Callable[[bytes], bytes]) -> Fields:
    """The fields with one value changed."""
    return [(key, change(value) if key == name else value) for key, value in fields]


# -- forgeries ---------------------------------------------------------------------------------------------------------


def other_encoding(value: bytes) -> bytes:
    """The same signature, hexadecimal where it was base64 and the other way round."""
    found = re.match(rb"t=\d+,v1=|v1,|(?:sha\d+|v0)=", value)
    head = found[0] if found else b""
    text = value[len(head) :]
    try:
        return head + b64(bytes.fromhex(text.decode()))
    except ValueError:
        return head + base64.b64decode(text).hex().encode()


def one_character(value: bytes) -> bytes:
    """A signature that differs in one of its characters."""
    at = len(value) - 6
    return value[:at] + (b"0" if value[at : at + 1] != b"0" else b"1") + value[at + 1 :]


Forge = Callable[[Sender], tuple[Fields, bytes]]
FORGERIES: dict[str, Forge] = {
    "another secret": lambda s: (s.sent(secret=s.other), s.body),
    "another digest": lambda s: (s.sent(digest="sha384"), s.body),
    "a byte of the body changed": lambda s: (s.sent(), s.body[:-2] + b"2" + s.body[-1:]),
    "a byte more": lambda s: (s.sent(), s.body + b"1"),
    "a body cut short": lambda s: (s.sent(), s.body[:-9]),
    "no body": lambda s: (s.sent(), b""),
    "no signature": lambda s: ([(name, value) for name, value in s.sent() if name != s.signature], s.body),
    "an empty signature": lambda s: (replaced(s.sent(), s.signature, lambda value: b""), s.body),
    "two signature fields": lambda s: ([*s.sent(), *[row for row in s.sent() if row[0] == s.signature]], s.body),
    "a signature cut short": lambda s: (replaced(s.sent(), s.signature, lambda value: value[:-4]), s.body),
    "a signature too long": lambda s: (replaced(s.sent(), s.signature, lambda value: value + b"00"), s.body),
    "a character of it changed": lambda s: (replaced(s.sent(), s.signature, one_character), s.body),
    "another encoding": lambda s: (replaced(s.sent(), s.signature, other_encoding), s.body),
    "bytes beyond ASCII": lambda s: (replaced(s.sent(), s.signature, lambda value: value[:-1] + b"\xff\x00"), s.body),
    "blanks inside": lambda s: (replaced(s.sent(), s.signature, lambda value: value[:-8] + b" " + value[-8:]), s.body),
    "a field without an end": lambda s: (replaced(s.sent(), s.signature, lambda value: value * 100), s.body),
}
