"""What every test shares: hypothesis profiles, tables at the end, no logging set-up that reaches the next test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from portalshield.telemetry import logs

settings.register_profile("default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tables that tests measured (`record_property("table", text)`), whether or not they ran in another process."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == "table" and report.when == "call":
                terminalreporter.write_sep("-", report.nodeid.rpartition("::")[2])
                terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logs.uninstall()


# -- Redis servers of the tests' own -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared() -> Iterator[Any]:
    """One server for the tests that leave it well."""
    yield from _redis()


@pytest.fixture
def server(shared: Any) -> Any:
    """That one, empty."""
    shared.admin("FLUSHALL")
    return shared


@pytest.fixture
def victim() -> Iterator[Any]:
    """A server to be maltreated."""
    yield from _redis()


def _redis() -> Iterator[Any]:
    from redis_server import Server  # skips where there is no Redis

    server = Server()
    yield server
    server.close()
