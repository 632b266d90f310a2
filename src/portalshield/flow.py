"""The walk: one generator through the stages of one policy. The order and the report mode live here and nowhere else.

A stage that needs a fact from outside returns a need; the walk yields it and takes the answer, so both doors drive the
same walk, one synchronously, one with `await`, and a walk may be suspended and resumed inside the application.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.needs import Answer, Hit, Need
from portalshield.model.policy import EffectivePolicy
from portalshield.model.stage import (
    Asks,
    Checks,
    Guards,
    Heads,
    Judges,
    Numbers,
    Stage,
    asks,
    judges_body,
    needs_principal,
)
from portalshield.model.verdicts import Fields, Problem, Reply, Verdict, problem
from portalshield.rules.paths import method_fault, path_fault

Walk = Generator[Need, Any, Verdict]
Judge = Callable[[bytes], Problem | None]
"""Judges a body's chunks as they stream to the application."""
Count = Callable[[Hit], Answer]
"""A store that counts in memory."""

SINGLE = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"cookie",
    b"host",
    b"origin",
    b"transfer-encoding",
    b"sec-fetch-site",
    b"access-control-request-method",
)
"""Fields that decide something: two of them are two different requests to two different readers."""
MAX_FIELDS = 200
_READY = 512
_OURS = frozenset((b"x-request-id",))
MAX_FIELD_BYTES = 65_536
MAX_URL_BYTES = 8_192


class Traits(NamedTuple):
    """What the walk knows of a stage. `enforced` is the share of requests it refuses; the rest is only noted."""

    layer: str
    enforced: float
    by_address: bool
    stage: Any


class Step(NamedTuple):
    """One stage as the walk sees it: its hooks, ready to be called."""

    check: Callable[[Exchange], Verdict] | None
    ask: Callable[[Exchange], Need | None] | None
    settle: Callable[[Exchange, Any, Any], Verdict] | None
    needs_principal: bool
    traits: Traits


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything compiled for one policy: what the doors need to judge a request and to finish its response."""

    policy: EffectivePolicy
    steps: tuple[Step, ...]
    bodyless: tuple[Step, ...]
    """The steps of a request that has no body: those that only judge bodies are left out."""
    guards: tuple[Callable[[Exchange], Judge | None], ...]
    heads: tuple[Callable[[Exchange, Head], None], ...]
    numbers: tuple[Callable[[Exchange], Fields], ...]
    ready: dict[Any, Fields]
    """What `heads` added the last time everything they look at was the same."""
    judges: tuple[tuple[Any, float], ...] = ()
    """Stages that read whole responses, each with the share that it enforces."""

    def finish_head(self, x: Exchange, status: int, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The fields of a response with what every layer adds, and the request id exactly once."""
        names = []
        content_type = None
        for name, value in fields:
            names.append(name)
            if len(name) == 12 and name.lower() == b"content-type":
                content_type = value
            elif len(name) == 4 and name.lower() == b"vary":
                names.append(value)
        # All that a `head` hook may look at: two responses with the same key are added the same fields.
        key = (x.origin, x.https, x.principal is None, content_type, x.problem is None, x.verdict is None, *names)
        added = self.ready.get(key)
        if added is None:
            fields = self._add(x, Head(status, fields), key)
        else:
            fields += added
        for number in self.numbers:
            fields += number(x)
        fields.append((b"x-request-id", x.request_id.encode()))
        return fields

    def _add(self, x: Exchange, head: Head, key: Any) -> list[tuple[bytes, bytes]]:
        before = tuple(head.fields)
        head.drop(_OURS)
        for add in self.heads:
            add(x, head)
        head.finish()
        untouched = tuple(head.fields[: len(before)]) == before
        if untouched and x.problem is None and x.verdict is None:
            if len(self.ready) >= _READY:
                self.ready.clear()
            self.ready[key] = tuple(head.fields[len(before) :])
        return head.fields

    def judge_response(self, x: Exchange, judges: Iterable[tuple[Any, float]], body: bytes) -> Problem | None:
        """The first refusal of a whole response by those who wanted it; report mode notes it and goes on."""
        for stage, enforced in judges:
            verdict = stage.judge(x, body)
            if isinstance(verdict, Problem):
                if _share_enforces(enforced, x):
                    x.layer = stage.layer
                    return verdict
                x.note(stage.layer, verdict)
        return None


