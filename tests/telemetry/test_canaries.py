"""Fifty planted values, two frameworks, every channel to Sentry and to standard output: what leaves, with and without.

The table is printed at the end of the test run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canary_apps import BY_NAME, CANARIES, CHANNELS, FRAMEWORKS, OWN_FRAMES
from programs import told_by

ROOT = Path(__file__).parents[2]
KINDS = {canary.name: canary.kind for canary in CANARIES}
OF_THE_REQUEST = {
    "query value", "path segment", "header", "cookie", "api key header", "body field", "body nested", "body list",
    "form password", "the token itself", "transaction name",
}  # fmt: skip
Report = dict[str, dict[str, dict[str, list[str]]]]


@pytest.fixture(scope="module")
def report() -> Report:
    """Everything the program found."""
    found: Report = told_by("canary_apps.py")
    return found


def left(report: Report, framework: str, configuration: str) -> dict[str, set[str]]:
    """Names of canaries by channel."""
    return {channel: set(names) for channel, names in report[framework][configuration].items()}


def test_fifty_values_are_planted_and_without_a_shield_all_of_them_leave(report: Report) -> None:
    """The control: a canary that leaves nowhere proves nothing."""
    assert len(CANARIES) == len(BY_NAME) == 50
    for framework in FRAMEWORKS:
        gone = set().union(*left(report, framework, "off").values())
        assert {*BY_NAME} - gone <= {"fingerprint extra", "structlog password"}


def test_channels_without_shield_are_all_alive(report: Report) -> None:
    """Each channel carries something when nobody looks: zero leaks are not due to silence."""
    for framework in FRAMEWORKS:
        alive = left(report, framework, "off")
        assert [channel for channel in CHANNELS if not alive[channel]] == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_strict_mode_lets_nothing_out_anywhere(report: Report, framework: str) -> None:
    """0 of 50, in every item for Sentry and in every line."""
    assert {channel: names for channel, names in left(report, framework, "strict").items() if names} == {}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_default_mode_lets_no_pattern_out_anywhere(report: Report, framework: str) -> None:
    """What has a shape of its own is found wherever it is, messages included."""
    gone = {name for names in left(report, framework, "default").values() for name in names}
    assert {name for name in gone if KINDS.get(name) == "pattern"} == set()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_default_mode_sends_structural_values_only_in_messages(report: Report, framework: str) -> None:
    """Sentry gets opaque values only where a program put them into prose."""
    found = left(report, framework, "default")
    for channel in CHANNELS:
        if channel != "stdout":
            assert {KINDS.get(name, "structural") for name in found[channel]} <= {"message"}, channel


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("configuration", ["default", "strict"])
def test_no_line_shows_what_the_request_carried(report: Report, framework: str, configuration: str) -> None:
    """Path, query, header, cookie, body: in no line of ours, of the framework, of the application's formatter."""
    assert left(report, framework, configuration)["stdout"] & OF_THE_REQUEST == set()


@pytest.mark.parametrize(
    "framework",
    [
        "fastapi",
        "flask",
    ],
)
def test_our_frames_hold_no_credential(report: Report, framework: str) -> None:
    """With `SENTRY=false` beside a client that collects locals, no frame of this package carries a token or header."""
    assert left(report, framework, "unlinked")[OWN_FRAMES] == set()


def test_table_of_channels(report: Report, record_property: Callable[[str, Any], None]) -> None:
    """Printed at the end of the run: canaries that left, per channel, framework and configuration."""
    columns = [(framework, name) for framework in FRAMEWORKS for name in ("off", "default", "strict")]
    head = f"{'canaries that left, of 50':26}" + "".join(f"{f'{framework} {name}':>17}" for framework, name in columns)
    rows = [head]
    for channel in CHANNELS:
        cells = (len(report[framework][name][channel]) for framework, name in columns)
        rows.append(f"{channel:26}" + "".join(f"{cell:>17}" for cell in cells))
    sums = (len({name for names in report[f][c].values() for name in names}) for f, c in columns)
    rows.append(f"{'any channel':26}" + "".join(f"{cell:>17}" for cell in sums))
    rows.append("default: what is left are opaque words in messages; no pattern and nothing of the request.")
    record_property("table", "\n".join(rows))
    assert len(rows) == len(CHANNELS) + 3
