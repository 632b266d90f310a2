"""Settings and policies become immutable plans: the stages of each policy, in the one order there is.

The order and its reasons stand in `ORDER`; which route has which policy is decided here once, before the first request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from portalshield.flow import Plan, compile_plan
from portalshield.layers import (
    auth,
    body,
    cors,
    csrf,
    headers,
    hosts,
    json,
    owners,
    rate,
    response_guard,
    schema,
    tenant,
)
from portalshield.model.policy import EffectivePolicy, Policy
from portalshield.model.setting import ConfigurationProblem
from portalshield.model.stage import Stage
from portalshield.routes import Route, Row
from portalshield.rules.authority import Authority
from portalshield.rules.modes import effective
from portalshield.rules.origins import OriginPolicy, canonical_origin
from portalshield.rules.paths import METHODS
from portalshield.rules.patterns import Pattern, parse_pattern
from portalshield.settings import Settings


@dataclass(frozen=True, slots=True)
class Build:
    """What stages are compiled from. `authority` verifies tokens; `identifies` and `looks_up`: the application does."""

    settings: Settings
    authority: Authority | None
    identifies: bool
    looks_up: bool
    cors: cors.CorsStage
    csrf: csrf.CsrfStage
    headers: headers.HeadersStage
    owners: Mapping[str, owners.Owner]

    @property
    def authenticates(self) -> bool:
        """Somebody establishes a principal; without, the auth and tenant layers are off (`AUTH=none`)."""
        return self.identifies or self.authority is not None


def build(
    settings: Settings,
    authority: Authority | None,
    *,
    identifies: bool,
    looks_up: bool,
    owned: Mapping[str, owners.Owner],
) -> Build:
    """Compile what all policies share."""
    credentials = settings.cors.allow_credentials or settings.auth.cookie_name is not None
    origins = OriginPolicy(settings.cors.allow_origins, credentials=credentials, development=settings.development)
    named = settings.csrf.trusted_origins or (settings.cors.allow_origins if settings.cors.allow_credentials else ())
    trusted = frozenset(canonical_origin(origin).encode() for origin in named if "*" not in origin)
    return Build(
        settings,
        authority,
        identifies,
        looks_up,
        cors.CorsStage(settings.cors, origins),
        csrf.CsrfStage(trusted),
        headers.HeadersStage(settings.headers, shares_across_origins=bool(settings.cors.allow_origins)),
        owned,
    )


@dataclass(frozen=True, slots=True)
class _Positions:
    """The stages of one policy that hold two positions in the order, or that others depend on."""

    safe: bool
    """A GET or HEAD changes nothing: there is no forgery to look for."""
    rate_fields: Stage | None
    early_rate: Stage | None
    late_rate: Stage | None
    early_tenant: Stage | None
    late_tenant: tenant.TenantBodyStage | None
    early_owners: Stage | None
    late_owners: owners.OwnerStage | None
    guard: Stage | None
    json: Stage | None
    schema: Stage | None

    @property
    def judges_body(self) -> bool:
        judges = (self.late_tenant, self.late_owners, self.json, self.schema)
        return any(stage is not None for stage in judges)

    @property
    def form_names(self) -> frozenset[str]:
        """The fields that are judged in multipart forms."""
        judges = (self.late_tenant, self.late_owners)
        return frozenset(name for stage in judges if stage is not None for name in stage.names)


Place = Callable[[Build, EffectivePolicy, _Positions], "Stage | None"]

ORDER: tuple[tuple[Place, str], ...] = (
    (lambda b, p, s: hosts.stage(b.settings.hosts, p), "a foreign Host must not even learn whether a route exists"),
    (lambda b, p, s: b.cors, "a preflight carries no credentials: it is answered before anybody asks for them"),
    (lambda b, p, s: s.early_rate, "cheap, and it protects everything dearer behind it, token checks included"),
    (lambda b, p, s: None if s.safe else b.csrf, "needs no principal; refuses before a cookie is looked at"),
    (lambda b, p, s: _principal(b, p), "everything behind it speaks about a verified principal"),
    (lambda b, p, s: auth.grants(p), "own tenant but missing scope is 403, told only to who is known"),
    (lambda b, p, s: s.early_tenant, "ids in path, query and header are judged before a byte of the body is read"),
    (lambda b, p, s: s.early_owners, "object ids, once the cheap comparison of tenant ids has passed"),
    (lambda b, p, s: s.late_rate, "counts verified subjects and tenants, so it stands behind them"),
    (lambda b, p, s: _body(b, p, s), "bounds what the next ones parse"),
    (lambda b, p, s: s.json, "one strict parse for tenants and schema; what it refuses nobody else reads"),
    (lambda b, p, s: s.late_tenant, "a foreign tenant is 404 even where the schema would say more"),
    (lambda b, p, s: s.late_owners, "object ids in the body, likewise"),
    (lambda b, p, s: s.schema, "the dearest check, on a request that everybody else let through"),
    (lambda b, p, s: b.headers, "adds to the response only, behind whatever the others added"),
    (lambda b, p, s: s.rate_fields, "tells about everything that was counted, once"),
    (lambda b, p, s: s.guard, "reads what the handler answered"),
)  # fmt: skip
"""What stands where, and why there."""


def _body(b: Build, policy: EffectivePolicy, positions: _Positions) -> Stage:
    return body.stage(b.settings.body, policy, reads=positions.judges_body, names=positions.form_names)


def _principal(b: Build, policy: EffectivePolicy) -> Stage | None:
    if b.identifies:
        return auth.IdentifyStage(policy)
    if b.authority is None or policy.health:
        return None
    config = b.settings.auth
    return auth.BearerStage(b.authority, policy=policy, cookie=config.cookie_name, login_url=config.login_url)


def compile_policy(b: Build, policy: EffectivePolicy, route: str, *, safe: bool = False) -> Plan:
    """All stages of one policy, those that are off left out.

    `route` names it in the keys of its limits; `safe`: it is only used for GET and HEAD.
    """
    config = b.settings
    json_stage = json.JsonStage(config.body.max_depth, config.body.max_keys, config.body.max_items)
    scoped = b.authenticates and _share(config, policy, "tenant") is not None
    tenants = tenant.stages(config.tenant, policy, looks_up=b.looks_up) if scoped else (None, None)
    early_owners, late_owners, guard = _object_stages(b, policy, scoped)
    limits = rate.stages(config.rate, policy, route)
    positions = _Positions(
        safe,
        rate.RateFieldsStage(legacy=config.rate.legacy_headers) if any(limits) else None,
        *limits,
        *tenants,
        early_owners,
        late_owners,
        guard,
        json_stage if _share(config, policy, "json") is not None else None,
        schema.SchemaStage(policy.body) if policy.body is not None else None,
    )
    found = (place(b, policy, positions) for place, _ in ORDER)
    stages = [(stage, _share(config, policy, stage.layer)) for stage in found if stage is not None]
    return compile_plan(policy, [(stage, share) for stage, share in stages if share is not None])


def _object_stages(
    b: Build, policy: EffectivePolicy, scoped: bool
) -> tuple[Stage | None, owners.OwnerStage | None, Stage | None]:
    """Owners at both positions, and the response guard: for routes of one tenant."""
    if not scoped or policy.public or policy.cross_tenant:
        return None, None, None
    guard = response_guard.ResponseGuardStage(tenant.fields_of(b.settings.tenant, policy))
    owned = {**b.owners, **dict(policy.owners)}
    if not owned:
        return None, None, guard
    return owners.OwnerStage(owned, in_body=False), owners.OwnerStage(owned, in_body=True), guard


def _share(settings: Settings, policy: EffectivePolicy, layer: str) -> float | None:
    named = settings.mode.of(layer)
    share = effective(layer, policy.mode, named, settings.mode.default)
    if layer == "body" and share is None:
        return 0.0  # a body that others judge is read whatever its own mode
    if layer == "response_guard" and share is not None and named is None and policy.mode is None:
        return share if settings.development else 0.0
    return share


# -- which route has which policy -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A policy with its compiled pattern and where it was written."""

    policy: Policy
    pattern: Pattern
    variable: str
    health: bool = False


