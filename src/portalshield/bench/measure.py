"""Interleaved rounds: every variant runs a small batch in every round, so that a drift of the machine hits all alike.

The added cost of a variant is the median of its differences to the base *of the same round*. Only ratios of one run
travel to other machines. Garbage is collected between rounds and not during a batch.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from time import process_time_ns

SPACED_S = 0.020
"""The gap of spaced arrivals: caches cool down, threads that wake up per request show."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Variant:
    """Something that can be measured. `batch(count)` answers the CPU nanoseconds of `count` calls.

    `prepare` puts it in place and is not timed; `settle` finishes work that a batch left behind (log lines) and is.
    """

    name: str
    batch: Callable[[int], int]
    prepare: Callable[[], None] = _nothing
    settle: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Series:
    """CPU nanoseconds per call, one sample per round."""

    name: str
    samples: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def low(self) -> float:
        """The best round."""
        return min(self.samples)

    @property
    def high(self) -> float:
        """The worst round."""
        return max(self.samples)

    def above(self, base: Series) -> Series:
        """What this adds to `base`, round by round."""
        return Series(self.name, tuple(own - other for own, other in zip(self.samples, base.samples, strict=True)))


def back_to_back(variants: Sequence[Variant], *, rounds: int, batch: int) -> dict[str, Series]:
    """`rounds` rounds of `batch` calls of each variant, in random order, a quarter more before them to warm up."""
    return _rounds(variants, rounds, batch, gap_s=0.0)


def spaced(variants: Sequence[Variant], *, rounds: int, gap_s: float = SPACED_S) -> dict[str, Series]:
    """`rounds` single calls of each variant, `gap_s` seconds of sleep before each."""
    return _rounds(variants, rounds, 1, gap_s=gap_s)


def calls(name: str, function: Callable[[], object]) -> Variant:
    """A plain function as a variant; the loop around it is not subtracted (about 30 ns)."""

    def batch(count: int) -> int:
        began = process_time_ns()
        for _ in range(count):
            function()
        return process_time_ns() - began

    return Variant(name, batch)


def _rounds(variants: Sequence[Variant], rounds: int, batch: int, *, gap_s: float) -> dict[str, Series]:
    found: dict[str, list[float]] = {variant.name: [] for variant in variants}
    order = Random(rounds)  # noqa: S311 (an order, no secret)
    with collected():
        for variant in variants:
            _sample(variant, batch, 0)
        for _ in range(rounds):
            gc.collect()
            # A fixed order would give each variant the same predecessor, and with it the same warm or cold caches.
            for variant in order.sample(variants, len(variants)):
                if gap_s:
                    time.sleep(gap_s)
                found[variant.name].append(_sample(variant, batch, 0 if gap_s else batch // 4))
    return {name: Series(name, tuple(samples)) for name, samples in found.items()}


def _sample(variant: Variant, count: int, warm_up: int) -> float:
    variant.prepare()
    if warm_up:
        variant.batch(warm_up)
        variant.settle()
    spent = variant.batch(count)
    began = process_time_ns()
    variant.settle()
    return (spent + process_time_ns() - began) / count


@contextmanager
def collected() -> Iterator[None]:
    """No collector during a batch; what lives now is put aside, so that collecting between rounds is quick."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
