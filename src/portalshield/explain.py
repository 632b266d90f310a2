"""`portalshield explain`: which layer decides what about one request.

Nothing is sent, counted or fetched, and the application's own functions are not called: what only they, a store or a
key server could say is told as not known here, and so is whatever depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from portalshield.asgi.fields import headers_of
from portalshield.flow import Plan, Step, walk
from portalshield.layers.auth import IdentifyStage
from portalshield.layers.grants import GrantStage
from portalshield.layers.idempotency import IdempotencyStage
from portalshield.layers.login import LoginStage
from portalshield.layers.owners import OwnerStage
from portalshield.layers.rate import PricedStage
from portalshield.layers.schema import QueryStage, SchemaStage
from portalshield.layers.tenant import TenantBodyStage
from portalshield.layers.webhook import WebhookStage
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    AskOwner,
    Body,
    Claim,
    Claimed,
    Count,
    FetchKeys,
    Hit,
    Identify,
    Need,
    Owners,
    Quota,
    ReadBody,
    TenantOf,
    TooLarge,
)
from portalshield.model.stage import by_address, judges_body
from portalshield.model.verdicts import CATALOGUE, Problem, Verdict
from portalshield.report import access
from portalshield.routes import Table, ambiguous

UNKNOWN = "not known here"
_UNSERVED = "no route serves it"
_GOES_ON = ("passes", "skipped", UNKNOWN)
_WOULD = "would refuse: "


@dataclass(frozen=True, slots=True)
class Decision:
    """What one stage said: `passes`, `skipped`, `not known here`, `would refuse: ...` (it only reports), a status with
    the refusal's slug; and why. `stage` says in words what it looks at."""

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


def explain(
    table: Table, method: str, path: str, headers: Mapping[str, str], native: Any, data: bytes | None = None
) -> Explanation:
    """Walk one request through its plan, stage by stage.

    `method` may be `WS`, `path` is as it is sent. `native` is the scope or environ the table looks at. `data`: the body
    (JSON, unless the headers say otherwise); None: it is not known.
    """
    x = _exchange(method, path, headers, native, data)
    fault = ambiguous(x, table)
    if fault is not None:
        return Explanation(method, path, "(unmatched)", "", (_decision("request", "method and path", fault),))
    x.plan = plan = table.find(x)
    decisions = _Reading(x, data).of(plan)
    if not x.served:
        return Explanation(method, path, f"({_UNSERVED})", "", (*_unserved(x, decisions),))
    return Explanation(method, path, x.template, access(plan), tuple(decisions))


def own_page(method: str, path: str, *, token: bool) -> Explanation:
    """What there is to say of the metrics page: the shield itself answers it, no route is asked."""
    who = "whoever shows METRICS__TOKEN" if token else "anybody"
    said = Decision("metrics", "the shield's own page", "answered early", "no route is asked, no limit counts")
    return Explanation(method, path, "(a page of the shield's own)", who, (said,))


def _unserved(x: Exchange, decisions: list[Decision]) -> list[Decision]:
    """The last line says that there is no such route, also where something else was refused before."""
    why = _UNSERVED + (" with this method" if x.endpoint is not None else "")
    if decisions and decisions[-1].outcome not in _GOES_ON and not decisions[-1].outcome.startswith(_WOULD):
        return [*decisions[:-1], replace(decisions[-1], why=why)]
    return [*decisions, Decision("routes", "who serves it", "404 or 405", why)]


def _exchange(method: str, path: str, headers: Mapping[str, str], native: Any, data: bytes | None) -> Exchange:
    x = Exchange()
    x.native = native
    x.websocket = method == "WS"
    x.method = "GET" if x.websocket else method
    sent, _, query = path.partition("?")
    x.path, x.raw_path, x.query = unquote(sent), sent.encode(), query.encode()
    fields = {name.lower().encode(): value.encode("latin-1", "replace") for name, value in headers.items()}
    if data is not None:
        fields.setdefault(b"content-type", b"application/json")
        fields[b"content-length"] = b"%d" % len(data)
    x.has_body = bool(data)
    x.headers, _ = headers_of(list(fields.items()))
    x.request_id = "0" * 32
    x.now = time.time()
    return x


# -- stage by stage ---------------------------------------------------------------------------------------------------


