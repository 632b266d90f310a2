"""Alert rules for Prometheus, made from the configured budgets.

Each rule is a value: what it watches, from where on, for how long. The page of counters starts what is watched at 0, so
that a first refusal is an increase; where one event counts, the rule also compares with five minutes before, because
`increase` does not see a series that has just begun.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from portalshield.telemetry.config import BudgetConfig

REQUESTS: Final = "portalshield_requests_total"
DECISIONS: Final = "portalshield_decisions_total"
DURATIONS: Final = "portalshield_request_duration_seconds"
ERROR_BUDGET: Final = 0.001
"""The share of requests that may fail in a month: an objective of 99.9 %."""
Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert: PromQL, how long it must hold, how urgent it is, what it means and what to do."""

    name: str
    expression: str
    lasts: str
    severity: Severity
    summary: str
    action: str

    def as_dict(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.action},
        }


def rules(budget: BudgetConfig) -> tuple[Rule, ...]:
    """All alerts for these budgets."""
    return (*_refusals(), *_errors(), *_latency(budget), *_telemetry())


def rule_file(budget: BudgetConfig) -> dict[str, Any]:
    """A rule file; every JSON document is a YAML document."""
    return {"groups": [{"name": "portalshield", "rules": [rule.as_dict() for rule in rules(budget)]}]}


def _refused(layers: str) -> str:
    return f'{DECISIONS}{{layer=~"{layers}",decision="refused"}}'


def _any_new(selector: str) -> str:
    """One event is enough, also the first of its kind."""
    return (
        f"sum by (job, instance) (increase({selector}[5m])) > 0 or "
        f"sum by (job, instance) ({selector}) - sum by (job, instance) ({selector} offset 5m) > 0"
    )


def _refusals() -> Iterable[Rule]:
    failures = f"sum(rate({_refused('auth')}[5m]))"
    before = f"sum(rate({_refused('auth')}[5m] offset 1h))"
    yield Rule(
        "PortalshieldAuthFailures",
        f"{failures} > 0.2 and {failures} > 3 * ({before} or vector(0))",
        "5m",
        "ticket",
        "Refused credentials: more than 12 a minute, and three times what it was an hour ago.",
        "Look at http_request lines with layer=auth: one address or many, which `why`. A key that was rotated shows as "
        "unknown-kid.",
    )
    yield Rule(
        "PortalshieldForeignTenant",
        _any_new(_refused("tenant|owners")),
        "0m",
        "page",
        "Somebody asked for what belongs to another tenant, and was refused.",
        "Look at http_request lines with layer=tenant or layer=owners for the subject's pseudonym: a bug of the "
        "client, or somebody trying ids.",
    )
    limited = f'sum(rate({REQUESTS}{{status="429"}}[5m]))'
    yield Rule(
        "PortalshieldRateLimited",
        f"{limited} / sum(rate({REQUESTS}[5m])) > 0.05 and {limited} > 0.1",
        "10m",
        "ticket",
        "More than 5 % of all requests are over a limit.",
        "Either a client misbehaves (one client_ip in the lines), or a quota is too small.",
    )
    yield Rule(
        "PortalshieldWebhookRefused",
        f"sum by (route) (rate({_refused('webhook')}[5m])) > 0",
        "5m",
        "page",
        "Deliveries to a webhook are refused: the provider gives up after a while.",
        "Was the provider's secret rotated? Set the new one, and the old one as PREVIOUS_SECRET.",
    )


def _errors() -> Iterable[Rule]:
    def share(window: str) -> str:
        return f'sum(rate({REQUESTS}{{status=~"5.."}}[{window}])) / sum(rate({REQUESTS}[{window}]))'

    for name, long, short, factor, lasts, severity in (
        ("Fast", "1h", "5m", 14.4, "2m", "page"),
        ("Slow", "6h", "30m", 6.0, "15m", "ticket"),
    ):
        limit = f"{factor * ERROR_BUDGET:.4g}"
        chosen: Severity = "page" if severity == "page" else "ticket"
        yield Rule(
            f"PortalshieldErrors{name}",
            f"{share(long)} > {limit} and {share(short)} > {limit}",
            lasts,
            chosen,
            f"Requests end with 5xx {factor:g} times as often as {ERROR_BUDGET:.1%} allows, over {long} and {short}.",
            "Look at http_request lines with level=error: `error` names the exception, `problem` the shield's reason.",
        )


def _latency(budget: BudgetConfig) -> Iterable[Rule]:
    by_route = f"sum by (le, route) (rate({DURATIONS}_bucket[10m]))"
    busy = f"sum by (route) (rate({DURATIONS}_count[10m])) > 0.1"
    yield Rule(
        "PortalshieldLatency",
        f"histogram_quantile(0.95, {by_route}) > {budget.p95_ms / 1000:g} and {busy}",
        "10m",
        "ticket",
        f"A route's p95 is over its budget of {budget.p95_ms} ms.",
        "Compare duration_ms with overhead_us of its lines: the rest is the application's own time.",
    )


def _telemetry() -> Iterable[Rule]:
    for name, metric, summary, action in (
        ("LogDropped", "log_dropped", "Log lines were lost.", "Whatever reads standard output is too slow or gone."),
        (
            "RedactorErrors",
            "redactor_errors",
            "Redaction failed, and values were replaced as a whole.",
            "Nothing leaked. A detector of your own or an unusual object raised: look for [REDACTION_ERROR].",
        ),
        (
            "Tripwire",
            "tripwire",
            "A finished log line held what looks like a credential.",
            "The label says of which kind. Rotate it, and report how it got past the redactor.",
        ),
    ):
        severity: Severity = "page" if name == "Tripwire" else "ticket"
        yield Rule(f"Portalshield{name}", _any_new(f"portalshield_{metric}_total"), "0m", severity, summary, action)
    yield Rule(
        "PortalshieldAbsent",
        f"absent({REQUESTS})",
        "10m",
        "page",
        "There are no counters: nobody knows how the application is.",
        "Is METRICS__PATH set, does the scrape show METRICS__TOKEN, is the application up?",
    )
