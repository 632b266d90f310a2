"""The metrics page: what Prometheus reads, at a path of the shield's own.

Refuses with 401 whoever does not show the configured token; answers everybody else without asking the application.
Does not cover: networks that only Prometheus should reach (the proxy's). Costs nothing on any other path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from portalshield.model.exchange import Exchange
from portalshield.model.needs import Work, Worked
from portalshield.model.verdicts import Reply, Verdict, problem

_UNKNOWN = problem("unauthenticated", why="metrics-token", fields=((b"www-authenticate", b"Bearer"),))


class ExpositionStage:
    """`admits(authorization)` says who may read; `page(accept)` is content type and body."""

    layer = "metrics"

    def __init__(self, admits: Callable[[bytes | None], bool], page: Callable[[str | None], tuple[str, bytes]]) -> None:
        self._admits = admits
        self._page = page

    def check(self, x: Exchange) -> Verdict:
        """401 without the token."""
        return None if self._admits(x.headers.get(b"authorization")) else _UNKNOWN

    def ask(self, x: Exchange) -> Work:
        """The page; for hundreds of routes that is a matter of milliseconds."""
        accept = x.headers.get(b"accept")
        return Work(partial(self._page, accept.decode("latin-1") if accept is not None else None))

    def settle(self, x: Exchange, need: Work, answer: Worked) -> Verdict:
        """Answer with it."""
        content_type, body = answer.value
        return Reply(200, ((b"content-type", content_type.encode()), (b"cache-control", b"no-store")), body)
