"""Idempotency keys through the stage: whose they are, what is kept, and what a fault in between costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from once_driver import Driver, FailingRecords, exchange, slug

from portalshield.layers.idempotency import KEPT_BODY, RUNNING_S, IdempotencyStage
from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Claim, Settle
from portalshield.model.policy import EffectivePolicy, Idempotent, Policy
from portalshield.model.principal import Principal
from portalshield.model.verdicts import Problem, Reply
from portalshield.stores.records import MemoryRecords
from portalshield.testing import FrozenClock

ANN = Principal("ann", tenant="north", issuer="https://id.example")
CREATED = Ending(
    201,
    (
        (b"Content-Type", b"application/json"),
        (b"location", b"/things/7"),
        (b"set-cookie", b"session=secret"),
        (b"content-length", b"8"),
    ),
    b'{"id":7}',
)
AGAIN = Reply(
    201,
    ((b"content-type", b"application/json"), (b"location", b"/things/7"), (b"idempotent-replayed", b"true")),
    b'{"id":7}',
)


def request(key: bytes | None = b"k-1", body: bytes = b'{"amount":1}', **more: Any) -> Exchange:
    """A POST of Ann's."""
    fields = [(b"content-type", b"application/json")]
    if key is not None:
        fields.append((b"idempotency-key", key))
    return exchange(fields, body, **{"principal": ANN, **more})


@pytest.fixture
def driver() -> Driver:
    return Driver(IdempotencyStage(Idempotent()), answer=CREATED)


def test_a_repetition_gets_the_first_answer(driver: Driver) -> None:
    """Status, the fields that matter, body, and a mark; no cookie. The handler runs once."""
    assert driver.send(request()) == CREATED
    assert driver.send(request()) == AGAIN
    assert driver.send(request(b'"k-1"')) == AGAIN
    assert driver.runs == 1


def test_without_a_key_nothing_is_remembered(driver: Driver) -> None:
    """Two requests without one are two requests."""
    driver.send(request(None))
    driver.send(request(None))
    assert driver.runs == 2
    assert len(driver.records) == 0


def test_a_key_may_be_required() -> None:
    """Then its absence is 400."""
    driver = Driver(IdempotencyStage(Idempotent(required=True)))
    assert slug(driver.send(request(None))) == "idempotency-key-required"
    assert driver.send(request()) == driver.answer


@pytest.mark.parametrize("key", [b"", b'"', b"a b", b"x" * 256, b"a, b", b"\xff"])
def test_a_key_that_is_none_is_refused(driver: Driver, key: bytes) -> None:
    """It is not taken for no key: the client believes itself safe."""
    assert slug(driver.send(request(key))) == "malformed-request"
    assert driver.runs == 0


def test_two_keys_are_none(driver: Driver) -> None:
    """One reader would take the first, another the last."""
    two = exchange([(b"idempotency-key", b"a"), (b"idempotency-key", b"b")], b"", principal=ANN)
    assert slug(driver.send(two)) == "malformed-request"
    assert driver.stage.ask(two) is None


OTHERS = [
    pytest.param({"principal": replace(ANN, subject="bob")}, id="another subject"),
    pytest.param({"principal": replace(ANN, tenant="south")}, id="another tenant"),
    pytest.param({"principal": replace(ANN, tenant=None)}, id="no tenant"),
    pytest.param({"principal": replace(ANN, issuer="https://other.example")}, id="another issuer"),
    pytest.param({"principal": replace(ANN, actor="support")}, id="somebody in the subject's name"),
    pytest.param({"principal": None}, id="nobody"),
    pytest.param({"template": "/others"}, id="another route"),
    pytest.param({"method": "PATCH"}, id="another method"),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_key_is_nobody_elses(driver: Driver, other: dict[str, Any]) -> None:
    """The same key of somebody else, or elsewhere, is another key."""
    driver.send(request())
    assert driver.send(request(**other)) == CREATED
    assert driver.runs == 2


def test_on_public_routes_a_key_is_an_addresss() -> None:
    """Without a principal; two addresses do not share."""
    driver = Driver(IdempotencyStage(Idempotent()), answer=CREATED)
    driver.send(request(principal=None, address_key="203.0.113.7"))
    assert driver.send(request(principal=None, address_key="203.0.113.7")) == AGAIN
    assert driver.send(request(principal=None, address_key="203.0.113.8")) == CREATED


def test_parts_of_a_key_do_not_run_together(driver: Driver) -> None:
    """`ab` + `c` is not `a` + `bc`."""
    driver.send(request(principal=Principal("bc", tenant="a")))
    assert driver.send(request(principal=Principal("c", tenant="ab"))) == CREATED


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"body": b'{"amount":2}'}, id="another body"),
        pytest.param({"body": b""}, id="no body"),
        pytest.param({"query": b"dry=1"}, id="another query"),
        pytest.param({"path": "/things/8"}, id="another path of this route"),
    ],
)
def test_another_request_under_the_key_is_refused(driver: Driver, other: dict[str, Any]) -> None:
    """422, also while the first runs; the first one's record stays."""
    first = request()
    driver.begin(first)
    assert slug(driver.send(request(**other))) == "idempotency-key-reused"
    driver.end(first, CREATED)
    assert slug(driver.send(request(**other))) == "idempotency-key-reused"
    assert driver.send(request()) == AGAIN


