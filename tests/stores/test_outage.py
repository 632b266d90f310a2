"""When the store does not answer: what stands in for it, what is reported, when it is asked again."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, get_args

import pytest

from portalshield.model.needs import Counts, GiveBack, Hit, Quota, Unavailable
from portalshield.stores import gives_back, open_store
from portalshield.stores.generic import GenericStore
from portalshield.stores.memory import MemoryStore
from portalshield.stores.outage import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    NORMAL,
    PROBE,
    REFUSED,
    Asked,
    Breaker,
    OnOutage,
    OutageStore,
    StoreChange,
)
from portalshield.testing.stores import FailingStore

QUOTA = Quota("ip-per-minute", 3, 60)
ONE = Hit((("k", QUOTA, 1),))
MODES: tuple[OnOutage, ...] = get_args(OnOutage)
Asker = Callable[[Asked, Hit], Counts | Unavailable]


def blocking(store: Asked, hit: Hit) -> Counts | Unavailable:
    return store.hit(hit)


def waiting(store: Asked, hit: Hit) -> Counts | Unavailable:
    return asyncio.run(store.ahit(hit))


both_colours = pytest.mark.parametrize("ask", [pytest.param(blocking, id="sync"), pytest.param(waiting, id="async")])


def told(answer: Counts | Unavailable) -> list[tuple[bool, int]] | str:
    if isinstance(answer, Unavailable):
        return answer.reason
    return [(count.allowed, count.remaining) for count in answer]


# -- what stands in ---------------------------------------------------------------------------------------------------


@both_colours
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param("local", [[(True, 2)], [(True, 1)], [(True, 0)], [(False, 0)]], id="local"),
        pytest.param("open", [[(True, 3)]] * 4, id="open"),
        pytest.param("closed", ["store-down"] * 4, id="closed"),
    ],
)
def test_what_a_mode_answers_while_the_store_is_down(ask: Asker, mode: OnOutage, expected: list[object]) -> None:
    """local: the same quota in this process; open: allowed; closed: unavailable."""
    store = OutageStore(FailingStore(), MemoryStore(), mode, lambda change: None)
    assert [told(ask(store, ONE)) for _ in range(4)] == expected
    assert store.stood_in == 4


@both_colours
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nth", range(1, 7))
def test_fault_loop(ask: Asker, mode: OnOutage, nth: int) -> None:
    """The N-th question fails, for every N: that answer is the mode's, all others are the shared store's."""
    changes: list[StoreChange] = []
    store = OutageStore(FailingStore(nth, reason="store-timeout"), MemoryStore(), mode, changes.append)
    answers = [told(ask(store, ONE)) for _ in range(6)]
    stands_in: dict[OnOutage, object] = {"local": [(True, 2)], "open": [(True, 3)], "closed": "store-timeout"}
    shared: list[object] = [[(True, 2)], [(True, 1)], [(True, 0)], [(False, 0)], [(False, 0)]]
    assert answers == [*shared[: nth - 1], stands_in[mode], *shared[nth - 1 :]]
    expected = [StoreChange(False, mode, "store-timeout"), StoreChange(True, mode, "", 1)]
    assert changes == (expected if nth < 6 else expected[:1])


@both_colours
def test_local_counts_outlive_the_outage(ask: Asker) -> None:
    """A second outage within the window does not begin with a fresh local quota."""
    failing = FailingStore()
    store = OutageStore(failing, MemoryStore(), "local", lambda change: None)
    for _ in range(3):
        ask(store, ONE)
    failing._nth = 0
    assert told(ask(store, ONE)) == [(True, 2)]
    failing._nth = None
    assert told(ask(store, ONE)) == [(False, 0)]


# -- brakes, and giving back ------------------------------------------------------------------------------------------

BRAKE = Quota("login-per-minute", 3, 60, brake=True)


def given_back(ask: Asker, store: Asked, need: GiveBack) -> Counts | Unavailable:
    return asyncio.run(store.agive_back(need)) if ask is waiting else store.give_back(need)


@both_colours
def test_a_brake_is_never_open(ask: Asker) -> None:
    """In the mode `open`, too, whoever guesses is counted here; limits beside it are part of the question."""
    store = OutageStore(FailingStore(), MemoryStore(), "open", lambda change: None)
    hit = Hit((("k", QUOTA, 1), ("k", BRAKE, 1)))
    assert [told(ask(store, hit)) for _ in range(4)] == [[(True, n)] * 2 for n in (2, 1, 0)] + [[(False, 0)] * 2]
    assert told(ask(store, ONE)) == [(True, 3)]


@both_colours
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param("local", [(True, 3)], id="local"),
        pytest.param("open", [(True, 3)], id="open"),
        pytest.param("closed", "store-down", id="closed"),
    ],
)
def test_giving_back_while_the_store_is_down(ask: Asker, mode: OnOutage, expected: object) -> None:
    """What was counted here is given back here."""
    store = OutageStore(FailingStore(), MemoryStore(), mode, lambda change: None)
    ask(store, Hit((("k", BRAKE, 1),)))
    assert told(given_back(ask, store, GiveBack((("k", BRAKE, 1),)))) == expected


@both_colours
@pytest.mark.parametrize("nth", range(1, 7))
def test_fault_loop_of_counting_and_giving_back(ask: Asker, nth: int) -> None:
    """The N-th question fails, for every N: the quota is never exceeded by more than the one that stands in."""
    changes: list[StoreChange] = []
    store = OutageStore(FailingStore(nth), MemoryStore(), "local", changes.append)
    for _ in range(3):
        assert told(ask(store, ONE)) != [(False, 0)]
        given_back(ask, store, GiveBack((("k", QUOTA, 1),)))
    assert [change.available for change in changes] == ([False, True] if nth < 6 else [False])
    passed = sum(told(ask(store, ONE)) != [(False, 0)] for _ in range(9))
    assert passed == (2 if nth % 2 == 0 else 3)  # one that could not be given back stays counted


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("memory://", True, id="memory"),
        pytest.param("async+redis://localhost", True, id="redis"),
        pytest.param("rediss://localhost", True, id="redis over TLS"),
        pytest.param("redis+unix:///s", True, id="unix socket"),
        pytest.param("memcached://localhost", False, id="memcached"),
        pytest.param("redis+cluster://localhost", False, id="redis cluster"),
        pytest.param("", False, id="empty"),
    ],
)
def test_which_storages_can_give_back(uri: str, expected: bool) -> None:
    """Login brakes need one of these; others serve limits only."""
    assert gives_back(uri) is expected


# -- what is reported -------------------------------------------------------------------------------------------------


def test_each_change_is_reported_once() -> None:
    """However many requests see it; the report of the return says how many were answered meanwhile."""
    changes: list[StoreChange] = []
    failing = FailingStore(0)
    store = OutageStore(failing, MemoryStore(), "open", changes.append)
    for nth in (0, None, 0, None, 0):
        failing._nth = nth
        for _ in range(5):
            store.hit(ONE)
    assert [(change.available, change.stood_in) for change in changes] == [(False, 0), (True, 5)] * 2


def test_answers_to_older_questions_change_nothing() -> None:
    """What was on its way when the change was seen, and arrives after it, is not a second change."""
    changes: list[StoreChange] = []
    gates: list[asyncio.Future[Counts | Unavailable]] = []

    class Slow(FailingStore):
        async def ahit(self, hit: Hit) -> Counts | Unavailable:
            gates.append(asyncio.get_running_loop().create_future())
            return await gates[-1]

    async def overlap() -> None:
        store = OutageStore(Slow(), MemoryStore(), "open", changes.append)
        asked = [asyncio.ensure_future(store.ahit(ONE)) for _ in range(4)]
        await asyncio.sleep(0)
        answers: tuple[Counts | Unavailable, ...] = (Unavailable("a"), (), Unavailable("b"), ())
        for gate, task, answer in zip(gates, asked, answers, strict=True):
            gate.set_result(answer)
            await task

    asyncio.run(overlap())
    assert changes == [StoreChange(False, "open", "a")]


def test_reports_are_log_lines_without_values(caplog: pytest.LogCaptureFixture) -> None:
    """`logging.warning` can be told directly; the line says what happens meanwhile."""
    failing = FailingStore(1, reason="store-timeout")
    store = OutageStore(failing, MemoryStore(), "local", logging.getLogger("portalshield.test").warning)
    with caplog.at_level(logging.WARNING, "portalshield.test"):
        store.hit(ONE)
        store.hit(ONE)
    assert caplog.messages == [
        "the store for limits does not answer (store-timeout): the same quotas are counted in each process",
        "the store for limits is back; 1 questions were answered without it",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_reports_although_the_lock_was_held() -> None:
    """A lock that another thread held at the time of the fork does not stop the child."""
    changes: list[StoreChange] = []
    store = OutageStore(FailingStore(), MemoryStore(), "open", changes.append)
    with store._changing:
        child = os.fork()
        if child == 0:
            store.hit(ONE)
            os._exit(7 if len(changes) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# -- when it is asked again -------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(draw: float = 1.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(clock, lambda: draw), clock


def test_breaker_opens_at_the_first_failure() -> None:
    """One question pays for the time-out; the next ones are refused at once."""
    tested, _ = breaker()
    assert (tested.admit(), tested.is_resting) == (NORMAL, False)
    tested.failed(NORMAL)
    assert (tested.admit(), tested.is_resting) == (REFUSED, True)


def test_one_probe_per_pause() -> None:
    """When the pause is over one question tries; the others go on being refused until it knows."""
    tested, clock = breaker()
    tested.failed(NORMAL)
    clock.now += FIRST_PAUSE_S
    assert [tested.admit() for _ in range(3)] == [PROBE, REFUSED, REFUSED]
    tested.succeeded(PROBE)
    assert [tested.admit() for _ in range(3)] == [NORMAL] * 3


@pytest.mark.parametrize("draw", [pytest.param(0.0, id="shortest"), pytest.param(1.0, id="longest")])
def test_pauses_grow_but_stay_under_ten_seconds(draw: float) -> None:
    """1, 2, 4, 8, 8 ... seconds, shortened by up to half: a store that is back is noticed within 10 s."""
    tested, clock = breaker(draw)
    tested.failed(NORMAL)
    pauses = []
    for _ in range(8):
        began = clock.now
        while tested.admit() == REFUSED:
            clock.now += 0.125
        pauses.append(clock.now - began)
        tested.failed(PROBE)
    assert pauses == [pause * (0.5 + draw / 2) for pause in (1, 2, 4, 8, 8, 8, 8, 8)]
    assert max(pauses) <= LONGEST_PAUSE_S < 10


def test_late_answers_do_not_move_the_breaker() -> None:
    """Questions from before the failure neither close it nor make the pause longer."""
    tested, clock = breaker()
    tested.failed(NORMAL)
    clock.now += FIRST_PAUSE_S / 2
    tested.succeeded(NORMAL)
    tested.failed(NORMAL)
    assert tested.admit() == REFUSED
    clock.now += FIRST_PAUSE_S / 2
    assert tested.admit() == PROBE


def test_cancelled_probe_lets_the_next_one_try() -> None:
    """A client that goes away while its request probes does not cost the others a pause."""
    tested, clock = breaker()
    tested.failed(NORMAL)
    clock.now += FIRST_PAUSE_S
    tested.abandoned(tested.admit())
    assert tested.admit() == PROBE


def test_lost_probe_is_replaced_after_a_pause() -> None:
    """A thread that dies with the probe does not keep the breaker open for ever."""
    tested, clock = breaker()
    tested.failed(NORMAL)
    clock.now += FIRST_PAUSE_S
    assert tested.admit() == PROBE
    clock.now += FIRST_PAUSE_S
    assert tested.admit() == PROBE


# -- which store an address means -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "is_local"),
    [
        pytest.param("memory://", True, id="memory"),
        pytest.param("async+memory://", True, id="the colour is the door's"),
        pytest.param("redis://127.0.0.1:1/0", False, id="redis"),
        pytest.param("rediss://user:hunter2@127.0.0.1:1/0?ssl_cert_reqs=none", False, id="redis over TLS"),
        pytest.param("unix:///nowhere/redis.sock?db=1", False, id="unix socket"),
        pytest.param("redis+unix:///nowhere/redis.sock", False, id="unix socket as limits spells it"),
    ],
)
def test_address_opens_a_store_without_asking_it(uri: str, is_local: bool) -> None:
    """Opening never connects, so a server that is away does not keep the application from starting."""
    assert open_store(uri, max_keys=100, on_outage="local", notify=lambda change: None).is_local is is_local


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("hunter2", id="no address"),
        pytest.param("", id="empty"),
        pytest.param("carrier-pigeon://hunter2", id="unknown scheme"),
        pytest.param("redis://localhost:hunter2/0", id="port that is none"),
        pytest.param("redis://localhost/0?hunter2=1", id="unknown option"),
        pytest.param("redis://localhost/0?db=hunter2", id="option with a wrong value"),
    ],
)
def test_unusable_address_is_a_value_error_that_does_not_repeat_it(uri: str) -> None:
    """The text continues "the setting ..." and holds no part of the address, which may carry a password."""
    with pytest.raises(ValueError, match=r"^(is|names|needs) ") as caught:
        open_store(uri)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_missing_redis_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py is an extra: without it the address is refused with the line to type."""
    monkeypatch.setitem(__import__("sys").modules, "redis.connection", None)
    with pytest.raises(ValueError, match=r'pip install "portalshield\[redis\]"'):
        open_store("redis://localhost/0")


