"""How a window counts: fixed window, moving window, sliding-window counter. State in, state out.

A `Window` is compiled once per quota and holds no request's state. `charge` takes what is stored for one key (None:
nothing) and answers what to store and what to tell; the caller keeps the states and writes them. Time is whole
milliseconds of any clock (`now_ms`). A state is one small integer where possible: a store holds 100,000 of them.

The rules all three obey: a refused request uses up nothing; a cost of 0 (or less) peeks, it asks as a cost of 1 would
and charges nothing; a clock that steps back never lengthens a wait beyond one window.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from portalshield.model.needs import Count, Quota

GRAINS = 64
"""A moving window of more than this many requests keeps times on a grid of a 64th of the window, rounded up: a request
may count that much longer, never shorter, and a key needs at most 65 entries. Up to this many it is exact to the ms."""

S = TypeVar("S")
_MS = 0.001


class Window(Protocol[S]):
    """The arithmetic of one quota."""

    amount: int
    window_ms: int

    def charge(self, state: S | None, cost: int, now_ms: int) -> tuple[S | None, bool, Count]:
        """`(new state, moved, count)`.

        The new state is None where there is nothing to write: keep the old one. That is so when nothing was charged,
        unless the clock stepped back. `moved`: the time from which the state can be forgotten changed (see `ends_ms`),
        or there was none; where it did not, the new state is the old one plus the cost.
        """

    def give_back(self, state: S, cost: int, now_ms: int) -> S | None:
        """The state without up to `cost` of what was charged, the latest first; None where nothing is left.

        When the rest leaves the window is not put off by it. Giving back too much does no harm.
        """

    def ends_ms(self, state: S) -> int:
        """From then on the state says nothing any more."""


class FixedWindow:
    """`amount` in a window that starts with the first request. State: end and used, packed into one integer."""

    __slots__ = ("amount", "bits", "mask", "window_ms")

    def __init__(self, amount: int, window_ms: int) -> None:
        self.amount = amount
        self.window_ms = window_ms
        self.bits = amount.bit_length() + 1  # enough for twice the amount: threads that race may charge once too often
        self.mask = (1 << self.bits) - 1

    def charge(self, state: int | None, cost: int, now_ms: int) -> tuple[int | None, bool, Count]:
        """See `Window.charge`."""
        if state is not None:
            left_ms = (state >> self.bits) - now_ms
            if 0 < left_ms <= self.window_ms:
                remaining = max(0, self.amount - (state & self.mask))
                if 0 < cost <= remaining:
                    return state + cost, False, Count(True, remaining - cost, left_ms * _MS)
                return None, False, Count(0 < remaining >= cost, remaining, left_ms * _MS)
            if left_ms > 0:  # further ahead than a window: the clock stepped back; the count stands, the wait does not
                held = ((now_ms + self.window_ms) << self.bits) + (state & self.mask)
                charged, _, count = self.charge(held, cost, now_ms)
                return charged or held, True, count
        amount, wait_s = self.amount, self.window_ms * _MS
        if 0 < cost <= amount:
            return ((now_ms + self.window_ms) << self.bits) + cost, True, Count(True, amount - cost, wait_s)
        return None, True, Count(0 < amount >= cost, amount, wait_s)

    def give_back(self, state: int, cost: int, now_ms: int) -> int | None:
        """See `Window.give_back`."""
        if state >> self.bits <= now_ms or state & self.mask <= cost:
            return None
        return state - cost

    def ends_ms(self, state: int) -> int:
        """See `Window.ends_ms`."""
        return state >> self.bits


class SlidingWindow:
    """Windows one after the other; the one before counts for the share of it that still overlaps the last window.

    An approximation (it takes the earlier requests as spread evenly) for the price of two counters. State: end of the
    current window, requests in the one before, requests in this one, packed.
    """

    __slots__ = ("_bits", "_mask", "amount", "window_ms")

    def __init__(self, amount: int, window_ms: int) -> None:
        self.amount = amount
        self.window_ms = window_ms
        self._bits = amount.bit_length()
        self._mask = (1 << self._bits) - 1

    def charge(self, state: int | None, cost: int, now_ms: int) -> tuple[int | None, bool, Count]:
        """See `Window.charge`."""
        if state is not None and (state >> 2 * self._bits) - now_ms > self.window_ms:  # the clock stepped back
            counts = state & (1 << 2 * self._bits) - 1
            held = ((now_ms + self.window_ms) << 2 * self._bits) + counts
            charged, _, count = self.charge(held, cost, now_ms)
            return charged or held, True, count
        end_ms, before, used, moved = self._at(state, now_ms)
        left_ms = end_ms - now_ms
        remaining = max(0, self.amount - used - before * left_ms // self.window_ms)
        need = max(cost, 1)
        if need > remaining:
            return None, moved, Count(False, remaining, self._wait_ms(end_ms, before, used, need, now_ms) * _MS)
        if cost <= 0:
            return None, moved, Count(True, remaining, left_ms * _MS)
        packed = (((end_ms << self._bits) + before) << self._bits) + used + cost
        return packed, moved, Count(True, remaining - cost, left_ms * _MS)

    def give_back(self, state: int, cost: int, now_ms: int) -> int | None:
        """See `Window.give_back`. What this window does not hold was charged in the one before."""
        end_ms, before, used, _ = self._at(state, now_ms)
        before = max(0, before - max(0, cost - used))
        used = max(0, used - cost)
        return (((end_ms << self._bits) + before) << self._bits) + used if before or used else None

    def ends_ms(self, state: int) -> int:
        """See `Window.ends_ms`."""
        return (state >> 2 * self._bits) + self.window_ms

    def _at(self, state: int | None, now_ms: int) -> tuple[int, int, int, bool]:
        window_ms = self.window_ms
        if state is None:
            return now_ms + window_ms, 0, 0, True
        bits, mask = self._bits, self._mask
        end_ms, before, used = state >> 2 * bits, state >> bits & mask, state & mask
        left_ms = end_ms - now_ms
        if left_ms > 0:
            return end_ms, before, used, False
        if left_ms > -window_ms:
            return end_ms + window_ms, used, 0, True
        return now_ms + window_ms, 0, 0, True

    def _wait_ms(self, end_ms: int, before: int, used: int, need: int, now_ms: int) -> int:
        # The smallest t with floor(before * (end - t) / window) <= free; with none in this window, in the next one.
        window_ms = self.window_ms
        free = self.amount - used - need
        if need > self.amount:
            return window_ms
        if free < 0:
            end_ms, before, free = end_ms + window_ms, used, self.amount - need
        fits_ms = end_ms - ((free + 1) * window_ms - 1) // before if before else now_ms
        return min(max(fits_ms, end_ms - window_ms, now_ms) - now_ms, window_ms)


Runs = int | tuple[int, ...]
"""A moving window's state: one run (time and count, packed), or the sum of all counts and the runs, oldest first."""


