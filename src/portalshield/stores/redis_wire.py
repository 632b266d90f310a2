"""One question to a Redis server: a script, one round trip, a deadline, a breaker; for both colours.

A question has 100 ms in all, connecting included. Whatever goes wrong, the answer is `Unavailable` at once, and the
breaker leaves the server alone for a while. Connections are redis-py's, taken one by one without its client and pool:
those retry, check and time each operation on their own, and what is needed here is one deadline.

Not covered: a blocking name lookup cannot be cut short (the async colour only stops waiting for it); each step of a TLS
handshake has the rest of the time for itself. Redis Cluster and Sentinel are `generic.py`'s.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from hashlib import sha1
from math import inf
from types import TracebackType
from typing import Any, TypeVar

from portalshield.model.needs import Unavailable
from portalshield.stores.outage import REFUSED, Breaker

TIMEOUT_S = 0.1
CONNECTIONS = 32
"""Of one process and event loop, at most; a blocking caller opens one per thread and keeps this many."""
T = TypeVar("T")

_DOWN = Unavailable("store-down")
_TIMEOUT = Unavailable("store-timeout")
_UNREACHABLE = Unavailable("store-unreachable")
_REFUSES = Unavailable("store-refuses")
_GARBLED = Unavailable("store-garbled")

_Command = tuple["Script", tuple[Any, ...]]


class Script:
    """A Lua script and the name that a server knows it by. Its first run may be repeated: it must stand that."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisWire:
    """A Redis server: `redis://`, `rediss://` or `unix://`, with redis-py's query options.

    Nothing is opened before the first question, and nothing is shared with a forked child or another event loop.
    `ValueError`, without the address, where redis-py is missing or cannot use the address.
    """

    def __init__(self, uri: str, *, timeout_s: float = TIMEOUT_S, breaker: Callable[[], Breaker] = Breaker) -> None:
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._open = _connector("redis.connection", uri, clocked=True)
        self._aopen = _connector("redis.asyncio.connection", uri, clocked=False)
        self._process = _Process(breaker())

    def ask(self, script: Script, arguments: tuple[Any, ...], parse: Callable[[bytes], T]) -> T | Unavailable:
        """What `parse` makes of the reply; it raises for one that cannot be. `arguments` begin with the number of keys.

        Blocks for at most the time-out; never raises for the server's sake.
        """
        process = self._here()
        ticket = process.breaker.admit()
        if ticket == REFUSED:
            return _DOWN
        command = (script, arguments)
        try:
            with process.breaker.trying(ticket):
                return parse(self._exchange(process, command, time.monotonic() + self._timeout_s))
        except Exception as error:  # the boundary to a foreign program: whatever comes out of it means "down"
            process.drop_idle()
            return _reason(error)

    async def aask(self, script: Script, arguments: tuple[Any, ...], parse: Callable[[bytes], T]) -> T | Unavailable:
        """The same without blocking the event loop."""
        process = self._here()
        if process.breaker.is_resting:
            return _DOWN
        pool = process.pool()
        command = (script, arguments)
        async with pool.turn:
            ticket = process.breaker.admit()  # only now: while this one waited the server may have gone
            if ticket == REFUSED:
                return _DOWN
            try:
                with process.breaker.trying(ticket):
                    async with _Deadline(self._timeout_s):
                        return parse(await self._aexchange(pool, command))
            except Exception as error:
                await pool.drop_idle()
                return _reason(error)

    def close(self) -> None:
        """Close the idle connections of blocking callers."""
        self._here().drop_idle()

    async def aclose(self) -> None:
        """Close the idle connections of this event loop, and those of blocking callers."""
        process = self._here()
        process.drop_idle()
        await process.pool().drop_idle(wait=True)

    def _here(self) -> _Process:
        process = self._process
        if process.pid != os.getpid():
            # The parent's connections stay referenced: were they collected here, closing them could speak on its wire.
            self._process = process = _Process(self._breaker(), inherited=process)
        return process

    def _exchange(self, process: _Process, command: _Command, deadline: float) -> bytes:
        try:
            connection = process.idle.pop()
        except IndexError:
            return _exchange_on(process, self._open(), command, deadline)
        try:
            return _exchange_on(process, connection, command, deadline)
        except Exception as error:
            if _is_timeout(error):
                raise
            # It was closed while it lay idle (restart, CLIENT KILL, failover), and so were the others: begin afresh.
            process.drop_idle()
            return _exchange_on(process, self._open(), command, deadline)

    async def _aexchange(self, pool: _Pool, command: _Command) -> bytes:
        if not pool.idle:
            return await _aexchange_on(pool, self._aopen(), command)
        try:
            return await _aexchange_on(pool, pool.idle.pop(), command)
        except Exception as error:
            if _is_timeout(error):
                raise
            await pool.drop_idle()
            return await _aexchange_on(pool, self._aopen(), command)


# -- one question on one connection -----------------------------------------------------------------------------------


def _exchange_on(process: _Process, connection: Any, command: _Command, deadline: float) -> bytes:
    script, arguments = command
    connection.limit[0] = deadline
    try:
        connection.send_command("EVALSHA", script.sha, *arguments, check_health=False)
        try:
            reply: bytes = connection.read_response(disable_decoding=True)
        except _errors().NoScriptError:  # flushed or restarted; EVAL also keeps it
            connection.send_command("EVAL", script.text, *arguments, check_health=False)
            reply = connection.read_response(disable_decoding=True)
    except BaseException:
        connection.disconnect()  # a reply may still be on its way: nobody else may read it
        raise
    process.keep(connection)
    return reply


