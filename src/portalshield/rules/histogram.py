"""Durations counted in buckets that are narrow enough for quantiles and exact at every edge that somebody asked for.

Bounds grow by `GROWTH`, so the middle of a bucket is at most 1.8 % away from anything in it; the edges that are
exported (`le=`), budgets among them, are bounds too. One `bisect` over a fixed tuple costs what shifting bits would,
and a log-linear grid has no bound at 0.3 s.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import ceil, sqrt
from typing import Final, NamedTuple

GROWTH: Final = 1.035
FLOOR_NS: Final = 20_000
"""20 us: what is faster is one bucket."""
CEILING_NS: Final = 120 * 10**9
"""Two minutes: what is slower is one bucket."""
DEFAULT_EDGES_MS: Final = (5, 10, 25, 50, 100, 200, 300, 500, 750, 1000, 2500, 5000, 10_000)


class Summary(NamedTuple):
    """`total_ns` comes from the middles of buckets: within 1.8 %, typically within 0.1 %."""

    total: int
    total_ns: float
    at_most: list[int]
    """How many were at most each of `edges_ns`, then how many there are: exact."""
    quantiles_ns: list[float]
    """Nearest rank, within 1.8 % between `FLOOR_NS` and `CEILING_NS`; 0 where nothing was counted."""


class Buckets:
    """A fixed set of buckets. `budgets_ms` become edges beside the usual ones.

    A counter sequence for it has `size` members; the bucket of a duration is `bisect_left(bounds, ns)`: bucket `i`
    holds what is greater than `bounds[i - 1]` and at most `bounds[i]`, as Prometheus' `le` has it.
    """

    __slots__ = ("_at", "_middles", "bounds", "edges_ns", "size")

    def __init__(self, budgets_ms: Iterable[int] = ()) -> None:
        edges = {ms * 1_000_000 for ms in (*DEFAULT_EDGES_MS, *budgets_ms) if ms > 0}
        self.edges_ns: tuple[int, ...] = tuple(sorted(edge for edge in edges if FLOOR_NS < edge < CEILING_NS))
        """What is exported, in nanoseconds, ascending."""
        self.bounds = _bounds(self.edges_ns)
        self.size = len(self.bounds) + 1
        self._at = tuple(bisect_left(self.bounds, edge) for edge in self.edges_ns)
        self._middles = (
            FLOOR_NS / 2,
            *(sqrt(low * high) for low, high in zip(self.bounds, self.bounds[1:], strict=False)),
            float(CEILING_NS),
        )

    def summary(self, counts: Sequence[int], shares: Sequence[float] = ()) -> Summary:
        """What a scrape wants to know of one sequence of counters."""
        held = [bucket for bucket, count in enumerate(counts) if count]
        sums = list(accumulate(counts[bucket] for bucket in held))
        total = sums[-1] if sums else 0
        below = [bisect_right(held, at) for at in self._at]
        middles = self._middles
        return Summary(
            total,
            sum(counts[bucket] * middles[bucket] for bucket in held),
            [*(sums[number - 1] if number else 0 for number in below), total],
            [
                middles[held[bisect_left(sums, max(1, ceil(share * total - 1e-9)))]] if total else 0.0
                for share in shares
            ],
        )

    def above(self, summary: Summary, edge_ns: int) -> int:
        """How many took longer than an edge: exact. Raises `ValueError` for what is no edge."""
        return summary.total - summary.at_most[self.edges_ns.index(edge_ns)]


def _bounds(edges: Iterable[int]) -> tuple[int, ...]:
    grid, at = {FLOOR_NS, CEILING_NS}, float(FLOOR_NS)
    while (at := at * GROWTH) < CEILING_NS:
        grid.add(int(at))
    return tuple(sorted(grid.union(edges)))
