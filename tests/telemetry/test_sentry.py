"""Sentry: nothing planted leaves, hooks fail closed, the application's hooks stay, facts arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk import logger as sentry_logs
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from portalshield.rules.redaction import Redactor
from portalshield.telemetry.projection import Projection
from portalshield.telemetry.sentry import SentryLink, install

DSN = "https://public@sentry.invalid/1"
FACTS = {"request_id": "abcdefgh12345678", "route": "/orgs/{org_id}", "tenant": "t_1", "subject": "u_1", "secret": "no"}

# Values with a shape of their own, or under a name or scheme that tells: none of them may leave in any mode.
PATTERNED = [
    "canary1@example.com",
    "4242424242424242",
    "+14155552671",
    "sk_live_" + "Zq7canary3AbCdEfGh12",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5",
    "078-05-1120",
]
STRUCTURAL = [f"Zq7structural{number}x" for number in range(20)]


class Recorder(Transport):
    """Keeps envelopes instead of sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep it."""
        self.envelopes.append(envelope)

    def everything(self) -> str:
        """All bytes that would have left, headers included."""
        parts = [envelope.serialize() for envelope in self.envelopes]
        return b"\n".join(parts).decode()

    def events(self) -> list[dict[str, Any]]:
        """The error events."""
        found = [item.payload.json for envelope in self.envelopes for item in envelope.items if item.type == "event"]
        return [event for event in found if event is not None]


Start = Callable[..., tuple[Recorder, SentryLink]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a client with redaction; the process is as before afterwards."""
    sentry_sdk.get_global_scope().set_client(None)

    def begin(
        mode: str = "default", adopt: Mapping[str, Any] | None = None, **options: Any
    ) -> tuple[Recorder, SentryLink]:
        recorder = Recorder()
        redactor = Redactor(mode=mode)  # type: ignore[arg-type]
        if adopt is not None:
            sentry_sdk.init(DSN, transport=recorder, default_integrations=False, **adopt)
            link = install(redactor, **options)
        else:
            options.setdefault("traces_sample_rate", 1.0)
            link = install(redactor, dsn=DSN, transport=recorder, auto_enabling_integrations=False, **options)
        assert link is not None
        return recorder, link

    yield begin
    client = sentry_sdk.get_client()
    client.close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)
    sentry_sdk.get_isolation_scope().clear()
    sentry_sdk.get_current_scope().clear()


def plant(canary: str) -> None:
    """Everything an application may do with a value, all at once: an error, a message, logs, a transaction."""
    scope = sentry_sdk.get_isolation_scope()
    scope.set_tag("plan", canary)
    scope.set_extra("body", {"password": canary, "nested": [canary]})
    scope.set_context("order", {"note": canary})
    scope.set_user({"id": canary, "email": canary, "ip_address": canary})
    scope.add_attachment(bytes=canary.encode(), filename="a.txt")
    sentry_sdk.add_breadcrumb(category="query", message=f"SELECT '{canary}'", data={"params": canary})
    sentry_sdk.add_breadcrumb(category="http", message=canary, data={"url": f"https://x.example/?q={canary}"})

    def processor(event: Any, hint: Any) -> Any:
        event["request"] = {
            "method": "POST",
            "url": f"https://x.example/{canary}",
            "query_string": f"q={canary}",
            "headers": {"Authorization": f"Bearer {canary}", "X-Custom": canary},
            "cookies": {"session": canary},
            "data": {"field": canary},
        }
        event["server_name"] = canary
        return event

    scope.add_event_processor(processor)
    local = {"value": canary}
    with sentry_sdk.start_transaction(
        name=f"https://x.example/{canary}", source="url", op="http.server"
    ) as transaction:
        transaction.set_data("body", canary)
        with sentry_sdk.start_span(op="db", name=f"SELECT '{canary}'") as span:
            span.set_data("params", canary)
        try:
            raise RuntimeError("broken")
        except RuntimeError as error:
            assert local
            sentry_sdk.capture_exception(error)
    logging.getLogger("tests.sentry").error("failed %s", "x", extra={"detail": canary})


def plant_in_messages(canary: str) -> None:
    """The value in exception text, notes, messages, breadcrumbs and log arguments."""
    error = ValueError(f"value {canary} is bad")
    error.add_note(f"note {canary}")
    sentry_sdk.add_breadcrumb(category="auth", message=f"login of {canary}")
    try:
        raise RuntimeError(f"outer {canary}") from error
    except RuntimeError as raised:
        sentry_sdk.capture_exception(raised)
    sentry_sdk.capture_message(f"message {canary}")
    logging.getLogger("tests.sentry").error("logged %s", canary)


def test_without_redaction_the_planted_values_do_leave() -> None:
    """The control: the same planting through a plain client leaks in every kind of item."""
    recorder = Recorder()
    sentry_sdk.init(DSN, transport=recorder, traces_sample_rate=1.0, auto_enabling_integrations=False)
    try:
        plant(STRUCTURAL[0])
        plant_in_messages(PATTERNED[0])
    finally:
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.get_global_scope().set_client(None)
        sentry_sdk.get_isolation_scope().clear()
    assert recorder.everything().count(STRUCTURAL[0]) > 15
    assert recorder.everything().count(PATTERNED[0]) > 4


