"""A portal whose handlers do what a test tells them, counted: what is processed once, and what twice.

`Deeds` adds the routes, `Caller` sends requests through one door: one by one, all at once, or while another one runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import FileWrapper

import flask
from doors import Answer, AsgiDoor
from fastapi import Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from conftest import Portal
from portalshield.model.needs import Claim, Settle, Unavailable

PATIENCE_S = 20.0
"""The time-out of a store that is well: no test depends on how fast the machine is."""
Call = tuple[Any, ...]
"""The arguments of `Portal.request`."""


@dataclass
class Said:
    """What a handler answers. `stream`: in pieces, without a length; `file`: one that the server sends, if it can;
    `raises`: it fails instead."""

    status: int = 200
    body: bytes = b"done"
    fields: tuple[tuple[str, str], ...] = (("content-type", "text/plain"),)
    stream: bool = False
    file: str = ""
    raises: BaseException | None = None


class Deeds:
    """Routes such as `POST|PUT /orders/{number}`. `runs` has method, path and body of each time a handler ran."""

    def __init__(self, *routes: str) -> None:
        self._routes = [route.split(" ") for route in routes]
        self.runs: list[tuple[str, str, bytes]] = []
        self.say: Callable[[bytes], Said] = lambda body: Said()
        self.entered: Any = None
        self.release: Any = None

    def add_to(self, app: Any) -> None:
        """Add the routes to either framework's application."""
        for methods, path in self._routes:
            if hasattr(app, "wsgi_app"):
                rule = path.replace("{", "<").replace("}", ">")
                app.add_url_rule(rule, view_func=self._view, methods=methods.split("|"), endpoint=path)
            else:
                app.add_api_route(path, self._handler, methods=methods.split("|"), response_model=None)

    async def _handler(self, request: Request) -> Any:
        body = await request.body()
        self.runs.append((request.method, request.url.path, body))
        if self.entered is not None and not self.entered.is_set():
            self.entered.set()
            await self.release.wait()
        said = self.say(body)
        if said.raises is not None:
            raise said.raises
        if said.file:
            return FileResponse(said.file)
        made = StreamingResponse(_apieces(said.body), said.status) if said.stream else Response(said.body, said.status)
        for name, value in said.fields:
            made.headers.append(name, value)
        return made

    def _view(self, **_: Any) -> Any:
        request = flask.request
        body = request.get_data()
        self.runs.append((request.method, request.path, body))
        if self.entered is not None and not self.entered.is_set():
            self.entered.set()
            self.release.wait(20)
        said = self.say(body)
        if said.raises is not None:
            raise said.raises
        if said.file:
            return flask.send_file(said.file)
        made = flask.Response(_pieces(said.body) if said.stream else said.body, said.status)
        del made.headers["content-type"]
        for name, value in said.fields:
            made.headers.add(name, value)
        return made


def _pieces(body: bytes) -> Iterator[bytes]:
    yield body[:1]
    yield body[1:]


async def _apieces(body: bytes) -> AsyncIterator[bytes]:
    for piece in _pieces(body):
        yield piece


