"""Limits counted in any other storage that `limits` knows: Memcached, MongoDB, Redis Cluster, Redis Sentinel.

Weaker than `redis.py`, as far as those storages are: one round trip and more per counter, and all counters of a `Hit`
are looked at before the first is charged, so two requests at the same instant may charge a counter of a request that
another counter then refuses. What one storage cannot do (Memcached: moving windows) is answered `Unavailable`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio import strategies as astrategies
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
from limits.util import WindowStats

from portalshield.model.needs import Count, Counts, GiveBack, Hit, Quota, Unavailable
from portalshield.stores.outage import REFUSED, Breaker

TIMEOUT_S = 0.25
"""Of each round trip of a blocking caller, as far as the storage's client can be told; of a whole `ahit`."""

_REDIS: Mapping[str, str | float] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
_MONGO: Mapping[str, str | float] = {
    "serverSelectionTimeoutMS": 250,
    "socketTimeoutMS": 250,
    "connectTimeoutMS": 250,
}
_OPTIONS: Mapping[str, Mapping[str, str | float]] = {
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "memcached": {"timeout": TIMEOUT_S, "connect_timeout": TIMEOUT_S},
    "mongodb": _MONGO,
}
_ASYNC_OPTIONS: Mapping[str, Mapping[str, str | float]] = {
    "redis": {**_REDIS, "implementation": "redispy"},  # the client that the blocking colour has, not a second one
    "rediss": {**_REDIS, "implementation": "redispy"},
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "mongodb": _MONGO,
}
_DOWN = Unavailable("store-down")
_FAILS = Unavailable("store-fails")
_TIMEOUT = Unavailable("store-timeout")
_UNABLE = Unavailable("store-unable")
Open = Callable[[], Any]


class GenericStore:
    """A store over one of `limits`' storages. `ValueError`, without the address, for one that it cannot load.

    The storage is opened at the first question, once per process and, for `ahit`, per event loop.
    """

    is_local = False

    def __init__(self, uri: str, *, breaker: Callable[[], Breaker] = Breaker) -> None:
        family = uri.partition("://")[0].partition("+")[0]
        options, aoptions = _OPTIONS.get(family, {}), _ASYNC_OPTIONS.get(family, {})
        self._open = lambda: storage_from_string(uri, **options)
        self._aopen = lambda: storage_from_string("async+" + uri, **aoptions)
        _load(self._open)
        self._breaker = breaker
        self._process = _Process(breaker())

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Count; see the module's text for what is weaker. Never raises for the storage's sake."""
        process = self._here()
        ticket = process.breaker.admit()
        if ticket == REFUSED:
            return _DOWN
        try:
            with process.breaker.trying(ticket):
                return self._count(process, hit)
        except Exception as error:  # the boundary to foreign programs: whatever comes out of it means "down"
            return _reason(error)

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """The same without blocking the event loop, as far as the storage's own client keeps to that."""
        process = self._here()
        ticket = process.breaker.admit()
        if ticket == REFUSED:
            return _DOWN
        try:
            with process.breaker.trying(ticket):
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._acount(process, hit)
        except Exception as error:
            return _reason(error)

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """`limits` cannot: what is counted stays. A route with a login brake refuses such a storage at the start."""
        return _UNABLE

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """The same."""
        return _UNABLE

    def close(self) -> None:
        """`limits` has no way to close a storage: it is forgotten."""
        self._process = _Process(self._process.breaker)

    async def aclose(self) -> None:
        """The same."""
        self.close()

    def _here(self) -> _Process:
        if self._process.pid != os.getpid():
            self._process = _Process(self._breaker(), inherited=self._process)
        return self._process

    def _count(self, process: _Process, hit: Hit) -> Counts:
        rows = [
            (process.limiter(quota.strategy, self._open), _item(quota), key, cost) for key, quota, cost in hit.counters
        ]
        fits = [limiter.test(item, key, cost=max(cost, 1)) for limiter, item, key, cost in rows]
        if all(fits):
            fits = [cost <= 0 or limiter.hit(item, key, cost=cost) for limiter, item, key, cost in rows]
        stats = [limiter.get_window_stats(item, key) for limiter, item, key, _ in rows]
        return tuple([_told(fit, found, item) for fit, found, (_, item, _, _) in zip(fits, stats, rows, strict=True)])

    async def _acount(self, process: _Process, hit: Hit) -> Counts:
        rows = [
            (process.alimiter(quota.strategy, self._aopen), _item(quota), key, cost)
            for key, quota, cost in hit.counters
        ]
        fits = [await limiter.test(item, key, cost=max(cost, 1)) for limiter, item, key, cost in rows]
        if all(fits):
            fits = [cost <= 0 or await limiter.hit(item, key, cost=cost) for limiter, item, key, cost in rows]
        stats = [await limiter.get_window_stats(item, key) for limiter, item, key, _ in rows]
        return tuple([_told(fit, found, item) for fit, found, (_, item, _, _) in zip(fits, stats, rows, strict=True)])


class _Process:
    """The storages of one process, and a limiter per strategy on each."""

    def __init__(self, breaker: Breaker, inherited: _Process | None = None) -> None:
        self.pid = os.getpid()
        self.breaker = breaker
        self._limiters: dict[str, Any] = {}
        self._storage: Any = None
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Any, dict[str, Any]]] = {}
        self._inherited = inherited  # kept: collecting the parent's sockets here could speak on its wire

    def limiter(self, strategy: str, open_storage: Open) -> Any:
        """The blocking one."""
        found = self._limiters.get(strategy)
        if found is None:
            self._storage = self._storage or open_storage()
            limiter: Any = STRATEGIES[strategy]
            found = self._limiters[strategy] = limiter(self._storage)
        return found

    def alimiter(self, strategy: str, open_storage: Open) -> Any:
        """The one of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops = {each: held for each, held in list(self._loops.items()) if not each.is_closed()}
            self._loops[loop] = (open_storage(), {})
        storage, limiters = self._loops[loop]
        if strategy not in limiters:
            limiter: Any = astrategies.STRATEGIES[strategy]
            limiters[strategy] = limiter(storage)
        return limiters[strategy]


def _load(open_storage: Open) -> None:
    try:
        open_storage()
    except ConfigurationError:  # whose text would repeat the address
        raise ValueError("names a storage that limits does not know, or whose client is not installed") from None
    except Exception:
        # Some clients (Redis Cluster) connect here already. A server that is away must not keep the application from
        # starting: the first question will find out.
        return


@lru_cache(1024)
def _item(quota: Quota) -> RateLimitItem:
    # The namespace holds what `limits` leaves out of its keys: a quota that changes its strategy starts anew.
    return RateLimitItemPerSecond(quota.amount, quota.window_s, namespace=f"portalshield/1/{quota.strategy}")


def _told(fits: bool, stats: WindowStats, item: RateLimitItem) -> Count:
    window_s = float(item.get_expiry())
    reset_s = min(max(0.0, stats.reset_time - time.time()), window_s)
    return Count(fits, max(0, stats.remaining), reset_s)


def _reason(error: Exception) -> Unavailable:
    return _TIMEOUT if isinstance(error, TimeoutError) else _FAILS