class MovingWindow:
    """At most `amount` in any window, whenever it starts: a log of when how many came (see `GRAINS`)."""

    __slots__ = ("_bits", "_mask", "_step_ms", "amount", "window_ms")

    def __init__(self, amount: int, window_ms: int) -> None:
        self.amount = amount
        self.window_ms = window_ms
        self._bits = amount.bit_length()
        self._mask = (1 << self._bits) - 1
        self._step_ms = 1 if amount <= GRAINS else max(1, window_ms // GRAINS)

    def charge(self, state: Runs | None, cost: int, now_ms: int) -> tuple[Runs | None, bool, Count]:
        """See `Window.charge`."""
        bits, step_ms = self._bits, self._step_ms
        tick_ms = -(-now_ms // step_ms) * step_ms
        if state is not None and self.ends_ms(state) > tick_ms + self.window_ms:
            return self._stepped_back(state, cost, now_ms, tick_ms)
        used, runs = self._at(state, now_ms)
        remaining = self.amount - used
        need = max(cost, 1)
        wait_ms = self._wait_ms(runs, need - remaining, now_ms)
        if need > remaining:
            return None, True, Count(False, remaining, wait_ms * _MS)
        if cost <= 0:
            return None, True, Count(True, remaining, wait_ms * _MS)
        same_time = bool(runs) and runs[-1] >> bits == tick_ms
        runs = (*runs[:-1], runs[-1] + cost) if same_time else (*runs, (tick_ms << bits) + cost)
        packed: Runs = runs[0] if len(runs) == 1 else (used + cost, *runs)
        return packed, True, Count(True, remaining - cost, wait_ms * _MS)

    def give_back(self, state: Runs, cost: int, now_ms: int) -> Runs | None:
        """See `Window.give_back`."""
        used, held = self._at(state, now_ms)
        runs = list(held)
        while runs and cost > 0:
            taken = min(cost, runs[-1] & self._mask)
            cost, used = cost - taken, used - taken
            runs[-1] -= taken
            if not runs[-1] & self._mask:
                runs.pop()
        if len(runs) > 1:
            return (used, *runs)
        return runs[0] if runs else None

    def ends_ms(self, state: Runs) -> int:
        """See `Window.ends_ms`."""
        last = state if isinstance(state, int) else state[-1]
        return (last >> self._bits) + self.window_ms

    def _stepped_back(self, state: Runs, cost: int, now_ms: int, tick_ms: int) -> tuple[Runs | None, bool, Count]:
        """Everything that counts came now, as far as the clock can tell: it counts for one window more."""
        used, _ = self._at(state, now_ms)
        held = (tick_ms << self._bits) + used
        charged, _, count = self.charge(held, cost, now_ms)
        return charged or held, True, count

    def _at(self, state: Runs | None, now_ms: int) -> tuple[int, tuple[int, ...]]:
        """What still counts: the sum and the runs."""
        if state is None:
            return 0, ()
        bits, mask = self._bits, self._mask
        used, runs = (state & mask, (state,)) if isinstance(state, int) else (state[0], state[1:])
        gone = 0
        for run in runs:
            if (run >> bits) + self.window_ms > now_ms:
                break
            used -= run & mask
            gone += 1
        return used, runs[gone:] if gone else runs

    def _wait_ms(self, runs: tuple[int, ...], excess: int, now_ms: int) -> int:
        """Until so many left the window that the request fits; without excess, until the oldest leaves."""
        window_ms = self.window_ms
        for run in runs:
            excess -= run & self._mask
            if excess <= 0:
                return min((run >> self._bits) + window_ms - now_ms, window_ms)
        return window_ms


AnyWindow = Window[Any]

STRATEGIES: dict[str, type[FixedWindow] | type[SlidingWindow] | type[MovingWindow]] = {
    "fixed-window": FixedWindow,
    "moving-window": MovingWindow,
    "sliding-window-counter": SlidingWindow,
}
"""The names that `limits` gives them."""


def window_of(quota: Quota) -> AnyWindow:
    """The arithmetic of a quota; `ValueError` for a strategy that is not known."""
    strategy = STRATEGIES.get(quota.strategy)
    if strategy is None:
        raise ValueError("the strategy is none of " + ", ".join(STRATEGIES))
    return strategy(quota.amount, quota.window_s * 1000)
