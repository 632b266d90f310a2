"""Counters: exact, bounded, shared between workers, and readable by Prometheus."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from portalshield.layers.server_timing import value_of
from portalshield.model.secret import Secret
from portalshield.telemetry import metrics as module
from portalshield.telemetry.config import BudgetConfig, LogConfig, MetricsConfig
from portalshield.telemetry.exposition import Exposition, collect_into, families, text
from portalshield.telemetry.metrics import MAX_ROUTES, OTHER, Metrics
from portalshield.telemetry.slots import SlotFile, SlotsTakenError

MS = 1_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["own memory", "slot file"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> Metrics:
    """Both places where counters live."""
    return Metrics(folder=tmp_path if request.param == "slot file" else None)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus reads."""
    page = text(families(metrics)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(page)
        for sample in family.samples
    }


def test_requests_durations_and_decisions_are_read_back(metrics: Metrics) -> None:
    """What was recorded stands in the page under the contract's names."""
    metrics.record("GET", "/a/{id}", 200, 20 * MS, 30_000)
    metrics.record("GET", "/a/{id}", 200, 301 * MS, 30_000)
    metrics.record("POST", "/a/{id}", 429, 501 * MS, 9_000)
    metrics.decision("rate", "refused", "rate-limited", "/a/{id}")
    found = samples(metrics)
    route = ("route", "/a/{id}")
    assert found["portalshield_requests_total", (("method", "GET"), route, ("status", "200"))] == 2
    assert found["portalshield_request_duration_seconds_bucket", (("le", "0.3"), route)] == 1
    assert found["portalshield_request_duration_seconds_bucket", (("le", "0.5"), route)] == 2
    assert found["portalshield_request_duration_seconds_count", (route,)] == 3
    assert found["portalshield_request_duration_seconds_sum", (route,)] == pytest.approx(0.822, rel=0.02)
    assert found["portalshield_latency_budget_breaches_total", (("budget_ms", "300"), route)] == 2
    assert found["portalshield_latency_budget_breaches_total", (("budget_ms", "500"), route)] == 1
    decision = (("decision", "refused"), ("layer", "rate"), ("problem", "rate-limited"), route)
    assert found["portalshield_decisions_total", decision] == 1
    assert found["portalshield_overhead_seconds_count", ()] == 3
    assert found["portalshield_log_dropped_total", ()] == 0


def test_flood_of_paths_adds_no_series_beyond_the_bound(metrics: Metrics) -> None:
    """Where a path slipped in as a route, 500 stay, the rest is one; not one request is lost."""
    for number in range(5_000):
        metrics.record("GET", f"/flood/{number}", 200 + number % 400, MS, 1_000)
    metrics.record("BREW", "/x", 99_999, MS, 1_000)
    taken = metrics.snapshot()
    assert len(taken.durations) <= MAX_ROUTES + 1
    assert sum(map(sum, taken.durations.values())) == 5_001
    assert sum(taken.of("requests").values()) == 5_001
    assert len(taken.rows) <= module.MAX_ROWS
    assert {method for method, _, _ in taken.of("requests")} <= {"GET", "_OTHER"}


def test_more_names_than_rows_are_counted_as_other(metrics: Metrics) -> None:
    """When every row is taken, later decisions and counters are counted in a row of their kind."""
    for number in range(module.MAX_ROWS + 50):
        metrics.decision("tenant", "refused", f"problem-{number}", "/a")
    metrics.count("redactions", "never-seen")
    taken = metrics.snapshot()
    assert sum(taken.of("decisions").values()) == module.MAX_ROWS + 50
    assert taken.of("decisions")[(OTHER, "refused", OTHER, OTHER)] >= 50
    assert taken.of("uncounted") == {("",): 1}


def test_recording_keeps_nothing(metrics: Metrics) -> None:
    """After the first requests of a route, 20,000 more leave no memory behind."""
    for _ in range(300):
        metrics.record("GET", "/a", 200, 5 * MS, 40_000)
    ours = [tracemalloc.Filter(True, module.__file__)]  # threads of other tests may still be at work
    tracemalloc.start()
    try:
        for _ in range(20_000):
            metrics.record("GET", "/a", 200, 5 * MS, 40_000)
        kept = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)
    finally:
        tracemalloc.stop()
    assert kept < 2_000


