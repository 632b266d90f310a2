"""Limits counted in Redis, exact across processes: one script, one round trip per `Hit`, for both colours.

The script does what `rules/windows.py` does, on the server's clock. What is kept under one key is one short string, so
that reading all counters is one MGET. Keys are `portalshield:<version>:<strategy>:<amount>:<window>:<key>`: a changed
algorithm or quota never meets what another one wrote. Needs Redis 5 (TIME before a write).

A question has 100 ms in all, connecting included. Whatever goes wrong, the answer is `Unavailable` at once, and a
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
from functools import cache, lru_cache, partial
from hashlib import blake2b, sha1
from math import inf
from types import TracebackType
from typing import Any

from portalshield.model.needs import Count, Counts, Hit, Quota, Unavailable
from portalshield.rules.windows import GRAINS
from portalshield.stores.outage import REFUSED, Breaker

VERSION = 1
"""Of what the script writes; part of every key."""
TIMEOUT_S = 0.1
CONNECTIONS = 32
"""Of one process and event loop, at most; a blocking caller opens one per thread and keeps this many."""
LONGEST_KEY = 128

SCRIPT = """
local parts = redis.call('TIME')
local now = parts[1] * 1000 + math.floor(parts[2] / 1000)

local function fixed(held, amount, window)
  local finish, used = string.match(held, '^(%d+) (%d+)$')
  finish, used = tonumber(finish) or 0, tonumber(used) or 0
  if finish <= now then finish, used = now + window, 0 end
  local stepped_back = finish > now + window
  if stepped_back then finish = now + window end
  local function charge(cost) return string.format('%.0f %.0f', finish, used + cost), finish - now end
  return amount - used, function() return finish - now end, charge, stepped_back
end

local function sliding(held, amount, window)
  local finish, before, used = string.match(held, '^(%d+) (%d+) (%d+)$')
  finish, before, used = tonumber(finish) or 0, tonumber(before) or 0, tonumber(used) or 0
  if finish + window <= now then finish, before, used = now + window, 0, 0
  elseif finish <= now then finish, before, used = finish + window, used, 0 end
  local stepped_back = finish > now + window
  if stepped_back then finish = now + window end
  local free = math.max(0, amount - used - math.floor(before * (finish - now) / window))
  local function wait(need)
    if need <= free then return finish - now end
    if need > amount then return window end
    local rest, from, till = amount - used - need, before, finish
    if rest < 0 then rest, from, till = amount - need, used, finish + window end
    local fits = now
    if from > 0 then fits = till - math.floor(((rest + 1) * window - 1) / from) end
    return math.min(math.max(fits, till - window, now) - now, window)
  end
  local function charge(cost)
    return string.format('%.0f %.0f %.0f', finish, before, used + cost), finish + window - now
  end
  return free, wait, charge, stepped_back
end

