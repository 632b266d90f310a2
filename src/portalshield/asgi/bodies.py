"""Request bodies: read within limits, handed on exactly as they came, guarded where they stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.to_thread

from portalshield.asgi.messages import Message, Receive
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    Body,
    BodyAnswer,
    Gone,
    TimedOut,
    TooLarge,
)
from portalshield.model.verdicts import Problem
from portalshield.runtime import (
    NO_BODY,
)


async def read_body(
    receive: Receive, limit: int, timeout_s: float, until: Callable[[bytes], bool] | None = None
) -> BodyAnswer:
    """Read a body of at most `limit` bytes within `timeout_s` seconds, all of it or as far as `until` wants.

    Most bodies have arrived with the request: the time-out is set up only when there is something to wait for.
    """
    reading = _Reading(limit, until)
    ready, begun = _begin(receive)
    if ready is not None and (answer := reading.take(ready)) is not None:
        return answer
    with anyio.move_on_after(timeout_s):
        while True:
            message = await (begun if begun is not None else receive())
            begun = None
            answer = reading.take(message)
            if answer is not None:
                return answer
    return TimedOut(b"".join(reading.chunks))


class _Reading:
    """A body while it arrives."""

    __slots__ = ("_limit", "_size", "_until", "chunks")

    def __init__(self, limit: int, until: Callable[[bytes], bool] | None) -> None:
        self._limit = limit
        self._until = until
        self._size = 0
        self.chunks: list[bytes] = []

    def take(self, message: Message) -> BodyAnswer | None:
        """One message more; the answer when it was enough."""
        if message["type"] == "http.disconnect":
            return Gone()
        chunk = message.get("body", b"")
        ended = not message.get("more_body", False)
        chunks = self.chunks
        chunks.append(chunk)
        self._size += len(chunk)
        enough = ended if self._until is None else self._until(chunk) or ended
        if self._size > self._limit:
            return TooLarge(b"".join(chunks), complete=ended)
        return Body(chunks[0] if len(chunks) == 1 else b"".join(chunks), complete=ended) if enough else None


def _begin(receive: Receive) -> tuple[Message | None, Awaitable[Message] | None]:
    """The next message if it is there already, else what to await for it."""
    coming = receive()
    if not isinstance(coming, Coroutine):
        return None, coming
    try:
        return None, _Begun(coming, coming.send(None))
    except StopIteration as stop:
        message: Message = stop.value
        return message, None


class _Begun:
    """A coroutine that was stepped once and now waits: awaiting it goes on from there, what it waits for first."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Message], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        waits_for = self._waits_for
        try:
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self._coroutine.throw(error)
                else:
                    waits_for = self._coroutine.send(sent)
        except StopIteration as stop:
            message: Message = stop.value
            return message


def outgoing(x: Exchange, receive: Receive) -> Receive:
    """What the application receives: what was read of the body, once, then the real messages, guarded where a body
    was not read to its end."""
    if x.body is not None:
        receive = _replay(x.body, x.body_complete, receive)
        if x.body_complete:
            return receive
    elif not x.has_body:
        return _guarded(x, NO_BODY, receive)
    judges = [judge for guard in x.plan.guards if (judge := guard(x)) is not None]
    return _guarded(x, judges, receive) if judges else receive


def _replay(body: bytes, complete: bool, receive: Receive) -> Receive:
    pending = True

    async def replayed() -> Message:
        nonlocal pending
        if pending:
            pending = False
            return {"type": "http.request", "body": body, "more_body": not complete}
        return await receive()

    return replayed


def _guarded(x: Exchange, judges: list[Callable[[bytes], Problem | None]], receive: Receive) -> Receive:
    async def guarded() -> Message:
        if x.late is not None:
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            x.bytes_in += len(chunk)
            refusal = _judged(judges, chunk) if chunk else None
            if refusal is None and not message.get("more_body", False):
                refusal = _judged(judges, b"")
            if refusal is not None:
                x.late, x.layer = refusal, x.layer or "body"
                return {"type": "http.disconnect"}
        return message

    return guarded


def _judged(judges: list[Callable[[bytes], Problem | None]], chunk: bytes) -> Problem | None:
    for judge_chunk in judges:
        refusal = judge_chunk(chunk)
        if refusal is not None:
            return refusal
    return None