def test_threads_lose_no_count(metrics: Metrics) -> None:
    """Four threads that are switched as often as possible count to the one."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for number in range(5_000):
            metrics.record("GET", "/a" if number % 2 else "/b", 200, number * 1000, 20_000)

    threads = [threading.Thread(target=work) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    taken = metrics.snapshot()
    assert sum(taken.of("requests").values()) == 20_000
    assert sum(map(sum, taken.durations.values())) == 20_000
    assert sum(taken.overhead) == 20_000


def test_interpreter_without_global_lock_gets_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """On free-threaded builds additions are guarded."""
    monkeypatch.setattr(module, "switches_at_calls_only", lambda: False)
    metrics = Metrics()
    metrics.record("GET", "/a", 200, MS, 1_000)
    assert metrics.record.__name__ == "guarded"
    assert sum(metrics.snapshot().of("requests").values()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_child_counts_for_itself_in_own_memory() -> None:
    """A fork copies no counts: without a shared file each process tells its own."""
    code = (
        "import os\n"
        "from portalshield.telemetry.metrics import Metrics\n"
        "m = Metrics()\n"
        "m.record('GET', '/a', 200, 1, 1)\n"
        "pid = os.fork()\n"
        "m.record('GET', '/a', 200, 1, 1)\n"
        "os.write(1, b'%d\\n' % sum(m.snapshot().of('requests').values()))\n"
        "if pid: os.waitpid(pid, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    assert sorted(done.stdout.split()) == [b"1", b"2"]


# -- the slot file


def test_slot_of_a_dead_process_is_taken_over_and_its_counts_stay(tmp_path: Path) -> None:
    """Twenty workers one after another, killed without a chance to say goodbye: one slot, every count."""
    code = (
        "import os, signal, sys\n"
        "from portalshield.telemetry.metrics import Metrics\n"
        "for _ in range(10):\n"
        "    m = Metrics(folder=sys.argv[1])\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        for n in range(7): m.record('GET', f'/r{n}', 200, 5_000_000, 1_000)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    os.waitpid(pid, 0)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60, check=True)
    metrics = Metrics(folder=tmp_path)
    taken = metrics.snapshot()
    assert {route: sum(counts) for route, counts in taken.durations.items()} == {f"/r{n}": 20 for n in range(7)}
    assert len(list(tmp_path.iterdir())) == 1


def test_living_processes_have_slots_of_their_own(tmp_path: Path) -> None:
    """Two claims never meet in one slot; when all are taken the next one says so."""
    file = SlotFile(tmp_path, "x", words=8, rows=4, slots=2)
    first, second = file.claim(), file.claim()
    assert (first.index, second.index) == (0, 1)
    with pytest.raises(SlotsTakenError):
        file.claim()
    file.release(first)
    assert file.claim().index == 0


def test_folder_that_cannot_be_used_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counting goes on in this process."""
    metrics = Metrics(folder=tmp_path / "missing")
    metrics.record("GET", "/a", 200, MS, 1_000)
    assert sum(metrics.snapshot().of("requests").values()) == 1
    assert [record.getMessage() for record in caplog.records] == ["metrics are counted per process: FileNotFoundError"]


def test_names_too_long_for_a_row_are_other(metrics: Metrics) -> None:
    """A template longer than a name may be is counted, not written."""
    metrics.record("GET", "/" + "x" * 400, 200, MS, 1_000)
    assert set(metrics.snapshot().durations) == {OTHER}


