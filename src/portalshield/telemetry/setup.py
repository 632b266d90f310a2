"""Telemetry of one application, put together from its settings: one writer, one redactor, one kind of pseudonym."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs, sentry
from portalshield.telemetry.config import LogConfig, SentryConfig
from portalshield.telemetry.lines import RequestLines
from portalshield.telemetry.redactor import set_default
from portalshield.telemetry.writer import LineWriter

_log = logging.getLogger("portalshield")
Facts = Callable[[RequestLines], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a runtime reports through."""

    lines: RequestLines
    writer: LineWriter


def open_telemetry(log: LogConfig, sentry_config: SentryConfig, *, environment: str, facts: Facts) -> Telemetry:
    """Start redaction, request lines, logging and Sentry as configured.

    `facts` tells what of the running request belongs to a Sentry event; it is asked when one is captured.
    """
    pseudonyms = Pseudonyms(*_keys(log, warn=environment == "production"))
    redactor = Redactor(log.redact_fields, log.redact_allow_fields, log.redact_mode, pseudonyms)
    set_default(redactor)
    writer = LineWriter()
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
    logs.install(writer, redactor, level=log.level, format=chosen)
    if sentry_config.enabled:
        sentry.install(
            redactor,
            current=lambda: facts(lines),
            dsn=os.environ.get("SENTRY_DSN"),
            traces_sample_rate=sentry_config.traces_sample_rate,
            release=release,
            environment=os.environ.get("SENTRY_ENVIRONMENT", environment),
        )
    return Telemetry(lines, writer)


def _keys(log: LogConfig, *, warn: bool) -> tuple[bytes, bytes | None]:
    previous = log.previous_pseudonym_key.reveal().encode() if log.previous_pseudonym_key is not None else None
    if log.pseudonym_key is not None:
        return log.pseudonym_key.reveal().encode(), previous
    if warn:
        _log.warning("PORTALSHIELD_LOG__PSEUDONYM_KEY is not set: pseudonyms change at every start")
    return secrets.token_bytes(32), previous


def _terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
