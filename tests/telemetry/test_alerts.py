"""Each alert fires on what it is for, stays silent before, and clears afterwards; files load in a parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families as parse
from promql import Query, Series, firing, series

from portalshield.cli import main
from portalshield.telemetry.alerts import rules
from portalshield.telemetry.config import BudgetConfig
from portalshield.telemetry.dashboard import dashboard
from portalshield.telemetry.exposition import families, text
from portalshield.telemetry.metrics import Metrics

STEP = 30.0
HOUR = 3600.0
RULES = {rule.name: rule for rule in rules(BudgetConfig())}
TARGET = {"job": "portal", "instance": "a"}
Rate = Callable[[float], float]


def counter(name: str, rate: Rate, until: float, since: float = 0.0, **labels: str) -> Any:
    """A counter that grows by `rate(t)` per second."""
    points, value, now = [], 0.0, 0.0
    while now <= until:
        value += rate(now) * STEP
        if now >= since:
            points.append((now, float(int(value))))
        now += STEP
    return series(name, points, **TARGET, **labels)


def between(start: float, end: float, inside: float, outside: float = 0.0) -> Rate:
    """One rate inside an interval, another outside."""
    return lambda now: inside if start <= now < end else outside


def requests(bad: dict[str, Rate], until: float, rate: float = 10.0) -> list[Any]:
    """A busy application, with other statuses at rates of their own."""
    route = {"route": "/a", "method": "GET"}
    rows = [counter("portalshield_requests_total", lambda now: rate, until, status="200", **route)]
    rows += [counter("portalshield_requests_total", one, until, status=code, **route) for code, one in bad.items()]
    return rows


def refused(layer: str, rate: Rate, until: float, since: float = 0.0) -> list[Any]:
    """What a layer refuses, beside the row that the page starts with."""
    kind = {"decision": "refused", "layer": layer}
    name = "portalshield_decisions_total"
    return [
        counter(name, lambda now: 0.0, until, problem="(other)", route="(other)", **kind),
        counter(name, rate, until, since, problem="x", route="/a", **kind),
    ]


def latency(slow_share: Rate, until: float) -> list[Any]:
    """A route of which some requests take between 0.5 and 1 s, the rest under 0.1 s."""
    name = "portalshield_request_duration_seconds"
    rows = [
        counter(f"{name}_bucket", (lambda now, e=edge: 5.0 if e >= 0.75 else 5.0 * (1 - slow_share(now))), until,
                route="/a", le=str(edge))
        for edge in (0.1, 0.5, 0.75)
    ]  # fmt: skip
    rows.append(counter(f"{name}_bucket", lambda now: 5.0, until, route="/a", le="+Inf"))
    rows.append(counter(f"{name}_count", lambda now: 5.0, until, route="/a"))
    return rows


# For each rule: what happens, when it begins, when it is over, when the alert must have cleared.
SCENES = [
    pytest.param(
        "PortalshieldAuthFailures", lambda end: refused("auth", between(2 * HOUR, 2.5 * HOUR, 2.0, 0.1), end),
        2 * HOUR, 2.5 * HOUR, 3 * HOUR, id="twenty times the usual refused tokens",
    ),
    pytest.param(
        "PortalshieldForeignTenant", lambda end: refused("tenant", between(HOUR, HOUR + STEP, 1 / STEP), end),
        HOUR, HOUR + 600, HOUR + 700, id="one foreign tenant",
    ),
    pytest.param(
        "PortalshieldForeignTenant",
        lambda end: refused("owners", between(HOUR, HOUR + STEP, 1 / STEP), end, since=HOUR),
        HOUR, HOUR + 600, HOUR + 700, id="the first foreign object ever: its series begins with one",
    ),
    pytest.param(
        "PortalshieldRateLimited", lambda end: requests({"429": between(HOUR, 1.5 * HOUR, 2.0)}, end),
        HOUR, 1.5 * HOUR, 2 * HOUR, id="a sixth of all requests over a limit",
    ),
    pytest.param(
        "PortalshieldWebhookRefused", lambda end: refused("webhook", between(HOUR, 1.5 * HOUR, 0.05), end),
        HOUR, 1.5 * HOUR, 2 * HOUR, id="deliveries with a wrong signature",
    ),
    pytest.param(
        "PortalshieldErrorsFast", lambda end: requests({"500": between(2 * HOUR, 3 * HOUR, 2.0)}, end),
        2 * HOUR, 3 * HOUR, 3.3 * HOUR, id="a sixth of all requests fails",
    ),
    pytest.param(
        "PortalshieldErrorsSlow", lambda end: requests({"503": between(7 * HOUR, 13 * HOUR, 0.15)}, end),
        7 * HOUR, 13 * HOUR, 14 * HOUR, id="1.5 percent fail for hours",
    ),
    pytest.param(
        "PortalshieldLatency", lambda end: latency(between(HOUR, 2 * HOUR, 0.2, 0.01), end),
        HOUR, 2 * HOUR, 2.5 * HOUR, id="a fifth of all requests is slow",
    ),
    pytest.param(
        "PortalshieldLogDropped",
        lambda end: [counter("portalshield_log_dropped_total", between(HOUR, HOUR + STEP, 1.0), end)],
        HOUR, HOUR + 600, HOUR + 700, id="lines lost once",
    ),
    pytest.param(
        "PortalshieldRedactorErrors",
        lambda end: [counter("portalshield_redactor_errors_total", between(HOUR, HOUR + STEP, 1 / STEP), end)],
        HOUR, HOUR + 600, HOUR + 700, id="redaction failed once",
    ),
    pytest.param(
        "PortalshieldTripwire",
        lambda end: [
            counter("portalshield_tripwire_total", lambda now: 0.0, end, detector="(other)"),
            counter("portalshield_tripwire_total", between(HOUR, HOUR + STEP, 1 / STEP), end, HOUR, detector="jwt"),
        ],
        HOUR, HOUR + 600, HOUR + 700, id="one credential in a finished line",
    ),
    pytest.param(
        "PortalshieldAbsent",
        lambda end: [
            (labels, [point for point in points if not HOUR <= point[0] < 1.5 * HOUR])
            for labels, points in requests({}, end)
        ],
        HOUR, 1.5 * HOUR, 1.5 * HOUR + 60, id="nothing to scrape for half an hour",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scene", "begins", "ends", "cleared"), SCENES)
def test_alert_fires_during_its_scene_only(
    name: str, scene: Callable[[float], list[Any]], begins: float, ends: float, cleared: float
) -> None:
    """Silent before, firing during, silent again afterwards."""
    rule, until = RULES[name], cleared + 1800
    data: Series = dict(scene(until))
    before = [begins - 600 + 60 * n for n in range(10)]
    during = [begins + 60 * n for n in range(int((ends - begins) // 60) + 1)]
    after = [cleared + 60 * n for n in range(20)]
    fired = firing(rule.expression, rule.lasts, data, [*before, *during, *after])
    assert not set(fired) & set(before)
    assert set(fired) & set(during)
    assert not set(fired) & set(after)


@pytest.mark.parametrize("name", RULES)
def test_every_alert_has_a_scene(name: str) -> None:
    """A rule without a test is not shipped."""
    assert any(scene.values[0] == name for scene in SCENES)


def test_quiet_application_fires_nothing() -> None:
    """Traffic with a few refusals, a few errors within the budget, a few slow requests: no alert for eight hours."""
    until = 8 * HOUR
    data: Series = dict(
        [
            *requests({"401": lambda now: 0.05, "429": lambda now: 0.05, "500": lambda now: 0.004}, until),
            *refused("auth", lambda now: 0.05, until),
            *refused("rate", lambda now: 0.05, until),
            *latency(lambda now: 0.02, until),
            *(
                counter(f"portalshield_{name}_total", lambda now: 0.0, until)
                for name in ("log_dropped", "redactor_errors", "tripwire")
            ),
        ]
    )
    times = [HOUR + 300.0 * n for n in range(int((until - HOUR) // 300))]
    fired = {name: firing(rule.expression, "0m", data, times) for name, rule in RULES.items()}
    assert {name: when for name, when in fired.items() if when} == {}


def test_restart_of_an_instance_is_no_event() -> None:
    """Counters that begin again at 0 do not look like new events."""
    name = "portalshield_decisions_total"
    points = [(30.0 * n, 40.0 if n < 100 else 0.0) for n in range(300)]
    data = dict([series(name, points, layer="tenant", decision="refused", problem="x", route="/a", **TARGET)])
    rule = RULES["PortalshieldForeignTenant"]
    assert firing(rule.expression, rule.lasts, data, [60.0 * n for n in range(10, 140)]) == []


@pytest.mark.parametrize("name", RULES)
def test_rules_ask_for_series_that_the_page_has(name: str) -> None:
    """Every metric and label of a rule stands in the exposition; a renamed one would never fire."""
    metrics = Metrics()
    metrics.record("GET", "/a", 200, 1, 1)
    page = text(families(metrics)).decode()
    there = {sample.name: set(sample.labels) for family in parse(page) for sample in family.samples}
    tokens = Query(RULES[name].expression)._tokens
    asked = {token for token in tokens if token.startswith("portalshield_")}
    assert asked
    assert asked <= set(there)
    for metric in asked:
        used = {tokens[i - 1] for i, token in enumerate(tokens) if token in ("=", "=~")}
        assert not used or used <= there[metric] | {"le"}


def test_budgets_move_thresholds() -> None:
    """The p95 rule and the panels carry the configured budget."""
    budget = BudgetConfig(p95_ms=1250)
    rule = next(rule for rule in rules(budget) if rule.name == "PortalshieldLatency")
    assert "> 1.25 and" in rule.expression
    panel = next(panel for panel in dashboard(budget)["panels"] if panel["title"].startswith("Latency"))
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == 1.25


def test_command_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules have what Prometheus demands of them; the dashboard has what Grafana demands, without overlaps."""
    monkeypatch.setenv("PORTALSHIELD_BUDGET__P95_MS", "800")
    out = tmp_path / "alerts"
    done = CliRunner().invoke(main, ["alerts", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    rule_path, board_path = (Path(path) for path in json.loads(done.output)["written"])
    (group,) = json.loads(rule_path.read_text())["groups"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        Query(rule["expr"])
    board = json.loads(board_path.read_text())
    assert (board["id"], board["uid"]) == (None, "portalshield")
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not own & cells
        assert place["x"] + place["w"] <= 24
        cells |= own
        assert all(target["expr"] for target in panel["targets"])
    assert "> 0.8 and" in rule_path.read_text()


def test_broken_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget that is none ends the command with 2 and its id."""
    monkeypatch.setenv("PORTALSHIELD_BUDGET__P95_MS", "0")
    done = CliRunner().invoke(main, ["alerts", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "PS-BUDGET-001" in done.output
