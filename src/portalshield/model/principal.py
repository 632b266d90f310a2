"""Who is calling: the verified principal. Frozen, so that a handler cannot alter the next request's identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


def _no_claims() -> Mapping[str, Any]:
    return _NO_CLAIMS


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller.

    `subject` and `tenant` are ids as text and compare exactly. `tenant` is the one active tenant the credential proves
    (None: it proves none). `actor` is who acts in the subject's name (impersonation), `auth_method` how the proof came
    (`bearer`, `cookie`, `application`), `issuer` who vouches, `expires_at` the end of the proof in Unix seconds.
    """

    subject: str
    tenant: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=_no_claims, repr=False, compare=False)
    auth_method: str = "application"
    actor: str | None = None
    issuer: str | None = None
    expires_at: float | None = None
    rate_key: str = field(init=False, repr=False, compare=False)
    """Issuer and subject as one text: what limits per subject count under."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_key", f"{self.issuer or ''}\x1f{self.subject}")