def policy_rows(settings: Settings, policies: Iterable[Policy]) -> tuple[list[PolicyRow], list[ConfigurationProblem]]:
    """All policies, from general to specific, and those whose pattern is none."""
    named = [(Policy(text, public=True), "PORTALSHIELD_PUBLIC", False) for text in settings.public]
    named += [(Policy(text, public=True), "PORTALSHIELD_HEALTH", True) for text in settings.health]
    named += [(policy, "Policy", False) for policy in policies]
    rows: list[PolicyRow] = []
    problems: list[ConfigurationProblem] = []
    for number, (policy, variable, health) in enumerate(named, 1):
        try:
            rows.append(PolicyRow(policy, parse_pattern(policy.match), variable, health))
        except ValueError as error:
            problems.append(ConfigurationProblem("PS-POLICY-001", variable, f"pattern {number} {error}."))
    rows.sort(key=lambda row: row.pattern.specificity)
    return rows, problems


def effective_policy(settings: Settings, rows: Iterable[PolicyRow], route: Route, method: str) -> EffectivePolicy:
    """Default, policies from general to specific, then the decorators, keyword by keyword."""
    methods = frozenset((method,))
    merged: dict[str, Any] = {}
    health = declared = False
    if route.static or (route.documentation and settings.development):
        merged["public"] = declared = True
    for row in rows:
        if row.pattern.covers(methods, route.segments):
            _merge(merged, row.policy.terms)
            health = health or row.health
            declared = True
    terms = route.terms(method)
    _merge(merged, terms)
    return EffectivePolicy(**merged, health=health, declared=declared or bool(terms))


