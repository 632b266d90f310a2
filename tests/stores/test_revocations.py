"""Revocations on a real Redis: every worker hears of them, none is lost, and an outage is what the policy says."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any

import pytest
from redis_server import PATIENCE_S, Server, redis

from portalshield.rules import revocation
from portalshield.rules.revocation import NONE, Revocation
from portalshield.rules.token_cache import Handles
from portalshield.stores import revocations
from portalshield.stores.revocations import (
    GRACE_S,
    HASH,
    INTERVAL_S,
    LocalRevocations,
    RedisRevocations,
    open_revocations,
)

NOW = 1_000_000.0
SUBJECT = Revocation("subject", "u1", NOW, NOW + 3600)
ISSUED_BEFORE = Handles(subject="u1", issued_at=NOW - 1)
FAST_S = 0.01


class Clock:
    """Wall clock and stop watch of one worker."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def worker(server: Server) -> Iterator[Callable[..., RedisRevocations]]:
    """Makes workers that share the server, and stops them."""
    made: list[RedisRevocations] = []

    def make(**options: Any) -> RedisRevocations:
        options = {"clock": Clock(), "interval_s": FAST_S, **options}
        store = RedisRevocations(lambda: _client(server), **options)
        made.append(store)
        return store

    yield make
    for store in made:
        thread = store._process.thread
        store.stop()
        if thread is not None:
            thread.join(PATIENCE_S)  # else its last look could write into the next test


def _client(server: Server) -> Any:
    return redis.Redis(port=server.port, socket_timeout=PATIENCE_S, retry=None)


def refuses(store: RedisRevocations, handles: Handles = ISSUED_BEFORE) -> bool:
    """This worker refuses a token with these handles."""
    assert store.current is not None
    return store.current.refuse(handles, "https://a.example")


def until(fact: Callable[[], bool]) -> None:
    """Wait for what another thread does; the time is only a bound."""
    waiting = threading.Event()
    for _ in range(2000):
        if fact():
            return
        waiting.wait(0.005)
    raise AssertionError("it did not happen")


def test_another_worker_hears_of_a_revocation(worker: Callable[..., RedisRevocations]) -> None:
    """One revokes, here it counts at once, and the other's thread finds it."""
    one, other = worker(), worker()
    one.start()
    other.start()
    assert not refuses(other)
    one.add([SUBJECT])
    assert refuses(one)
    until(lambda: refuses(other))


def test_a_worker_that_starts_later_knows_all(worker: Callable[..., RedisRevocations]) -> None:
    """The list is read before `start` returns: nobody is let in by a worker that is new."""
    worker().add([SUBJECT, Revocation("jti", "j1", inf, inf)])
    late = worker(interval_s=60.0)
    assert late.current is None
    late.start()
    assert refuses(late)
    assert refuses(late, Handles(token_id="j1", issued_at=NOW + 10**9))


def test_starting_again_is_nothing_new(worker: Callable[..., RedisRevocations]) -> None:
    """A door may start it with every scope: one thread follows."""
    store = worker()
    before = threading.active_count()
    for _ in range(3):
        store.start()
    assert threading.active_count() == before + 1


def test_a_store_that_nobody_needs_ends_its_thread(server: Server) -> None:
    """The thread does not keep it alive."""
    store = RedisRevocations(lambda: _client(server), interval_s=FAST_S)
    before = set(threading.enumerate())
    store.start()
    (thread,) = set(threading.enumerate()) - before
    del store
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_looking_costs_one_question_while_nothing_changes(
    worker: Callable[..., RedisRevocations], server: Server
) -> None:
    """All entries are read only when the version is another one."""
    one, other = worker(), worker()
    one.add([SUBJECT])
    server.admin("CONFIG", "RESETSTAT")
    for _ in range(5):
        assert other.look()
    calls = server.commands()
    assert (calls["hget"], calls["hgetall"]) == (5, 1)


@pytest.mark.parametrize("order", [pytest.param((0, 1), id="later last"), pytest.param((1, 0), id="later first")])
def test_of_two_about_the_same_the_later_times_count(
    worker: Callable[..., RedisRevocations], order: tuple[int, int]
) -> None:
    """A revocation of the past must not undo one of now, whoever writes last."""
    both = (Revocation("subject", "u1", NOW - 500, NOW + 7200), Revocation("subject", "u1", NOW, NOW + 3600))
    worker().add([both[order[0]]])
    worker().add([both[order[1]]])
    reader = worker()
    reader.look()
    assert reader.current is not None
    assert reader.current.entries == {("subject", "u1"): Revocation("subject", "u1", NOW, NOW + 7200)}