GUNICORN_APP = """
import os
from portalshield.telemetry.metrics import Metrics
from portalshield.telemetry.writer import LineWriter

metrics = Metrics(folder=os.environ["PROMETHEUS_MULTIPROC_DIR"])
writer = LineWriter(1)
writer.emit(b"preloaded\\n")
writer.flush()


def app(environ, start_response):
    writer.emit(f"line {environ['QUERY_STRING']} {'x' * 2000}\\n".encode())
    metrics.record("GET", environ["PATH_INFO"], 200, 7_000_000, 30_000)
    start_response("200 OK", [("content-type", "text/plain"), ("connection", "close")])
    return [str(os.getpid()).encode()]
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _ask(port: int, path: str) -> int:
    """The worker that answered; connections are retried while workers are replaced."""
    for _ in range(200):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            return int(connection.getresponse().read())
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
    raise AssertionError("nobody answers")


def test_totals_are_exact_after_fifty_restarts_under_gunicorn(tmp_path: Path) -> None:
    """Four preloaded workers that end after a few requests each, one of them killed: every request is counted, the
    file does not grow; each wrote its own lines, whole, and flushed them at its end."""
    pytest.importorskip("gunicorn")
    (tmp_path / "counted.py").write_text(GUNICORN_APP)
    shared = tmp_path / "shared"
    shared.mkdir()
    port = _free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=4", "--max-requests=4", "--bind"]
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(tmp_path))),
    }
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*command, f"127.0.0.1:{port}", "counted:app"],
            env=environment,
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    workers: set[int] = set()
    sizes: set[tuple[int, int]] = set()
    asked = 0
    try:
        while len(workers) < 54 and asked < 1_000:
            pid = _ask(port, f"/r{asked % 3}?{asked}")
            asked += 1
            workers.add(pid)
            if asked == 40:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if asked >= 40:
                (path,) = shared.iterdir()
                sizes.add((path.stat().st_size, path.stat().st_blocks))
    finally:
        process.terminate()
        process.wait(20)
    assert len(workers) >= 54
    taken = Metrics(folder=shared).snapshot()
    assert sum(taken.of("requests").values()) == asked
    assert sum(map(sum, taken.durations.values())) == asked
    assert len({size for size, _ in sizes}) == 1
    # Each worker index touches its own pages once: at most five slots of a few pages, not one per worker that lived.
    assert max(blocks for _, blocks in sizes) * 512 < 6 * 16 * 4096
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[0] == "preloaded"
    assert all(re.fullmatch(r"line \d+ x{2000}", line) for line in lines[1:])
    assert len(set(lines)) == len(lines)
    # A killed worker takes along what it had not written, at most the requests it answered.
    assert asked - 4 <= len(lines) - 1 <= asked


# -- the page


def test_page_is_read_by_prometheus_own_parsers(metrics: Metrics) -> None:
    """Text and OpenMetrics parse to the same samples; label values are escaped."""
    metrics.record("GET", '/a/"b"\\c', 200, MS, 1_000)
    metrics.count("redactions", "email")
    exposition = Exposition(metrics)
    kind, page = exposition.page()
    other_kind, other = exposition.page("application/openmetrics-text; version=1.0.0; q=0.7, */*;q=0.1")
    assert (kind.partition(";")[0], other_kind.partition(";")[0]) == ("text/plain", "application/openmetrics-text")

    def read(found: Any) -> set[tuple[str, str, float]]:
        return {(s.name, str(sorted(s.labels.items())), s.value) for family in found for s in family.samples}

    assert read(parse_text(page.decode())) == read(parse_open_metrics(other.decode()))
    assert any(labels == str([("detector", "email")]) for _, labels, _ in read(parse_text(page.decode())))


def test_page_is_kept_for_a_second(metrics: Metrics) -> None:
    """A flood of scrapes costs one page per second, and a clock that goes back does not freeze it."""
    now = [100.0]
    exposition = Exposition(metrics, monotonic=lambda: now[0])
    first = exposition.page()[1]
    metrics.record("GET", "/a", 200, MS, 1_000)
    assert exposition.page()[1] is first
    now[0] = 101.0
    assert b'route="/a"' in exposition.page()[1]


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        pytest.param(b"Bearer a-token-of-sixteen", True, id="the token"),
        pytest.param(b"bearer  a-token-of-sixteen ", True, id="lower-case scheme and blanks"),
        pytest.param(b"Bearer a-token-of-sixteem", False, id="one letter off"),
        pytest.param(b"Basic a-token-of-sixteen", False, id="another scheme"),
        pytest.param(b"a-token-of-sixteen", False, id="no scheme"),
        pytest.param(b"", False, id="empty"),
        pytest.param(None, False, id="none"),
    ],
)
def test_only_the_token_opens_the_page(authorization: bytes | None, admitted: bool) -> None:
    """Whoever does not show it is not admitted; without a configured token everybody is."""
    metrics = Metrics()
    assert Exposition(metrics, "/metrics", Secret("a-token-of-sixteen")).admits(authorization) is admitted
    assert Exposition(metrics, "/metrics").admits(authorization)


def test_existing_registry_shows_the_same_families(metrics: Metrics) -> None:
    """With prometheus-client, an application's own page carries ours, sample by sample."""
    metrics.record("GET", "/a", 200, 20 * MS, 30_000)
    registry = CollectorRegistry()
    collect_into(metrics, registry)
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(generate_latest(registry).decode())
        for sample in family.samples
    }
    assert theirs == samples(metrics)


