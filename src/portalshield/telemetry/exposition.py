"""What was counted, in the words of Prometheus: text and OpenMetrics, a collector for an existing registry.

The text is written here: prometheus-client needs 27 ms for 200 routes, this a tenth, and METRICS__PATH works without
it. With the `prometheus` extra, `collect_into` shows the same families in a registry that the application exposes by
itself. Formats: Prometheus text 0.0.4, OpenMetrics 1.0.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from portalshield.model.secret import Secret
from portalshield.telemetry import clock
from portalshield.telemetry.metrics import OTHER, Metrics, Snapshot

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CACHE_S: Final = 1.0
"""A scrape within this time of another gets the same answer: a flood of scrapes costs nothing."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]
"""Suffix, labels, value."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; a counter's name is without `_total`, which is its samples' suffix."""

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


_COUNTERS: Final[tuple[tuple[str, str, str, str], ...]] = (
    # what `Metrics.count` calls it, family, label, help
    ("log_dropped", "portalshield_log_dropped", "", "Log lines lost because nobody read them."),
    ("redactions", "portalshield_redactions", "detector", "Values that were replaced, by what found them."),
    ("redactor_errors", "portalshield_redactor_errors", "", "Values replaced because redaction itself failed."),
    ("tripwire", "portalshield_tripwire", "detector", "Values found in a line that was thought to be clean."),
    ("sentry_capped", "portalshield_sentry_capped", "", "Error events held back because too many of a kind came."),
    ("uncounted", "portalshield_uncounted", "", "Counts that found no room under a name of their own."),
)
_ALWAYS: Final = ("log_dropped", "redactor_errors", "tripwire")
WATCHED_LAYERS: Final = ("auth", "tenant", "owners", "rate", "webhook")
"""What alerts watch is there from the start with 0: an increase from nothing to one is none to Prometheus."""


def families(metrics: Metrics) -> list[Family]:
    """Everything, one family after another, from a fresh snapshot."""
    taken = metrics.snapshot()
    return [
        _requests(taken),
        *_durations(metrics, taken),
        _overhead(taken),
        _decisions(taken),
        *_counters(taken),
    ]


def _requests(taken: Snapshot) -> Family:
    samples = tuple(
        ("_total", (("method", method), ("route", route), ("status", status)), float(count))
        for (method, status, route), count in sorted(taken.of("requests").items())
    )
    return Family("portalshield_requests", "counter", "Requests that were answered.", samples)


def _durations(metrics: Metrics, taken: Snapshot) -> Iterator[Family]:
    """The histogram per route, what was over each budget, and quantiles."""
    buckets = metrics.buckets
    edges = [_seconds(edge) for edge in buckets.edges_ns]
    budgets = [ms for ms in sorted(set(metrics.budgets_ms)) if ms * 1_000_000 in buckets.edges_ns]
    spread: list[Sample] = []
    over: list[Sample] = []
    quantiles: list[Sample] = []
    for route, counts in sorted(taken.durations.items()):
        summary = buckets.summary(counts, (0.5, 0.95, 0.99))
        here = ("route", route)
        spread += _histogram((here,), edges, summary.at_most, summary.total_ns / 1e9)
        for ms in budgets:
            breaches = buckets.above(summary, ms * 1_000_000)
            over.append(("_total", (("budget_ms", str(ms)), here), float(breaches)))
        for share, value in zip(("0.5", "0.95", "0.99"), summary.quantiles_ns, strict=True):
            quantiles.append(("", (("quantile", share), here), value / 1e9))
    yield Family("portalshield_request_duration_seconds", "histogram", "From first to last byte.", spread)
    yield Family("portalshield_latency_budget_breaches", "counter", "Requests that took longer than a budget.", over)
    name = "portalshield_request_duration_quantile_seconds"
    yield Family(name, "gauge", "Since the start, within 1.8 percent.", quantiles)


def _histogram(labels: Labels, edges: list[str], at_most: list[int], total: float) -> Iterator[Sample]:
    for edge, count in zip((*edges, "+Inf"), at_most, strict=True):
        yield "_bucket", (*labels, ("le", edge)), float(count)
    yield "_count", labels, float(at_most[-1])
    yield "_sum", labels, total


def _overhead(taken: Snapshot) -> Family:
    sums, edges, at_most = 0, [], []
    for power, count in enumerate(taken.overhead):
        sums += count
        if 10 <= power <= 26:  # 1 us to 67 ms
            edges.append(_seconds(2**power))
            at_most.append(sums)
    total = sum(count * 0.75 * 2**power for power, count in enumerate(taken.overhead)) / 1e9
    samples = tuple(_histogram((), edges, [*at_most, sums], total)) if sums else ()
    return Family("portalshield_overhead_seconds", "histogram", "The shield's own share of a request.", samples)


