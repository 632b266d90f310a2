"""What the demos print of a log line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from portal_server import Answer, Ask  # type: ignore[import-not-found]
from printing import WIDTH, Printer, telling  # type: ignore[import-not-found]

LINE = {
    "timestamp": "2026-01-01T00:00:00.000Z",
    "status": 404,
    "decision": "refused",
    "problem": "not-found",
    "layer": "tenant",
    "why": "foreign-tenant-in-the-path-of-a-request-that-is-told-at-length",
    "tenant": "t_0123456789abcdef",
    "subject": None,
}


def test_a_terminal_is_told_what_was_decided() -> None:
    """In columns that fit; what is null is left out."""
    text = telling(json.dumps(LINE))
    assert " ".join(text.split()) == (
        "status=404 decision=refused problem=not-found layer=tenant "
        "why=foreign-tenant-in-the-path-of-a-request-that-is-told-at-length tenant=t_0123456789abcdef"
    )
    assert max(map(len, f"  log {text}".splitlines())) <= WIDTH


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pipe_gets_the_whole_line(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was written; a terminal gets what it tells."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    log = json.dumps(LINE)
    Printer().exchange(Ask("a foreign id", "GET", "/", 404), Answer(404, "Not Found", {}, b""), log, [])
    shown = capsys.readouterr().out.partition("  log ")[2].rstrip("\n")
    assert shown == (telling(log) if terminal else log)
