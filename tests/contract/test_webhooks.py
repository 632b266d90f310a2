"""Webhooks through both doors: who comes in, each delivery once, nothing lost whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from connections import request_lines
from deeds import Call, Caller, Deeds, FailingRecords, Said
from senders import FORGERIES, SENDERS, Forge, Sender
from starlette.requests import ClientDisconnect

from conftest import MakePortal
from portalshield import ConfigurationError, Policy
from portalshield.model.needs import Claim, Settle
from portalshield.telemetry.schema import LINE

SECRET, OTHER = "3f9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4U", "8sJ2mQvR5tXkZ9bLcN4wYh7PfD0gAe3T"
PATHS = {name: "/twilio" if sender.scheme == "twilio" else f"/hooks/{name}" for name, sender in SENDERS.items()}
SENT_TO = {name: "/twilio?tenant=north" if path == "/twilio" else path for name, path in PATHS.items()}
ANY = "application/octet-stream"
JSON = ("content-type", "application/json")
_numbers = itertools.count()


def variables() -> dict[str, str]:
    """Every sender, as an operator would write it."""
    found = {"RATE__PER_IP": "off", "PUBLIC_URL": "https://hooks.example.com"}
    for name, sender in SENDERS.items():
        if name == "twilio-sha256":
            continue
        prefix = f"WEBHOOK__{name.replace('-', '_').upper()}__"
        named = {"SECRET": sender.secret, "SCHEME": sender.scheme} | {
            option.upper(): value for option, value in sender.options.items()
        }
        found |= {prefix + key: value for key, value in named.items()}
    return found | {"WEBHOOK__OTHER__SECRET": OTHER, "WEBHOOK__OTHER__SCHEME": "stripe"}


def policies() -> list[Policy]:
    names = [name for name in SENDERS if name != "twilio-sha256"]
    hooks = [Policy(f"POST {PATHS[name]}", webhook=name.replace("-", "_"), content_types=["*"]) for name in names]
    return [*hooks, Policy("POST /other", webhook="other"), Policy("POST /both", webhook="stripe", public=False)]


MakeCaller = Callable[..., Caller]


@pytest.fixture
def make_caller(make_portal: MakePortal) -> Iterator[MakeCaller]:
    """A portal with a route for each sender."""
    made: list[Caller] = []

    def make(env: dict[str, str] | None = None, **more: Any) -> Caller:
        deeds = Deeds(*(f"POST {path}" for path in dict.fromkeys(PATHS.values())), "POST /other", "POST /both")
        portal = make_portal(variables() | (env or {}), deeds.add_to, policies=policies(), **more)
        made.append(Caller(portal, deeds).open())
        return made[-1]

    yield make
    for caller in made:
        caller.close()


def call_of(name: str, fields: list[tuple[bytes, bytes]], body: bytes, **more: str) -> Call:
    """A delivery as a request."""
    texts = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in fields]
    if not any(key == "content-type" for key, _ in texts):
        texts.append(("content-type", more.get("media", ANY)))
    return "POST", more.get("target", SENT_TO[name]), texts, body


def now() -> bytes:
    return b"%d" % time.time()


def delivery(body: bytes | None = None, *, path: str = "/hooks/stripe", secret: str = SECRET, **more: Any) -> Call:
    """An authentic delivery of Stripe's; without `body` one that nobody sent before."""
    body = b'{"id":"evt_%d"}' % next(_numbers) if body is None else body
    at = int(time.time()) + more.get("at", 0)
    signed = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    fields = [*more.get("fields", ()), ("stripe-signature", f"t={at},v1={signed}"), JSON]
    return more.get("method", "POST"), path, fields, body


