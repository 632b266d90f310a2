"""What the environment says about logs, Sentry, metrics and latency budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import BaseModel

from portalshield.model.secret import Secret
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.rules.histogram import CEILING_NS
from portalshield.rules.pseudonyms import MIN_KEY_BYTES

MIN_TOKEN: Final = 16
"""Characters of METRICS__TOKEN; a shorter one could be guessed."""


class LogConfig(BaseModel):
    """`PORTALSHIELD_LOG__...`."""

    model_config = FROZEN

    level: Annotated[Literal["debug", "info", "warning", "error"], Setting("least severity that is logged")] = "info"
    format: Annotated[
        Literal["json", "console"] | None, Setting("json or console; unset: console in development on a terminal")
    ] = None
    redact_fields: Annotated[tuple[str, ...], Setting("further names whose values never leave")] = ()
    redact_allow_fields: Annotated[tuple[str, ...], Setting("names that stay readable")] = ()
    redact_mode: Annotated[Literal["default", "strict"], Setting("strict drops free text instead of scanning it")] = (
        "default"
    )
    pseudonym_key: Annotated[
        Secret | None, Setting("key of the pseudonyms for tenants and subjects; unset: random per process")
    ] = None
    previous_pseudonym_key: Annotated[Secret | None, Setting("the key before, while it is rotated")] = None
    sample: Annotated[float, Setting("share of uneventful requests that is logged", unit="share")] = 1.0

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Keys that could be guessed, two that are the same, one before without one now."""
        for name in ("pseudonym_key", "previous_pseudonym_key"):
            key: Secret | None = getattr(self, name)
            if key is not None and len(key.reveal().encode()) < MIN_KEY_BYTES:
                variable = f"PORTALSHIELD_LOG__{name.upper()}"
                hint = "Write 32 random bytes in hex: openssl rand -hex 32."
                yield ConfigurationProblem("PS-LOG-001", variable, f"has fewer than {MIN_KEY_BYTES} bytes.", hint)
        previous = self.previous_pseudonym_key
        if previous is not None and (self.pseudonym_key is None or self.pseudonym_key.reveal() == previous.reveal()):
            yield ConfigurationProblem(
                "PS-LOG-002",
                "PORTALSHIELD_LOG__PREVIOUS_PSEUDONYM_KEY",
                "needs a newer key beside it.",
                "Set PORTALSHIELD_LOG__PSEUDONYM_KEY to a new one, or leave this out.",
            )


class SentryConfig(BaseModel):
    """`PORTALSHIELD_SENTRY...`."""

    model_config = FROZEN

    enabled: Annotated[
        bool, Setting("adopt the existing Sentry client, or start one with redaction when a DSN is there", own=True)
    ] = True
    traces_sample_rate: Annotated[float, Setting("share of requests that is traced", unit="share")] = 0.0


class MetricsConfig(BaseModel):
    """`PORTALSHIELD_METRICS__...`."""

    model_config = FROZEN

    path: Annotated[
        str | None, Setting("where Prometheus finds the counters, for example /metrics; unset: nowhere")
    ] = None
    token: Annotated[Secret | None, Setting("bearer token a scrape has to show; required in production")] = None
    server_timing: Annotated[
        bool, Setting("send Server-Timing to clients with a principal, but not on login routes")
    ] = False

    def problems(self, *, development: bool) -> Iterator[ConfigurationProblem]:
        """A path that is none, a page for everybody in production, a token that could be guessed."""
        path = self.path
        if path is not None and not _is_plain_path(path):
            hint = "Write one that begins with a slash, for example /metrics."
            yield ConfigurationProblem("PS-METRICS-001", "PORTALSHIELD_METRICS__PATH", "is no plain path.", hint)
        if path is not None and self.token is None and not development:
            hint = "Everybody could read which routes exist: set a token, and give it to Prometheus (authorization)."
            yield ConfigurationProblem("PS-METRICS-002", "PORTALSHIELD_METRICS__TOKEN", "is not set.", hint)
        if self.token is not None and len(self.token.reveal()) < MIN_TOKEN:
            yield ConfigurationProblem(
                "PS-METRICS-003",
                "PORTALSHIELD_METRICS__TOKEN",
                f"has fewer than {MIN_TOKEN} characters.",
                "Write a random one: openssl rand -hex 32.",
            )


class BudgetConfig(BaseModel):
    """`PORTALSHIELD_BUDGET__...`."""

    model_config = FROZEN

    p95_ms: Annotated[int, Setting("milliseconds that 95 of 100 requests should stay within, as clients see them")] = (
        500
    )
    app_ms: Annotated[int, Setting("milliseconds the application itself may take; a slower request is marked")] = 300

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Budgets that no histogram has an edge for."""
        for name in ("p95_ms", "app_ms"):
            if not 1 <= getattr(self, name) < CEILING_NS // 1_000_000:
                hint = "Write milliseconds from 1 to 119999."
                yield ConfigurationProblem(
                    "PS-BUDGET-001", f"PORTALSHIELD_BUDGET__{name.upper()}", "is out of range.", hint
                )


def _is_plain_path(path: str) -> bool:
    parts = path.split("/")
    plain = all(
        part and part.strip(".") and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        for part in parts[1:]
    )
    return path.isascii() and parts[0] == "" and len(parts) > 1 and plain and len(path) <= 128
