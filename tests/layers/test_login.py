"""The login brake by itself: what it counts, what it gives back, what it refuses, driven without any door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from portalshield.asgi.fields import headers_of
from portalshield.layers.login import MAX_ACCOUNTS, LoginStage, stage
from portalshield.layers.rate import RateConfig, login_quotas
from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Unavailable
from portalshield.model.verdicts import Problem
from portalshield.rules.account_names import AccountKeys
from portalshield.rules.strict_json import parse
from portalshield.stores.memory import MemoryStore
from portalshield.stores.outage import OutageStore
from portalshield.testing import FailingStore, FrozenClock

JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"
PAGE = ((b"content-type", b"text/html; charset=utf-8"),)
DENIED, WELCOME = Ending(401), Ending(200, ((b"content-type", b"application/json"),))


def brake(notation: str = "5/minute", field: str = "email") -> LoginStage:
    found = stage(field, login_quotas(RateConfig(login=notation)), AccountKeys(b"secret"))
    assert found is not None
    return found


class Driver:
    """Walks one stage as a door does: check, ask, settle, and, if the request was let through, conclude."""

    def __init__(self, tested: LoginStage | None = None, store: Any = None) -> None:
        self.clock = FrozenClock()
        self.stage = tested or brake()
        self.store = store or MemoryStore(clock=self.clock)

    def exchange(self, body: bytes, content_type: bytes = JSON, address: str = "203.0.113.7") -> Exchange:
        x = Exchange()
        x.method, x.path = "POST", "/auth/login"
        x.headers, _ = headers_of([(b"content-type", content_type)])
        x.body, x.address_key = body, address
        if content_type == JSON:
            x.json = parse(body, max_depth=8, max_keys=100, max_items=100)
        return x

    def begin(self, x: Exchange) -> Any:
        """The verdict before the handler."""
        verdict = self.stage.check(x)
        need = self.stage.ask(x) if verdict is None else None
        return verdict if need is None else self.stage.settle(x, need, self.store.hit(need))

    def end(self, x: Exchange, ending: Ending) -> None:
        """Tell the stage how the handler answered."""
        need = self.stage.conclude(x, ending)
        if need is not None:
            self.store.give_back(need)
        assert self.stage.conclude(x, ending) is None, "an attempt is concluded once"

    def attempt(self, email: str, ending: Ending = DENIED, address: str = "203.0.113.7") -> Any:
        """One request with a JSON body; None if the handler was asked."""
        return self.send(self.exchange(b'{"email": "%s"}' % email.encode(), address=address), ending)

    def send(self, x: Exchange, ending: Ending) -> Any:
        verdict = self.begin(x)
        if verdict is None:
            self.end(x, ending)
        return verdict

    def asked(self, attempts: int, attempt: Callable[[int], Any]) -> int:
        """How many of so many attempts reached the handler."""
        return sum(attempt(number) is None for number in range(attempts))


# -- who is slowed ----------------------------------------------------------------------------------------------------


def test_one_account_from_a_hundred_addresses() -> None:
    """Distributed guessing has the account's attempts, whoever sends them; another account is not touched."""
    driver = Driver()
    assert driver.asked(100, lambda n: driver.attempt("a@example.com", address=f"203.0.113.{n}")) == 5
    assert driver.attempt("b@example.com", address="203.0.113.200") is None


def test_a_hundred_accounts_from_one_address() -> None:
    """Spraying one password over many accounts has the address's attempts; another address is not touched."""
    driver = Driver()
    assert driver.asked(100, lambda n: driver.attempt(f"user{n}@example.com")) == 5
    assert driver.attempt("user3@example.com", address="198.51.100.1") is None


