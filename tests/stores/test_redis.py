"""Limits in a real Redis: exact across clients and processes, and what each of its faults looks like from here."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from limiter_models import LimiterMachine
from redis_server import PATIENCE_S, Server, redis

from portalshield.model.needs import Counts, GiveBack, Hit, Quota, Unavailable
from portalshield.rules.windows import window_of
from portalshield.stores.memory import MemoryStore
from portalshield.stores.outage import Breaker, OnOutage, OutageStore
from portalshield.stores.redis import LONGEST_KEY, SCRIPT, RedisStore, _command, _parse
from portalshield.stores.redis_wire import CONNECTIONS, Script

STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
HUNG_S = 0.2
QUOTA = Quota("q", 3, 3600)
ONE = Hit((("k", QUOTA, 1),))


class Clock:
    """The breaker's: the test decides when a pause is over."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause_over(self) -> None:
        self.now += 10.0


class Asker:
    """A store asked in one colour; the async one keeps its event loop between questions."""

    def __init__(self, uri: str, asynchronous: bool, timeout_s: float = PATIENCE_S) -> None:
        self.clock = Clock()
        self.store = RedisStore(uri, timeout_s=timeout_s, breaker=lambda: Breaker(self.clock))
        self.loop = asyncio.new_event_loop() if asynchronous else None

    def ask(self, hit: Hit = ONE) -> Counts | Unavailable:
        return self.run(self.store.ahit(hit)) if self.loop else self.store.hit(hit)

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        return self.run(self.store.agive_back(need)) if self.loop else self.store.give_back(need)

    def told(self, hit: Hit = ONE) -> list[tuple[bool, int]] | str:
        return told(self.ask(hit))

    def run(self, awaitable: Awaitable[Any]) -> Any:
        assert self.loop is not None
        return self.loop.run_until_complete(awaitable)

    def drop_idle(self) -> None:
        if self.loop is None:
            self.store.close()
        else:
            self.run(self.store.aclose())

    def close(self) -> None:
        self.drop_idle()
        if self.loop is not None:
            self.loop.close()


Make = Callable[..., Asker]