class _Reading:
    """One walk. It remembers what was not known, so that nothing is judged by its absence."""

    def __init__(self, x: Exchange, data: bytes | None) -> None:
        self._x = x
        self._data = data
        self._user = self._tenant = True
        """They are known, or known to be absent."""

    def of(self, plan: Plan) -> list[Decision]:
        """The decision of every stage up to the first refusal."""
        decisions: list[Decision] = []
        bodyless = self._data is None and (self._x.websocket or self._x.method in ("GET", "HEAD"))
        for step in plan.steps:
            if bodyless and judges_body(step.traits.stage):
                continue
            decisions.append(decision := self._judged(step))
            if decision.outcome not in _GOES_ON and not decision.outcome.startswith(_WOULD):
                break
        return decisions

    def _judged(self, step: Step) -> Decision:
        stage, layer = step.traits.stage, step.traits.layer
        name = question(stage)
        left_out = self._left_out(step)
        if left_out is not None:
            return Decision(layer, name, *left_out)
        self._x.would_refuse = None
        steps = walk(self._x, (step,))
        said: list[str] = []
        try:
            need = steps.send(None)
            while True:
                answer, words = self._answer(need)
                said.append(words)
                if answer is None:
                    steps.close()
                    return Decision(layer, name, UNKNOWN, words)
                need = steps.send(answer)
        except StopIteration as stop:
            return self._told(step, name, stop.value, said)
        except Exception as error:
            # A function of the application (a price) or a custom type, on a request that is not all there.
            return Decision(layer, name, UNKNOWN, f"it raised {type(error).__name__}")

    def _left_out(self, step: Step) -> tuple[str, str] | None:
        """Outcome and reason of a stage that has nothing to judge, or too little."""
        stage = step.traits.stage
        if self._data is None and isinstance(stage, (SchemaStage, WebhookStage)):
            return UNKNOWN, "reads the body: give one with --data"
        if not self._x.has_body and judges_body(stage):
            return "skipped", "there is no body" + (": give one with --data" if self._data is None else "")
        if step.needs_principal and self._x.principal is None:
            return ("skipped", "there is no user") if self._user else (UNKNOWN, "depends on the user")
        if step.traits.layer == "tenant" and step.needs_principal and not self._tenant:
            return UNKNOWN, "depends on the user's tenants"
        if isinstance(stage, PricedStage):
            return UNKNOWN, "counts at a price that the application tells: " + ", ".join(map(_quota, stage.quotas))
        return None

    def _answer(self, need: Need) -> tuple[Any, str]:
        """An answer to go on with, None where only others could give it; and what is asked, in words."""
        match need:
            case Hit():
                counted = ", ".join(dict.fromkeys(_quota(quota) for _, quota, _ in need.counters))
                return tuple(Count(True, quota.amount, 0.0) for _, quota, _ in need.counters), f"counts: {counted}"
            case Claim():
                return Claimed(b""), "keeps a record: a copy would get the first answer"
            case ReadBody():
                return self._body(need), "reads the body"
            case Identify():
                self._user = self._tenant = False
                return None, "asks authenticate=, inside your application"
            case FetchKeys():
                self._user = self._tenant = False
                return None, "fetches keys: the token names one that is not known yet"
            case TenantOf():
                self._tenant = False
                return None, "asks tenant_of= which tenants the user belongs to"
            case AskOwner(questions=()):
                return Owners(()), "more ids than anybody asks for"
            case AskOwner():
                names = ", ".join(dict.fromkeys(name for _, name, _ in need.questions))
                return None, f"asks owners= whose it is: {names}"
            case _:
                return None, "asks something else"

    def _body(self, need: ReadBody) -> Any:
        data = self._data or b""
        if len(data) > need.limit:
            return TooLarge(data[: need.limit])
        if need.until is not None:
            need.until(data)
        return Body(data)

    def _told(self, step: Step, name: str, verdict: Verdict, said: list[str]) -> Decision:
        layer, share = step.traits.layer, step.traits.enforced
        noted = self._x.would_refuse
        if verdict is None and noted:
            refused = ", ".join(f"{CATALOGUE[slug].status} {slug}" for _, slug in noted)
            return Decision(layer, name, _WOULD + refused, "it only reports")
        decision = _decision(layer, name, verdict, ", ".join(said))
        if verdict is None or share >= 1:
            return decision
        return replace(decision, why=f"{decision.why}; {share:.0%} of such requests are refused, the others pass")


def _decision(layer: str, stage: str, verdict: Verdict, asked: str = "") -> Decision:
    if verdict is None:
        return Decision(layer, stage, "passes", asked)
    if isinstance(verdict, Problem):
        return Decision(layer, stage, f"{verdict.type.status} {verdict.type.slug}", verdict.why)
    return Decision(layer, stage, f"{verdict.status} answered early")


_PER = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}


def _quota(quota: Quota) -> str:
    return f"{quota.name} {quota.amount}/{_PER.get(quota.window_s, f'{quota.window_s}s')}"


_QUESTIONS = {
    "hosts": "is this host served here",
    "cors": "which origins may read it",
    "csrf": "does a foreign page write",
    "auth": "who is the user",
    "tenant": "tenants in path, query, header",
    "body": "size and type of the body",
    "json": "is the JSON well-formed",
    "webhook": "is the delivery signed",
    "upload": "are the files of its types",
}
_OF_STAGE: dict[type[Any], str] = {
    GrantStage: "may the user do this",
    IdempotencyStage: "was it processed before",
    IdentifyStage: "whom does the application know",
    LoginStage: "failed logins",
    QueryStage: "is the query valid",
    SchemaStage: "is the body valid",
    TenantBodyStage: "tenants in the body",
}


def question(stage: Any) -> str:
    """What a stage looks at, in words."""
    if isinstance(stage, OwnerStage):
        return "whose are the objects in the body" if judges_body(stage) else "whose are the objects"
    found = _OF_STAGE.get(type(stage))
    if found is not None:
        return found
    if stage.layer == "rate":
        return "limits per address" if by_address(stage) else "limits per user"
    layer: str = stage.layer
    return _QUESTIONS.get(layer, layer)
