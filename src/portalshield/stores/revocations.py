"""Where revocations are kept: in this process, or on Redis for all workers.

Every worker holds a copy and looks for changes every two seconds, so that a revocation counts everywhere within five.
While Redis does not answer the copy counts for `GRACE_S`, or, where the policy is closed, until the next look but one;
then nobody can tell who was revoked, and tokens are refused with 503. A process that has not heard of Redis at all
knows nothing and waits for it: an empty copy would let everybody back in.

On Redis there is one hash: a field per entry, and a version that is drawn anew with each change. Both are lost together
(a restart without persistence, an eviction); then every worker writes back what it still holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, Literal, Protocol

from portalshield.rules.revocation import KINDS, MAX_ENTRIES, NONE, Kind, Revocation, Revocations
from portalshield.stores import redis_address

_log = logging.getLogger("portalshield")
OnOutage = Literal["local", "closed"]
HASH = "portalshield:1:revocations"
VERSION = "version"
INTERVAL_S = 2.0
GRACE_S = 60.0
TIMEOUT_S = 0.1
_CLOSED_AFTER = 2.25
"""Looks: one that fails is no outage yet, and 4.5 seconds are within the five."""
_FIRST_LOOK_S = 0.3
_KEPT_S = 3600.0
"""An entry that ended leaves Redis only when it has by every worker's clock."""
_CHUNK = 1000
_ADD = """
local limit, version = tonumber(ARGV[1]), ARGV[2]
if redis.call('HLEN', KEYS[1]) + (#ARGV - 2) / 3 > limit + 1 then return 0 end
for i = 3, #ARGV, 3 do
  local name, before, finish = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local held = redis.call('HGET', KEYS[1], name)
  if held then
    local held_before, held_finish = string.match(held, '^(%S+) (%S+)$')
    if held_before and tonumber(held_before) > tonumber(before) then before = held_before end
    if held_finish and tonumber(held_finish) > tonumber(finish) then finish = held_finish end
  end
  redis.call('HSET', KEYS[1], name, before .. ' ' .. finish)
end
redis.call('HSET', KEYS[1], 'version', version)
return 1
"""
"""Two workers may revoke the same at once: the later times count, as in `Revocations.with_all`."""


class RevocationStore(Protocol):
    """What the authority, the doors and `Shield.revoke` need."""

    @property
    def current(self) -> Revocations | None:
        """The list of this moment; None: nobody can tell."""

    def start(self) -> None:
        """Begin to follow other workers, in this process. Idempotent and cheap."""

    def stop(self) -> None:
        """Follow nobody any more, in this process."""

    def add(self, revocations: list[Revocation]) -> None:
        """Revoke. Raises where that is not certain to have happened."""

    def look(self) -> bool:
        """Read the list now, blocking. False: it cannot be read."""

    def clear(self) -> None:
        """Forget the local copy (a test run)."""


def open_revocations(uri: str, on_outage: OnOutage = "local") -> RevocationStore:
    """On Redis where `uri` is one that `open_store` uses redis-py for, else in this process. Opens no connection."""
    address = redis_address(uri)
    return LocalRevocations() if address is None else RedisRevocations(partial(_client, address), on_outage=on_outage)


def _client(uri: str) -> Any:
    import redis  # an extra
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        uri, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


class LocalRevocations:
    """In this process only."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.current: Revocations | None = NONE
        self._clock = clock
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to follow."""

    def stop(self) -> None:
        """Nothing to end."""

    def add(self, revocations: list[Revocation]) -> None:
        """Revoke, from now on."""
        with self._lock:
            self.current = (self.current or NONE).with_all(revocations, self._clock())

    def look(self) -> bool:
        """Always known."""
        return True

    def clear(self) -> None:
        """Forget all."""
        self.current = NONE


