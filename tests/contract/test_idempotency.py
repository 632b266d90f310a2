"""Idempotency keys through both doors: a repetition is answered, never processed, and nobody gets another's."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from connections import request_lines
from deeds import Call, Caller, Deeds, FailingRecords, Said
from doors import Answer

from conftest import MakePortal
from portalshield import Policy, Principal
from portalshield.context import CURRENT
from portalshield.layers.idempotency import KEPT_BODY
from portalshield.model.needs import Claim, Settle
from portalshield.model.policy import Idempotent
from portalshield.telemetry.schema import LINE

JSON = ("content-type", "application/json")
METHODS = "GET|POST|PUT|PATCH|DELETE"
_numbers = itertools.count()
POLICIES = [
    Policy("* /orders", idempotent=True),
    Policy("* /refunds", idempotent=True),
    Policy("* /orders/{number}", idempotent=True),
    Policy("POST /payments", idempotent=Idempotent(required=True)),
    Policy("POST /contact", public=True, idempotent=True),
    Policy("POST /scoped", scopes=["orders:write"], idempotent=True),
    Policy("POST /limited", limits=["2/hour"], idempotent=True),
]


MakeCaller = Callable[..., Caller]


@pytest.fixture
def make_caller(make_portal: MakePortal) -> Iterator[MakeCaller]:
    """A portal that takes orders."""
    made: list[Caller] = []

    def make(env: dict[str, str] | None = None, **more: Any) -> Caller:
        routes = ["/orders", "/refunds", "/orders/{number}", "/payments", "/contact", "/scoped", "/limited"]
        deeds = Deeds(*(f"{METHODS} {path}" for path in routes))
        portal = make_portal({"RATE__PER_IP": "off"} | (env or {}), deeds.add_to, policies=POLICIES, **more)
        made.append(Caller(portal, deeds).open())
        return made[-1]

    yield make
    for caller in made:
        caller.close()


@pytest.fixture
def order(caller: Caller) -> Call:
    """An order of one user of one tenant."""
    return order_of(caller)


def order_of(caller: Caller, body: bytes = b'{"amount":1}', *, key: str = "", **more: Any) -> Call:
    """`method`, `path`; `who`: the header fields that say who is asking; `fields`: more of them."""
    who = more.get("who")
    fields = [*(caller.portal.bearer() if who is None else who), JSON, *more.get("fields", ())]
    key = key or f"key-{next(_numbers)}"
    return more.get("method", "POST"), more.get("path", "/orders"), [*fields, ("idempotency-key", key)], body


CREATED = Said(
    201,
    b'{"id":7}',
    (
        ("content-type", "application/json"),
        ("location", "/orders/7"),
        ("etag", '"1"'),
        ("cache-control", "private"),
        ("vary", "Accept-Language"),
        ("set-cookie", "session=of-the-first"),
        ("x-internal", "1"),
    ),
)


# -- a repetition ------------------------------------------------------------------------------------------------------


def names(answer: Answer) -> set[str]:
    return {name.lower() for name, _ in answer.headers}


def test_a_repetition_gets_the_first_answer(kept: Caller) -> None:
    """Status, body and what describes them, marked; neither cookies nor fields of unknown meaning."""
    kept.deeds.say = lambda body: CREATED
    call = order_of(kept)
    first, again, third = (kept.send(*call) for _ in range(3))
    for answer in (again, third):
        assert (answer.status, answer.body) == (201, b'{"id":7}')
        for name in ("content-type", "location", "etag", "cache-control", "vary"):
            assert answer.get(name) == first.get(name)
        assert [answer.get(name) for name in ("idempotent-replayed", "set-cookie", "x-internal")] == [
            "true",
            None,
            None,
        ]
        assert answer.get("x-request-id") != first.get("x-request-id")
        assert names(first) - names(answer) == {
            "set-cookie",
            "x-internal",
        }
    assert (first.get("idempotent-replayed"), first.get("set-cookie")) == (None, "session=of-the-first")
    assert len(kept.deeds.runs) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_whatever_changes_something_may_carry_a_key(caller: Caller, method: str) -> None:
    """Also without a body."""
    call = order_of(caller, b"" if method == "DELETE" else b"{}", method=method)
    assert [caller.send(*call).status for _ in range(2)] == [200, 200]
    assert len(caller.deeds.runs) == 1


def test_a_get_is_asked_anew(caller: Caller) -> None:
    """It changes nothing, and a key there means nothing."""
    call = order_of(caller, b"", method="GET")
    assert [caller.send(*call).get("idempotent-replayed") for _ in range(2)] == [None, None]
    assert len(caller.deeds.runs) == 2


def test_without_a_key_nothing_is_remembered(caller: Caller) -> None:
    """Two orders are two orders."""
    for _ in range(2):
        caller.send("POST", "/orders", [*caller.portal.bearer(), JSON], b"{}")
    assert len(caller.deeds.runs) == 2


def test_a_quoted_and_a_bare_key_are_the_same(caller: Caller) -> None:
    """RFC 8941 strings, and what most clients send."""
    for key in ('"8e03978e"', "8e03978e"):
        assert caller.send(*order_of(caller, key=key)).status == 200
    assert len(caller.deeds.runs) == 1


@pytest.mark.parametrize("key", ["a b", '"', '"a', "a, b", "a;b=1", "x" * 256, "\xe9"])
def test_a_key_that_is_none_is_refused(caller: Caller, key: str) -> None:
    """400, before anything is processed under a key that the client will not repeat like that."""
    answer = caller.send(*order_of(caller, key=key))
    assert (answer.status, answer.slug) == (400, "malformed-request")
    assert caller.deeds.runs == []


def test_two_keys_are_none(caller: Caller) -> None:
    """Two fields, or what a server made of them."""
    answer = caller.send(*order_of(caller, fields=[("idempotency-key", "another")]))
    assert (answer.status, caller.deeds.runs) == (400, [])


def test_a_key_may_be_required(caller: Caller) -> None:
    """400 without one."""
    answer = caller.send("POST", "/payments", [*caller.portal.bearer(), JSON], b"{}")
    assert (answer.status, answer.slug) == (400, "idempotency-key-required")
    assert caller.send(*order_of(caller, path="/payments")).status == 200


# -- whose key it is ---------------------------------------------------------------------------------------------------


def test_a_key_belongs_to_one_user_of_one_tenant(kept: Caller) -> None:
    """The same key and body of somebody else is their own order."""
    people: list[dict[str, Any]] = [
        {"tenant": "north"},
        {"tenant": "north", "subject": "u2"},
        {"tenant": "south"},
        {"tenant": "south", "subject": "u2"},
        {"tenant": "north", "act": {"sub": "support"}},
    ]
    kept.deeds.say = lambda body: Said(body=b"%d" % len(kept.deeds.runs))
    calls = [order_of(kept, key="same", who=kept.portal.bearer(**person)) for person in people]
    assert [kept.send(*call).body for call in calls] == [b"1", b"2", b"3", b"4", b"5"]
    assert [kept.send(*call).body for call in calls] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_key_belongs_to_one_route_and_method(kept: Caller) -> None:
    """`POST /orders`, `PUT /orders`, `POST /refunds` are three things to do."""
    for method, path in (("POST", "/orders"), ("PUT", "/orders"), ("POST", "/refunds"), ("POST", "/orders/1")):
        assert kept.send(*order_of(kept, key="same", method=method, path=path)).get("idempotent-replayed") is None
    assert len(kept.deeds.runs) == 4


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"body": b'{"amount":2}'}, id="body"),
        pytest.param({"body": b'{"amount":1} '}, id="a blank"),
        pytest.param({"body": b""}, id="no body"),
        pytest.param({"path": "/orders/2"}, id="path"),
        pytest.param({"path": "/orders/1?dry=1"}, id="query"),
        pytest.param({"type": "application/x-www-form-urlencoded"}, id="type"),
    ],
)
def test_another_request_under_the_key_is_refused(kept: Caller, other: dict[str, Any]) -> None:
    """422, and its answer is not told."""
    assert kept.send(*order_of(kept, key="k", path="/orders/1")).status == 200
    method, path, fields, body = order_of(kept, other.get("body", b'{"amount":1}'), key="k", path="/orders/1")
    fields = [(name, other.get("type", value) if name == "content-type" else value) for name, value in fields]
    answer = kept.send(method, other.get("path", path), fields, body)
    assert (answer.status, answer.slug) == (422, "idempotency-key-reused")
    assert len(kept.deeds.runs) == 1


def test_on_public_routes_a_key_belongs_to_an_address(caller: Caller) -> None:
    """And to the credential that only the application can read, if one came."""
    mine = order_of(caller, key="k", path="/contact", who=[])
    other = order_of(caller, key="k", path="/contact", who=[("authorization", "Basic YTpi")])
    for call in (mine, other, mine, other):
        assert caller.send(*call).status == 200
    assert len(caller.deeds.runs) == 2
    if not caller.asgi:
        assert caller.portal.request(*mine, peer="198.51.100.1").get("idempotent-replayed") is None
        assert len(caller.deeds.runs) == 3


def test_a_repetition_passes_every_check_again(caller: Caller) -> None:
    """What is kept is nothing for whoever may not ask any more."""
    holder = caller.portal.bearer(scopes=["orders:write"])
    assert caller.send(*order_of(caller, key="k", path="/scoped", who=holder)).status == 200
    assert caller.send(*order_of(caller, key="k", path="/scoped")).status == 403
    assert caller.send(*order_of(caller, key="k", path="/scoped", who=[])).status == 401
    assert caller.send(*order_of(caller, key="k", path="/scoped", who=holder)).get("idempotent-replayed") == "true"


def test_a_repetition_counts_like_any_request(caller: Caller) -> None:
    """429 is no answer that would be kept, nor does it end what is."""
    call = order_of(caller, path="/limited")
    assert [caller.send(*call).status for _ in range(4)] == [200, 200, 429, 429]
    assert len(caller.deeds.runs) == 1


# -- at the same time --------------------------------------------------------------------------------------------------


def test_of_20_at_once_one_is_processed(kept: Caller) -> None:
    """The others get its answer, or are told to come again."""
    call = order_of(kept)
    answers = kept.together([call] * 20)
    assert len(kept.deeds.runs) == 1
    assert {answer.status for answer in answers} <= {200, 409}
    assert kept.send(*call).get("idempotent-replayed") == "true"


def test_a_repetition_of_one_that_runs_is_told_to_wait(kept: Caller) -> None:
    """409 with Retry-After; another body under the key is told so at once."""
    call = order_of(kept, key="k")
    first, (again, changed) = kept.while_running(call, [call, order_of(kept, b"{}", key="k")])
    assert (first.status, again.status, again.slug, again.get("retry-after")) == (200, 409, "in-flight", "2")
    assert (changed.status, changed.slug) == (422, "idempotency-key-reused")
    assert kept.send(*call).status == 200
    assert len(kept.deeds.runs) == 1


def test_a_cancelled_request_may_be_sent_again(kept: Caller) -> None:
    """Cancelled in the middle of the handler, or its worker told to go."""
    call = order_of(kept)
    kept.cancelled(call)
    assert kept.send(*call).get("idempotent-replayed") is None
    assert kept.send(*call).get("idempotent-replayed") == "true"
    assert len(kept.deeds.runs) == 2


# -- which answers are kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 303, 400, 404, 409, 422])
def test_answers_are_kept(caller: Caller, order: Call, status: int) -> None:
    """Refusals of the application too: sent again, the request would be no better."""
    caller.deeds.say = lambda body: Said(status)
    assert [caller.send(*order).status for _ in range(2)] == [status, status]
    assert len(caller.deeds.runs) == 1


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
def test_what_may_be_tried_again_is_not_kept(caller: Caller, order: Call, status: int) -> None:
    """The next one is processed."""
    caller.deeds.say = lambda body: Said(status if len(caller.deeds.runs) == 1 else 200)
    answers = [caller.send(*order) for _ in range(3)]
    assert [answer.status for answer in answers] == [status, 200, 200]
    assert [answer.get("idempotent-replayed") for answer in answers] == [None, None, "true"]
    assert len(caller.deeds.runs) == 2


def test_a_crash_is_not_kept(kept: Caller) -> None:
    """One safe 500; the next one is processed."""
    kept.deeds.say = lambda body: Said(raises=RuntimeError("x") if len(kept.deeds.runs) == 1 else None)
    call = order_of(kept)
    assert [kept.send(*call).status for _ in range(3)] == [500, 200, 200]
    assert len(kept.deeds.runs) == 2


def test_a_stream_is_not_kept(caller: Caller, order: Call) -> None:
    """It has no length, and nobody holds it; it runs again."""
    caller.deeds.say = lambda body: Said(body=b"x" * 10, stream=True)
    assert [caller.send(*order).body for _ in range(2)] == [b"x" * 10] * 2
    assert len(caller.deeds.runs) == 2


def test_the_largest_answer_that_is_kept(kept: Caller) -> None:
    """64 KiB."""
    kept.deeds.say = lambda body: Said(body=b"x" * KEPT_BODY)
    call = order_of(kept)
    assert [kept.send(*call).body for _ in range(2)] == [b"x" * KEPT_BODY] * 2
    assert len(kept.deeds.runs) == 1


@pytest.mark.parametrize("file", [False, True], ids=["a body", "a file that the server sends"])
def test_a_larger_answer_is_not_kept_but_known(kept: Caller, tmp_path: Path, file: bool) -> None:
    """409 that explains it, and nothing runs twice."""
    large = tmp_path / "large.bin"
    large.write_bytes(b"x" * (KEPT_BODY + 1))
    said = Said(file=str(large)) if file else Said(body=b"x" * (KEPT_BODY + 1))
    kept.hands_over().deeds.say = lambda body: said
    call = order_of(kept)
    assert kept.send(*call).status == 200
    again = kept.send(*call)
    assert (again.status, again.slug) == (409, "answer-not-kept")
    assert len(kept.deeds.runs) == 1


def test_what_a_layer_refuses_is_not_kept(caller: Caller) -> None:
    """A request that never reached the handler holds no record."""
    bad = order_of(caller, b"{", key="k")
    assert [caller.send(*bad).status for _ in range(2)] == [400, 400]
    assert caller.send(*order_of(caller, key="k")).status == 200


# -- a store that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_before_the_handler_refuses(caller: Caller, order: Call, lost: bool) -> None:
    """503 with Retry-After, for requests with a key; others are none of its business."""
    records = caller.runtime.records
    caller.runtime.records = FailingRecords(records, Claim, lost=lost)
    refused = caller.send(*order)
    assert (refused.status, refused.slug, refused.get("retry-after")) == (503, "unavailable", "5")
    assert caller.deeds.runs == []
    assert caller.send("POST", "/orders", [*caller.portal.bearer(), JSON], b"{}").status == 200
    caller.runtime.records = records
    assert caller.send(*order).status == (409 if lost else 200)


@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_behind_the_handler_changes_no_answer(caller: Caller, order: Call, lost: bool) -> None:
    """The client gets it; a repetition is not processed."""
    records = caller.runtime.records
    caller.runtime.records = FailingRecords(records, Settle, lost=lost)
    assert caller.send(*order).status == 200
    caller.runtime.records = records
    assert caller.send(*order).status == (200 if lost else 409)
    assert len(caller.deeds.runs) == 1


class BrokenRecords(FailingRecords):
    """A store with a bug: it raises instead of saying that it cannot."""

    def settle(self, settle: Settle) -> Any:
        """Never returns."""
        raise RuntimeError("a bug")


def test_a_store_with_a_bug_changes_no_answer(caller: Caller, order: Call, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the request ends as it should, and so does the next one."""
    caller.runtime.records = BrokenRecords(caller.runtime.records, Settle)
    answer = caller.send(*order)
    assert (answer.status, answer.error) == (200, None)
    assert "RuntimeError" in caplog.text
    assert CURRENT.get() is None
    assert caller.send("GET", "/public").status == 200


