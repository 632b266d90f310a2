"""Records of what was processed: one claim wins, what was settled stays, and what a fault in between costs."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis_server import PATIENCE_S, Server

from portalshield.model.needs import Claim, Claimed, Settle, Settled, Taken, Unavailable
from portalshield.stores import is_shared, open_records
from portalshield.stores.outage import Breaker
from portalshield.stores.records import MAX_FINGERPRINT, MemoryRecords, RecordStore
from portalshield.stores.redis_records import MAX_OWED, RedisRecords
from portalshield.testing import FrozenClock

PREFIX = "portalshield:1:record:"
CLAIM = Claim("k", b"print", 60.0)


class Asker:
    """A store asked in one colour; `end` brings about what the passing of a record's time does."""

    def __init__(self, store: RecordStore, end: Callable[[], object], loop: asyncio.AbstractEventLoop | None) -> None:
        self.store = store
        self.end = end
        self.loop = loop

    def claim(self, claim: Claim = CLAIM) -> Claimed | Taken | Unavailable:
        return self.run(self.store.aclaim(claim)) if self.loop else self.store.claim(claim)

    def settle(self, settle: Settle) -> Settled | Unavailable:
        return self.run(self.store.asettle(settle)) if self.loop else self.store.settle(settle)

    def told(self, claim: Claim = CLAIM) -> str | bytes | None:
        """`claimed`, the reason of an outage, or the answer of the record that is there."""
        answer = self.claim(claim)
        if isinstance(answer, Claimed):
            return "claimed"
        return answer.reason if isinstance(answer, Unavailable) else answer.answer

    def ticket(self, claim: Claim = CLAIM) -> bytes:
        answer = self.claim(claim)
        assert isinstance(answer, Claimed)
        return answer.ticket

    def kept(self, ticket: bytes, answer: bytes | None, key: str = "k", keep_s: float = 600.0) -> bool | str:
        """Whether the outcome was kept, or the reason of an outage."""
        told = self.settle(Settle(key, ticket, answer, keep_s))
        return told.kept if isinstance(told, Settled) else told.reason

    def run(self, awaitable: Awaitable[Any]) -> Any:
        assert self.loop is not None
        return self.loop.run_until_complete(awaitable)

    def close(self) -> None:
        if self.loop is None:
            self.store.close()
            return
        self.run(self.store.aclose())
        self.loop.close()


