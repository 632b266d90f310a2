"""The walk through the stages of one policy: checks first, then one generator from the first need on. Report mode is
decided in `enforces` and nowhere else; the order stands in `plan.ORDER`.

A stage that needs a fact from outside returns a need; the walk yields it and takes the answer, so both doors drive the
same walk, one synchronously, one with `await`, and a walk may be suspended and resumed inside the application.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.needs import Need
from portalshield.model.policy import EffectivePolicy
from portalshield.model.stage import Stage, asks, by_address, hook, judges_body, keeps_body, needs_principal
from portalshield.model.verdicts import Fields, Problem, Reply, Verdict, problem
from portalshield.rules.paths import method_fault, path_fault

Walk = Generator[Need, Any, Verdict]
Readable = bool | None | Exception
"""Whether the reader of answers could read one; None: none of its business; an exception: it failed to say."""
Finished = tuple[list[tuple[bytes, bytes]], Readable, bytes]
"""The fields of a finished head; whether an answer with this head could be read; its declared length."""
FinishedText = tuple[list[tuple[str, str]], Readable, bytes]
ChunkJudge = Callable[[bytes], Problem | None]
"""Judges a body's chunks as they stream to the application."""

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
_READY, _LONGEST_ORIGIN = 512, 256
_OURS = frozenset((b"x-request-id",))
MAX_FIELD_BYTES = 65_536
MAX_URL_BYTES = 8_192
MAX_PARAMETERS = 1_000


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