def test_times_without_end_survive(worker: Callable[..., RedisRevocations]) -> None:
    """Tokens that never end are revoked for ever, ended ones whenever they were issued; values may hold anything."""
    entries = [Revocation("jti", "a:b c\u2028\N{GRINNING FACE}", inf, inf), Revocation("tenant", "north", NOW, inf)]
    one, other = worker(), worker()
    one.add(entries)
    one.add(entries)
    other.look()
    assert other.current is not None
    assert sorted(other.current.entries.values(), key=lambda e: e.kind) == entries


def test_a_lost_list_is_written_back(worker: Callable[..., RedisRevocations], server: Server) -> None:
    """A restart without persistence: what a worker still holds reaches those that come later."""
    one = worker()
    one.add([SUBJECT])
    one.look()
    server.admin("FLUSHALL")
    one.look()
    late = worker()
    late.look()
    assert refuses(one)
    assert refuses(late)


def test_a_list_lost_before_anybody_looked_is_written_back(
    worker: Callable[..., RedisRevocations], server: Server
) -> None:
    """Also where the version was never seen."""
    one, late = worker(), worker()
    one.add([SUBJECT])
    server.admin("FLUSHALL")
    one.look()
    late.look()
    assert refuses(late)


def test_ended_entries_leave_redis_an_hour_later(worker: Callable[..., RedisRevocations], server: Server) -> None:
    """Not before they have ended by every worker's clock."""
    clock = Clock()
    worker().add([SUBJECT, Revocation("jti", "j1", inf, inf)])
    clock.now = SUBJECT.until + 1
    early = worker(clock=clock)
    early.look()
    assert early.current is not None
    assert set(early.current.entries) == {("jti", "j1")}
    assert server.admin("HLEN", HASH) == 3
    clock.now += 3600
    worker(clock=clock).look()
    assert server.admin("HKEYS", HASH) == [b"jti:j1", b"version"]


