"""Rows for bodies: strict JSON against one `json.loads`, and uploads of 64 MB: what judging costs, what it holds."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import partial

from apps import body_of
from python_multipart.multipart import MultipartParser

from portalshield.bench.measure import back_to_back, calls
from portalshield.bench.report import Bar, Row
from portalshield.rules.multipart import FormScanner
from portalshield.rules.strict_json import mentions, parse
from portalshield.rules.uploads import FileJudge, compile_rules

Found = tuple[list[Row], list[Bar]]

NAMES = frozenset(("tenant_id", "tenantId", "org_id", "orgId", "organization_id", "organizationId"))
SIZES = {"1 KB": 1024, "64 KB": 65_536, "1 MB": 1_000_000}
BOUNDARY = b"benchmark"
BLOCK = b"0123456789abcdef" * 4096
UPLOAD_BYTES = 64_000_000
HELD_MB = 2.0
FILES = {"JPEG": ("a.jpg", "image/jpeg", b"\xff\xd8\xff\xe0"), "text": ("a.txt", "text/plain", b"")}


def strict_json(rounds: int) -> Found:
    """All checks of a document without tenants, beside the parse that the application does anyway."""
    rows: list[Row] = []
    bars: list[Bar] = []
    for size, length in SIZES.items():
        records, prose = _records(length), body_of(length)
        found = back_to_back(
            [
                calls("strict, records", partial(_strict, records)),
                calls("json.loads, records", partial(json.loads, records)),
                calls("strict, one long text", partial(_strict, prose)),
                calls("json.loads, one long text", partial(json.loads, prose)),
            ],
            rounds=max(8, rounds // 8),
            batch=max(1, 100_000 // length),
        )
        rows += [Row.of(f"strict JSON, {size}", series) for series in found.values()]
        ratio = found["strict, records"].middle / found["json.loads, records"].middle
        bars.append(Bar("B8", f"B8 strict JSON, {size} / json.loads", round(ratio, 3), 1.3))
    return rows, bars


def _records(size: int) -> bytes:
    """A list of clients. (One long text is what a parser copies and a check has to look at: no measure for a ratio.)"""
    client = {"name": "Ada", "email": "ada@example.com", "amount": 12.5, "active": True, "tags": ["a"], "note": None}
    made = [{"id": number, **client, "address": {"street": f"Road {number}"}} for number in range(1 + size // 150)]
    return json.dumps(made).encode()


def _strict(body: bytes) -> None:
    parse(body, max_depth=32, max_keys=1_000_000, max_items=1_000_000)
    mentions(body, NAMES)


def uploads(rounds: int) -> Found:
    """64 MB in blocks of 64 KB, beside the boundary search of the parser that FastAPI applications run anyway."""
    found = back_to_back(
        [
            *(calls(f"judged, {name}", partial(judge, *file)) for name, file in FILES.items()),
            calls("python-multipart, nothing kept", parse_only),
        ],
        rounds=max(3, rounds // 80),
        batch=1,
    )
    rows = [Row.of("upload of 64 MB", series) for series in found.values()]
    bars = [
        Bar("B8", f"B8 MB held while 64 MB of {name} pass", _held(partial(judge, *FILES[name])), HELD_MB)
        for name in FILES
    ]
    return rows, bars


def _opening(filename: str, essence: str) -> bytes:
    lines = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: {essence}\r\n\r\n'
    return b"--" + BOUNDARY + b"\r\n" + lines.encode()


def judge(filename: str, essence: str, head: bytes) -> None:
    """One upload, judged to its end."""
    scanner = FormScanner(BOUNDARY, names=NAMES, parts=FileJudge(compile_rules([essence], 2 * UPLOAD_BYTES, 1), NAMES))
    scanner.feed(_opening(filename, essence) + head)
    for _ in range(UPLOAD_BYTES // len(BLOCK)):
        scanner.feed(BLOCK)
    scanner.feed(b"\r\n--" + BOUNDARY + b"--\r\n")
    scanner.close()


def parse_only() -> None:
    """The same, parsed and thrown away."""
    parser = MultipartParser(BOUNDARY, {})
    parser.write(_opening("a.jpg", "image/jpeg"))
    for _ in range(UPLOAD_BYTES // len(BLOCK)):
        parser.write(BLOCK)
    parser.write(b"\r\n--" + BOUNDARY + b"--\r\n")
    parser.finalize()


def _held(upload: Callable[[], None]) -> float:
    tracemalloc.start()
    try:
        upload()
        return round(tracemalloc.get_traced_memory()[1] / 1e6, 2)
    finally:
        tracemalloc.stop()