class BreakerClock:
    """The test decides when a pause is over."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def on_redis(server: Server, asynchronous: bool, timeout_s: float = PATIENCE_S) -> tuple[Asker, BreakerClock]:
    clock = BreakerClock()
    store = RedisRecords(server.uri, timeout_s=timeout_s, breaker=lambda: Breaker(clock), clock=FrozenClock())
    loop = asyncio.new_event_loop() if asynchronous else None
    return Asker(store, lambda: server.admin("FLUSHALL"), loop), clock


@pytest.fixture(params=["memory", "memory-async", "redis", "redis-async"])
def asker(request: pytest.FixtureRequest, server: Server) -> Iterator[Asker]:
    """Each store in each colour."""
    kind, _, colour = request.param.partition("-")
    if kind == "redis":
        asker, _ = on_redis(server, bool(colour))
    else:
        clock = FrozenClock()
        store = MemoryRecords(1000, clock=clock)
        asker = Asker(store, lambda: clock.advance(100_000), asyncio.new_event_loop() if colour else None)
    yield asker
    asker.close()


@pytest.fixture(params=["sync", "async"])
def far(request: pytest.FixtureRequest, victim: Server) -> Iterator[tuple[Asker, BreakerClock, Server]]:
    """Redis in both colours, on a server that may be maltreated."""
    asker, clock = on_redis(victim, request.param == "async", timeout_s=1.0)
    yield asker, clock, victim
    asker.close()


# -- the life of a record ----------------------------------------------------------------------------------------------


def test_a_copy_finds_the_first_one_running(asker: Asker) -> None:
    """One claim wins; the others learn what it was claimed with, and that there is no answer yet."""
    asker.ticket()
    taken = asker.claim(Claim("k", b"another", 60.0))
    assert isinstance(taken, Taken)
    assert (taken.fingerprint, taken.answer) == (b"print", None)
    assert asker.told(Claim("other", b"print", 60.0)) == "claimed"


@pytest.mark.parametrize(
    "answer", [pytest.param(b"", id="none"), pytest.param(bytes(range(256)) * 256, id="64 KiB of any bytes")]
)
def test_a_copy_gets_the_answer(asker: Asker, answer: bytes) -> None:
    """What was settled comes back byte for byte, with the fingerprint; an empty one is one that was not kept."""
    assert asker.kept(asker.ticket(), answer) is True
    for _ in range(2):
        taken = asker.claim()
        assert isinstance(taken, Taken)
        assert (taken.fingerprint, taken.answer) == (b"print", answer)


def test_what_failed_may_be_tried_again(asker: Asker) -> None:
    """A forgotten record is free at once, for another ticket."""
    first = asker.ticket()
    assert asker.kept(first, None) is True
    assert asker.ticket() != first


def test_only_the_holder_settles(asker: Asker) -> None:
    """Another ticket changes nothing, whether it wants to keep or to forget."""
    first = asker.ticket()
    assert asker.kept(b"x" * len(first), b"forged") is False
    assert asker.kept(b"x" * len(first), None) is False
    assert asker.told() is None
    assert asker.kept(first, b"mine") is True
    assert asker.kept(b"x" * len(first), None) is False
    assert asker.told() == b"mine"


def test_settling_twice_changes_nothing(asker: Asker) -> None:
    """An outcome may be told again, as after a reply that was lost."""
    first = asker.ticket()
    assert [asker.kept(first, b"a"), asker.kept(first, b"a"), asker.told()] == [True, True, b"a"]


def test_a_holder_that_never_ends_is_given_up(asker: Asker) -> None:
    """After `running_s` the next one may claim; the first one's late outcome does not touch the second's record."""
    first = asker.ticket()
    asker.end()
    second = asker.ticket()
    assert asker.kept(first, b"late") is False
    assert asker.told() is None
    assert asker.kept(second, b"second") is True
    assert asker.told() == b"second"


def test_a_late_outcome_counts_where_nobody_took_its_place(asker: Asker) -> None:
    """It was processed: a copy must not process it again, and is still told apart by the fingerprint."""
    first = asker.ticket()
    asker.end()
    assert asker.kept(first, b"late") is True
    taken = asker.claim()
    assert isinstance(taken, Taken)
    assert (taken.fingerprint, taken.answer) == (b"print", b"late")


def test_answers_end(asker: Asker) -> None:
    """After `keep_s` the key is free."""
    asker.kept(asker.ticket(), b"a")
    asker.end()
    assert asker.told() == "claimed"


def test_a_fingerprint_has_an_end(asker: Asker) -> None:
    """A longer one is a bug of the caller, told as one."""
    assert asker.told(Claim("long", b"x" * MAX_FINGERPRINT, 60.0)) == "claimed"
    with pytest.raises(ValueError, match="64 bytes"):
        asker.claim(Claim("longer", b"x" * (MAX_FINGERPRINT + 1), 60.0))


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["claim", "keep", "forget", "steal", "end"]), st.integers(0, 2)), max_size=30
    )
)
def test_memory_does_what_a_dict_would(events: list[tuple[str, int]]) -> None:
    """Against a model without stripes, lanes and bounds."""
    clock = FrozenClock()
    store = MemoryRecords(100, clock=clock)
    model: dict[str, bytes | None] = {}
    tickets: dict[str, bytes] = {}
    for event, number in events:
        key = str(number)
        if event == "claim":
            answer = store.claim(Claim(key, b"", 60.0))
            assert isinstance(answer, Claimed) is (key not in model)
            if isinstance(answer, Claimed):
                model[key], tickets[key] = None, answer.ticket
            else:
                assert isinstance(answer, Taken)
                assert answer.answer == model[key]
        elif event == "end":
            clock.advance(1000)
            model.clear()
        elif event == "steal":
            assert store.settle(Settle(key, b"?" * 16, None, 60.0)).kept is (key not in model)
        elif key in tickets:
            answer = b"a" if event == "keep" else None
            assert store.settle(Settle(key, tickets[key], answer, 60.0)).kept
            model[key] = answer
            if answer is None:
                del model[key]


# -- many at once ------------------------------------------------------------------------------------------------------


def simultaneous(asker: Asker, count: int = 20) -> list[Any]:
    """The answers to claims that come together, from threads or tasks."""
    if asker.loop is not None:

        async def gathered() -> list[Any]:
            return list(await asyncio.gather(*(asker.store.aclaim(CLAIM) for _ in range(count))))

        answers: list[Any] = asker.run(gathered())
        return answers
    barrier = Barrier(count)

    def one(_: int) -> Any:
        barrier.wait(PATIENCE_S)
        return asker.store.claim(CLAIM)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_of_20_simultaneous_copies_one_is_processed(asker: Asker) -> None:
    """Exactly one claims; the others find it running, and later its answer."""
    answers = simultaneous(asker)
    tickets = [answer.ticket for answer in answers if isinstance(answer, Claimed)]
    assert len(tickets) == 1
    assert [answer.answer for answer in answers if isinstance(answer, Taken)] == [None] * 19
    assert asker.kept(tickets[0], b"done") is True
    assert [answer.answer for answer in simultaneous(asker)] == [b"done"] * 20


def test_two_workers_share_what_is_on_redis(server: Server) -> None:
    """What one claims and settles the other knows."""
    (one, _), (two, _) = on_redis(server, False), on_redis(server, True)
    ticket = one.ticket()
    assert two.told() is None
    assert one.kept(ticket, b"one") is True
    assert two.told() == b"one"
    one.close()
    two.close()


# -- memory: bounds ----------------------------------------------------------------------------------------------------


def filled(store: MemoryRecords, count: int, answer: bytes | None = None) -> None:
    """Records that are running, or settled with an answer."""
    for number in range(count):
        claimed = store.claim(Claim(f"fill-{number}", b"", 60.0))
        assert isinstance(claimed, Claimed)
        if answer is not None:
            store.settle(Settle(f"fill-{number}", claimed.ticket, answer, 600.0))


@pytest.mark.parametrize("answer", [pytest.param(None, id="running"), pytest.param(b"a", id="settled")])
def test_full_memory_refuses(answer: bytes | None) -> None:
    """No record is given up before its time: claims are `Unavailable`, and known keys are still known."""
    clock = FrozenClock()
    store = MemoryRecords(10, clock=clock)
    filled(store, 10, answer)
    refused = store.claim(CLAIM)
    assert isinstance(refused, Unavailable)
    assert refused.reason == "store-full"
    assert all(isinstance(store.claim(Claim(f"fill-{number}", b"", 60.0)), Taken) for number in range(10))
    clock.advance(601)
    assert isinstance(store.claim(CLAIM), Claimed)


def test_an_outcome_always_finds_room() -> None:
    """Settling needs no room of its own; a late one may exceed the bound by what was running."""
    clock = FrozenClock()
    store = MemoryRecords(1, clock=clock)
    late = store.claim(Claim("late", b"", 60.0))
    clock.advance(61)
    filled(store, 1)
    assert isinstance(late, Claimed)
    assert store.settle(Settle("late", late.ticket, b"a", 600.0)).kept
    assert len(store) == 2


def test_large_answers_give_way_but_their_records_stay() -> None:
    """Beyond `max_bytes` the oldest answers are not kept any more; nothing becomes claimable by that."""
    store = MemoryRecords(60, max_bytes=250, clock=FrozenClock())
    filled(store, 5, b"x" * 100)
    answers = [store.claim(Claim(f"fill-{number}", b"", 60.0)) for number in range(5)]
    assert [len(a.answer or b"") for a in answers if isinstance(a, Taken)] == [0, 0, 0, 100, 100]
    huge = store.claim(Claim("huge", b"", 60.0))
    assert isinstance(huge, Claimed)
    store.settle(Settle("huge", huge.ticket, b"x" * 1000, 600.0))
    taken = store.claim(Claim("huge", b"", 60.0))
    assert isinstance(taken, Taken)
    assert taken.answer == b""


def test_bytes_that_ended_are_room_again() -> None:
    """Answers that ended, were forgotten or replaced count no more."""
    clock = FrozenClock()
    store = MemoryRecords(60, max_bytes=250, clock=clock)
    for _ in range(20):
        filled(store, 2, b"x" * 120)
        answers = [store.claim(Claim(f"fill-{number}", b"", 60.0)) for number in range(2)]
        assert [len(a.answer or b"") for a in answers if isinstance(a, Taken)] == [120, 120]
        clock.advance(601)


def test_records_that_ended_are_swept_while_others_come() -> None:
    """Memory follows what is alive, also when keys never repeat and durations differ."""
    clock = FrozenClock()
    store = MemoryRecords(100_000, clock=clock)
    for number in range(3000):
        assert isinstance(store.claim(Claim(str(number), b"", 1.0 if number % 2 else 5.0)), Claimed)
        clock.advance(0.1)
    assert len(store) < 200


def test_memory_is_forgotten_on_request() -> None:
    """Between two tests of an application."""
    store = MemoryRecords(1000)
    filled(store, 100, b"a")
    store.clear()
    assert len(store) == 0
    filled(store, 100, b"a")


def test_a_bound_that_bounds_nothing() -> None:
    """A bug of the caller."""
    with pytest.raises(ValueError, match="at least 1"):
        MemoryRecords(0)


def _claims(store: RecordStore, results: Any) -> None:
    results.put(isinstance(store.claim(Claim("child", b"", 60.0)), Claimed))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_a_forked_child_is_not_locked_out(server: Server, kind: str) -> None:
    """A lock that another thread held during the fork does not stay locked in the child."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    store = MemoryRecords(100) if kind == "memory" else RedisRecords(server.uri, timeout_s=PATIENCE_S)
    locks = [stripe.lock for stripe in store._stripes] if isinstance(store, MemoryRecords) else [store._owing]
    if isinstance(store, RedisRecords):
        store._owe(Settle("owed", b"t" * 16, b"a", 600.0))
    for lock in locks:
        lock.acquire()
    child = context.Process(target=_claims, args=(store, results))
    child.start()
    for lock in locks:
        lock.release()
    assert results.get(timeout=PATIENCE_S) is True
    child.join()
    store.close()