async def _aexchange_on(pool: _Pool, connection: Any, command: _Command) -> bytes:
    script, arguments = command
    try:
        await connection.send_command("EVALSHA", script.sha, *arguments, check_health=False)
        try:
            reply: bytes = await connection.read_response(disable_decoding=True)
        except _errors().NoScriptError:
            await connection.send_command("EVAL", script.text, *arguments, check_health=False)
            reply = await connection.read_response(disable_decoding=True)
    except BaseException:
        with suppress(Exception):
            await connection.disconnect(nowait=True)
        raise
    pool.idle.append(connection)
    return reply


# -- what can go wrong ------------------------------------------------------------------------------------------------


@cache
def _errors() -> Any:
    return importlib.import_module("redis.exceptions")


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError | _errors().TimeoutError)


def _reason(error: Exception) -> Unavailable:
    errors = _errors()
    if _is_timeout(error):
        return _TIMEOUT
    refusals = (errors.ResponseError, errors.AuthenticationError, errors.AuthorizationError, errors.BusyLoadingError)
    if isinstance(error, refusals):  # read-only, out of memory, password changed, loading, no permission, ...
        return _REFUSES
    return _UNREACHABLE if isinstance(error, OSError | errors.ConnectionError) else _GARBLED


# -- connections ------------------------------------------------------------------------------------------------------


class _Process:
    """What one process holds; a forked child begins with its own."""

    def __init__(self, breaker: Breaker, inherited: _Process | None = None) -> None:
        self.pid = os.getpid()
        self.breaker = breaker
        self.idle: list[Any] = []
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._inherited = inherited

    def pool(self) -> _Pool:
        """The connections of the running event loop; those of loops that ended are forgotten."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._pools = {each: held for each, held in list(self._pools.items()) if not each.is_closed()}
            pool = self._pools[loop] = _Pool()
        return pool

    def keep(self, connection: Any) -> None:
        """For the next question, unless there are enough."""
        if len(self.idle) < CONNECTIONS:
            self.idle.append(connection)
        else:
            connection.disconnect()

    def drop_idle(self) -> None:
        """Close what lies idle."""
        while self.idle:
            with suppress(Exception):  # another thread may have taken the last one, and closing may fail
                self.idle.pop().disconnect()


class _Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(CONNECTIONS)
        self.idle: list[Any] = []

    async def drop_idle(self, *, wait: bool = False) -> None:
        """Close what lies idle; `wait`: until it is closed."""
        while self.idle:
            with suppress(Exception):
                async with asyncio.timeout(1):
                    await self.idle.pop().disconnect(nowait=not wait)


class _Deadline:
    """A time-out for what follows that does not blame the server for a busy event loop.

    `asyncio.timeout` fires as soon as its time has come, even if the reply came in while the loop was blocked. Here
    the time-out is only set off then: a reply that is there already is read first.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self._seconds, self._expire)

    def _expire(self) -> None:
        self._timeout.reschedule(self._loop.time())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)


class _Clocked:
    """Mixed into redis-py's blocking connections: every time-out is what is left until `limit[0]`."""

    def __init__(self, **options: Any) -> None:
        self.limit = [inf]
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float | None:
        left_s = self.limit[0] - time.monotonic()
        return None if left_s == inf else max(left_s, 0.001)

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        """The deadline decides."""

    socket_connect_timeout = socket_timeout

    def _connect(self) -> Any:
        return _ClockedSocket(super()._connect(), self.limit)  # type: ignore[misc]


class _ClockedSocket:
    """A socket each of whose operations has only what is left; a server that drips bytes gains nothing.

    Past the deadline one more read takes what has already come: a thread that was not scheduled for a while must not
    blame the server for it.
    """

    def __init__(self, raw: Any, limit: list[float]) -> None:
        self._raw = raw
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def settimeout(self, value: float | None) -> None:
        """The deadline decides."""

    def recv(self, *arguments: Any) -> Any:
        return self._read(self._raw.recv, arguments)

    def recv_into(self, *arguments: Any) -> Any:
        return self._read(self._raw.recv_into, arguments)

    def sendall(self, *arguments: Any) -> Any:
        left_s = self._limit[0] - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._raw.settimeout(left_s)
        return self._raw.sendall(*arguments)

    def _read(self, read: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        left_s = self._limit[0] - time.monotonic()
        if left_s > 0:
            self._raw.settimeout(left_s)
            with suppress(TimeoutError):
                return read(*arguments)
        if self._limit[0] == -inf:
            raise TimeoutError
        self._limit[0] = -inf
        self._raw.settimeout(0)
        try:
            return read(*arguments)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise TimeoutError from None


_OURS = frozenset(
    {
        "max_connections",
        "timeout",
        "socket_timeout",
        "socket_connect_timeout",
        "retry_on_timeout",
        "retry_on_error",
        "health_check_interval",
        "decode_responses",
        "protocol",
    }
)
"""Options of an address that are decided here."""


def _connector(module_name: str, uri: str, *, clocked: bool) -> Callable[[], Any]:
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise ValueError('needs redis-py: pip install "portalshield[redis]"') from None
    try:
        parsed: dict[str, Any] = module.parse_url(uri)
        options = {name: value for name, value in parsed.items() if name not in _OURS}
        kind = options.pop("connection_class", module.Connection)
        if clocked:
            kind = type("ClockedConnection", (_Clocked, kind), {})
        known = inspect.signature(module.AbstractConnection.__init__).parameters
        # No CLIENT SETINFO: one round trip less at the start. Newer versions of redis-py warn of the older names.
        options |= {"driver_info": None} if "driver_info" in known else {"lib_name": None, "lib_version": None}
        make = partial(kind, **options, protocol=2, socket_timeout=None, socket_connect_timeout=None)
        make()  # opens nothing, but knows every option
    except Exception:  # redis-py's own texts would repeat the address
        raise ValueError("is no address that redis-py can use") from None
    return make
