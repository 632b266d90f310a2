"""Rows for redaction, the request line and the counters.

The specification's microseconds were measured on one machine. Bars are scaled to it: `json.dumps` of the 12-field event
took 3.6 us there, so every figure is multiplied by 3.6 and divided by what `json.dumps` takes here, in the same run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from portalshield.asgi.fields import headers_of
from portalshield.bench.measure import Series, back_to_back, calls
from portalshield.bench.report import Bar, Row
from portalshield.context import LAST
from portalshield.model.exchange import Exchange
from portalshield.model.principal import Principal
from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.telemetry.exposition import families, text
from portalshield.telemetry.lines import RequestLines, RequestRecord
from portalshield.telemetry.metrics import Metrics

REFERENCE_US = 3.6
LINE: dict[str, Any] = {
    "timestamp": "2026-01-02T03:04:05.678Z",
    "level": "info",
    "event": "http_request",
    "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "method": "GET",
    "route": "/tenants/{tenant_id}/clients/{client_id}",
    "status": 200,
    "duration_ms": 12.345,
    "overhead_us": 11.1,
    "tenant": "t_0011223344556677",
    "subject": "u_8899aabbccddeeff",
}
SENTENCE = "the client asked for a second copy of the invoice, in Englis"
EVENT: dict[str, Any] = {
    "event": "invoice created for a client of the northern region",
    "amount": 1250,
    "currency": "EUR",
    "lines": [
        {"sku": "A-100", "title": "Consulting, first half of the month, two people on site", "price": 95.5},
        {"sku": "B-200", "title": "Travel by train from Hamburg to Munich and back again", "price": 120.0},
        {"sku": "C-300", "title": "Licences of the reporting module for the next quarter", "price": 14.0},
    ],
    "note": (
        "The client asked for a second copy of the invoice, in English this time, and wants the delivery date to be "
        "printed on the first page below the address. Anna has promised to send it by the end of the week; the "
        "template was changed accordingly and is waiting for a review by somebody from accounting."
    ),
    "steps": ["validated the payload against the schema", "looked up the price list of 2026-01", "wrote 3 rows"],
    "result": {"status": "ok", "rows": 3, "duration": "12.5 ms", "worker": "worker-7", "version": "1.14.2"},
    "path": "/srv/portal/app/invoices/service.py",
    "user_agent": (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
    ),
    "comment": (
        "rendered with template invoice_v3, locale de_DE, paper A4; margins were adjusted because the logo of the "
        "client is wider than usual; the second page is empty and will be dropped in the next version of the "
        "template, unless somebody from accounting objects to it, in which case the footer moves up by a line or two"
    ),
    "history": (
        "opened by the morning shift, put aside at noon, taken up again by the evening shift, sent back once for a "
        "missing signature, approved by two people, printed, and laid into the outgoing mail of the following day, "
        "which was a holiday; nobody noticed until the client called on Tuesday and asked where the invoice was, and "
        "by then the second reminder had gone out as well, so both were taken back and the client was told that the "
        "new one would have the same number, a later date and no reminder fee"
    ),
    "query": "SELECT id, number, total FROM invoices WHERE client_id = %s AND status = 'open' ORDER BY created_at",
}


class _Sink:
    def emit(self, line: Any, *, eventful: bool = True) -> None:
        """Make the line, as the writing thread does."""
        if not isinstance(line, bytes):
            line[0](*line[1:])


def redaction(rounds: int) -> tuple[list[Row], list[Bar]]:
    """Values as they come in, texts that were seen before and texts that were not."""
    redactor, fresh = Redactor(), Redactor()

    def unseen() -> None:
        fresh._clean_texts.clear()
        fresh.value(EVENT)

    def short() -> None:
        fresh._clean_texts.clear()
        fresh.text(SENTENCE)

    big = {"body": SENTENCE * 1100}
    found = back_to_back(
        [
            calls("json.dumps, 12 fields", lambda: json.dumps(LINE)),
            calls("60 characters", short),
            calls("2 KB event, texts not seen before", unseen),
            calls("2 KB event, texts seen before", lambda: redactor.value(EVENT)),
            calls("64 KB event, cut", lambda: redactor.value(big, 8192)),
        ],
        rounds=rounds,
        batch=40,
    )
    scaled = _scale(found)
    return [Row.of("redaction", series) for series in found.values()], [
        Bar("16", "16 60-character text without findings, us", scaled("60 characters"), 2.5),
        Bar(
            "16",
            f"16 {len(json.dumps(EVENT))} B event, unseen texts, us",
            scaled("2 KB event, texts not seen before"),
            80,
        ),
        Bar("16", "16 the same, seen texts, us", scaled("2 KB event, texts seen before"), 80),
        Bar("16", "16 64 KB event, us", scaled("64 KB event, cut"), 250),
    ]


def lines(rounds: int) -> tuple[list[Row], list[Bar]]:
    """The whole line of a request with a principal: fields, pseudonyms, serialisation; both ways of making it."""
    made = RequestLines(_Sink(), Redactor(), Pseudonyms(b"k" * 32))  # type: ignore[arg-type]
    record = RequestRecord()
    record.request_id, record.route, record.status, record.duration_ms = LINE["request_id"], LINE["route"], 200, 12.345
    record.tenant, record.subject, record.auth, record.client_ip = "acme", "user_1", "bearer", "203.0.113.7"
    x = Exchange()
    x.headers, _ = headers_of([])
    x.request_id, x.template, x.method, x.now, x.address = LINE["request_id"], LINE["route"], "GET", 1e9, "203.0.113.7"
    x.principal = Principal("user_1", "acme", auth_method="bearer")
    found = back_to_back(
        [
            calls("json.dumps, 12 fields", lambda: json.dumps(LINE)),
            calls("line of a request on which nothing happened", lambda: made.plain(x, 200, 12_345_678, 34_000, 5)),
            calls("line of any other", lambda: made.write(record)),
        ],
        rounds=rounds,
        batch=200,
    )
    scaled = _scale(found)
    return [Row.of("request line", series) for series in found.values()], [
        Bar("15", "15 whole line, us", scaled("line of a request on which nothing happened"), 3.0),
        Bar("15", "15 whole line of a refusal, us", scaled("line of any other"), 5.0),
    ]


def counters(rounds: int) -> tuple[list[Row], list[Bar]]:
    """One request counted, in own memory and in a file that workers share; a page of 200 routes."""
    own, shared = Metrics(), Metrics(folder=tempfile.mkdtemp())
    for number in range(200):
        for status in (200, 404, 500):
            own.record("GET", f"/kind{number}/{{id}}", status, 1_000_000 * number, 30_000)
    request = ("GET", LINE["route"], 200, 12_345_678, 34_000)
    record, put = own.record, shared.record
    found = back_to_back(
        [
            calls("json.dumps, 12 fields", lambda: json.dumps(LINE)),
            calls("record, own memory", lambda: record(*request)),
            calls("record, slot file", lambda: put(*request)),
            calls("a call that does nothing", lambda: _nothing(*request)),
            # All that a success costs more where Sentry is linked: its facts are found when something is captured.
            calls("request kept for Sentry", lambda: LAST.set(None)),
        ],
        rounds=rounds,
        batch=400,
    )
    page = back_to_back([calls("page of 200 routes", lambda: text(families(own)))], rounds=min(rounds, 20), batch=2)[
        "page of 200 routes"
    ]
    factor = REFERENCE_US * 1000 / found["json.dumps, 12 fields"].middle
    rows = [Row.of("counters", series) for series in (*found.values(), page)]
    scaled, empty = _scale(found), _scale(found)("a call that does nothing")
    return rows, [
        Bar("44", "44 success path with Sentry, us", scaled("request kept for Sentry"), 1.0),
        Bar("50", "50 record, own memory, us", round(scaled("record, own memory") - empty, 3), 0.3),
        Bar("50", "50 record, slot file, us", round(scaled("record, slot file") - empty, 3), 0.5),
        Bar(
            "53",
            "53 page of 200 routes, kept for a second, ms",
            round(page.middle * factor / 1e6, 2),
            20,
        ),
    ]


def _nothing(method: str, route: str, status: int, duration_ns: int, overhead_ns: int) -> None:
    return None


def _scale(found: Mapping[str, Series]) -> Callable[[str], float]:
    factor = REFERENCE_US / found["json.dumps, 12 fields"].middle
    return lambda name: round(found[name].middle * factor, 3)


def telemetry(rounds: int) -> tuple[list[Row], list[Bar]]:
    """All of it."""
    rows: list[Row] = []
    bars: list[Bar] = []
    for piece in (redaction, lines, counters):
        more_rows, more_bars = piece(rounds)
        rows += more_rows
        bars += more_bars
    return rows, bars


if __name__ == "__main__":
    for _bar in telemetry(40)[1]:
        print(f"{'ok  ' if _bar.passed else 'over'} {_bar.text}: {_bar.value} (bar {_bar.limit})")
