"""`portalshield explain`: which layer decides what about one request. Needs are answered dry, stores untouched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from portalshield.asgi.fields import headers_of
from portalshield.flow import Step, insane, walk
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    Answer,
    AskOwner,
    Body,
    Claim,
    Claimed,
    Count,
    FetchKeys,
    GiveBack,
    Hit,
    Identified,
    Identify,
    Need,
    Owners,
    ReadBody,
    Settle,
    Settled,
    TenantOf,
    Tenants,
    Unavailable,
    Work,
    Worked,
)
from portalshield.model.verdicts import Problem, Verdict
from portalshield.report import access
from portalshield.routes import Table


@dataclass(frozen=True, slots=True)
class Decision:
    """What one stage said: `passes`, `skipped`, a status with the refusal's slug, and why."""

    layer: str
    stage: str
    outcome: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The route a request would take and the decision of every stage up to the first refusal."""

    method: str
    path: str
    route: str
    access: str
    decisions: tuple[Decision, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def explain(table: Table, method: str, path: str, headers: Mapping[str, str], native: Any) -> Explanation:
    """Walk one request through its plan, stage by stage. `native` is the scope or environ the table looks at."""
    x = _exchange(method, path, headers, native)
    fault = insane(x)
    plan = table.find(x)
    if fault is not None and (not plan.policy.allow_path or (fault := insane(x, plan.policy.allow_path)) is not None):
        return Explanation(method, path, "(unmatched)", "", (_decision("request", "sanity", fault),))
    x.plan = plan
    decisions: list[Decision] = []
    for step in plan.steps:
        decision = _judged(x, step)
        decisions.append(decision)
        if decision.outcome not in ("passes", "skipped"):
            break
    return Explanation(method, path, x.template, access(plan.policy), tuple(decisions))


def _exchange(method: str, path: str, headers: Mapping[str, str], native: Any) -> Exchange:
    x = Exchange()
    x.native = native
    x.method = method
    x.path, _, query = path.partition("?")
    x.query = query.encode()
    x.headers, _ = headers_of([(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()])
    x.request_id = "0" * 32
    x.now = time.time()
    return x


def _judged(x: Exchange, step: Step) -> Decision:
    name = type(step.traits.stage).__name__
    if step.needs_principal and x.principal is None:
        return Decision(step.traits.layer, name, "skipped", "no principal")
    steps = walk(x, (step,))
    asked = ""
    try:
        need = steps.send(None)
        while True:
            asked = f"would ask: {type(need).__name__}"
            need = steps.send(_dry(need))
    except StopIteration as stop:
        return _decision(step.traits.layer, name, stop.value, asked)


def _dry(need: Need) -> Answer:
    match need:
        case Hit():
            return tuple(Count(True, quota.amount, 0.0) for _, quota, _ in need.counters)
        case GiveBack():
            return ()
        case ReadBody():
            return Body(b"")
        case FetchKeys():
            return Unavailable("keys-not-fetched-here")
        case Identify():
            return Identified(None)
        case TenantOf():
            return Tenants(())
        case AskOwner():
            return Owners(tuple(None for _ in need.questions))
        case Claim():
            return Claimed(b"")
        case Settle():
            return Settled(True)
        case Work():
            return Worked(None)
        case _:
            assert_never(need)


def _decision(layer: str, stage: str, verdict: Verdict, asked: str = "") -> Decision:
    if verdict is None:
        return Decision(layer, stage, "passes", asked)
    if isinstance(verdict, Problem):
        return Decision(layer, stage, f"{verdict.type.status} {verdict.type.slug}", verdict.why)
    return Decision(layer, stage, f"{verdict.status} answered early")
