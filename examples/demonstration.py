"""Runs an example and shows what it answers: each exchange is printed with its log line and compared with what is
expected. Shared by `fastapi_app/demo.py` and `flask_app/demo.py`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from exchanges import (
    bearer,
    browsers,
    deliveries,
    files,
    foreign_tenant,
    guesses,
    invoices,
    login,
    metrics,
    own_tenant,
    wrong_credentials,
    wrong_requests,
)
from portal_server import PASSWORD, PER_MINUTE, Answer, Ask, Server, serving
from printing import Printer


class Demonstration:
    """Sends the exchanges to one server, prints and judges them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._printer = Printer()
        self.failed = 0

    @property
    def count(self) -> int:
        """How many exchanges were printed."""
        return self._printer.count

    def run(self) -> None:
        """All of it; guesses and the flood come last because they spend the quotas of this address."""
        owner = self._log_in("coach@north.example")
        assistant = self._log_in("assistant@north.example")
        self._all(own_tenant(owner))
        self._alike(self._all(foreign_tenant(owner)), "refusals")
        self._all(wrong_credentials(self._server.token_secret, assistant))
        self._all(browsers(owner))
        self._all(wrong_requests(owner))
        self._all(files(owner))
        delivered = self._all(deliveries(self._server.stripe_secret, owner))
        self._alike(delivered[:3:2], "answers to the delivery")
        self._alike(delivered[1:4:2], "readings of the invoice")
        self._alike(self._all(invoices(owner))[:2], "answers to the clicks")
        self._all(metrics(self._server.metrics_token))
        self._all(guesses("assistant@north.example"))
        self._flood(owner)

    def exchange(self, ask: Ask) -> Answer:
        """Send, judge and print one request."""
        return self._report(ask, self._server.send(ask))

    def _all(self, asks: Iterator[Ask]) -> list[Answer]:
        return [self.exchange(ask) for ask in asks]

    def _alike(self, answers: list[Answer], what: str) -> None:
        """A foreign tenant must not be told from one that does not exist, nor a repetition from the first request."""
        alike = {answer.body.replace(answer.headers.get("x-request-id", "?").encode(), b"") for answer in answers}
        if len(alike) == 1:
            print(f"\n    These {len(answers)} {what} are the same bytes, but for the request id.")
            return
        print(f"\n    NOT AS EXPECTED: these {what} differ.")
        self.failed += 1

    def _report(self, ask: Ask, answer: Answer) -> Answer:
        log = self._server.log.line(answer.headers.get("x-request-id", "")) if ask.logged else None
        faults = [*_faults(ask, answer), *self._log_faults(ask, answer, log)]
        self.failed += bool(faults)
        self._printer.exchange(ask, answer, log, faults)
        return answer

    def _log_in(self, email: str) -> str:
        answer = self.exchange(login(email))
        if answer.status != 200:
            raise SystemExit("Nobody can log in, so nothing else can be shown.")
        issued: str = json.loads(answer.body)["access_token"]
        return issued

    def _flood(self, owner: str) -> None:
        limits = ("ratelimit", "ratelimit-policy", "retry-after")
        path = "/tenants/north/clients"
        ask = Ask(f"too many requests within a minute ({PER_MINUTE})", "GET", path, 429, bearer(owner), present=limits)
        for _ in range(2 * PER_MINUTE + 1):
            answer = self._server.send(ask)
            if answer.status == 429:
                break
        self._report(ask, answer)

    def _log_faults(self, ask: Ask, answer: Answer, log: str | None) -> Iterator[str]:
        if log is None:
            if ask.logged:
                yield "no log line has this X-Request-ID"
            return
        if json.loads(log).get("status") != answer.status:
            yield "the log line has another status"
        secret = ("Authorization", "Stripe-Signature", "Idempotency-Key")
        private = [value.rpartition(" ")[2] for name, value in ask.headers.items() if name in secret]
        private += ["walk-the-talk", "@north.example", "@mail.example", "south"]
        if any(value in log for value in private):
            yield "the log line repeats something private"


def _faults(ask: Ask, answer: Answer) -> Iterator[str]:
    if answer.status != ask.expected:
        yield f"the status should be {ask.expected}"
    for name in ask.present:
        if name not in answer.headers:
            yield f"{name} is missing"
    for name in ask.absent:
        if name in answer.headers:
            yield f"{name} should not be there"
    if ask.contains.encode() not in answer.body:
        yield f"{ask.contains} is not in the body"


def main(example: Path, command: Callable[[int], list[str]]) -> int:
    """Show everything; 0 if all of it was answered as expected, else 1.

    The server is stopped afterwards. On a terminal, or with `--serve`, it goes on until Ctrl-C.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with serving(example, command) as server:
        shown = Demonstration(server)
        shown.run()
        print(f"\n{shown.count - shown.failed} of {shown.count} exchanges were answered as expected.")
        if "--serve" in sys.argv[1:] or sys.stdin.isatty():
            print(f"The portal goes on at http://127.0.0.1:{server.port} (log in as coach@north.example, {PASSWORD};")
            print("wait a minute, the flood spent this address's quota). Ctrl-C stops it.", flush=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    print("The server has been stopped.")
    return 1 if shown.failed else 0