@pytest.mark.parametrize("mode", ["default", "strict"])
@pytest.mark.parametrize("canary", [*PATTERNED, *STRUCTURAL[:3]])
def test_structure_carries_nothing_out(start: Start, mode: str, canary: str) -> None:
    """Locals, request, headers, cookies, body, tags, extra, contexts, user, spans, SQL, attachments: not one copy."""
    recorder, _ = start(mode)
    plant(canary)
    assert len(recorder.events()) >= 2
    assert "transaction" in {item.type for envelope in recorder.envelopes for item in envelope.items}
    assert canary not in recorder.everything()


@pytest.mark.parametrize("canary", PATTERNED)
def test_messages_carry_no_patterned_value_in_default_mode(start: Start, canary: str) -> None:
    """Messages stay readable, values with a shape are gone."""
    recorder, _ = start()
    plant_in_messages(canary)
    out = recorder.everything()
    assert canary not in out
    assert "is bad" in out
    assert "login of" in out


@pytest.mark.parametrize("canary", [*PATTERNED, *STRUCTURAL[:3]])
def test_strict_mode_sends_no_message_at_all(start: Start, canary: str) -> None:
    """In strict mode a value without any shape does not leave in a message either."""
    recorder, _ = start("strict")
    plant_in_messages(canary)
    out = recorder.everything()
    assert canary not in out
    assert "is bad" not in out
    assert "RuntimeError" in out


@pytest.mark.parametrize("mode", ["default", "strict"])
def test_logs_and_streamed_spans_are_projected(start: Start, mode: str) -> None:
    """Sentry Logs, metrics and spans of the stream lifecycle lose attributes, names and bodies."""
    recorder, link = start(mode, enable_logs=True, trace_lifecycle="stream")
    secret = PATTERNED[0]
    sentry_logs.info("paid by {who}", who=secret, attributes={"order": STRUCTURAL[0]})
    sentry_sdk.metrics.count("orders", 1, attributes={"customer": STRUCTURAL[1]})
    with sentry_sdk.traces.start_span(name=f"https://x.example/{STRUCTURAL[2]}", attributes={"q": STRUCTURAL[3]}):
        sentry_sdk.traces.start_span(name=f"SELECT '{STRUCTURAL[4]}'", attributes={"db": STRUCTURAL[5]}).end()
    link.client.flush(timeout=1)
    out = recorder.everything()
    kinds = {item.type for envelope in recorder.envelopes for item in envelope.items}
    assert {"log", "span", "trace_metric"} <= kinds
    assert secret not in out
    assert not [canary for canary in STRUCTURAL if canary in out]


def test_event_keeps_what_a_reader_needs(start: Start) -> None:
    """Type, module, frames (file, function, line), level, release, redacted message; our facts as tags and context."""
    recorder, _ = start(current=lambda: FACTS, release="1.2.3", environment="test")
    try:
        raise ValueError("password=hunter2")
    except ValueError as error:
        sentry_sdk.capture_exception(error)
    (event,) = recorder.events()
    exception = event["exception"]["values"][0]
    assert (exception["type"], exception["value"]) == ("ValueError", "password=[REDACTED]")
    frame = exception["stacktrace"]["frames"][-1]
    assert frame["function"] == "test_event_keeps_what_a_reader_needs"
    assert set(frame) <= {"filename", "function", "module", "lineno", "in_app"}
    assert (event["release"], event["environment"], event["level"]) == ("1.2.3", "test", "error")
    assert event["tags"]["route"] == "/orgs/{org_id}"
    assert event["contexts"]["portalshield"] == {name: FACTS[name] for name in FACTS if name != "secret"}
    assert event["user"] == {"id": "u_1"}
    assert event["transaction"] == "/orgs/{org_id}"


def test_facts_are_read_at_capture(start: Start) -> None:
    """Each event carries the facts of the moment it was captured in, not those of the installation."""
    facts: dict[str, Any] = {}
    recorder, _ = start(current=lambda: facts or None)
    for number in range(3):
        facts["request_id"] = f"request-{number}"
        sentry_sdk.capture_message(f"m{number}")
    facts.clear()
    sentry_sdk.capture_message("outside")
    assert [event["tags"].get("request_id") for event in recorder.events()] == [
        "request-0", "request-1", "request-2", None,
    ]  # fmt: skip


def test_named_tags_and_contexts_go_along_scanned(start: Start) -> None:
    """What the operator names is sent, after the scanner."""
    recorder, _ = start(tags=["plan"], contexts=["order"])
    sentry_sdk.set_tag("plan", "gold a@b.co")
    sentry_sdk.set_context("order", {"id": 7, "password": "x"})
    sentry_sdk.capture_message("m")
    (event,) = recorder.events()
    assert event["tags"]["plan"] == "gold [EMAIL]"
    assert event["contexts"]["order"] == {"id": 7, "password": "[REDACTED]"}