@dataclass
class Caller:
    """Sends requests to a portal. The ASGI door keeps one event loop, as a server does."""

    portal: Portal
    deeds: Deeds
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    @property
    def asgi(self) -> bool:
        """Which door it is."""
        return isinstance(self.portal.door, AsgiDoor)

    @property
    def runtime(self) -> Any:
        """The compiled application; the first request compiles it."""
        runtime = self.portal.shield.protection._runtime
        assert runtime is not None
        return runtime

    @property
    def bodies(self) -> list[bytes]:
        """What handlers were given, in their order."""
        return [body for _, _, body in self.deeds.runs]

    def open(self) -> Caller:
        """Compile the portal; a machine that is busy for a quarter of a second is no outage."""
        self.send("GET", "/public")
        if hasattr(self.runtime.records, "wire"):
            self.runtime.records.wire._timeout_s = PATIENCE_S
        return self

    def send(self, *call: Any) -> Answer:
        """One request."""
        return self.runner.run(self._asent(call)) if self.asgi else self.portal.request(*call)

    def _asent(self, call: Call) -> Any:
        door = self.portal.door
        assert isinstance(door, AsgiDoor)
        return door.arequest(*call)

    def together(self, calls: Sequence[Call]) -> list[Answer]:
        """All at the same moment."""
        if self.asgi:
            return self.runner.run(self._gathered(calls))
        ready = threading.Barrier(len(calls))

        def sent(call: Call) -> Answer:
            ready.wait(20)
            return self.portal.request(*call)

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(sent, calls))

    async def _gathered(self, calls: Sequence[Call]) -> list[Answer]:
        return await asyncio.gather(*(self._asent(call) for call in calls))

    def while_running(self, first: Call, others: Sequence[Call]) -> tuple[Answer, list[Answer]]:
        """`others`, one by one, while the handler of `first` has not answered yet."""
        if self.asgi:
            return self.runner.run(self._awhile_running(first, others))
        with self._gate(threading.Event()), ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.portal.request, *first)
            assert self.deeds.entered.wait(20)
            try:
                answers = [self.portal.request(*call) for call in others]
            finally:
                self.deeds.release.set()
            return running.result(), answers

    async def _awhile_running(self, first: Call, others: Sequence[Call]) -> tuple[Answer, list[Answer]]:
        with self._gate(asyncio.Event()):
            running = asyncio.ensure_future(self._asent(first))
            await self.deeds.entered.wait()
            answers = [await self._asent(call) for call in others]
            self.deeds.release.set()
            return await running, answers

    def hands_over(self) -> Caller:
        """The server offers to send files by itself."""
        door = self.portal.door
        if isinstance(door, AsgiDoor):
            door.scope_extra = {"extensions": {"http.response.pathsend": {}}}
        else:
            door.environ_extra = {"wsgi.file_wrapper": FileWrapper}
        return self

    def cancelled(self, call: Call) -> None:
        """The request ends in the middle of its handler: cancelled under ASGI, under WSGI the worker is told to go."""
        if self.asgi:
            self.runner.run(self._acancelled(call))
            return
        said, self.deeds.say = self.deeds.say, lambda body: Said(raises=SystemExit())
        try:
            self.portal.request(*call)
        except SystemExit:
            return
        finally:
            self.deeds.say = said
        raise AssertionError("the request came to its end")

    async def _acancelled(self, call: Call) -> None:
        with self._gate(asyncio.Event()):
            running = asyncio.ensure_future(self._asent(call))
            await self.deeds.entered.wait()
            running.cancel()
            try:
                await running
            except asyncio.CancelledError:
                return
        raise AssertionError("the request came to its end")

    @contextmanager
    def _gate(self, release: Any) -> Iterator[None]:
        self.deeds.entered, self.deeds.release = type(release)(), release
        try:
            yield
        finally:
            self.deeds.entered = self.deeds.release = None

    def close(self) -> None:
        """Give back what was opened."""
        self.portal.shield.protection.revocations.stop()
        self.runner.run(self.runtime.records.aclose())
        self.runner.run(self.runtime.store.aclose())
        self.runner.close()


class FailingRecords:
    """Records behind a store that does not answer one kind of question; `lost`: it did what was asked all the same."""

    is_local = True

    def __init__(self, inner: Any, kind: type[Any], *, lost: bool = False) -> None:
        self._inner = inner
        self._kind = kind
        self._lost = lost

    def claim(self, claim: Claim) -> Any:
        return self._fails(claim) or self._inner.claim(claim)

    def settle(self, settle: Settle) -> Any:
        return self._fails(settle) or self._inner.settle(settle)

    async def aclaim(self, claim: Claim) -> Any:
        return self.claim(claim)

    async def asettle(self, settle: Settle) -> Any:
        return self.settle(settle)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _fails(self, need: Any) -> Unavailable | None:
        if not isinstance(need, self._kind):
            return None
        if self._lost:
            (self._inner.claim if isinstance(need, Claim) else self._inner.settle)(need)
        return Unavailable("store-timeout")
