"""The request line: its fields, its bounds, and that no value can break out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import clock
from portalshield.telemetry.encoding import MAX_LINE, encode
from portalshield.telemetry.lines import RequestLines, RequestRecord, printable, truncated_address
from portalshield.telemetry.writer import Line

NAMES = Pseudonyms(b"k" * 32)
FIELDS = [
    "timestamp", "level", "event", "request_id", "trace_id", "method", "route", "status", "duration_ms", "overhead_us",
    "tenant", "subject", "actor", "auth", "decision", "problem", "layer", "would_refuse", "bytes_in", "bytes_out",
    "client_ip", "schema", "sample_rate", "pseudonym_key_id", "release", "environment",
]  # fmt: skip


class Sink:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.eventful: list[bool] = []

    def emit(self, line: Line, *, eventful: bool = True) -> None:
        """Keep the line; make it first, as the writing thread does."""
        self.lines.append(line if isinstance(line, bytes) else line[0](*line[1:]))
        self.eventful.append(eventful)


def lines_to(sink: Sink, **options: Any) -> RequestLines:
    """Request lines into a sink."""
    options = {"release": "1.2.3", "environment": "test", **options}
    return RequestLines(sink, Redactor(), NAMES, **options)  # type: ignore[arg-type]


def record(**values: Any) -> RequestRecord:
    """A record of an ordinary request with some fields changed."""
    made = RequestRecord()
    defaults = {
        "time": 1767323045.678,
        "request_id": "abcdefgh12345678",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "route": "/orgs/{org_id}",
        "status": 200,
        "duration_ms": 12.3456789,
        "overhead_us": 11.19,
        "tenant": "acme",
        "subject": "alice@example.com",
        "auth": "bearer",
        "bytes_in": 0,
        "bytes_out": 512,
        "client_ip": "203.0.113.77",
    }
    for name, value in {**defaults, **values}.items():
        setattr(made, name, value)
    return made


def written(**values: Any) -> dict[str, Any]:
    """The line of such a record, parsed."""
    sink = Sink()
    lines_to(sink).write(record(**values))
    (line,) = sink.lines
    parsed: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    return parsed


def test_line_has_the_fields_of_the_contract_in_order() -> None:
    """Every field is there, absent values as null, pseudonyms and a cut address in place of ids."""
    line = written()
    assert list(line) == FIELDS
    assert line["timestamp"] == "2026-01-02T03:04:05.678Z"
    assert line["event"] == "http_request"
    assert line["duration_ms"] == 12.345
    assert line["overhead_us"] == 11.1
    assert line["tenant"] == NAMES.name("tenant", "acme")
    assert line["subject"] == NAMES.name("user", "alice@example.com", "acme")
    assert line["client_ip"] == "203.0.113.0"
    assert line["decision"] == "allowed"
    assert line["problem"] is None
    assert line["pseudonym_key_id"] == NAMES.key_id


def test_no_raw_id_or_address_in_the_line() -> None:
    """Subject, actor, tenant and address never appear as they are."""
    sink = Sink()
    lines_to(sink).write(record(actor="root@example.com"))
    assert not any(raw in sink.lines[0] for raw in (b"alice", b"acme", b"root", b"203.0.113.77"))


@pytest.mark.parametrize(
    ("values", "level", "decision"),
    [
        pytest.param({}, "info", "allowed", id="answered"),
        pytest.param({"status": 404}, "info", "allowed", id="the application's own 404"),
        pytest.param(
            {"status": 401, "problem": "unauthenticated", "layer": "auth"}, "warning", "refused", id="refused"
        ),
        pytest.param({"would_refuse": [("cors", "origin-not-allowed")]}, "info", "would_refuse", id="report mode"),
        pytest.param({"status": 500}, "error", "allowed", id="the application's 500"),
        pytest.param({"status": 200, "error": "aborted"}, "error", "allowed", id="broken off"),
    ],
)
def test_level_and_decision(values: dict[str, Any], level: str, decision: str) -> None:
    """Refusals warn, crashes are errors, report mode says what it would have done."""
    line = written(**values)
    assert (line["level"], line["decision"]) == (level, decision)


def test_unknown_method_is_other() -> None:
    """Methods come from a closed set."""
    assert written(method="PROPFIND\n")["method"] == "_OTHER"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"status": 500}, id="error"),
        pytest.param({"status": 429, "problem": "rate-limited"}, id="refusal"),
        pytest.param({"would_refuse": [("rate", "rate-limited")]}, id="would refuse"),
        pytest.param({"over_budget": True}, id="over budget"),
        pytest.param({"error": "ValueError"}, id="crash"),
    ],
)
def test_sampling_keeps_everything_eventful(values: dict[str, Any]) -> None:
    """At a rate of zero every error, refusal and slow request is still written, as eventful."""
    sink = Sink()
    lines_to(sink, sample=0.0).write(record(**values))
    assert sink.eventful == [True]


def test_sampling_is_consistent_by_trace_and_close_to_its_share() -> None:
    """The trace id decides: the same trace always, a quarter of many traces about a quarter."""
    kept = set()
    for _ in range(2):
        sink = Sink()
        lines = lines_to(sink, sample=0.25)
        for number in range(1000):
            lines.write(record(trace_id=f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}"))
        kept.add(tuple(json.loads(line)["trace_id"] for line in sink.lines))
    assert len(kept) == 1
    assert 200 < len(kept.pop()) < 300


def test_sampling_without_a_trace_goes_by_the_request_id() -> None:
    """A request without a trace is sampled too."""
    sink = Sink()
    lines = lines_to(sink, sample=0.5)
    for number in range(400):
        lines.write(record(trace_id=None, request_id=f"request-{number}"))
    assert 140 < len(sink.lines) < 260
    assert json.loads(sink.lines[0])["sample_rate"] == 0.5


def test_quiet_requests_are_written_only_when_something_happened() -> None:
    """A health route's success leaves no line, its failure does."""
    sink = Sink()
    lines = lines_to(sink)
    lines.write(record(quiet=True))
    assert sink.lines == []
    lines.write(record(quiet=True, status=503))
    assert len(sink.lines) == 1


