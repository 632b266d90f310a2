"""The counters for OpenTelemetry (the `otel` extra), under the names of its semantic conventions where there are any.

Instruments are observable: they are asked when the SDK exports, so a request costs nothing more. A distribution cannot
be observed that way; quantiles are exported as gauges. Exporters, endpoints and resources are OpenTelemetry's own
(`OTEL_*` variables). Each worker exports what it counted itself: give each a `service.instance.id`, the back end sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from portalshield.telemetry.exposition import Family, families
from portalshield.telemetry.metrics import Metrics

_NAMES = {
    "portalshield_requests": "http.server.requests",
    "portalshield_request_duration_quantile_seconds": "http.server.request.duration.quantile",
    "portalshield_decisions": "portalshield.decisions",
    "portalshield_latency_budget_breaches": "portalshield.latency_budget.breaches",
    "portalshield_log_dropped": "portalshield.log.dropped",
    "portalshield_redactions": "portalshield.redactions",
    "portalshield_redactor_errors": "portalshield.redactor.errors",
    "portalshield_tripwire": "portalshield.tripwire",
}
_LABELS = {"method": "http.request.method", "route": "http.route", "status": "http.response.status_code"}


def observe(metrics: Metrics, meter: Any = None) -> list[Any]:
    """Register instruments with `meter` (default: the global provider's). Raises `ImportError` without the extra."""
    from opentelemetry.metrics import get_meter

    chosen = get_meter("portalshield") if meter is None else meter
    instruments = []
    for family in families(metrics):
        name = _NAMES.get(family.name)
        if name is None:
            continue
        make = chosen.create_observable_counter if family.kind == "counter" else chosen.create_observable_gauge
        unit = "s" if family.name.endswith("_seconds") else "1"
        instruments.append(make(name, [_callback(metrics, family.name)], unit=unit, description=family.help))
    return instruments


def _callback(metrics: Metrics, name: str) -> Callable[[Any], Iterable[Any]]:
    def look(options: Any) -> Iterator[Any]:
        from opentelemetry.metrics import Observation

        for family in families(metrics):
            if family.name == name:
                yield from (Observation(value, labels) for value, labels in _observed(family))

    return look


def _observed(family: Family) -> Iterator[tuple[float, dict[str, str | int]]]:
    for _, labels, value in family.samples:
        named: dict[str, str | int] = {_LABELS.get(label, label): text for label, text in labels}
        code = named.get("http.response.status_code")
        if code is not None:
            named["http.response.status_code"] = int(code)
        yield value, named
