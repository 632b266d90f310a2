"""A small driver for stages that process once: it does what a door does, and can fail at every step of a record's life.

`Driver.send` walks one request through the stages, asks a store, runs a handler and concludes; `cut` says at which step
the request ends, `store` may be one that fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Claim, Settle, Unavailable
from portalshield.model.verdicts import Problem, Reply, Verdict
from portalshield.stores.records import MemoryRecords
from portalshield.testing import FrozenClock

NOW = 1_800_000_000.0
ANSWER = Ending(200, ((b"content-type", b"text/plain"), (b"content-length", b"2")), b"ok")


class Fields:
    """Header fields of a request."""

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._fields = fields

    def get(self, name: bytes) -> bytes | None:
        return next((value for key, value in reversed(self._fields) if key == name), None)

    def get_all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._fields if key == name]

    def __contains__(self, name: bytes) -> bool:
        return bool(self.get_all(name))

    def disjoint(self, names: frozenset[bytes]) -> bool:
        return names.isdisjoint(key for key, _ in self._fields)


def exchange(fields: list[tuple[bytes, bytes]], body: bytes | None = None, **more: Any) -> Exchange:
    """A POST whose body was read."""
    x = Exchange()
    x.method, x.path, x.template, x.now = "POST", "/things", "/things", NOW
    x.headers = Fields(fields)
    x.body, x.has_body = body, body is not None
    for name, value in more.items():
        setattr(x, name, value)
    return x


class FailingRecords:
    """A record store that does not answer to one kind of question; `lost`: it did what was asked all the same."""

    def __init__(self, inner: MemoryRecords, kind: type[Any], *, lost: bool = False) -> None:
        self.inner = inner
        self._kind = kind
        self._lost = lost

    def claim(self, claim: Claim) -> Any:
        return self._answer(claim, self.inner.claim)

    def settle(self, settle: Settle) -> Any:
        return self._answer(settle, self.inner.settle)

    def _answer(self, need: Any, ask: Callable[[Any], Any]) -> Any:
        if not isinstance(need, self._kind):
            return ask(need)
        if self._lost:
            ask(need)
        return Unavailable("store-timeout")


@dataclass
class Driver:
    """One stage in front of one handler. `runs` counts how often the handler ran; `answer` is what it answers."""

    stage: Any
    clock: FrozenClock = field(default_factory=FrozenClock)
    answer: Ending = ANSWER
    runs: int = 0
    store: Any = None

    def __post_init__(self) -> None:
        self.records = MemoryRecords(1000, clock=self.clock)
        self.store = self.store or self.records

    def begin(self, x: Exchange) -> Verdict:
        """Everything before the handler."""
        verdict: Verdict = self.stage.check(x)
        if verdict is not None:
            return verdict
        need = self.stage.ask(x)
        return None if need is None else self.stage.settle(x, need, self.store.claim(need))

    def end(self, x: Exchange, ending: Ending) -> Any:
        """What a door does once the outcome is known."""
        need = self.stage.conclude(x, ending)
        return None if need is None else self.store.settle(need)

    def send(self, x: Exchange, ending: Ending | None = None) -> Verdict | Ending:
        """One request; the verdict, or what the handler answered."""
        verdict = self.begin(x)
        if verdict is not None:
            assert self.end(x, Ending(verdict.status if isinstance(verdict, Reply) else verdict.type.status)) is None
            return verdict
        self.runs += 1
        answer = self.answer if ending is None else ending
        self.end(x, answer)
        return answer


def slug(verdict: Any) -> str:
    """The slug of a refusal."""
    assert isinstance(verdict, Problem)
    return verdict.type.slug
