"""Webhook deliveries through the stage: once each, whatever fails in between."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from typing import Any

import pytest
from once_driver import NOW, Driver, FailingRecords, exchange, slug

from portalshield.layers.webhook import KEPT_BODY, RUNNING_S, WebhookConfig, WebhookStage, stage, verifiers
from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Claim, Settle, Unavailable
from portalshield.model.secret import Secret
from portalshield.model.verdicts import Problem, Reply
from portalshield.settings import read
from portalshield.stores.records import MemoryRecords
from portalshield.testing import FrozenClock, environment

SECRET = "3f9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4U"
BODY = b'{"id":"evt_1"}'


def delivery(body: bytes = BODY, at: float = NOW, secret: str = SECRET, **more: Any) -> Exchange:
    """As Stripe sends it."""
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return exchange([(b"stripe-signature", f"t={int(at)},v1={mac}".encode())], body, **more)


def made(name: str = "stripe", *, dry: bool = False, public_url: str | None = None, **config: Any) -> WebhookStage:
    """The stage of a route."""
    known = verifiers({name: WebhookConfig(secret=Secret(SECRET), **config)})
    return stage(name, known, public_url, dry=dry)


@pytest.fixture
def driver() -> Driver:
    return Driver(made())


# -- who comes in ------------------------------------------------------------------------------------------------------


def test_an_authentic_delivery_is_processed(driver: Driver) -> None:
    """Nothing but the signature is needed."""
    assert driver.send(delivery()) == driver.answer


@pytest.mark.parametrize(
    ("x", "why"),
    [
        pytest.param(delivery(secret="x" * 20), "signature-wrong", id="another secret"),
        pytest.param(exchange([], BODY), "signature-missing", id="no signature"),
        pytest.param(delivery(at=NOW - 301), "too-old-or-early", id="too old"),
        pytest.param(delivery(body_complete=False), "body-incomplete", id="a body that was not read to its end"),
        pytest.param(exchange([], None, has_body=True), "body-incomplete", id="a body that was not read"),
    ],
)
def test_everything_else_is_refused_before_the_store_is_asked(x: Exchange, why: str) -> None:
    """400, with the reason for the log; nothing is claimed for a stranger."""
    stage = made()
    verdict = stage.check(x)
    assert slug(verdict) == "invalid-signature"
    assert isinstance(verdict, Problem)
    assert verdict.why == why
    assert stage.ask(x) is None
    assert stage.conclude(x, Ending(200)) is None


def test_a_delivery_without_a_body() -> None:
    """An empty body is signed like any other."""
    x = delivery(b"")
    x.body, x.has_body = None, False
    assert made().check(x) is None


def test_senders_do_not_share_records() -> None:
    """The same bytes from two senders are two deliveries."""
    one, two, records = Driver(made()), Driver(made("acme", scheme="stripe")), MemoryRecords()
    one.store = two.store = records
    one.send(delivery())
    two.send(delivery())
    assert (one.runs, two.runs) == (1, 1)


# -- once --------------------------------------------------------------------------------------------------------------


def test_a_copy_gets_the_answer_of_the_first(driver: Driver) -> None:
    """Status, type and body; the handler runs once."""
    driver.send(delivery())
    again = driver.send(delivery())
    assert again == Reply(200, ((b"content-type", b"text/plain"),), b"ok")
    assert driver.runs == 1


def test_a_copy_of_one_that_runs_is_told_to_wait(driver: Driver) -> None:
    """409 with Retry-After, until the first has ended."""
    first = delivery()
    assert driver.begin(first) is None
    waiting = driver.send(delivery())
    assert slug(waiting) == "in-flight"
    assert isinstance(waiting, Problem)
    assert dict(waiting.fields)[b"retry-after"] == b"10"
    driver.end(first, driver.answer)
    assert isinstance(driver.send(delivery()), Reply)


@pytest.mark.parametrize("body", [pytest.param(None, id="streamed"), pytest.param(b"", id="none")])
def test_without_a_body_the_status_is_kept(driver: Driver, body: bytes | None) -> None:
    """It is what senders look at; the type goes with it."""
    fields = ((b"content-type", b"text/html"),)
    driver.send(delivery(), Ending(202, fields, body))
    assert driver.send(delivery()) == Reply(202, fields)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 409, 422])
def test_an_answer_below_500_was_processed(driver: Driver, status: int) -> None:
    """A copy gets it again, also when it is no success."""
    driver.send(delivery(), Ending(status, (), b""))
    assert driver.send(delivery()) == Reply(status)
    assert driver.runs == 1


@pytest.mark.parametrize("status", [0, 408, 425, 429, 500, 502, 503, 599])
def test_what_failed_is_processed_again(driver: Driver, status: int) -> None:
    """A crash, a cancelled or cut request, a refusal behind us, a server error, `come again`: nothing is lost."""
    driver.send(delivery(), Ending(status, (), b""))
    assert driver.send(delivery()) == driver.answer
    assert driver.runs == 2


def test_a_copy_is_known_for_as_long_as_it_verifies(driver: Driver) -> None:
    """Processed as early as the tolerance allows, copied as late as it allows."""
    sent = delivery(at=NOW + 300)
    driver.send(sent)
    driver.clock.advance(599)
    late = delivery(at=NOW + 300, now=NOW + 599)
    assert isinstance(driver.send(late), Reply)
    assert slug(driver.send(delivery(at=NOW + 300, now=NOW + 601))) == "invalid-signature"


def test_a_stage_concludes_once(driver: Driver) -> None:
    """Whoever calls twice does not forget what was kept."""
    x = delivery()
    driver.begin(x)
    driver.end(x, driver.answer)
    assert driver.end(x, Ending(0)) is None
    assert isinstance(driver.send(delivery()), Reply)


# -- P-5: a fault at every step ----------------------------------------------------------------------------------------


def failing(kind: type[Any], *, lost: bool) -> Driver:
    clock = FrozenClock()
    records = MemoryRecords(clock=clock)
    driver = Driver(made(), clock, store=FailingRecords(records, kind, lost=lost))
    driver.records = records
    return driver


@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_at_the_claim_refuses(lost: bool) -> None:
    """503, the handler does not run; the sender's next try is processed, at once or when the claim has ended."""
    driver = failing(Claim, lost=lost)
    refused = driver.send(delivery())
    assert slug(refused) == "unavailable"
    assert driver.runs == 0
    driver.store = driver.records
    if lost:
        assert slug(driver.send(delivery())) == "in-flight"
        driver.clock.advance(RUNNING_S + 1)
    assert driver.send(delivery()) == driver.answer
    assert driver.runs == 1


