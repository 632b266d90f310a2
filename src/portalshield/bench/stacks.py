"""The variants of one application: bare, shielded, shielded without one layer, all behind the same `__call__`.

A stack is put in place before its batch, so every variant takes the server's way in. Limits are counted in memory and
start afresh for each batch; request lines go to the null device and are written out within the measured time.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, cast

from portalshield.asgi import AsgiDoor
from portalshield.bench.driver import Answer, AsgiCall, Call, Request, WsgiCall
from portalshield.bench.measure import Variant
from portalshield.context import CURRENT
from portalshield.model.exchange import UNREAD, Exchange
from portalshield.protection import Protection
from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.runtime import Runtime
from portalshield.settings import Settings
from portalshield.shield import Shield
from portalshield.telemetry.lines import RequestLines
from portalshield.telemetry.writer import LineWriter
from portalshield.wsgi import WsgiDoor


class NullLines:
    """Request lines that are built and written like any other, to the null device. A context manager."""

    def __init__(self) -> None:
        self._fd = os.open(os.devnull, os.O_WRONLY)
        self._writer = LineWriter(self._fd)
        pseudonyms = Pseudonyms(os.urandom(32))
        self.lines = RequestLines(self._writer, Redactor(), pseudonyms, environment="benchmark")

    def flush(self) -> None:
        """Write out what a batch queued."""
        self._writer.flush()

    def __enter__(self) -> NullLines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
        os.close(self._fd)


class NotComparableError(Exception):
    """An application that answers otherwise without the door: what it costs cannot be told."""


class Stacks:
    """One FastAPI, Starlette or Flask application with its shield, and everything it can be measured as."""

    def __init__(self, app: Any, shield: Shield, runner: asyncio.Runner, lines: NullLines) -> None:
        self.app = app
        self.settings = shield.settings
        self.answers: dict[str, Answer] = {}
        """What each variant answered before it was measured."""
        self._seen: list[Exchange] = []
        self._protection = shield.protection
        self._runner = runner
        self._lines = lines
        self._is_wsgi = is_wsgi(app)
        if not self._is_wsgi and app.middleware_stack is None:
            app.middleware_stack = app.build_middleware_stack()
        self._own = app.wsgi_app if self._is_wsgi else app.middleware_stack
        self._inside: Any = cast("AsgiDoor | WsgiDoor", self._own).app

    def probe(self, request: Request) -> Answer:
        """What the application as it stands answers. Comes first where it identifies callers itself."""
        watching = copy.copy(self._own)
        watching.app = _watched(self._inside, self._seen)
        self._place(watching)
        return call(self.app, request, self._runner).answer()

    def bare(self, name: str, request: Request, expected: int | None = None) -> Variant:
        """Without the door. Its routes still look for a request to confirm (about 1 us).

        A handler that asks who is calling gets what it got behind the door, if without that it would not answer with
        `expected`. Raises `NotComparableError` where it does not all the same.
        """
        for stack in (self._inside, _within(self._inside, self._is_wsgi, self._seen)):
            try:
                with _unlogged():
                    made = self._variant(name, stack, request, [])
            except Exception as error:
                failed = type(error).__name__
            else:
                if expected is None or self.answers[name].status == expected:
                    return made
                failed = f"status {self.answers[name].status}"
        raise NotComparableError(f"without the shield this request ends in {failed}, with it in {expected}")

    def shielded(
        self, name: str, request: Request, settings: Settings | None = None, *, refill: bool = True
    ) -> Variant:
        """With a door of these settings, default: the application's own. `refill`: quotas are full at each batch."""
        runtimes: list[Runtime] = []
        door = self._door(settings or self.settings, runtimes)
        return self._variant(name, door, request, runtimes if refill else [])

    def without(self, layer: str, request: Request) -> Variant:
        """With a door that lacks one layer."""
        name = f"{layer}_" if layer in ("json", "schema") else layer
        mode = self.settings.mode.model_copy(update={name: "off"})
        return self.shielded(f"without {layer}", request, self.settings.model_copy(update={"mode": mode}))

    def layers(self, request: Request, names: Iterable[str], expected: int) -> Iterator[Variant]:
        """With doors that lack one of these each; left out where the handler needs what is missing."""
        for name in names:
            made = None
            with suppress(Exception), _unlogged():
                made = self.without(name, request)
            if made is not None and self.answers[made.name].status == expected:
                yield made

    def without_line(self, request: Request) -> Variant:
        """With a door whose request lines stay below the level."""
        log = self.settings.log.model_copy(update={"level": "error"})
        return self.shielded("without line", request, self.settings.model_copy(update={"log": log}))

    def restore(self) -> None:
        """The application's own door again."""
        self._place(self._own)

    def _place(self, stack: Any) -> None:
        if self._is_wsgi:
            self.app.wsgi_app = stack
        else:
            self.app.middleware_stack = stack

    def _variant(self, name: str, stack: Any, request: Request, runtimes: list[Runtime]) -> Variant:
        subject = call(self.app, request, self._runner)

        def prepare() -> None:
            self._place(stack)
            for runtime in runtimes:
                runtime.store.clear()

        for _ in range(2):  # the first one compiles
            prepare()
            self.answers[name] = subject.answer()
        return Variant(name, subject.batch, prepare, self._lines.flush)

    def _door(self, settings: Settings, runtimes: list[Runtime]) -> Any:
        protection = copy.copy(self._protection)
        # Limits of a benchmark are its own business: it never counts in the store of a running service.
        storage = settings.storage.model_copy(update={"uri": "memory://"})
        protection.settings = settings.model_copy(update={"storage": storage})

        def open_runtime() -> Runtime:
            runtime = opener(self.app)(protection)
            # No lines of this level: the door then builds no record either.
            runtime.lines = self._lines.lines if settings.log.level in ("debug", "info") else None
            runtimes[:] = [runtime]
            return runtime

        return WsgiDoor(self._inside, open_runtime) if self._is_wsgi else AsgiDoor(self._inside, open_runtime)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Whether an answer can be had at all is tried here: what it logs is nobody's business."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _watched(inside: Any, seen: list[Exchange]) -> Any:
    """The application, which tells which request arrived."""

    def watched(*given: Any) -> Any:
        seen[:] = [x for x in (CURRENT.get(),) if x is not None]
        return inside(*given)

    return watched


