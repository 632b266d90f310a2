"""What a route asks for: `Policy` in a table, `@public`, `@protect`, `@limit` on a handler, merged into one value.

Metadata hangs on the function itself (no registry), so a decorator works above or below the route decorator, on sync
and async functions and on class-based views. Default, policies from general to specific, then the decorators are merged
keyword by keyword: the last one that names a keyword wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, TypeVar, Unpack

METADATA = "__portalshield__"
"""The attribute under which a handler carries its terms."""

By = Literal["ip", "subject", "tenant"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Limit:
    """`quota` in the notation of `limits` (`5/minute`), counted `by` address, subject, tenant or a tuple of them.

    An empty `by` means the subject, on public routes the address. `override` replaces the default limits instead of
    adding to them. `cost` is what one request uses up.
    """

    quota: str
    by: tuple[By, ...] = ()
    cost: int = 1
    override: bool = False


class Terms(TypedDict, total=False):
    """The keywords of `Policy` and `@protect`."""

    public: bool
    """No credential needed; an unusable one counts as none."""
    tenant: str | Literal[False]
    """A further parameter that names the tenant on this route; False: a principal without a tenant is enough."""
    cross_tenant: bool
    """The route legitimately spans tenants (needs `roles`)."""
    owners: Mapping[str, Callable[[str], Any]]
    """Further object ids of this route: from the id as text to the tenant that owns it, or None; sync or async."""
    scopes: Iterable[str]
    """All of these must be granted."""
    roles: Iterable[str]
    """One of these must be held."""
    max_age: float | str
    """The user logged in less than this ago: seconds, or a duration such as `5m`."""
    impersonation: bool
    """False: nobody may act here in another user's name (a token with `act`)."""
    body: Any
    """A pydantic type; the body is validated against it before the handler runs."""
    max_body: int | str
    """Bytes, or a size such as `2MB`."""
    content_types: Iterable[str]
    """Media types a body may have; `*` for any or none."""
    mode: str
    """enforce, report, `report:25%` or off, for all layers of this route."""
    limits: Iterable[str | Limit]
    """Quotas; strings take `by`."""
    by: By | tuple[By, ...]
    """What the quotas of `limits` count by."""


KEYWORDS: frozenset[str] = frozenset(Terms.__annotations__)


@dataclass(frozen=True, slots=True)
class Policy:
    """Terms for every route that `match` covers: methods (`GET|POST` or `*`) and a path template.

    A template has literal segments, `{name}` for one segment and a last `*` for the rest; GET includes HEAD. A pattern
    that covers no route stops the start.
    """

    match: str
    terms: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, match: str, **terms: Unpack[Terms]) -> None:
        object.__setattr__(self, "match", match)
        object.__setattr__(self, "terms", normal(terms))


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """What holds for one route and method once everything was merged. `max_body` in bytes, `max_age` in seconds.

    None: the default."""

    public: bool = False
    health: bool = False
    tenant: str | Literal[False] | None = None
    cross_tenant: bool = False
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    max_age: float | None = None
    impersonation: bool = True
    body: Any = None
    max_body: int | str | None = None
    content_types: tuple[str, ...] = ()
    mode: str | None = None
    limits: tuple[Limit, ...] = ()
    owners: tuple[tuple[str, Callable[[str], Any]], ...] = ()
    declared: bool = False
    """Somebody decided something about this route; False: it has the strict default."""
    unserved: bool = False
    """Nothing serves this path as far as the table knows."""