class SlowRecords(FailingRecords):
    """A store that takes its time to settle."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, type(None))
        self.asked = asyncio.Event()

    async def asettle(self, settle: Settle) -> Any:
        """Says that it was asked, and answers only then."""
        self.asked.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.settle(settle)


def test_a_client_that_leaves_while_the_answer_is_kept_finds_it(make_caller: MakeCaller) -> None:
    """What was begun to be kept is kept: a request that was cancelled then is not processed a second time (ASGI)."""
    caller = make_caller()
    if not caller.asgi:
        return  # a WSGI worker is not interrupted
    slow = caller.runtime.records = SlowRecords(caller.runtime.records)
    call = order_of(caller, key="leaves")

    async def cancelled() -> None:
        running = asyncio.ensure_future(caller._asent(call))
        await slow.asked.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    caller.runner.run(cancelled())
    again = caller.send(*call)
    assert (again.status, again.get("idempotent-replayed")) == (200, "true")
    assert len(caller.deeds.runs) == 1


# -- modes, and other ways to say it -----------------------------------------------------------------------------------


def test_report_mode_answers_nobody_in_the_handlers_place(
    make_caller: MakeCaller, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each one runs, and the line tells what would have been."""
    caller = make_caller({"MODE__IDEMPOTENCY": "report"})
    call = order_of(caller, key="k")
    request_lines(capfd)
    answers = [caller.send(*each) for each in (call, call, order_of(caller, b"{}", key="k"))]
    assert [answer.get("idempotent-replayed") for answer in answers] == [None] * 3
    assert len(caller.deeds.runs) == 3
    assert [line["would_refuse"] for line in request_lines(capfd)] == [
        None,
        [["idempotency", "in-flight"]],
        [["idempotency", "idempotency-key-reused"]],
    ]


