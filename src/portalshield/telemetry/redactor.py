"""The process's redactor: what `portalshield.redact`, logging and Sentry use when told nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from portalshield.rules.detectors import Detector
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import clock

MAX_PROBE_S = 0.02
"""CPU-bound seconds one probe of a user's detector may take."""
_PROBE_UNITS = ("a", "1", "-", "a1", "a@", "a.", " ", "a ", "/", "=")
_PROBE_SIZES = (8, 12, 16, 20, 24, 28, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

_current = Redactor()


def redact(value: Any) -> Any:
    """A copy of a text, dict, list, exception or any nested value without secrets and personal data. Never raises."""
    return _current.text(value) if type(value) is str else _current.value(value)


def default() -> Redactor:
    """The process's redactor."""
    return _current


def set_default(redactor: Redactor) -> Redactor:
    """Make this the process's redactor; returns the one before."""
    global _current
    before, _current = _current, redactor
    return before


def slow_detectors(detectors: Iterable[Detector], monotonic: Callable[[], float] = clock.monotonic) -> tuple[str, ...]:
    """Names of user detectors whose time explodes on hostile text: sizes grow slowly, the first slow one ends it."""
    return tuple(detector.name for detector in detectors if _is_slow(detector, monotonic))


def _is_slow(detector: Detector, monotonic: Callable[[], float]) -> bool:
    for unit in _PROBE_UNITS:
        for size in _PROBE_SIZES:
            text = (unit * size)[:size] + "!"
            begun = monotonic()
            detector.apply(text)
            if monotonic() - begun > MAX_PROBE_S:
                return True
    return False