def _decisions(taken: Snapshot) -> Family:
    held = {(layer, "refused", OTHER, OTHER): 0 for layer in WATCHED_LAYERS} | taken.of("decisions")
    samples = tuple(
        ("_total", (("layer", layer), ("decision", word), ("problem", problem), ("route", route)), float(count))
        for (layer, word, problem, route), count in sorted(held.items())
    )
    return Family("portalshield_decisions", "counter", "What layers refused, or would refuse.", samples)


def _counters(taken: Snapshot) -> Iterator[Family]:
    for counter, name, label, text in _COUNTERS:
        held = {names[0]: count for names, count in taken.of(counter).items()}
        if counter in _ALWAYS:
            held = {OTHER if label else "": 0} | held
        samples = tuple(
            ("_total", ((label, value),) if label else (), float(count)) for value, count in sorted(held.items())
        )
        if samples:
            yield Family(name, "counter", text, samples)


def _seconds(nanoseconds: int) -> str:
    return format(nanoseconds / 1e9, ".12g")


# -- text -------------------------------------------------------------------------------------------------------------


def text(found: Iterable[Family], *, open_metrics: bool = False) -> bytes:
    """The families as a page; OpenMetrics names a counter without `_total` and ends with `# EOF`."""
    lines: list[str] = []
    for family in found:
        name = family.name + ("_total" if family.kind == "counter" and not open_metrics else "")
        lines.append(f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}")
        lines += [_sample(family.name + suffix, labels, value) for suffix, labels, value in family.samples]
    lines.append("# EOF\n" if open_metrics else "")
    return "\n".join(lines).encode()


def _sample(name: str, labels: Labels, value: float) -> str:
    number = str(int(value)) if value.is_integer() else repr(value)
    if not labels:
        return f"{name} {number}"
    return f"{name}{{{_inner(labels)}}} {number}"


@lru_cache(16_384)
def _inner(labels: Labels) -> str:
    return ",".join([f'{label}="{_quoted(text)}"' for label, text in labels])


def _quoted(text: str) -> str:
    if text.isalnum():
        return text
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# -- the endpoint -----------------------------------------------------------------------------------------------------


class Exposition:
    """The page at `path` for whoever shows `token` (None: anybody); framework-neutral, kept for `CACHE_S`."""

    def __init__(
        self,
        metrics: Metrics,
        path: str | None = None,
        token: Secret | None = None,
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self.path = path
        self._metrics = metrics
        self._token = None if token is None else b"bearer " + token.reveal().encode()
        self._monotonic = monotonic
        self._kept: dict[bool, tuple[float, bytes]] = {}

    def page(self, accept: str | None = None) -> tuple[str, bytes]:
        """Content type and body, in the format that `Accept` asks for. About 4 ms for 200 routes, once a second."""
        open_metrics = accept is not None and "application/openmetrics-text" in accept
        now = self._monotonic()
        kept = self._kept.get(open_metrics)
        if kept is None or not 0 <= now - kept[0] < CACHE_S:
            kept = self._kept[open_metrics] = (now, text(families(self._metrics), open_metrics=open_metrics))
        return OPEN_METRICS if open_metrics else TEXT, kept[1]

    def admits(self, authorization: bytes | None) -> bool:
        """True for `Bearer` and the configured token, compared in constant time, or where no token is configured."""
        if self._token is None:
            return True
        scheme, _, given = (authorization or b"").partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + given.strip(), self._token)


# -- an existing registry ---------------------------------------------------------------------------------------------


def collect_into(metrics: Metrics, registry: Any = None) -> Any:
    """Register with prometheus-client (the `prometheus` extra): the application's own page then shows ours too.

    Returns the collector, for `registry.unregister`. Raises `ImportError` without prometheus-client.
    """
    from prometheus_client import REGISTRY

    collector = _Collector(metrics)
    (REGISTRY if registry is None else registry).register(collector)
    return collector


class _Collector:
    """prometheus-client's protocol: `collect` yields families."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Any]:
        """Nothing is counted before it is asked for."""
        return ()

    def collect(self) -> Iterator[Any]:
        """The families as prometheus-client's own."""
        from prometheus_client.core import Metric

        for family in families(self._metrics):
            metric = Metric(family.name, family.help, family.kind)
            for suffix, labels, value in family.samples:
                metric.add_sample(family.name + suffix, dict(labels), value)
            yield metric
