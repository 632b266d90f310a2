"""Limits counted in this process: exact under threads, a fixed cost per hit, a fixed number of entries, no thread.

Why not `limits.MemoryStorage`: it has no cap, sweeps all keys at once and starts a thread per spaced hit.

Keys are spread over stripes by their hash. A stripe has its own lock and at most `STRIPE` entries, so nothing ever
walks, resizes or locks more than one stripe's worth. In a stripe each quota has a dict whose order is the order in
which entries end. A full stripe gives up the entries nearest their end, but never one that is over its quota: whoever
mints keys must not free a blocked one. Where every entry is over its quota, new keys share one overflow bucket.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from hashlib import blake2b
from math import floor
from typing import Any, Literal

from portalshield.model.exchange import Exchange
from portalshield.model.needs import Count, Counts, GiveBack, Hit, Quota, client_numbers
from portalshield.model.verdicts import Problem
from portalshield.rules.interpreter import switches_at_calls_only
from portalshield.rules.windows import AnyWindow, FixedWindow, window_of

STRIPE = 1365
"""Entries per stripe. A dict of up to this many has 4096 slots after any history of inserts and deletions (CPython
resizes to three times what is in use): 54 bytes an entry. One more and it could have 8192."""
LONGEST_KEY = 128
"""Characters; a longer key is stored as its digest, so that an entry has a fixed size."""
_EVICT_SHARE = 64  # a full stripe gives up a 64th at once: the walk over blocked entries is paid once for many inserts
_ALIASES = 1024


class _Stripe:
    """A share of all keys. `size` is the number of entries of all quotas; both are guarded by `lock`."""

    __slots__ = ("full_from_ms", "full_until_ms", "lock", "size")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0
        self.full_from_ms = self.full_until_ms = 0  # in between no entry can be given up


class _Ledger:
    """The states of one quota: a dict per stripe, and the overflow bucket under its own lock.

    `known` keeps the quotas whose ids lead here, so that no id is given to another one.
    """

    __slots__ = ("charge", "known", "overflow", "tables", "window")

    def __init__(self, window: AnyWindow, stripes: int) -> None:
        self.window = window
        self.charge = window.charge
        self.known: list[Quota] = []
        self.tables: tuple[dict[str, Any], ...] = tuple({} for _ in range(stripes))
        self.overflow: dict[str, Any] = {}


_Slot = tuple[_Ledger, int, str, int]
"""ledger, stripe, key, cost"""
_Place = tuple[dict[str, Any], str, _Stripe | None]
"""where a state stands, under which key, and whose size it counts in"""
_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


class MemoryStore:
    """A `Store` in memory. `clock` is the one that `Exchange.began_ns` was read from, in seconds; `max_keys` bounds
    the entries of all quotas."""

    is_local = True

    def __init__(self, max_keys: int = 100_000, clock: Callable[[], float] = time.perf_counter) -> None:
        if max_keys < 1:
            raise ValueError("max_keys must be at least 1")
        self._clock = clock
        self._stripes = tuple(_Stripe() for _ in range(-(-max_keys // STRIPE)))
        self._spread = len(self._stripes)
        self._capacity = max_keys // self._spread
        self._ledgers: dict[tuple[int, int, str], _Ledger] = {}
        self._by_id: dict[int, _Ledger] = {}  # hashing a quota costs more than a whole hit
        self._opening = threading.Lock()
        self._overflow_lock = threading.Lock()
        _stores.add(self)

    def hit(self, hit: Hit) -> Counts:
        """Count, all or nothing; see `Hit`. `ValueError` for a strategy that is not known."""
        counters = hit.counters
        if len(counters) != 1:
            return self._several(counters)
        key, quota, cost = counters[0]
        return (self._take(self._by_id.get(id(quota)) or self._open(quota), key, cost),)

    def checker(
        self,
        quota: Quota,
        scope: str,
        who: Literal["ip", "subject"] | Callable[[Exchange], str],
        cost: int,
        refuse: Callable[[int], Problem],
    ) -> Callable[[Exchange], Problem | None]:
        """The whole check of a stage that counts by one quota: charge what stands under `scope` and who asks (a subject
        without a principal is its address), tell `x.counts`, and `refuse` with the seconds to wait where it is spent.

        Most requests find a window that goes on. They take no lock: between reading its state and writing it there is
        no call, so no other thread comes in between and no request is lost. While another thread charges the same key
        under the lock, one more may fit in than the quota says.
        """
        key, by_subject = (who if callable(who) else None), who == "subject"
        ledger = self._open(quota)
        tables, spread, window = ledger.tables, self._spread, ledger.window
        amount, window_ms = window.amount, window.window_ms
        bits = mask = 0
        if isinstance(window, FixedWindow) and cost > 0 and switches_at_calls_only():
            bits, mask = window.bits, window.mask

        def check(x: Exchange) -> Problem | None:
            if key is not None:
                name = scope + key(x)
            else:
                principal = x.principal if by_subject else None
                name = scope + (x.address_key if principal is None else principal.rate_key)
            table = tables[hash(name) % spread]
            now_ms = x.began_ns // 1_000_000
            if mask and name in table:
                # What `FixedWindow.charge` does within a window, without the call.
                state = table[name]
                left_ms = (state >> bits) - now_ms
                if 0 < left_ms <= window_ms:
                    left, reset_s = amount - (state & mask), (left_ms + 999) // 1000
                    if left >= cost:
                        table[name] = state + cost
                        x.counts += (left - cost, reset_s)
                        return None
                    x.counts += (max(0, left), reset_s)
                    return refuse(reset_s)
            count = self._take(ledger, name, cost)
            x.counts += client_numbers((count,))
            return None if count.allowed else refuse(x.counts[-1])

        return check

    def _take(self, ledger: _Ledger, key: str, cost: int) -> Count:
        if len(key) > LONGEST_KEY:
            key = _digest(key)
        index = hash(key) % self._spread
        table = ledger.tables[index]
        with self._stripes[index].lock:
            now_ms = floor(self._clock() * 1000)
            state = table.get(key)
            if state is None:
                return self._first(ledger, index, key, cost, now_ms)
            charged, moved, count = ledger.charge(state, cost, now_ms)
            if charged is not None:
                _write((table, key, None), charged, moved, cost)
            answer: Count = count
            return answer

    async def ahit(self, hit: Hit) -> Counts:
        """The same; nothing here waits."""
        return self.hit(hit)

    def give_back(self, need: GiveBack) -> Counts:
        """Take back what was counted; see `GiveBack`. What stands in the overflow bucket stays there: it is shared."""
        return tuple([self._give_back(key, quota, cost) for key, quota, cost in need.counters])

    async def agive_back(self, need: GiveBack) -> Counts:
        """The same; nothing here waits."""
        return self.give_back(need)

    def close(self) -> None:
        """Forget everything."""
        self.clear()

    async def aclose(self) -> None:
        """Forget everything."""
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._opening:
            for index, stripe in enumerate(self._stripes):
                with stripe.lock:
                    for ledger in self._ledgers.values():
                        ledger.tables[index].clear()
                    stripe.size = stripe.full_until_ms = 0
            with self._overflow_lock:
                for ledger in self._ledgers.values():
                    ledger.overflow.clear()

    def __len__(self) -> int:
        """Entries now, the overflow buckets (one a quota) aside."""
        return sum(stripe.size for stripe in self._stripes)

    def _first(self, ledger: _Ledger, index: int, key: str, cost: int, now_ms: int) -> Count:
        stripe = self._stripes[index]
        if stripe.size >= self._capacity and not self._make_room(index, 1, now_ms):
            with self._overflow_lock:
                charged, _, count = ledger.charge(ledger.overflow.get(""), cost, now_ms)
                if charged is not None:
                    ledger.overflow[""] = charged
            return count
        charged, _, count = ledger.charge(None, cost, now_ms)
        if charged is not None:
            ledger.tables[index][key] = charged
            stripe.size += 1
        return count

    def _give_back(self, key: str, quota: Quota, cost: int) -> Count:
        ledger = self._by_id.get(id(quota)) or self._open(quota)
        key = _digest(key) if len(key) > LONGEST_KEY else key
        index = hash(key) % self._spread
        table, stripe, window = ledger.tables[index], self._stripes[index], ledger.window
        with stripe.lock:
            now_ms = floor(self._clock() * 1000)
            state = table.get(key)
            if state is not None and cost > 0:
                left = window.give_back(state, cost, now_ms)
                if left is None:
                    del table[key]
                    stripe.size -= 1
                else:
                    table[key] = left  # its place in the order stays: it does not end later than it did
                state = left
            again, moved, count = window.charge(state, 0, now_ms)
            if again is not None:  # the clock stepped back
                _write((table, key, stripe), again, moved, 0)
            answer: Count = count
            return answer

    # -- several counters: all or nothing -----------------------------------------------------------------------------

    def _several(self, counters: tuple[tuple[str, Quota, int], ...]) -> Counts:
        slots: list[_Slot] = []
        for key, quota, cost in counters:
            ledger = self._by_id.get(id(quota)) or self._open(quota)
            if len(key) > LONGEST_KEY:
                key = _digest(key)
            slots.append((ledger, hash(key) % self._spread, key, cost))
        held: list[threading.Lock] = []
        try:
            for index in sorted({slot[1] for slot in slots}):  # always in this order: nobody waits in a circle
                lock = self._stripes[index].lock
                lock.acquire()
                held.append(lock)
            return self._charge(slots, floor(self._clock() * 1000), held)
        finally:
            for lock in held:
                lock.release()

    def _charge(self, slots: list[_Slot], now_ms: int, held: list[threading.Lock]) -> Counts:
        counts: list[Count] = []
        # Equal quotas of one key are one counter: what stands in one place is charged once.
        written: dict[tuple[int, str], tuple[_Place, Any, bool, int]] = {}
        fits = True
        for ledger, index, key, cost in slots:
            table = ledger.tables[index]
            state = table.get(key)
            place: _Place = (table, key, self._stripes[index])
            if state is None:
                place = self._place(ledger, index, key, len(slots), now_ms, held)
                state = place[0].get(place[1])
            charged, moved, count = ledger.charge(state, cost, now_ms)
            counts.append(count)
            if not count.allowed:
                fits = False
            if charged is not None:
                written[(id(place[0]), place[1])] = (place, charged, moved, cost)
        if not fits:
            return self._refuse(slots, counts, now_ms, held)
        for place, charged, moved, cost in written.values():
            _write(place, charged, moved, cost)
        return tuple(counts)

    def _refuse(self, slots: list[_Slot], counts: list[Count], now_ms: int, held: list[threading.Lock]) -> Counts:
        """Nobody is charged. Who would have fitted reports what it has; what a clock set back made new is kept."""
        answers: list[Count] = []
        for (ledger, index, key, _), own in zip(slots, counts, strict=True):
            place = self._place(ledger, index, key, len(slots), now_ms, held)
            again, moved, count = ledger.charge(place[0].get(place[1]), 0, now_ms)
            if again is not None:
                _write(place, again, moved, 0)
            answers.append(count if own.allowed else own)
        return tuple(answers)

    def _place(
        self, ledger: _Ledger, index: int, key: str, wanted: int, now_ms: int, held: list[threading.Lock]
    ) -> _Place:
        """Where a counter stands: under its key, or in the overflow bucket, whose lock is then taken, last of all."""
        table, stripe = ledger.tables[index], self._stripes[index]
        if key in table or stripe.size + wanted <= self._capacity or self._make_room(index, wanted, now_ms):
            return table, key, stripe
        if self._overflow_lock not in held:
            self._overflow_lock.acquire()
            held.append(self._overflow_lock)
        return ledger.overflow, "", None

    # -- room ---------------------------------------------------------------------------------------------------------

    def _make_room(self, index: int, wanted: int, now_ms: int) -> bool:
        """Give up the entries of this stripe that are nearest their end and not over their quota."""
        stripe = self._stripes[index]
        if stripe.full_from_ms <= now_ms < stripe.full_until_ms:
            return False
        share = max(wanted, self._capacity // _EVICT_SHARE)
        blocked_ms: list[int] = []
        ripe: list[tuple[int, dict[str, Any], str]] = []
        for ledger in list(self._ledgers.values()):
            ripe += _ripe(ledger, index, share, now_ms, blocked_ms)
        ripe.sort(key=lambda entry: entry[0])
        for _, table, key in ripe[:share]:
            del table[key]
            stripe.size -= 1
        if not ripe:
            stripe.full_from_ms, stripe.full_until_ms = now_ms, min(blocked_ms, default=now_ms)
        return stripe.size + wanted <= self._capacity

    def _open(self, quota: Quota) -> _Ledger:
        """The ledger of a quota that was not seen before, or of an equal one that was."""
        with self._opening:
            identity = (quota.amount, quota.window_s, quota.strategy)
            ledger = self._ledgers.get(identity)
            if ledger is None:
                ledger = self._ledgers[identity] = _Ledger(window_of(quota), self._spread)
            if len(self._by_id) >= _ALIASES:
                self._by_id = {}
                for other in self._ledgers.values():
                    other.known = []
            ledger.known.append(quota)
            self._by_id[id(quota)] = ledger
            return ledger


def _write(place: _Place, charged: Any, moved: bool, cost: int) -> None:
    table, key, stripe = place
    before = len(table)
    if moved or key not in table:
        table.pop(key, None)  # to the end of the order; another counter of this request may have made room of it
        table[key] = charged
    else:
        table[key] += cost  # who takes no lock may have counted meanwhile (see `checker`)
    if stripe is not None:
        stripe.size += len(table) - before


def _ripe(
    ledger: _Ledger, index: int, share: int, now_ms: int, blocked_ms: list[int]
) -> list[tuple[int, dict[str, Any], str]]:
    """Up to `share` entries of one quota that may go, nearest their end first; of the others, when the next one may."""
    window, table = ledger.window, ledger.tables[index]
    found: list[tuple[int, dict[str, Any], str]] = []
    for key, state in table.items():
        again, _, count = window.charge(state, 0, now_ms)
        if again is not None:  # the clock stepped back
            table[key] = again
        if count.allowed:
            found.append((window.ends_ms(state), table, key))
            if len(found) == share:
                break
        else:
            blocked_ms.append(now_ms + max(1, int(count.reset_s * 1000)))
    return found


def _digest(key: str) -> str:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


def _renew_locks() -> None:
    """A lock that another thread held at the time of a fork would never be released in the child."""
    for store in _stores:
        store._opening = threading.Lock()
        store._overflow_lock = threading.Lock()
        for stripe in store._stripes:
            stripe.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
