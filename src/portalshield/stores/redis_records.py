"""Records on Redis, for all workers: one script and one round trip per question, on the server's clock.

A value is a state (`R` running, `D` done), the holder's ticket, the length of its fingerprint, the fingerprint, the
answer. Keys are `portalshield:<version>:record:<key>`; the server ends them. Both scripts may run twice for one
question (a connection that died before its reply): who holds the ticket gets the same answer again.

An outage is closed: a claim is `Unavailable`, so the request is refused. An outcome that could not be told is owed:
this process answers for the record itself and tells Redis before its next question. Where the process ends first, the
record ends after its claim's `running_s`, and the request may then be processed again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from portalshield.model.needs import Claim, Claimed, Settle, Settled, Taken, Unavailable
from portalshield.stores.outage import Breaker
from portalshield.stores.records import MAX_FINGERPRINT, TICKET_BYTES, new_ticket
from portalshield.stores.redis_wire import TIMEOUT_S, RedisWire, Script

VERSION = 1
"""Of what the scripts write; part of every key."""
MAX_OWED = 1000
_PREFIX = f"portalshield:{VERSION}:record:"
_HEAD = 2 + TICKET_BYTES
"""In a reply: that there is a record, its state, the ticket."""
_CLAIM = Script("""
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 17) ~= string.sub(ARGV[1], 1, 17) then return 'T' .. held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'C'
""")
_SETTLE = Script("""
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 2, 17) ~= string.sub(ARGV[1], 2, 17) then return '0' end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return '1'
""")


_stores: weakref.WeakSet[RedisRecords] = weakref.WeakSet()


class RedisRecords:
    """A `RecordStore` on a Redis server; `ValueError` and addresses as `RedisWire`'s. `clock` is a monotonic one."""

    is_local = False

    def __init__(
        self,
        uri: str,
        *,
        timeout_s: float = TIMEOUT_S,
        breaker: Callable[[], Breaker] = Breaker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wire = RedisWire(uri, timeout_s=timeout_s, breaker=breaker)
        self._clock = clock
        self._owed: OrderedDict[str, tuple[Settle, float]] = OrderedDict()
        self._owing = threading.Lock()
        _stores.add(self)

    def claim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """Claim the record, unless there is one. Blocks for at most the time-out, after an outage twice."""
        owed = self._debt(claim.key)
        if isinstance(owed, Taken):
            return owed
        if owed is not None:
            self._told(owed, self.wire.ask(_SETTLE, _settlement(owed), _settled))
        ticket = new_ticket(claim)
        return self.wire.ask(_CLAIM, _question(claim, ticket), partial(_claimed, ticket))

    async def aclaim(self, claim: Claim) -> Claimed | Taken | Unavailable:
        """The same without blocking the event loop."""
        owed = self._debt(claim.key)
        if isinstance(owed, Taken):
            return owed
        if owed is not None:
            self._told(owed, await self.wire.aask(_SETTLE, _settlement(owed), _settled))
        ticket = new_ticket(claim)
        try:
            return await self.wire.aask(_CLAIM, _question(claim, ticket), partial(_claimed, ticket))
        except BaseException:  # cancelled in the middle: if it arrived, nobody will process what it claimed
            self._owe(Settle(claim.key, ticket, None, claim.running_s))
            raise

    def settle(self, settle: Settle) -> Settled | Unavailable:
        """Keep the answer, or forget the record."""
        return self._told(settle, self.wire.ask(_SETTLE, _settlement(settle), _settled))

    async def asettle(self, settle: Settle) -> Settled | Unavailable:
        """The same without blocking the event loop."""
        try:
            return self._told(settle, await self.wire.aask(_SETTLE, _settlement(settle), _settled))
        except BaseException:  # cancelled in the middle: nobody knows whether it arrived
            self._owe(settle)
            raise

    def clear(self) -> None:
        """Forget what is owed."""
        with self._owing:
            self._owed.clear()

    def close(self) -> None:
        """Close the idle connections of blocking callers."""
        self.wire.close()

    async def aclose(self) -> None:
        """Close the idle connections of this event loop, and those of blocking callers."""
        await self.wire.aclose()

    # -- outcomes that Redis was not told -----------------------------------------------------------------------------

    def _debt(self, key: str) -> Settle | Taken | None:
        """What is owed about this key answers for it; else the oldest debt, to be paid now."""
        if not self._owed:
            return None
        now = self._clock()
        with self._owing:
            for name in [name for name, (_, ends_at) in self._owed.items() if ends_at <= now]:
                del self._owed[name]
            held = self._owed.get(key) or next(iter(self._owed.values()), None)
        if held is None:
            return None
        settle = held[0]
        if settle.key == key and settle.answer is not None:
            return Taken(settle.ticket[TICKET_BYTES:], settle.answer)
        return settle

    def _told(self, settle: Settle, answer: Settled | Unavailable) -> Settled | Unavailable:
        if isinstance(answer, Unavailable):
            self._owe(settle)
        elif self._owed:
            with self._owing:
                self._owed.pop(settle.key, None)
        return answer

    def _owe(self, settle: Settle) -> None:
        with self._owing:
            if settle.key not in self._owed:
                self._owed[settle.key] = (settle, self._clock() + settle.keep_s)
            while len(self._owed) > MAX_OWED:
                self._owed.popitem(last=False)


def _question(claim: Claim, ticket: bytes) -> tuple[int, str, bytes, int]:
    return 1, _PREFIX + claim.key, _value(b"R", ticket), max(1, round(claim.running_s * 1000))


def _settlement(settle: Settle) -> tuple[int, str, bytes, int]:
    keep_ms = 0 if settle.answer is None else max(1, round(settle.keep_s * 1000))
    return 1, _PREFIX + settle.key, _value(b"D", settle.ticket) + (settle.answer or b""), keep_ms


def _value(state: bytes, ticket: bytes) -> bytes:
    return state + ticket[:TICKET_BYTES] + bytes((len(ticket) - TICKET_BYTES,)) + ticket[TICKET_BYTES:]


def _claimed(ticket: bytes, reply: bytes) -> Claimed | Taken:
    """`ValueError` for what no script of ours wrote."""
    if reply == b"C":
        return Claimed(ticket)
    size = reply[_HEAD] if len(reply) > _HEAD else MAX_FINGERPRINT + 1
    ends = _HEAD + 1 + size
    if reply[:2] not in (b"TR", b"TD") or size > MAX_FINGERPRINT or len(reply) < ends:
        raise ValueError("no record")
    return Taken(reply[_HEAD + 1 : ends], reply[ends:] if reply[:2] == b"TD" else None)


def _settled(reply: bytes) -> Settled:
    if reply not in (b"0", b"1"):
        raise ValueError("no outcome")
    return Settled(reply == b"1")


def _renew_locks() -> None:
    """A lock that another thread held at the time of a fork would never be released in the child."""
    for store in _stores:
        store._owing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
