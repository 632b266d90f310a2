"""A Grafana dashboard over the counters: traffic, latency against its budgets, refusals, the telemetry's own health."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from portalshield.telemetry.alerts import DECISIONS, DURATIONS, REQUESTS
from portalshield.telemetry.config import BudgetConfig

SCHEMA: Final = 39
"""Grafana 10 and later read it."""
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_COLUMNS: Final = 24
_WINDOW: Final = "[$__rate_interval]"
_CHOSEN: Final = 'route=~"$route"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One time series panel: `(PromQL, legend)` rows, a unit, and from where on it is red."""

    title: str
    rows: tuple[tuple[str, str], ...]
    unit: str = "reqps"
    red_from: float | None = None
    width: int = 8


def dashboard(budget: BudgetConfig) -> dict[str, Any]:
    """The document Grafana imports; the data source and the routes are chosen on the page."""
    return {
        "id": None,
        "uid": "portalshield",
        "title": "portalshield",
        "tags": ["portalshield"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source_variable(), _route_variable()]},
        "panels": [_placed(number, panel, place) for number, (panel, place) in enumerate(_places(panels(budget)), 1)],
    }


def panels(budget: BudgetConfig) -> tuple[Panel, ...]:
    """What is shown, from what users feel to what operators look after."""
    return (*_traffic(budget), *_refusals(), *_telemetry())


def _traffic(budget: BudgetConfig) -> Iterable[Panel]:
    requests, buckets = _rate(REQUESTS, _CHOSEN), _rate(f"{DURATIONS}_bucket", _CHOSEN)
    failed = _rate(REQUESTS, 'status=~"5.."', _CHOSEN)
    over = _rate("portalshield_latency_budget_breaches_total", _CHOSEN)
    red_from = budget.p95_ms / 1000
    yield Panel("Requests by status", (_by("status", of=requests),))
    yield Panel("Share of 5xx", ((f"sum({failed}) / sum({requests})", "5xx"),), "percentunit", 0.001)
    yield Panel(f"Latency (p95 budget {budget.p95_ms} ms)", _percentiles(buckets, 0.5, 0.95, 0.99), "s", red_from)
    by_route = (f"histogram_quantile(0.95, sum by (le, route) ({buckets}))", "{{route}}")
    yield Panel("p95 by route", (by_route,), "s", red_from, 12)
    yield Panel("Over budget", (_by("budget_ms", of=over, legend="over {{budget_ms}} ms"),), width=12)


def _refusals() -> Iterable[Panel]:
    for title, decision in (("Refused, by layer", "refused"), ("Would be refused (report mode)", "would_refuse")):
        decided = _rate(DECISIONS, f'decision="{decision}"', _CHOSEN)
        yield Panel(title, (_by("layer, problem", of=decided, legend="{{layer}} {{problem}}"),), width=12)


def _telemetry() -> Iterable[Panel]:
    yield Panel("The shield's own time", _percentiles(_rate("portalshield_overhead_seconds_bucket"), 0.5, 0.95), "s")
    lost = [
        (f"sum(increase(portalshield_{name}_total{_WINDOW}))", name.replace("_", " "))
        for name in ("log_dropped", "redactor_errors", "tripwire")
    ]
    yield Panel("Lost lines, redaction failures, tripwire", tuple(lost), "short", 1)
    yield Panel("Redactions by detector", (_by("detector", of=_rate("portalshield_redactions_total")),), "ops")


def _rate(series: str, *where: str) -> str:
    chosen = f"{{{','.join(where)}}}" if where else ""
    return f"rate({series}{chosen}{_WINDOW})"


def _by(labels: str, *, of: str, legend: str = "") -> tuple[str, str]:
    return f"sum by ({labels}) ({of})", legend or f"{{{{{labels}}}}}"


def _percentiles(buckets: str, *shares: float) -> tuple[tuple[str, str], ...]:
    return tuple([(f"histogram_quantile({share}, sum by (le) ({buckets}))", f"p{share * 100:g}") for share in shares])


def _places(found: Iterable[Panel]) -> Iterable[tuple[Panel, dict[str, int]]]:
    """Rows of 24 columns, left to right."""
    x = y = 0
    for panel in found:
        if x + panel.width > _COLUMNS:
            x, y = 0, y + 8
        yield panel, {"h": 8, "w": panel.width, "x": x, "y": y}
        x += panel.width


def _placed(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if panel.red_from is not None else "off"}},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(65 + row), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for row, (expression, legend) in enumerate(panel.rows)
        ],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _route_variable() -> dict[str, Any]:
    return {
        "name": "route",
        "type": "query",
        "label": "Route",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({REQUESTS}, route)", "refId": "routes"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