@pytest.mark.parametrize("status", [pytest.param(200, id="processed"), pytest.param(500, id="failed")])
@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_at_the_end_changes_no_answer(lost: bool, status: int) -> None:
    """The sender gets what the handler said. A failure can be tried again, at the latest when the claim has ended."""
    driver = failing(Settle, lost=lost)
    assert driver.send(delivery(), Ending(status, (), b"")) == Ending(status, (), b"")
    driver.store = driver.records
    again = driver.send(delivery())
    if lost:
        assert again == (Reply(200) if status == 200 else driver.answer)
        return
    assert slug(again) == "in-flight"
    driver.clock.advance(RUNNING_S + 1)
    assert driver.send(delivery()) == driver.answer


def test_a_process_that_dies_in_the_handler_loses_nothing(driver: Driver) -> None:
    """Nobody concludes: the sender is told to wait, and gets through when the claim has ended."""
    assert driver.begin(delivery()) is None
    assert slug(driver.send(delivery())) == "in-flight"
    driver.clock.advance(RUNNING_S + 1)
    assert driver.send(delivery()) == driver.answer


def test_a_handler_that_outlives_its_claim_does_not_undo_the_next_one(driver: Driver) -> None:
    """Its failure comes too late to make a third one run."""
    slow = delivery()
    assert driver.begin(slow) is None
    driver.clock.advance(RUNNING_S + 1)
    assert driver.send(delivery()) == driver.answer
    driver.end(slow, Ending(0))
    assert isinstance(driver.send(delivery()), Reply)
    assert driver.runs == 1


def test_a_record_that_cannot_be_read_is_no_new_delivery(driver: Driver) -> None:
    """Written by another version: known, but nobody can say what was answered."""
    x = delivery()
    driver.begin(x)
    assert x.claim is not None
    driver.records.settle(Settle(*x.claim, b"\x09nonsense", 600.0))
    assert slug(driver.send(delivery())) == "in-flight"


# -- report mode, settings ---------------------------------------------------------------------------------------------


def test_report_mode_claims_nothing_for_what_it_lets_pass() -> None:
    """The walk goes on after a note: a forged copy must not take the place of the authentic one."""
    driver = Driver(made(dry=True))
    forged = delivery(secret="x" * 20)
    assert slug(driver.stage.check(forged)) == "invalid-signature"
    assert driver.stage.ask(forged) is None
    assert driver.send(delivery()) == driver.answer


def test_report_mode_does_not_answer_for_the_handler() -> None:
    """A copy is noted as a refusal, which report mode lets pass."""
    driver = Driver(made(dry=True))
    driver.send(delivery())
    assert slug(driver.send(delivery())) == "in-flight"


