"""Fetched key sets against a server that misbehaves in every way a key endpoint was seen to misbehave."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import queue
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from portalshield.rules.key_loading import parse_key_set
from portalshield.stores.fetching import (
    ASK_BURST,
    ASK_INTERVAL_S,
    DENIED_KIDS,
    DENIED_S,
    MOMENT_S,
    FetchError,
    Pace,
    fetch,
    parse_target,
)
from portalshield.stores.keysets import RemoteKeys

PATIENCE_S = 10.0
Answer = Callable[[socket.socket], None]

# -- the misbehaving server -------------------------------------------------------------------------------------------


class Issuer:
    """A key endpoint on loopback: `answer` decides what goes over the socket, `requests` keeps what came."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = send(b"{}")
        self.requests: list[bytes] = []
        self.arrived = threading.Semaphore(0)
        issuer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    connection = context.wrap_socket(self.request, server_side=True) if context else self.request
                    issuer._serve(connection)
                    if context:
                        connection.close()
                except OSError:
                    return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys?set=1"

    def _serve(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
        self.requests.append(request)
        self.arrived.release()
        self.answer(connection)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(body: bytes, status: str = "200 OK", *fields: str, length: int | None = None) -> Answer:
    """A whole answer, with a length that may lie."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields, "", ""]
    return raw("\r\n".join(head).encode() + body)


def raw(data: bytes) -> Answer:
    return lambda connection: connection.sendall(data)


def key_set(*kids: str) -> bytes:
    return json.dumps({"keys": [{"kid": kid} for kid in kids]}).encode()


def drip(data: bytes, rest: bytes = b" ") -> Answer:
    """One byte every few milliseconds: no single read ever times out."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        for _ in range(1000):
            connection.sendall(rest)
            time.sleep(0.02)

    return answer


class Gate:
    """Holds an answer back until it is opened, and is opened at the end of the test."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._open = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        self._open.wait(PATIENCE_S)
        self._answer(connection)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    if isinstance(server.answer, Gate):
        server.answer.open()
    server.close()


# -- the keys under test ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kids:
    """The smallest snapshot: which kids there are."""

    kids: frozenset[str]
    generation: int = 0

    def followed_by(self, newer: Kids) -> Kids:
        return replace(newer, generation=self.generation + (not self.kids <= newer.kids))


def load(body: bytes) -> Kids:
    kids = frozenset(key["kid"] for key in json.loads(body)["keys"])
    if not kids:
        raise ValueError("no keys")
    return Kids(kids)


class Rig:
    """Remote keys with a clock that only the test moves, and a queue of what happened in the thread."""

    def __init__(self, url: str, **options: Any) -> None:
        self.now = 1000.0
        self.events: queue.Queue[str] = queue.Queue()
        options = {"load": load, "jitter": lambda: 0.0, "notify": self.events.put, "allow_http": True, **options}
        self.keys: RemoteKeys[Any] = RemoteKeys(url, clock=lambda: self.now, **options)

    def started(self) -> Rig:
        self.keys.start()
        self.next_event()
        return self

    def advance(self, seconds: float) -> None:
        """Move the clock and have the thread look at it."""
        self.now += seconds
        crew = self.keys._crew()
        with crew.wake:
            crew.wake.notify_all()

    def next_event(self) -> str:
        return self.events.get(timeout=PATIENCE_S)

    @property
    def snapshot(self) -> Any:
        return self.keys.snapshot

    def kids(self) -> set[str]:
        return set(self.snapshot.kids) if self.snapshot else set()


@pytest.fixture
def rig(issuer: Issuer) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(issuer.url, **options))
        return rigs[-1]

    yield make
    for made in rigs:
        made.keys.stop()


def refresher_threads() -> int:
    return sum(thread.name == "portalshield-keys" for thread in threading.enumerate())


# -- one fetch --------------------------------------------------------------------------------------------------------


def get(issuer: Issuer, deadline_s: float = 5.0, max_bytes: int = 262144) -> bytes:
    return fetch(issuer.url, deadline_s, max_bytes, True)


def reason(issuer: Issuer, deadline_s: float = 5.0) -> str:
    with pytest.raises(FetchError) as caught:
        get(issuer, deadline_s)
    return caught.value.reason


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(send(b"{}"), id="declared length"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n\r\n{}"), id="until the connection ends"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), id="chunked"),
        pytest.param(send(b"{}", "200 OK", "Content-Encoding: identity"), id="identity named"),
        pytest.param(raw(b"HTTP/1.0 200 OK\r\n\r\n{}"), id="HTTP/1.0"),
    ],
)
def test_a_plain_answer_is_returned(issuer: Issuer, answer: Answer) -> None:
    """Every framing of a 200 answer yields the body."""
    issuer.answer = answer
    assert get(issuer) == b"{}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(send(b"no", "500 Internal Server Error"), "status", id="500"),
        pytest.param(send(b"{}", "206 Partial Content"), "status", id="part"),
        pytest.param(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "status", id="no content"),
        pytest.param(send(b"", "302 Found", "Location: /other"), "redirect", id="redirect"),
        pytest.param(send(b"", "308 Permanent Redirect", "Location: http://127.0.0.1/"), "redirect", id="permanent"),
        pytest.param(send(b"x", "200 OK", "Content-Encoding: gzip"), "encoded", id="gzip"),
        pytest.param(send(b"{", length=10), "truncated", id="half"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"), "truncated", id="half a chunk"
        ),
        pytest.param(send(b"{}", length=50_000_000), "too-large", id="50 MB declared"),
        pytest.param(raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "protocol", id="not HTTP"),
        pytest.param(raw(b"HTTP/1.1 2OO OK\r\n\r\n"), "protocol", id="odd status"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 70_000 + b"\r\n\r\n"), "protocol", id="long field"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n"), "protocol", id="many fields"),
        pytest.param(raw(b""), "unreachable", id="nothing"),
    ],
)
def test_an_unfit_answer_has_one_exception_and_a_reason(issuer: Issuer, answer: Answer, expected: str) -> None:
    """Whatever comes over the wire, only FetchError leaves the function."""
    issuer.answer = answer
    assert reason(issuer) == expected
    assert len(issuer.requests) == 1


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 65536, id="until the end"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"a" * 65536 + b"\r\n",
            id="chunked",
        ),
    ],
)
def test_50_mb_without_a_length_are_not_read(issuer: Issuer, head: bytes, piece: bytes) -> None:
    """Reading stops at the cap; the server cannot get rid of the rest."""
    sent = 0
    ended = threading.Event()

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        try:
            connection.sendall(head)
            for _ in range(800):
                connection.sendall(piece)
                sent += len(piece)
        finally:
            ended.set()

    issuer.answer = flood
    assert reason(issuer) == "too-large"
    assert ended.wait(PATIENCE_S)
    assert sent < 50_000_000


def test_the_cap_itself_is_allowed(issuer: Issuer) -> None:
    """A body of exactly `max_bytes` passes, one byte more does not."""
    issuer.answer = raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1000)
    assert len(get(issuer, max_bytes=1000)) == 1000
    with pytest.raises(FetchError, match="too-large"):
        get(issuer, max_bytes=999)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), id="body"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"), id="field"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"), id="chunks"),
        pytest.param(drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers"),
        pytest.param(lambda connection: connection.recv(1), id="silence"),
    ],
)
def test_a_dripping_server_meets_the_total_deadline(issuer: Issuer, answer: Answer) -> None:
    """Bytes that keep coming do not extend the deadline."""
    issuer.answer = answer
    assert reason(issuer, deadline_s=0.15) == "timeout"


def test_a_dead_port_is_unreachable() -> None:
    """Nobody listens there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(FetchError, match="unreachable"):
            fetch(url, 2.0, 1000, True)


def test_the_request_is_plain_and_asks_no_proxy(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables change nothing; the request names itself and accepts identity coding only."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(issuer.url, 5.0, 1000, True, user_agent="portal/1") == b"{}"
    lines = issuer.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /keys?set=1 HTTP/1.1"
    assert {f"Host: 127.0.0.1:{issuer.port}", "User-Agent: portal/1", "Accept-Encoding: identity"} <= set(lines)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("http://issuer.example/keys", "insecure-url", id="http elsewhere"),
        pytest.param("http://127.0.0.1.example/keys", "insecure-url", id="looks like loopback"),
        pytest.param("http://10.0.0.1/keys", "insecure-url", id="private address"),
        pytest.param("ftp://issuer.example/keys", "bad-url", id="scheme"),
        pytest.param("file:///etc/passwd", "bad-url", id="file"),
        pytest.param("https:///keys", "bad-url", id="no host"),
        pytest.param("https://user@issuer.example/", "bad-url", id="user info"),
        pytest.param("https://issuer.example/#a", "bad-url", id="fragment"),
        pytest.param("https://issuer.example/a b", "bad-url", id="blank"),
        pytest.param("https://issuer.example/\r\nX: y", "bad-url", id="line end"),
        pytest.param("https://issuer.example:99999/", "bad-url", id="port out of range"),
        pytest.param("https://issuer.example:0/", "bad-url", id="port 0"),
        pytest.param("https://[::1/", "bad-url", id="open bracket"),
        pytest.param("https://bücher.example/", "bad-url", id="not ASCII"),
        pytest.param("", "bad-url", id="empty"),
    ],
)
def test_an_address_that_must_not_be_asked_is_refused(url: str, expected: str) -> None:
    """At construction already, and without a socket."""
    with pytest.raises(FetchError, match=expected):
        parse_target(url, allow_http=True)
    with pytest.raises(FetchError, match=expected):
        RemoteKeys(url, load=load, allow_http=True)


