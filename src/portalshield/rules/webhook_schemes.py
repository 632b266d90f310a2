"""How providers sign what they send: one row per scheme, and the readers and key kinds that the rows are made of.

| scheme | signed bytes | signature | time |
| --- | --- | --- | --- |
| standard | `id.time.body`, HMAC-SHA256 (`v1`) or Ed25519 (`v1a`) | space list of `v1,<base64>` | signed |
| stripe | `time.body`, HMAC-SHA256 | comma list `t=..,v1=<hex>` | signed |
| github | `body`, HMAC-SHA256 | `sha256=<hex>` | none |
| slack | `v0:time:body`, HMAC-SHA256 | `v0=<hex>` | signed |
| shopify | `body`, HMAC-SHA256 | base64 | none |
| twilio | address and sorted form fields, HMAC-SHA1 or -SHA256 | base64 | none |
| hmac | `body`, with a time field `time.body` | hex or base64 | optional |

Everything is bytes as it came. A reader takes one spelling and refuses the rest with `SignatureFault`: what is
malformed is never skipped, and no input makes it raise anything else.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_FIELD_BYTES = 4096
MAX_SIGNATURES = 8
MAX_FORM_FIELDS = 1000
_HEX = frozenset(b"0123456789abcdefABCDEF")
_DIGITS = frozenset(b"0123456789")
_FORM = b"application/x-www-form-urlencoded"

Parts = tuple[bytes, ...]
"""The signed bytes in pieces, so that a large body is not copied."""


class SignatureFault(Exception):  # noqa: N818
    """The delivery is not authentic, or not readable as one. `code` is for the log: a fixed slug."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class UnusableSecretError(ValueError):
    """A secret that cannot be one of this scheme; the text continues "the secret ..." and never repeats it."""


class Delivery(NamedTuple):
    """One request as a signature may cover it.

    `get_all` gives the values of a header field by lower-case name. `addresses` are the spellings of the address that
    the sender may have called (twilio), the preferred one first.
    """

    get_all: Callable[[bytes], list[bytes]]
    body: bytes
    addresses: tuple[bytes, ...] = ()


class Offered(NamedTuple):
    """What the header fields say: who signed what when. `signatures` are (version, bytes); `texts` are the spellings of
    what may have been signed, the preferred one first."""

    signatures: tuple[tuple[bytes, bytes], ...]
    texts: tuple[Parts, ...]
    time: bytes | None = None


class Key(Protocol):
    """One usable secret; `version` names the signatures it is for."""

    version: bytes

    def signed(self, text: Parts, signature: bytes) -> bool:
        """This very text; compared in constant time."""


class Scheme(NamedTuple):
    """One row of the table.

    `keys` makes the keys of a secret (`UnusableSecretError`), `read` reads a delivery (`SignatureFault`). `marks` are
    unsigned fields that tell apart deliveries which are signed alike. `not_secrets` begin what people paste by mistake.
    """

    keys: Callable[[str], list[Key]]
    read: Callable[[Delivery], Offered]
    timed: bool
    by_address: bool = False
    marks: tuple[bytes, ...] = ()
    not_secrets: tuple[str, ...] = ()


# -- keys -------------------------------------------------------------------------------------------------------------


class HmacKey:
    """A shared secret. The padded key is prepared once and copied per delivery."""

    def __init__(self, secret: bytes, digest: str = "sha256", version: bytes = b"v1") -> None:
        if not secret:
            raise UnusableSecretError("is empty")
        self.version = version
        self._prepared = hmac.new(secret, digestmod=digest)

    def signed(self, text: Parts, signature: bytes) -> bool:
        """This very text was signed with the secret."""
        mac = self._prepared.copy()
        for part in text:
            mac.update(part)
        return hmac.compare_digest(mac.digest(), signature)


class Ed25519Key:
    """A sender's public key (RFC 8032)."""

    version = b"v1a"

    def __init__(self, public: Ed25519PublicKey) -> None:
        self._verify = public.verify

    def signed(self, text: Parts, signature: bytes) -> bool:
        """This very text was signed with the private key."""
        try:
            self._verify(signature, b"".join(text))
        except InvalidSignature:
            return False
        return True


def _text_keys(secret: str) -> list[Key]:
    return [HmacKey(secret.encode())]


def _twilio_keys(secret: str) -> list[Key]:
    """The account's token signs with SHA-1; a shared key of a webhook rule may sign with either."""
    return [HmacKey(secret.encode(), digest, digest.encode()) for digest in ("sha1", "sha256")]


