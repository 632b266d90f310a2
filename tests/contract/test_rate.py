"""Rate limits through both doors: exact counts, fields that parse, prices, overrides, keys, outages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import pytest
from doors import Answer, AsgiDoor
from structured_fields import parse_list

import portalshield.protection
from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, limit, public
from portalshield.model.policy import Limit
from portalshield.model.view import RequestView
from portalshield.stores import MemoryStore
from portalshield.stores.outage import OutageStore
from portalshield.testing import FailingStore

Decorators = tuple[Callable[[Any], Any], ...]
STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")
STORES = ("memory", "asked")
"""Counted in this process at once, or asked and waited for as Redis is."""


def serving(*decorators: Callable[[Any], Any], path: str = "/priced", fields: Any = ()) -> Callable[[Any], None]:
    """Adds `GET path` with these decorators; it answers with `fields`."""

    def add(app: Any) -> None:
        def view() -> Any:
            return {"handler": "priced"}

        if hasattr(app, "wsgi_app"):

            def flask_view() -> Any:
                return view(), 200, dict(fields)

            _decorated(flask_view, decorators)
            app.add_url_rule(path, view_func=flask_view, endpoint=path.strip("/"), methods=["GET"])
            return
        from fastapi.responses import JSONResponse

        async def fastapi_view() -> JSONResponse:
            return JSONResponse(view(), headers=dict(fields))

        _decorated(fastapi_view, decorators)
        app.add_api_route(path, fastapi_view, methods=["GET"])

    return add


def _decorated(view: Callable[..., Any], decorators: Decorators) -> None:
    for decorate in reversed(decorators):
        decorate(view)


def statuses(portal: Portal, times: int, target: str = "/priced", headers: Any = (), **more: Any) -> list[int]:
    return [portal.request("GET", target, headers, **more).status for _ in range(times)]


def put_store(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]) -> None:
    """Applications that are compiled from now on count in a store of ours."""
    monkeypatch.setattr(portalshield.protection, "open_store", lambda *arguments, **options: make())


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which kind of store the portals of this test have."""
    if request.param == "asked":
        put_store(monkeypatch, lambda: FailingStore(0))
    return str(request.param)


# -- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_200_concurrent_requests_exactly_the_quota_passes(make_portal: MakePortal, kind: str, strategy: str) -> None:
    """R-03: tasks of one loop, or sixteen threads: 50 pass, 150 do not."""
    portal = make_portal({"RATE__PER_IP": "50/hour", "RATE__STRATEGY": strategy})
    answers = _crowd(portal, 200)
    assert sorted(answer.status for answer in answers) == [200] * 50 + [429] * 150


def _crowd(portal: Portal, size: int) -> list[Answer]:
    door = portal.door
    if isinstance(door, AsgiDoor):

        async def gathered() -> list[Answer]:
            return await asyncio.gather(*(door.arequest("GET", "/public") for _ in range(size)))

        return asyncio.run(gathered())
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda number: portal.request("GET", "/public"), range(size)))


def test_one_clients_refusals_do_not_touch_another(make_portal: MakePortal, kind: str) -> None:
    """R-04: addresses, and IPv6 networks, have counts of their own."""
    portal = make_portal({"RATE__PER_IP": "2/minute"})
    for peer in ("203.0.113.7", "203.0.113.8", "2001:db8::1", None):
        assert statuses(portal, 4, "/public", peer=peer) == [200, 200, 429, 429]
    assert statuses(portal, 1, "/public", peer="2001:db8::ffff") == [429], "the same /64"
    assert statuses(portal, 1, "/public", peer="2001:db8:0:1::1") == [200], "the next /64"


