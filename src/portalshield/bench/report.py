"""What a benchmark found: a table for terminals, JSON, and one HTML page with a plot, complete in itself."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from portalshield.bench.measure import Series

_PACKAGES = (
    "portalshield", "starlette", "fastapi", "flask", "flask-cors", "pydantic", "pyjwt", "orjson", "limits", "uvicorn",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing: microseconds of CPU per call, median with best and worst round."""

    group: str
    name: str
    median_us: float
    low_us: float
    high_us: float
    added_us: float | None = None
    """Median of what it adds to the group's base, round by round."""

    @classmethod
    def of(cls, group: str, series: Series, base: Series | None = None) -> Row:
        """From nanoseconds."""
        added = None if base is None else round(series.above(base).middle / 1000, 3)
        middle, low, high = (round(value / 1000, 3) for value in (series.middle, series.low, series.high))
        return cls(group, series.name, middle, low, high, added)


@dataclass(frozen=True, slots=True)
class Bar:
    """A budget: `value` must not exceed `limit`. An `interim` one decides about the exit status."""

    id: str
    text: str
    value: float
    limit: float
    interim: bool = False

    @property
    def passed(self) -> bool:
        """Within the budget."""
        return self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run found, with the machine and the versions it was found on."""

    title: str
    rows: tuple[Row, ...]
    bars: tuple[Bar, ...] = ()
    notes: tuple[str, ...] = ()
    machine: str = field(default_factory=lambda: machine_line())
    versions: dict[str, str] = field(default_factory=lambda: installed_versions())

    def to_json(self) -> str:
        """Indented JSON; `from_json` reads it again."""
        document = asdict(self)
        for bar, entry in zip(self.bars, document["bars"], strict=True):
            entry["passed"] = bar.passed
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote."""
        held: dict[str, Any] = json.loads(text)
        bars = tuple(Bar(**{name: value for name, value in bar.items() if name != "passed"}) for bar in held["bars"])
        rows = tuple(Row(**row) for row in held["rows"])
        return cls(held["title"], rows, bars, tuple(held["notes"]), held["machine"], held["versions"])

    def to_text(self) -> str:
        """Aligned tables, one per group, then the bars."""
        parts = [f"{self.title}\n{self.machine}\n{_versions_line(self.versions)}"]
        for group in dict.fromkeys(row.group for row in self.rows):
            rows = [row for row in self.rows if row.group == group]
            cells = [(row.name, *map(_us, (row.median_us, row.low_us, row.high_us, row.added_us))) for row in rows]
            parts.append(aligned([(group, "median us", "min", "max", "added"), *cells]))
        if self.bars:
            rows_of_bars = [(bar.text, f"{bar.value:.2f}", f"<= {bar.limit:g}", _verdict(bar)) for bar in self.bars]
            parts.append(aligned([("budget", "measured", "bar", ""), *rows_of_bars]))
        return "\n\n".join([*parts, *self.notes]) + "\n"

    def to_html(self) -> str:
        """One page with an inline SVG: no script, nothing to load."""
        sections = "".join(_section(group, self.rows) for group in dict.fromkeys(row.group for row in self.rows))
        bars = "".join(
            f"<tr><td>{escape(bar.text)}<td>{bar.value:.2f}<td>&le; {bar.limit:g}<td>{_verdict(bar)}"
            for bar in self.bars
        )
        table = f"<table><tr><th>budget<th>measured<th>bar<th>{bars}</table>" if bars else ""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f"<style>{_STYLE}</style><h1>{escape(self.title)}</h1>"
            f"<p>{escape(self.machine)}<br>{escape(_versions_line(self.versions))}</p>{sections}{table}{notes}</html>\n"
        )


def aligned(rows: Iterable[tuple[str, ...]]) -> str:
    """Columns two spaces apart: the first and the last to the left, figures to the right."""
    lines = list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine_line() -> str:
    """Processor, cores and interpreter; neither host nor user."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:
        pass  # not Linux
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, {python}"


def installed_versions() -> dict[str, str]:
    """Of the packages that matter here, as far as they are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _versions_line(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _us(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _verdict(bar: Bar) -> str:
    return "pass" if bar.passed else "MISSED" if bar.interim else "not yet"


# -- the plot ---------------------------------------------------------------------------------------------------------

_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}"
    "h2{font-size:1rem;margin:2rem 0 .3rem}table{border-collapse:collapse;margin-top:2rem}"
    "td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}svg{width:100%;height:auto}"
)
_LINE_PX, _LABEL_PX, _PLOT_PX, _VALUE_PX = 24, 260, 500, 140


def _section(group: str, rows: Iterable[Row]) -> str:
    """One group as horizontal bars: the median, with a line from the best to the worst round where it fits."""
    mine = [row for row in rows if row.group == group]
    # A single disturbed round must not squeeze all bars: the scale follows the medians.
    scale = _PLOT_PX / max(0.001, *(row.median_us * 1.15 for row in mine))
    width, height = _LABEL_PX + _PLOT_PX + _VALUE_PX, _LINE_PX * len(mine) + 4
    body = "".join(_plotted(row, number * _LINE_PX, scale) for number, row in enumerate(mine))
    label = escape(f"{group}: microseconds of CPU per call", quote=True)
    return f'<h2>{escape(group)}</h2><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}</svg>'


def _plotted(row: Row, top: float, scale: float) -> str:
    middle = top + _LINE_PX / 2
    length = max(1.0, row.median_us * scale)
    low, high = (_LABEL_PX + max(0.0, min(value * scale, _PLOT_PX)) for value in (row.low_us, row.high_us))
    figure = f"{_us(row.median_us)} us" + (f" (+{_us(row.added_us)})" if row.added_us else "")
    return (
        f'<text x="{_LABEL_PX - 8}" y="{middle + 4}" text-anchor="end" font-size="13">{escape(row.name)}</text>'
        f'<rect x="{_LABEL_PX}" y="{top + 4}" width="{length:.1f}" height="{_LINE_PX - 8}" fill="#4a7ebb"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>'
        f'<text x="{_LABEL_PX + _PLOT_PX + 8}" y="{middle + 4}" font-size="13">{figure}</text>'
    )
