"""Webhooks: the route is public, and only whom the secret belongs to comes in, with each delivery once.

Refuses with 400 `invalid-signature` what the sender did not sign, whatever is malformed, and what is too old, on the
raw bytes and before anything parses them; with 409 `in-flight` a copy of a delivery that is being processed. A copy of
one that was processed gets its answer again. An answer of 500 or more, of 408, 425 or 429, and a crash leave no record:
the sender tries again, and that is processed.

Does not cover: two endpoints with one secret (a delivery to one verifies at the other), senders that sign no time (a
copy is known for a day). Costs one HMAC over the body and two questions to the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel

from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Claim, Claimed, Settle, Taken, Unavailable
from portalshield.model.secret import Secret
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Reply, Verdict, problem
from portalshield.rules.http_tokens import is_token
from portalshield.rules.kept_answers import pack, unpack
from portalshield.rules.secrets_known import guessable
from portalshield.rules.webhooks import (
    NAMES,
    TOLERANCE_S,
    Delivery,
    SignatureFault,
    UnusableSecretError,
    WebhookVerifier,
    address_spellings,
)

RUNNING_S = 120.0
"""A handler that has not answered by then no longer keeps the sender's next try away: its process may have ended."""
KEPT_BODY = 16_384
_PREFIX = "PORTALSHIELD_WEBHOOK"
_LEAST_SECRET = 16
_TRY_AGAIN = frozenset((0, 408, 425, 429))
_PATH = "/:@!$&'()*+,;=~-._"
_UNREAD = problem("invalid-signature", why="body-incomplete")
_RUNNING = problem("in-flight", why="delivery-running", fields=((b"retry-after", b"10"),))
_KNOWN = problem("in-flight", why="delivery-known", fields=((b"retry-after", b"10"),))


class WebhookConfig(BaseModel):
    """`PORTALSHIELD_WEBHOOK__<NAME>__...`: one sender."""

    model_config = FROZEN

    secret: Annotated[Secret | None, Setting("the signing secret, as the provider shows it")] = None
    previous_secret: Annotated[Secret | None, Setting("the one before, while it is being replaced")] = None
    scheme: Annotated[
        Literal["standard", "stripe", "github", "slack", "shopify", "twilio", "hmac"] | None,
        Setting("how the provider signs; unset: the name, where it is one of these"),
    ] = None
    tolerance: Annotated[float, Setting("how old or early a delivery may be, where its time is signed", "seconds")] = (
        TOLERANCE_S
    )
    header: Annotated[str | None, Setting("hmac: the header that carries the signature")] = None
    digest: Annotated[Literal["sha1", "sha256", "sha384", "sha512"], Setting("hmac: the hash")] = "sha256"
    encoding: Annotated[Literal["hex", "base64"], Setting("hmac: how the signature is written")] = "hex"
    time_header: Annotated[
        str | None, Setting("hmac: the header that carries the Unix time; `<time>.<body>` is signed then")
    ] = None

    def scheme_of(self, name: str) -> str | None:
        """The scheme in force under this name; None: nobody said."""
        return self.scheme or (name if name in NAMES else None)

    def secrets(self) -> list[str]:
        """The current one first."""
        return [secret.reveal() for secret in (self.secret, self.previous_secret) if secret is not None]

    def verifier(self, name: str) -> WebhookVerifier:
        """What verifies this sender's deliveries; `ValueError` where `problems` has something to say."""
        return WebhookVerifier(
            self.scheme_of(name) or "",
            self.secrets(),
            tolerance_s=self.tolerance,
            header=self.header or "",
            digest=self.digest,
            encoding=self.encoding,
            time_header=self.time_header or "",
        )

    def problems(self, name: str, *, public_url: str | None) -> Iterator[ConfigurationProblem]:
        """What keeps this sender from being verified."""
        prefix = f"{_PREFIX}__{name.upper()}"
        scheme = self.scheme_of(name)
        if scheme is None:
            hint = f"Write one of {', '.join(NAMES)}."
            yield ConfigurationProblem("PS-HOOK-002", f"{prefix}__SCHEME", "is missing: the name is no scheme.", hint)
        elif scheme == "hmac":
            yield from self._header_problems(prefix)
        elif self.header is not None or self.time_header is not None or self.digest != "sha256":
            hint = "Write SCHEME=hmac, or leave HEADER, DIGEST and TIME_HEADER out."
            yield ConfigurationProblem("PS-HOOK-004", prefix, f"describes a signature, but {scheme} has its own.", hint)
        if scheme == "twilio" and public_url is None:
            hint = "Write the address the provider calls, without the path: https://api.example.com."
            yield ConfigurationProblem("PS-HOOK-007", "PORTALSHIELD_PUBLIC_URL", "is missing: twilio signs it.", hint)
        if not 1 <= self.tolerance <= 86_400:
            hint = "Write 5m."
            yield ConfigurationProblem("PS-HOOK-006", f"{prefix}__TOLERANCE", "lies outside 1s to 24h.", hint)
        if self.secret is None:
            hint = "Copy the signing secret from the provider's page of this webhook."
            yield ConfigurationProblem("PS-HOOK-001", f"{prefix}__SECRET", "is missing.", hint)
        for variable, secret in (("SECRET", self.secret), ("PREVIOUS_SECRET", self.previous_secret)):
            fault = self._secret_fault(scheme, secret) if secret is not None and scheme is not None else None
            if fault is not None:
                hint = "Copy the signing secret from the provider's page of this webhook."
                yield ConfigurationProblem("PS-HOOK-005", f"{prefix}__{variable}", f"{fault}.", hint)

    def _header_problems(self, prefix: str) -> Iterator[ConfigurationProblem]:
        if self.header is None:
            hint = "Name the header that carries the signature, for example X-Signature."
            yield ConfigurationProblem("PS-HOOK-003", f"{prefix}__HEADER", "is missing: hmac needs it.", hint)
        for variable, name in (("HEADER", self.header), ("TIME_HEADER", self.time_header)):
            if name is not None and not is_token(name):
                yield ConfigurationProblem("PS-HOOK-008", f"{prefix}__{variable}", "is no name of a header.")

    def _secret_fault(self, scheme: str, secret: Secret) -> str | None:
        text = secret.reveal()
        try:
            WebhookVerifier(scheme, (text,), header="x-signature")
        except UnusableSecretError as error:
            return str(error)
        if text.startswith(("whpk_", "whsk_")) and scheme == "standard":
            return None
        reason = guessable(text.rpartition("whsec_")[2], _LEAST_SECRET)  # `whsec_ret...` is no "secret"
        return _GUESSABLE.get(reason) if reason is not None else None