def test_twilio_is_told_the_outside_address() -> None:
    """The path as it was called and the query, behind PUBLIC_URL, whatever Host says."""
    twilio = made("twilio", public_url="https://hooks.example.com/in")
    address = b"https://hooks.example.com/in/t%C3%A9?a=1"
    signed = hmac.new(SECRET.encode(), address, hashlib.sha1).digest()
    fields = [(b"x-twilio-signature", b64encode(signed)), (b"host", b"evil.example")]
    for raw in (b"/t%C3%A9", None):
        assert twilio.check(exchange(fields, None, path="/té", raw_path=raw, query=b"a=1")) is None
    assert twilio.check(exchange(fields, None, path="/té", query=b"a=2")) is not None


def test_a_name_that_nobody_configured() -> None:
    """Told with the variable that is missing."""
    with pytest.raises(ValueError, match="PORTALSHIELD_WEBHOOK__PAYMENTS__SECRET"):
        stage("payments", {}, None)


SETTINGS = [
    pytest.param({"STRIPE__SECRET": SECRET}, [], id="a scheme by its name"),
    pytest.param(
        {"CLERK__SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "CLERK__SCHEME": "standard"}, [], id="named"
    ),
    pytest.param({"STANDARD__SECRET": "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="}, [], id="a public key"),
    pytest.param(
        {"A__SECRET": SECRET, "A__SCHEME": "hmac", "A__HEADER": "X-Sig", "A__TIME_HEADER": "X-Time"}, [], id="hmac"
    ),
    pytest.param({"ACME__SECRET": SECRET}, ["PS-HOOK-002"], id="no scheme"),
    pytest.param({"STRIPE__TOLERANCE": "5m"}, ["PS-HOOK-001"], id="no secret"),
    pytest.param({"HMAC__SECRET": SECRET}, ["PS-HOOK-003"], id="hmac without its header"),
    pytest.param({"SLACK__SECRET": SECRET, "SLACK__HEADER": "X-Sig"}, ["PS-HOOK-004"], id="a header too many"),
    pytest.param({"STRIPE__SECRET": SECRET, "STRIPE__TOLERANCE": "0"}, ["PS-HOOK-006"], id="no tolerance"),
    pytest.param({"TWILIO__SECRET": SECRET}, ["PS-HOOK-007"], id="twilio without PUBLIC_URL"),
    pytest.param({"HMAC__SECRET": SECRET, "HMAC__HEADER": "X Sig"}, ["PS-HOOK-008"], id="no name of a header"),
    *(
        pytest.param({f"{scheme}__SECRET": secret}, ["PS-HOOK-005"], id=f"{scheme}: {why}")
        for scheme, secret, why in (
            ("GITHUB", "hunter2", "short"),
            ("GITHUB", "change-me-in-production", "a placeholder"),
            ("STRIPE", "whsec_your_signing_secret_here", "a placeholder"),
            ("STRIPE", "sk_live_51H8s7d6f5g4h3j2k1l0", "an API key"),
            ("STRIPE", "whsec_" + "a" * 32, "one character"),
            ("STANDARD", "whsec_!", "no base64"),
        )
    ),
    pytest.param({"GITHUB__SECRET": SECRET, "GITHUB__PREVIOUS_SECRET": "old"}, ["PS-HOOK-005"], id="a bad old one"),
]


@pytest.mark.parametrize(("variables", "ids"), SETTINGS)
def test_settings_are_judged_at_start(variables: dict[str, str], ids: list[str]) -> None:
    """What cannot verify anything stops the start, by id and variable, without the secret."""
    _, problems = read(environment(**{f"WEBHOOK__{name}": value for name, value in variables.items()}))
    assert [problem.id for problem in problems] == ids
    secrets = [value for name, value in variables.items() if name.endswith("SECRET")]
    assert not any(secret in str(problem) for problem in problems for secret in secrets)


def test_random_secrets_are_never_taken_for_placeholders() -> None:
    """`whsec_Ret...` holds no word that somebody wrote."""
    _, problems = read(environment(WEBHOOK__STRIPE__SECRET="whsec_Ret9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4"))
    assert problems == []


def test_a_missing_answer_of_the_store_says_when_to_come_again() -> None:
    """503 with Retry-After."""
    x = delivery()
    unable = made()
    unable.check(x)
    need = unable.ask(x)
    assert need is not None
    verdict = unable.settle(x, need, Unavailable("store-down"))
    assert isinstance(verdict, Problem)
    assert (verdict.type.status, dict(verdict.fields)) == (503, {b"retry-after": b"10"})
    assert unable.keeps_body == KEPT_BODY
