"""What each fault of a real Redis looks like to clients of a portal, through both doors.

The run prints a table: fault, milliseconds of the first request and of the median one afterwards, what was answered
before, during and after. Nothing here asserts how fast the machine is: only that nobody waits for the server for long.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from doors import Answer, AsgiDoor
from redis_server import PATIENCE_S, Server, redis

from conftest import FAULTS, MakePortal, Portal

PATIENT_MS = 5_000.0
"""Far above what is promised (250 ms): peers without a deadline of their own wait this long, and longer."""
QUOTA = 4


@dataclass
class Client:
    """Asks a portal whose limits live in Redis; the ASGI door keeps one event loop, as a server does."""

    portal: Portal
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def ask(self, peer: str = "203.0.113.7") -> Answer:
        door = self.portal.door
        if isinstance(door, AsgiDoor):
            return self.runner.run(door.arequest("GET", "/public", peer=peer))
        return self.portal.request("GET", "/public", peer=peer)

    def timed(self) -> tuple[int, float]:
        """Status and milliseconds."""
        began = perf_counter()
        status = self.ask().status
        return status, (perf_counter() - began) * 1000

    def patient(self) -> Client:
        """For a server that is well: a machine that is busy for 100 ms is no outage."""
        self.store._shared.wire._timeout_s = PATIENCE_S
        self.recover()
        return self

    def pause_over(self) -> None:
        """The breaker may ask again now; how long it pauses is tested where it lives."""
        breaker = self.store._shared.wire._process.breaker
        if breaker._retry_at is not None:
            breaker._retry_at = 0.0

    def recover(self) -> int:
        """The first answer that was counted in Redis again, which must come without a restart."""
        for _ in range(100):
            self.pause_over()
            before = self.store.stood_in
            status = self.ask("198.51.100.9").status
            if self.store.stood_in == before:
                return status
        raise AssertionError("the store is there again and nobody asks it")

    @property
    def store(self) -> Any:
        return self.portal.shield.protection._runtime.store  # type: ignore[union-attr]

    def close(self) -> None:
        self.portal.shield.protection.revocations.stop()
        self.runner.run(self.store.aclose())
        self.runner.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server to be maltreated."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def connect(make_portal: MakePortal, server: Server) -> Iterator[Callable[..., Client]]:
    """Clients of portals that count in this server."""
    made: list[Client] = []

    def build(mode: str = "local", uri: str = "", per_ip: str = f"{QUOTA}/hour") -> Client:
        variables = {"STORAGE": uri or server.uri, "RATE__PER_IP": per_ip, "RATE__ON_OUTAGE": mode}
        client = Client(make_portal(variables))
        client.ask("198.51.100.1")  # compiles the portal
        made.append(client)
        return client

    yield build
    for client in made:
        client.close()


# -- faults -----------------------------------------------------------------------------------------------------------


def kill_connections(server: Server) -> None:
    """What is connected keeps the rights it had."""
    server.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def killed(server: Server) -> Callable[[], Any]:
    server.stop()
    return server.start


def hung(server: Server) -> Callable[[], Any]:
    server.process.send_signal(signal.SIGSTOP)
    return lambda: server.process.send_signal(signal.SIGCONT)


def read_only_replica(server: Server) -> Callable[[], Any]:
    server.admin("REPLICAOF", "127.0.0.1", "1")
    return lambda: server.admin("REPLICAOF", "NO", "ONE")


def out_of_memory(server: Server) -> Callable[[], Any]:
    server.admin("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.admin("CONFIG", "SET", "maxmemory", "0")


def password_changed(server: Server) -> Callable[[], Any]:
    server.admin("CONFIG", "SET", "requirepass", "changed")
    server.admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", password="changed")
    return lambda: server.admin("CONFIG", "SET", "requirepass", "", password="changed")


def too_many_clients(server: Server) -> Callable[[], Any]:
    held = redis.Redis(port=server.port)
    held.execute_command("CONFIG", "SET", "maxclients", "1")
    held.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def mend() -> None:
        held.execute_command("CONFIG", "SET", "maxclients", "1000")
        held.close()

    return mend


def scripts_flushed(server: Server) -> Callable[[], Any]:
    server.admin("SCRIPT", "FLUSH")
    return lambda: None


def connections_killed(server: Server) -> Callable[[], Any]:
    kill_connections(server)
    return lambda: None


def keys_flushed(server: Server) -> Callable[[], Any]:
    server.admin("FLUSHALL")
    return lambda: None


def restarted(server: Server) -> Callable[[], Any]:
    server.stop()
    server.start()
    return lambda: None


OUTAGES = [killed, hung, read_only_replica, out_of_memory, password_changed, too_many_clients]
HARMLESS = [(scripts_flushed, 1), (connections_killed, 1), (keys_flushed, 0), (restarted, 0)]
"""And how much of what was counted is still known afterwards."""


def note(config: pytest.Config, client: Client, fault: str, times: list[float], answers: list[int]) -> None:
    row = (fault, client.portal.name, f"{times[0]:.1f}", f"{median(times[1:]):.1f}", _told(answers))
    config.stash.setdefault(FAULTS, []).append(row)


def _told(answers: list[int]) -> str:
    return ", ".join(f"{answers.count(status)} x {status}" for status in dict.fromkeys(answers))


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
@pytest.mark.parametrize("fault", OUTAGES, ids=lambda fault: fault.__name__)
def test_an_outage_is_answered_as_published(
    connect: Callable[..., Client], server: Server, pytestconfig: pytest.Config, fault: Any, mode: str
) -> None:
    """local: the quota in this process; open: all pass; closed: 503; and none waits for the server again and again."""
    client = connect(mode)
    assert client.recover() == 200
    mend = fault(server)
    client.pause_over()
    rows = [client.timed() for _ in range(12)]
    answers, times = [status for status, _ in rows], [ms for _, ms in rows]
    note(pytestconfig, client, f"{fault.__name__.replace('_', ' ')} ({mode})", times, answers)
    expected = {"local": [200] * QUOTA + [429] * (12 - QUOTA), "open": [200] * 12, "closed": [503] * 12}
    assert answers == expected[mode]
    assert max(times) < PATIENT_MS
    mend()
    assert client.recover() == 200


@pytest.mark.parametrize(("fault", "known"), HARMLESS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_costs_at_most_counts(
    connect: Callable[..., Client], server: Server, pytestconfig: pytest.Config, fault: Any, known: int
) -> None:
    """D-03: flushed scripts, closed connections, a restart on the same port: no outage, at most forgotten counts."""
    client = connect().patient()
    assert client.ask().status == 200
    stood_in = client.store.stood_in
    fault(server)
    rows = [client.timed() for _ in range(6)]
    answers = [status for status, _ in rows]
    note(pytestconfig, client, fault.__name__.replace("_", " "), [ms for _, ms in rows], answers)
    assert answers == [200] * (QUOTA - known) + [429] * (6 - QUOTA + known)
    assert client.store.stood_in == stood_in


def test_redis_that_is_away_at_the_start(connect: Callable[..., Client], server: Server) -> None:
    """D-05: the portal starts, limits in this process, and counts in Redis as soon as that is there."""
    server.stop()
    client = connect()
    assert [client.ask().status for _ in range(QUOTA + 1)] == [200] * QUOTA + [429]
    server.start()
    assert client.recover() == 200
    assert client.store.stood_in >= QUOTA + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_on_one_redis_pass_exactly_the_quota(connect: Callable[..., Client], server: Server) -> None:
    """E-6, D-10: an application made and used before the fork works in parent and child, which share the quota."""
    client = connect(per_ip="30/hour").patient()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        client.runner = asyncio.Runner()
        os.write(writer, bytes([_passed(client)]))
        os._exit(0)
    mine = _passed(client)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    theirs = os.read(reader, 1)[0]
    os.close(reader)
    os.close(writer)
    assert (mine + theirs, mine > 0, theirs > 0) == (30, True, True)


def _passed(client: Client) -> int:
    """How many of 25 requests passed."""
    return sum(client.ask().status == 200 for _ in range(25))
