"""How windows count: pure arithmetic, state in and state out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.model.needs import Count, Quota
from portalshield.rules.windows import GRAINS, STRATEGIES, AnyWindow, window_of

WINDOW_S = 60
WINDOW_MS = WINDOW_S * 1000
START_MS = 5_000_000
every_strategy = pytest.mark.parametrize("strategy", sorted(STRATEGIES))
steps = st.lists(st.tuples(st.integers(0, 45_000), st.integers(0, 4)), min_size=1, max_size=60)


def window(strategy: str, amount: int = 3) -> AnyWindow:
    return window_of(Quota("q", amount, WINDOW_S, strategy))


class Key:
    """What a store keeps for one key."""

    def __init__(self, counting: AnyWindow) -> None:
        self.window = counting
        self.state: Any = None

    def charge(self, now_ms: int, cost: int = 1) -> Count:
        charged, _, count = self.window.charge(self.state, cost, now_ms)
        if charged is not None:
            self.state = charged
        return count


@every_strategy
def test_exactly_the_quota_passes(strategy: str) -> None:
    """Of five requests at once three pass, and each is told what is left."""
    key = Key(window(strategy))
    told = [(count.allowed, count.remaining) for count in (key.charge(START_MS) for _ in range(5))]
    assert told == [(True, 2), (True, 1), (True, 0), (False, 0), (False, 0)]


@every_strategy
def test_refused_request_uses_up_nothing(strategy: str) -> None:
    """A request that costs more than is left leaves room for a smaller one."""
    key = Key(window(strategy))
    assert not key.charge(START_MS, cost=4).allowed
    assert key.charge(START_MS, cost=2).allowed
    assert not key.charge(START_MS, cost=2).allowed
    assert key.charge(START_MS, cost=1).allowed


@every_strategy
@pytest.mark.parametrize("cost", [pytest.param(0, id="zero"), pytest.param(-7, id="negative")])
def test_peek_says_whether_one_more_fits_and_charges_nothing(strategy: str, cost: int) -> None:
    """A cost of 0 or less asks as a cost of 1 would."""
    key = Key(window(strategy))
    assert [key.charge(START_MS, cost).remaining for _ in range(5)] == [3] * 5
    key.charge(START_MS, cost=3)
    told = key.charge(START_MS, cost)
    assert (told.allowed, told.remaining) == (False, 0)


@every_strategy
def test_nothing_ever_fits_into_a_quota_of_none(strategy: str) -> None:
    """An amount of 0 refuses every request, for one window at a time."""
    key = Key(window(strategy, amount=0))
    for cost in (0, 1, 5):
        told = key.charge(START_MS, cost)
        assert (told.allowed, told.remaining, told.reset_s) == (False, 0, WINDOW_S)


def test_fixed_window_ends_a_window_after_its_first_request() -> None:
    """The whole quota is there again from the first request plus the window on, to the millisecond."""
    key = Key(window("fixed-window"))
    key.charge(START_MS, cost=3)
    told = key.charge(START_MS + WINDOW_MS - 1)
    assert (told.allowed, told.reset_s) == (False, 0.001)
    told = key.charge(START_MS + WINDOW_MS)
    assert (told.allowed, told.remaining, told.reset_s) == (True, 2, WINDOW_S)


def test_moving_window_frees_each_request_a_window_after_it_came() -> None:
    """Requests leave one by one, in the order they came."""
    key = Key(window("moving-window"))
    for offset in (0, 10_000, 20_000):
        key.charge(START_MS + offset)
    assert key.charge(START_MS + 20_000).reset_s == 40.0
    assert key.charge(START_MS + 20_000, cost=2).reset_s == 50.0
    assert key.charge(START_MS + WINDOW_MS).allowed
    assert not key.charge(START_MS + WINDOW_MS).allowed


def test_sliding_window_counts_the_last_window_by_its_overlap() -> None:
    """Half-way through the next window half of the earlier requests still count."""
    key = Key(window("sliding-window-counter", amount=10))
    key.charge(START_MS, cost=10)
    assert key.charge(START_MS + WINDOW_MS + WINDOW_MS // 2, cost=0).remaining == 5
    assert key.charge(START_MS + 2 * WINDOW_MS, cost=0).remaining == 10


@every_strategy
@given(data=st.data())
def test_waiting_as_told_is_enough_and_not_too_long(strategy: str, data: st.DataObject) -> None:
    """Who comes back after `reset_s` gets in; who comes back sooner does not. It is never more than the window."""
    key = Key(window(strategy, amount=data.draw(st.integers(1, 12))))
    now_ms = START_MS
    for step_ms, cost in data.draw(steps):
        now_ms += step_ms
        told = key.charge(now_ms, cost)
        wait_ms = round(told.reset_s * 1000)
        assert 0 < wait_ms <= WINDOW_MS
        if told.allowed or cost > key.window.amount:
            continue
        if wait_ms < WINDOW_MS:
            assert key.window.charge(key.state, cost, now_ms + wait_ms)[2].allowed
        if wait_ms > 1:
            assert not key.window.charge(key.state, cost, now_ms + wait_ms - 1)[2].allowed


@given(st.integers(1, 10), steps)
def test_moving_window_never_lets_more_than_the_quota_into_any_window(
    amount: int, taken: list[tuple[int, int]]
) -> None:
    """Wherever a window of time is laid over the allowed requests, it holds at most the quota."""
    key = Key(window("moving-window", amount))
    now_ms, passed = START_MS, []
    for step_ms, cost in taken:
        now_ms += step_ms
        if cost and key.charge(now_ms, cost).allowed:
            passed.append((now_ms, cost))
    for begin, _ in passed:
        assert sum(cost for at, cost in passed if begin <= at < begin + WINDOW_MS) <= amount


@given(st.integers(GRAINS + 1, 400), st.lists(st.tuples(st.integers(0, 900), st.integers(1, 9)), max_size=200))
def test_large_moving_window_is_bounded_and_never_too_generous(amount: int, taken: list[tuple[int, int]]) -> None:
    """Beyond 64 requests times lie on a grid: at most 65 entries a key, and still at most the quota in any window."""
    key = Key(window("moving-window", amount))
    now_ms, passed = START_MS, []
    for step_ms, cost in taken:
        now_ms += step_ms
        if key.charge(now_ms, cost).allowed:
            passed.append((now_ms, cost))
        assert isinstance(key.state, int | None) or len(key.state) <= GRAINS + 2
    for begin, _ in passed:
        assert sum(cost for at, cost in passed if begin <= at < begin + WINDOW_MS) <= amount


def test_large_moving_window_holds_a_request_at_most_a_64th_longer() -> None:
    """The price of the grid is published: a request counts at most a 64th of the window too long."""
    key = Key(window("moving-window", 100))
    key.charge(START_MS + 1, cost=100)
    assert not key.charge(START_MS + WINDOW_MS, cost=0).allowed
    assert key.charge(START_MS + 1 + WINDOW_MS + WINDOW_MS // GRAINS, cost=100).allowed


@every_strategy
@pytest.mark.parametrize("hour_ms", [pytest.param(3_600_000, id="an hour"), pytest.param(WINDOW_MS + 1, id="a window")])
def test_clock_that_steps_back_blocks_for_at_most_one_window(strategy: str, hour_ms: int) -> None:
    """A spent quota stays spent, but not for longer than the window from the new time on."""
    key = Key(window(strategy))
    key.charge(START_MS, cost=3)
    told = key.charge(START_MS - hour_ms)
    assert not told.allowed
    assert told.reset_s <= WINDOW_S
    assert key.charge(START_MS - hour_ms + WINDOW_MS + 1).allowed


@every_strategy
def test_clock_that_steps_ahead_ends_the_window(strategy: str) -> None:
    """Two windows later nothing counts any more."""
    key = Key(window(strategy))
    key.charge(START_MS, cost=3)
    assert key.charge(START_MS + 2 * WINDOW_MS, cost=3).allowed


@every_strategy
@given(taken=steps)
def test_forgetting_a_state_after_its_end_changes_nothing(strategy: str, taken: list[tuple[int, int]]) -> None:
    """From `ends_ms` on the state says what no state says; `moved` is told whenever that time changes."""
    key = Key(window(strategy, amount=5))
    now_ms = START_MS
    for step_ms, cost in taken:
        now_ms += step_ms
        before = key.window.ends_ms(key.state) if key.state is not None else None
        charged, moved, _ = key.window.charge(key.state, cost, now_ms)
        if charged is not None:
            assert moved or key.window.ends_ms(charged) == before
            key.state = charged
    if key.state is not None:
        ends_ms = key.window.ends_ms(key.state)
        assert key.window.charge(key.state, 0, ends_ms)[2].remaining == 5
        assert ends_ms <= now_ms + 2 * WINDOW_MS


@every_strategy
@given(taken=steps, cost=st.integers(1, 4), later_ms=st.integers(0, 90_000))
def test_giving_back_at_once_undoes_a_charge(
    strategy: str, taken: list[tuple[int, int]], cost: int, later_ms: int
) -> None:
    """Charged and given back is as if it had not been asked, then and later."""
    key = Key(window(strategy, amount=6))
    now_ms = START_MS
    for step_ms, charged in taken:
        now_ms += step_ms
        key.charge(now_ms, charged)
    before = key.window.charge(key.state, 0, now_ms + later_ms)[2].remaining
    if key.charge(now_ms, cost).allowed:
        key.state = key.window.give_back(key.state, cost, now_ms)
    assert key.window.charge(key.state, 0, now_ms + later_ms)[2].remaining == before


@every_strategy
@given(taken=steps, given=st.integers(0, 99))
def test_giving_back_never_makes_more_of_a_quota(strategy: str, taken: list[tuple[int, int]], given: int) -> None:
    """However much is given back: at most the quota is free, and the state still ends within two windows."""
    key = Key(window(strategy, amount=5))
    now_ms = START_MS
    for step_ms, cost in taken:
        now_ms += step_ms
        key.charge(now_ms, cost)
        if key.state is not None:
            key.state = key.window.give_back(key.state, given, now_ms)
        told = key.charge(now_ms, 0)
        assert 0 <= told.remaining <= 5
        assert given < 5 or key.state is None
    if key.state is not None:
        assert key.window.ends_ms(key.state) <= now_ms + 2 * WINDOW_MS


def test_unknown_strategy_is_a_value_error() -> None:
    """Only the three strategies of `limits` exist."""
    with pytest.raises(ValueError, match="strategy"):
        window("leaky-bucket")