class RedisRevocations:
    """On Redis; a thread per process follows what others revoke.

    `connect` makes a client, once per process. A process that forks later has a copy, and follows once it is started.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        on_outage: OnOutage = "local",
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._interval_s = interval_s
        self._grace_s = GRACE_S if on_outage == "local" else interval_s * _CLOSED_AFTER
        self._clock = clock
        self._monotonic = monotonic
        self._held = NONE
        self._version: Any = None
        self._unsent = False
        self._heard_at: float | None = None
        self._away = False
        self._process = _Process()

    @property
    def current(self) -> Revocations | None:
        """The copy, unless Redis was not heard of for too long. No thread need be alive for that to be noticed."""
        heard_at = self._heard_at
        if heard_at is None or self._monotonic() - heard_at > self._grace_s:
            return None
        return self._held

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow Redis in this process; after a fork anew. Waits for the first look, but no server may hang it."""
        process = self._here()
        with process.lock:
            if process.thread is not None:
                return
            looked = threading.Event()
            process.thread = threading.Thread(
                target=_follow,
                args=(weakref.ref(self), process.stopped, looked, self._interval_s),
                name="portalshield-revocations",
                daemon=True,
            )
        process.thread.start()
        looked.wait(_FIRST_LOOK_S)

    def stop(self) -> None:
        """End the thread of this process. Does not wait for it."""
        process, self._process = self._here(), _Process()
        process.stopped.set()
        process.close()

    def _here(self) -> _Process:
        process = self._process
        if process.pid != os.getpid():
            # Locks and sockets of the parent are none of this process's; they stay referenced, so nothing closes them.
            self._process = process = _Process(inherited=process)
        return process

    # -- asking -------------------------------------------------------------------------------------------------------

    def add(self, revocations: list[Revocation]) -> None:
        """Revoke here at once and write it to Redis.

        `ConnectionError`: Redis did not confirm it. It counts in this process and is tried again, but that is not
        certain. `OverflowError`: there are too many.
        """
        process = self._here()
        with process.lock:
            self._held = self._held.with_all(revocations, self._clock())
        try:
            _write(process.client(self._connect), revocations)
        except OverflowError:
            raise
        except Exception as error:
            self._unsent = True
            raise ConnectionError(
                f"Redis did not confirm the revocation ({type(error).__name__}): it is not certain, try again"
            ) from error

    def look(self) -> bool:
        """Ask for the version, and for the entries where it changed. False: Redis is away."""
        began = self._monotonic()
        process = self._here()
        try:
            client = process.client(self._connect)
            version = client.hget(HASH, VERSION)
            lost = version is None and self._held is not NONE
            if self._unsent or lost or version != self._version:
                self._reconcile(client, process.lock)
        except Exception as error:  # the boundary to a foreign program: whatever comes out of it means "away"
            if not self._away:
                self._away = True
                _log.warning("portalshield: revocations cannot be read (%s)", type(error).__name__)
            return False
        self._heard_at = began
        if self._away:
            self._away = False
            _log.warning("portalshield: revocations can be read again")
        return True

    def clear(self) -> None:
        """Forget the copy; the next look reads it anew."""
        with self._here().lock:
            self._held, self._version, self._unsent = NONE, None, False

    def _reconcile(self, client: Any, lock: threading.Lock) -> None:
        """Read all; what is held and missing there (never sent, or lost there) is written back."""
        rows = client.hgetall(HASH)
        now = self._clock()
        found = [entry for name, value in rows.items() if (entry := _entry(name, value)) is not None]
        there = NONE.with_all(found, now).entries
        with lock:
            self._held = self._held.with_all(found, now)
            missing = [entry for key, entry in self._held.entries.items() if there.get(key) != entry]
            self._unsent = False
        self._version = rows.get(VERSION.encode(), rows.get(VERSION))
        ended = [_name(entry) for entry in found if entry.until + _KEPT_S <= now]
        try:
            _write(client, missing)
            if ended:
                client.hdel(HASH, *ended[:_CHUNK])
        except Exception:  # full, or read-only: what was read is known all the same
            self._unsent = True


class _Process:
    """What one process holds; a forked child begins with its own."""

    def __init__(self, inherited: _Process | None = None) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.stopped = threading.Event()
        self._client: Any = None
        self._inherited = inherited

    def client(self, connect: Callable[[], Any]) -> Any:
        """The client, made when it is first needed. Two threads may make one each: the second stays."""
        client = self._client
        if client is None:
            client = self._client = connect()
        return client

    def close(self) -> None:
        """Close the connections of this process."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()


def _follow(
    ref: weakref.ref[RedisRevocations], stopped: threading.Event, looked: threading.Event, interval_s: float
) -> None:
    """Until it is stopped, or nobody needs the store any more."""
    while not stopped.is_set():
        store = ref()
        if store is None:
            return
        store.look()
        looked.set()
        del store
        stopped.wait(interval_s)


def _write(client: Any, entries: Iterable[Revocation]) -> None:
    rows = [(_name(entry), _number(entry.before), _number(entry.until)) for entry in entries]
    for start in range(0, len(rows), _CHUNK):
        texts = [text for row in rows[start : start + _CHUNK] for text in row]
        if not client.eval(_ADD, 1, HASH, MAX_ENTRIES, secrets.token_hex(8), *texts):
            raise OverflowError(f"Redis holds {MAX_ENTRIES} revocations: revoke a subject, tenant or issuer instead")


def _name(entry: Revocation) -> str:
    return f"{entry.kind}:{entry.value}"


def _number(value: float) -> str:
    """As Python and every Lua read it: newer ones refuse the word `inf`."""
    return repr(float(value)) if value != inf else "1e999"


_KINDS: dict[str, Kind] = {kind: kind for kind in KINDS}


def _entry(name: bytes | str, value: bytes | str) -> Revocation | None:
    kind, _, text = (name.decode() if isinstance(name, bytes) else name).partition(":")
    if kind not in _KINDS:
        return None  # the version, or a newer release's entry
    before, _, until = (value.decode() if isinstance(value, bytes) else value).partition(" ")
    return Revocation(_KINDS[kind], text, float(before), float(until))
