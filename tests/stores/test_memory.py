"""Limits in this process: against a ten-line model per strategy, under threads, full, and under attack."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from limiter_models import LimiterMachine

from portalshield.model.exchange import Exchange
from portalshield.model.needs import Count, Counts, GiveBack, Hit, Quota
from portalshield.model.verdicts import Problem, problem
from portalshield.stores import memory
from portalshield.stores.memory import LONGEST_KEY, STRIPE, MemoryStore

STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


class Clock:
    """Seconds that stand still; whole milliseconds, so that the models need not round."""

    def __init__(self) -> None:
        self.ms = 50_000_000

    def __call__(self) -> float:
        return self.ms / 1000


def hit(*counters: tuple[str, Quota, int]) -> Hit:
    return Hit(counters)


def one(store: MemoryStore, key: str, quota: Quota, cost: int = 1) -> Count:
    (count,) = store.hit(hit((key, quota, cost)))
    return count


class Checked:
    """The store as a stage with one limit uses it; what is asked otherwise goes the ordinary way."""

    def __init__(self, store: MemoryStore, now_ms: Callable[[], int]) -> None:
        self._store, self._now_ms = store, now_ms
        self.give_back = store.give_back

    def hit(self, asked: Hit) -> Counts:
        if len(asked.counters) > 1:
            return self._store.hit(asked)
        ((name, quota, cost),) = asked.counters
        x = Exchange()
        x.address_key, x.began_ns = name, self._now_ms() * 1_000_000
        refusal = self._store.checker(quota, "", "ip", cost, refused)(x)
        remaining, reset_s = x.counts
        if refusal is not None:
            assert refusal.why == str(reset_s)
        return (Count(refusal is None, remaining, reset_s),)


def refused(wait_s: int) -> Problem:
    return problem("rate-limited", why=str(wait_s))


# -- against a model --------------------------------------------------------------------------------------------------


class AgainstModel(LimiterMachine):
    """The memory store."""

    def open(self) -> MemoryStore:
        return MemoryStore(1000, lambda: self.now_ms / 1000)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstModel.__doc__ = "For each strategy the store says what the model says, clock jumps included."


class CheckedAgainstModel(LimiterMachine):
    """The same as stages ask it, for most requests without a lock."""

    def open(self) -> Checked:
        return Checked(MemoryStore(1000, lambda: self.now_ms / 1000), lambda: self.now_ms)


TestCheckedAgainstModel = CheckedAgainstModel.TestCase
TestCheckedAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCheckedAgainstModel.__doc__ = "A stage's own check says what the models say, clock jumps included."


# -- several counters -------------------------------------------------------------------------------------------------


@every_strategy
def test_refused_request_uses_up_no_counter(strategy: str) -> None:
    """When one of several quotas is spent none is charged, and all are reported."""
    store, narrow, wide = MemoryStore(), Quota("narrow", 1, 60, strategy), Quota("wide", 10, 60, strategy)
    both = hit(("k", narrow, 1), ("k", wide, 2))
    assert [count.remaining for count in store.hit(both)] == [0, 8]
    for _ in range(3):
        spent, free = store.hit(both)
        assert (spent.allowed, spent.remaining, free.allowed, free.remaining) == (False, 0, True, 8)


def test_counter_that_stands_twice_is_charged_once() -> None:
    """The same limit written twice on a route does not halve it."""
    store, quota = MemoryStore(), Quota("q", 5, 60)
    store.hit(hit(("k", quota, 1), ("k", quota, 1)))
    assert one(store, "k", quota, 0).remaining == 4


def test_equal_quotas_share_their_counts() -> None:
    """A quota is what it allows, not which object says so."""
    store = MemoryStore()
    for _ in range(3):
        one(store, "k", Quota("q", 3, 60))
    assert not one(store, "k", Quota("other name", 3, 60)).allowed
    assert one(store, "k", Quota("q", 3, 61)).allowed


def test_quotas_made_for_every_request_do_not_pile_up() -> None:
    """Whoever makes quotas at request time gets right counts and no growing table."""
    store = MemoryStore()
    for number in range(5000):
        count = one(store, "k", Quota("q", 10_000, 60))
        assert count.remaining == 9999 - number
    assert len(store._by_id) <= 1024


def test_no_counters_is_no_counts() -> None:
    """An empty question has an empty answer."""
    assert MemoryStore().hit(Hit(())) == ()


def test_async_colour_says_the_same() -> None:
    """`ahit` is `hit`: nothing waits."""
    store, quota = MemoryStore(), Quota("q", 1, 60)
    first = asyncio.run(store.ahit(hit(("k", quota, 1))))
    assert (first[0].allowed, one(store, "k", quota).allowed) == (True, False)


def test_cleared_store_counts_anew() -> None:
    """`clear` forgets entries and overflow."""
    store, quota = MemoryStore(1), Quota("q", 1, 60)
    for key in "abc":
        one(store, key, quota)
    store.clear()
    assert len(store) == 0
    assert one(store, "b", quota).allowed


# -- giving back ------------------------------------------------------------------------------------------------------


@every_strategy
def test_what_is_given_back_may_be_used_again(strategy: str) -> None:
    """One of three given back is one more request; giving back all of it forgets the entry."""
    store, quota = MemoryStore(), Quota("q", 3, 60, strategy)
    one(store, "k", quota, 3)
    (left,) = store.give_back(GiveBack((("k", quota, 1),)))
    assert (left.allowed, left.remaining) == (True, 1)
    assert [one(store, "k", quota).allowed for _ in range(2)] == [True, False]
    store.give_back(GiveBack((("k", quota, quota.amount),)))
    assert len(store) == 0
    assert one(store, "k", quota).remaining == 2


@every_strategy
def test_giving_back_more_than_was_used_gives_nothing_away(strategy: str) -> None:
    """Neither an unknown key nor too high a cost makes a quota larger."""
    store, quota = MemoryStore(), Quota("q", 3, 60, strategy)
    one(store, "k", quota)
    told = store.give_back(GiveBack((("k", quota, 99), ("k", quota, 99), ("other", quota, 1), ("k", quota, 0))))
    assert [count.remaining for count in told] == [3, 3, 3, 3]
    assert sum(one(store, "k", quota).allowed for _ in range(9)) == 3


def test_giving_back_finds_long_keys() -> None:
    """A key that is kept as a digest is found under its text."""
    store, quota, long = MemoryStore(), Quota("q", 1, 60), "x" * 1000
    one(store, long, quota)
    store.give_back(GiveBack(((long, quota, 1),)))
    assert one(store, long, quota).allowed


def test_async_colour_gives_back_too() -> None:
    """`agive_back` is `give_back`."""
    store, quota = MemoryStore(), Quota("q", 1, 60)
    one(store, "k", quota)
    asyncio.run(store.agive_back(GiveBack((("k", quota, 1),))))
    assert one(store, "k", quota).allowed


# -- threads and forks ------------------------------------------------------------------------------------------------


@every_strategy
def test_of_200_concurrent_requests_exactly_the_quota_passes(strategy: str) -> None:
    """Two counters each, from 16 threads: not one too many, not one too few."""
    store = MemoryStore()
    quotas = (Quota("q", 50, 3600, strategy), Quota("r", 1000, 3600, strategy))
    together = threading.Barrier(16)

    def ask(number: int) -> list[bool]:
        together.wait()
        asked = [hit(("k", quotas[0], 1), (f"other{n % 3}", quotas[1], 1)) for n in range(number, 200, 16)]
        return [store.hit(each)[0].allowed for each in asked]

    with ThreadPoolExecutor(16) as pool:
        passed = [allowed for answers in pool.map(ask, range(16)) for allowed in answers]
    assert (len(passed), sum(passed)) == (200, 50)
    assert sum(1000 - one(store, f"other{n}", quotas[1], 0).remaining for n in range(3)) == 50


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("with_lock", [False, True])
def test_of_many_checks_at_once_exactly_the_quota_passes(with_lock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads without a lock, and with one where the interpreter has none: not one too many or too few."""
    if with_lock:
        monkeypatch.setattr(memory, "switches_at_calls_only", lambda: False)
    store, quota = MemoryStore(), Quota("q", 5000, 3600)
    check = store.checker(quota, "ip", "ip", 1, refused)
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        together.wait()
        passed = 0
        for _ in range(1000):
            x = Exchange()
            x.address_key, x.began_ns = "k", time.perf_counter_ns()
            passed += check(x) is None
        return passed

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8), timeout=60)) == 5000
    assert one(store, "ipk", quota, 0).remaining == 0