# -- who comes in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SENDERS)
def test_an_authentic_delivery_arrives_byte_for_byte(caller: Caller, name: str) -> None:
    """No token, no cookie, bytes that are no UTF-8: what was signed is what the handler gets, and nothing parsed it."""
    sender = SENDERS[name]
    answer = caller.send(*call_of(name, sender.sent(now()), sender.body))
    assert (answer.status, answer.body) == (200, b"done")
    assert caller.deeds.runs == [("POST", PATHS[name], sender.body)]


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_of_any_scheme_does_not_enter(
    caller: Caller, forgery: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400, the same answer for every cause, and the handler never runs."""
    stamp, told = now(), set()
    sent = Sender.sent
    monkeypatch.setattr(Sender, "sent", lambda self, time=stamp, secret="", digest="": sent(self, time, secret, digest))
    for name, sender in SENDERS.items():
        fields, body = forgery(sender)
        answer = caller.send(*call_of(name, fields, body))
        told.add((answer.status, answer.slug, tuple(sorted(answer.json))))
    assert told == {(400, "invalid-signature", ("request_id", "status", "title", "type"))}
    assert caller.deeds.runs == []


@pytest.mark.parametrize("name", [name for name, sender in SENDERS.items() if sender.time])
@pytest.mark.parametrize("distance", [pytest.param(-330, id="too old"), pytest.param(330, id="too early")])
def test_only_a_recent_time_enters(caller: Caller, name: str, distance: int) -> None:
    """Five minutes either way; a captured delivery is worth nothing later."""
    fields = SENDERS[name].sent(b"%d" % (time.time() + distance))
    assert caller.send(*call_of(name, fields, SENDERS[name].body)).slug == "invalid-signature"
    assert caller.deeds.runs == []


def test_both_secrets_enter_during_a_rotation(make_caller: MakeCaller) -> None:
    """The current one and the one before, and no third."""
    caller = make_caller({"WEBHOOK__STRIPE__SECRET": OTHER, "WEBHOOK__STRIPE__PREVIOUS_SECRET": SECRET})
    answers = [caller.send(*delivery(secret=secret)).status for secret in (SECRET, OTHER, SECRET[::-1])]
    assert answers == [200, 200, 400]


def test_the_signature_of_another_endpoint_does_not_enter(caller: Caller) -> None:
    """Each route has its own sender, also where both sign alike."""
    call = delivery()
    refused = caller.send("POST", "/other", *call[2:])
    assert (refused.status, refused.slug) == (400, "invalid-signature")
    assert caller.send(*delivery(path="/other", secret=OTHER)).status == 200
    assert caller.send(*call).status == 200
    assert [path for _, path, _ in caller.deeds.runs] == ["/other", "/hooks/stripe"]


NEAR_MISSES = [
    "/hooks/stripe/",
    "/hooks//stripe",
    "/hooks/./stripe",
    "/hooks/x/../stripe",
    "/HOOKS/stripe",
    "/hooks/Stripe",
    "/hooks/strip%65/",
    "/hooks%2Fstripe",
    "/hooks/stripe%20",
    "/hooks/stripe;a=1",
    "/hooks/stripe%00",
    "/hooks/stripes",
    "/hooks",
]


@pytest.mark.parametrize("path", NEAR_MISSES)
def test_near_miss_paths_do_not_enter(caller: Caller, path: str) -> None:
    """A signature opens its own route and no other spelling of it."""
    answer = caller.send(*delivery(path=path))
    assert 300 <= answer.status < 500
    assert caller.deeds.runs == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "post", "PROPFIND"])
def test_another_method_does_not_enter(caller: Caller, method: str) -> None:
    """Signed or not."""
    call = delivery(method=method)
    # wsgiref.validate itself refuses to send some of these.
    answer = caller.send(*call) if caller.asgi else caller.portal.request(*call, lint=False)
    assert answer.status in (400, 401, 404, 405)
    assert caller.deeds.runs == []


def test_the_signature_is_judged_before_the_json(caller: Caller) -> None:
    """What the sender did not sign nobody parses; what it signed must still be JSON where it says so."""
    for body in (b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 5000):
        unsigned = ("POST", "/other", [("stripe-signature", "t=1,v1=00"), JSON], body)
        assert caller.send(*unsigned).slug == "invalid-signature"
        signed = caller.send(*delivery(body, path="/other", secret=OTHER))
        assert (signed.status, signed.slug) == (400, "malformed-request")
    assert caller.deeds.runs == []


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"x" * 100_000], ids=repr)
def test_odd_signed_bytes_are_no_error(caller: Caller, body: bytes) -> None:
    """Where the route takes any type."""
    call = delivery(body)
    fields = [(key, ANY if key == "content-type" else value) for key, value in call[2]]
    assert caller.send("POST", "/hooks/stripe", fields, body).status == 200
    assert caller.bodies == [body]


def test_too_large_a_delivery_is_refused_unread(make_caller: MakeCaller) -> None:
    """413 as on any other route, before a byte of it is hashed."""
    caller = make_caller({"BODY__MAX_SIZE": "1KB"})
    assert caller.send(*delivery(b"x" * 2000)).status == 413
    assert caller.deeds.runs == []


# -- public, and no more than that -------------------------------------------------------------------------------------


def test_a_delivery_needs_no_csrf_protection(caller: Caller) -> None:
    """Its signature says more than `Origin` could; without one a browser's request is refused for that."""
    crossed = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("cookie", "session=1")]
    assert caller.send(*delivery(fields=crossed)).status == 200
    assert caller.send("POST", "/hooks/stripe", [*crossed, JSON], b"{}").slug == "invalid-signature"


