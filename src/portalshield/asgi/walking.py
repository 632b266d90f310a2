"""Drives a walk with `await`: what it needs is answered here, stores, key sets, the application's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import anyio
import anyio.to_thread
from starlette.requests import HTTPConnection

from portalshield.asgi.bodies import read_body
from portalshield.asgi.messages import Receive
from portalshield.flow import Walk
from portalshield.model.exchange import Exchange
from portalshield.model.needs import (
    INSIDE,
    Answer,
    AskOwner,
    Claim,
    FetchKeys,
    GiveBack,
    Hit,
    Identify,
    Need,
    ReadBody,
    Refreshed,
    Settle,
    TenantOf,
    Unavailable,
    Work,
    Worked,
)
from portalshield.model.verdicts import Problem, Reply, Verdict
from portalshield.rules.colour import is_async
from portalshield.runtime import (
    Runtime,
)


def started(x: Exchange, runtime: Runtime, judged: Verdict | Walk) -> bool:
    """Start a walk. False: it ended or there was none, see `x.verdict`; True: it waits, see `x.pending`."""
    if judged is None or isinstance(judged, (Problem, Reply)):
        x.verdict = judged
        return False
    return _advance(x, runtime, judged, None)


def _advance(x: Exchange, runtime: Runtime, walk: Any, answer: Answer | None) -> bool:
    try:
        x.pending = walk.send(answer)
        return True
    except StopIteration as stop:
        x.verdict = stop.value
    except Exception as error:
        x.verdict = runtime.stage_failed(x, error)
    return False


async def judge(x: Exchange, runtime: Runtime, walk: Any, receive: Receive, *, inside: bool = False) -> None:
    """Answer what a walk waits for until it has ended. Outside, a need of the inner door suspends it in `x.walk`."""
    waiting = True
    while waiting:
        answer = runtime.remembered(x, x.pending)
        if answer is None:
            if isinstance(x.pending, INSIDE) and runtime.has_inner and not inside:
                x.walk = walk
                return
            answer = await answer_to(x, runtime, x.pending, receive)
        waiting = _advance(x, runtime, walk, answer)


async def answer_to(x: Exchange, runtime: Runtime, need: Need, receive: Receive) -> Answer:
    match need:
        case ReadBody():
            return await read_body(receive, need.limit, runtime.settings.body.read_timeout, need.until)
        case Hit():
            return await runtime.store.ahit(need)
        case GiveBack():
            return await runtime.store.agive_back(need)
        case Claim():
            return await runtime.records.aclaim(need)
        case Settle():
            return await runtime.records.asettle(need)
        case FetchKeys():
            keys = runtime.keys.get(need.issuer)
            if keys is None or await keys.refresh(need.kid):
                return Refreshed()
            return Unavailable("no-keys")
        case Identify():
            return await _identify(x, runtime)
        case TenantOf():
            return await _tenant_of(x, runtime, need)
        case AskOwner():
            return await _owners(x, runtime, need)
        case Work():
            return Worked(await anyio.to_thread.run_sync(need.function))
        case _:
            assert_never(need)


async def _identify(x: Exchange, runtime: Runtime) -> Answer:
    try:
        found = await _application(runtime.authenticate, HTTPConnection(x.native))
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("authenticate-failed")
    return runtime.identified(found)


async def _tenant_of(x: Exchange, runtime: Runtime, need: TenantOf) -> Answer:
    try:
        found = await _application(runtime.tenant_of, need.principal)
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("tenant-of-failed")
    return runtime.remember_tenants(x, need.principal, found)


async def _owners(x: Exchange, runtime: Runtime, need: AskOwner) -> Answer:
    """Ask the application's owners: async ones in turn, all sync ones in one worker thread."""
    tenants: list[Any] = [None] * len(need.questions)
    waiting = []
    try:
        for index, (owner, _, value) in enumerate(need.questions):
            if is_async(owner):
                tenants[index] = await owner(value)
            else:
                waiting.append((index, owner, value))
        if waiting:
            found = await anyio.to_thread.run_sync(lambda: [owner(value) for _, owner, value in waiting])
            for (index, _, _), tenant in zip(waiting, found, strict=True):
                tenants[index] = tenant
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("owner-failed")
    return runtime.owned(tenants)


async def _application(function: Callable[[Any], Any] | None, argument: Any) -> Any:
    """Call a function of the application's: awaited if it is async, in a worker thread if not."""
    if function is None:
        raise LookupError("the application gave no function to ask")
    if is_async(function):
        return await function(argument)
    return await anyio.to_thread.run_sync(function, argument)