def test_plain_http_needs_to_be_allowed_even_on_loopback() -> None:
    """Without the switch, loopback is no exception."""
    with pytest.raises(FetchError, match="insecure-url"):
        parse_target("http://localhost/keys")
    assert parse_target("http://[::1]:8000/keys", True).port == 8000
    assert parse_target("https://issuer.example").resource == "/"


def _addresses(*targets: tuple[str, int]) -> Callable[..., Any]:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", target) for target in targets]
    return lambda *args, **kwargs: found


def test_localhost_that_leads_elsewhere_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hosts file cannot turn plain http loose on the network."""
    monkeypatch.setattr(socket, "getaddrinfo", _addresses(("192.0.2.1", 80)))
    with pytest.raises(FetchError, match="insecure-url"):
        fetch("http://localhost/", 1.0, 1000, True)


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's failure is a FetchError like any other."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(FetchError, match="unresolved"):
        fetch("https://issuer.example/", 1.0, 1000)


def test_a_dead_first_address_does_not_cost_the_second(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are tried in turn."""
    monkeypatch.setattr(socket, "getaddrinfo", _addresses(("127.0.0.1", 1), ("127.0.0.1", issuer.port)))
    assert get(issuer) == b"{}"


@pytest.fixture
def tls_issuer(tmp_path: Path) -> Iterator[tuple[Issuer, Path]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "issuer.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = Issuer(context)
    yield server, path
    server.close()


def test_a_certificate_nobody_vouches_for_is_refused(tls_issuer: tuple[Issuer, Path]) -> None:
    """A self-signed issuer gets no request at all."""
    server, _ = tls_issuer
    with pytest.raises(FetchError, match="tls"):
        fetch(f"https://127.0.0.1:{server.port}/", 5.0, 1000)
    assert server.requests == []


def test_https_with_a_trusted_certificate(tls_issuer: tuple[Issuer, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's trust store decides; the name must match too."""
    server, path = tls_issuer
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert fetch(f"https://127.0.0.1:{server.port}/", 5.0, 1000) == b"{}"
    with pytest.raises(FetchError, match="tls"):
        fetch(f"https://localhost:{server.port}/", 5.0, 1000)


def test_a_server_that_never_finishes_the_handshake(issuer: Issuer) -> None:
    """The deadline covers TLS as well."""
    with pytest.raises(FetchError, match="timeout"):
        fetch(f"https://127.0.0.1:{issuer.port}/", 0.15, 1000)


# -- pace -------------------------------------------------------------------------------------------------------------


def pace_after_a_fetch(jitter: float = 0.0) -> Pace:
    pace = Pace(300.0, 86400.0, lambda: jitter, None)
    pace.begin(0.0)
    pace.succeed(0.0, set())
    return pace


def test_the_first_fetch_is_due_at_once() -> None:
    """A new process fetches without being asked, also one that inherited keys."""
    assert Pace(300.0, 86400.0, lambda: 0.0, None).due_at < 0
    inherited = Pace(300.0, 86400.0, lambda: 0.0, 50.0)
    assert inherited.due_at < 0
    assert inherited.expires_at == 86450.0


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_keys_are_renewed_before_they_are_old(jitter: float) -> None:
    """The next fetch is due between 0.9 and 1.0 times the fresh time, so that workers drift apart."""
    assert 270.0 <= pace_after_a_fetch(jitter).due_at <= 300.0


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_failures_back_off_from_a_second_to_a_minute(jitter: float) -> None:
    """Each step is between 1 and 60 s, never shorter than the one before; a success ends it."""
    pace = pace_after_a_fetch(jitter)
    steps = []
    for _ in range(2000):
        pace.fail(0.0)
        steps.append(pace.due_at)
    assert steps == sorted(steps)
    assert steps[0] == 1.0
    assert 30.0 <= steps[-1] <= 60.0
    pace.succeed(0.0, set())
    pace.fail(0.0)
    assert pace.due_at == 1.0


def test_a_kid_that_was_asked_for_is_denied_for_a_while() -> None:
    """After a successful fetch its kids cause no other one for half a minute."""
    pace = pace_after_a_fetch()
    pace.succeed(20.0, {"a", None})
    assert not pace.admits("a", 20.0 + DENIED_S - 1)
    assert not pace.admits(None, 21.0)
    assert pace.admits("b", 21.0)
    assert pace.admits("a", 20.0 + DENIED_S)


def test_a_set_that_just_came_is_not_asked_again() -> None:
    """Who looked just before it came looks again first; a moment later an unknown kid may ask."""
    pace = pace_after_a_fetch()
    assert not pace.admits("a", MOMENT_S - 0.01)
    assert pace.admits("a", MOMENT_S)


def test_an_overlong_kid_never_causes_a_fetch() -> None:
    """No set can hold it: the token reader refuses it too."""
    pace = pace_after_a_fetch()
    assert pace.admits("k" * 256, 100.0)
    assert not pace.admits("k" * 257, 100.0)


def test_denied_kids_are_bounded() -> None:
    """A flood of kids pushes out the oldest, memory stays."""
    pace = pace_after_a_fetch()
    for number in range(5000):
        pace.succeed(1.0, {f"kid-{number}"})
    assert sum(pace.denies(f"kid-{number}", 1.0) for number in range(5000)) <= DENIED_KIDS
    assert pace.denies("kid-4999", 1.0)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.0, 15.0), max_size=120),
    jitter=st.floats(0.0, 1.0),
)
def test_unknown_kids_never_exceed_their_budget(gaps: list[float], jitter: float) -> None:
    """However they arrive, ever new kids cause at most the burst and one fetch per interval."""
    pace = pace_after_a_fetch(jitter)
    now, fetches = 0.0, 1
    for number, gap in enumerate(gaps):
        now += gap
        if pace.admits(f"kid-{number}", now):
            pace.begin(now)
            pace.succeed(now, {f"kid-{number}"})
            fetches += 1
        assert fetches <= ASK_BURST + now / ASK_INTERVAL_S