@pytest.mark.parametrize("mode", ["report", "off"])
def test_csrf_stands_where_signatures_do_not(make_caller: MakeCaller, mode: str) -> None:
    """Whoever does not enforce signatures gets the other protection back."""
    caller = make_caller({"MODE__WEBHOOK": mode})
    crossed = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("cookie", "session=1")]
    assert caller.send("POST", "/hooks/stripe", [*crossed, JSON], b"{}").slug == "csrf-refused"
    assert caller.deeds.runs == []


def test_a_token_is_no_signature(caller: Caller) -> None:
    """The best of principals cannot deliver."""
    bearer = caller.portal.bearer()
    assert caller.send("POST", "/hooks/stripe", [*bearer, JSON], b"{}").slug == "invalid-signature"
    assert caller.send(*delivery(fields=[("authorization", "Bearer junk")])).status == 200


def test_a_route_may_ask_for_both(caller: Caller) -> None:
    """`public=False`: a signature and a principal."""
    assert caller.send(*delivery(path="/both")).status == 401
    bearer = caller.portal.bearer()
    assert caller.send("POST", "/both", [*bearer, JSON], b"{}").slug == "invalid-signature"
    assert caller.send(*delivery(path="/both", fields=bearer)).status == 200


def test_a_global_report_mode_does_not_open_webhooks(make_caller: MakeCaller) -> None:
    """They have to be named; then a forgery is let through and told about, and takes nobody's place."""
    assert make_caller({"MODE": "report"}).send("POST", "/hooks/stripe", [JSON], b"{}").status == 400
    caller = make_caller({"MODE__WEBHOOK": "report"})
    call = delivery()
    forged = [(key, value[:-1] + "x" if key == "stripe-signature" else value) for key, value in call[2]]
    assert caller.send("POST", call[1], forged, call[3]).status == 200
    assert [caller.send(*call).status for _ in range(2)] == [200, 200]
    assert len(caller.deeds.runs) == 3


# -- once --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SENDERS)
def test_a_copy_is_answered_as_the_first(kept: Caller, name: str) -> None:
    """Status, type and body, without the handler; cookies are not given twice."""
    said = Said(202, b'{"ok":true}', (("content-type", "application/json"), ("set-cookie", "a=1")))
    kept.deeds.say = lambda body: said
    call = call_of(name, SENDERS[name].sent(now()), SENDERS[name].body)
    first, *copies = [kept.send(*call) for _ in range(3)]
    assert {(copy.status, copy.body, copy.get("content-type")) for copy in copies} == {
        (first.status, first.body, first.get("content-type"))
    }
    assert first.get("set-cookie") == "a=1"
    assert [copy.get("set-cookie") for copy in copies] == [None, None]
    assert len(kept.deeds.runs) == 1


