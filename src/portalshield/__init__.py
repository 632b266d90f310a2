"""portalshield: one line around a FastAPI or Flask app, configured by environment variables.

from portalshield import Shield
Shield(app)
"""

from __future__ import annotations

from portalshield.context import current_principal, current_tenant, payload
from portalshield.model.policy import Idempotent, Limit, Policy, limit, protect, public
from portalshield.model.principal import Principal
from portalshield.model.secret import Secret
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.model.upload import Upload
from portalshield.rules.detectors import Detector
from portalshield.settings import Settings
from portalshield.shield import Shield
from portalshield.telemetry.redactor import redact

__version__ = "0.1.0"
__all__ = [
    "ConfigurationError",
    "ConfigurationProblem",
    "Detector",
    "Idempotent",
    "Limit",
    "Policy",
    "Principal",
    "Secret",
    "Settings",
    "Shield",
    "Upload",
    "current_principal",
    "current_tenant",
    "limit",
    "payload",
    "protect",
    "public",
    "redact",
]
