"""Where it is remembered what was processed: deliveries of webhooks and requests with an Idempotency-Key.

A record is claimed before the handler runs and settled when its outcome is known. Whoever cannot be told whether there
is one gets `Unavailable`, and the request is refused: processing twice is what this is there to prevent.

In memory, for one process: at most `max_entries` records. None is given up before its time, so where they are all taken
a claim is `Unavailable`. Answers take at most `max_bytes`; beyond that the oldest answers go first and their records
stay: a copy is then told that its answer was not kept, and still nothing is processed twice.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from portalshield.model.needs import Claim, Claimed, Settle, Settled, Taken, Unavailable

TICKET_BYTES = 16
MAX_FINGERPRINT = 64
MAX_BYTES = 67_108_864
_STRIPES = 16
_SMALLEST_STRIPE = 64
_AT_ONCE = 64  # records that ended and are swept by one claim: more than a claim can add, few enough to go unnoticed
_FULL = Unavailable("store-full")


class RecordStore(Protocol):
    """Answers `Claim` and `Settle`."""

    is_local: bool
    """It is pure memory and may be asked on an event loop."""

    def claim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """Ask; may block unless `is_local`. Of claims that come together one gets the record."""

    async def aclaim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """Ask without blocking the event loop."""

    def settle(self, settle: Settle) -> Settled | Unavailable:
        """Tell; may block unless `is_local`."""

    async def asettle(self, settle: Settle) -> Settled | Unavailable:
        """Tell without blocking the event loop."""

    def clear(self) -> None:
        """Forget what this process holds (a test run); what a shared server holds stays."""

    def close(self) -> None:
        """Give back what was opened for blocking callers."""

    async def aclose(self) -> None:
        """Give back what was opened on this event loop, and what `close` does."""


def new_ticket(claim: Claim) -> bytes:
    """What only the holder of a claim knows, and what it claimed with: a record that ended may have to be written anew.

    `ValueError`: a fingerprint of more than 64 bytes.
    """
    if len(claim.fingerprint) > MAX_FINGERPRINT:
        raise ValueError("a fingerprint has at most 64 bytes")
    return secrets.token_bytes(TICKET_BYTES) + claim.fingerprint


class _Record:
    """`answer` is None while its holder runs, empty where it is not kept."""

    __slots__ = ("answer", "ends_at", "lane_s", "ticket")

    def __init__(self, ticket: bytes, answer: bytes | None, lane_s: float, now: float) -> None:
        self.ticket = ticket
        self.answer = answer
        self.lane_s = lane_s
        self.ends_at = now + lane_s


class _Stripe:
    """A share of all keys under its own lock. Records of one duration are a lane, whose order is that of their ends."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.lock = threading.Lock()
        self.records: dict[str, _Record] = {}
        self._lanes: dict[float, OrderedDict[str, _Record]] = {}
        self._answers: OrderedDict[str, _Record] = OrderedDict()  # those that take room, oldest first
        self._max_entries = max_entries
        self._bytes_left = self._max_bytes = max_bytes

    def claim(self, claim: Claim, ticket: bytes, now: float) -> Claimed | Taken | Unavailable:
        held = self.records.get(claim.key)
        if held is not None:
            if now < held.ends_at:
                return Taken(held.ticket[TICKET_BYTES:], held.answer)
            self._drop(claim.key)
        self._sweep(now)
        if len(self.records) >= self._max_entries:
            return _FULL
        self._put(claim.key, _Record(ticket, None, claim.running_s, now))
        return Claimed(ticket)

    def settle(self, settle: Settle, now: float) -> Settled:
        held = self.records.get(settle.key)
        if held is not None:
            if held.ticket != settle.ticket and now < held.ends_at:
                return Settled(kept=False)
            self._drop(settle.key)
        if settle.answer is not None:
            # Also where the claim had ended meanwhile and nobody took its place: it was processed.
            self._put(settle.key, _Record(settle.ticket, settle.answer, settle.keep_s, now))
        return Settled(kept=True)

    def clear(self) -> None:
        self.records.clear()
        self._lanes.clear()
        self._answers.clear()
        self._bytes_left = self._max_bytes

    def _put(self, key: str, record: _Record) -> None:
        self.records[key] = record
        self._lanes.setdefault(record.lane_s, OrderedDict())[key] = record
        if record.answer:
            self._answers[key] = record
            self._bytes_left -= len(record.answer)
            while self._bytes_left < 0:
                self._forget_answer(next(iter(self._answers)))

    def _drop(self, key: str) -> None:
        record = self.records.pop(key)
        del self._lanes[record.lane_s][key]
        if key in self._answers:
            self._forget_answer(key)

    def _forget_answer(self, key: str) -> None:
        record = self._answers.pop(key)
        self._bytes_left += len(record.answer or b"")
        record.answer = b""

    def _sweep(self, now: float) -> None:
        left = _AT_ONCE
        for lane in self._lanes.values():
            while lane and left:
                key, record = next(iter(lane.items()))
                if now < record.ends_at:
                    break
                self._drop(key)
                left -= 1


_stores: weakref.WeakSet[MemoryRecords] = weakref.WeakSet()


class MemoryRecords:
    """A `RecordStore` in memory. `clock` is any monotonic clock in seconds."""

    is_local = True

    def __init__(
        self,
        max_entries: int = 100_000,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_entries < 1:
            raise ValueError("max_entries must be at least 1")
        stripes = max(1, min(_STRIPES, max_entries // _SMALLEST_STRIPE))
        self._clock = clock
        self._stripes = [_Stripe(max_entries // stripes, max_bytes // stripes) for _ in range(stripes)]
        _stores.add(self)

    def claim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """Claim the record, unless there is one."""
        stripe = self._stripe(claim.key)
        ticket = new_ticket(claim)
        with stripe.lock:
            return stripe.claim(claim, ticket, self._clock())

    async def aclaim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """The same; nothing here waits."""
        return self.claim(claim)

    def settle(self, settle: Settle) -> Settled:
        """Keep the answer, or forget the record."""
        stripe = self._stripe(settle.key)
        with stripe.lock:
            return stripe.settle(settle, self._clock())

    async def asettle(self, settle: Settle) -> Settled:
        """The same; nothing here waits."""
        return self.settle(settle)

    def clear(self) -> None:
        """Forget everything."""
        for stripe in self._stripes:
            with stripe.lock:
                stripe.clear()

    def close(self) -> None:
        """Nothing was opened."""

    async def aclose(self) -> None:
        """Nothing was opened."""

    def __len__(self) -> int:
        """Records now, also those that ended and were not swept yet."""
        return sum(len(stripe.records) for stripe in self._stripes)

    def _stripe(self, key: str) -> _Stripe:
        return self._stripes[hash(key) % len(self._stripes)]


def _renew_locks() -> None:
    """A lock that another thread held at the time of a fork would never be released in the child."""
    for store in _stores:
        for stripe in store._stripes:
            stripe.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