@pytest.mark.parametrize(
    "name",
    [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
    ],
)
def test_an_address_in_a_header_of_a_stranger_changes_nothing(make_portal: MakePortal, name: str) -> None:
    """R-02: ten fields that name a client, none of which a public peer can use."""
    portal = make_portal({"RATE__PER_IP": "2/minute"})
    forged = [
        [(name, f"for=198.51.100.{number}" if name == "forwarded" else f"198.51.100.{number}")] for number in range(4)
    ]
    assert [portal.request("GET", "/public", fields).status for fields in forged] == [200, 200, 429, 429]


def test_preflights_and_health_routes_are_not_counted(make_portal: MakePortal) -> None:
    """Neither uses up anything, and neither is refused."""
    portal = make_portal({"RATE__PER_IP": "1/minute", "HEALTH": "GET /public"})
    asking = [("origin", "https://app.example.com"), ("access-control-request-method", "GET")]
    assert statuses(portal, 3, "/public") == [200] * 3
    assert {portal.request("OPTIONS", "/search", asking).status for _ in range(3)} == {204}
    assert statuses(portal, 2, "/page") == [200, 429]


# -- fields -----------------------------------------------------------------------------------------------------------


def test_fields_are_structured_fields_on_every_answer_of_a_limited_route(make_portal: MakePortal, kind: str) -> None:
    """R-01: both lists parse strictly, name the same policies, and `t` is within `w`; no field of the -07 draft."""
    portal = make_portal({"RATE__PER_IP": "9/minute; 99/hour", "RATE__DEFAULT": "50/day"})
    answers = [portal.request("GET", "/limited", portal.bearer()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    names = ["ip-per-minute", "ip-per-hour", "subject-per-day", "route-subject-per-minute"]
    for number, answer in enumerate(answers, 1):
        policies, states = _fields(answer)
        assert [name for name, _ in policies] == [name for name, _ in states] == names
        assert [row["q"] for _, row in policies] == [9, 99, 50, 3]
        assert [row["r"] for _, row in states] == [9 - number, 99 - number, 50 - min(number, 3), 3 - min(number, 3)]
        assert all(0 < state["t"] <= policy["w"] for (_, state), (_, policy) in zip(states, policies, strict=True))
        assert not [name for name, _ in answer.headers if name.lower().startswith(("x-ratelimit", "ratelimit-l"))]
    assert [answer.get("retry-after") for answer in answers[:3]] == [None] * 3


def _fields(answer: Answer) -> tuple[list[Any], list[Any]]:
    return parse_list(answer.get("ratelimit-policy") or ""), parse_list(answer.get("ratelimit") or "")


def test_a_refusal_says_when_to_come_back(make_portal: MakePortal, kind: str) -> None:
    """R-01: `Retry-After` is a whole number, at least 1 and `t`; the body names the policy, not the key."""
    portal = make_portal({"RATE__PER_IP": "1/second; 1/minute"})
    answers = [portal.request("GET", "/public") for _ in range(3)]
    refused = answers[-1]
    assert (refused.status, refused.slug) == (429, "rate-limited")
    spent = [row for _, row in _fields(refused)[1] if row["r"] == 0]
    retry_after = refused.get("retry-after") or ""
    assert retry_after.isdigit()
    assert int(retry_after) >= max(1, *(row["t"] for row in spent))
    assert set(refused.json["limit"]) <= {"ip-per-second", "ip-per-minute"}
    assert "203.0.113" not in refused.body.decode()


def test_a_route_without_limits_says_nothing(make_portal: MakePortal) -> None:
    """No fields where nothing was counted; the application's own then stay."""
    own = [("X-RateLimit-Limit", "7"), ("RateLimit", '"own";r=1')]
    portal = make_portal({"RATE__PER_IP": "off"}, prepare=serving(public, fields=own))
    answer = portal.request("GET", "/priced")
    assert [answer.get(name) for name in ("ratelimit-policy", "ratelimit", "x-ratelimit-limit")] == [
        None,
        '"own";r=1',
        "7",
    ]


def test_the_applications_own_fields_do_not_survive_beside_ours(make_portal: MakePortal) -> None:
    """One policy is told."""
    own = [("RateLimit", '"own";r=1'), ("RateLimit-Policy", '"own";q=1'), ("X-RateLimit-Limit", "7")]
    portal = make_portal(prepare=serving(public, fields=own))
    answer = portal.request("GET", "/priced")
    assert [name for name, _ in _fields(answer)[1]] == ["ip-per-minute"]
    assert answer.get("x-ratelimit-limit") == "7"


def test_legacy_fields_by_setting(make_portal: MakePortal, kind: str) -> None:
    """`RATE__LEGACY_HEADERS`: three numbers about the quota that is nearest to being spent, beside the new fields."""
    own = [("X-RateLimit-Limit", "7"), ("X-RateLimit-Reset", "1")]
    variables = {"RATE__PER_IP": "9/minute", "RATE__LEGACY_HEADERS": "true"}
    portal = make_portal(variables, prepare=serving(public, limit("3/hour"), fields=own))
    answers = [portal.request("GET", "/priced") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    told = [[answer.get(f"x-ratelimit-{name}") for name in ("limit", "remaining")] for answer in answers]
    assert told == [["3", "2"], ["3", "1"], ["3", "0"], ["3", "0"]]
    assert all(0 < int(answer.get("x-ratelimit-reset") or 0) <= 3600 for answer in answers)
    assert [name for name, _ in _fields(answers[0])[1]] == ["ip-per-minute", "route-ip-per-hour"]


def test_quotas_of_one_name_are_told_apart(make_portal: MakePortal, kind: str) -> None:
    """Two limits of a route with the same period: the fields and the refusal name them one by one."""
    portal = make_portal(prepare=serving(public, limit("3/minute"), limit("2/minute")))
    answers = [portal.request("GET", "/priced") for _ in range(3)]
    names = [name for name, _ in _fields(answers[0])[0]]
    assert names == ["ip-per-minute", "route-ip-per-minute", "route-ip-per-minute-2"]
    assert answers[-1].status == 429
    assert len(answers[-1].json["limit"]) == 1


# -- per route: prices, overrides, keys -------------------------------------------------------------------------------


def test_a_request_may_use_up_several(make_portal: MakePortal, kind: str) -> None:
    """`cost=5` of ten: two requests; what is left says so."""
    portal = make_portal(prepare=serving(public, limit("10/hour", cost=5)))
    answers = [portal.request("GET", "/priced") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [_fields(answer)[1][1][1]["r"] for answer in answers] == [5, 0, 0]


def rows_asked_for(view: RequestView) -> int:
    """What an export costs: its rows, ten where it does not say."""
    asked = dict(parse_qsl(view.query.decode("latin-1"))).get("rows", "")
    return int(asked) if asked.isdecimal() else 10


def test_a_function_tells_what_a_request_uses_up(make_portal: MakePortal, kind: str) -> None:
    """30 and the default 10 of 50, then 20 do not fit, 10 do, and nothing is left."""
    portal = make_portal(prepare=serving(public, limit("50/hour", cost=rows_asked_for)))
    targets = ["/priced?rows=30", "/priced", "/priced?rows=20", "/priced?rows=10", "/priced?rows=1", "/priced?rows=0"]
    answers = [portal.request("GET", target) for target in targets]
    assert [answer.status for answer in answers] == [200, 200, 429, 200, 429, 429]
    assert [_fields(answer)[1][1][1]["r"] for answer in answers] == [20, 10, 10, 0, 0, 0]


def test_what_can_never_fit_is_refused_for_a_window_at_a_time(make_portal: MakePortal, kind: str) -> None:
    """A price above the quota is no way round it."""
    portal = make_portal(prepare=serving(public, limit("50/hour", cost=rows_asked_for)))
    answer = portal.request("GET", "/priced?rows=51")
    assert (answer.status, answer.get("retry-after")) == (429, "3600")
    assert portal.request("GET", "/priced?rows=50").status == 200


def test_what_a_price_may_see(make_portal: MakePortal) -> None:
    """Method, path, route, parameters, query, header fields, address, the declared length, and who is calling."""
    seen: list[Any] = []

    def price(view: RequestView) -> int:
        who = view.principal.tenant if view.principal is not None else None
        seen.append((view.method, view.path, view.route, dict(view.params), view.query, view.address, who))
        seen.append((view.header("X-Batch"), view.header("absent"), view.content_length))
        return 1

    limits = [Limit("9/hour", ("tenant", "ip"), price)]
    portal = make_portal(policies=[Policy("POST /tenants/{tenant_id}/clients/{client_id}", limits=limits)])
    fields = [*portal.bearer("north"), ("x-batch", "7"), ("content-type", "application/json")]
    assert portal.request("POST", "/tenants/north/clients/7?a=1", fields, b"{} ").status == 200
    template, params = "/tenants/{tenant_id}/clients/{client_id}", {"tenant_id": "north", "client_id": "7"}
    assert seen == [
        ("POST", "/tenants/north/clients/7", template, params, b"a=1", "203.0.113.7", "north"),
        ("7", None, 3),
    ]


@pytest.mark.parametrize(
    "price",
    [
        pytest.param(lambda view: -1, id="negative"),
        pytest.param(lambda view: 1.5, id="no whole number"),
        pytest.param(lambda view: True, id="a boolean"),
        pytest.param(lambda view: None, id="nothing"),
        pytest.param(lambda view: 1 // 0, id="an exception"),
    ],
)
def test_a_price_that_fails_refuses_the_request(make_portal: MakePortal, price: Any) -> None:
    """A bug is never a way past a limit: 500, and the handler does not run."""
    portal = make_portal(prepare=serving(public, limit("9/hour", cost=price)))
    answer = portal.request("GET", "/priced")
    assert (answer.status, answer.slug, portal.calls) == (500, "internal-error", [])


async def waits(view: RequestView) -> int:
    """No price: it waits."""
    return 1


@pytest.mark.parametrize(
    "cost",
    [
        pytest.param(0, id="nothing"),
        pytest.param(-1, id="negative"),
        pytest.param(True, id="a boolean"),
        pytest.param(1.5, id="no whole number"),
        pytest.param("5", id="a text"),
        pytest.param(None, id="none"),
        pytest.param(waits, id="an async function"),
    ],
)
def test_a_cost_that_is_none_is_refused_where_it_is_written(cost: Any) -> None:
    """Numbers above 0 and functions that do not wait are costs."""
    with pytest.raises(TypeError, match="cost is a whole number"):
        limit("5/minute", cost=cost)


def test_a_limit_that_no_request_fits_into_stops_the_start(make_portal: MakePortal) -> None:
    """A fixed cost above the quota is a mistake that is told by its route."""
    portal = make_portal(prepare=serving(public, limit("4/minute", cost=5)))
    assert portal.request("GET", "/public").status == 503
    with pytest.raises(ConfigurationError) as caught:
        portal.shield.routes()
    assert [(problem.id, problem.variable) for problem in caught.value.problems] == [("PS-POLICY-004", "GET /priced")]


def test_override_replaces_the_defaults(make_portal: MakePortal, kind: str) -> None:
    """Instead of PER_IP and DEFAULT, not in addition; other routes keep theirs."""
    variables = {"RATE__PER_IP": "1/hour", "RATE__DEFAULT": "2/hour"}
    portal = make_portal(variables, prepare=serving(limit("4/hour", override=True)))
    answers = [portal.request("GET", "/priced", portal.bearer()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 4 + [429]
    assert [name for name, _ in _fields(answers[0])[0]] == ["route-subject-per-hour"]
    assert statuses(portal, 2, "/search", portal.bearer()) == [200, 429]


def test_a_route_limit_adds_to_the_defaults(make_portal: MakePortal, kind: str) -> None:
    """Whichever is spent first refuses."""
    portal = make_portal({"RATE__PER_IP": "2/hour"}, prepare=serving(public, limit("4/hour")))
    assert statuses(portal, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        pytest.param(("tenant", "subject"), ("north", "a", "203.0.113.9"), ("north", "b", "203.0.113.7"), id="both"),
        pytest.param(("tenant", "ip"), ("north", "b", "203.0.113.7"), ("north", "a", "203.0.113.9"), id="tenant, ip"),
        pytest.param(("ip", "subject"), ("south", "a", "203.0.113.7"), ("north", "b", "203.0.113.7"), id="ip, subject"),
        pytest.param("tenant", ("north", "b", "203.0.113.9"), ("south", "a", "203.0.113.7"), id="tenant"),
        pytest.param("subject", ("south", "a", "203.0.113.9"), ("north", "b", "203.0.113.7"), id="subject"),
        pytest.param("ip", ("south", "b", "203.0.113.7"), ("north", "a", "203.0.113.9"), id="ip"),
    ],
)
def test_what_a_limit_counts_by(
    make_portal: MakePortal, by: Any, same: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """All parts of a tuple make one key; whoever shares them shares the count, nobody else does."""
    portal = make_portal(prepare=serving(limit("1/hour", by=by)))

    def ask(tenant: str, subject: str, peer: str) -> int:
        return portal.request("GET", "/priced", portal.bearer(tenant, subject=subject), peer=peer).status

    assert [ask("north", "a", "203.0.113.7"), ask(*same), ask(*other)] == [200, 429, 200]


# -- outages ----------------------------------------------------------------------------------------------------------

SHARED = [200, 200, 200, 429, 429, 429]


@pytest.mark.parametrize("nth", range(1, 7))
@pytest.mark.parametrize(
    ("mode", "stands_in"), [("local", 200), ("open", 200), ("closed", 503)], ids=["local", "open", "closed"]
)
def test_fault_loop(
    make_portal: MakePortal, monkeypatch: pytest.MonkeyPatch, nth: int, mode: Any, stands_in: int
) -> None:
    """E-4: the N-th question fails, for every N: that answer is the mode's, all others are the shared store's."""
    put_store(monkeypatch, lambda: OutageStore(FailingStore(nth), MemoryStore(), mode, lambda change: None))
    portal = make_portal({"RATE__PER_IP": "3/hour", "RATE__ON_OUTAGE": mode})
    answers = [portal.request("GET", "/public") for _ in range(6)]
    expected = [*SHARED[: nth - 1], stands_in, *SHARED[nth - 1 :]][:6]
    assert [answer.status for answer in answers] == expected
    if mode == "closed":
        assert (answers[nth - 1].slug, answers[nth - 1].get("retry-after")) == ("unavailable", "5")


def test_report_mode_lets_pass_what_nobody_can_count(make_portal: MakePortal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, down and only reporting: the request passes, and the fields say that nothing is known to be left."""
    put_store(monkeypatch, lambda: OutageStore(FailingStore(1), MemoryStore(), "closed", lambda change: None))
    portal = make_portal({"RATE__PER_IP": "9/hour", "RATE__DEFAULT": "7/hour", "MODE__RATE": "report"})
    answer = portal.request("GET", "/search", portal.bearer())
    assert answer.status == 200
    assert [(name, row["r"]) for name, row in _fields(answer)[1]] == [("ip-per-hour", 0), ("subject-per-hour", 6)]


@pytest.mark.parametrize("mode", ["report", "off"])
def test_report_and_off_refuse_nothing(make_portal: MakePortal, kind: str, mode: str) -> None:
    """Report counts and tells, off does neither."""
    portal = make_portal({"RATE__PER_IP": "1/hour", "MODE__RATE": mode})
    answers = [portal.request("GET", "/public") for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert (answers[-1].get("ratelimit") is not None) is (mode == "report")