def _within(inside: Any, wsgi: bool, seen: list[Exchange]) -> Any:
    """The application as if the request that was seen were the current one."""

    current = seen[0] if seen else None
    if current is not None:
        current.json = UNREAD  # a bare application parses by itself

    def called(environ: Any, start_response: Any) -> Any:
        token = CURRENT.set(current)
        try:
            return inside(environ, start_response)
        finally:
            CURRENT.reset(token)

    async def awaited(scope: Any, receive: Any, send: Any) -> None:
        token = CURRENT.set(current)
        try:
            await inside(scope, receive, send)
        finally:
            CURRENT.reset(token)

    return called if wsgi else awaited


def is_wsgi(app: Any) -> bool:
    """Flask, not FastAPI or Starlette."""
    return hasattr(app, "wsgi_app")


def call(app: Any, request: Request, runner: asyncio.Runner) -> Call:
    """Calls an application with a request, by its protocol."""
    return WsgiCall(app, request) if is_wsgi(app) else AsgiCall(app, request, runner)


def opener(app: Any) -> Callable[[Protection], Runtime]:
    """Compiles a protection for this application; its framework is imported only then."""
    if is_wsgi(app):
        return lambda protection: _open_flask(app, protection)
    return lambda protection: _open_starlette(app, protection)


def _open_starlette(app: Any, protection: Protection) -> Runtime:
    from portalshield.starlette import tabulate

    return protection.open(lambda b, rows: tabulate(app, b, rows), has_inner=_asks_inside(protection))


def _open_flask(app: Any, protection: Protection) -> Runtime:
    from flask import request

    from portalshield.flask import tabulate

    return protection.open(
        lambda b, rows: tabulate(app, b, rows),
        has_inner=_asks_inside(protection),
        request_of=lambda environ: cast(Any, request)._get_current_object(),
    )


def _asks_inside(protection: Protection) -> bool:
    return protection.asks_inside
