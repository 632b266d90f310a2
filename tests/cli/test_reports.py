"""What `routes` and `check` say of routes: the truth of the compiled plans, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.staticfiles import StaticFiles
from flask import Flask
from pydantic import BaseModel

from portalshield import Limit, Policy, Principal, Settings, Shield, Upload, protect
from portalshield.findings import IDS, Finding
from portalshield.report import RouteReport, type_name
from portalshield.testing import environment

SOURCE = Path(__file__).resolve().parents[2] / "src" / "portalshield"
NOBODY = {"AUTH": "none", "AUTH__SECRET": "", "AUTH__ISSUER": "", "AUTH__AUDIENCE": ""}
STRIPE = {"WEBHOOK__STRIPE__SECRET": "whsec_9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c"}


class NewClient(BaseModel):
    """A body."""

    name: str


class InvoiceFilter(BaseModel):
    """A query."""

    page: int = 1


def shielded(
    terms: dict[str, Any], *, method: str = "POST", path: str = "/x", policies: Any = (), more: Any = None, **env: str
) -> Shield:
    """An application of one route with these terms."""
    app = FastAPI(openapi_url=None)

    def handler() -> dict[str, str]:
        return {}

    app.add_api_route(path, protect(**terms)(handler) if terms else handler, methods=[method])
    settings = Settings.from_env(environment(**env))
    return Shield(app, settings=settings, policies=policies, **(more or {}))


def report(terms: dict[str, Any], **env: str) -> RouteReport:
    """The one line of `routes`."""
    (found,) = shielded(terms, **env).routes()
    return found


def named(shield: Shield, code: str) -> list[Finding]:
    """The findings of one id."""
    return [finding for finding in shield.check() if finding.id == code]


@pytest.mark.parametrize(
    ("terms", "env", "words"),
    [
        pytest.param({}, {}, "user of the tenant", id="strict"),
        pytest.param({"tenant": False}, {}, "any user", id="no tenant"),
        pytest.param({"cross_tenant": True, "roles": ["a", "b"]}, {}, "user of any tenant, roles a or b", id="cross"),
        pytest.param({"public": True}, {}, "anybody", id="public"),
        pytest.param({"webhook": "stripe"}, STRIPE, "whoever stripe signs", id="webhook"),
        pytest.param(
            {"webhook": "stripe", "public": False},
            STRIPE,
            "user of the tenant, signed: whoever stripe signs",
            id="webhook and a user",
        ),
        pytest.param(
            {"webhook": "stripe"},
            {**STRIPE, "MODE__WEBHOOK": "off"},
            "anybody (the signature of stripe is not enforced)",
            id="webhook off",
        ),
        pytest.param({"roles": ["staff"]}, NOBODY, "anybody (nobody is authenticated)", id="AUTH=none"),
        pytest.param({"roles": ["staff"]}, {"MODE": "off"}, "anybody (nobody is authenticated)", id="MODE=off"),
        pytest.param({"mode": "off"}, {}, "anybody (nobody is authenticated)", id="mode off on the route"),
        pytest.param({"roles": ["x"]}, {"MODE": "report"}, "anybody (authentication only reports)", id="MODE=report"),
        pytest.param({}, {"MODE": "report:25%"}, "user of the tenant, asked of 25% only", id="a share"),
        pytest.param({}, {"MODE__TENANT": "off"}, "any user (tenants are not kept apart)", id="tenant off"),
        pytest.param(
            {"scopes": ["a", "b"], "max_age": "5m", "impersonation": False},
            {},
            "user of the tenant, scopes a b, login within 300s, nobody impersonated",
            id="grants",
        ),
    ],
)
def test_access_is_what_the_plan_enforces(terms: dict[str, Any], env: dict[str, str], words: str) -> None:
    """Not what the policy wishes."""
    assert report(terms, **env).access == words


def test_strict_default_is_claimed_only_where_users_are_authenticated() -> None:
    """`routes` says `strict default` or `nobody decided`, `check` likewise."""
    assert report({}).strict
    open_one = shielded({}, method="GET", **NOBODY)
    assert [(row.strict, row.decided) for row in open_one.routes()] == [(False, False)]
    (finding,) = named(open_one, "PS-ROUTE-101")
    assert "strict" not in finding.message
    assert finding.hint


@pytest.mark.parametrize(
    ("terms", "takes", "opens"),
    [
        pytest.param({"body": NewClient}, ("body NewClient",), (), id="body"),
        pytest.param({"query": InvoiceFilter}, ("query InvoiceFilter",), (), id="query"),
        pytest.param(
            {"upload": Upload(types=["image/*"], max_file="10MB")}, ("upload image/* up to 10MB",), (), id="upload"
        ),
        pytest.param(
            {"upload": Upload(types=["image/*"], max_file=5_000_000, max_files=3)},
            ("upload 3 files image/* up to 5MB",),
            (),
            id="uploads",
        ),
        pytest.param({"idempotent": True}, ("once per Idempotency-Key",), (), id="idempotent"),
        pytest.param({"max_body": 16_000}, ("at most 16KB",), (), id="max_body in bytes"),
        pytest.param({"max_body": 16_384}, ("at most 16KiB",), (), id="max_body in KiB"),
        pytest.param({"max_body": 17}, ("at most 17 bytes",), (), id="a few bytes"),
        pytest.param({"content_types": ["application/json"]}, ("only application/json",), (), id="types"),
        pytest.param({"csrf": False}, (), ("csrf off",), id="csrf"),
        pytest.param({"allow_path": ["encoded-slash"]}, (), ("path may have encoded-slash",), id="allow_path"),
        pytest.param({"mode": "report"}, (), ("mode report",), id="mode"),
    ],
)
def test_the_other_half_of_a_route(terms: dict[str, Any], takes: tuple[str, ...], opens: tuple[str, ...]) -> None:
    """What it takes, what is open."""
    found = report(terms)
    assert (found.takes, found.opens) == (takes, opens)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (NewClient, "NewClient"),
        (NewClient | InvoiceFilter, "NewClient | InvoiceFilter"),
        (NewClient | None, "NewClient | None"),
        (list[NewClient], "list[NewClient]"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (Annotated[NewClient, "x"], "NewClient"),
        (tuple[int, ...], "tuple[int, ...]"),
    ],
)
def test_types_are_printed_as_they_are_written(kind: Any, name: str) -> None:
    """Also those that have no name of their own."""
    assert type_name(kind) == name


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        pytest.param({"limits": ["5/minute"]}, "5/minute by subject", id="by default the subject"),
        pytest.param({"limits": ["5/minute"], "public": True}, "5/minute by ip", id="public: the address"),
        pytest.param({"limits": ["5/minute"], "by": ("ip", "tenant")}, "5/minute by ip+tenant", id="several"),
        pytest.param(
            {"limits": [Limit("5/minute", cost=3, override=True)]},
            "5/minute by subject (costs 3, overrides)",
            id="cost and override",
        ),
        pytest.param(
            {"limits": [Limit("5/minute", cost=lambda view: 1)]},
            "5/minute by subject (costs what the application says)",
            id="a price",
        ),
    ],
)
def test_limits_say_what_they_count_by(terms: dict[str, Any], words: str) -> None:
    """As the rate layer compiles them."""
    assert report(terms).limits == (words,)


def test_flask_rules_are_one_entry_too() -> None:
    """GET and POST with one policy; the pattern for a policy covers what it is said of."""
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/files/<path:name>", "files", lambda name: name, methods=["GET", "POST"])
    (found,) = Shield(app, settings=Settings.from_env(environment())).routes()
    assert (found.method, found.match) == ("GET|POST", "GET|POST /files/*")


# -- findings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [{"roles": ["staff"]}, {"scopes": ["a"]}, {"max_age": 60}])
def test_asking_nobody_for_roles_is_found(terms: dict[str, Any]) -> None:
    """High: everybody gets in. With users it is no finding."""
    (finding,) = named(shielded(terms, **NOBODY), "PS-AUTH-104")
    assert (finding.severity, finding.where) == ("high", "POST /x")
    assert "PORTALSHIELD_AUTH" in finding.hint
    assert named(shielded(terms), "PS-AUTH-104") == []


def test_two_who_authenticate_are_found() -> None:
    """AUTH is set, and authenticate= replaces it."""
    more = {"authenticate": lambda request: None}
    (finding,) = named(shielded({}, more=more), "PS-AUTH-105")
    assert (finding.severity, finding.hint) == ("high", "Leave one out.")
    assert named(shielded({}, more=more, **NOBODY), "PS-AUTH-105") == []


@pytest.mark.parametrize(
    ("mode", "words"),
    [("report", "Nothing is refused."), ("off", "Nothing is refused."), ("report:25%", "Only 25% is refused.")],
)
def test_a_mode_says_how_much_is_refused(mode: str, words: str) -> None:
    """For the whole, for a layer, and for a route."""
    whole = named(shielded({}, ENV="production", MODE=mode, LOG__PSEUDONYM_KEY=""), "PS-MODE-101")
    layer = named(shielded({}, ENV="production", MODE__CSRF=mode), "PS-MODE-101")
    route = named(shielded({"mode": mode}), "PS-MODE-102")
    assert [finding.message for finding in (*whole, *layer, *route)] == [words] * 3
    assert "body, cors, webhook still refuse" in whole[0].hint
    assert all(finding.hint for finding in (*layer, *route))


def test_undecided_routes_are_one_finding() -> None:
    """However many: the first are named, all are there for `--json`; WebSockets and mounts too."""
    app = FastAPI(openapi_url=None)

    async def live(socket: WebSocket) -> None: ...

    def handler() -> dict[str, str]:
        return {}

    for number in range(9):
        app.add_api_route(f"/x{number}", handler)
    app.add_api_websocket_route("/live", live)
    app.mount("/files", StaticFiles(directory=SOURCE))
    (finding,) = named(Shield(app, settings=Settings.from_env(environment())), "PS-ROUTE-101")
    assert (finding.severity, len(finding.routes)) == ("info", 11)
    assert finding.message == "Nobody decided about 11 routes: the strict default holds."
    assert "GET /x0, GET /x1, GET /x2, GET /x3, GET /x4 and 6 more." in finding.hint
    assert finding.routes[-2:] == ("WS /live", "* /files/{path}")
    assert named(shielded({"public": True}), "PS-ROUTE-101") == []


@pytest.mark.parametrize(
    ("method", "path", "line"),
    [
        pytest.param("POST", "/login", 'Policy("POST /login", public=True, login="email")', id="a login"),
        pytest.param("POST", "/v1/token", 'Policy("POST /v1/token", public=True, login="email")', id="a token"),
        pytest.param("POST", "/Forgot_Password/", "public=True", id="a forgotten password"),
        pytest.param("GET", "/login", 'Policy("GET /login", public=True)', id="the page of a login"),
        pytest.param("GET", "/healthz", 'PORTALSHIELD_HEALTH="GET /healthz"', id="health"),
        pytest.param("GET", "/api/health/ready", 'PORTALSHIELD_HEALTH="GET /api/health/ready"', id="readiness"),
    ],
)
def test_what_is_for_those_without_a_token_is_found(method: str, path: str, line: str) -> None:
    """Medium, with the line to add; not where somebody decided, nor where nobody is asked for a token."""
    (finding,) = named(shielded({}, method=method, path=path), "PS-AUTH-106")
    assert (finding.severity, finding.where) == ("medium", f"{method} {path}")
    assert line in finding.hint
    assert named(shielded({"public": False}, method=method, path=path), "PS-AUTH-106") == []
    assert named(shielded({"public": True}, method=method, path=path), "PS-AUTH-106") == []
    assert named(shielded({}, method=method, path=path, **NOBODY), "PS-AUTH-106") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/auth/users"),
        ("GET", "/tokens"),
        ("POST", "/healthz"),
        ("GET", "/clients/{id}/ping"),
        ("PUT", "/login"),
    ],
)
def test_other_routes_are_not(method: str, path: str) -> None:
    """They may be somebody's data."""
    assert named(shielded({}, method=method, path=path), "PS-AUTH-106") == []


