"""Drives a walk: what it needs is answered here, stores, key sets, the application's own functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

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
from portalshield.runtime import Runtime
from portalshield.wsgi.bodies import read_body


def judge(x: Exchange, runtime: Runtime, judged: Any, *, inside: bool = False) -> Verdict:
    """Drive a walk to its verdict. Outside, a need of the inner door suspends it: `x.walk` stays set, verdict None."""
    if judged is None or isinstance(judged, (Problem, Reply)):
        return judged
    try:
        need = judged.send(None) if not inside else x.pending
        while True:
            answer = runtime.remembered(x, need)
            if answer is None:
                if isinstance(need, INSIDE) and runtime.has_inner and not inside:
                    x.walk, x.pending = judged, need
                    return None
                answer = answer_to(x, runtime, need)
            need = judged.send(answer)
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return verdict
    except Exception as error:
        return runtime.stage_failed(x, error)


def answer_to(x: Exchange, runtime: Runtime, need: Need) -> Answer:
    match need:
        case ReadBody():
            return read_body(x.native, need.limit, need.until)
        case Hit():
            return runtime.store.hit(need)
        case GiveBack():
            return runtime.store.give_back(need)
        case Claim():
            return runtime.records.claim(need)
        case Settle():
            return runtime.records.settle(need)
        case FetchKeys():
            keys = runtime.keys.get(need.issuer)
            fresh = keys is None or keys.refresh_sync(need.kid)
            return Refreshed() if fresh else Unavailable("no-keys")
        case Identify():
            return _identify(x, runtime)
        case TenantOf():
            return _tenant_of(x, runtime, need)
        case AskOwner():
            return _owners(x, runtime, need)
        case Work():
            return Worked(need.function())
        case _:
            assert_never(need)


def _identify(x: Exchange, runtime: Runtime) -> Answer:
    try:
        found = _application(runtime.authenticate, runtime.request_of(x.native))
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("authenticate-failed")
    return runtime.identified(found)


def _tenant_of(x: Exchange, runtime: Runtime, need: TenantOf) -> Answer:
    try:
        found = _application(runtime.tenant_of, need.principal)
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("tenant-of-failed")
    return runtime.remember_tenants(x, need.principal, found)


def _owners(x: Exchange, runtime: Runtime, need: AskOwner) -> Answer:
    try:
        found = [_application(owner, value) for owner, _, value in need.questions]
    except Exception as error:
        runtime.on_crash(x, error)
        return Unavailable("owner-failed")
    return runtime.owned(found)


def _application(function: Callable[[Any], Any] | None, argument: Any) -> Any:
    """Call a function of the application's; an async one gets a loop of its own."""
    if function is None:
        raise LookupError("the application gave no function to ask")
    if is_async(function):
        return asyncio.run(function(argument))
    return function(argument)
