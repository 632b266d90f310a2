"""One guarded GET for documents that an issuer publishes (a key set, a discovery document), and its pace.

The facts this obeys: a socket time-out counts per operation, so a server that drips one byte a second holds a reader
for hours; here every operation gets only what is left of one total deadline. No redirects (an open redirect at the
issuer would choose our keys), status 200 only, no proxy from the environment, no content coding (a small answer must
not become a large one), the size checked while reading. Plain http only where it was allowed, and only to loopback.

Not covered: name resolution ends when the system's resolver gives up; that time counts, but it cannot be cut short.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from portalshield.stores.memo import TimedMemo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NotAsked = Literal["bad-url", "insecure-url", "unresolved", "unreachable", "tls"]
_NotAnswered = Literal["timeout", "redirect", "status", "encoded", "too-large", "truncated", "protocol"]
Reason = _NotAsked | _NotAnswered

ASK_INTERVAL_S = 10.0
"""Unknown kids cause at most one fetch per this many seconds (a fifth more at most, by jitter)..."""
ASK_BURST = 2
"""...but for this many in a row, so that a rotation just after a fetch is picked up at once."""
DENIED_KIDS = 256
DENIED_S = 30.0
MAX_KID_CHARS = 256
MOMENT_S = 0.5
"""A set that came less than this ago is not asked again: a caller may have looked just before it came."""
MAX_BACKOFF_S = 60.0

_MAX_ADDRESSES = 8
_VISIBLE = re.compile(r"[!-~]+")  # no blanks, controls or non-ASCII text: nothing can end the request line early


class FetchError(Exception):
    """The document could not be had; `reason` is a fixed slug, never a part of the answer or of the address."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


class Target(NamedTuple):
    """Where a document lies, taken apart and checked. `resource` is what stands in the request line."""

    secure: bool
    host: str
    port: int
    authority: str
    resource: str


def parse_target(url: str, allow_http: bool = False) -> Target:
    """Check an address without asking it.

    `FetchError` with `bad-url` (no absolute http(s) address, user info, a fragment, non-ASCII text) or `insecure-url`
    (plain http that is not allowed or leaves this machine).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FetchError("bad-url") from None
    host = parts.hostname
    plain = _VISIBLE.fullmatch(url) and "@" not in parts.netloc and "#" not in url
    if not host or not plain or port == 0 or parts.scheme not in ("https", "http"):
        raise FetchError("bad-url")
    secure = parts.scheme == "https"
    if not secure and not (allow_http and _is_loopback(host)):
        raise FetchError("insecure-url")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), parts.netloc, resource)


def fetch(
    url: str, deadline_s: float, max_bytes: int, allow_http: bool = False, *, user_agent: str = "portalshield"
) -> bytes:
    """The body of a 200 answer, at most `max_bytes`, within `deadline_s` seconds in all.

    Raises `FetchError` only. Blocks: never call it on an event loop.
    """
    target = parse_target(url, allow_http)
    deadline = time.monotonic() + deadline_s
    try:
        with _connect(target, deadline) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(_request(target, user_agent))
            return _read_answer(_Wire(connection, deadline), max_bytes)
    except TimeoutError:
        raise FetchError("timeout") from None
    except ssl.SSLError:
        raise FetchError("tls") from None
    except http.client.IncompleteRead:
        raise FetchError("truncated") from None
    except OSError:
        raise FetchError("unreachable") from None
    except (http.client.HTTPException, ValueError):
        raise FetchError("protocol") from None


# -- the connection ---------------------------------------------------------------------------------------------------


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _connect(target: Target, deadline: float) -> socket.socket:
    connection = _dial(target, deadline)
    if not target.secure:
        return connection
    try:
        # Made anew each time (about 20 ms off the request path), so that a replaced CA bundle is noticed.
        context = ssl.create_default_context()
        connection.settimeout(_left(deadline))
        connection = context.wrap_socket(connection, server_hostname=target.host)
    except BaseException:
        connection.close()
        raise
    return connection


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]


def _dial(target: Target, deadline: float) -> socket.socket:
    """The first address that answers. Each gets its share of the time left: one dead address must not cost it all."""
    addresses = _resolve(target)
    failure = OSError()
    for position, address in enumerate(addresses):
        try:
            return _knock(address, _left(deadline) / (len(addresses) - position))
        except OSError as refused:
            failure = refused
    raise failure


def _knock(entry: _Address, timeout_s: float) -> socket.socket:
    family, kind, protocol, _, address = entry
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(timeout_s)
    try:
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _resolve(target: Target) -> list[_Address]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchError("unresolved") from None
    addresses = cast(list[_Address], found[:_MAX_ADDRESSES])
    if not target.secure:  # `localhost` is only a name: a hosts file may send it elsewhere
        addresses = [entry for entry in addresses if _is_loopback(entry[4][0])]
        if not addresses:
            raise FetchError("insecure-url")
    return addresses


# -- request and answer -----------------------------------------------------------------------------------------------


def _request(target: Target, user_agent: str) -> bytes:
    lines = (
        f"GET {target.resource} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: {user_agent}",
        "Accept: application/jwk-set+json, application/json",
        "Accept-Encoding: identity",
        "Connection: close",
        "\r\n",
    )
    return "\r\n".join(lines).encode("ascii")


class _Wire(io.RawIOBase):
    """What `http.client` reads from: every read gets only what is left of the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def _read_answer(wire: _Wire, max_bytes: int) -> bytes:
    with http.client.HTTPResponse(cast(socket.socket, wire), method="GET") as answer:
        answer.begin()
        if 300 <= answer.status < 400:
            raise FetchError("redirect")
        if answer.status != 200:
            raise FetchError("status")
        if answer.getheader("content-encoding", "identity").strip().lower() != "identity":
            raise FetchError("encoded")
        declared = answer.length
        if declared is not None and declared > max_bytes:
            raise FetchError("too-large")
        body = answer.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise FetchError("too-large")
        if declared is not None and len(body) < declared:  # a read with a size does not complain by itself
            raise FetchError("truncated")
        return body


