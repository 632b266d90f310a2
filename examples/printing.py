"""Prints exchanges: what goes out, what comes back, and what the log keeps of it."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Mapping

from portal_server import PASSWORD, Answer, Ask

SHOWN = 320
"""Characters of a body that are printed."""

_SHOWN_REQUEST = (
    "authorization",
    "host",
    "origin",
    "cookie",
    "content-type",
    "content-length",
    "x-tenant-id",
    "sec-fetch-site",
    "idempotency-key",
    "stripe-signature",
    "access-control-request-method",
    "access-control-request-headers",
)
_SHOWN_RESPONSE = (
    "content-type",
    "www-authenticate",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "accept-post",
    "vary",
    "cache-control",
    "strict-transport-security",
    "content-security-policy",
    "ratelimit-policy",
    "ratelimit",
    "retry-after",
    "idempotent-replayed",
    "x-request-id",
)
_TELLING = ("status", "decision", "problem", "layer", "why", "tenant", "subject")
"""Members of a log line that are printed on a terminal."""
WIDTH = 100
"""Columns of a terminal that a log line may take."""


class Printer:
    """Prints exchanges; on a terminal in colour, unless NO_COLOR is set, and of log lines what tells something."""

    def __init__(self) -> None:
        self._watched = sys.stdout.isatty()
        self._coloured = self._watched and "NO_COLOR" not in os.environ
        self.count = 0

    def exchange(self, ask: Ask, answer: Answer, log: str | None, faults: list[str]) -> None:
        """Request, response, log line, and what was wrong."""
        self.count += 1
        verdict = self._paint("31", "NOT AS EXPECTED") if faults else self._paint("32", "as expected")
        print(f"\n{self._paint('1', f'{self.count:>2}  {ask.title}')}  [{verdict}]")
        print(self._paint("36", f"  > {ask.method} {ask.path}"))
        sent = {name.lower(): value for name, value in ask.headers.items()}
        if ask.body:
            sent["content-length"] = str(len(ask.body))
        self._fields(">", sent, _SHOWN_REQUEST)
        if ask.body:
            print(f"  > {self._dim(_readable(ask.body, ask.path))}")
        print(self._paint("32" if answer.status < 400 else "33", f"  < {answer.status} {answer.reason}"))
        self._fields("<", answer.headers, _SHOWN_RESPONSE)
        if answer.body:
            print(f"  < {self._dim(_readable(answer.body, ask.path))}")
        if log is None:
            log = "(none)" if ask.logged else "(none, as it should be)"
        elif self._watched:
            log = telling(log)
        print(f"  log {log}")
        for fault in faults:
            print(self._paint("31", f"  !   {fault}"))

    def _fields(self, mark: str, fields: Mapping[str, str], names: tuple[str, ...]) -> None:
        for name in names:
            if name in fields:
                value = fields[name]
                print(f"  {mark} {name:<29} {self._dim(_shortened(value, 90))}")

    def _dim(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def telling(log: str) -> str:
    """The members of a log line that say what was decided, about whom: `name=value`, those that are null left out.

    With the mark before it, it fits into `WIDTH` columns; a break is indented to the mark's width.
    """
    members = json.loads(log)
    pairs = [f"{name}={members[name]}" for name in _TELLING if members.get(name) is not None]
    return textwrap.fill(" ".join(pairs), WIDTH - 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def _readable(body: bytes, path: str) -> str:
    text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\n", "\\n")
    if path == "/auth/login":
        text = text.replace(PASSWORD, "...")
    text = "".join(char if char.isprintable() else "." for char in text)
    return _shortened(text, SHOWN)
