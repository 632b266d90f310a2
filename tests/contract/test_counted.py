"""What is counted, where it is read, what clients are told of it, through both doors."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, Shield

TOKEN = "a-token-for-the-scrape-0123456789"
SCRAPE = [("authorization", f"Bearer {TOKEN}")]


@pytest.fixture
def portal(make_portal: MakePortal) -> Portal:
    """A portal with a metrics page."""
    return make_portal({"METRICS__PATH": "/metrics", "METRICS__TOKEN": TOKEN})


def scraped(portal: Portal) -> str:
    """The page."""
    answer = portal.request("GET", "/metrics", SCRAPE)
    assert answer.status == 200
    return answer.body.decode()


def test_the_page_is_the_shield_s_own(portal: Portal) -> None:
    """It needs the token, and the application is not called; what is not cacheable says so."""
    assert portal.request("GET", "/metrics").status == 401
    assert portal.request("GET", "/metrics", [("authorization", "Bearer wrong")]).status == 401
    assert portal.request("GET", "/metrics", portal.bearer()).status == 401
    answer = portal.request("GET", "/metrics", SCRAPE)
    assert (answer.status, answer.get("cache-control")) == (200, "no-store")
    assert (answer.get("content-type") or "").startswith("text/plain; version=0.0.4")
    head = portal.request("HEAD", "/metrics", SCRAPE)
    assert (head.status, head.body) == (200, b"")
    assert portal.calls == []


def test_without_a_path_there_is_no_page(make_portal: MakePortal) -> None:
    """The same answer as for any path that nothing serves."""
    portal = make_portal()
    assert portal.request("GET", "/metrics").slug == portal.request("GET", "/nothing").slug == "not-found"


def test_requests_refusals_and_their_layers_are_counted(portal: Portal) -> None:
    """By method, template and status; a refusal also by layer and problem."""
    portal.request("GET", "/tenants/north/clients/7", portal.bearer())
    portal.request("GET", "/tenants/south/clients/7", portal.bearer())
    portal.request("GET", "/tenants/north/clients/7")
    text = scraped(portal)
    route = 'route="/tenants/{tenant_id}/clients/{client_id}"'
    for row in (
        f'portalshield_requests_total{{method="GET",{route},status="200"}} 1',
        f'portalshield_requests_total{{method="GET",{route},status="404"}} 1',
        f'portalshield_decisions_total{{layer="tenant",decision="refused",problem="not-found",{route}}} 1',
        f'portalshield_decisions_total{{layer="auth",decision="refused",problem="unauthenticated",{route}}} 1',
    ):
        assert row in text, text
    assert f"portalshield_request_duration_seconds_count{{{route}}} 3" in text
    assert "south" not in text


def test_a_flood_of_paths_adds_no_series(portal: Portal) -> None:
    """What no route serves is one template."""
    for number in range(50):
        portal.request("GET", f"/nothing/{number}", portal.bearer())
    text = scraped(portal)
    assert 'portalshield_requests_total{method="GET",route="(unmatched)",status="404"} 50' in text
    assert "/nothing" not in text


def test_report_mode_is_counted_as_what_it_would_refuse(make_portal: MakePortal) -> None:
    """So that a dashboard can say when it is time to enforce."""
    portal = make_portal({"METRICS__PATH": "/metrics", "METRICS__TOKEN": TOKEN, "MODE__TENANT": "report"})
    portal.request("GET", "/tenants/south/clients/7", portal.bearer())
    assert 'layer="tenant",decision="would_refuse",problem="not-found"' in scraped(portal)


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        pytest.param({"METRICS__PATH": "/metrics", "ENV": "production"}, "PS-METRICS-002", id="needs a token"),
        pytest.param({"METRICS__PATH": "metrics"}, "PS-METRICS-001", id="no path"),
        pytest.param({"BUDGET__APP_MS": "0"}, "PS-BUDGET-001", id="no budget"),
    ],
)
def test_what_is_wrong_stops_the_start(make_portal: MakePortal, env: dict[str, str], problem: str) -> None:
    """With its id."""
    with pytest.raises(ConfigurationError, match=problem):
        make_portal(env)


def test_server_timing_only_for_who_is_known(make_portal: MakePortal) -> None:
    """Off by default; never on public routes, refusals, or where passwords are checked."""
    assert make_portal().request("GET", "/search", make_portal().bearer()).get("server-timing") is None
    portal = make_portal({"METRICS__SERVER_TIMING": "true"}, policies=[Policy("GET /limited", login="email")])
    value = portal.request("GET", "/search", portal.bearer()).get("server-timing") or ""
    assert value.startswith("app;dur=")
    assert "shield;dur=" in value
    assert portal.request("GET", "/public").get("server-timing") is None
    assert portal.request("GET", "/search").get("server-timing") is None
    assert portal.request("GET", "/limited", portal.bearer()).get("server-timing") is None


def test_a_slow_application_is_marked(make_portal: MakePortal, capfd: pytest.CaptureFixture[str]) -> None:
    """Over `BUDGET__APP_MS` the line says so, and sampling keeps it."""
    import time

    def slow() -> Any:
        time.sleep(0.005)
        return {"ok": True}

    def prepare(app: Any) -> None:
        app.get("/slow")(slow)

    portal = make_portal({"BUDGET__APP_MS": "1", "LOG__SAMPLE": "0.0"}, prepare)
    assert portal.request("GET", "/slow", portal.bearer()).status == 200
    runtime = Shield.of(portal.app).protection._runtime  # type: ignore[union-attr]
    assert runtime is not None
    assert runtime.lines is not None
    runtime.lines._writer.flush()
    lines = [line for line in capfd.readouterr().out.splitlines() if '"route":"/slow"' in line]
    assert len(lines) == 1
    assert '"over_budget":true' in lines[0]


def test_an_existing_registry_shows_the_same(portal: Portal) -> None:
    """`shield.metrics` is there before the first request, and is what the page tells of."""
    from prometheus_client import CollectorRegistry, generate_latest

    from portalshield.telemetry.exposition import collect_into

    registry = CollectorRegistry()
    collect_into(portal.shield.metrics, registry)
    portal.request("GET", "/public")
    row = 'portalshield_requests_total{method="GET",route="/public",status="200"} 1.0'
    assert row in generate_latest(registry).decode()
