"""Buckets for durations: quantiles near the truth, budgets exactly."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.histogram import CEILING_NS, FLOOR_NS, Buckets

SHARES = (0.5, 0.95, 0.99)


def counted(buckets: Buckets, durations: list[int]) -> list[int]:
    """Each duration in its bucket."""
    counts = [0] * buckets.size
    for duration in durations:
        counts[bisect_left(buckets.bounds, duration)] += 1
    return counts


def exact(durations: list[int], share: float) -> int:
    """The nearest-rank quantile."""
    ordered = sorted(durations)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


DISTRIBUTIONS: list[object] = [
    pytest.param(lambda rng: rng.lognormvariate(16.8, 0.8), id="log-normal around 20 ms"),
    pytest.param(lambda rng: rng.gauss(2e6, 1e5) if rng.random() < 0.9 else rng.gauss(8e8, 1e7), id="two humps"),
    pytest.param(lambda rng: 123_456_789, id="always the same"),
    pytest.param(lambda rng: rng.uniform(3e4, 1e10), id="flat over six decades"),
]


@pytest.mark.parametrize("draw", DISTRIBUTIONS)
def test_quantiles_are_within_two_percent_of_the_exact_ones(draw: Callable[[random.Random], float]) -> None:
    """p50, p95 and p99 of 20,000 durations of very different shapes; the sum too."""
    rng = random.Random(5)
    durations = [max(FLOOR_NS, int(draw(rng))) for _ in range(20_000)]
    buckets = Buckets((300, 500))
    summary = buckets.summary(counted(buckets, durations), SHARES)
    for share, found in zip(SHARES, summary.quantiles_ns, strict=True):
        assert found == pytest.approx(exact(durations, share), rel=0.02)
    assert summary.total_ns == pytest.approx(sum(durations), rel=0.02)


@given(st.lists(st.integers(0, 2 * CEILING_NS), min_size=1, max_size=200), st.integers(1, 119_999))
def test_every_exported_edge_is_exact(durations: list[int], budget_ms: int) -> None:
    """What was at most an edge, and what was over a budget, is counted to the one, also on the edge itself."""
    buckets = Buckets((budget_ms,))
    durations += [budget_ms * 1_000_000, budget_ms * 1_000_000 + 1]
    summary = buckets.summary(counted(buckets, durations))
    true = [sum(duration <= edge for duration in durations) for edge in buckets.edges_ns]
    assert summary.at_most == [*true, len(durations)]
    edge = budget_ms * 1_000_000
    assert buckets.above(summary, edge) == sum(duration > edge for duration in durations)


def test_default_budgets_are_edges_and_size_is_fixed() -> None:
    """0.3 s and 0.5 s are bounds; a histogram has some 470 counters whatever is counted."""
    buckets = Buckets((300, 500))
    assert {300_000_000, 500_000_000} <= set(buckets.edges_ns)
    assert buckets.size < 500


def test_nothing_counted_gives_zero() -> None:
    """An empty histogram has no quantile and does not fail."""
    buckets = Buckets()
    assert buckets.summary([0] * buckets.size, SHARES).quantiles_ns == [0.0, 0.0, 0.0]
