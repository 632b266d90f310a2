"""`make bench`: every budget that can be measured in one process, in under three minutes.

    python benchmarks/run.py [--quick] [--json FILE] [--html FILE]

Bare application, its CORS extension alone, the whole shield with every layer on; GET with one path parameter and POST
of 1 KB JSON; FastAPI and Flask; back to back and spaced by 20 ms. Prints what each adds, compares with the budgets and
writes `results/latest.json`. Exit status 1 when an interim bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import bodies
import pieces
import telemetry_pieces
from apps import (
    BODY,
    Bench,
    Client,
    fastapi_app,
    flask_app,
    get_request,
    handed_over_app,
    portal_app,
    post_request,
    with_cors,
)

from portalshield import Policy
from portalshield.bench.measure import Series, Variant, back_to_back, spaced
from portalshield.bench.report import Bar, Report, Row
from portalshield.bench.stacks import NullLines

RESULTS = Path(__file__).parent / "results"
ROUNDS, SPACED_ROUNDS, BATCH = 240, 100, 20
HANDED_OVER = (Policy("POST /tenants/{tenant_id}/clients", body=Client),)

Bars = tuple[tuple[str, float, bool], ...]
GET_BARS: Bars = (("interim", 2.5, True), ("B1", 1.5, False))
POST_BARS: Bars = (("interim", 4.0, True), ("B2", 2.0, False))
FLASK_BARS: Bars = (("interim", 1.5, True), ("B3", 0.6, False))


def fastapi_variants(bench: Bench, method: str) -> list[Variant]:
    """Bare, CORS only, shielded; for POST also with the validated object handed over."""
    request = get_request() if method == "GET" else post_request()
    found = [
        bench.plain("bare", fastapi_app(), request),
        bench.plain("cors only", with_cors(fastapi_app()), request),
        bench.shielded("shielded", fastapi_app(), request),
    ]
    if method == "POST":
        found.append(bench.shielded("shielded, payload", handed_over_app(), request, HANDED_OVER))
    return found


def flask_variants(bench: Bench, method: str) -> list[Variant]:
    """Bare, flask-cors only, shielded."""
    request = get_request() if method == "GET" else post_request()
    return [
        bench.plain("bare", flask_app(), request),
        bench.plain("cors only", with_cors(flask_app()), request),
        bench.shielded("shielded", flask_app(), request),
    ]


def compared(group: str, found: Mapping[str, Series], bars: Bars) -> tuple[list[Row], list[Bar]]:
    """The rows of one group, and `(shielded - bare) / (cors only - bare)` against its bars."""
    base = found["bare"]
    rows = [Row.of(group, series, None if name == "bare" else base) for name, series in found.items()]
    ratio = round(found["shielded"].above(base).middle / found["cors only"].above(base).middle, 3)
    return rows, [Bar(name, f"{name}: {group}, x CORS alone", ratio, limit, interim) for name, limit, interim in bars]


def handed_over(found: Mapping[str, Series]) -> Bar:
    """The shielded application that takes the validated object against the bare one."""
    ratio = found["shielded, payload"].middle / found["bare"].middle
    return Bar("B2", "B2 handed over: FastAPI POST 1 KB, shielded / bare", round(ratio, 3), 1.0)


def measured(bench: Bench, rounds: int, spaced_rounds: int) -> Report:
    """Everything."""
    rows: list[Row] = []
    bars: list[Bar] = []
    for name, variants, limits in (
        ("FastAPI GET", fastapi_variants(bench, "GET"), GET_BARS),
        ("FastAPI POST 1 KB", fastapi_variants(bench, "POST"), POST_BARS),
        ("Flask GET", flask_variants(bench, "GET"), FLASK_BARS),
        ("Flask POST 1 KB", flask_variants(bench, "POST"), FLASK_BARS),
    ):
        busy = back_to_back(variants, rounds=rounds, batch=BATCH)
        idle = spaced(variants, rounds=spaced_rounds)
        for more_rows, more_bars in (compared(name, busy, limits), (compared(f"{name}, spaced by 20 ms", idle, ()))):
            rows += more_rows
            bars += more_bars
        if "shielded, payload" in busy:
            bars.append(handed_over(busy))
        bars.append(growth(name, busy, idle))
    for more_rows, more_bars in (
        pieces.stores(rounds),
        pieces.tokens(rounds),
        pieces.guarded(bench, rounds),
        pieces.flood(bench, rounds),
        pieces.sizes(bench, rounds),
        portal(bench, rounds),
        telemetry_pieces.telemetry(rounds),
        bodies.strict_json(rounds),
        bodies.uploads(rounds),
    ):
        rows += more_rows
        bars += more_bars
    note = f"Figures are CPU time; POST bodies have {len(BODY)} bytes. Only ratios of one run travel to other machines."
    return Report("portalshield benchmarks", tuple(rows), tuple(bars), (note,))


def portal(bench: Bench, rounds: int) -> tuple[list[Row], list[Bar]]:
    """Among sixty routes the shield gives back what it takes: the application does not look for the route again."""
    request = get_request()
    variants = [
        bench.plain("bare", portal_app(), request),
        bench.plain("cors only", with_cors(portal_app()), request),
        bench.shielded("shielded", portal_app(), request),
    ]
    found = back_to_back(variants, rounds=rounds // 2, batch=BATCH)
    rows, _ = compared("FastAPI GET among 60 routes", found, ())
    ratio = round(found["shielded"].middle / found["bare"].middle, 3)
    return rows, [Bar("portal", "portal: FastAPI GET among 60 routes, shielded / bare", ratio, 1.0, interim=True)]


def growth(name: str, busy: Mapping[str, Series], idle: Mapping[str, Series]) -> Bar:
    """Spaced arrivals raise everything (cold caches): the added cost no more than the bare application's time."""
    added = idle["shielded"].above(idle["bare"]).middle / busy["shielded"].above(busy["bare"]).middle
    bare = idle["bare"].middle / busy["bare"].middle
    return Bar("B11", f"B11: {name}, growth when spaced / that of the bare app", round(added / bare, 3), 1.0)


def main() -> int:
    """Measure, print, write; 1 when an interim bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    parser.add_argument("--html", type=Path, default=None, metavar="FILE")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    with asyncio.Runner() as runner, NullLines() as lines:
        report = measured(Bench(runner, lines), ROUNDS // share, SPACED_ROUNDS // share)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(report.to_json(), encoding="utf-8")
    if options.html is not None:
        options.html.write_text(report.to_html(), encoding="utf-8")
    sys.stdout.write(report.to_text())
    return int(any(bar.interim and not bar.passed for bar in report.bars))


if __name__ == "__main__":
    raise SystemExit(main())
