"""What `portalshield routes` tells of each route: who may call it, what it takes, what is left open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from portalshield.flow import Plan, Step
from portalshield.model.policy import EffectivePolicy, Limit
from portalshield.model.setting import ConfigurationProblem
from portalshield.model.upload import Upload
from portalshield.policies import PolicyRow
from portalshield.routes import Route, Row
from portalshield.rules.patterns import PARAMETER, REST
from portalshield.settings import Settings

NOBODY = "anybody (nobody is authenticated)"
"""Who may come in where no user is established."""
_ALONG = frozenset(("HEAD", "OPTIONS"))
"""Methods that only accompany another one."""


@dataclass(frozen=True, slots=True)
class RouteReport:
    """One route and those of its methods that have the same policy.

    `method` is one, several (`GET|POST`), `*` for all (others) of a route that takes any, or `WS`. `decided`: somebody
    said something about it; else it has the strict default, where users are authenticated (`strict`). `match` is the
    pattern by which a policy covers it. `takes` and `opens` are words about what it accepts and what is not protected.
    """

    method: str
    path: str
    kind: str
    source: str
    access: str
    decided: bool
    limits: tuple[str, ...]
    layers: tuple[str, ...]
    body: str | None
    takes: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    strict: bool = False
    match: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that can be told of an application that does not start: routes whose policies are whole, what is wrong, and
    the senders of webhooks that anybody named."""

    routes: tuple[RouteReport, ...]
    problems: tuple[ConfigurationProblem, ...] = ()
    senders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """The methods of one route that have equal policies. `plans` has one for each, `label` names them together."""

    route: Route
    label: str
    plans: dict[str, Plan]

    @property
    def plan(self) -> Plan:
        """The plan of one of them: their policies are equal."""
        return next(iter(self.plans.values()))

    @property
    def where(self) -> str:
        """For people: `GET|POST /clients`."""
        return f"{self.label} {self.route.template}"


def reports(rows: Iterable[Row]) -> list[RouteReport]:
    """An entry per route and policy; HEAD and OPTIONS that only accompany another method are left out."""
    return [_report(entry) for entry in entries(rows)]


def senders(rows: Iterable[Row], policies: Iterable[PolicyRow], settings: Settings) -> tuple[str, ...]:
    """Every `webhook=` of routes and policies, and every sender that has settings; in lower case, sorted."""
    named = {row.route.terms(method).get("webhook") for row in rows for method in row.route.methods or ("POST",)}
    named |= {row.policy.terms.get("webhook") for row in policies}
    return tuple(sorted({name.lower() for name in (*named, *settings.webhook) if name}))


def entries(rows: Iterable[Row]) -> Iterator[Entry]:
    """The methods of each route, those with an equal policy together."""
    for row in rows:
        groups: dict[int, dict[str, Plan]] = {}
        known: list[Any] = []
        for method, plan in _told(row):
            mark = _mark(plan.policy)
            if mark not in known:
                known.append(mark)
            groups.setdefault(known.index(mark), {})[method] = plan
        most = max(groups.values(), key=len, default={})
        for plans in sorted(groups.values(), key=len):
            yield Entry(row.route, _label(row.route, plans, plans is most), plans)


def _told(row: Row) -> Iterator[tuple[str, Plan]]:
    if row.route.kind == "websocket":
        # A handshake is a GET: no other plan of this row is ever asked.
        yield from ((method, plan) for method, plan in row.plans.items() if method == "GET")
        return
    along = _ALONG if row.plans.keys() - _ALONG else frozenset(tuple(row.plans)[1:])
    yield from ((method, plan) for method, plan in row.plans.items() if method not in along)


def _mark(policy: EffectivePolicy) -> Any:
    """By identity: a body may be any type, also one that does not compare."""
    return (replace(policy, body=None, query=None), id(policy.body), id(policy.query))


def _label(route: Route, plans: dict[str, Plan], most: bool) -> str:
    if route.kind == "websocket":
        return "WS"
    return "*" if route.methods is None and most else "|".join(plans)


def _report(entry: Entry) -> RouteReport:
    route, policy = entry.route, entry.plan.policy
    steps = [step for plan in entry.plans.values() for step in plan.steps]
    return RouteReport(
        method=entry.label,
        path=route.template,
        kind=route.kind,
        source=route.source,
        access=access(entry.plan),
        decided=policy.declared,
        limits=tuple(_limits(policy)),
        layers=tuple(dict.fromkeys(step.traits.layer for step in steps)),
        body=type_name(policy.body) if policy.body is not None else None,
        takes=tuple(_takes(policy)),
        opens=tuple(_opens(policy)),
        strict=not policy.declared and enforced(entry.plan) > 0,
        match=pattern_of(route, entry.label),
    )


def pattern_of(route: Route, methods: str) -> str:
    """What a policy writes to cover this route: `GET /files/*`."""
    pieces = route.template[1:].split("/")
    segments = [_piece(segment, piece) for segment, piece in zip(route.segments, pieces, strict=False)]
    return f"{'GET' if methods == 'WS' else methods} /{'/'.join(segments)}"


