"""The last look at finished lines, and counters that arrive where they are alerted on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from portalshield.model.secret import Secret
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs
from portalshield.telemetry.config import BudgetConfig, LogConfig, MetricsConfig, SentryConfig
from portalshield.telemetry.metrics import Metrics
from portalshield.telemetry.otel import observe
from portalshield.telemetry.setup import Telemetry, detector_problems, open_metrics, open_telemetry
from portalshield.telemetry.tripwire import tripped


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param(b'{"x":"eyJhbGciOiJIUzI1NiJ9.a.b"}', "jwt", id="token"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----", "pem", id="key"),
        pytest.param(b'{"k":"sk_live_' + b"x" * 20, "vendor", id="vendor"),
        pytest.param(b'{"event":"http_request","route":"/a"}', None, id="clean"),
        pytest.param(b'{"note":"[JWT] [SECRET] Bearer [REDACTED]"}', None, id="redacted"),
    ],
)
def test_line_with_a_credential_trips(line: bytes, found: str | None) -> None:
    """What only credentials begin with is found in finished bytes; placeholders are not."""
    assert tripped(line) == found


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    """As a runtime opens it, without Sentry."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    structlog.reset_defaults()
    yield open_telemetry(
        LogConfig(format="json", pseudonym_key=Secret("k" * 32)),
        SentryConfig(enabled=False),
        environment="test",
        facts=lambda lines: None,
        metrics_config=MetricsConfig(path="/metrics", token=Secret("t" * 16)),
        metrics=open_metrics(BudgetConfig(p95_ms=700, app_ms=250)),
    )
    logs.uninstall()
    structlog.reset_defaults()


def counted(metrics: Metrics) -> dict[Any, int]:
    """The single counters."""
    return {name: count for name, count in metrics.snapshot().rows.items() if len(name) == 2}


def test_redactions_failures_and_trips_are_counted(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its counter: what was found, what failed, what got past, which lines were lost."""
    telemetry.redactor.text("mail a@b.co")
    telemetry.redactor.failed()
    telemetry.writer._lose(3)
    monkeypatch.setattr(Redactor, "value", lambda self, value, *more, **options: value)
    structlog.get_logger().info("x", note="eyJhbGciOiJIUzI1NiJ9.a.b")
    assert counted(telemetry.metrics) == {
        ("redactions", "email"): 1,
        ("redactor_errors", ""): 1,
        ("log_dropped", ""): 3,
        ("tripwire", "jwt"): 1,
    }


def test_budgets_path_and_token_arrive(telemetry: Telemetry) -> None:
    """Both budgets are edges; the page knows its path and its token."""
    assert {250_000_000, 700_000_000} <= set(telemetry.metrics.buckets.edges_ns)
    assert telemetry.exposition.path == "/metrics"
    assert telemetry.exposition.admits(b"Bearer " + b"t" * 16)
    assert not telemetry.exposition.admits(None)


def test_slow_detector_is_a_problem_of_the_configuration() -> None:
    """A user's pattern that explodes is told by name, an ordinary one is not."""
    import re

    from portalshield.rules.detectors import Detector

    found = list(detector_problems([Detector("bad", re.compile(r"(a+)+$")), Detector("fine", re.compile(r"B-\d{4}"))]))
    assert [(problem.id, "bad" in problem.message) for problem in found] == [("PS-LOG-003", True)]


class Meter:
    """Keeps instruments, and asks them as an SDK would."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}

    def _keep(self, name: str, callbacks: list[Any], **more: Any) -> str:
        self.callbacks[name] = callbacks[0]
        return name

    create_observable_counter = create_observable_gauge = _keep


def test_open_telemetry_reads_the_same_counters() -> None:
    """Instruments are registered once and tell what was counted later, under OpenTelemetry's names."""
    metrics, meter = Metrics(), Meter()
    observe(metrics, meter)
    metrics.record("GET", "/a", 200, 20_000_000, 1_000)
    metrics.decision("auth", "refused", "invalid-token", "/a")
    (seen,) = meter.callbacks["http.server.requests"](None)
    assert (seen.value, seen.attributes) == (
        1,
        {"http.request.method": "GET", "http.route": "/a", "http.response.status_code": 200},
    )
    assert len(list(meter.callbacks["http.server.request.duration.quantile"](None))) == 3
    assert any(row.attributes["problem"] == "invalid-token" for row in meter.callbacks["portalshield.decisions"](None))
