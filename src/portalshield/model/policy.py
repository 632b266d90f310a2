"""What a route asks for: `Policy` in a table, `@public`, `@protect`, `@limit` on a handler, merged into one value.

Metadata hangs on the function itself (no registry), so a decorator works above or below the route decorator, on sync
and async functions and on class-based views. Default, policies from general to specific, then the decorators are merged
keyword by keyword: the last one that names a keyword wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from portalshield.model.upload import Upload, as_upload
from portalshield.model.view import Price

SPELLINGS = frozenset(
    f"path-{kind}"
    for kind in ("double-slash", "backslash", "parameter", "percent", "not-nfc", "encoded-slash", "encoded-backslash")
)
"""Spellings of a path that a route may take upon itself: dot segments, controls and what is no UTF-8 never."""
METADATA = "__portalshield__"
"""The attribute under which a handler carries its terms."""

By = Literal["ip", "subject", "tenant"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Limit:
    """`quota` in the notation of `limits` (`5/minute`), counted `by` address, subject, tenant or a tuple of them.

    An empty `by` means the subject, on public routes the address. `override` replaces the default limits instead of
    adding to them. `cost` is what one request uses up: a number, or a function that tells it from the request (see
    `RequestView`). `TypeError` where it is neither.
    """

    quota: str
    by: tuple[By, ...] = ()
    cost: int | Price = 1
    override: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.cost, bool) or (isinstance(self.cost, int) and self.cost < 1):
            raise TypeError("cost is a whole number above 0, or a function of the request that returns one")
        if not isinstance(self.cost, int) and (not callable(self.cost) or iscoroutinefunction(self.cost)):
            raise TypeError("cost is a whole number or a function of the request that does not wait (no async)")


@dataclass(frozen=True, slots=True)
class Idempotent:
    """A repetition under the same `Idempotency-Key` is answered, not processed again.

    `required`: every request must have a key.
    """

    required: bool = False


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
    query: Any
    """A pydantic type; the query is validated against it, likewise."""
    upload: Upload | Mapping[str, Any]
    """The files that this route takes: `Upload(types=["image/png"], max_file="10MB", max_files=5)`."""
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
    webhook: str
    """The sender whose signature every request carries, by its name in `WEBHOOK__<NAME>`; makes the route public."""
    idempotent: bool | Idempotent | Mapping[str, bool]
    """Take `Idempotency-Key` on requests that change something."""
    login: str
    """The field of the body that names the account: failed attempts are counted per account and address."""
    csrf: bool
    """False: requests that a browser sends for a foreign page may carry a cookie here."""
    allow_path: Iterable[str]
    """Spellings of the path that this route takes and no other: `encoded-slash`, `double-slash`, ..."""


KEYWORDS: frozenset[str] = frozenset(Terms.__annotations__)
PROTECTIVE = frozenset(("scopes", "roles", "tenant", "cross_tenant", "owners", "max_age", "impersonation"))
"""Keywords that ask something of the caller."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Terms for every route that `match` covers: methods (`GET|POST` or `*`) and a path template.

    A template has literal segments, `{name}` for one segment and a last `*` for the rest; GET includes HEAD. A pattern
    that covers no route stops the start, unless it ends in that `*`.
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
    query: Any = None
    upload: Upload | None = None
    max_body: int | str | None = None
    content_types: tuple[str, ...] = ()
    mode: str | None = None
    limits: tuple[Limit, ...] = ()
    login: str | None = None
    csrf: bool = True
    allow_path: frozenset[str] = frozenset()
    """As `rules.paths` names them."""
    webhook: str | None = None
    idempotent: Idempotent | None = None
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
    for name in ("scopes", "roles", "content_types", "allow_path"):
        if name in result:
            result[name] = _texts(name, result[name])
    if "allow_path" in result:
        result["allow_path"] = _spellings(result["allow_path"])
    if result.get("cross_tenant") and not result.get("roles"):
        raise TypeError("cross_tenant=True needs roles=[...]: say who may span tenants")
    if "max_age" in result:
        result["max_age"] = _seconds(result["max_age"])
    if "webhook" in result:
        _public_for_sender(result)
    if "idempotent" in result:
        result["idempotent"] = _idempotent(result["idempotent"])
    if result.get("public") and any(result.get(name) for name in ("scopes", "roles", "tenant", "max_age")):
        raise TypeError("public=True contradicts scopes, roles, tenant and max_age: nobody need be there to ask")
    if "login" in result and not (isinstance(result["login"], str) and result["login"].strip()):
        raise TypeError('login is the name of the field that holds the account: "email"')
    if "upload" in result and result["upload"] is not None:
        result["upload"] = as_upload(result["upload"])
        if result.get("body") is not None:
            raise TypeError("upload contradicts body: a form with files is no JSON")
    if "owners" in result:
        result["owners"] = tuple(dict(result["owners"]).items())
    if "limits" in terms:
        result["limits"] = _limits(terms["limits"], terms.get("by", ()))
    return result