def compile_plan(policy: EffectivePolicy, stages: Iterable[tuple[Stage, float]]) -> Plan:
    """Look up every hook once. `stages` come in the order of the walk, each with the share that it enforces."""
    rows = list(stages)
    steps = [_step(stage, enforced) for stage, enforced in rows if isinstance(stage, (Checks, Asks))]
    return Plan(
        policy,
        tuple(steps),
        tuple(step for step in steps if not judges_body(step.traits.stage)),
        tuple(_guard(stage, enforced) for stage, enforced in rows if isinstance(stage, Guards)),
        tuple(stage.head for stage, _ in rows if isinstance(stage, Heads)),
        tuple(stage.numbers for stage, _ in rows if isinstance(stage, Numbers)),
        {},
        tuple((stage, enforced) for stage, enforced in rows if isinstance(stage, Judges)),
    )


def _guard(stage: Any, enforced: float) -> Callable[[Exchange], Judge | None]:
    """Makes the judge of a stage's chunks: one that names its layer or, in report mode, notes the first refusal."""

    def guard(x: Exchange) -> Judge | None:
        judge = stage.guard(x)
        if judge is None:
            return None
        return (_refusing if _share_enforces(enforced, x) else _noting)(x, stage.layer, judge)

    return guard


def _refusing(x: Exchange, layer: str, judge: Judge) -> Judge:
    def refuse(chunk: bytes) -> Problem | None:
        refusal = judge(chunk)
        if refusal is not None:
            x.layer = layer
        return refusal

    return refuse


def _noting(x: Exchange, layer: str, judge: Judge) -> Judge:
    noted = False

    def note(chunk: bytes) -> None:
        nonlocal noted
        if not noted and (refusal := judge(chunk)) is not None:
            noted = True
            x.note(layer, refusal)

    return note


def _step(stage: Stage, enforced: float) -> Step:
    by_address = getattr(stage, "by_address", False) is True
    return Step(
        check=stage.check if isinstance(stage, Checks) else None,
        ask=stage.ask if isinstance(stage, Asks) and asks(stage) else None,
        settle=stage.settle if isinstance(stage, Asks) else None,
        needs_principal=needs_principal(stage),
        traits=Traits(stage.layer, enforced, by_address, stage),
    )


def walk(x: Exchange, steps: tuple[Step, ...], count: Count | None = None) -> Walk:
    """Judge one exchange: the first refusal or early answer ends it, None lets it through to the application.

    Where a store counts in memory, `count` answers a `Hit` at once: nobody has to wait for that one.
    """
    for check, ask, settle, needs_a_principal, traits in steps:
        if needs_a_principal and x.principal is None:
            continue
        verdict = check(x) if check is not None else None
        if verdict is not None and not _noted(x, verdict, traits):
            return verdict
        # Also after a note: what this stage fetches (the body) others judge, and they may be enforced.
        need = ask(x) if ask is not None else None
        if need is None or settle is None:
            continue
        answer = count(need) if count is not None and isinstance(need, Hit) else (yield need)
        verdict = settle(x, need, answer)
        if verdict is not None and not _noted(x, verdict, traits):
            return verdict
    return None


def _noted(x: Exchange, verdict: Problem | Reply, traits: Traits) -> bool:
    """Report mode: a problem is only remembered, and the walk goes on."""
    if not isinstance(verdict, Problem):
        return False
    if x.gone or _enforces(traits, x):
        x.layer = traits.layer
        return False
    x.note(traits.layer, verdict)
    return True


def _enforces(step: Traits, x: Exchange) -> bool:
    if step.by_address and not x.address_trusted:
        return False
    return _share_enforces(step.enforced, x)


def _share_enforces(enforced: float, x: Exchange) -> bool:
    if enforced >= 1:
        return True
    # The request id is random: its first 32 bits choose the share.
    return int(x.request_id[:8], 16) < enforced * 2**32


def insane(x: Exchange) -> Problem | None:
    """A path or method that two readers could read differently, refused before anybody looks for its policy."""
    fault = path_fault(x.path, x.raw_path) or method_fault(x.method)
    return problem("malformed-request", why=fault) if fault is not None else None


def oversized(x: Exchange, fields: int, field_bytes: int) -> Problem | None:
    """More header fields or a longer address than anybody sends on purpose."""
    if field_bytes > MAX_FIELD_BYTES or fields > MAX_FIELDS:
        return problem("headers-too-large", why="header-fields")
    if len(x.path) + len(x.query) > MAX_URL_BYTES or (x.raw_path and len(x.raw_path) > MAX_URL_BYTES):
        return problem("uri-too-long", why="url")
    return None


def doubled(x: Exchange) -> Problem | None:
    """Two of a field that decides something."""
    for name in SINGLE:
        if len(x.headers.get_all(name)) > 1:
            return problem("malformed-request", why=f"two-{name.decode()}")
    return None
