"""Which route has which policy: the default, the table of policies and the decorators, a plan per route and method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from portalshield.flow import Plan
from portalshield.model.policy import PROTECTIVE, EffectivePolicy, Policy
from portalshield.model.setting import ConfigurationProblem
from portalshield.plan import Build, compile_policy, share_of
from portalshield.routes import Route, Row
from portalshield.rules.paths import METHODS
from portalshield.rules.patterns import Pattern, parse_pattern
from portalshield.settings import Settings
from portalshield.stores import is_shared


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
    if merged.get("webhook") and merged.get("public", True) and not PROTECTIVE.isdisjoint(merged):
        raise ValueError("asks for a webhook's signature and for a principal: say public=False to ask for both")
    return EffectivePolicy(**merged, health=health, declared=declared or bool(terms))


def _merge(merged: dict[str, Any], terms: Mapping[str, Any]) -> None:
    """Keyword by keyword. Whoever asks something of the caller takes back a more general `public`; whoever wants a
    sender's signature instead takes back what was asked of callers."""
    if "public" not in terms and not PROTECTIVE.isdisjoint(terms):
        merged.pop("public", None)
    if terms.get("webhook") and terms.get("public"):
        for name in PROTECTIVE:
            merged.pop(name, None)
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
                said = str(error) if str(error).startswith("has a limit") else f"has a policy that {error}"
                problems.append(ConfigurationProblem("PS-POLICY-004", where, f"{said}."))
                break
        compiled.append(row)
    if (b.settings.workers or 1) > 1:
        problems += records_apart(b.settings, plans.values())
    return compiled, problems


def processes_once(policy: EffectivePolicy) -> bool:
    """The route keeps records of what was processed."""
    return policy.webhook is not None or policy.idempotent is not None


def records_apart(settings: Settings, plans: Iterable[Plan]) -> Iterator[ConfigurationProblem]:
    """What is wrong where there are several workers: who does not know of the others' records processes a copy."""
    if settings.env != "production" or is_shared(settings.storage.uri):
        return
    if any(processes_once(plan.policy) for plan in plans):
        yield ConfigurationProblem(
            "PS-STORE-003",
            "PORTALSHIELD_STORAGE",
            "keeps the records of webhooks and idempotency keys in each worker, and there are several.",
            "Set REDIS_URL, or serve with one worker.",
        )


def _plan(b: Build, rows: list[PolicyRow], route: Route, method: str, plans: dict[Any, Plan]) -> Plan:
    """The plan of one route and method; routes whose policies are equal share theirs. `ValueError`: a wrong value."""
    policy = effective_policy(b.settings, rows, route, method)
    if b.authority is not None and b.authority.admits_anybody and not policy.public:
        _refuse_strangers(b.settings, policy)
    scope = f"{'GET' if method == 'HEAD' else method} {route.template}" if policy.limits else ""
    safe = method in ("GET", "HEAD")
    # By identity: a body may be any type, also one that has no hash.
    key = (replace(policy, body=None, query=None), id(policy.body), id(policy.query), scope, safe)
    if key not in plans:
        plans[key] = compile_policy(b, policy, scope, safe=safe)
    return plans[key]


def _refuse_strangers(settings: Settings, policy: EffectivePolicy) -> None:
    """Where tokens of every directory are accepted, nothing but the tenant keeps their users apart."""
    if policy.cross_tenant:
        raise ValueError("spans tenants, while each directory's own administrators hand out its roles")
    if share_of(settings, policy, "tenant") != 1:
        raise ValueError("does not enforce tenants, while AUTH__ISSUER lets every directory in")


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