def _public_for_sender(result: dict[str, Any]) -> None:
    """The signature is the credential: nobody else need be there, unless `public=False` says so."""
    if not isinstance(result["webhook"], str) or not result["webhook"].strip():
        raise TypeError('webhook is the name of a sender in WEBHOOK__<NAME>: "stripe"')
    if result.get("idempotent"):
        raise TypeError("webhook contradicts idempotent: a delivery is processed once by itself")
    if result.setdefault("public", True) and not PROTECTIVE.isdisjoint(result):
        raise TypeError("webhook asks for a signature, not for a principal: leave scopes, roles and tenant out")


def _idempotent(given: object) -> Idempotent | None:
    """In a policy file a table stands for `Idempotent`: `{required = true}`."""
    if isinstance(given, bool):
        return Idempotent() if given else None
    if isinstance(given, Mapping) and given.keys() <= {"required"}:
        given = Idempotent(**given)
    if not isinstance(given, Idempotent) or not isinstance(given.required, bool):
        raise TypeError("idempotent is True, False or Idempotent(required=True)")
    return given


def _texts(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"{name} is a list of texts, not one text")
    return tuple(value)


def _spellings(kinds: tuple[str, ...]) -> frozenset[str]:
    found = frozenset(f"path-{kind}" for kind in kinds)
    if "path-encoded-backslash" in found:
        found |= {"path-backslash"}  # which it is once it was decoded
    if not found <= SPELLINGS:
        known = ", ".join(sorted(slug.removeprefix("path-") for slug in SPELLINGS))
        raise TypeError(f"allow_path takes {known}; dot segments and controls are never let through")
    return found


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
    return tuple(dict.fromkeys(keys))


# -- decorators -------------------------------------------------------------------------------------------------------


def terms_of(target: Any) -> Mapping[str, Any]:
    """What the decorators said of a handler, a class-based view or one of its methods; empty if nothing."""
    while hasattr(target, "func") and not isinstance(target, type):  # functools.partial
        target = target.func
    if isinstance(target, type):
        return _of_class(target)
    found = getattr(target, METADATA, None)
    return found if isinstance(found, Mapping) else {}


def terms_of_view(view_class: type, method: str) -> dict[str, Any]:
    """Those of a class-based view for one method: the class first, then what answers the method (GET answers HEAD)."""
    handler = getattr(view_class, method.lower(), None)
    if handler is None and method == "HEAD":
        handler = getattr(view_class, "get", None)
    return {**terms_of(view_class), **terms_of(handler)}


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


def limit(
    quota: str, by: By | tuple[By, ...] = (), *, cost: int | Price = 1, override: bool = False
) -> Callable[[F], F]:
    """A quota for this handler (`5/minute`), stackable; see `Limit`. `cost` may be a function of a `RequestView`."""
    settled = {"limits": (Limit(quota, _by(by), cost, override),)}

    def decorate(handler: F) -> F:
        return _attach(handler, settled)

    return decorate
