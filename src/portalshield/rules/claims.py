"""From verified claims to a principal. Paths are JSON pointers (RFC 6901): claim names contain dots and URLs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portalshield.model.principal import Principal

WRITABLE = frozenset(("user_metadata", "unsafe_metadata", "raw_user_meta_data"))
"""Members that a user can write himself: never a source of a tenant or a role."""

UNNAMED_ACTOR = "(unnamed)"
"""Somebody acts in the subject's name, but the token does not say who in a way that can be read."""

_MAX_ID = 255
Pointer = tuple[str, ...]


def parse_pointer(text: str) -> Pointer:
    """`/app_metadata/tenant` or a bare member name -> the path. `ValueError` where a user could write the value."""
    if not text:
        raise ValueError("is empty: write /tenant_id")
    if not text.startswith("/"):
        text = "/" + text.replace("~", "~0").replace("/", "~1")
    pointer = tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))
    if not WRITABLE.isdisjoint(pointer):
        raise ValueError("points into metadata that users can write themselves")
    return pointer


def at(claims: Mapping[str, Any], pointer: Pointer) -> Any:
    """The value at the pointer, None if it is not there."""
    value: Any = claims
    for part in pointer:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def identifier(value: Any) -> str | None:
    """An id as text: a string or a whole number of 1 to 255 printable characters, else None."""
    if type(value) is int:
        value = str(value)
    if type(value) is not str or not 0 < len(value) <= _MAX_ID or not value.isprintable():
        return None
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Roles and scopes come as a list or as one space-separated text (RFC 8693, section 4.2)."""
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, (list, tuple)):
        return tuple(item for item in value if isinstance(item, str))
    return ()


def authenticated_at(claims: Mapping[str, Any]) -> float | None:
    """When the user last proved who he is, in Unix seconds; None where the claims do not say.

    `auth_time` (OpenID Connect Core, section 2), else the newest `amr` entry with a timestamp (Supabase), else `iat`
    less the minutes of `fva` (Clerk; -1: never), else `iat`.
    """
    if "auth_time" in claims:
        return _seconds(claims["auth_time"])
    issued_at = _seconds(claims.get("iat"))
    methods = claims.get("amr")
    if isinstance(methods, (list, tuple)):
        times = [_seconds(method.get("timestamp")) for method in methods if isinstance(method, Mapping)]
        if times:
            return max((time for time in times if time is not None), default=None)
    if "fva" in claims:
        ages = claims["fva"]
        minutes = _seconds(ages[0]) if isinstance(ages, (list, tuple)) and ages else None
        return issued_at - 60 * minutes if issued_at is not None and minutes is not None else None
    return issued_at


def _seconds(value: Any) -> float | None:
    """A JSON number >= 0, else None; an absurdly large int would be no float."""
    return value if (type(value) is int or type(value) is float) and 0 <= value < 1e15 else None


def actor_of(claims: Mapping[str, Any]) -> str | None:
    """Who acts in the subject's name (RFC 8693, section 4.1); None: the subject himself."""
    actor = claims.get("act")
    if actor is None:
        return None
    return (identifier(actor.get("sub")) if isinstance(actor, Mapping) else None) or UNNAMED_ACTOR


@dataclass(frozen=True, slots=True)
class ClaimMap:
    """Where subject, tenant, roles and scopes stand; `tenants` are tried in order, the first that is there counts."""

    subject: Pointer = ("sub",)
    tenants: tuple[Pointer, ...] = (("tenant_id",),)
    roles: tuple[Pointer, ...] = (("roles",), ("role",))
    scopes: tuple[Pointer, ...] = (("scope",), ("scp",))

    def principal(self, claims: Mapping[str, Any], *, auth_method: str) -> Principal | None:
        """The principal these (frozen) claims prove; None if the subject is missing or no id."""
        subject = identifier(at(claims, self.subject))
        if subject is None:
            return None
        found = (identifier(at(claims, pointer)) for pointer in self.tenants)
        return Principal(
            subject=subject,
            tenant=next((tenant for tenant in found if tenant is not None), None),
            roles=self._first(claims, self.roles),
            scopes=self._first(claims, self.scopes),
            claims=claims,
            auth_method=auth_method,
            actor=actor_of(claims),
            issuer=claims.get("iss"),
            expires_at=claims.get("exp"),
        )

    def _first(self, claims: Mapping[str, Any], pointers: tuple[Pointer, ...]) -> tuple[str, ...]:
        for pointer in pointers:
            value = at(claims, pointer)
            if value is not None:
                return texts(value)
        return ()