@pytest.mark.usefixtures("quick_switches")
def test_no_check_is_lost_beside_questions_of_several_counters() -> None:
    """Who takes the lock adds to what was counted without it meanwhile."""
    store, quota, other = MemoryStore(), Quota("q", 10**6, 3600), Quota("r", 10**6, 3600)
    check = store.checker(quota, "", "ip", 1, refused)
    both = hit(("k", quota, 1), ("k", other, 1))

    def checked() -> None:
        for _ in range(3000):
            x = Exchange()
            x.address_key, x.began_ns = "k", time.perf_counter_ns()
            check(x)

    def asked() -> None:
        for _ in range(3000):
            store.hit(both)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(job) for job in (checked, asked, checked, asked)]:
            future.result(60)
    assert one(store, "k", quota, 0).remaining == 10**6 - 12_000


def test_a_request_that_began_before_its_window_is_counted_by_the_clock() -> None:
    """Requests wait for each other: the window one of them opened is no reason to open another."""
    store, quota = MemoryStore(), Quota("q", 2, 3600)
    check = store.checker(quota, "", "ip", 1, refused)
    early = Exchange()
    early.address_key, early.began_ns = "k", time.perf_counter_ns() - 5_000_000_000
    one(store, "k", quota)
    assert check(early) is None
    assert early.counts[0] == 0
    assert check(early) is not None