def _standard_keys(secret: str) -> list[Key]:
    """`whsec_` is a shared secret, `whpk_` the sender's public key, `whsk_` its private one. Supabase writes `v1,`
    in front. Without a prefix the text is a shared secret in base64."""
    kind, _, rest = secret.removeprefix("v1,").partition("_")
    if kind not in ("whsec", "whpk", "whsk"):
        kind, rest = "whsec", secret.removeprefix("v1,")
    try:
        raw = binascii.a2b_base64(rest.encode() + b"=" * (-len(rest) % 4), strict_mode=True)
    except ValueError:
        raise UnusableSecretError("is not base64 behind whsec_ or whpk_") from None
    if kind == "whsec":
        return [HmacKey(raw)]
    return [Ed25519Key(_public(kind, raw))]


def _public(kind: str, raw: bytes) -> Ed25519PublicKey:
    try:
        if kind == "whpk":
            return Ed25519PublicKey.from_public_bytes(raw)
        if len(raw) not in (32, 64):
            raise ValueError
        public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key()
    except ValueError:
        raise UnusableSecretError("is no Ed25519 key") from None
    if raw[32:] not in (b"", public.public_bytes_raw()):
        raise UnusableSecretError("holds two keys that do not belong together")
    return public


# -- fields -----------------------------------------------------------------------------------------------------------


def field(delivery: Delivery, name: bytes) -> bytes:
    """The one value of a header field, without surrounding blanks."""
    found = delivery.get_all(name)
    if not found:
        raise SignatureFault("signature-missing")
    if len(found) > 1:
        raise SignatureFault("two-signature-fields")
    value = found[0].strip(b" \t")
    if not value or len(value) > MAX_FIELD_BYTES:
        raise SignatureFault("signature-malformed")
    return value


def seconds(text: bytes) -> int:
    """A canonical time: ASCII digits, no sign, no blanks, no leading zero. `1e9`, `+1` and `01` are other spellings of
    what was signed, and a lax reader would take them."""
    if not 0 < len(text) <= 12 or not _DIGITS.issuperset(text) or (text[:1] == b"0" and len(text) > 1):
        raise SignatureFault("time-malformed")
    return int(text)


def from_hex(text: bytes) -> bytes:
    """Hexadecimal digits and nothing else (`bytes.fromhex` takes blanks)."""
    if not text or len(text) % 2 or not _HEX.issuperset(text):
        raise SignatureFault("signature-malformed")
    return binascii.a2b_hex(text)


def from_base64(text: bytes) -> bytes:
    """Canonical, padded base64 (RFC 4648, 3.5)."""
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise SignatureFault("signature-malformed") from None
    if not raw or binascii.b2a_base64(raw, newline=False) != text:
        raise SignatureFault("signature-malformed")
    return raw


def _prefixed(text: bytes, prefix: bytes) -> bytes:
    if not text.startswith(prefix):
        raise SignatureFault("signature-malformed")
    return text[len(prefix) :]


