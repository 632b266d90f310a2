"""When the shared store does not answer: how long it is left alone, and what counts instead.

`Breaker` keeps a store that failed from being asked by every request. `OutageStore` answers in its place as
`RATE__ON_OUTAGE` says, and reports once when the store goes away and once when it is back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from portalshield.model.needs import Count, Counts, GiveBack, Hit, Unavailable

OnOutage = Literal["local", "open", "closed"]
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 8.0
"""A store that is back is noticed by the first request after at most this long."""

Ticket = Literal[0, 1, 2]
REFUSED: Ticket = 0
NORMAL: Ticket = 1
PROBE: Ticket = 2


class Breaker:
    """Lets everybody through until a failure, then one request per pause; the pauses double up to `LONGEST_PAUSE_S`.

    They are shortened by up to half at random, so that many processes do not ask in step. No lock: two threads that
    claim a probe at the same instant both ask, which is harmless.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._draw = draw
        self._pause_s = 0.0
        self._retry_at: float | None = None

    @property
    def is_resting(self) -> bool:
        """The store is being left alone and nobody need try yet. Claims nothing, unlike `admit`."""
        retry_at = self._retry_at
        return retry_at is not None and self._clock() < retry_at

    def admit(self) -> Ticket:
        """May the store be asked now? `PROBE`: as the one who tries whether it is back."""
        retry_at = self._retry_at
        if retry_at is None:
            return NORMAL
        now = self._clock()
        if now < retry_at:
            return REFUSED
        self._retry_at = now + self._pause_s  # claimed: the others wait for what this one finds out
        return PROBE

    def trying(self, ticket: Ticket) -> _Try:
        """For `with`, around one question: how it ends is told here; what it raises is passed on."""
        return _Try(self, ticket)

    def succeeded(self, ticket: Ticket) -> None:
        """A probe that was answered closes the breaker; what was on its way before the failure proves nothing."""
        if ticket == PROBE:
            self._retry_at = None

    def failed(self, ticket: Ticket) -> None:
        """Open, or, after a probe, stay open for longer."""
        if ticket == PROBE:
            self._pause(min(2 * self._pause_s, LONGEST_PAUSE_S))
        elif self._retry_at is None:
            self._pause(FIRST_PAUSE_S)

    def abandoned(self, ticket: Ticket) -> None:
        """The asker was cancelled before it knew: let the next one try."""
        if ticket == PROBE:
            self._retry_at = self._clock()

    def _pause(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._retry_at = self._clock() + pause_s * (0.5 + 0.5 * self._draw())


class _Try:
    """A question on its way; a class, because a generator would cost three times as much on every request."""

    __slots__ = ("_breaker", "_ticket")

    def __init__(self, breaker: Breaker, ticket: Ticket) -> None:
        self._breaker = breaker
        self._ticket = ticket

    def __enter__(self) -> None:
        """Nothing is due before the end."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._breaker.succeeded(self._ticket)
        elif issubclass(kind, Exception):
            self._breaker.failed(self._ticket)
        else:
            self._breaker.abandoned(self._ticket)


@dataclass(frozen=True, slots=True)
class StoreChange:
    """The shared store went away or came back. `str()` is the line for the log.

    `reason` is the slug of the first answer that was missing; `stood_in` is how many questions were answered without
    the store since it went away, for the counter.
    """

    available: bool
    mode: OnOutage
    reason: str = ""
    stood_in: int = 0

    def __str__(self) -> str:
        if self.available:
            return f"the store for limits is back; {self.stood_in} questions were answered without it"
        return f"the store for limits does not answer ({self.reason}): {_MEANWHILE[self.mode]}"


_MEANWHILE: dict[OnOutage, str] = {
    "local": "the same quotas are counted in each process",
    "open": "requests are allowed unlimited",
    "closed": "limited routes answer 503",
}
Notify = Callable[[StoreChange], object]
"""Told once per change of state; `logging.Logger.warning` fits."""


class Asked(Protocol):
    """A store that may be unable to answer."""

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Ask, blocking."""

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """Ask without blocking the event loop."""

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted, blocking."""

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted without blocking the event loop."""

    def close(self) -> None:
        """Give back what a blocking caller opened."""

    async def aclose(self) -> None:
        """Give back what this event loop opened."""


class Local(Protocol):
    """A store that always answers."""

    def hit(self, hit: Hit) -> Counts:
        """Ask; never blocks."""

    def give_back(self, need: GiveBack) -> Counts:
        """Take back what was counted; never blocks."""

    def clear(self) -> None:
        """Forget everything."""


class OutageStore:
    """A `Store` that asks `shared` and stands in for it while it does not answer.

    `local`: the same quotas in `local`; `open`: everything is allowed, and counted in `stood_in`, but for a quota that
    is a `brake`, which is counted in `local` all the same; `closed`: `Unavailable` is passed on, a 503.
    """

    is_local = False

    def __init__(self, shared: Asked, local: Local, mode: OnOutage, notify: Notify) -> None:
        self._shared = shared
        self._local = local
        self._mode: OnOutage = mode
        self._notify = notify
        self._changes = 0  # even: the store answers; odd: it is away
        self._changing = threading.Lock()
        self._pid = os.getpid()
        self.stood_in = 0
        """Questions answered without the shared store, since the start. Approximate under threads."""
        self._stood_in_before = 0

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Count, all or nothing; see `Hit`. `Unavailable` only in the mode `closed`."""
        seen = self._changes
        answer = self._shared.hit(hit)
        if isinstance(answer, Unavailable):
            return self._stand_in(hit, answer, seen)
        if seen & 1:
            self._change(seen, "")
        return answer

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """The same without blocking the event loop."""
        seen = self._changes
        answer = await self._shared.ahit(hit)
        if isinstance(answer, Unavailable):
            return self._stand_in(hit, answer, seen)
        if seen & 1:
            self._change(seen, "")
        return answer

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """Take back what was counted, by whichever store counts now. `Unavailable` only in the mode `closed`."""
        seen = self._changes
        return self._given_back(need, self._shared.give_back(need), seen)

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """The same without blocking the event loop."""
        seen = self._changes
        return self._given_back(need, await self._shared.agive_back(need), seen)

    def clear(self) -> None:
        """Forget what was counted in the shared store's place."""
        self._local.clear()

    def close(self) -> None:
        """Give back what blocking callers opened."""
        self._shared.close()

    async def aclose(self) -> None:
        """Give back what this event loop opened."""
        await self._shared.aclose()

    def _stand_in(self, hit: Hit, missing: Unavailable, seen: int) -> Counts | Unavailable:
        if not seen & 1:
            self._change(seen, missing.reason)
        self.stood_in += 1
        if self._mode == "local":
            return self._local.hit(hit)
        if self._mode == "open":
            if any(quota.brake for _, quota, _ in hit.counters):
                return self._local.hit(hit)  # an outage must not be the hour of whoever guesses passwords
            return tuple([Count(True, quota.amount, float(quota.window_s)) for _, quota, _ in hit.counters])
        return missing

    def _given_back(self, need: GiveBack, answer: Counts | Unavailable, seen: int) -> Counts | Unavailable:
        if not isinstance(answer, Unavailable):
            if seen & 1:
                self._change(seen, "")
            return answer
        if not seen & 1:
            self._change(seen, answer.reason)
        self.stood_in += 1
        return answer if self._mode == "closed" else self._local.give_back(need)

    def _change(self, seen: int, reason: str) -> None:
        """Whoever asked before the last change learnt nothing new: only the first to see a change reports it."""
        if self._pid != os.getpid():  # a lock that was held at the time of a fork is never released in the child
            self._changing, self._pid = threading.Lock(), os.getpid()
        with self._changing:
            if seen != self._changes:
                return
            self._changes += 1
            available = bool(seen & 1)
            stood_in = self.stood_in - self._stood_in_before if available else 0
            self._stood_in_before = self.stood_in
        self._notify(StoreChange(available, self._mode, reason, stood_in))
