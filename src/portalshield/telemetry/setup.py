"""Telemetry of one application, put together from its settings: one writer, one redactor, one kind of pseudonym."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from portalshield.model.setting import ConfigurationProblem
from portalshield.rules.detectors import Detector
from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs, sentry
from portalshield.telemetry.config import BudgetConfig, LogConfig, MetricsConfig, SentryConfig
from portalshield.telemetry.exposition import Exposition
from portalshield.telemetry.lines import RequestLines
from portalshield.telemetry.metrics import Metrics
from portalshield.telemetry.redactor import set_default, slow_detectors
from portalshield.telemetry.sentry import SentryLink
from portalshield.telemetry.writer import LineWriter

_log = logging.getLogger("portalshield")
Facts = Callable[[RequestLines], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a runtime reports through. `findings` are slugs of what `logs.install` and `sentry.install` found."""

    lines: RequestLines
    writer: LineWriter
    redactor: Redactor
    metrics: Metrics
    exposition: Exposition
    sentry: SentryLink | None = None
    findings: tuple[str, ...] = ()


def open_telemetry(
    log: LogConfig,
    sentry_config: SentryConfig,
    *,
    environment: str,
    facts: Facts,
    metrics_config: MetricsConfig | None = None,
    metrics: Metrics | None = None,
    detectors: Iterable[Detector] = (),
) -> Telemetry:
    """Start redaction, request lines, counters, logging and Sentry as configured.

    `facts` tells what of the running request belongs to a Sentry event; it is asked when one is captured.
    """
    metrics = metrics or open_metrics(BudgetConfig())
    pseudonyms = Pseudonyms(*_keys(log, warn=environment == "production"))
    redactor = Redactor(
        log.redact_fields, log.redact_allow_fields, log.redact_mode, pseudonyms, detectors, counted=metrics.count
    )
    set_default(redactor)
    writer = LineWriter(lost=lambda lines: metrics.count("log_dropped", "", lines))
    chosen = log.format or ("console" if environment == "development" and _terminal() else "json")
    # Sentry's own variables, under the names its SDK gives them.
    release = os.environ.get("SENTRY_RELEASE")
    lines = RequestLines(
        writer,
        redactor,
        pseudonyms,
        sample=log.sample,
        level=log.level,
        format=chosen,
        release=release,
        environment=environment,
    )
    found = logs.install(writer, redactor, level=log.level, format=chosen)
    link: SentryLink | None = None
    if sentry_config.enabled:
        link = sentry.install(
            redactor,
            current=lambda: facts(lines),
            dsn=os.environ.get("SENTRY_DSN"),
            traces_sample_rate=sentry_config.traces_sample_rate,
            release=release,
            environment=os.environ.get("SENTRY_ENVIRONMENT", environment),
            capped=lambda: metrics.count("sentry_capped"),
        )
    given = metrics_config or MetricsConfig()
    exposition = Exposition(metrics, given.path, given.token)
    return Telemetry(
        lines, writer, redactor, metrics, exposition, link, (*found, *(link.findings if link is not None else ()))
    )


def open_metrics(budget: BudgetConfig) -> Metrics:
    """Counters with the budgets as edges; shared by all workers where `PROMETHEUS_MULTIPROC_DIR` names a folder."""
    return Metrics((budget.app_ms, budget.p95_ms), os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None)


def detector_problems(detectors: Iterable[Detector]) -> Iterator[ConfigurationProblem]:
    """User detectors that would stall the process on hostile text; takes up to a few milliseconds each."""
    for name in slow_detectors(detectors):
        yield ConfigurationProblem(
            "PS-LOG-003",
            "detectors",
            f"the pattern of {name} takes too long on hostile text.",
            "Bound its repetitions, and let none of them follow another that matches the same characters.",
        )


def _keys(log: LogConfig, *, warn: bool) -> tuple[bytes, bytes | None]:
    previous = log.previous_pseudonym_key.reveal().encode() if log.previous_pseudonym_key is not None else None
    if log.pseudonym_key is not None:
        return log.pseudonym_key.reveal().encode(), previous
    if warn:
        _log.warning("PORTALSHIELD_LOG__PSEUDONYM_KEY is not set: pseudonyms change at every start")
    return secrets.token_bytes(32), previous


def _terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