@pytest.fixture(params=[pytest.param(False, id="sync"), pytest.param(True, id="async")])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Askers of one colour, closed afterwards."""
    made: list[Asker] = []

    def build(server: Server, timeout_s: float = PATIENCE_S, uri: str = "") -> Asker:
        made.append(Asker(uri or server.uri, request.param, timeout_s))
        return made[-1]

    yield build
    for asker in made:
        asker.close()


@pytest.fixture
def make_async() -> Iterator[Make]:
    """Askers of the async colour, closed afterwards."""
    made: list[Asker] = []

    def build(server: Server, timeout_s: float = PATIENCE_S) -> Asker:
        made.append(Asker(server.uri, True, timeout_s))
        return made[-1]

    yield build
    for asker in made:
        asker.close()


def told(answer: Counts | Unavailable) -> list[tuple[bool, int]] | str:
    if isinstance(answer, Unavailable):
        return answer.reason
    return [(count.allowed, count.remaining) for count in answer]


# -- counting ---------------------------------------------------------------------------------------------------------


@every_strategy
def test_counts_all_or_nothing(server: Server, make: Make, strategy: str) -> None:
    """Refused requests use up nothing, cost 0 peeks, waits are within the window."""
    narrow, wide = Quota("narrow", 2, 60, strategy), Quota("wide", 10, 3600, strategy)
    asker = make(server)
    answers = [asker.ask(Hit((("k", narrow, cost), ("k", wide, 2 * cost)))) for cost in (1, 0, 1, 1, 0)]
    assert [told(answer) for answer in answers] == [
        [(True, 1), (True, 8)],
        [(True, 1), (True, 8)],
        [(True, 0), (True, 6)],
        [(False, 0), (True, 6)],
        [(False, 0), (True, 6)],
    ]
    assert all(
        0 < count.reset_s <= 3600 for answer in answers if not isinstance(answer, Unavailable) for count in answer
    )


@pytest.mark.parametrize("counters", [pytest.param(1, id="one"), pytest.param(7, id="seven")])
def test_one_command_per_hit_whatever_the_number_of_counters(server: Server, make: Make, counters: int) -> None:
    """Ten questions are ten EVALSHA, no more commands from this client."""
    asker = make(server)
    hit = Hit(tuple((f"k{number}", Quota("q", 100, 60, STRATEGIES[number % 3]), 1) for number in range(counters)))
    asker.ask(hit)
    server.admin("CONFIG", "RESETSTAT")
    for _ in range(10):
        asker.ask(hit)
    sent = server.commands()
    assert {name for name in sent if name not in {"info", "config", "client", "hello"}} == {
        "evalsha",
        "time",
        "mget",
        "set",
    }
    assert (sent["evalsha"], sent["mget"]) == (10, 10)


@every_strategy
def test_two_clients_share_exactly_the_quota(server: Server, strategy: str) -> None:
    """200 concurrent requests from two stores and 16 threads: exactly 50 pass."""
    stores = [RedisStore(server.uri, timeout_s=PATIENCE_S) for _ in range(2)]
    hit = Hit((("k", Quota("q", 50, 3600, strategy), 1), ("k", Quota("wide", 1000, 60, strategy), 1)))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: told(stores[number % 2].hit(hit)), range(200)))
    for store in stores:
        store.close()
    assert sum(answer[0][0] is True for answer in answers if not isinstance(answer, str)) == 50
    assert not [answer for answer in answers if isinstance(answer, str)]


def test_concurrent_tasks_share_exactly_the_quota(server: Server, make_async: Make) -> None:
    """500 tasks at once: exactly 50 pass, and no more connections are opened than are allowed."""
    asker = make_async(server)
    hit = Hit((("k", Quota("q", 50, 3600), 1),))

    async def crowd() -> list[Counts | Unavailable]:
        return await asyncio.gather(*(asker.store.ahit(hit) for _ in range(500)))

    answers = [told(answer) for answer in asker.run(crowd())]
    clients = server.admin("INFO", "clients")["connected_clients"]
    assert sum(answer == [(True, left)] for left in range(50) for answer in answers) == 50
    assert sum(answer == [(False, 0)] for answer in answers) == 450
    assert clients <= CONNECTIONS + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_share_exactly_the_quota(server: Server) -> None:
    """A store made and used before the fork works in parent and child, on connections of their own."""
    store = RedisStore(server.uri, timeout_s=PATIENCE_S)
    hit = Hit((("k", Quota("q", 60, 3600), 1),))
    store.hit(hit)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        passed = sum(told(store.hit(hit))[0][0] is True for _ in range(50))
        os.write(writer, bytes([passed]))
        os._exit(0)
    passed = sum(told(store.hit(hit))[0][0] is True for _ in range(50))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    passed += os.read(reader, 1)[0]
    os.close(reader)
    os.close(writer)
    store.close()
    assert passed == 59


def test_several_event_loops_have_connections_of_their_own(server: Server) -> None:
    """A store used from one loop after the other counts on."""
    store = RedisStore(server.uri, timeout_s=PATIENCE_S)

    async def once() -> list[tuple[bool, int]] | str:
        answer = await store.ahit(ONE)
        await store.aclose()
        return told(answer)

    assert [asyncio.run(once()) for _ in range(3)] == [[(True, 2)], [(True, 1)], [(True, 0)]]


def test_changed_quota_or_strategy_never_meets_what_another_wrote(server: Server, make: Make) -> None:
    """Any order of strategies and amounts over the same key works, each with its own count."""
    asker = make(server)
    for _ in range(2):
        for strategy in STRATEGIES:
            for amount in (5, 6):
                assert asker.told(Hit((("k", Quota("q", amount, 60, strategy), 1),))) != "store-refuses"
    left = [asker.told(Hit((("k", Quota("q", 5, 60, strategy), 0),))) for strategy in STRATEGIES]
    assert left == [[(True, 3)]] * 3


def test_keys_end_with_their_window(server: Server, make: Make) -> None:
    """Every key has a time to live, so nothing is left behind."""
    asker = make(server)
    asker.ask(Hit(tuple(("k", Quota("q", 5, 60, strategy), 1) for strategy in STRATEGIES)))
    lives = {key.split(b":")[2].decode(): server.admin("PTTL", key) for key in server.admin("KEYS", "*")}
    assert set(lives) == set(STRATEGIES)
    assert all(0 < life <= 120_000 for life in lives.values())


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("x" * 100_000, id="endless"),
        pytest.param("lone \ud800 surrogate", id="lone surrogate"),
        pytest.param("\0\r\n $3", id="control characters"),
        pytest.param("", id="empty"),
    ],
)
def test_no_key_looks_like_a_server_that_is_down(server: Server, make: Make, key: str) -> None:
    """Keys come from clients: whatever they hold, they are counted, and in bounded room."""
    asker = make(server)
    assert [asker.told(Hit(((key, QUOTA, 1),))) for _ in range(2)] == [[(True, 2)], [(True, 1)]]
    assert max(len(name) for name in server.admin("KEYS", "*")) < LONGEST_KEY + 60


def test_no_counters_is_no_counts(server: Server, make: Make) -> None:
    """An empty question has an empty answer and is not sent."""
    assert make(server).ask(Hit(())) == ()


def test_unix_socket_and_database_of_the_address(make: Make) -> None:
    """`unix://` and `db=` reach the server they name."""
    directory = tempfile.mkdtemp()
    server = Server("--unixsocket", f"{directory}/s")
    try:
        asker = make(server, uri=f"unix://{directory}/s?db=3")
        assert asker.told() == [(True, 2)]
        assert "db3" in server.admin("INFO", "keyspace")
    finally:
        server.close()
        shutil.rmtree(directory)


# -- the script says what rules/windows.py says -----------------------------------------------------------------------

_TIMED = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")


@every_strategy
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_script_agrees_with_the_pure_arithmetic(shared: Server, strategy: str, data: st.DataObject) -> None:
    """Step by step, with a clock that the test turns, also back: the same counts and waits to the millisecond."""
    assert _TIMED != SCRIPT
    amount, window_s = data.draw(st.one_of(st.integers(1, 9), st.integers(60, 200))), 3600
    window = window_of(Quota("q", amount, window_s, strategy))
    client = redis.Redis(port=shared.port, protocol=2)
    client.flushall()
    script, state, now_ms = client.register_script(_TIMED), None, 1_800_000_000_000
    draw = st.tuples(
        st.one_of(st.integers(0, 900_000), st.integers(-2, 2).map(lambda hours: hours * 7_200_000)),
        st.one_of(st.integers(0, 3), st.integers(0, amount + 1)),
    )
    for step_ms, cost in data.draw(st.lists(draw, min_size=1, max_size=25)):
        now_ms += step_ms
        charged, _, count = window.charge(state, cost, now_ms)
        state = state if charged is None else charged
        arguments = [strategy, amount, window_s * 1000, cost, now_ms // 1000, now_ms % 1000 * 1000]
        allowed, remaining, reset_ms = script(keys=["k"], args=arguments).split(b" ")
        expected = (count.allowed, count.remaining, round(count.reset_s * 1000))
        assert (allowed == b"1", int(remaining), int(reset_ms)) == expected
    client.close()


class TimedStore(RedisStore):
    """A store whose script is told the time by a machine."""

    def __init__(self, uri: str, machine: LimiterMachine) -> None:
        super().__init__(uri, timeout_s=PATIENCE_S)
        self._machine, self._script = machine, Script(_TIMED)

    def _ask(self, counters: Any, sign: int) -> Counts | Unavailable:
        ms = self._machine.now_ms
        return self.wire.ask(
            self._script, (*_command(counters, sign), ms // 1000, ms % 1000 * 1000), partial(_parse, counters)
        )


def test_the_store_says_what_the_models_say(shared: Server) -> None:
    """For each strategy, with time steps and clock jumps, counting and giving back."""

    class AgainstModel(LimiterMachine):
        scale = 1000  # the server's own clock lets keys end, too: not within a test

        def open(self) -> TimedStore:
            shared.admin("FLUSHALL")
            return TimedStore(shared.uri, self)

        def teardown(self) -> None:
            self.store.close()

    run_state_machine_as_test(AgainstModel, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


@every_strategy
def test_giving_back_is_one_command_and_leaves_nothing_behind(server: Server, make: Make, strategy: str) -> None:
    """Both colours: one round trip for all counters; a counter that is given back whole has no key."""
    asker = make(server)
    quota, wide = Quota("q", 3, 60, strategy), Quota("wide", 9, 3600, strategy)
    asker.ask(Hit((("k", quota, 3), ("k", wide, 1))))
    assert told(asker.give_back(GiveBack((("k", quota, 1), ("k", wide, 9))))) == [(True, 1), (True, 9)]
    assert len(server.admin("KEYS", "*")) == 1
    server.admin("CONFIG", "RESETSTAT")
    assert told(asker.give_back(GiveBack((("k", quota, 99), ("unknown", wide, 1))))) == [(True, 3), (True, 9)]
    assert (server.commands()["evalsha"], server.admin("KEYS", "*")) == (1, [])


# -- faults: every one is an answer, and none is an exception ---------------------------------------------------------


def test_server_that_is_away_from_the_start(victim: Server, make: Make) -> None:
    """No server: unavailable, left alone, and used as soon as it is there."""
    victim.stop()
    asker = make(victim)
    assert [asker.told() for _ in range(3)] == ["store-unreachable", "store-down", "store-down"]
    asker.clock.pause_over()
    assert [asker.told() for _ in range(2)] == ["store-unreachable", "store-down"]
    victim.start()
    asker.clock.pause_over()
    assert [asker.told() for _ in range(2)] == [[(True, 2)], [(True, 1)]]


def test_server_that_is_killed_and_restarted_on_the_same_port(victim: Server, make: Make) -> None:
    """Down with its connections; back, with forgotten counts, at the next probe."""
    asker = make(victim)
    assert asker.told() == [(True, 2)]
    victim.stop()
    assert [asker.told() for _ in range(2)] == ["store-unreachable", "store-down"]
    victim.start()
    asker.clock.pause_over()
    assert [asker.told() for _ in range(2)] == [[(True, 2)], [(True, 1)]]


def test_restart_between_two_questions_is_not_noticed(victim: Server, make: Make) -> None:
    """A connection that died while it lay idle is replaced within the same question."""
    asker = make(victim)
    asker.ask()
    victim.stop()
    victim.start()
    assert asker.told() == [(True, 2)]


@pytest.mark.parametrize(
    "warm", [pytest.param(True, id="on an open connection"), pytest.param(False, id="on a new one")]
)
def test_server_that_hangs(victim: Server, make: Make, warm: bool) -> None:
    """SIGSTOP: the first question pays the time-out, the next ones nothing; afterwards it counts on."""
    asker = make(victim, HUNG_S)
    if warm:
        while asker.told() != [(True, 2)]:
            asker.clock.pause_over()
            victim.admin("FLUSHALL")
    victim.process.send_signal(signal.SIGSTOP)
    asker.clock.pause_over()
    assert [asker.told() for _ in range(3)] == ["store-timeout", "store-down", "store-down"]
    victim.process.send_signal(signal.SIGCONT)
    answer: Any = None
    for _ in range(50):
        asker.clock.pause_over()
        answer = asker.told()
        if not isinstance(answer, str):
            break
    assert isinstance(answer, list)


def test_many_tasks_meet_a_server_that_hangs(victim: Server, make_async: Make) -> None:
    """Those that wait for a connection learn from those that had one: nobody waits a second time-out."""
    asker = make_async(victim, HUNG_S)
    victim.process.send_signal(signal.SIGSTOP)

    async def crowd() -> list[Counts | Unavailable]:
        return await asyncio.gather(*(asker.store.ahit(ONE) for _ in range(200)))

    answers = [told(answer) for answer in asker.run(crowd())]
    assert set(answers) == {"store-timeout", "store-down"}
    assert answers.count("store-timeout") <= CONNECTIONS


def test_blocked_event_loop_is_not_blamed_on_the_server(server: Server, make_async: Make) -> None:
    """A reply that came while the loop was busy for longer than the time-out is still read."""
    asker = make_async(server, HUNG_S)

    async def busy() -> Counts | Unavailable:
        sent = server.commands().get("evalsha", 0)
        asking = asyncio.ensure_future(asker.store.ahit(ONE))
        for _ in range(3):
            await asyncio.sleep(0)
        while server.commands()["evalsha"] == sent:  # blocks the loop until the server has answered
            threading.Event().wait(0.01)
        threading.Event().wait(2 * HUNG_S)
        return await asking

    while not isinstance(asker.ask(), tuple):
        asker.clock.pause_over()
    assert isinstance(asker.run(busy()), tuple)


def test_read_only_replica(victim: Server, make: Make) -> None:
    """After a failover to a replica: down, not a bug; back when it is a primary again."""
    asker = make(victim)
    asker.ask()
    victim.admin("REPLICAOF", "127.0.0.1", "1")
    assert [asker.told() for _ in range(2)] == ["store-refuses", "store-down"]
    victim.admin("REPLICAOF", "NO", "ONE")
    asker.clock.pause_over()
    assert asker.told() == [(True, 1)]


def test_out_of_memory(victim: Server, make: Make) -> None:
    """A full server that evicts nothing: down, not a bug."""
    asker = make(victim)
    asker.ask()
    victim.admin("CONFIG", "SET", "maxmemory", "1")
    assert [asker.told() for _ in range(2)] == ["store-refuses", "store-down"]
    victim.admin("CONFIG", "SET", "maxmemory", "0")
    asker.clock.pause_over()
    assert asker.told() == [(True, 1)]


def test_password_set_and_changed(victim: Server, make: Make) -> None:
    """A password that is missing or wrong is "down"; the right one in the address works."""
    victim.admin("CONFIG", "SET", "requirepass", "correct")
    host = f"127.0.0.1:{victim.port}/0"
    missing, wrong, right = (make(victim, uri=f"redis://{who}{host}") for who in ("", ":changed@", "default:correct@"))
    assert missing.told() == wrong.told() == "store-refuses"
    assert right.told() == [(True, 2)]


def test_too_many_clients(victim: Server, make: Make) -> None:
    """A server that takes no more connections is down."""
    asker = make(victim)
    held = redis.Redis(port=victim.port)
    held.execute_command("CONFIG", "SET", "maxclients", "1")
    assert asker.told() in ("store-unreachable", "store-refuses")
    assert asker.told() == "store-down"
    held.close()


def test_flushed_scripts_and_keys_are_only_forgotten_counts(victim: Server, make: Make) -> None:
    """SCRIPT FLUSH is invisible; FLUSHALL forgets counts; neither is an outage."""
    asker = make(victim)
    asker.ask()
    victim.admin("SCRIPT", "FLUSH")
    assert asker.told() == [(True, 1)]
    victim.admin("FLUSHALL")
    assert asker.told() == [(True, 2)]
    assert victim.commands()["eval"] == 2


def test_killed_connections_are_replaced(victim: Server, make: Make) -> None:
    """CLIENT KILL is invisible."""
    asker = make(victim)
    asker.ask()
    victim.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert asker.told() == [(True, 1)]


def test_cancelled_question_takes_its_connection_along(victim: Server, make_async: Make) -> None:
    """The reply to a cancelled command is never read by the next one."""
    asker = make_async(victim)
    other = Hit((("other", Quota("other", 900, 3600), 1),))

    async def cancelled_in_flight() -> list[tuple[bool, int]] | str:
        await asker.store.ahit(other)
        for steps in range(1, 6):
            asking = asyncio.ensure_future(asker.store.ahit(ONE))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(await asker.store.ahit(Hit((("k", QUOTA, 0),))), tuple)
        return told(await asker.store.ahit(other))

    answer = asker.run(cancelled_in_flight())
    assert answer == [(True, 898)]


def test_cancelled_probe_does_not_keep_the_store_away(victim: Server, make_async: Make) -> None:
    """A client that goes away while its request probes leaves the probe to the next one."""
    asker = make_async(victim)
    victim.stop()
    assert asker.told() == "store-unreachable"
    victim.start()
    asker.clock.pause_over()

    async def cancelled() -> None:
        asking = asyncio.ensure_future(asker.store.ahit(ONE))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    asker.run(cancelled())
    answer = asker.told()
    assert isinstance(answer, list)


# -- servers that lie, and every error there is -----------------------------------------------------------------------


class Liar:
    """Answers every command with the same bytes, a few at a time."""

    def __init__(self, reply: bytes, chunk: int = 1 << 16) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._reply, self._chunk = reply, chunk
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(1 << 16):
                    for at in range(0, len(self._reply), self._chunk):
                        connection.sendall(self._reply[at : at + self._chunk])
                        if self._over.wait(0.02 if self._chunk == 1 else 0):
                            return
            except OSError:
                return

    def close(self) -> None:
        self._over.set()
        self._listener.close()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(b"$-1\r\n", id="nothing"),
        pytest.param(b":7\r\n", id="a number"),
        pytest.param(b"*1\r\n$1\r\n1\r\n", id="a list"),
        pytest.param(b"$abc\r\n", id="a length that is none"),
        pytest.param(b"$5\r\n1 2 x\r\n", id="a figure that is none"),
        pytest.param(b"$5\r\n1 9 1\r\n", id="more left than there is"),
        pytest.param(b"$6\r\n1 -1 1\r\n", id="less than nothing left"),
        pytest.param(b"$11\r\n1 2 3600001\r\n", id="a wait beyond the window"),
        pytest.param(b"$11\r\n1 2 1;1 2 1\r\n", id="more counters than asked"),
        pytest.param(b"$0\r\n\r\n", id="empty"),
    ],
)
def test_server_that_lies_is_down(make: Make, reply: bytes) -> None:
    """An answer that cannot be is no answer."""
    liar = Liar(reply)
    try:
        asker = make(None, uri=f"redis://127.0.0.1:{liar.port}")
        assert asker.told() in ("store-garbled", "store-unreachable", "store-refuses")
        assert asker.told() == "store-down"
    finally:
        liar.close()


def test_server_that_drips_has_one_deadline_for_all_bytes(make: Make) -> None:
    """A byte every 20 ms keeps each read alive; the question ends all the same, long before the reply does."""
    liar = Liar(b"$2000\r\n" + b"1" * 2000 + b"\r\n", chunk=1)
    try:
        assert make(None, HUNG_S, uri=f"redis://127.0.0.1:{liar.port}").told() == "store-timeout"
    finally:
        liar.close()


def _error_classes() -> list[type[Exception]]:
    ours = [kind for _, kind in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(kind, Exception)]
    return [*ours, OSError, ConnectionResetError, BrokenPipeError, socket.gaierror, TimeoutError, EOFError, ValueError]


class Raising:
    """A connection whose N-th step raises."""

    def __init__(self, error: Exception, nth: int) -> None:
        self.limit = [0.0]
        self._error, self._left = error, nth

    def step(self) -> bytes:
        self._left -= 1
        if self._left == 0:
            raise self._error
        return b"1 2 1000"

    def send_command(self, *arguments: Any, **options: Any) -> None:
        self.step()

    def read_response(self, **options: Any) -> bytes:
        return self.step()

    def disconnect(self, **options: Any) -> None:
        """Nothing to close."""


class AsyncRaising(Raising):
    async def send_command(self, *arguments: Any, **options: Any) -> None:  # type: ignore[override]
        self.step()

    async def read_response(self, **options: Any) -> bytes:  # type: ignore[override]
        return self.step()

    async def disconnect(self, **options: Any) -> None:  # type: ignore[override]
        """Nothing to close."""


@pytest.mark.parametrize("nth", [pytest.param(1, id="sending"), pytest.param(2, id="reading")])
@pytest.mark.parametrize("kind", _error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_at_every_step_means_down(server: Server, make: Make, kind: type[Exception], nth: int) -> None:
    """Whatever class of error comes out of the client: unavailable, left alone, never an exception."""
    asker = make(server)
    needs_location = "MOVED" if kind.__name__ in ("AskError", "MovedError") else ""
    error = kind("1 127.0.0.1:1") if needs_location else kind("hunter2")
    asker.store.wire._open = lambda: Raising(error, nth)
    asker.store.wire._aopen = lambda: AsyncRaising(error, nth)
    first = asker.told()
    if kind.__name__ == "NoScriptError" and nth == 2:
        assert first == [(True, 2)]  # the script is sent along, which works
        return
    assert isinstance(first, str)
    assert first.startswith("store-")
    assert asker.told() == "store-down"


@pytest.mark.parametrize("mode", get_args(OnOutage))
@pytest.mark.parametrize("kind", _error_classes(), ids=lambda kind: kind.__name__)
def test_fault_loop(make: Make, kind: type[Exception], mode: OnOutage) -> None:
    """The N-th question fails, for every N and every class of error: that answer is the mode's, the others Redis'."""
    expected: dict[OnOutage, object] = {"local": [(True, 2)], "open": [(True, 3)], "closed": "an error's slug"}
    for nth in range(1, 5):
        asker = make(None, uri="redis://127.0.0.1:1/0")
        asked = 0

        def connection(fake: type[Raising]) -> Raising:
            error = kind("1 127.0.0.1:1" if kind.__name__ in ("AskError", "MovedError") else "hunter2")
            return fake(error, 1 if asked == nth else 99)  # noqa: B023 (called within its round)

        asker.store.wire._open = lambda: connection(Raising)
        asker.store.wire._aopen = lambda: connection(AsyncRaising)
        store = OutageStore(asker.store, MemoryStore(), mode, lambda change: None)
        for asked in range(1, 5):
            asker.clock.pause_over()
            asker.drop_idle()
            answer = told(asker.run(store.ahit(ONE)) if asker.loop else store.hit(ONE))
            if asked != nth:
                assert answer == [(True, 2)]
            elif mode == "closed":
                assert str(answer).startswith("store-")
            else:
                assert answer == expected[mode]
