"""What the environment says about logs and Sentry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from portalshield.model.secret import Secret
from portalshield.model.setting import Setting


class LogConfig(BaseModel):
    """`PORTALSHIELD_LOG__...`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

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


class SentryConfig(BaseModel):
    """`PORTALSHIELD_SENTRY...`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    enabled: Annotated[
        bool, Setting("adopt the existing Sentry client, or start one with redaction when a DSN is there", own=True)
    ] = True
    traces_sample_rate: Annotated[float, Setting("share of requests that is traced", unit="share")] = 0.0
