"""Whose facts an event outside the doors may carry."""

from __future__ import annotations

import time

from portalshield.context import LAST
from portalshield.model.exchange import Exchange
from portalshield.protection import _just_ended


def test_a_request_that_just_ended_is_the_one_a_wrapper_reports_on() -> None:
    """Sentry's wrappers capture at once; what fails on the thread later is nobody's request."""
    x = Exchange()
    x.ended_ns = time.perf_counter_ns()
    token = LAST.set(x)
    try:
        assert _just_ended() is x
        x.ended_ns -= 2_000_000_000
        assert _just_ended() is None
    finally:
        LAST.reset(token)
    assert _just_ended() is None