def _piece(segment: str, piece: str) -> str:
    """A segment that mixes text and parameters is one parameter to a pattern."""
    if segment != PARAMETER:
        return REST if segment == REST else piece
    name = piece.partition("{")[2].partition("}")[0]
    return "{" + (name if name.isidentifier() else "id") + "}"


# -- who may call it --------------------------------------------------------------------------------------------------


def access(plan: Plan) -> str:
    """Who may come in, in a few words: what the stages of this plan enforce, not what the policy wishes."""
    policy = plan.policy
    if policy.health:
        return "anybody (health check)"
    signed = _signed(plan)
    if policy.public:
        return signed or "anybody"
    share = enforced(plan)
    if not share:
        words = [NOBODY if not authenticates(plan) else "anybody (authentication only reports)"]
    else:
        words = [_user(plan), *_grants(policy)]
        words += [f"asked of {share:.0%} only"] if share < 1 else []
    return ", ".join([*words, *([f"signed: {signed}"] if signed else [])])


def enforced(plan: Plan) -> float:
    """The share of requests that are refused without a user; 0 where nobody asks, or where that is only noted."""
    return max((step.traits.enforced for step in plan.steps if _establishes(step)), default=0.0)


def authenticates(plan: Plan) -> bool:
    """Some stage establishes who the user is, even if it only reports."""
    return any(map(_establishes, plan.steps))


def _establishes(step: Step) -> bool:
    return step.traits.layer == "auth" and not step.needs_principal


def _user(plan: Plan) -> str:
    policy = plan.policy
    if policy.cross_tenant:
        return "user of any tenant"
    if policy.tenant is False:
        return "any user"
    separated = any(step.traits.layer == "tenant" and step.traits.enforced > 0 for step in plan.steps)
    return "user of the tenant" if separated else "any user (tenants are not kept apart)"


def _grants(policy: EffectivePolicy) -> Iterator[str]:
    if policy.scopes:
        yield f"scopes {' '.join(policy.scopes)}"
    if policy.roles:
        yield f"roles {' or '.join(policy.roles)}"
    if policy.max_age is not None:
        yield f"login within {policy.max_age:g}s"
    if not policy.impersonation:
        yield "nobody impersonated"


def _signed(plan: Plan) -> str:
    """Whose signature is asked for, if any."""
    name = plan.policy.webhook
    if name is None:
        return ""
    checked = any(step.traits.layer == "webhook" and step.traits.enforced > 0 for step in plan.steps)
    return f"whoever {name} signs" if checked else f"anybody (the signature of {name} is not enforced)"


# -- what it takes, what is open --------------------------------------------------------------------------------------


def _limits(policy: EffectivePolicy) -> Iterator[str]:
    for limit in policy.limits:
        by = limit.by or (("ip",) if policy.public else ("subject",))
        extra = ", ".join(_extras(limit))
        yield f"{limit.quota} by {'+'.join(by)}" + (f" ({extra})" if extra else "")
    if policy.login is not None:
        yield f"failed logins by ip and {policy.login}"


def _extras(limit: Limit) -> Iterator[str]:
    if not isinstance(limit.cost, int):
        yield "costs what the application says"
    elif limit.cost != 1:
        yield f"costs {limit.cost}"
    if limit.override:
        yield "overrides"


def _takes(policy: EffectivePolicy) -> Iterator[str]:
    if policy.body is not None:
        yield f"body {type_name(policy.body)}"
    if policy.query is not None:
        yield f"query {type_name(policy.query)}"
    if policy.upload is not None:
        yield _upload(policy.upload)
    if policy.idempotent is not None:
        yield "once per Idempotency-Key" + (" (required)" if policy.idempotent.required else "")
    if policy.max_body is not None:
        yield f"at most {_size(policy.max_body)}"
    if policy.content_types:
        yield f"only {' or '.join(policy.content_types)}" if "*" not in policy.content_types else "any media type"


def _upload(upload: Upload) -> str:
    files = f"{upload.max_files} files " if upload.max_files > 1 else ""
    return f"upload {files}{' or '.join(upload.types)} up to {_size(upload.max_file)}"


def _opens(policy: EffectivePolicy) -> Iterator[str]:
    if not policy.csrf:
        yield "csrf off"
    if policy.allow_path:
        yield f"path may have {', '.join(sorted(kind.removeprefix('path-') for kind in policy.allow_path))}"
    if policy.mode is not None and policy.mode != "enforce":
        yield f"mode {policy.mode}"


_UNITS = ((1_000_000, "MB"), (1_048_576, "MiB"), (1_000, "KB"), (1_024, "KiB"))


def _size(size: int | str) -> str:
    """16000 -> 16KB; a text as its author wrote it."""
    if isinstance(size, str):
        return size.strip()
    factor, unit = next(((factor, unit) for factor, unit in _UNITS if size and size % factor == 0), (1, " bytes"))
    return f"{size // factor}{unit}"


def type_name(kind: Any) -> str:
    """A type as its author wrote it: `Client`, `list[Client]`, `Client | None`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is None or not arguments:
        return "None" if kind in (None, NoneType) else str(getattr(kind, "__name__", None) or kind)
    names = ["..." if argument is Ellipsis else type_name(argument) for argument in arguments]
    name = str(getattr(origin, "__name__", origin))
    return " | ".join(names) if name in ("Union", "UnionType") else f"{name}[{', '.join(names)}]"