class Pace:
    """When the set must be fetched, and when an unknown kid may have it fetched. Reads no clock: `now` is monotonic."""

    def __init__(self, fresh_s: float, stale_s: float, jitter: Callable[[], float], fetched_at: float | None) -> None:
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._jitter = jitter
        self._fetched_at = fetched_at
        self._failures = 0
        self._asks = ASK_BURST
        self._next_ask_at = 0.0
        self._denied: TimedMemo[bool] = TimedMemo(DENIED_KIDS, DENIED_S)
        self.due_at = float("-inf")

    @property
    def expires_at(self) -> float:
        """When the keys at hand become too old to serve."""
        return float("inf") if self._fetched_at is None else self._fetched_at + self._stale_s

    def begin(self, now: float) -> None:
        """A fetch begins: it uses up one of the asks that unknown kids have, whoever wanted it."""
        self._regain(now)
        if self._asks == ASK_BURST:
            self._next_ask_at = now + self._interval()
        self._asks = max(0, self._asks - 1)

    def succeed(self, now: float, kids: set[str | None]) -> None:
        """A usable set came, asked for `kids` among others: it is due again shortly before it is `fresh_s` old."""
        self._fetched_at = now
        self._failures = 0
        self.due_at = now + self._fresh_s * (0.9 + 0.1 * self._jitter())
        for kid in kids:
            self._denied.put(kid, True, now)

    def fail(self, now: float) -> None:
        """No usable answer: everybody backs off, 1 s after the first failure, up to a minute after many."""
        step = min(MAX_BACKOFF_S, 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.due_at = now + max(1.0, step * (0.5 + 0.5 * self._jitter()))

    def admits(self, kid: str | None, now: float) -> bool:
        """An unknown kid may cause a fetch now."""
        if self._fetched_at is None or self._failures:
            return now >= self.due_at
        if self.denies(kid, now) or now - self._fetched_at < MOMENT_S:
            return False
        self._regain(now)
        return self._asks > 0

    def denies(self, kid: str | None, now: float) -> bool:
        """The set was asked for this kid and did not have it, or no set can have it."""
        return self._denied.get(kid, now) is not None or (kid is not None and len(kid) > MAX_KID_CHARS)

    def _regain(self, now: float) -> None:
        while self._asks < ASK_BURST and now >= self._next_ask_at:
            self._asks += 1
            self._next_ask_at += self._interval()

    def _interval(self) -> float:
        return ASK_INTERVAL_S * (1.0 + 0.2 * self._jitter())
