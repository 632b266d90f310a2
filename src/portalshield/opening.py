"""The runtime of an application is compiled once per process, when its first scope or request arrives."""

from __future__ import annotations

import logging
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from portalshield.model.setting import ConfigurationError
from portalshield.model.verdicts import problem
from portalshield.runtime import Runtime
from portalshield.wire import Rendered, render

_UNOPENED = problem(
    "unavailable", why="not-compiled", fields=((b"retry-after", b"30"), (b"x-content-type-options", b"nosniff"))
)
_log = logging.getLogger("portalshield")


class Opening:
    """The runtime of one application, compiled once, when its first scope or request arrives.

    What cannot be compiled (a wrong setting or wiring that nobody could see earlier) is logged once and stays `error`:
    a door then refuses every request.
    """

    def __init__(self, open_runtime: Callable[[], Runtime]) -> None:
        self._open = open_runtime
        self._compiled: Runtime | None = None
        self._lock = threading.Lock()
        self.runtime: Runtime | None = None
        self.error: Exception | None = None
        _OPENINGS.add(self)

    def attempt(self, *, several: bool = False) -> Runtime | None:
        """The runtime; None where it cannot be compiled. Threads that come together compile it once.

        `several`: the server says that this process is one of many.
        """
        with self._lock:
            if self.runtime is None and self.error is None:
                try:
                    self.runtime = self._start(several=several)
                except Exception as error:
                    self.error = error
                    _log.critical("portalshield refuses every request (503): %s", _why(error))
            return self.runtime

    def forked(self) -> None:
        """In a child: what was compiled stays, but threads do not survive a fork. The next request starts its own."""
        self._lock = threading.Lock()
        self._compiled, self.runtime = self.runtime or self._compiled, None

    def _start(self, *, several: bool) -> Runtime:
        runtime = self._compiled or self._open()
        if several and runtime.apart is not None:
            raise ConfigurationError((runtime.apart,))
        for keys in runtime.keys.values():
            keys.start()
        if runtime.revocations is not None:
            runtime.revocations.start()
        return runtime


_OPENINGS: weakref.WeakSet[Opening] = weakref.WeakSet()


def _forked() -> None:
    for opening in list(_OPENINGS):
        opening.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _why(error: Exception) -> str:
    """What may be told: our own text names no value, anybody else's message could."""
    if isinstance(error, ConfigurationError):
        return str(error)
    return "\n".join((type(error).__name__, *traceback.format_tb(error.__traceback__)))


def unopened(request_id: str, method: str, accept: bytes | None) -> Rendered:
    """503 for a request that nobody can judge because the application could not be compiled."""
    status, fields, body = render(_UNOPENED, request_id, accept)
    return status, [*fields, (b"x-request-id", request_id.encode())], b"" if method == "HEAD" else body


def nobody(outer: Runtime) -> bool:
    """Judge again, whoever has judged it."""
    return False


def looked_through(app: Any) -> Iterator[Any]:
    """An application and what it wraps (`app.mount("/x", GZipMiddleware(sub))`): wrappers keep that in `app`."""
    for _ in range(_WRAPPED):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)


_WRAPPED = 16
"""Wrappers around an application that are looked through."""
