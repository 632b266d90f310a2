"""The keys of one issuer, fetched from its URL: readers look at an immutable snapshot, one thread keeps it fresh.

Who verifies reads `snapshot`, a plain attribute: no lock, no IO. Whoever meets an unknown kid waits for the one fetch
in flight, on an event or on a future of its own loop, never on a lock that is held across IO. Keys older than `fresh_s`
are served while they are renewed, those older than `stale_s` are dropped (the caller answers 503). The thread belongs
to a process: it starts with `start()` or the first `refresh`, never at construction, and anew in a forked child. Times
are of a monotonic clock: while a machine sleeps, keys do not age.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, Protocol, Self, TypeVar

from portalshield.stores.fetching import DENIED_KIDS, FetchError, Pace, fetch, parse_target

_LONGEST_SLEEP_S = 3600.0

Event = Literal["keys-fetched", "fetch-failed", "keys-expired"]


class Snapshot(Protocol):
    """What a loader makes of a key set: immutable, numbered by `generation`."""

    @property
    def generation(self) -> int:
        """Rises when a key disappeared or changed."""

    def followed_by(self, newer: Self) -> Self:
        """`newer` with the generation it has as this one's successor."""


S = TypeVar("S", bound=Snapshot)


class _Flight:
    """One fetch and those who wait for it."""

    def __init__(self) -> None:
        self.begun = False
        self.kids: set[str | None] = set()
        self._landed = threading.Event()
        self._lock = threading.Lock()
        self._futures: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def wait(self, timeout_s: float) -> None:
        self._landed.wait(timeout_s)

    async def wait_async(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self._landed.is_set():
                return
            self._futures[future] = loop
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:  # a cancelled waiter leaves nothing behind, and the fetch goes on for the others
            with self._lock:
                self._futures.pop(future, None)

    def land(self) -> None:
        with self._lock:
            self._landed.set()
            waiting, self._futures = self._futures, {}
        for future, loop in waiting.items():
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:  # that loop was closed in the meantime: nobody waits there any more
                continue


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Crew:
    """What must not cross a fork: the thread, its lock, its waiters, its pace."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.wake = threading.Condition(threading.Lock())
        self.thread: threading.Thread | None = None
        self.flight: _Flight | None = None
        self.stopped = False


class RemoteKeys(Generic[S]):
    """The key set behind one URL.

    `load` turns a body into a snapshot and raises whatever it likes for one that is not a usable set: the keys at hand
    stay. Keys are renewed after `fresh_s` seconds and dropped after `stale_s`; one fetch may take `timeout_s` seconds
    and `max_bytes` bytes in all. `notify` hears `keys-fetched`, `fetch-failed` and `keys-expired`, in the thread. Plain
    http is for loopback and needs `allow_http`. Raises `FetchError` for an address that must not be asked, `ValueError`
    for impossible times.
    """

    def __init__(
        self,
        url: str,
        *,
        load: Callable[[bytes], S],
        fresh_s: float = 300.0,
        stale_s: float = 86400.0,
        timeout_s: float = 3.0,
        max_bytes: int = 262144,
        allow_http: bool = False,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        user_agent: str = "portalshield",
        notify: Callable[[Event], None] | None = None,
    ) -> None:
        parse_target(url, allow_http)
        if not 0 < fresh_s <= stale_s or timeout_s <= 0 or max_bytes <= 0:
            raise ValueError("0 < fresh_s <= stale_s, timeout_s and max_bytes above 0")
        if not (user_agent.isascii() and user_agent.isprintable()):
            raise ValueError("user_agent is printable ASCII")
        self.snapshot: S | None = None
        self.failures = 0
        self.fetches = 0
        self.unknown_kids = 0
        self.last_failure = ""
        self._url = url
        self._load = load
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._allow_http = allow_http
        self._clock = clock
        self._jitter = jitter
        self._user_agent = user_agent
        self._notify = notify
        self._latest: S | None = None  # outlives the hard limit, so that generations go on
        self._fetched_at: float | None = None
        self._crews: dict[int, _Crew] = {}
        self._closed = False

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """There are keys to verify with."""
        return self.snapshot is not None

    @property
    def generation(self) -> int:
        """The generation of the snapshot, -1 while there is none. For a verdict take it from the snapshot it used."""
        snapshot = self.snapshot
        return -1 if snapshot is None else snapshot.generation

    @property
    def age_s(self) -> float | None:
        """Seconds since the last successful fetch, None before the first."""
        fetched_at = self._fetched_at
        return None if fetched_at is None else max(0.0, self._clock() - fetched_at)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have the keys fetched and kept fresh in this process. Idempotent and cheap: a door may call it often."""
        self._closed = False
        self._crew()

    def stop(self) -> None:
        """End the thread and wake all waiters. Does not wait: a fetch in flight ends at its deadline, unused."""
        self._closed = True
        crew = self._crews.pop(os.getpid(), None)
        if crew is None:
            return
        with crew.wake:
            crew.stopped = True
            flight, crew.flight = crew.flight, None
            crew.wake.notify_all()
        if flight is not None:
            flight.land()

    def refresh_sync(self, kid: str | None, timeout_s: float = 2.0) -> bool:
        """A token names a kid that the snapshot lacks: wait at most `timeout_s` for the one fetch this may cause.

        True: the set was asked anew, or moments ago; look again. False: there are no keys at all, nobody can tell.
        """
        flight = self._board(kid)
        if flight is not None:
            flight.wait(timeout_s)
        return self.snapshot is not None

    async def refresh(self, kid: str | None, timeout_s: float = 2.0) -> bool:
        """As `refresh_sync`, for an event loop."""
        flight = self._board(kid)
        if flight is not None:
            await flight.wait_async(timeout_s)
        return self.snapshot is not None

    def _crew(self) -> _Crew:
        """The crew of this process, at work. `dict.setdefault` is the lock here: a real one might be held by a thread
        that a fork did not copy."""
        pid = os.getpid()
        crew = self._crews.get(pid)
        if crew is None:
            pace = Pace(self._fresh_s, self._stale_s, self._jitter, self._fetched_at)
            crew = self._crews.setdefault(pid, _Crew(pace))
            for other in [known for known in tuple(self._crews) if known != pid]:
                self._crews.pop(other, None)
        if crew.thread is None:
            with crew.wake:
                if crew.thread is None and not crew.stopped:
                    thread = threading.Thread(target=self._run, args=(crew,), name="portalshield-keys", daemon=True)
                    thread.start()
                    crew.thread = thread
        return crew

    def _board(self, kid: str | None) -> _Flight | None:
        """The flight to wait for; None where waiting brings nothing."""
        if self._closed:
            return None
        try:
            crew = self._crew()
        except RuntimeError:  # no thread can be started any more: too many, or the interpreter is going down
            return None
        with crew.wake:
            now = self._clock()
            if self.snapshot is not None:
                self.unknown_kids += 1
            if crew.pace.denies(kid, now):
                return None
            flight = crew.flight
            if flight is None and not crew.stopped and crew.pace.admits(kid, now):
                flight = crew.flight = _Flight()
                crew.wake.notify_all()
            if flight is not None and not flight.begun and len(flight.kids) < DENIED_KIDS:
                flight.kids.add(kid)  # a kid that comes later may be newer than the answer on its way
            return flight

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self, crew: _Crew) -> None:
        while (step := self._next_step(crew)) is not None:
            event = self._fly(crew, step) if isinstance(step, _Flight) else step
            if self._notify is not None and event is not None:
                with contextlib.suppress(Exception):  # a broken listener must not end the renewal of keys
                    self._notify(event)

    def _next_step(self, crew: _Crew) -> _Flight | Literal["keys-expired"] | None:
        """Sleep until there is something to do; None: the end."""
        with crew.wake:
            while not crew.stopped:
                now = self._clock()
                if self.snapshot is not None and now >= crew.pace.expires_at:
                    self.snapshot = None
                    return "keys-expired"
                if crew.flight is None and now >= crew.pace.due_at:
                    crew.flight = _Flight()
                if crew.flight is not None:
                    crew.flight.begun = True
                    crew.pace.begin(now)
                    self.fetches += 1
                    return crew.flight
                until = crew.pace.due_at if self.snapshot is None else min(crew.pace.due_at, crew.pace.expires_at)
                crew.wake.wait(min(until - now, _LONGEST_SLEEP_S))
        return None

    def _fly(self, crew: _Crew, flight: _Flight) -> Event | None:
        loaded, failure = self._fetched()
        with crew.wake:
            if crew.stopped:  # its waiters were woken; whoever started anew has a crew of his own
                return None
            now = self._clock()
            if loaded is None:
                self.failures += 1
                crew.pace.fail(now)
            else:
                self._publish(loaded, now)
                crew.pace.succeed(now, flight.kids)
            self.last_failure = failure
            crew.flight = None
        flight.land()
        return "fetch-failed" if failure else "keys-fetched"

    def _publish(self, loaded: S, now: float) -> None:
        self._latest = loaded if self._latest is None else self._latest.followed_by(loaded)
        self._fetched_at = now
        self.snapshot = self._latest

    def _fetched(self) -> tuple[S | None, str]:
        try:
            body = fetch(self._url, self._timeout_s, self._max_bytes, self._allow_http, user_agent=self._user_agent)
            return self._load(body), ""
        except FetchError as fault:
            return None, fault.reason
        except Exception:  # whatever the loader says: it is not a usable key set, and the thread must live on
            return None, "unusable"