def test_a_repetition_of_one_that_runs_is_told_to_wait(driver: Driver) -> None:
    """409 with Retry-After."""
    driver.begin(request())
    waiting = driver.send(request())
    assert slug(waiting) == "in-flight"
    assert isinstance(waiting, Problem)
    assert dict(waiting.fields)[b"retry-after"] == b"2"


def test_no_text_of_the_request_is_in_the_key() -> None:
    """What stands in a store names nobody."""
    need = IdempotencyStage(Idempotent()).ask(request(b"secret-key"))
    assert need is not None
    assert len(need.key) == 48
    assert set(need.key) <= set("0123456789abcdef")
    assert len(need.fingerprint) == 32


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 303, 400, 404, 409, 422])
def test_answers_are_kept(driver: Driver, status: int) -> None:
    """Also those that refuse: the same request would be refused again."""
    driver.send(request(), Ending(status, (), b""))
    assert driver.send(request()) == Reply(status, ((b"idempotent-replayed", b"true"),))


@pytest.mark.parametrize("status", [0, 401, 403, 429, 500, 503])
def test_what_may_be_tried_again_is_not(driver: Driver, status: int) -> None:
    """A crash or cut, a server error, and whatever another credential or moment could change."""
    driver.send(request(), Ending(status, (), b"no"))
    assert driver.send(request()) == CREATED


def test_a_stream_is_not_kept(driver: Driver) -> None:
    """An answer without a length that was not read."""
    driver.send(request(), Ending(200, (), None))
    assert driver.send(request()) == CREATED


@pytest.mark.parametrize("body", [pytest.param(None, id="not read"), pytest.param(b"x" * (KEPT_BODY + 1), id="read")])
def test_a_large_answer_is_not_kept_but_known(driver: Driver, body: bytes | None) -> None:
    """409 with a title that says so: nothing is processed twice."""
    driver.send(request(), Ending(200, ((b"content-length", b"70000"),), body))
    assert slug(driver.send(request())) == "answer-not-kept"
    assert driver.runs == 1


def test_the_largest_answer_is_kept(driver: Driver) -> None:
    """64 KiB."""
    driver.send(request(), Ending(200, (), b"x" * KEPT_BODY))
    again = driver.send(request())
    assert isinstance(again, Reply)
    assert again.body == b"x" * KEPT_BODY


def test_keys_are_known_for_a_day(driver: Driver) -> None:
    """Then they are free."""
    driver.send(request())
    driver.clock.advance(86_399)
    assert driver.send(request()) == AGAIN
    driver.clock.advance(2)
    assert driver.send(request()) == CREATED


# -- P-5: a fault at every step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Claim, Settle])
@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_at_any_step(kind: type[Any], lost: bool) -> None:
    """At the claim: refused, not run. At the end: the client has its answer; a repetition waits or is answered, and
    runs again at the earliest when the claim has ended."""
    clock = FrozenClock()
    records = MemoryRecords(clock=clock)
    driver = Driver(IdempotencyStage(Idempotent()), clock, CREATED, store=FailingRecords(records, kind, lost=lost))
    first = driver.send(request())
    assert driver.runs == (0 if kind is Claim else 1)
    assert slug(first) == "unavailable" if kind is Claim else first == CREATED
    driver.store = records
    second = driver.send(request())
    if kind is Claim and not lost:
        assert second == CREATED
    elif kind is Settle and lost:
        assert second == AGAIN
    else:
        assert slug(second) == "in-flight"
        clock.advance(RUNNING_S + 1)
        assert driver.send(request()) == CREATED


def test_report_mode_does_not_answer_for_the_handler() -> None:
    """A repetition is noted as a refusal, which report mode lets pass."""
    driver = Driver(IdempotencyStage(Idempotent(), dry=True), answer=CREATED)
    driver.send(request())
    assert slug(driver.send(request())) == "in-flight"


# -- the keyword -------------------------------------------------------------------------------------------------------


def test_what_the_keyword_takes() -> None:
    """True, False, or terms."""
    assert Policy("POST /a", idempotent=True).terms["idempotent"] == Idempotent()
    assert Policy("POST /a", idempotent=False).terms["idempotent"] is None
    assert Policy("POST /a", idempotent=Idempotent(required=True)).terms["idempotent"].required
    assert EffectivePolicy().idempotent is None
    with pytest.raises(TypeError, match="idempotent is"):
        Policy("POST /a", idempotent="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param({"webhook": "stripe", "scopes": ["a"]}, id="scopes"),
        pytest.param({"webhook": "stripe", "public": True, "roles": ["a"]}, id="roles"),
        pytest.param({"webhook": "stripe", "tenant": "org"}, id="a tenant"),
        pytest.param({"webhook": "stripe", "idempotent": True}, id="idempotent"),
        pytest.param({"webhook": ""}, id="no name"),
        pytest.param({"webhook": True}, id="not a name"),
    ],
)
def test_contradictions_stop_where_they_are_written(terms: dict[str, Any]) -> None:
    """A webhook's sender has a signature and nothing else."""
    with pytest.raises(TypeError, match="webhook"):
        Policy("POST /a", **terms)


def test_a_webhook_is_public_unless_said() -> None:
    """`public=False` asks for both a signature and a principal."""
    assert Policy("POST /a", webhook="stripe").terms["public"] is True
    assert Policy("POST /a", webhook="stripe", public=False, scopes=["a"]).terms["public"] is False