def normal(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms with tuples for iterables and `Limit`s for quotas. Unknown keywords raise `TypeError`, by name."""
    unknown = sorted(set(terms) - KEYWORDS)
    if unknown:
        raise TypeError(f"unknown keyword {unknown[0]!r}; known are {', '.join(sorted(KEYWORDS))}")
    result = {name: value for name, value in terms.items() if name not in ("limits", "by")}
    for name in ("scopes", "roles", "content_types"):
        if name in result:
            result[name] = _texts(name, result[name])
    if result.get("cross_tenant") and not result.get("roles"):
        raise TypeError("cross_tenant=True needs roles=[...]: say who may span tenants")
    if "max_age" in result:
        result["max_age"] = _seconds(result["max_age"])
    if result.get("public") and any(result.get(name) for name in ("scopes", "roles", "tenant", "max_age")):
        raise TypeError("public=True contradicts scopes, roles, tenant and max_age: nobody need be there to ask")
    if "owners" in result:
        result["owners"] = tuple(dict(result["owners"]).items())
    if "limits" in terms:
        result["limits"] = _limits(terms["limits"], terms.get("by", ()))
    return result


def _texts(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"{name} is a list of texts, not one text")
    return tuple(value)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(age: float | str) -> float:
    """`5m` or 300 -> 300. A fault shows where the decorator stands."""
    if isinstance(age, str) and age[:-1].isdecimal() and age[:-1].isascii() and age[-1] in _UNITS:
        age = int(age[:-1][:9]) * _UNITS[age[-1]]
    if isinstance(age, (bool, str)) or not 1 <= age <= 10**9:
        raise TypeError('max_age is a number of seconds above 0 or a duration: "5m"')
    return float(age)


def _limits(quotas: Iterable[str | Limit], by: By | tuple[By, ...]) -> tuple[Limit, ...]:
    if isinstance(quotas, str):
        raise TypeError("limits is a list of quotas, not one text")
    keys = _by(by)
    return tuple(quota if isinstance(quota, Limit) else Limit(quota, keys) for quota in quotas)


def _by(by: By | tuple[By, ...]) -> tuple[By, ...]:
    keys: tuple[By, ...] = (by,) if isinstance(by, str) else tuple(by)
    if not set(keys) <= {"ip", "subject", "tenant"}:
        raise TypeError("by is ip, subject, tenant or a tuple of them")
    return keys


# -- decorators -------------------------------------------------------------------------------------------------------


def terms_of(target: Any) -> Mapping[str, Any]:
    """What the decorators said of a handler, a class-based view or one of its methods; empty if nothing."""
    while hasattr(target, "func") and not isinstance(target, type):  # functools.partial
        target = target.func
    if isinstance(target, type):
        return _of_class(target)
    found = getattr(target, METADATA, None)
    return found if isinstance(found, Mapping) else {}


def _of_class(target: type) -> Mapping[str, Any]:
    """A class-based view has what its bases ask for, but nobody's `public` is inherited."""
    merged: dict[str, Any] = {}
    for kind in reversed(target.__mro__):
        terms = vars(kind).get(METADATA, {})
        merged.update({name: value for name, value in terms.items() if kind is target or name != "public"})
    return merged


def _attach(target: F, terms: Mapping[str, Any]) -> F:
    held: Mapping[str, Any] = vars(target).get(METADATA, {}) if hasattr(target, "__dict__") else {}
    merged = {**held, **terms}
    if "limits" in held and "limits" in terms:
        merged["limits"] = held["limits"] + terms["limits"]
    setattr(target, METADATA, merged)
    return target


def public(handler: F) -> F:
    """No credential is needed for this handler."""
    return _attach(handler, {"public": True})


def protect(**terms: Unpack[Terms]) -> Callable[[F], F]:
    """Terms for this handler; the keywords are those of `Policy`. `@protect()` states the strict default."""
    settled = normal(terms) if terms else {"public": False}

    def decorate(handler: F) -> F:
        return _attach(handler, settled)

    return decorate


def limit(quota: str, by: By | tuple[By, ...] = (), *, cost: int = 1, override: bool = False) -> Callable[[F], F]:
    """A quota for this handler (`5/minute`), stackable; see `Limit`."""
    settled = {"limits": (Limit(quota, _by(by), cost, override),)}

    def decorate(handler: F) -> F:
        return _attach(handler, settled)

    return decorate