def test_existing_client_is_adopted_and_its_hooks_run_first(start: Start) -> None:
    """The application's hook sees the event before ours; what it adds is projected; its drop is a drop."""
    seen: list[str] = []

    def before_send(event: Any, hint: Any) -> Any:
        seen.append(event["message"])
        event["extra"] = {"added": STRUCTURAL[0]}
        return None if "drop" in event["message"] else event

    recorder, link = start(adopt={"before_send": before_send})
    assert link.adopted
    sentry_sdk.capture_message("keep a@b.co")
    sentry_sdk.capture_message("drop this")
    assert seen == ["keep a@b.co", "drop this"]
    assert [event["message"] for event in recorder.events()] == ["keep [EMAIL]"]
    assert STRUCTURAL[0] not in recorder.everything()


def test_installing_again_does_not_stack_hooks(start: Start) -> None:
    """A second installation keeps the application's hook once."""
    seen: list[str] = []

    def before_send(event: Any, hint: Any) -> Any:
        seen.append(event["message"])
        return event

    recorder, _ = start(adopt={"before_send": before_send})
    assert install(Redactor()) is not None
    sentry_sdk.capture_message("once")
    assert seen == ["once"]
    assert len(recorder.events()) == 1


@pytest.mark.parametrize("hook", ["before_send", "before_send_transaction", "before_breadcrumb", "before_send_log"])
def test_raising_user_hook_drops_the_item(start: Start, hook: str) -> None:
    """A broken hook of the application cannot let the original through."""

    def broken(item: Any, hint: Any) -> Any:
        raise RuntimeError(STRUCTURAL[0])

    recorder, link = start(adopt={hook: broken, "traces_sample_rate": 1.0, "enable_logs": True})
    plant_in_messages(PATTERNED[0])
    with sentry_sdk.start_transaction(name=PATTERNED[0]):
        pass
    sentry_logs.info(PATTERNED[0])
    link.client.flush(timeout=1)
    assert PATTERNED[0] not in recorder.everything()
    assert STRUCTURAL[0] not in recorder.everything()


@pytest.mark.parametrize("method", ["event", "breadcrumb", "log", "metric", "span"])
def test_failure_inside_our_projection_never_lets_the_original_through(
    start: Start, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Whichever of our own hooks breaks, the item is dropped or blank, and counted."""

    def broken(self: Any, item: Any) -> Any:
        raise RuntimeError("projection")

    recorder, link = start("strict", enable_logs=True, trace_lifecycle="stream")
    monkeypatch.setattr(Projection, method, broken)
    canary = STRUCTURAL[0]
    sentry_sdk.add_breadcrumb(category="auth", message=canary)
    sentry_sdk.capture_message(canary)
    sentry_logs.info(canary)
    sentry_sdk.metrics.count("orders", 1, attributes={"customer": canary})
    with sentry_sdk.traces.start_span(name=canary, attributes={"q": canary}):
        pass
    link.client.flush(timeout=1)
    assert canary not in recorder.everything()


def test_raising_facts_do_not_lose_the_event(start: Start) -> None:
    """When the request's facts cannot be read the event goes without them."""

    def broken() -> Mapping[str, Any]:
        raise RuntimeError("facts")

    recorder, _ = start(current=broken)
    sentry_sdk.capture_message("m")
    assert len(recorder.events()) == 1


def test_storm_of_one_kind_is_capped_and_counted(start: Start) -> None:
    """Only so many events of one kind leave per minute; another kind is not held back by it."""
    recorder, link = start(events_per_minute=5, default_integrations=False)
    for _ in range(12):
        try:
            raise ValueError("same place")
        except ValueError as error:
            sentry_sdk.capture_exception(error)
    sentry_sdk.capture_message("another kind")
    assert len(recorder.events()) == 6
    assert link.capped == 7


def test_nothing_without_a_client_and_without_a_dsn(start: Start) -> None:
    """Without DSN there is no client, no hook, no integration."""
    assert install(Redactor()) is None
    assert not sentry_sdk.get_client().is_active()


def test_hard_options_are_set_and_pii_is_not(start: Start) -> None:
    """Bodies are never read, locals and source never collected; `send_default_pii` is not touched."""
    _, link = start(adopt={"max_request_body_size": "always"})
    options = link.client.options
    assert options["max_request_body_size"] == "never"
    assert options["include_local_variables"] is False
    assert options["include_source_context"] is False
    assert not options["send_default_pii"]


def test_data_collection_of_the_application_is_a_finding(start: Start) -> None:
    """Setting `data_collection` turns Sentry's own scrubber off: the operator is told, ours does not depend on it."""
    recorder, link = start(adopt={"data_collection": {"user_info": False}})
    assert link.findings == ("data-collection-set",)
    plant(STRUCTURAL[0])
    assert STRUCTURAL[0] not in recorder.everything()