local function moving(held, amount, window)
  local step = 1
  if amount > GRAINS then step = math.max(1, math.floor(window / GRAINS)) end
  local tick = math.ceil(now / step) * step
  local runs, used, stepped_back = {}, 0, false
  for at, count in string.gmatch(held, '(%d+) (%d+)') do
    at, count = tonumber(at), tonumber(count)
    if at > tick then
      runs, used, stepped_back = {{tick, used + count}}, used + count, true
    elseif at + window > now then
      runs[#runs + 1] = {at, count}
      used = used + count
    end
  end
  local function wait(need)
    local excess = need - (amount - used)
    for _, run in ipairs(runs) do
      excess = excess - run[2]
      if excess <= 0 then return math.min(run[1] + window - now, window) end
    end
    return window
  end
  local function charge(cost)
    local last = runs[#runs]
    if last and last[1] == tick then last[2] = last[2] + cost
    elseif cost > 0 then runs[#runs + 1] = {tick, cost} end
    local written = {}
    for i, run in ipairs(runs) do written[i] = string.format('%.0f %.0f', run[1], run[2]) end
    return table.concat(written, ' '), tick + window - now
  end
  return amount - used, wait, charge, stepped_back
end

local windows = {['fixed-window'] = fixed, ['sliding-window-counter'] = sliding, ['moving-window'] = moving}
local held, judged, fits, lines = redis.call('MGET', unpack(KEYS)), {}, true, {}
for i = 1, #KEYS do
  local at = i * 4 - 3
  local amount, window, cost = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local free, wait, charge, stepped_back = windows[ARGV[at]](held[i] or '', amount, window)
  local need = math.max(cost, 1)
  judged[i] = {allowed = need <= free, free = free, wait = wait, need = need, charge = charge, again = stepped_back}
  judged[i].cost = math.max(cost, 0)
  fits = fits and need <= free
end
for i, row in ipairs(judged) do
  local cost = fits and row.cost or 0
  local reset = row.wait((fits or not row.allowed) and row.need or 1)
  if cost > 0 or row.again then
    local state, ttl = row.charge(cost)
    redis.call('SET', KEYS[i], state, 'PX', string.format('%.0f', ttl))
  end
  lines[i] = string.format('%d %.0f %.0f', row.allowed and 1 or 0, row.free - cost, reset)
end
return table.concat(lines, ';')
""".replace("GRAINS", str(GRAINS))
_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

_DOWN = Unavailable("store-down")
_TIMEOUT = Unavailable("store-timeout")
_UNREACHABLE = Unavailable("store-unreachable")
_REFUSES = Unavailable("store-refuses")
_GARBLED = Unavailable("store-garbled")


class RedisStore:
    """A store on a Redis server: `redis://`, `rediss://` or `unix://`, with redis-py's query options.

    Nothing is opened before the first question, and nothing is shared with a forked child or another event loop.
    `ValueError`, without the address, where redis-py is missing or cannot use the address.
    """

    is_local = False

    def __init__(self, uri: str, *, timeout_s: float = TIMEOUT_S, breaker: Callable[[], Breaker] = Breaker) -> None:
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._open = _connector("redis.connection", uri, clocked=True)
        self._aopen = _connector("redis.asyncio.connection", uri, clocked=False)
        self._process = _Process(breaker())

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Count, all or nothing; see `Hit`. Blocks for at most the time-out; never raises for the server's sake."""
        if not hit.counters:
            return ()
        process = self._here()
        ticket = process.breaker.admit()
        if ticket == REFUSED:
            return _DOWN
        try:
            counts = _parse(self._exchange(process, _command(hit), time.monotonic() + self._timeout_s), hit)
        except Exception as error:  # the boundary to a foreign program: whatever comes out of it means "down"
            process.breaker.failed(ticket)
            process.drop_idle()
            return _reason(error)
        except BaseException:
            process.breaker.abandoned(ticket)
            raise
        process.breaker.succeeded(ticket)
        return counts

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """The same without blocking the event loop."""
        if not hit.counters:
            return ()
        process = self._here()
        if process.breaker.is_resting:
            return _DOWN
        pool = process.pool()
        async with pool.turn:
            ticket = process.breaker.admit()  # only now: while this one waited the server may have gone
            if ticket == REFUSED:
                return _DOWN
            try:
                async with _Deadline(self._timeout_s):
                    counts = _parse(await self._aexchange(pool, _command(hit)), hit)
            except Exception as error:
                process.breaker.failed(ticket)
                await pool.drop_idle()
                return _reason(error)
            except BaseException:
                process.breaker.abandoned(ticket)
                raise
            process.breaker.succeeded(ticket)
            return counts

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

    def _exchange(self, process: _Process, command: tuple[Any, ...], deadline: float) -> bytes:
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

    async def _aexchange(self, pool: _Pool, command: tuple[Any, ...]) -> bytes:
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


def _exchange_on(process: _Process, connection: Any, command: tuple[Any, ...], deadline: float) -> bytes:
    connection.limit[0] = deadline
    try:
        connection.send_command("EVALSHA", _SHA, *command, check_health=False)
        try:
            reply: bytes = connection.read_response(disable_decoding=True)
        except _errors().NoScriptError:  # flushed or restarted; EVAL also keeps it
            connection.send_command("EVAL", SCRIPT, *command, check_health=False)
            reply = connection.read_response(disable_decoding=True)
    except BaseException:
        connection.disconnect()  # a reply may still be on its way: nobody else may read it
        raise
    process.keep(connection)
    return reply


async def _aexchange_on(pool: _Pool, connection: Any, command: tuple[Any, ...]) -> bytes:
    try:
        await connection.send_command("EVALSHA", _SHA, *command, check_health=False)
        try:
            reply: bytes = await connection.read_response(disable_decoding=True)
        except _errors().NoScriptError:
            await connection.send_command("EVAL", SCRIPT, *command, check_health=False)
            reply = await connection.read_response(disable_decoding=True)
    except BaseException:
        with suppress(Exception):
            await connection.disconnect(nowait=True)
        raise
    pool.idle.append(connection)
    return reply


@lru_cache(1024)
def _terms(quota: Quota) -> tuple[str, int, int]:
    """The namespace of a quota, its amount and its window."""
    namespace = f"portalshield:{VERSION}:{quota.strategy}:{quota.amount}:{quota.window_s}:"
    return namespace, quota.amount, quota.window_s * 1000


def _command(hit: Hit) -> tuple[Any, ...]:
    keys: list[bytes] = []
    arguments: list[str | int] = []
    for key, quota, cost in hit.counters:
        namespace, amount, window_ms = _terms(quota)
        keys.append(_bounded(namespace + key, len(namespace)))
        arguments += (quota.strategy, amount, window_ms, cost)
    return (len(keys), *keys, *arguments)


def _bounded(key: str, namespace: int) -> bytes:
    # Keys come from clients: a lone surrogate must not look like a server that is down, nor a long one fill it.
    if len(key) - namespace <= LONGEST_KEY:
        return key.encode("utf-8", "surrogatepass")
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    return (key[:namespace] + digest).encode()


def _parse(reply: bytes, hit: Hit) -> Counts:
    """`allowed remaining reset_ms;...`; `ValueError` for anything else, also for figures that cannot be."""
    counts = tuple([_count(part) for part in reply.split(b";")])
    for count, (_, quota, _) in zip(counts, hit.counters, strict=True):
        if not (0 <= count.remaining <= quota.amount and 0 <= count.reset_s <= quota.window_s):
            raise ValueError("no count")
    return counts


def _count(part: bytes) -> Count:
    allowed, remaining, reset_ms = part.split(b" ")
    return Count(allowed == b"1", int(remaining), int(reset_ms) * 0.001)


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