# -- life -------------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_start(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Construction starts no thread and asks nobody: a process may still fork."""
    made = rig()
    assert refresher_threads() == 0
    assert (made.keys.snapshot, made.keys.ready, made.keys.age_s, made.keys.generation) == (None, False, None, -1)
    assert issuer.requests == []


def test_start_fetches_ahead_once(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Keys are there before the first token; a second start changes nothing."""
    issuer.answer = send(key_set("a"))
    made = rig()
    for _ in range(3):
        made.keys.start()
    assert made.next_event() == "keys-fetched"
    assert refresher_threads() == 1
    made.now += 7
    assert made.kids() == {"a"}
    assert (made.keys.ready, made.keys.age_s, made.keys.generation) == (True, 7.0, 0)
    assert (made.keys.fetches, made.keys.failures, made.keys.unknown_kids) == (1, 0, 0)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"fresh_s": 0}, id="never fresh"),
        pytest.param({"fresh_s": 10, "stale_s": 5}, id="stale before it is old"),
        pytest.param({"timeout_s": 0}, id="no time"),
        pytest.param({"max_bytes": 0}, id="no bytes"),
        pytest.param({"user_agent": "a\r\nX: y"}, id="agent with a line end"),
        pytest.param({"user_agent": "ü"}, id="agent not ASCII"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    """At construction, not at the first fetch."""
    with pytest.raises(ValueError, match=r"fresh_s|user_agent"):
        RemoteKeys("https://issuer.example/", load=load, **options)


def test_stop_wakes_waiters_and_start_begins_anew(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A stopped key set answers from what it has and starts nothing until it is started."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()
    answers: queue.Queue[bool] = queue.Queue()
    waiter = threading.Thread(target=lambda: answers.put(made.keys.refresh_sync("a", PATIENCE_S)))
    waiter.start()
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    (runner,) = [thread for thread in threading.enumerate() if thread.name == "portalshield-keys"]
    made.keys.stop()
    assert answers.get(timeout=PATIENCE_S) is False
    waiter.join()
    gate.open()
    runner.join(PATIENCE_S)
    assert not made.keys.ready  # what was in flight is not used
    assert made.keys.refresh_sync("a") is False
    assert refresher_threads() == 0
    assert made.started().kids() == {"a"}


def test_a_broken_listener_does_not_end_the_renewal(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """The thread outlives an exception of `notify`."""
    issuer.answer = send(key_set("a"))
    heard: queue.Queue[str] = queue.Queue()

    def listen(event: str) -> None:
        heard.put(event)
        raise RuntimeError("broken")

    made = rig(notify=listen)
    made.keys.start()
    assert heard.get(timeout=PATIENCE_S) == "keys-fetched"
    made.advance(300)
    assert heard.get(timeout=PATIENCE_S) == "keys-fetched"


def test_no_thread_to_be_had_is_no_exception_for_a_request(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started, a request hears that nobody can tell; the start-up hears why."""
    made = rig()

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    assert made.keys.refresh_sync("a", PATIENCE_S) is False
    with pytest.raises(RuntimeError):
        made.keys.start()


# -- stampede, rotation, floods ---------------------------------------------------------------------------------------


def in_threads(number: int, act: Callable[[int], bool]) -> list[bool]:
    """All at the same moment."""
    barrier = threading.Barrier(number)
    answers: list[bool] = []

    def run(position: int) -> None:
        barrier.wait(PATIENCE_S)
        answers.append(act(position))

    threads = [threading.Thread(target=run, args=(position,)) for position in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return answers


def test_a_cold_stampede_is_one_fetch(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """100 threads at a cold start share one fetch and all see the keys."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()

    def open_when_asked() -> None:
        issuer.arrived.acquire(timeout=PATIENCE_S)
        gate.open()

    threading.Thread(target=open_when_asked).start()
    assert in_threads(100, lambda _: made.keys.refresh_sync("a", PATIENCE_S)) == [True] * 100
    assert made.kids() == {"a"}
    assert len(issuer.requests) == made.keys.fetches == 1


def test_a_warm_stampede_for_a_new_kid_is_one_fetch(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """100 threads with the same new kid share one fetch, those that come just after it included."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    made.now += 1
    issuer.answer = send(key_set("a", "b"))
    assert in_threads(100, lambda _: made.keys.refresh_sync("b", PATIENCE_S)) == [True] * 100
    assert made.kids() == {"a", "b"}
    assert len(issuer.requests) == 2
    assert made.keys.unknown_kids == 100


def test_a_rotation_just_after_a_fetch_is_picked_up(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A new kid one second after the last fetch is found, once; the next one waits for the interval."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    issuer.answer = send(key_set("b"))
    made.now += 1
    assert made.keys.refresh_sync("b", PATIENCE_S)
    assert made.kids() == {"b"}
    assert made.keys.generation == 1  # "a" is gone: what it signed must not be remembered
    issuer.answer = send(key_set("c"))
    made.now += 1
    assert made.keys.refresh_sync("c", PATIENCE_S)
    assert made.kids() == {"b"}
    made.now += ASK_INTERVAL_S
    assert made.keys.refresh_sync("c", PATIENCE_S)
    assert made.kids() == {"c"}


def test_a_flood_of_random_kids_costs_one_fetch_per_interval(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """10,000 kids at once: the one fetch a rotation is allowed; then one per 10 s."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    made.now += 1
    for number in range(10_000):
        assert made.keys.refresh_sync(f"bogus-{number}", PATIENCE_S)
    assert len(issuer.requests) == 2
    made.now += ASK_INTERVAL_S
    for number in range(1000):
        made.keys.refresh_sync(f"more-{number}", PATIENCE_S)
    assert len(issuer.requests) == 3
    assert made.keys.unknown_kids == 11_000


def test_a_kid_the_set_does_not_have_is_not_asked_for_again(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """The second token with the same forged kid costs nothing."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    made.now += 100
    assert made.keys.refresh_sync("bogus", PATIENCE_S)
    made.now += DENIED_S - 1
    assert made.keys.refresh_sync("bogus", PATIENCE_S)
    assert len(issuer.requests) == 2
    made.now += 1
    assert made.keys.refresh_sync("bogus", PATIENCE_S)
    assert len(issuer.requests) == 3


def test_a_denied_kid_does_not_wait_for_a_fetch_in_flight(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A forged kid cannot hold a worker while the issuer is slow."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    made.now += 1
    assert made.keys.refresh_sync("bogus", PATIENCE_S)
    gate = issuer.answer = Gate(send(key_set("a")))
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    made.now += 20
    assert made.keys.refresh_sync("new", 0.0)
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    assert made.keys.refresh_sync("bogus", 10 * PATIENCE_S)
    assert made.keys._crew().flight is not None  # it returned while the fetch was still held back
    gate.open()
    made.next_event()


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_cold_start_with_a_failing_endpoint(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """No keys: False at once while everybody backs off, one fetch per step, and keys as soon as they come."""
    issuer.answer = send(b"", "500 Internal Server Error")
    made = rig()
    made.keys.start()
    assert made.next_event() == "fetch-failed"
    assert in_threads(50, lambda number: made.keys.refresh_sync(f"kid-{number}", PATIENCE_S)) == [False] * 50
    assert (len(issuer.requests), made.keys.failures, made.keys.last_failure) == (1, 1, "status")
    made.advance(1)
    assert made.next_event() == "fetch-failed"
    made.advance(0.5)
    assert made.keys.refresh_sync("a", PATIENCE_S) is False
    assert len(issuer.requests) == 2
    issuer.answer = send(key_set("a"))
    made.advance(1)
    assert made.next_event() == "keys-fetched"
    assert made.keys.refresh_sync("a", PATIENCE_S) is True
    assert (made.keys.last_failure, len(issuer.requests)) == ("", 3)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(send(b"no", "500 Internal Server Error"), "status", id="500"),
        pytest.param(send(b"<html>maintenance</html>"), "unusable", id="HTML"),
        pytest.param(send(b""), "unusable", id="empty body"),
        pytest.param(send(b'{"keys": []}'), "unusable", id="empty set"),
        pytest.param(send(b'{"keys": [{"kid"'), "unusable", id="half a document"),
        pytest.param(send(b"[" * 100_000), "unusable", id="deep"),
        pytest.param(send(b"", "302 Found", "Location: /b"), "redirect", id="redirect"),
        pytest.param(send(b"{", length=50_000_000), "too-large", id="50 MB"),
        pytest.param(drip(b"HTTP/1.1 200 OK\r\n\r\n"), "timeout", id="dripping"),
    ],
)
def test_a_failing_endpoint_leaves_the_keys_alone(
    rig: Callable[..., Rig], issuer: Issuer, answer: Answer, why: str
) -> None:
    """Old keys are served whatever the endpoint answers, known kids never notice."""
    issuer.answer = send(key_set("a"))
    made = rig(timeout_s=0.3).started()
    issuer.answer = answer
    made.advance(300)
    assert made.next_event() == "fetch-failed"
    assert (made.kids(), made.keys.failures, made.keys.last_failure) == ({"a"}, 1, why)
    assert made.keys.refresh_sync("bogus", PATIENCE_S)  # everybody backs off, so nobody waits
    assert len(issuer.requests) == 2


def test_a_failing_endpoint_is_asked_once_per_step(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Unknown kids do not shorten the back-off."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    issuer.answer = send(b"", "503 Service Unavailable")
    made.advance(300)
    made.next_event()
    steps = 0
    for second in range(60):
        made.now += 1
        before = len(issuer.requests)
        for number in range(20):
            made.keys.refresh_sync(f"kid-{second}-{number}", PATIENCE_S)
        steps += len(issuer.requests) - before
    assert steps == made.keys.failures - 1
    assert steps <= 7  # after 1, 1, 2, 4, 8, 16 s ...: jitter 0 halves the steps


def test_known_keys_are_readable_during_a_slow_fetch(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Readers see the old snapshot while its successor is on its way."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    gate = issuer.answer = Gate(send(key_set("a", "b")))
    made.advance(300)
    for _ in range(2):
        assert issuer.arrived.acquire(timeout=PATIENCE_S)
    assert made.kids() == {"a"}
    assert made.keys.refresh_sync("b", 0.01)  # waits no longer than it is told
    assert made.kids() == {"a"}
    gate.open()
    assert made.next_event() == "keys-fetched"
    assert made.kids() == {"a", "b"}
    assert made.keys.generation == 0  # nothing was withdrawn


def test_a_kid_that_came_during_a_fetch_may_ask_again(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """The answer in flight may be older than the kid, so it is not denied by it."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    gate = issuer.answer = Gate(send(key_set("a")))
    made.advance(300)
    for _ in range(2):
        assert issuer.arrived.acquire(timeout=PATIENCE_S)
    assert made.keys.refresh_sync("late", 0.01)
    gate.open()
    made.next_event()
    issuer.answer = send(key_set("a", "late"))
    made.now += 1
    assert made.keys.refresh_sync("late", PATIENCE_S)
    assert made.kids() == {"a", "late"}


def test_the_hard_limit_ends_stale_keys(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Keys older than the limit are gone: nobody can tell (503), until the endpoint answers again."""
    issuer.answer = send(key_set("a"))
    made = rig(stale_s=3600.0).started()
    issuer.answer = send(b"", "500 Internal Server Error")
    made.advance(3599)
    assert made.next_event() == "fetch-failed"
    assert made.kids() == {"a"}
    made.advance(1)
    assert {made.next_event(), made.next_event()} == {"keys-expired", "fetch-failed"}
    assert (made.keys.snapshot, made.keys.ready, made.keys.generation) == (None, False, -1)
    assert made.keys.refresh_sync("a", PATIENCE_S) is False
    issuer.answer = send(key_set("b"))
    made.advance(60)
    assert made.next_event() == "keys-fetched"
    assert made.keys.generation == 1  # numbering goes on where it was


# -- event loops ------------------------------------------------------------------------------------------------------


def test_async_waiters_share_a_fetch_and_the_loop_runs_on(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """100 coroutines wait while the loop does other work; one fetch serves them all."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()

    async def scene() -> list[bool]:
        waiters = [asyncio.create_task(made.keys.refresh("a", PATIENCE_S)) for _ in range(100)]
        turns = 0
        while not issuer.requests or turns < 1000:
            await asyncio.sleep(0)
            turns += 1
        assert not any(waiter.done() for waiter in waiters)
        gate.open()
        return await asyncio.gather(*waiters)

    assert asyncio.run(scene()) == [True] * 100
    assert len(issuer.requests) == 1


def test_a_cancelled_waiter_does_not_harm_the_others(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """Clients that go away take neither the fetch nor the other waiters with them, and leave nothing behind."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()

    async def scene() -> list[Any]:
        waiters = [asyncio.create_task(made.keys.refresh("a", PATIENCE_S)) for _ in range(10)]
        await asyncio.to_thread(issuer.arrived.acquire, timeout=PATIENCE_S)
        flight = made.keys._crew().flight
        assert flight is not None
        for waiter in waiters[:5]:
            waiter.cancel()
        await asyncio.gather(*waiters[:5], return_exceptions=True)
        assert len(flight._futures) == 5
        gate.open()
        return await asyncio.gather(*waiters, return_exceptions=True)

    answers = asyncio.run(scene())
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers[:5]] == [True] * 5
    assert answers[5:] == [True] * 5


def test_an_async_waiter_gives_up_in_time(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A slow issuer costs a request no more than its time-out; without keys the answer is False."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()
    assert asyncio.run(made.keys.refresh("a", 0.02)) is False
    gate.open()
    assert made.next_event() == "keys-fetched"
    assert asyncio.run(made.keys.refresh("a", 0.02)) is True


def test_a_loop_that_ended_does_not_disturb_the_thread(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A waiter whose loop was closed under it is skipped, the next one is served."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig()
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(made.keys.refresh("a", PATIENCE_S))
    loop.run_until_complete(asyncio.sleep(0))
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    loop.close()
    gate.open()
    assert made.next_event() == "keys-fetched"
    made.advance(300)
    assert made.next_event() == "keys-fetched"
    waiter.get_coro().close()
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]


# -- fork -------------------------------------------------------------------------------------------------------------


def in_child(act: Callable[[], bool]) -> int:
    """The exit code of a forked child: 0 if `act` is true there."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE_S))
        code = 1
        try:
            code = 0 if act() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own_thread_and_locks(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A child starts with the inherited keys and fetches for itself, though the parent held its lock at the fork."""
    issuer.answer = send(key_set("a"))
    made = rig().started()
    made.now += 1
    issuer.answer = send(key_set("a", "b"))

    def child() -> bool:
        inherited = made.kids() == {"a"} and refresher_threads() == 0
        return inherited and made.keys.refresh_sync("b", PATIENCE_S) and made.kids() == {"a", "b"}

    crew = made.keys._crew()
    with crew.wake:
        assert in_child(child) == 0
    assert made.kids() == {"a"}
    assert len(issuer.requests) == 2


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_during_a_fetch(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """The child does not wait for a thread that only its parent has."""
    gate = issuer.answer = Gate(send(key_set("a")))
    made = rig(timeout_s=PATIENCE_S)
    made.keys.start()
    assert issuer.arrived.acquire(timeout=PATIENCE_S)
    issuer.answer = send(key_set("b"))
    assert in_child(lambda: made.keys.refresh_sync("b", PATIENCE_S) and made.kids() == {"b"}) == 0
    gate.open()
    assert made.next_event() == "keys-fetched"
    assert made.kids() == {"a"}


# -- with the loader it is made for -----------------------------------------------------------------------------------


def test_real_keys_rotate_and_odd_ones_are_skipped(rig: Callable[..., Rig], issuer: Issuer) -> None:
    """A set of elliptic keys with a symmetric and a broken one among them; a withdrawn key raises the generation."""
    jwks = [
        {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True), "kid": kid}
        for kid in ("one", "two")
    ]
    odd = [{"kty": "oct", "kid": "s", "k": "c2VjcmV0"}, {"kty": "EC", "kid": "broken"}]

    def parse(body: bytes) -> Any:
        return parse_key_set(body, ("ES256",), 0.0)

    issuer.answer = send(json.dumps({"keys": [*odd, jwks[0]]}).encode())
    made = rig(load=parse).started()
    assert list(made.snapshot.keys) == [("one", "ES256")]
    issuer.answer = send(json.dumps({"keys": jwks}).encode())
    made.now += 1
    assert made.keys.refresh_sync("two", PATIENCE_S)
    assert made.snapshot.select("two", "ES256") is not None
    assert made.keys.generation == 0
    issuer.answer = send(json.dumps({"keys": jwks[1:]}).encode())
    made.advance(300)
    made.next_event()
    made.next_event()
    assert made.snapshot.select("one", "ES256") is None
    assert made.keys.generation == 1