def test_level_leaves_lesser_lines_out() -> None:
    """At warning, answered requests leave no line."""
    sink = Sink()
    lines = lines_to(sink, level="warning")
    lines.write(record())
    lines.write(record(status=401, problem="unauthenticated"))
    assert len(sink.lines) == 1


NASTY = "a\r\n\x1b[31m\x7f\x85\x9b\u2028\u2029\u202e\u2066\ud800z\x00"


@pytest.mark.parametrize("format", ["json", "console"])
def test_one_physical_line_without_controls(format: str) -> None:
    """CR, LF, ESC, DEL, C1, line separators and bidi controls are escaped, wherever they come from."""
    sink = Sink()
    lines_to(sink, format=format).write(record(route=NASTY, request_id=NASTY, status=500, problem=NASTY))
    (line,) = sink.lines
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()


def test_line_is_never_longer_than_a_pipe_keeps_together() -> None:
    """Long values are cut; the essential fields stay, and the line stays JSON."""
    would = [("layer", "slug")] * 2000
    for values in ({"route": "/x" * 5000}, {"would_refuse": would}, {"route": "\x85" * 9000, "problem": "é" * 9000}):
        sink = Sink()
        lines_to(sink).write(record(**values))
        assert len(sink.lines[0]) <= MAX_LINE
        parsed = json.loads(sink.lines[0])
        assert parsed["request_id"] == "abcdefgh12345678"
        assert parsed["truncated"] is True
        assert parsed["schema"] == 1


def test_values_json_does_not_have_still_give_a_line() -> None:
    """A lone surrogate, 2^70, NaN, an odd key and an object do not suppress the line."""
    fields: dict[Any, Any] = {
        "a": "\ud800",
        "b": 2**70,
        "c": float("nan"),
        4: "d",
        "o": object(),
        "n": [float("inf"), {1}],
    }
    line = encode(fields)
    parsed = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert parsed["b"] == 2**70
    assert parsed["c"] is None
    assert parsed["n"] == [None, [1]]
    assert line.isascii()


class Unprintable:
    """An object that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_unprintable_object_gives_a_line_that_says_so() -> None:
    """An event that cannot be encoded at all is still one line."""
    assert json.loads(encode({"o": Unprintable()})) == {"event": "log_unprintable", "keys": 1}


def test_write_never_raises() -> None:
    """A record of the wrong kinds leaves a line about the failure, and a count."""
    sink, redactor = Sink(), Redactor()
    RequestLines(sink, redactor, NAMES).write(record(status="x"))  # type: ignore[arg-type]
    assert json.loads(sink.lines[0])["error"] == "log_failed"
    assert redactor.errors == 1


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet=st.characters()) | st.integers(), inner),
        max_leaves=30,
    )
)
def test_anything_encodes_to_one_strict_ascii_line(value: Any) -> None:
    """Whatever is in an event, the line is ASCII, one line, bounded and strict JSON."""
    line = encode({"event": "x", "value": value})
    assert len(line) <= MAX_LINE
    assert line[:-1].decode("ascii").isprintable()
    json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_memos_are_bounded() -> None:
    """A flood of subjects and addresses does not fill the memory."""
    sink = Sink()
    lines = lines_to(sink)
    for number in range(5000):
        lines.write(record(subject=f"u{number}", client_ip=f"10.{number // 250}.{number % 250}.1"))
    assert len(lines._names) <= 4096
    assert len(lines._addresses) <= 4096


@pytest.mark.parametrize(
    ("address", "cut"),
    [
        pytest.param("203.0.113.77", "203.0.113.0", id="IPv4"),
        pytest.param("2001:db8:85a3::8a2e:370:7334", "2001:db8:85a3::", id="IPv6"),
        pytest.param("::ffff:203.0.113.77", "203.0.113.0", id="IPv4 in IPv6"),
        pytest.param("fe80::1%eth0", "fe80::", id="with a zone"),
        pytest.param("local", None, id="no address"),
        pytest.param("x" * 10_000, None, id="long"),
    ],
)
def test_address_is_cut_to_its_network(address: str, cut: str | None) -> None:
    """/24 and /48, nothing for what is no address."""
    assert truncated_address(address) == cut


def test_console_line_is_for_people() -> None:
    """Time, level, status, method, route, time taken and what is out of the ordinary."""
    sink = Sink()
    lines_to(sink, format="console").write(record(status=401, problem="unauthenticated", layer="auth"))
    text = sink.lines[0].decode()
    assert text.startswith("03:04:05.678 warning 401 GET /orgs/{org_id} 12.3 ms")
    assert "problem=unauthenticated layer=auth" in text


def test_stamp_is_right_across_seconds() -> None:
    """The kept second does not stick, milliseconds are not rounded up into the next second."""
    assert clock.stamp(0.9999) == "1970-01-01T00:00:00.999Z"
    assert clock.stamp(1.0) == "1970-01-01T00:00:01.000Z"
    assert clock.stamp(0.5) == "1970-01-01T00:00:00.500Z"


def test_printable_escapes_only_what_acts() -> None:
    """Ordinary text of any script stays as it is."""
    assert printable("grüße 你好") == "grüße 你好"
    assert printable("a\u202eb") == "a\\u202eb"