def test_counters_taken_in_opposite_order_do_not_wait_for_each_other() -> None:
    """Two threads that hold the same keys in opposite order both end."""
    store, quota = MemoryStore(100_000), Quota("q", 10**6, 3600)
    there, back = hit(("a", quota, 1), ("b", quota, 1)), hit(("b", quota, 1), ("a", quota, 1))
    assert len({hash(key) % store._spread for key in ("a", "b", "c", "d", "e", "f", "g")}) > 1

    def ask(each: Hit) -> None:
        for _ in range(3000):
            store.hit(each)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, (there, back), timeout=60))
    assert one(store, "a", quota, 0).remaining == 10**6 - 6000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_inherit_a_held_lock() -> None:
    """A lock that another thread held at the time of the fork is free in the child."""
    store, quota = MemoryStore(100), Quota("q", 5, 60)
    one(store, "k", quota)
    with store._stripes[0].lock, store._overflow_lock, store._opening:
        child = os.fork()
        if child == 0:
            os._exit(7 if one(store, "k", quota).remaining == 3 and one(store, "k", Quota("r", 6, 60)).allowed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_no_thread_is_started() -> None:
    """Hits, spaced or not, leave the number of threads alone."""
    store, quota, clock_before = MemoryStore(100), Quota("q", 5, 1), threading.active_count()
    for number in range(1000):
        one(store, str(number), quota)
    assert threading.active_count() == clock_before


# -- full -------------------------------------------------------------------------------------------------------------


@every_strategy
def test_entries_are_capped(strategy: str) -> None:
    """A hundred times as many keys as fit leave exactly as many entries as are allowed."""
    store, quota = MemoryStore(100), Quota("q", 5, 60, strategy)
    for number in range(10_000):
        assert one(store, f"key{number}", quota).allowed
        assert len(store) <= 100
    assert len(store) == 100


def test_a_million_minted_keys() -> None:
    """D-09: no more entries than are configured, and whoever was blocked before them still is."""
    store, quota = MemoryStore(10_000), Quota("q", 3, 3600)
    one(store, "blocked", quota, 3)
    for number in range(1_000_000):
        one(store, str(number), quota)
    assert len(store) <= 10_000
    assert not one(store, "blocked", quota).allowed


def test_entries_of_all_quotas_share_the_cap() -> None:
    """Several counters per request, quotas of their own: the cap holds for all of them together."""
    store, short, long = MemoryStore(100), Quota("short", 5, 60), Quota("long", 5, 3600, "moving-window")
    for number in range(2000):
        store.hit(hit((f"k{number}", short, 1), (f"k{number}", long, 1)))
        assert len(store) <= 100
    assert len(store) == sum(len(table) for ledger in store._ledgers.values() for table in ledger.tables)


def test_entry_nearest_its_end_goes_first() -> None:
    """Among entries of different windows and ages, what ends first makes room."""
    clock = Clock()
    store = MemoryStore(3, clock)
    short, long = Quota("short", 5, 10), Quota("long", 5, 100)
    one(store, "ends at 100", long)
    clock.ms += 1000
    one(store, "ends at 11", short)
    clock.ms += 1000
    one(store, "ends at 12", short)
    one(store, "new", long)
    assert one(store, "ends at 12", short, 0).remaining == 4
    assert one(store, "ends at 100", long, 0).remaining == 4
    assert one(store, "ends at 11", short, 0).remaining == 5


@every_strategy
def test_minted_keys_do_not_free_a_blocked_one(strategy: str) -> None:
    """The attack: spend the quota, then send from thousands of new keys, then come back. Still blocked."""
    clock = Clock()
    store, quota = MemoryStore(1000, clock), Quota("q", 3, 60, strategy)
    for _ in range(3):
        one(store, "attacker", quota)
    for number in range(20_000):
        one(store, f"minted{number}", quota)
        clock.ms += number % 2
    assert not one(store, "attacker", quota).allowed
    clock.ms += 120_000
    assert one(store, "attacker", quota).allowed


@every_strategy
def test_when_all_are_blocked_new_keys_share_one_overflow_bucket(strategy: str) -> None:
    """No blocked entry goes, no memory is taken, and all strangers together have one quota."""
    clock = Clock()
    store, quota = MemoryStore(100, clock), Quota("q", 2, 60, strategy)
    blocked = [f"blocked{number}" for number in range(100)]
    for key in blocked * 2:
        one(store, key, quota)
    strangers = [one(store, f"stranger{number}", quota).allowed for number in range(50)]
    assert strangers == [True] * 2 + [False] * 48
    assert len(store) == 100
    assert not any(one(store, key, quota).allowed for key in blocked)
    clock.ms += 120_000
    assert all(one(store, f"stranger{number}", quota).allowed for number in range(50))


def test_room_is_found_as_soon_as_one_blocked_entry_ends() -> None:
    """The overflow bucket is left at the very millisecond at which an entry may go."""
    clock = Clock()
    store, quota = MemoryStore(2, clock), Quota("q", 1, 10)
    one(store, "first", quota)
    clock.ms += 4000
    one(store, "second", quota)
    assert [one(store, key, quota).allowed for key in "ab"] == [True, False]
    clock.ms += 5999
    assert not one(store, "c", quota).allowed
    clock.ms += 1
    assert one(store, "c", quota).allowed
    assert not one(store, "second", quota).allowed


def test_overflow_is_counted_all_or_nothing_too() -> None:
    """A request with one spent counter charges nothing to the bucket that strangers share."""
    store, quota, other = MemoryStore(1), Quota("q", 1, 60), Quota("r", 5, 60)
    one(store, "blocked", quota)
    spent, free = store.hit(hit(("blocked", quota, 1), ("stranger", other, 1)))
    assert (spent.allowed, free.remaining) == (False, 5)
    assert [one(store, f"stranger{number}", other).remaining for number in range(3)] == [4, 3, 2]


def test_clock_that_steps_back_does_not_keep_the_store_full() -> None:
    """The note "nothing can be given up until then" is not believed when that lies hours ahead."""
    clock = Clock()
    store, quota = MemoryStore(1, clock), Quota("q", 1, 10)
    one(store, "blocked", quota)
    one(store, "a", quota)
    assert not one(store, "b", quota).allowed
    clock.ms -= 3_600_000
    assert not one(store, "b", quota).allowed
    clock.ms += 10_000
    assert one(store, "b", quota).allowed


# -- what a key costs -------------------------------------------------------------------------------------------------


@every_strategy
def test_100_000_keys_take_at_most_16_mib(strategy: str) -> None:
    """Far more keys than fit, keys included: at most 168 bytes each, also after the churn."""
    quota = Quota("q", 300, 60, strategy)
    tracemalloc.start()
    try:
        store = MemoryStore(100_000)
        for number in range(130_000):
            one(store, f"ip\x1d203.0.{number >> 8}.{number & 255}", quota)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 95_000 < len(store) <= 100_000
    assert size <= 16 * 2**20


def test_long_keys_are_kept_as_digests() -> None:
    """A key of any length takes the room of a short one, and keys that differ at their end stay apart."""
    store, quota = MemoryStore(100), Quota("q", 1, 60)
    long = "x" * 100_000
    assert one(store, long + "a", quota).allowed
    assert one(store, long + "\ud800", quota).allowed
    assert not one(store, long + "a", quota).allowed
    assert all(len(key) < LONGEST_KEY for ledger in store._ledgers.values() for table in ledger.tables for key in table)


def test_no_table_outgrows_a_stripe() -> None:
    """However many entries are configured, no dict holds more than a stripe's: no resize is longer than that."""
    store, quota = MemoryStore(20_000), Quota("q", 5, 60)
    for number in range(40_000):
        one(store, str(number), quota)
    tables = [table for ledger in store._ledgers.values() for table in ledger.tables]
    assert max(map(len, tables)) <= STRIPE


def test_store_without_room_is_refused() -> None:
    """At least one entry is needed."""
    with pytest.raises(ValueError, match="max_keys"):
        MemoryStore(0)


def test_unknown_strategy_is_a_value_error() -> None:
    """A quota with a strategy that nobody knows is a mistake of the caller."""
    with pytest.raises(ValueError, match="strategy"):
        one(MemoryStore(), "k", Quota("q", 1, 1, "leaky-bucket"))