class Track(NamedTuple):
    """The steps of one kind of request, cut where the first of them may have to wait."""

    checks: tuple[tuple[Callable[[Exchange], Verdict], Traits], ...]
    """Nothing but their checks: most requests need no more, and no generator."""
    rest: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything compiled for one policy: what the doors need to judge a request and to finish its response."""

    policy: EffectivePolicy
    steps: tuple[Step, ...]
    whole: Track
    bodyless: Track
    """The steps of a request that has no body: those that only judge bodies are left out."""
    guards: tuple[Callable[[Exchange], ChunkJudge | None], ...]
    heads: tuple[Callable[[Exchange, Head], None], ...]
    numbers: tuple[Callable[[Exchange], Fields], ...]
    ready: dict[Any, tuple[Fields, Readable]]
    """What `heads` added and `reader` could read the last time everything they look at was the same; `ready_text` the
    same as text (WSGI)."""
    ready_text: dict[Any, tuple[tuple[tuple[str, str], ...], Readable]]
    reader: tuple[Any, float] | None = None
    """The stage that reads whole responses, with the share that it enforces."""
    concludes: tuple[Callable[[Exchange, Ending], Need | None], ...] = ()
    """Who is told how a request ended."""
    keeps_body: int = 0
    """The largest answer, in bytes, that one of them wants to be told."""

    def finish_head(self, x: Exchange, status: int, fields: list[tuple[bytes, bytes]]) -> Finished:
        """The head of a response with what every layer adds, and the request id exactly once."""
        found = dict(fields)
        key = (_seen(x, status), found.get(b"content-type"), found.get(b"content-encoding"), found.get(b"vary"), *found)
        known = self.ready.get(key) if len(found) == len(fields) else None
        if known is None:
            finished, added = self._add(x, Head(status, list(fields)))
            readable, length = self.reading(status, fields)
            if added is not None and len(found) == len(finished) - len(added) and b"".join(found).islower():
                _remember(self.ready, key, added, readable)
        else:
            added, readable = known
            finished, length = [*fields, *added], found.get(b"content-length", b"")
        for number in self.numbers:
            finished += number(x)
        finished.append((b"x-request-id", x.request_id.encode()))
        return finished, readable, length

    def finish_text(self, x: Exchange, status: int, headers: list[tuple[str, str]]) -> FinishedText:
        """The same for a head of texts (PEP 3333): bytes in the guise of latin-1, names in any case."""
        found = dict(headers)
        key = (_seen(x, status), found.get("Content-Type"), found.get("Content-Encoding"), found.get("Vary"), *found)
        known = self.ready_text.get(key) if len(found) == len(headers) else None
        if known is None:
            given = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
            readable, length = self.reading(status, given)
            fields, own = self._add(x, Head(status, given))
            # Hop-by-hop fields are the server's: a `Connection` stays here.
            finished = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in fields if k != b"connection"]
            if own is not None and len(finished) == len(found) + len(own) and _spelt_as_usual(found):
                _remember(self.ready_text, key, tuple(finished[len(found) :]), readable)
        else:
            added, readable = known
            finished, length = [*headers, *added], found.get("Content-Length", "").encode("latin-1")
        for number in self.numbers:
            for name, value in number(x):
                finished.append((name.decode("latin-1"), value.decode("latin-1")))
        finished.append(("x-request-id", x.request_id))
        return finished, readable, length

    def reading(self, status: int, fields: list[tuple[bytes, bytes]]) -> tuple[Readable, bytes]:
        """Whether the reader of answers could read one with this head, and its declared length."""
        if self.reader is None:
            return None, b""
        length = next((value for name, value in fields if name.lower() == b"content-length"), b"")
        try:
            return self.reader[0].reads(status, fields), length
        except Exception as error:  # whoever asks decides; a refusal does not
            return error, length

    def _add(self, x: Exchange, head: Head) -> tuple[list[tuple[bytes, bytes]], Fields | None]:
        """The finished fields; and what was added, where that depends on nothing but the key and came behind."""
        before = tuple(head.fields)
        head.drop(_OURS)
        for add in self.heads:
            add(x, head)
        head.finish()
        own = tuple(head.fields[: len(before)]) == before and not isinstance(x.verdict, Reply)
        # Of refusals the origin is part of the key, whoever sent it.
        remembered = own and (x.problem is None or len(x.headers.get(b"origin") or b"") <= _LONGEST_ORIGIN)
        return head.fields, tuple(head.fields[len(before) :]) if remembered else None


def _seen(x: Exchange, status: int) -> tuple[Any, ...]:
    """All of a request that a `head` hook may look at, beside the head itself."""
    if x.problem is not None:
        # A refusal may come before anybody found out whether the origin is one that is shared with.
        return (status, x.headers.get(b"origin"), x.https, x.principal is None)
    return (status, x.origin, x.https, x.principal is None, x.verdict is None)


def _spelt_as_usual(names: Iterable[str]) -> bool:
    """The fields that hooks look at are found by these names."""
    return all(name in _USUAL or name.lower() not in _LOOKED_AT for name in names)


_USUAL = ("Content-Type", "Content-Encoding", "Content-Length", "Vary")
_LOOKED_AT = frozenset(map(str.lower, _USUAL))


def _remember(ready: dict[Any, Any], key: Any, added: Any, readable: Readable) -> None:
    if isinstance(readable, Exception):
        return  # what failed is asked again
    if len(ready) >= _READY:
        ready.clear()
    ready[key] = added, readable


def compile_plan(policy: EffectivePolicy, stages: Iterable[tuple[Stage, float]]) -> Plan:
    """Look up every hook once. `stages` come in the order of the walk, each with the share that it enforces."""
    rows = list(stages)
    steps = [_step(stage, share) for stage, share in rows if hook(stage, "check") or hook(stage, "ask")]
    return Plan(
        policy,
        tuple(steps),
        _track(steps),
        _track([step for step in steps if not judges_body(step.traits.stage)]),
        guards=tuple(_guard(stage, share) for stage, share in rows if hook(stage, "guard")),
        heads=tuple(found for stage, _ in rows if (found := hook(stage, "head"))),
        numbers=tuple(found for stage, _ in rows if (found := hook(stage, "numbers"))),
        ready={},
        ready_text={},
        reader=next(((stage, share) for stage, share in rows if hook(stage, "judge")), None),
        concludes=tuple(found for stage, _ in rows if (found := hook(stage, "conclude"))),
        keeps_body=max([keeps_body(stage) for stage, _ in rows], default=0),
    )


def _track(steps: list[Step]) -> Track:
    waits = next((number for number, step in enumerate(steps) if step.ask is not None), len(steps))
    return Track(
        tuple((step.check, step.traits) for step in steps[:waits] if step.check is not None), tuple(steps[waits:])
    )


def _guard(stage: Any, share: float) -> Callable[[Exchange], ChunkJudge | None]:
    """Makes the judge of a stage's chunks: one that names its layer or, in report mode, notes the first refusal."""

    def guard(x: Exchange) -> ChunkJudge | None:
        judge = stage.guard(x)
        if judge is None:
            return None
        noted = False

        def judged(chunk: bytes) -> Problem | None:
            nonlocal noted
            refusal: Problem | None = judge(chunk) if not noted else None
            if refusal is None or enforces(x, stage.layer, share, refusal):
                return refusal
            noted = True
            return None

        return judged

    return guard


