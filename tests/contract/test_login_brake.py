"""Guessing passwords is slowed per account and per address, through both doors."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import flask
import pytest
from doors import Answer, AsgiDoor
from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from structured_fields import parse_list

import portalshield.protection
from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, protect
from portalshield.stores import MemoryStore
from portalshield.stores.outage import OutageStore
from portalshield.testing import FailingStore

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
ACCOUNTS = frozenset(f"user{number}@example.com" for number in range(100)) | {"a@example.com", "b@example.com"}
UNLIMITED = {"RATE__PER_IP": "off"}
_BRAKED = protect(public=True, login="email")


def _judge(email: str, password: str) -> int:
    if password == "crash":
        raise RuntimeError("the database is gone")
    if password == "busy":
        return 503
    return 200 if password == "right" and email in ACCOUNTS else 401


def logins(app: Any) -> None:
    """`POST /auth/login` in JSON and `POST /login` as a page, as an application would write them."""
    (_flask_logins if hasattr(app, "wsgi_app") else _fastapi_logins)(app)


def _flask_logins(app: Any) -> None:
    def login() -> Any:
        document = flask.request.get_json()
        status = _judge(document.get("email", ""), document["password"])
        return {"ok": status == 200}, status

    def page() -> Any:
        form = flask.request.form
        if flask.request.method == "GET" or _judge(form["email"], form["password"]) != 200:
            return flask.Response("<form>", 200, mimetype="text/html")
        return flask.redirect("/portal", 303)

    app.add_url_rule("/auth/login", view_func=_BRAKED(login), methods=["POST"], endpoint="login")
    app.add_url_rule("/login", view_func=_BRAKED(page), methods=["GET", "POST"], endpoint="page_login")


def _fastapi_logins(app: Any) -> None:
    async def login(request: Request) -> JSONResponse:
        document = await request.json()
        status = _judge(document.get("email", ""), document["password"])
        return JSONResponse({"ok": status == 200}, status)

    async def page(request: Request) -> Any:
        form = await request.form() if request.method == "POST" else {}
        if request.method == "GET" or _judge(str(form["email"]), str(form["password"])) != 200:
            return HTMLResponse("<form>")
        return RedirectResponse("/portal", 303)

    app.add_api_route("/auth/login", _BRAKED(login), methods=["POST"])
    app.add_api_route("/login", _BRAKED(page), methods=["GET", "POST"], response_model=None)


@pytest.fixture
def portal(make_portal: MakePortal) -> Portal:
    """A portal with both logins."""
    return make_portal(UNLIMITED, prepare=logins)


def body_of(email: str, password: str) -> bytes:
    return json.dumps({"email": email, "password": password}).encode()


def attempt(portal: Portal, email: str, password: str = "wrong", peer: str = "203.0.113.7") -> Answer:
    return portal.request("POST", "/auth/login", [("content-type", JSON)], body_of(email, password), peer=peer)


def post(portal: Portal, email: str, password: str = "wrong", peer: str = "203.0.113.7") -> Answer:
    form = urlencode({"email": email, "password": password}).encode()
    return portal.request("POST", "/login", [("content-type", FORM)], form, peer=peer)


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


# -- who is slowed ----------------------------------------------------------------------------------------------------


def test_one_account_from_a_hundred_addresses(portal: Portal) -> None:
    """Five guesses, whoever sends them; then the handler is not asked, not even with the right password."""
    answers = [attempt(portal, "a@example.com", peer=f"203.0.113.{number}") for number in range(100)]
    assert statuses(answers) == [401] * 5 + [429] * 95
    assert attempt(portal, "a@example.com", "right", peer="198.51.100.1").status == 429
    assert attempt(portal, "b@example.com", "right", peer="198.51.100.1").status == 200


def test_a_hundred_accounts_from_one_address(portal: Portal) -> None:
    """Five guesses, whatever they name; another address is not touched."""
    answers = [attempt(portal, f"user{number}@example.com") for number in range(100)]
    assert statuses(answers) == [401] * 5 + [429] * 95
    assert attempt(portal, "user7@example.com", "right", peer="198.51.100.1").status == 200


def test_the_answer_does_not_tell_whether_the_account_exists(portal: Portal) -> None:
    """Known and unknown accounts, spent account and spent address: equal bodies and fields, request id aside."""
    for number in range(6):
        attempt(portal, "a@example.com", peer=f"203.0.113.{number}")
        attempt(portal, "nobody@example.com", peer=f"203.0.114.{number}")
        attempt(portal, f"user{number}@example.com", peer="192.0.2.1")
    refused = [
        attempt(portal, "a@example.com", peer="198.51.100.1"),
        attempt(portal, "nobody@example.com", peer="198.51.100.2"),
        attempt(portal, "user50@example.com", peer="192.0.2.1"),
        attempt(portal, "stranger@example.com", peer="192.0.2.1"),
    ]
    told = [(answer.status, _without_id(answer), [name for name, _ in answer.headers]) for answer in refused]
    assert all(each == told[0] for each in told)
    assert told[0][0] == 429


def _without_id(answer: Answer) -> Any:
    return {name: value for name, value in answer.json.items() if name != "request_id"}


def test_a_refusal_says_when_to_come_back(portal: Portal) -> None:
    """`Retry-After` and the fields agree, and name the brake, neither account nor address."""
    answer = [attempt(portal, "a@example.com") for _ in range(6)][-1]
    assert (answer.status, answer.slug, answer.json["limit"]) == (429, "rate-limited", ["login-per-minute"])
    ((name, state),) = parse_list(answer.get("ratelimit") or "")
    assert (name, state["r"], answer.get("retry-after")) == ("login-per-minute", 0, str(state["t"]))
    assert 1 <= int(answer.get("retry-after") or 0) <= 60
    assert not any(word in answer.body.decode() for word in ("example.com", "203.0"))


def test_guesses_sent_at_once_do_not_slip_through(portal: Portal) -> None:
    """Fifty at the same moment: five reach the handler."""
    peers = [f"203.0.113.{number}" for number in range(50)]
    door = portal.door
    if isinstance(door, AsgiDoor):

        async def crowd() -> list[Answer]:
            fields, body = [("content-type", JSON)], body_of("a@example.com", "wrong")
            return await asyncio.gather(
                *(door.arequest("POST", "/auth/login", fields, body, peer=peer) for peer in peers)
            )

        answers = asyncio.run(crowd())
    else:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda peer: attempt(portal, "a@example.com", peer=peer), peers))
    assert sorted(statuses(answers)) == [401] * 5 + [429] * 45


def test_both_routes_of_a_portal_count_together(portal: Portal) -> None:
    """Two ways in are not twice the guesses, nor is another spelling."""
    for number in range(3):
        assert attempt(portal, "a@example.com", peer=f"203.0.113.{number}").status == 401
    answers = [post(portal, " A@EXAMPLE.com", peer=f"203.0.114.{number}") for number in range(4)]
    assert statuses(answers) == [200, 200, 429, 429]


# -- success ----------------------------------------------------------------------------------------------------------


def test_a_success_in_between_clears_the_account_and_not_the_address(portal: Portal) -> None:
    """Four failures, a success, then: one from this address, five in all for the account."""
    assert statuses([attempt(portal, "a@example.com") for _ in range(4)]) == [401] * 4
    assert attempt(portal, "a@example.com", "right").status == 200
    assert statuses([attempt(portal, "a@example.com") for _ in range(3)]) == [401, 429, 429]
    others = [attempt(portal, "a@example.com", peer=f"198.51.100.{number}") for number in range(6)]
    assert statuses(others) == [401] * 4 + [429] * 2


def test_an_office_logs_in_as_often_as_it_wants(portal: Portal) -> None:
    """Successes use up nothing, in JSON and on pages."""
    assert {attempt(portal, f"user{number}@example.com", "right").status for number in range(20)} == {200}
    assert {post(portal, f"user{number}@example.com", "right").status for number in range(20)} == {303}


def test_a_page_that_shows_the_form_again_is_a_failure(portal: Portal) -> None:
    """Server-rendered logins answer 200 with HTML; looking at the form is no attempt and clears nothing."""
    assert statuses([post(portal, "a@example.com") for _ in range(6)]) == [200] * 5 + [429]
    assert portal.request("GET", "/login?email=a@example.com").status == 200
    assert post(portal, "a@example.com", peer="198.51.100.1").status == 429


def test_an_error_of_the_application_is_no_failed_attempt(portal: Portal) -> None:
    """503 gives back the attempt."""
    assert statuses([attempt(portal, "a@example.com", "busy") for _ in range(9)]) == [503] * 9


def test_a_crash_counts(portal: Portal) -> None:
    """Whoever can make the handler crash does not get guesses for it."""
    assert statuses([attempt(portal, "a@example.com", "crash") for _ in range(6)]) == [500] * 5 + [429]


# -- settings ---------------------------------------------------------------------------------------------------------


def test_the_quota_is_a_setting(make_portal: MakePortal) -> None:
    """`RATE__LOGIN`; beside it the address limit holds for all attempts."""
    portal = make_portal({"RATE__LOGIN": "2/hour", "RATE__PER_IP": "5/hour"}, prepare=logins)
    assert statuses([attempt(portal, "a@example.com") for _ in range(3)]) == [401, 401, 429]
    answer = attempt(portal, "b@example.com", "right", peer="198.51.100.1")
    assert [name for name, _ in parse_list(answer.get("ratelimit") or "")] == ["ip-per-hour", "login-per-hour"]


@pytest.mark.parametrize("mode", ["local", "open", "closed"])
def test_an_outage_never_opens_the_brake(make_portal: MakePortal, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    """Down: counted in this process, also where other limits are open; closed refuses at once."""
    monkeypatch.setattr(
        portalshield.protection,
        "open_store",
        lambda *arguments, **options: OutageStore(FailingStore(), MemoryStore(), mode, lambda change: None),
    )
    portal = make_portal({"RATE__PER_IP": "off", "RATE__ON_OUTAGE": mode}, prepare=logins)
    answers = [attempt(portal, "a@example.com") for _ in range(6)]
    assert statuses(answers) == ([503] * 6 if mode == "closed" else [401] * 5 + [429])


def test_behind_an_unknown_proxy_the_brake_still_holds(make_portal: MakePortal) -> None:
    """A private peer that forwards: address limits only report then, the brake does not."""
    portal = make_portal({"RATE__PER_IP": "2/hour"}, prepare=logins)
    fields = [("content-type", JSON), ("x-forwarded-for", "203.0.113.7")]
    body = body_of("a@example.com", "wrong")
    answers = [portal.request("POST", "/auth/login", fields, body, peer="10.0.0.2") for _ in range(6)]
    assert statuses(answers) == [401] * 5 + [429]


def test_a_storage_that_cannot_give_back_stops_the_start(make_portal: MakePortal) -> None:
    """Otherwise every success would count."""
    portal = make_portal({"STORAGE": "memcached://127.0.0.1:1"}, prepare=logins)
    assert attempt(portal, "a@example.com").status == 503
    with pytest.raises(ConfigurationError) as caught:
        portal.shield.routes()
    assert {problem.id for problem in caught.value.problems} == {"PS-POLICY-004"}


@pytest.mark.parametrize("name", ["", "  ", 7, True, None])
def test_a_field_without_a_name_is_refused_where_it_is_written(name: Any) -> None:
    """`login` is the name of a field."""
    with pytest.raises(TypeError, match="login is the name of the field"):
        Policy("POST /login", login=name)


def findings(portal: Portal) -> list[tuple[str, str]]:
    return [(found.id, found.where) for found in portal.shield.check() if found.id.startswith("PS-RATE")]


PATHS = ["/login", "/v1/token", "/auth/session", "/signup", "/reset-password", "/password/reset", "/forgot", "/SignIn"]


@pytest.mark.parametrize("path", PATHS)
def test_a_login_like_route_without_a_limit_is_a_finding(make_portal: MakePortal, path: str) -> None:
    """With the line to add; with `login=` or a limit of its own it is none."""

    def add(app: Any) -> None:
        def view() -> str:
            return "x"

        if hasattr(app, "wsgi_app"):
            app.add_url_rule(path, view_func=view, methods=["POST"])
        else:
            app.add_api_route(path, view, methods=["POST"])

    policy = {"match": f"POST {path}", "public": True}
    assert findings(make_portal(prepare=add, policies=[Policy(**policy)])) == [("PS-RATE-101", f"POST {path}")]
    assert findings(make_portal(prepare=add, policies=[Policy(**policy, login="email")])) == []
    assert findings(make_portal(prepare=add, policies=[Policy(**policy, limits=["5/minute"], by="ip")])) == []


def test_a_brake_that_is_off_is_a_finding(make_portal: MakePortal) -> None:
    """`login=` together with `RATE__LOGIN=off`."""
    portal = make_portal({"RATE__LOGIN": "off"}, prepare=logins)
    assert sorted(findings(portal)) == [("PS-RATE-102", "POST /auth/login"), ("PS-RATE-102", "POST /login")]
