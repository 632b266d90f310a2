"""What limiters should say: ten lines per strategy, plain and slow, and the machine that compares a store with them."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from portalshield.model.needs import Counts, GiveBack, Hit, Quota, Unavailable

STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")


class Model(Protocol):
    def used(self, now: int) -> int: ...
    def add(self, now: int, cost: int) -> None: ...
    def give_back(self, now: int, cost: int) -> None: ...


class FixedModel:
    def __init__(self, window: int) -> None:
        self.window, self.taken, self.end = window, 0, 0

    def used(self, now: int) -> int:
        self.end = min(self.end, now + self.window)
        return self.taken if now < self.end else 0

    def add(self, now: int, cost: int) -> None:
        self.taken = self.used(now) + cost
        self.end = self.end if now < self.end else now + self.window

    def give_back(self, now: int, cost: int) -> None:
        self.taken = max(0, self.used(now) - cost)
        self.end = self.end if self.taken else 0


class MovingModel:
    def __init__(self, window: int) -> None:
        self.window = window
        self.log: list[int] = []

    def counting(self, now: int) -> list[int]:
        return [at for at in self.log if at + self.window > now]

    def used(self, now: int) -> int:
        if max(self.log, default=0) > now:
            self.log = [now] * len(self.counting(now))
        return len(self.counting(now))

    def add(self, now: int, cost: int) -> None:
        self.log = self.counting(now) + [now] * cost

    def give_back(self, now: int, cost: int) -> None:
        self.log = self.counting(now)[: max(0, self.used(now) - cost)]


class SlidingModel:
    def __init__(self, window: int) -> None:
        self.window, self.start, self.counts = window, 0, (0, 0)

    def at(self, now: int) -> tuple[int, tuple[int, int]]:
        self.start = min(self.start, now)
        passed = (now - self.start) // self.window
        start = self.start + passed * self.window if passed < 2 else now
        return start, (self.counts, (self.counts[1], 0), (0, 0))[min(passed, 2)]

    def used(self, now: int) -> int:
        start, (before, current) = self.at(now)
        return before * (start + self.window - now) // self.window + current

    def add(self, now: int, cost: int) -> None:
        self.start, (before, current) = self.at(now)
        self.counts = (before, current + cost)

    def give_back(self, now: int, cost: int) -> None:
        self.start, (before, current) = self.at(now)
        self.counts = (max(0, before - max(0, cost - current)), max(0, current - cost))
        self.start = self.start if any(self.counts) else -(10**15)


MODELS: dict[str, type[FixedModel] | type[MovingModel] | type[SlidingModel]] = {
    "fixed-window": FixedModel,
    "moving-window": MovingModel,
    "sliding-window-counter": SlidingModel,
}
KEYS = ("a", "b", "c" * 129)
counters = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 1), st.integers(0, 3)),
    min_size=1,
    max_size=3,
    unique_by=lambda counter: counter[:2],
)


class LimiterMachine(RuleBasedStateMachine):
    """The store and the models are asked the same; what they say must agree, whatever the clock does.

    A store reads `now_ms`, whole milliseconds, so that the models need not round. `scale` makes the windows longer,
    for a store that has a clock of its own beside.
    """

    scale: ClassVar[int] = 1

    def open(self) -> Any:
        """The store, fresh."""
        raise NotImplementedError

    @initialize(strategy=st.sampled_from(STRATEGIES), amounts=st.tuples(st.integers(1, 6), st.integers(1, 9)))
    def begin(self, strategy: str, amounts: tuple[int, int]) -> None:
        self.now_ms = 1_800_000_000_000
        self.store = self.open()
        self.quotas = (
            Quota("short", amounts[0], 2 * self.scale, strategy),
            Quota("long", amounts[1], 7 * self.scale, strategy),
        )
        self.models: dict[tuple[str, Quota], Model] = {
            (key, quota): MODELS[strategy](quota.window_s * 1000) for key in KEYS for quota in self.quotas
        }

    @rule(ms=st.one_of(st.integers(0, 3000), st.integers(0, 20_000)))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms * self.scale

    @rule(hours=st.integers(-3, 3))
    def clock_jumps(self, hours: int) -> None:
        self.now_ms += hours * 3_600_000 * self.scale

    @rule(counters=counters)
    def ask(self, counters: list[tuple[str, int, int]]) -> None:
        asked = [(key, self.quotas[number], cost) for key, number, cost in counters]
        now = self.now_ms
        used = [max(0, self.models[key, quota].used(now)) for key, quota, _ in asked]
        fits = [had + max(cost, 1) <= quota.amount for had, (_, quota, cost) in zip(used, asked, strict=True)]
        charged = all(fits)
        for key, quota, cost in asked:
            if charged and cost:
                self.models[key, quota].add(now, cost)
        counts = self.told(self.store.hit(Hit(tuple(asked))))
        for count, fit, had, (_, quota, cost) in zip(counts, fits, used, asked, strict=True):
            left = max(0, quota.amount - had - (cost if charged else 0))
            assert (count.allowed, count.remaining) == (fit, left)
            assert 0 < count.reset_s <= quota.window_s

    @rule(counters=counters)
    def give_back(self, counters: list[tuple[str, int, int]]) -> None:
        asked = [(key, self.quotas[number], cost) for key, number, cost in counters]
        for key, quota, cost in asked:
            if cost:
                self.models[key, quota].give_back(self.now_ms, cost)
        used = [self.models[key, quota].used(self.now_ms) for key, quota, _ in asked]
        counts = self.told(self.store.give_back(GiveBack(tuple(asked))))
        for count, had, (_, quota, _) in zip(counts, used, asked, strict=True):
            assert (count.allowed, count.remaining) == (had < quota.amount, max(0, quota.amount - had))

    def told(self, answer: Counts | Unavailable) -> Counts:
        assert not isinstance(answer, Unavailable), answer
        return answer