def _step(stage: Stage, share: float) -> Step:
    return Step(
        check=hook(stage, "check"),
        ask=hook(stage, "ask") if asks(stage) else None,
        settle=hook(stage, "settle"),
        needs_principal=needs_principal(stage),
        traits=Traits(stage.layer, share, by_address(stage), stage),
    )


def begin(x: Exchange, plan: Plan) -> Verdict | Walk:
    """Judge one exchange as far as it goes without waiting: its verdict, or the walk through the rest of the steps."""
    checks, rest = plan.whole if x.has_body else plan.bodyless
    for check, traits in checks:
        verdict = check(x)
        if verdict is not None and not _noted(x, verdict, traits):
            return verdict
    return walk(x, rest) if rest else None


def walk(x: Exchange, steps: tuple[Step, ...]) -> Walk:
    """The first refusal or early answer ends it, None lets the request through to the application."""
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
        verdict = settle(x, need, (yield need))
        if verdict is not None and not _noted(x, verdict, traits):
            return verdict
    return None


def _noted(x: Exchange, verdict: Problem | Reply, traits: Traits) -> bool:
    """Report mode: a problem is only remembered, and the walk goes on."""
    if not isinstance(verdict, Problem):
        return False
    share = 0.0 if traits.by_address and not x.address_trusted else traits.enforced
    # Whoever went away can only be refused.
    return not enforces(x, traits.layer, 1.0 if x.gone else share, verdict)


def enforces(x: Exchange, layer: str, share: float, refusal: Problem) -> bool:
    """A layer that enforces this share of requests refuses this one; else the refusal is only noted."""
    # A request id of our own is random: 32 bits choose the share.
    if share >= 1 or int((x.lot or x.request_id)[:8], 16) < share * 2**32:
        x.layer = layer
        return True
    x.note(layer, refusal)
    return False


def insane(x: Exchange, allowed: Container[str] = ()) -> Problem | None:
    """A path or method that two readers could read differently, refused before anybody looks for its policy, unless
    all that is wrong with it is `allowed`."""
    fault = method_fault(x.method) or path_fault(x.path, x.raw_path, allowed)
    return problem("malformed-request", why=fault) if fault is not None else None


def oversized(x: Exchange, fields: int, field_bytes: int) -> Problem | None:
    """More header fields or a longer address than anybody sends on purpose."""
    if field_bytes > MAX_FIELD_BYTES or fields > MAX_FIELDS:
        return problem("headers-too-large", why="header-fields")
    if len(x.path) + len(x.query) > MAX_URL_BYTES or (x.raw_path and len(x.raw_path) > MAX_URL_BYTES):
        return problem("uri-too-long", why="url")
    if x.query.count(b"&") >= MAX_PARAMETERS:
        return problem("uri-too-long", why="parameters")
    return None


def doubled(x: Exchange) -> Problem | None:
    """Two of a field that decides something."""
    for name in SINGLE:
        if len(x.headers.get_all(name)) > 1:
            return problem("malformed-request", why=f"two-{name.decode()}")
    return None