# -- other storages of `limits` ---------------------------------------------------------------------------------------


@both_colours
@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window", "sliding-window-counter"])
def test_generic_store_counts_all_or_nothing(ask: Asker, strategy: str) -> None:
    """A storage of `limits` answers like our own: exact, refused requests use up nothing, cost 0 peeks."""
    store = GenericStore("memory://")
    narrow, wide = Quota("narrow", 2, 60, strategy), Quota("wide", 10, 3600, strategy)
    asked = [Hit((("k", narrow, cost), ("k", wide, cost))) for cost in (1, 0, 1, 1, 0)]

    async def all_in_one_loop() -> list[Counts | Unavailable]:
        return [await store.ahit(hit) for hit in asked]

    answers = asyncio.run(all_in_one_loop()) if ask is waiting else [store.hit(hit) for hit in asked]
    assert [told(answer) for answer in answers] == [
        [(True, 1), (True, 9)],
        [(True, 1), (True, 9)],
        [(True, 0), (True, 8)],
        [(False, 0), (True, 8)],
        [(False, 0), (True, 8)],
    ]
    assert all(
        0 <= count.reset_s <= 3600 for answer in answers if not isinstance(answer, Unavailable) for count in answer
    )


@both_colours
def test_generic_store_that_fails_is_unavailable_and_left_alone(ask: Asker) -> None:
    """Whatever a storage's client raises means "down"; the next question does not reach it."""
    store = GenericStore("memory://")
    asked: list[int] = []

    def broken() -> Any:
        asked.append(1)
        raise RuntimeError

    store._open = store._aopen = broken
    assert [told(ask(store, ONE)) for _ in range(3)] == ["store-fails", "store-down", "store-down"]
    assert len(asked) == 1
    store.close()


@both_colours
def test_generic_store_cannot_give_back_and_says_so(ask: Asker) -> None:
    """Nothing is pretended: what was counted stays counted."""
    store = GenericStore("memory://")
    assert told(given_back(ask, store, GiveBack((("k", QUOTA, 1),)))) == "store-unable"