def test_off_is_off(make_caller: MakeCaller) -> None:
    """Keys, required or not, mean nothing then."""
    caller = make_caller({"MODE__IDEMPOTENCY": "off"})
    call = order_of(caller)
    for each in (call, call, ("POST", "/payments", [*caller.portal.bearer(), JSON], b"{}")):
        assert caller.send(*each).status == 200
    assert len(caller.deeds.runs) == 3


def test_a_repetition_is_told_apart_in_the_log(caller: Caller, order: Call, capfd: pytest.CaptureFixture[str]) -> None:
    """`replayed` in its line."""
    request_lines(capfd)
    for _ in range(2):
        caller.send(*order)
    first, again = request_lines(capfd)
    assert (first.get("replayed"), again["replayed"], again["decision"]) == (None, True, "allowed")
    assert set(again) <= set(LINE["properties"])


def test_a_policy_file_may_require_keys(make_portal: MakePortal, tmp_path: Path) -> None:
    """`idempotent = {required = true}`."""
    written = tmp_path / "policies.toml"
    written.write_text('[[route]]\nmatch = "POST /orders"\npublic = true\nidempotent = {required = true}\n')
    deeds = Deeds("POST /orders")
    portal = make_portal({"POLICY_FILE": str(written)}, deeds.add_to)
    assert portal.json("POST", "/orders", b"{}").slug == "idempotency-key-required"
    assert portal.json("POST", "/orders", b"{}", [("idempotency-key", "k")]).status == 200


def test_where_the_application_knows_who_it_is(make_caller: MakeCaller) -> None:
    """With `authenticate=` the record is claimed inside the application, and settled all the same."""

    def who(request: Any) -> Principal | None:
        name = request.headers.get("x-user")
        return Principal(subject=name, tenant="north") if name else None

    caller = make_caller({}, authenticate=who)
    mine, theirs = (order_of(caller, key="k", who=[("x-user", name)]) for name in ("ann", "bob"))
    caller.deeds.say = lambda body: Said(body=b"%d" % len(caller.deeds.runs))
    assert [caller.send(*call).body for call in (mine, theirs, mine, theirs)] == [b"1", b"2", b"1", b"2"]
    assert caller.send(*mine).get("idempotent-replayed") == "true"
    caller.deeds.say = lambda body: Said(503)
    failing = order_of(caller, who=[("x-user", "ann")])
    assert [caller.send(*failing).status for _ in range(2)] == [503, 503]
    assert len(caller.deeds.runs) == 4