def test_server_timing_is_rounded_to_a_tenth() -> None:
    """Milliseconds of application and shield; the shield's part is not counted twice."""
    assert value_of(12_345_678, 345_678) == b"app;dur=12.0, shield;dur=0.3"
    assert value_of(100, 400_000) == b"app;dur=0.0, shield;dur=0.4"


# -- settings


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        pytest.param({"path": "/metrics", "token": Secret("t" * 16)}, [], id="path and token"),
        pytest.param({}, [], id="off"),
        pytest.param({"path": "/metrics"}, ["PS-METRICS-002"], id="open page"),
        pytest.param({"path": "metrics", "token": Secret("t" * 16)}, ["PS-METRICS-001"], id="no slash"),
        pytest.param({"path": "/a/../b", "token": Secret("t" * 16)}, ["PS-METRICS-001"], id="dots"),
        pytest.param({"path": "/{x}", "token": Secret("t" * 16)}, ["PS-METRICS-001"], id="a pattern"),
        pytest.param({"path": "/m?x", "token": Secret("t" * 16)}, ["PS-METRICS-001"], id="a query"),
        pytest.param({"path": "/metrics", "token": Secret("short")}, ["PS-METRICS-003"], id="short token"),
    ],
)
def test_wrong_metrics_settings_are_told_without_their_value(config: dict[str, Any], ids: list[str]) -> None:
    """Each mistake has its id; no text repeats what was written."""
    found = list(MetricsConfig(**config).problems(development=False))
    assert [problem.id for problem in found] == ids
    assert "short" not in "".join(map(str, found))


def test_development_may_leave_the_token_out() -> None:
    """On a developer's machine the page may be open."""
    assert list(MetricsConfig(path="/metrics").problems(development=True)) == []


def test_budgets_and_pseudonym_keys_are_checked() -> None:
    """Budgets outside what the histogram covers, keys that are short, alone or the same."""
    assert [problem.id for problem in BudgetConfig(p95_ms=0, app_ms=200_000).problems()] == ["PS-BUDGET-001"] * 2
    key, short = Secret("k" * 16), Secret("k" * 15)
    assert list(LogConfig(pseudonym_key=key, previous_pseudonym_key=Secret("p" * 16)).problems()) == []
    assert [problem.id for problem in LogConfig(pseudonym_key=short).problems()] == ["PS-LOG-001"]
    assert [problem.id for problem in LogConfig(previous_pseudonym_key=key).problems()] == ["PS-LOG-002"]
    same = LogConfig(pseudonym_key=key, previous_pseudonym_key=key)
    assert [problem.id for problem in same.problems()] == ["PS-LOG-002"]


def test_page_of_two_hundred_routes_has_every_route(metrics: Metrics) -> None:
    """Size of the page grows with routes, not with requests."""
    for number in range(200):
        for _ in range(3):
            metrics.record("GET", f"/r{number}", 200, number * MS, 1_000)
    found = samples(metrics)
    assert sum(name == "portalshield_request_duration_seconds_count" for name, _ in found) == 200
    assert len(found) < 200 * 25