_GUESSABLE = {
    "published": "is a text that everybody knows",
    "placeholder": "is a placeholder",
    "too-short": f"has fewer than {_LEAST_SECRET} characters: it can be guessed",
    "few-distinct-bytes": "has too few different characters: it can be guessed",
    "repeated": "repeats itself: it can be guessed",
}


class WebhookStage:
    """Deliveries of one sender. `bases` are the spellings of the outside address; `dry`: copies are only reported."""

    layer = "webhook"
    keeps_body = KEPT_BODY

    def __init__(self, name: str, verifier: WebhookVerifier, bases: tuple[bytes, ...], *, dry: bool = False) -> None:
        self._scope = name.encode() + b"\x1d"
        self._verify = verifier.verify
        self._keep_s = verifier.keep_s
        self._bases = bases if verifier.by_address else ()
        self.dry = dry

    def check(self, x: Exchange) -> Verdict:
        """400 for what is not authentic, read from the raw bytes."""
        if x.has_body and (x.body is None or not x.body_complete):
            return _UNREAD
        delivery = Delivery(x.headers.get_all, x.body or b"", self._addresses(x))
        try:
            identity = self._verify(delivery, x.now)
        except SignatureFault as fault:
            return problem("invalid-signature", why=fault.code)
        x.signed = blake2b(self._scope + identity, digest_size=24).hexdigest()
        return None

    def ask(self, x: Exchange) -> Claim | None:
        """The record of this delivery; none for one that only report mode let pass."""
        return Claim(x.signed, b"", RUNNING_S) if x.signed else None

    def settle(self, x: Exchange, need: Claim, answer: Claimed | Taken | Unavailable) -> Verdict:
        """Go on with a delivery that is new; a copy gets what the first got."""
        if isinstance(answer, Claimed):
            x.claim = (need.key, answer.ticket)
            return None
        if isinstance(answer, Unavailable):
            return problem("unavailable", why=answer.reason, fields=((b"retry-after", b"10"),))
        if answer.answer is None:
            return _RUNNING
        kept = unpack(answer.answer)
        if self.dry or kept is None:
            return _KNOWN
        x.replayed = True
        return Reply(*kept)

    def conclude(self, x: Exchange, ending: Ending) -> Settle | None:
        """Keep the answer of what was processed; forget what failed, so that the sender may try again."""
        if x.claim is None:
            return None
        (key, ticket), x.claim = x.claim, None
        failed = ending.status >= 500 or ending.status in _TRY_AGAIN
        return Settle(key, ticket, None if failed else _kept(ending), self._keep_s)

    def _addresses(self, x: Exchange) -> tuple[bytes, ...]:
        if not self._bases:
            return ()
        path = x.raw_path or quote(x.path, safe=_PATH).encode()
        rest = path + b"?" + x.query if x.query else path
        return tuple(base + rest for base in self._bases)


def _kept(ending: Ending) -> bytes:
    """Status and type alone where the body streamed, or is too large."""
    if ending.body is not None:
        return pack(ending.status, ending.fields, ending.body)
    return pack(ending.status, tuple(field for field in ending.fields if field[0].lower() == b"content-type"), b"")


def verifiers(webhooks: Mapping[str, WebhookConfig]) -> dict[str, WebhookVerifier]:
    """One for each sender, made once."""
    return {name: config.verifier(name) for name, config in webhooks.items()}


def stage(
    name: str, known: Mapping[str, WebhookVerifier], public_url: str | None, *, dry: bool = False
) -> WebhookStage:
    """The stage of a route that says `webhook=name`. `ValueError`: no such sender is configured."""
    verifier = known.get(name.lower())
    if verifier is None:
        raise ValueError(f"says webhook={name!r}, but {_PREFIX}__{name.upper()}__SECRET is not set")
    return WebhookStage(
        name.lower(), verifier, address_spellings(public_url) if public_url is not None else (), dry=dry
    )