_PROTECTIVE = frozenset(("scopes", "roles", "tenant", "cross_tenant", "owners", "max_age", "impersonation"))


def _merge(merged: dict[str, Any], terms: Mapping[str, Any]) -> None:
    """Keyword by keyword. Whoever asks something of the caller takes back a more general `public`."""
    if "public" not in terms and not _PROTECTIVE.isdisjoint(terms):
        merged.pop("public", None)
    merged.update(terms)


def compile_rows(
    b: Build, rows: list[PolicyRow], routes: Iterable[Route]
) -> tuple[list[Row], list[ConfigurationProblem]]:
    """A row per route with the plan of each method; policies whose pattern covers no route are problems."""
    listed = list(routes)
    plans: dict[Any, Plan] = {}
    compiled: list[Row] = []
    problems = list(_unmatched(rows, listed))
    for route in listed:
        row = Row(route)
        for method in sorted(route.methods or METHODS):
            try:
                row.plans[method] = _plan(b, rows, route, method, plans)
            except (TypeError, ValueError) as error:
                where = f"{method} {route.template}"
                problems.append(ConfigurationProblem("PS-POLICY-004", where, f"has a policy that {error}."))
                break
        compiled.append(row)
    return compiled, problems


def _plan(b: Build, rows: list[PolicyRow], route: Route, method: str, plans: dict[Any, Plan]) -> Plan:
    """The plan of one route and method; routes whose policies are equal share theirs. `ValueError`: a wrong value."""
    policy = effective_policy(b.settings, rows, route, method)
    scope = f"{'GET' if method == 'HEAD' else method} {route.template}" if policy.limits else ""
    safe = method in ("GET", "HEAD")
    # By identity: a body may be any type, also one that has no hash.
    key = (replace(policy, body=None), id(policy.body), scope, safe)
    if key not in plans:
        plans[key] = compile_policy(b, policy, scope, safe=safe)
    return plans[key]


def _unmatched(rows: Iterable[PolicyRow], routes: list[Route]) -> Iterable[ConfigurationProblem]:
    for row in rows:
        if row.pattern.segments[-1] == "*" or any(row.pattern.covers(r.methods, r.segments) for r in routes):
            continue
        yield ConfigurationProblem(
            "PS-POLICY-003",
            row.variable,
            f'"{row.policy.match}" covers no route.',
            "Compare it with what `portalshield routes` prints.",
        )


def unserved_plans(b: Build) -> tuple[Plan, Plan]:
    """The plans of paths that no route serves: strict, and public for a method or slash that is only misspelt."""
    strict = compile_policy(b, EffectivePolicy(unserved=True), "")
    return strict, compile_policy(b, EffectivePolicy(public=True), "")
