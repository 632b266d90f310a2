"""Where revocations are kept: in this process, and on Redis for all workers.

Every worker holds a copy and looks at a version number every two seconds, so that a revocation counts everywhere within
five. Without Redis for longer than `GRACE_S` (or at once, where the policy is closed) nobody can tell who was revoked,
and tokens are refused with 503.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from portalshield.rules.revocation import KINDS, NONE, Kind, Revocation, Revocations

_log = logging.getLogger("portalshield")
_HASH = "portalshield:1:revocations"
_VERSION = "portalshield:1:revocations:version"
INTERVAL_S = 2.0
GRACE_S = 60.0


class RevocationStore(Protocol):
    """What the authority and `Shield.revoke` need."""

    @property
    def current(self) -> Revocations | None:
        """The list of this moment; None: nobody can tell."""

    def start(self) -> None:
        """Begin to follow other workers, in this process. Idempotent and cheap."""

    def add(self, revocations: list[Revocation]) -> None:
        """Revoke. Raises where that is not certain to have happened."""

    def clear(self) -> None:
        """Forget the local copy (a test run)."""


class LocalRevocations:
    """In this process only."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.current: Revocations | None = NONE
        self._clock = clock
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to follow."""

    def add(self, revocations: list[Revocation]) -> None:
        """Revoke, from now on."""
        with self._lock:
            self.current = (self.current or NONE).with_all(revocations, self._clock())

    def clear(self) -> None:
        """Forget all."""
        self.current = NONE


class RedisRevocations:
    """On Redis: a hash of entries and a version that rises with each change; a thread per process follows it."""

    def __init__(
        self,
        client: Any,
        *,
        on_outage: Literal["local", "closed"] = "local",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._grace_s = GRACE_S if on_outage == "local" else INTERVAL_S * 2
        self._clock = clock
        self._monotonic = monotonic
        self._held = NONE
        self._version: bytes | None = None
        self._heard_at: float | None = None
        self._pid = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> Revocations | None:
        """The copy, unless Redis was not heard of for too long."""
        heard_at = self._heard_at
        if heard_at is None or self._monotonic() - heard_at > self._grace_s:
            return None
        return self._held

    def start(self) -> None:
        """Follow Redis in this process; after a fork anew. The thread looks first thing, so nobody waits here."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._heard_at = self._monotonic()
            threading.Thread(
                target=self._follow, args=(self._pid,), name="portalshield-revocations", daemon=True
            ).start()

    def add(self, revocations: list[Revocation]) -> None:
        """Write to Redis and to the own copy. Raises what the client raises: then nothing is certain."""
        rows = {_field(entry): f"{entry.before!r} {entry.until!r}" for entry in revocations}
        with self._lock:
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(_HASH, mapping=rows)
            pipe.incr(_VERSION)
            pipe.execute()
            self._held = self._held.with_all(revocations, self._clock())

    def look(self) -> bool:
        """Ask for the version, and for the entries where it changed. False: Redis is away."""
        try:
            version = self._client.get(_VERSION)
            if version != self._version:
                self._held = self._read()
                self._version = version
        except Exception as error:
            _log.warning("portalshield: revocations cannot be read: %s", type(error).__name__)
            return False
        self._heard_at = self._monotonic()
        return True

    def clear(self) -> None:
        """Forget the copy; the next look reads it anew."""
        self._held, self._version = NONE, None

    def _read(self) -> Revocations:
        now = self._clock()
        found = [entry for name, value in self._client.hgetall(_HASH).items() if (entry := _entry(name, value))]
        ended = [_field(entry) for entry in found if entry.until <= now]
        if ended:
            self._client.hdel(_HASH, *ended[:1000])
        return NONE.with_all(found, now)

    def _follow(self, pid: int) -> None:
        while self._pid == pid == os.getpid():
            self.look()
            time.sleep(INTERVAL_S)


def _field(entry: Revocation) -> str:
    return f"{entry.kind}:{entry.value}"


def _entry(name: bytes | str, value: bytes | str) -> Revocation | None:
    kind, _, text = (name.decode() if isinstance(name, bytes) else name).partition(":")
    before, _, until = (value.decode() if isinstance(value, bytes) else value).partition(" ")
    known: dict[str, Kind] = {item: item for item in KINDS}
    if kind not in known:
        return None  # a newer version's entry
    return Revocation(known[kind], text, float(before), float(until))