def test_refusals_are_alike() -> None:
    """Account spent, address spent, account that exists, account that does not: the same problem but for the wait."""
    account, address = Driver(), Driver()
    account.asked(5, lambda n: account.attempt("a@example.com", address=f"203.0.113.{n}"))
    address.asked(5, lambda n: address.attempt(f"user{n}@example.com"))
    refusals = [account.attempt("a@example.com", address="198.51.100.1"), address.attempt("nobody@example.com")]
    assert refusals[0] == refusals[1]
    refusal = refusals[0]
    assert isinstance(refusal, Problem)
    assert (refusal.type.slug, refusal.members) == ("rate-limited", (("limit", ["login-per-minute"]),))
    assert dict(refusal.fields)[b"retry-after"] == b"60"


def test_guesses_sent_at_once_do_not_slip_through() -> None:
    """An attempt counts before its handler answers: of 50 in flight five are let through."""
    driver = Driver()
    flying = [driver.exchange(b'{"email": "a@example.com"}', address=f"203.0.113.{n}") for n in range(50)]
    assert [driver.begin(x) is None for x in flying] == [True] * 5 + [False] * 45


def test_an_account_is_free_again_after_its_window_however_often_it_is_tried() -> None:
    """Refused attempts count nothing: nobody is locked out for ever."""
    driver = Driver()
    driver.asked(5, lambda n: driver.attempt("a@example.com"))
    for _ in range(59):
        driver.clock.advance(1)
        assert driver.attempt("a@example.com", address="198.51.100.1") is not None
    driver.clock.advance(1)
    assert driver.attempt("a@example.com", address="198.51.100.1") is None


# -- what is given back -----------------------------------------------------------------------------------------------


def test_a_success_clears_the_account_and_not_the_address() -> None:
    """Four failures, a success: the account has all its attempts again, the address the one that is left."""
    driver = Driver()
    driver.asked(4, lambda n: driver.attempt("a@example.com"))
    assert driver.attempt("a@example.com", WELCOME) is None
    assert driver.asked(9, lambda n: driver.attempt("a@example.com")) == 1
    assert driver.asked(9, lambda n: driver.attempt("a@example.com", address=f"198.51.100.{n}")) == 4


def test_successes_use_up_nothing() -> None:
    """An office behind one address logs in as often as it wants."""
    driver = Driver()
    assert driver.asked(100, lambda n: driver.attempt(f"user{n}@example.com", WELCOME)) == 100


@pytest.mark.parametrize("status", [404, 405, 409, 410, 415, 429, 500, 503])
def test_an_answer_that_says_nothing_gives_back_one_and_clears_nothing(status: int) -> None:
    """A broken database costs no attempts; an error that a client can bring about clears no account."""
    driver = Driver()
    assert driver.asked(20, lambda n: driver.attempt("a@example.com", Ending(status))) == 20
    driver.asked(4, lambda n: driver.attempt("a@example.com"))
    driver.attempt("a@example.com", Ending(status))
    assert driver.asked(9, lambda n: driver.attempt("a@example.com")) == 1


def outcome(ending: Ending, content_type: bytes) -> str:
    """What two attempts that end like this leave of one."""
    driver = Driver(brake("1/minute"))
    body = b"email=a%40example.com" if content_type != JSON else b'{"email": "a@example.com"}'
    first, second = (driver.send(driver.exchange(body, content_type), ending) for _ in range(2))
    assert first is None
    return "passed" if second is None else "failed"