def test_nobody_authenticated_has_a_hint() -> None:
    """With both ways out."""
    (finding,) = named(shielded({}, **NOBODY), "PS-AUTH-101")
    assert "PORTALSHIELD_AUTH" in finding.hint
    assert "authenticate=" in finding.hint


def test_a_metrics_page_over_a_route_is_found() -> None:
    """The route could never be reached."""
    (finding,) = named(shielded({}, path="/metrics", METRICS__PATH="/metrics"), "PS-METRICS-101")
    assert finding.severity == "high"
    assert named(shielded({}, path="/metric", METRICS__PATH="/metrics"), "PS-METRICS-101") == []


def test_a_wide_pattern_that_covers_nothing_is_found() -> None:
    """It does not stop the start, so it is told."""
    (finding,) = named(shielded({}, policies=[Policy("GET /admin/*", roles=["staff"])]), "PS-ROUTE-103")
    assert finding.severity == "medium"
    assert "GET /admin/*" in finding.message
    assert named(shielded({}, policies=[Policy("POST /*", roles=["staff"])]), "PS-ROUTE-103") == []


def test_spellings_and_csrf_are_found_with_a_hint() -> None:
    """PS-PATH-101 low, PS-CSRF-102 medium."""
    shield = shielded({"allow_path": ["encoded-slash"], "csrf": False})
    (path,), (csrf,) = named(shield, "PS-PATH-101"), named(shield, "PS-CSRF-102")
    assert (path.severity, csrf.severity) == ("low", "medium")
    assert path.hint
    assert csrf.hint
    assert named(shielded({"csrf": False}, method="GET"), "PS-CSRF-102") == []


def test_every_id_that_can_be_said_is_known() -> None:
    """`--silence` refuses others."""
    texts = [path.read_text("utf-8") for path in (SOURCE / "findings.py", SOURCE / "telemetry" / "selftest.py")]
    said = {found for text in texts for found in re.findall(r'"(PS-[A-Z]+-\d{3})"', text)}
    assert said == IDS


def test_a_principal_is_no_finding_word() -> None:
    """An application that authenticates by itself through the shield has users."""
    known = Principal(subject="u1", tenant="north")
    shield = shielded({"roles": ["staff"]}, more={"authenticate": lambda request: known}, **NOBODY)
    assert shield.routes()[0].access == "user of the tenant, roles staff"
    assert named(shield, "PS-AUTH-104") == []
