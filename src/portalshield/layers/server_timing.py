"""`Server-Timing`: how long the application and the shield took, for the browser's own tools (W3C Server Timing).

Off by default, only for callers who are known, never where passwords or codes are checked: how long that takes says
whether an account exists. Does not cover: databases and anything else inside the application.
"""

from __future__ import annotations

from collections.abc import Callable

from portalshield.model.exchange import Exchange
from portalshield.model.policy import EffectivePolicy
from portalshield.model.verdicts import Fields

Timing = Callable[[Exchange], bytes]
"""The value of the field as of now."""


class ServerTimingStage:
    """Tells how long it took until the head left."""

    layer = "headers"

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def numbers(self, x: Exchange) -> Fields:
        """The field, on answers of the application to a principal."""
        return ((b"server-timing", self._timing(x)),) if x.principal is not None and x.entered_ns else ()


def value_of(duration_ns: int, overhead_ns: int) -> bytes:
    """The application's and the shield's share of what has passed, in milliseconds, rounded to 0.1."""
    app = max(0, duration_ns - overhead_ns) // 100_000 / 10
    return b"app;dur=%.1f, shield;dur=%.1f" % (app, overhead_ns // 100_000 / 10)


def stage(policy: EffectivePolicy, timing: Timing | None) -> ServerTimingStage | None:
    """None where it is off, on public routes and on those with a login brake."""
    return None if timing is None or policy.public or policy.login is not None else ServerTimingStage(timing)