@pytest.mark.parametrize(
    ("ending", "content_type", "expected"),
    [
        *(pytest.param(Ending(status), JSON, "failed", id=str(status)) for status in (400, 401, 403, 422)),
        pytest.param(Ending(0), JSON, "failed", id="no answer: crashed or cut"),
        pytest.param(WELCOME, JSON, "passed", id="200 JSON"),
        pytest.param(Ending(204), JSON, "passed", id="204"),
        pytest.param(Ending(201), FORM, "passed", id="201 to a form"),
        pytest.param(Ending(200, PAGE), FORM, "failed", id="the form again"),
        pytest.param(Ending(200, PAGE), b"multipart/form-data", "failed", id="the form again, multipart"),
        pytest.param(Ending(200, ((b"Content-Type", b"Text/HTML"),)), FORM, "failed", id="the form again, spelt oddly"),
        pytest.param(Ending(200, PAGE), JSON, "passed", id="a page in answer to JSON"),
        pytest.param(Ending(303, ((b"location", b"/portal"),)), FORM, "passed", id="on to the portal"),
        pytest.param(Ending(302, ((b"location", b"/auth/login?next=/x"),)), FORM, "failed", id="back to the form"),
        pytest.param(Ending(302, ((b"location", b"login/"),)), FORM, "failed", id="back, relative"),
        pytest.param(Ending(302, ((b"location", b"https://p.test/auth/login"),)), FORM, "failed", id="back, absolute"),
        pytest.param(Ending(302, ((b"location", b"/sorry?error=credentials"),)), FORM, "failed", id="to an error"),
        pytest.param(Ending(302, ((b"location", b"//[nonsense"),)), FORM, "failed", id="to nowhere"),
        pytest.param(Ending(302), FORM, "passed", id="a redirect without a target"),
        pytest.param(Ending(302, ((b"location", b"/auth/login"),)), JSON, "passed", id="a redirect in answer to JSON"),
    ],
)
def test_what_a_failed_attempt_is(ending: Ending, content_type: bytes, expected: str) -> None:
    """400, 401, 403, 422, the form again, no answer at all; everything else uses up nothing."""
    assert outcome(ending, content_type) == expected


# -- where the account stands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "query"),
    [
        pytest.param(b'{"email": "A@Example.com "}', JSON, b"", id="another spelling"),
        pytest.param(b'{"user": {"email": "a@example.com"}}', JSON, b"", id="deeper"),
        pytest.param(b'{"email": ["x@example.com", "a@example.com"]}', JSON, b"", id="a list"),
        pytest.param(b"email=a%40example.com&password=x", FORM, b"", id="a form"),
        pytest.param(b"email=x&email=a%40example.com", FORM, b"", id="the second of two"),
        pytest.param(b"{}", JSON, b"email=a@example.com", id="the query"),
        pytest.param(b'{"email": "a@example.com"}', b"text/plain", b"", id="JSON under another type"),
    ],
)
def test_the_account_is_found_wherever_a_handler_might_look(body: bytes, content_type: bytes, query: bytes) -> None:
    """Whoever writes it another way does not get further attempts."""
    driver = Driver()
    driver.asked(5, lambda n: driver.attempt("a@example.com"))
    x = driver.exchange(body, content_type, address="198.51.100.1")
    x.query = query
    assert isinstance(driver.begin(x), Problem)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="absent"),
        pytest.param(b'{"email": {"$ne": null}}', id="an object"),
        pytest.param(b'{"email": true}', id="a boolean"),
        pytest.param(b'{"email": " "}', id="a blank"),
    ],
)
def test_an_attempt_without_an_account_counts_for_its_address(body: bytes) -> None:
    """What names nobody is still an attempt."""
    driver = Driver()
    assert driver.asked(20, lambda n: driver.send(driver.exchange(body), DENIED)) == 5


def test_a_number_is_an_account_too() -> None:
    """Telephone and customer numbers come unquoted."""
    driver = Driver()
    assert driver.asked(9, lambda n: driver.send(driver.exchange(b'{"email": 4711}', address=str(n)), DENIED)) == 5


@pytest.mark.parametrize(
    "spelled", ["4711.0", "4711e0", '"4711"', '" +04711 "', '"4_711"', '"4711.00"', '{"$eq": 4711}', "[[4711]]"]
)
def test_a_number_is_one_account_however_it_is_spelled(spelled: str) -> None:
    """What a lax model or `int()` makes of it is the same number."""
    driver = Driver()
    driver.asked(5, lambda n: driver.send(driver.exchange(b'{"email": 4711}', address=str(n)), DENIED))
    x = driver.exchange(b'{"email": %b}' % spelled.encode(), address="198.51.100.1")
    assert isinstance(driver.begin(x), Problem)


