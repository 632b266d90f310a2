"""The self-test: silent where redaction works, loud where a channel leaks, and everything as it was afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
import sqlalchemy
import structlog

from portalshield import Settings, Shield
from portalshield.telemetry import logs
from portalshield.telemetry import selftest as module
from portalshield.telemetry.config import LogConfig, SentryConfig
from portalshield.telemetry.projection import Projection
from portalshield.telemetry.selftest import FOREIGN, selftest
from portalshield.testing.tokens import environment


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    sentry_sdk.get_global_scope().set_client(None)
    structlog.reset_defaults()
    yield
    sentry_sdk.get_global_scope().set_client(None)
    structlog.reset_defaults()


@pytest.mark.parametrize("mode", ["default", "strict"])
def test_nothing_survives_as_installed(mode: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """No flaw, nothing printed, and neither logging nor structlog is different afterwards."""
    handle = logging.Logger.handle
    handlers = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate) for name in FOREIGN}
    assert selftest(LogConfig(redact_mode=mode)) == []
    assert logging.Logger.handle is handle
    assert not structlog.is_configured()
    assert handlers == {n: (logging.getLogger(n).handlers[:], logging.getLogger(n).propagate) for n in FOREIGN}
    assert capfd.readouterr() == ("", "")


def test_record_that_is_not_redacted_is_found_in_every_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps the redactor from records shows in all loggers of the list."""
    monkeypatch.setattr(logs, "redact_record", lambda record, redactor: None)
    found = {flaw.where for flaw in selftest()}
    assert {f"logging {name}" for name in FOREIGN} <= found
    assert all(flaw.severity == "critical" for flaw in selftest())


def test_handler_class_that_formats_tracebacks_by_itself_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A formatter that bypasses the redacted traceback lets the exception's text out."""
    monkeypatch.setattr(logs, "redacted_traceback", lambda text, redactor: text)
    assert [(flaw.slug, flaw.where) for flaw in selftest()] == [("survived", "logging tracebacks")]


def test_structlog_configuration_without_redactor_is_found() -> None:
    """A tuple of processors cannot be joined: the finding, and the proof."""
    structlog.configure(processors=(structlog.processors.JSONRenderer(),))  # type: ignore[arg-type]
    flaws = selftest()
    assert ("structlog-not-redacted", "structlog") in [(flaw.slug, flaw.where) for flaw in flaws]
    assert ("survived", "structlog") in [(flaw.slug, flaw.where) for flaw in flaws]


@pytest.mark.parametrize(
    ("method", "channel"),
    [
        ("event", "Sentry errors"),
        ("breadcrumb", "Sentry breadcrumbs"),
        ("log", "Sentry logs"),
        ("span", "Sentry spans"),
    ],
)
def test_leaking_hook_is_found(monkeypatch: pytest.MonkeyPatch, method: str, channel: str) -> None:
    """A projection that passes its item on is named."""
    monkeypatch.setattr(Projection, method, lambda self, item: item)
    assert ("survived", channel) in [(flaw.slug, flaw.where) for flaw in selftest()]


def test_settings_of_an_adopted_client_are_found() -> None:
    """`data_collection` is told; with SENTRY=false a client that reads bodies is."""
    sentry_sdk.init("https://public@sentry.invalid/1", default_integrations=False, data_collection={"user_info": False})
    try:
        assert [flaw.slug for flaw in selftest()] == ["data-collection-set"]
    finally:
        sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.init("https://public@sentry.invalid/1", default_integrations=False)
    try:
        assert [flaw.id for flaw in selftest(sentry_config=SentryConfig(enabled=False))] == ["PS-SENTRY-102"]
    finally:
        sentry_sdk.get_client().close(timeout=0)


def test_engine_that_prints_parameters_is_found() -> None:
    """`echo=True` without `hide_parameters` is a finding; with it there is none; the password of the URL is nowhere."""
    engine = sqlalchemy.create_engine("sqlite://", echo=True)
    hidden = sqlalchemy.create_engine("sqlite://", echo=True, hide_parameters=True)
    assert [(flaw.slug, flaw.where) for flaw in selftest()] == [("engine-shows-parameters", "sqlite")]
    engine.echo = False
    assert selftest() == []
    assert hidden.echo


def test_selftest_beside_a_running_application_leaves_it_alone() -> None:
    """What is installed is tested as it is, and stays."""
    sent: list[bytes] = []

    class Sink:
        def emit(self, line: bytes, *, eventful: bool = True) -> None:
            sent.append(line)

    logs.install(Sink(), module.Redactor())  # type: ignore[arg-type]
    handle = logging.Logger.handle
    assert selftest() == []
    assert logging.Logger.handle is handle
    assert sent == []


def test_check_tells_what_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """`portalshield check` reports a leak as critical."""
    import fastapi

    shield = Shield(fastapi.FastAPI(), settings=Settings.from_env(environment()))
    assert not [finding for finding in shield.check() if finding.id.startswith("PS-LOG-102")]
    monkeypatch.setattr(logs, "redact_record", lambda record, redactor: None)
    assert {finding.severity for finding in shield.check() if finding.id == "PS-LOG-102"} == {"critical"}
