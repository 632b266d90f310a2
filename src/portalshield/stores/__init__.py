"""Where limits are counted: in memory, in Redis, or in another storage that `limits` knows.

Two questions: `Hit` counts, `GiveBack` takes back.
"""

from __future__ import annotations

from typing import Protocol

from portalshield.model.needs import Counts, GiveBack, Hit, Unavailable
from portalshield.stores.memory import MemoryStore
from portalshield.stores.outage import Notify, OnOutage, OutageStore
from portalshield.stores.records import MemoryRecords, RecordStore

__all__ = [
    "MemoryStore",
    "RecordStore",
    "Store",
    "gives_back",
    "is_shared",
    "open_records",
    "open_store",
    "redis_address",
]

_REDIS = ("redis", "rediss", "unix", "redis+unix")


class Store(Protocol):
    """Answers `Hit` and `GiveBack`. The counters of one `Hit` are distinct; one that stands there twice is
    charged once.

    Every counter reports its `Count`. When one of them is spent, none is charged. A cost of 0 peeks: `allowed` then
    says whether a request of cost 1 would fit. `reset_s` is at most the window: until the window ends or, when
    requests leave one by one, until the next one leaves; after a refusal until the request fits.
    """

    is_local: bool
    """`hit` is pure memory and may be called on an event loop."""

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Ask; may block unless `is_local`."""

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """Ask without blocking the event loop."""

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted; may block unless `is_local`. Not every storage can: see `gives_back`."""

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted without blocking the event loop."""

    def clear(self) -> None:
        """Forget what this process counted (a test run); what a shared server holds stays."""

    def close(self) -> None:
        """Give back what was opened for `hit`."""

    async def aclose(self) -> None:
        """Give back what was opened on this event loop, and what `close` does."""


def redis_address(uri: str) -> str | None:
    """The address as redis-py has it (`redis+unix` is its `unix`); None for storages it is not used for."""
    uri = uri.removeprefix("async+")  # the door decides the colour
    return uri.removeprefix("redis+") if uri.partition("://")[0] in _REDIS else None


def gives_back(uri: str) -> bool:
    """The storage of this address can answer `GiveBack`, which login brakes need: memory and Redis."""
    return redis_address(uri) is not None or uri.removeprefix("async+").partition("://")[0] == "memory"


def open_store(
    uri: str, *, max_keys: int = 100_000, on_outage: OnOutage = "local", notify: Notify = lambda change: None
) -> Store:
    """The store of an address: `memory://`, `redis://`, `rediss://`, `unix://`, or another one that `limits` knows.

    Opens no connection. `max_keys` bounds the entries in memory (for Redis: of what stands in for it). `on_outage`
    says what happens while the store does not answer, `notify` is told once when it goes away and once when it is
    back. Raises `ValueError` with a text that continues "the setting ..." and never repeats the address.
    """
    uri = uri.removeprefix("async+")  # the door decides the colour
    scheme, separator, _ = uri.partition("://")
    if not separator:
        raise ValueError("is no address such as memory:// or redis://host:6379/0")
    memory = MemoryStore(max_keys)
    if scheme == "memory":
        return memory
    address = redis_address(uri)
    if address is not None:
        from portalshield.stores.redis import RedisStore  # an extra

        return OutageStore(RedisStore(address), memory, on_outage, notify)
    from portalshield.stores.generic import GenericStore

    return OutageStore(GenericStore(uri), memory, on_outage, notify)


def open_records(uri: str, *, max_entries: int = 100_000) -> RecordStore:
    """On Redis where `uri` is one that `open_store` uses redis-py for, else in this process. Opens no connection.

    Raises `ValueError` as `open_store` does.
    """
    address = redis_address(uri)
    if address is not None:
        from portalshield.stores.redis_records import RedisRecords  # an extra

        return RedisRecords(address)
    return MemoryRecords(max_entries)


def is_shared(uri: str) -> bool:
    """Records at this address are those of all workers."""
    return redis_address(uri) is not None
