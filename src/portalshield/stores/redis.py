"""Limits counted in Redis, exact across processes: one script, one round trip per question, for both colours.

The script does what `rules/windows.py` does, on the server's clock. What is kept under one key is one short string, so
that reading all counters is one MGET. Keys are `portalshield:<version>:<strategy>:<amount>:<window>:<key>`: a changed
algorithm or quota never meets what another one wrote. Needs Redis 5 (TIME before a write).

How the server is asked, and what happens when it does not answer, is `redis_wire.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

from portalshield.model.needs import Count, Counts, GiveBack, Hit, Quota, Unavailable
from portalshield.rules.windows import GRAINS
from portalshield.stores.outage import Breaker
from portalshield.stores.redis_wire import TIMEOUT_S, RedisWire, Script

VERSION = 1
"""Of what the script writes; part of every key."""
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
  local function charge(cost)
    local left = math.max(0, used + cost)
    return string.format('%.0f %.0f', finish, left), finish - now, left
  end
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
    if used + cost < 0 then before = math.max(0, before + used + cost) end
    local left = math.max(0, used + cost)
    return string.format('%.0f %.0f %.0f', finish, before, left), finish + window - now, before + left
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
    while cost < 0 and last do
      local taken = math.min(last[2], -cost)
      last[2], cost = last[2] - taken, cost + taken
      if last[2] == 0 then runs[#runs] = nil end
      last = runs[#runs]
    end
    if last and last[1] == tick then last[2] = last[2] + cost
    elseif cost > 0 then runs[#runs + 1] = {tick, cost} end
    local written = {}
    for i, run in ipairs(runs) do written[i] = string.format('%.0f %.0f', run[1], run[2]) end
    return table.concat(written, ' '), tick + window - now, #runs
  end
  return amount - used, wait, charge, stepped_back
end

local windows = {['fixed-window'] = fixed, ['sliding-window-counter'] = sliding, ['moving-window'] = moving}
local held, judged, fits, lines = redis.call('MGET', unpack(KEYS)), {}, true, {}
for i = 1, #KEYS do
  local at, cost = i * 4 - 3, tonumber(ARGV[i * 4])
  if cost < 0 and held[i] then
    local _, _, charge = windows[ARGV[at]](held[i], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
    local state, ttl, left = charge(cost)
    if left > 0 then
      redis.call('SET', KEYS[i], state, 'PX', string.format('%.0f', ttl))
      held[i] = state
    else
      redis.call('DEL', KEYS[i])
      held[i] = false
    end
  end
end
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
_SCRIPT = Script(SCRIPT)

_Counters = tuple[tuple[str, Quota, int], ...]


class RedisStore:
    """A store on a Redis server; `ValueError` and addresses as `RedisWire`'s."""

    is_local = False

    def __init__(self, uri: str, *, timeout_s: float = TIMEOUT_S, breaker: Callable[[], Breaker] = Breaker) -> None:
        self.wire = RedisWire(uri, timeout_s=timeout_s, breaker=breaker)

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Count, all or nothing; see `Hit`. Blocks for at most the time-out; never raises for the server's sake."""
        return self._ask(hit.counters, 1)

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """The same without blocking the event loop."""
        return await self._aask(hit.counters, 1)

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted; see `GiveBack`. Otherwise as `hit`."""
        return self._ask(need.counters, -1)

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """The same without blocking the event loop."""
        return await self._aask(need.counters, -1)

    def close(self) -> None:
        """Close the idle connections of blocking callers."""
        self.wire.close()

    async def aclose(self) -> None:
        """Close the idle connections of this event loop, and those of blocking callers."""
        await self.wire.aclose()

    def _ask(self, counters: _Counters, sign: int) -> Counts | Unavailable:
        if not counters:
            return ()
        return self.wire.ask(_SCRIPT, _command(counters, sign), partial(_parse, counters))

    async def _aask(self, counters: _Counters, sign: int) -> Counts | Unavailable:
        if not counters:
            return ()
        return await self.wire.aask(_SCRIPT, _command(counters, sign), partial(_parse, counters))


@lru_cache(1024)
def _terms(quota: Quota) -> tuple[str, int, int]:
    """The namespace of a quota, its amount and its window."""
    namespace = f"portalshield:{VERSION}:{quota.strategy}:{quota.amount}:{quota.window_s}:"
    return namespace, quota.amount, quota.window_s * 1000


def _command(counters: _Counters, sign: int) -> tuple[Any, ...]:
    """The command behind the script's name; a negative cost gives back."""
    keys: list[bytes] = []
    arguments: list[str | int] = []
    for key, quota, cost in counters:
        namespace, amount, window_ms = _terms(quota)
        keys.append(_bounded(namespace + key, len(namespace)))
        arguments += (quota.strategy, amount, window_ms, max(cost, 0) * sign)
    return (len(keys), *keys, *arguments)


def _bounded(key: str, namespace: int) -> bytes:
    # Keys come from clients: a lone surrogate must not look like a server that is down, nor a long one fill it.
    if len(key) - namespace <= LONGEST_KEY:
        return key.encode("utf-8", "surrogatepass")
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()
    return (key[:namespace] + digest).encode()


def _parse(counters: _Counters, reply: bytes) -> Counts:
    """`allowed remaining reset_ms;...`; `ValueError` for anything else, also for figures that cannot be."""
    counts = tuple([_count(part) for part in reply.split(b";")])
    for count, (_, quota, _) in zip(counts, counters, strict=True):
        if not (0 <= count.remaining <= quota.amount and 0 <= count.reset_s <= quota.window_s):
            raise ValueError("no count")
    return counts


def _count(part: bytes) -> Count:
    allowed, remaining, reset_ms = part.split(b" ")
    return Count(allowed == b"1", int(remaining), int(reset_ms) * 0.001)