def _bounded(signatures: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    found = tuple(signatures)
    if not found:
        raise SignatureFault("no-known-version")
    if len(found) > MAX_SIGNATURES:
        raise SignatureFault("too-many-signatures")
    return found


# -- readers ----------------------------------------------------------------------------------------------------------


def _standard(delivery: Delivery) -> Offered:
    """Standard Webhooks 1.0.0; Svix, which it comes from, sends the same under its own name."""
    vendor = b"webhook" if delivery.get_all(b"webhook-signature") else b"svix"
    value = field(delivery, vendor + b"-signature")
    time = field(delivery, vendor + b"-timestamp")
    ident = field(delivery, vendor + b"-id")
    if b"." in ident:  # `a.1` + `.` + `2` would be signed like `a` + `.` + `1.2`
        raise SignatureFault("id-malformed")
    signatures = []
    for item in value.split(b" "):
        version, comma, text = item.partition(b",")
        if not comma:
            raise SignatureFault("signature-malformed")
        if version in (b"v1", b"v1a"):
            signatures.append((version, from_base64(text)))
    return Offered(_bounded(signatures), ((ident + b"." + time + b".", delivery.body),), time)


def _stripe(delivery: Delivery) -> Offered:
    times, signatures = [], []
    for item in field(delivery, b"stripe-signature").split(b","):
        name, equals, text = item.strip(b" ").partition(b"=")
        if not equals:
            raise SignatureFault("signature-malformed")
        if name == b"t":
            times.append(text)
        elif name == b"v1":  # v0 is a test scheme that must not count
            signatures.append((name, from_hex(text)))
    if len(times) != 1:
        raise SignatureFault("time-malformed")
    return Offered(_bounded(signatures), ((times[0] + b".", delivery.body),), times[0])


def _github(delivery: Delivery) -> Offered:
    text = _prefixed(field(delivery, b"x-hub-signature-256"), b"sha256=")
    return Offered(((b"v1", from_hex(text)),), ((delivery.body,),))


def _slack(delivery: Delivery) -> Offered:
    text = _prefixed(field(delivery, b"x-slack-signature"), b"v0=")
    time = field(delivery, b"x-slack-request-timestamp")
    return Offered(((b"v1", from_hex(text)),), ((b"v0:" + time + b":", delivery.body),), time)


_TOPIC = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_./")


def _shopify(delivery: Delivery) -> Offered:
    """The topic is not signed, so it has one spelling: else a copy could come again under another one."""
    topic = field(delivery, b"x-shopify-topic")
    if not _TOPIC.issuperset(topic):
        raise SignatureFault("topic-malformed")
    return Offered(((b"v1", from_base64(field(delivery, b"x-shopify-hmac-sha256"))),), ((delivery.body,),))


def _twilio(delivery: Delivery) -> Offered:
    """The address as it was called, with and without its port, then the fields of a form; of another body the address
    holds a digest."""
    signature = from_base64(field(delivery, b"x-twilio-signature"))
    version = {20: b"sha1", 32: b"sha256"}.get(len(signature))
    if version is None:
        raise SignatureFault("signature-malformed")
    if not delivery.addresses:
        raise SignatureFault("address-unknown")
    rest = _twilio_fields(delivery)
    return Offered(((version, signature),), tuple((address, rest) for address in delivery.addresses))


def _twilio_fields(delivery: Delivery) -> bytes:
    content_type = b"".join(delivery.get_all(b"content-type")[:1])
    if not delivery.body:
        return b""
    if content_type.partition(b";")[0].strip(b" \t").lower() == _FORM:
        return _sorted_fields(delivery.body)
    query = delivery.addresses[0].partition(b"?")[2]
    named = [item[11:] for item in query.split(b"&") if item.startswith(b"bodySHA256=")]
    if len(named) != 1:
        raise SignatureFault("body-not-covered")
    if not hmac.compare_digest(from_hex(named[0]), sha256(delivery.body).digest()):
        raise SignatureFault("signature-wrong")
    return b""


def _sorted_fields(body: bytes) -> bytes:
    """Names and values of a form, decoded, by name; a name that is there more than once has its distinct values in
    their order. UTF-8 sorts like the code points it stands for."""
    if body.count(b"&") >= MAX_FORM_FIELDS:
        raise SignatureFault("too-many-fields")
    fields = set()
    for item in body.split(b"&"):
        name, _, value = item.replace(b"+", b" ").partition(b"=")
        if item:
            fields.add((unquote_to_bytes(name), unquote_to_bytes(value)))
    return b"".join([part for pair in sorted(fields) for part in pair])


SCHEMES: dict[str, Scheme] = {
    "standard": Scheme(_standard_keys, _standard, timed=True),
    "stripe": Scheme(_text_keys, _stripe, timed=True, not_secrets=("sk_", "pk_", "rk_")),
    "github": Scheme(_text_keys, _github, timed=False, not_secrets=("ghp_", "gho_", "ghs_", "github_pat_")),
    "slack": Scheme(_text_keys, _slack, timed=True, not_secrets=("xoxb-", "xoxp-", "xapp-")),
    # One event may be sent under several topics at once, with one body: each of them counts.
    "shopify": Scheme(
        _text_keys, _shopify, timed=False, marks=(b"x-shopify-topic",), not_secrets=("shpat_", "shpca_", "shppa_")
    ),
    "twilio": Scheme(_twilio_keys, _twilio, timed=False, by_address=True),
}
"""Every provider's scheme by name; `custom` makes the `hmac` one."""

DIGESTS = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
"""Digests of the `hmac` scheme and their sizes."""


def custom(header: bytes, digest: str, encoding: str, time_header: bytes | None) -> Scheme:
    """The `hmac` scheme: `header` carries the signature, `digest=` in front of it is accepted, the time is signed."""
    decode = from_hex if encoding == "hex" else from_base64

    def keys(secret: str) -> list[Key]:
        return [HmacKey(secret.encode(), digest)]

    def read(delivery: Delivery) -> Offered:
        signature = decode(field(delivery, header).removeprefix(digest.encode() + b"="))
        if time_header is None:
            return Offered(((b"v1", signature),), ((delivery.body,),))
        time = field(delivery, time_header)
        return Offered(((b"v1", signature),), ((time + b".", delivery.body),), time)

    return Scheme(keys, read, timed=time_header is not None)