@pytest.mark.parametrize(
    ("name", "header"),
    [("github", "x-github-delivery"), ("shopify", "x-shopify-webhook-id")],
    ids=["github", "shopify"],
)
def test_a_swapped_unsigned_id_makes_no_new_delivery(kept: Caller, name: str, header: str) -> None:
    """What is not signed tells nothing."""
    method, target, fields, body = call_of(name, SENDERS[name].sent(now()), SENDERS[name].body)
    swapped = [(key, "another" if key == header else value) for key, value in fields]
    assert swapped != fields
    assert [kept.send(method, target, each, body).status for each in (fields, swapped)] == [200, 200]
    assert len(kept.deeds.runs) == 1


def test_of_20_simultaneous_copies_one_is_processed(kept: Caller) -> None:
    """The others get its answer, or are told to come again while it runs."""
    call = delivery()
    answers = kept.together([call] * 20)
    assert len(kept.deeds.runs) == 1
    assert {(each.status, each.body if each.status == 200 else each.slug) for each in answers} <= {
        (200, b"done"),
        (409, "in-flight"),
    }
    assert kept.send(*call).body == b"done"


def test_copies_of_one_that_runs_are_told_to_wait(kept: Caller) -> None:
    """409 with Retry-After; other deliveries go on, and afterwards a copy gets the answer."""
    call = delivery()
    first, (copy, again, other) = kept.while_running(call, [call, call, delivery()])
    assert (first.status, copy.status, again.status, other.status) == (200, 409, 409, 200)
    assert (copy.slug, copy.get("retry-after")) == ("in-flight", "10")
    assert kept.send(*call).status == 200
    assert len(kept.deeds.runs) == 2


@pytest.mark.parametrize("status", [201, 302, 400, 404, 410, 422])
def test_any_answer_below_500_was_processed(caller: Caller, status: int) -> None:
    """The sender gets it again."""
    caller.deeds.say = lambda body: Said(status, b"so it is")
    call = delivery()
    assert [caller.send(*call).status for _ in range(2)] == [status, status]
    assert len(caller.deeds.runs) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_failed_is_processed_when_it_comes_again(kept: Caller, status: int) -> None:
    """The sender's next try runs the handler."""
    kept.deeds.say = lambda body: Said(status if len(kept.deeds.runs) == 1 else 200)
    call = delivery()
    assert [kept.send(*call).status for _ in range(3)] == [status, 200, 200]
    assert len(kept.deeds.runs) == 2


def test_a_crash_is_processed_when_it_comes_again(kept: Caller) -> None:
    """An exception leaves no record."""
    kept.deeds.say = lambda body: Said(raises=RuntimeError("x") if len(kept.deeds.runs) == 1 else None)
    call = delivery()
    assert [kept.send(*call).status for _ in range(3)] == [500, 200, 200]
    assert len(kept.deeds.runs) == 2


def test_a_cancelled_request_is_processed_when_it_comes_again(kept: Caller) -> None:
    """The task was cancelled, or the worker told to go, in the middle of the handler."""
    call = delivery()
    kept.cancelled(call)
    assert [kept.send(*call).status for _ in range(2)] == [200, 200]
    assert len(kept.deeds.runs) == 2


def test_what_a_later_layer_refuses_leaves_no_record(make_caller: MakeCaller) -> None:
    """Signed, but no JSON: refused each time, never answered from a record."""
    caller = make_caller()
    call = delivery(b"{", path="/other", secret=OTHER)
    assert [caller.send(*call).slug for _ in range(2)] == ["malformed-request"] * 2


# -- clients that go away ----------------------------------------------------------------------------------------------


def test_a_sender_that_goes_away_in_the_middle_of_the_body(kept: Caller) -> None:
    """Half a delivery is none: the handler does not run, and the whole one is processed."""
    call = delivery()
    if kept.asgi:
        with pytest.raises(AssertionError, match="no response"):
            kept.runner.run(broken_off(kept, call))
    else:
        length = ("content-length", str(len(call[3])))
        assert kept.portal.request(*call[:2], [*call[2], length], call[3][:5]).status == 400
    assert kept.deeds.runs == []
    assert kept.send(*call).status == 200


