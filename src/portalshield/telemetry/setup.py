"""Telemetry of one application, put together from its settings: one writer, one redactor, one kind of pseudonym."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from dataclasses import dataclass

from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.telemetry.config import LogConfig, SentryConfig
from portalshield.telemetry.lines import RequestLines
from portalshield.telemetry.redactor import set_default
from portalshield.telemetry.writer import LineWriter

_log = logging.getLogger("portalshield")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a runtime reports through."""

    lines: RequestLines
    writer: LineWriter


def open_telemetry(log: LogConfig, sentry: SentryConfig, *, environment: str) -> Telemetry:
    """Start redaction, request lines, logging and Sentry as configured."""
    pseudonyms = Pseudonyms(*_keys(log, warn=environment == "production"))
    redactor = Redactor(log.redact_fields, log.redact_allow_fields, log.redact_mode, pseudonyms)
    set_default(redactor)
    writer = LineWriter()
    chosen = log.format or ("console" if environment == "development" and _terminal() else "json")
    lines = RequestLines(
        writer,
        redactor,
        pseudonyms,
        sample=log.sample,
        level=log.level,
        format=chosen,
        release=os.environ.get("SENTRY_RELEASE"),
        environment=environment,
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