def test_too_many_are_refused_not_forgotten(
    worker: Callable[..., RedisRevocations], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither Redis nor a copy drops one to make room; who revokes is told."""
    monkeypatch.setattr(revocation, "MAX_ENTRIES", 3)
    monkeypatch.setattr(revocations, "MAX_ENTRIES", 3)
    rows = [Revocation("jti", str(n), inf, inf) for n in range(4)]
    one, other = worker(), worker()
    one.add(rows[:3])
    with pytest.raises(OverflowError, match="revoke a subject"):
        one.add(rows[3:])
    with pytest.raises(OverflowError, match="revoke a subject"):
        other.add(rows[3:])
    late = worker()
    late.look()
    assert late.current is not None
    assert len(late.current.entries) == 3


def test_an_entry_of_a_newer_release_is_left_alone(worker: Callable[..., RedisRevocations], server: Server) -> None:
    """It is not ours to judge or to delete."""
    server.admin("HSET", HASH, "device:d1", "1 2", "version", "x")
    store = worker()
    assert store.look()
    assert store.current is NONE
    assert server.admin("HGET", HASH, "device:d1") == b"1 2"


# -- outages ----------------------------------------------------------------------------------------------------------


class Outage:
    """A worker whose server can be taken away, on a clock of its own."""

    def __init__(self, victim: Server, on_outage: revocations.OnOutage) -> None:
        self.watch = Clock()
        self.victim = victim
        self.store = RedisRevocations(
            partial(revocations._client, victim.uri), on_outage=on_outage, clock=Clock(), monotonic=self.watch
        )

    def known_after(self, seconds: float) -> bool:
        """The list is known that long after Redis was last heard of."""
        self.watch.now = NOW + seconds
        self.store.look()
        return self.store.current is not None


@pytest.mark.parametrize(
    ("on_outage", "known", "unknown"),
    [
        pytest.param("local", GRACE_S - 0.1, GRACE_S + 0.1, id="local for 60 seconds"),
        pytest.param("closed", INTERVAL_S, 5.0, id="closed within five"),
    ],
)
def test_an_outage_is_survived_as_configured(
    victim: Server, on_outage: revocations.OnOutage, known: float, unknown: float
) -> None:
    """The copy counts for a while, then nobody can tell; when Redis is back, so is the list."""
    worker = Outage(victim, on_outage)
    worker.store.add([SUBJECT])
    assert worker.known_after(0)
    victim.stop()
    assert worker.known_after(known)
    assert refuses(worker.store)
    assert not worker.known_after(unknown)
    victim.start()
    assert worker.known_after(unknown + 1)
    assert refuses(worker.store)


@pytest.mark.parametrize("on_outage", ["local", "closed"])
def test_who_never_heard_of_redis_knows_nothing(victim: Server, on_outage: revocations.OnOutage) -> None:
    """An empty copy would let everybody back in who was revoked before this process began."""
    victim.stop()
    worker = Outage(victim, on_outage)
    worker.store.start()
    assert worker.store.current is None
    worker.store.stop()


def test_a_revocation_during_an_outage_is_not_certain_but_not_lost(victim: Server) -> None:
    """It raises; here it counts at once, and it is written when Redis is back."""
    worker = Outage(victim, "local")
    assert worker.known_after(0)
    victim.stop()
    with pytest.raises(ConnectionError, match="not certain"):
        worker.store.add([SUBJECT])
    assert refuses(worker.store)
    victim.start()
    assert worker.known_after(1)
    late = RedisRevocations(lambda: _client(victim), clock=Clock())
    late.look()
    assert refuses(late)


def test_what_was_not_confirmed_is_written_with_the_next_look(
    worker: Callable[..., RedisRevocations], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Redis lost nothing: one write failed, the list there goes on."""
    one, late = worker(), worker()
    one.add([Revocation("jti", "j1", inf, inf)])
    one.look()
    with monkeypatch.context() as broken:
        broken.setattr(revocations, "_ADD", "return redis.error_reply('OOM full')")
        with pytest.raises(ConnectionError, match="OutOfMemoryError"):
            one.add([SUBJECT])
        assert one.look()  # what can be read is known, although nothing can be written
    one.look()
    late.look()
    assert refuses(late)


def test_an_outage_is_told_once_and_so_is_its_end(victim: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Not with every look, and never with the address."""
    worker = Outage(victim, "local")
    victim.stop()
    for seconds in range(3):
        worker.known_after(seconds)
    victim.start()
    for seconds in range(3):
        worker.known_after(seconds)
    assert [record.getMessage() for record in caplog.records] == [
        "portalshield: revocations cannot be read (ConnectionError)",
        "portalshield: revocations can be read again",
    ]


def test_a_garbled_list_is_unknown(worker: Callable[..., RedisRevocations], server: Server) -> None:
    """Skipping what cannot be read could skip a revocation."""
    server.admin("HSET", HASH, "jti:j1", "soon never", "version", "x")
    store = worker()
    assert not store.look()
    assert store.current is None


# -- processes, addresses ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_follows_on_its_own(worker: Callable[..., RedisRevocations], server: Server) -> None:
    """The parent's thread and locks are not there; started again, the child hears what the parent revokes."""
    store = worker()
    store.start()
    heard, told = os.pipe()
    store._here().lock.acquire()  # as if another thread held it while the process forks
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE_S))
        verdict = b"0"
        try:
            store.start()
            os.write(told, b"s")
            until(lambda: refuses(store))
            verdict = b"1"
        finally:
            os.write(told, verdict)
            os._exit(0)
    os.close(told)
    store._here().lock.release()
    assert os.read(heard, 1) == b"s"
    store.add([SUBJECT])
    assert os.read(heard, 1) == b"1"
    os.close(heard)
    os.waitpid(child, 0)


@pytest.mark.parametrize("prefix", ["", "async+"])
def test_the_address_of_the_storage_decides(server: Server, prefix: str) -> None:
    """redis:// is shared by all workers; the client gives up after 100 ms and does not try again."""
    store = open_revocations(prefix + server.uri, "closed")
    assert isinstance(store, RedisRevocations)
    store.add([SUBJECT])
    assert server.admin("HLEN", HASH) == 2
    connection = store._process.client(store._connect).connection_pool.connection_kwargs
    assert (connection["socket_timeout"], connection["socket_connect_timeout"]) == (0.1, 0.1)
    assert connection["retry"].get_retries() == 0
    store.stop()


@pytest.mark.parametrize("uri", ["memory://", "memcached://127.0.0.1:11211"])
def test_everything_else_is_this_process(uri: str) -> None:
    """Where no Redis is, revocations are local; at once, and cleared by a test run."""
    store = open_revocations(uri)
    assert isinstance(store, LocalRevocations)
    store.start()
    store.add([Revocation("subject", "u1", 100.0, inf)])
    assert store.current is not None
    assert store.look()
    assert store.current.refuse(Handles(subject="u1", issued_at=99.0), "")
    store.clear()
    assert store.current is NONE