# -- Redis: what is there, and what it costs ---------------------------------------------------------------------------


def test_one_round_trip_and_an_end(server: Server) -> None:
    """Each question is one script; the server ends running records soon and settled ones later."""
    asker, _ = on_redis(server, False)
    asker.claim(Claim("warm", b"", 60.0))
    before = server.commands().get("evalsha", 0)
    ticket = asker.ticket()
    assert server.commands()["evalsha"] == before + 1
    assert 0 < server.admin("PTTL", PREFIX + "k") <= 60_000
    asker.kept(ticket, b"a")
    assert server.commands()["evalsha"] == before + 2
    assert 60_000 < server.admin("PTTL", PREFIX + "k") <= 600_000
    assert sorted(server.admin("KEYS", "*")) == [(PREFIX + "k").encode(), (PREFIX + "warm").encode()]
    asker.close()


def test_a_claim_that_is_asked_twice_is_one_claim(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that died before its reply: the question is asked again, and the holder is not locked out."""
    asker, _ = on_redis(server, False)
    monkeypatch.setattr("portalshield.stores.redis_records.new_ticket", lambda claim: b"t" * 16 + claim.fingerprint)
    assert [asker.told(), asker.told()] == ["claimed", "claimed"]
    asker.kept(b"t" * 16 + b"print", b"done")
    assert asker.told() == b"done"
    asker.close()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"C", id="no record"),
        pytest.param(b"X" + b"t" * 16 + b"\x00", id="no state"),
        pytest.param(b"D" + b"t" * 15, id="cut in the ticket"),
        pytest.param(b"D" + b"t" * 16 + b"\x05abc", id="cut in the fingerprint"),
        pytest.param(b"D" + b"t" * 16 + b"\xff" + b"x" * 300, id="a fingerprint that is none"),
    ],
)
def test_what_nobody_of_us_wrote_is_no_answer(server: Server, value: bytes) -> None:
    """A value that is no record refuses: it is never taken for a free key."""
    asker, _ = on_redis(server, False)
    server.admin("SET", PREFIX + "k", value)
    assert asker.told() == "store-garbled"
    asker.close()


# -- Redis: faults at each step ----------------------------------------------------------------------------------------


def test_an_outage_before_the_claim_refuses(far: tuple[Asker, BreakerClock, Server]) -> None:
    """Nobody knows whether it was processed: `Unavailable`, at once, until the server is back."""
    asker, clock, server = far
    server.stop()
    assert asker.told() == "store-unreachable"
    assert asker.told() == "store-down"
    server.start()
    clock.now += 10
    assert asker.told() == "claimed"


def test_a_claim_whose_reply_never_came_ends_by_itself(far: tuple[Asker, BreakerClock, Server]) -> None:
    """The server hung with the claim in its hands: the next try is told to wait, and later gets through."""
    asker, clock, server = far
    assert asker.told(Claim("warm", b"", 60.0)) == "claimed"
    server.process.send_signal(signal.SIGSTOP)
    assert asker.told() == "store-timeout"
    server.process.send_signal(signal.SIGCONT)
    clock.now += 10
    assert asker.told() in (None, "claimed")
    server.admin("DEL", PREFIX + "k")
    assert asker.told() == "claimed"


def test_an_outcome_that_could_not_be_told_is_owed(far: tuple[Asker, BreakerClock, Server]) -> None:
    """A copy gets the answer from this process; once the server is back every worker knows it."""
    asker, clock, server = far
    ticket = asker.ticket()
    server.stop()
    assert asker.kept(ticket, b"done") == "store-unreachable"
    assert asker.told() == b"done"
    server.start()
    clock.now += 10
    assert asker.told(Claim("other", b"", 60.0)) == "claimed"
    other, _ = on_redis(server, False)
    assert other.told() == b"done"
    other.close()
    server.admin("FLUSHALL")
    assert asker.told() == "claimed"  # nothing is owed any more


def test_a_failure_that_could_not_be_told_is_owed(far: tuple[Asker, BreakerClock, Server]) -> None:
    """The record is given up with the next question, so that the sender's next try is processed."""
    asker, clock, server = far
    ticket = asker.ticket()
    server.process.send_signal(signal.SIGSTOP)
    assert asker.kept(ticket, None) == "store-timeout"
    server.process.send_signal(signal.SIGCONT)
    assert asker.told() == "store-down"
    clock.now += 10
    assert asker.told() == "claimed"


def test_what_another_worker_took_over_stays_its_own(far: tuple[Asker, BreakerClock, Server]) -> None:
    """An owed outcome comes too late where the claim ended and another holds it now."""
    asker, clock, server = far
    ticket = asker.ticket()
    server.process.send_signal(signal.SIGSTOP)
    assert asker.kept(ticket, None) == "store-timeout"
    server.process.send_signal(signal.SIGCONT)
    server.admin("DEL", PREFIX + "k")
    other, _ = on_redis(server, False)
    second = other.ticket()
    clock.now += 10
    assert asker.told() is None
    assert other.kept(second, b"second") is True
    assert asker.told() == b"second"
    other.close()


def test_a_cancelled_outcome_is_owed(victim: Server) -> None:
    """The task that tells it is cancelled in the middle: it is told again."""
    asker, _ = on_redis(victim, True)
    ticket = asker.ticket()
    victim.process.send_signal(signal.SIGSTOP)

    async def cancelled() -> None:
        telling = asyncio.ensure_future(asker.store.asettle(Settle("k", ticket, b"done", 600.0)))
        await asyncio.sleep(0.05)
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling

    asker.run(cancelled())
    victim.process.send_signal(signal.SIGCONT)
    assert asker.told() == b"done"
    assert asker.told(Claim("other", b"", 60.0)) == "claimed"
    victim.admin("DEL", PREFIX + "other")
    asker.store.clear()
    assert asker.told() == b"done"
    asker.close()


def test_a_cancelled_claim_is_given_back(victim: Server) -> None:
    """The client went away while Redis was asked: what it claimed all the same keeps nobody waiting."""
    asker, _ = on_redis(victim, True)
    assert asker.told(Claim("other", b"", 60.0)) == "claimed"
    victim.process.send_signal(signal.SIGSTOP)

    async def cancelled() -> None:
        claiming = asyncio.ensure_future(asker.store.aclaim(CLAIM))
        await asyncio.sleep(0.05)
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming

    asker.run(cancelled())
    victim.process.send_signal(signal.SIGCONT)
    assert any(victim.admin("EXISTS", PREFIX + "k") for _ in range(400))  # it arrived, and nobody read the reply
    assert asker.told() == "claimed"
    asker.close()


def test_debts_are_bounded_and_end(server: Server) -> None:
    """The oldest go first, and one that is older than its answer would be kept says nothing."""
    clock = FrozenClock()
    store = RedisRecords(server.uri, timeout_s=PATIENCE_S, clock=clock)
    for number in range(MAX_OWED + 5):
        store._owe(Settle(str(number), b"t" * 16, b"a", 600.0))
    assert len(store._owed) == MAX_OWED
    known = store.claim(Claim("5", b"", 60.0))
    assert isinstance(known, Taken)
    clock.advance(601)
    assert isinstance(store.claim(Claim("5", b"", 60.0)), Claimed)
    assert len(store._owed) == 0
    store.close()


# -- which store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        pytest.param("memory://", MemoryRecords, id="memory"),
        pytest.param("redis://localhost:1/0", RedisRecords, id="redis"),
        pytest.param("async+redis://localhost:1/0", RedisRecords, id="async redis"),
        pytest.param("unix:///tmp/x.sock", RedisRecords, id="unix"),
        pytest.param("memcached://localhost:1", MemoryRecords, id="memcached keeps limits only"),
    ],
)
def test_the_address_says_where(uri: str, kind: type[Any]) -> None:
    """Opens nothing."""
    assert type(open_records(uri)) is kind
    assert is_shared(uri) is (kind is RedisRecords)
