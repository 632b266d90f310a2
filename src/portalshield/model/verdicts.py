"""What a stage answers: nothing (go on), a `Problem` (a refusal) or a `Reply` (an early answer).

Both are values, never exceptions: an exception in a stage is a bug, and a bug refuses the request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields as they go on the wire: lower-case name and value, repeats kept."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One entry of the catalogue: what a client may learn about a refusal (RFC 9457).

    `slug` ends the problem's `type` URN, `title` is constant per type, `status` is the HTTP status.
    """

    slug: str
    title: str
    status: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal. `why` is for the log alone: a fixed slug, never a value of the request.

    `fields` are extra header fields (a challenge, `Retry-After`), `members` extra members of the problem document that
    the catalogue allows (`errors` of a 422, `limit` of a 429).
    """

    type: ProblemType
    why: str = ""
    fields: Fields = ()
    members: tuple[tuple[str, Any], ...] = ()
    ready: Any = field(default=None, init=False, repr=False, compare=False)
    """What of its document is the same for every request, once somebody has made it (wire)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An early answer that is no refusal: a preflight, a redirect to the login page."""

    status: int
    fields: Fields = ()
    body: bytes = b""


Verdict = Problem | Reply | None


def _catalogue() -> dict[str, ProblemType]:
    rows = (
        ("malformed-request", "The request is malformed", 400),
        ("invalid-signature", "The signature is not valid", 400),
        ("idempotency-key-required", "An Idempotency-Key is required", 400),
        ("unauthenticated", "Authentication is required", 401),
        ("invalid-token", "The access token is invalid", 401),
        ("insufficient-user-authentication", "A more recent login is required", 401),
        ("insufficient-scope", "The access token does not allow this", 403),
        ("no-tenant", "No tenant is active", 403),
        ("origin-not-allowed", "This origin is not allowed", 403),
        ("csrf-refused", "Cross-site request refused", 403),
        ("not-found", "Not found", 404),
        ("body-timeout", "The body did not arrive in time", 408),
        ("in-flight", "The same request is still being processed", 409),
        ("answer-not-kept", "This request was processed before; its answer was not kept", 409),
        ("body-too-large", "The body is too large", 413),
        ("uri-too-long", "The address is too long", 414),
        ("unsupported-media-type", "This media type is not supported", 415),
        ("host-not-allowed", "This host is not served here", 421),
        ("invalid-payload", "The payload is not valid", 422),
        ("idempotency-key-reused", "This Idempotency-Key belongs to another request", 422),
        ("rate-limited", "Too many requests", 429),
        ("headers-too-large", "The header fields are too large", 431),
        ("internal-error", "Internal error", 500),
        ("unavailable", "Temporarily unavailable", 503),
    )
    return {slug: ProblemType(slug, title, status) for slug, title, status in rows}


CATALOGUE: dict[str, ProblemType] = _catalogue()
"""Every refusal that a client can see, by slug."""


def problem(slug: str, why: str = "", fields: Fields = (), **members: Any) -> Problem:
    """A `Problem` of the catalogue; an unknown slug is a programming error (`KeyError`)."""
    return Problem(CATALOGUE[slug], why, fields, tuple(members.items()))


def unavailable(why: str, retry_s: int = 5) -> Problem:
    """503: what the decision needs is away for now. `retry_s`: when a client may ask again."""
    return problem("unavailable", why=why, fields=((b"retry-after", b"%d" % retry_s),))