def test_more_accounts_than_anybody_names_are_refused() -> None:
    """One request does not use up the attempts of hundreds."""
    driver = Driver()
    names = ", ".join(f'"u{n}@example.com"' for n in range(MAX_ACCOUNTS + 1))
    verdict = driver.begin(driver.exchange(b'{"email": [%s]}' % names.encode()))
    assert isinstance(verdict, Problem)
    assert (verdict.type.status, verdict.why) == (400, "login-too-many-accounts")


def test_a_form_without_end_is_refused() -> None:
    """Above a thousand fields nobody searches for the one."""
    driver = Driver()
    verdict = driver.begin(driver.exchange(b"a=1&" * 1500 + b"email=a@example.com", FORM))
    assert isinstance(verdict, Problem)
    assert verdict.type.status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_what_is_no_attempt_neither_counts_nor_clears(method: str) -> None:
    """The page with the form answers 200 for any account in its address: that must not clear a count."""
    driver = Driver()
    driver.asked(5, lambda n: driver.attempt("a@example.com", address=str(n)))
    x = driver.exchange(b'{"email": "a@example.com"}')
    x.method, x.query = method, b"email=a@example.com"
    assert driver.send(x, WELCOME) is None
    assert driver.attempt("a@example.com", address="198.51.100.1") is not None


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["local", "open"])
def test_an_outage_never_opens_the_brake(mode: Any) -> None:
    """While the store is down attempts are counted in this process, also where other limits are open."""
    driver = Driver(store=OutageStore(FailingStore(), MemoryStore(), mode, lambda change: None))
    driver.attempt("a@example.com", WELCOME)
    assert driver.asked(20, lambda n: driver.attempt("a@example.com")) == 5


def test_closed_means_unavailable() -> None:
    """`RATE__ON_OUTAGE=closed`: 503 with `Retry-After`, and nothing to give back."""
    driver = Driver(store=OutageStore(FailingStore(), MemoryStore(), "closed", lambda change: None))
    x = driver.exchange(b'{"email": "a@example.com"}')
    verdict = driver.begin(x)
    assert isinstance(verdict, Problem)
    assert (verdict.type.status, dict(verdict.fields)[b"retry-after"]) == (503, b"5")
    assert driver.stage.conclude(x, WELCOME) is None


def test_several_quotas_hold_together() -> None:
    """`5/minute; 7/hour`: after the minute two more, then none for the rest of the hour."""
    driver = Driver(brake("5/minute; 7/hour"))
    assert driver.asked(9, lambda n: driver.attempt("a@example.com")) == 5
    driver.clock.advance(61)
    assert driver.asked(9, lambda n: driver.attempt("a@example.com")) == 2
    driver.clock.advance(61)
    x = driver.exchange(b'{"email": "a@example.com"}')
    assert isinstance(driver.begin(x), Problem)
    assert x.counts[::2] == (0, 0)


def test_the_fields_tell_of_the_address_and_never_of_the_account() -> None:
    """What others tried on an account is nobody's business: only the address's own count is shown."""
    driver = Driver()
    driver.asked(3, lambda n: driver.attempt("a@example.com", address=str(n)))
    x = driver.exchange(b'{"email": "a@example.com"}', address="198.51.100.1")
    assert driver.begin(x) is None
    assert x.counts[::2] == (4,)


def test_off_is_no_stage() -> None:
    """`RATE__LOGIN=off`, or no `login=`: nothing is compiled."""
    keys = AccountKeys(b"secret")
    assert stage("email", login_quotas(RateConfig(login="off")), keys) is None
    assert stage(None, login_quotas(RateConfig()), keys) is None


def test_an_unavailable_answer_is_a_refusal_whatever_it_says() -> None:
    """The stage itself never lets pass what was not counted."""
    driver = Driver()
    x = driver.exchange(b'{"email": "a@example.com"}')
    assert driver.stage.check(x) is None
    need = driver.stage.ask(x)
    assert need is not None
    verdict = driver.stage.settle(x, need, Unavailable("store-down"))
    assert isinstance(verdict, Problem)
    assert verdict.why == "store-down"