async def broken_off(caller: Caller, call: Call) -> None:
    """Five bytes of a body that was to be longer, then a disconnect."""
    method, target, fields, body = call
    scope = caller.portal.door._scope(method, target, [*fields, ("content-length", "99")], "203.0.113.7", False)  # type: ignore[union-attr]
    coming = iter([{"type": "http.request", "body": body[:5], "more_body": True}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await caller.portal.app(scope, receive, send)
    assert sent, "no response"


def leave(caller: Caller, call: Call, after: int) -> None:
    """The sender takes `after` messages (blocks) of the answer and is gone."""
    method, target, fields, body = call
    if caller.asgi:
        caller.runner.run(aleave(caller, call, after))
        return
    from doors import _environ

    length = ("content-length", str(len(body)))
    environ = _environ(method, target, [("host", "x.example.com"), *fields, length], body, "203.0.113.7", False)
    blocks = caller.portal.app(environ, lambda status, headers, exc_info=None: lambda data: None)
    coming = iter(blocks)
    for _ in range(after - 1):
        next(coming)
    blocks.close()


async def aleave(caller: Caller, call: Call, after: int) -> None:
    method, target, fields, body = call
    length = ("content-length", str(len(body)))
    scope = caller.portal.door._scope(  # type: ignore[union-attr]
        method, target, [("host", "x.example.com"), *fields, length], "203.0.113.7", False
    )
    coming = iter([{"type": "http.request", "body": body, "more_body": False}])
    left = after

    async def receive() -> Any:
        message = next(coming, None)
        return message if message is not None else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("gone")

    with suppress(OSError, ClientDisconnect):  # the framework decides which
        await caller.portal.app(scope, receive, send)


def test_a_sender_that_does_not_wait_for_the_answer(kept: Caller) -> None:
    """The handler answered, and nobody was there to take it: a copy gets it, and nothing runs twice."""
    call = delivery()
    leave(kept, call, 1 if kept.asgi else 2)
    assert kept.send(*call).body == b"done"
    assert len(kept.deeds.runs) == 1


def test_an_answer_that_was_cut_is_no_answer(kept: Caller) -> None:
    """It streamed and never came to its end: nobody knows what it would have said, so the next try is processed."""
    kept.deeds.say = lambda body: Said(body=b"a long one", stream=True)
    call = delivery()
    leave(kept, call, 2)
    assert kept.send(*call).body == b"a long one"
    assert len(kept.deeds.runs) == 2


def test_a_file_that_the_server_sends_was_an_answer(kept: Caller) -> None:
    """Nobody here saw its bytes, but it was processed: a copy gets the status."""
    kept.hands_over().deeds.say = lambda body: Said(file=__file__)
    call = delivery()
    assert kept.send(*call).status == 200
    copy = kept.send(*call)
    assert (copy.status, copy.body, len(kept.deeds.runs)) == (200, b"", 1)


# -- a store that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
def test_a_store_that_fails_before_the_handler_refuses(caller: Caller, lost: bool) -> None:
    """503 with Retry-After; the handler never runs while nobody can say whether it ran before."""
    records = caller.runtime.records
    caller.runtime.records = FailingRecords(records, Claim, lost=lost)
    call = delivery()
    answers = [caller.send(*call) for _ in range(3)]
    assert {(each.status, each.slug, each.get("retry-after")) for each in answers} == {(503, "unavailable", "10")}
    assert caller.deeds.runs == []
    caller.runtime.records = records
    assert caller.send(*call).status == (409 if lost else 200)


@pytest.mark.parametrize("lost", [pytest.param(False, id="not done"), pytest.param(True, id="done, reply lost")])
@pytest.mark.parametrize("status", [200, 500])
def test_a_store_that_fails_behind_the_handler_changes_no_answer(caller: Caller, lost: bool, status: int) -> None:
    """The sender gets it; what was processed is not processed again."""
    records = caller.runtime.records
    caller.deeds.say = lambda body: Said(status)
    caller.runtime.records = FailingRecords(records, Settle, lost=lost)
    call = delivery()
    assert caller.send(*call).status == status
    caller.runtime.records = records
    again = caller.send(*call)
    assert again.status == (status if lost else 409)
    assert len(caller.deeds.runs) == (2 if lost and status == 500 else 1)


def test_a_redis_that_is_gone_and_comes_back(make_caller: MakeCaller) -> None:
    """503 while it is away; what it was not told of is still known to this process, and nothing runs twice."""
    redis_server = pytest.importorskip("redis_server")
    server = redis_server.Server()
    try:
        caller = make_caller({"STORAGE": server.uri})
        before, during = delivery(), delivery()
        assert caller.send(*before).status == 200
        caller.deeds.say = lambda body: server.stop() or Said()
        assert caller.send(*during).status == 200
        caller.deeds.say = lambda body: Said()
        assert [caller.send(*call).status for call in (before, during, delivery())] == [503, 200, 503]
        server.start()
        caller.runtime.records.wire._process.breaker._retry_at = 0.0
        assert caller.send(*during).status == 200
        assert caller.send(*delivery()).status == 200
        assert len(caller.deeds.runs) == 3
    finally:
        server.close()


def test_records_that_are_full_refuse(make_caller: MakeCaller) -> None:
    """None is given up before its time: a copy is still answered, another delivery comes again later."""
    caller = make_caller({"STORAGE__MAX_KEYS": "100"})
    first = delivery()
    statuses = [caller.send(*first).status, *(caller.send(*delivery()).status for _ in range(100))]
    assert statuses == [200] * 100 + [503]
    assert caller.send(*first).status == 200
    assert len(caller.deeds.runs) == 100


# -- what is told ------------------------------------------------------------------------------------------------------


def test_a_copy_is_told_apart_in_the_log(caller: Caller, capfd: pytest.CaptureFixture[str]) -> None:
    """`replayed` in its line; a refusal says why there and nowhere else."""
    request_lines(capfd)
    call = delivery()
    for each in (call, call, ("POST", "/hooks/stripe", [JSON], b"{}")):
        caller.send(*each)
    first, copy, refused = request_lines(capfd)
    assert (first.get("replayed"), copy["replayed"], copy["decision"]) == (None, True, "allowed")
    assert set(copy) <= set(LINE["properties"])
    assert [refused[name] for name in ("problem", "layer", "why")] == [
        "invalid-signature",
        "webhook",
        "signature-missing",
    ]


def test_a_sender_that_nobody_configured_stops_the_start(make_portal: MakePortal) -> None:
    """With the variable that is missing."""
    deeds = Deeds("POST /hooks/stripe")
    portal = make_portal({}, deeds.add_to, policies=[Policy("POST /hooks/stripe", webhook="stripe")])
    with pytest.raises(ConfigurationError, match="PORTALSHIELD_WEBHOOK__STRIPE__SECRET"):
        portal.shield.routes()
    assert portal.request(*delivery()).status == 503


@pytest.mark.parametrize("secret", ["whsec_your_signing_secret_here", "short", "sk_live_51H8s7d6f5g4h3j2k1l0"])
def test_a_secret_that_is_none_stops_the_start(make_portal: MakePortal, secret: str) -> None:
    """Placeholders, keys of another kind, what can be guessed; its text is nowhere told."""
    with pytest.raises(ConfigurationError) as caught:
        make_portal({"WEBHOOK__STRIPE__SECRET": secret})
    assert {problem.id for problem in caught.value.problems} == {"PS-HOOK-005"}
    assert secret not in str(caught.value)


def test_several_workers_without_a_shared_store_do_not_start(make_portal: MakePortal) -> None:
    """Each would process a copy: refused in production."""
    deeds = Deeds("POST /hooks/stripe")
    env = variables() | {"ENV": "production", "WORKERS": "4", "HOSTS": "x.example.com"}
    portal = make_portal(env, deeds.add_to, policies=[Policy("POST /hooks/stripe", webhook="stripe")])
    with pytest.raises(ConfigurationError) as caught:
        portal.shield.routes()
    assert "PS-STORE-003" in {problem.id for problem in caught.value.problems}
