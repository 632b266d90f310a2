"""The example portals behind the shield, as their READMEs show them: under a real server, with real requests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SERVERS = {
    "fastapi_app": ["uvicorn", "shielded:app", "--host=127.0.0.1", "--no-access-log", "--port={port}"],
    "flask_app": ["waitress", "--listen=127.0.0.1:{port}", "shielded:app"],
}
MODULES = {"fastapi_app": ("fastapi", "uvicorn"), "flask_app": ("flask", "waitress")}
PREPARED = re.compile(r"^cp \.env\.example.*?^done$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture(params=SERVERS)
def example(request: pytest.FixtureRequest) -> str:
    """The folder of each example whose framework and server are installed."""
    name = str(request.param)
    for module in MODULES[name]:
        pytest.importorskip(module)
    return name


def _environment() -> dict[str, str]:
    """That of the test run without anybody's settings; `python` is the interpreter of the tests."""
    foreign = ("PORTAL", "REDIS_URL", "SUPABASE_URL", "SENTRY_DSN", "PROMETHEUS_MULTIPROC_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}


def test_the_demonstration_goes_as_expected(example: str) -> None:
    """`demo.py` ends with 0, and shows as many exchanges as the READMEs say."""
    run = subprocess.run(
        [sys.executable, "demo.py"],
        cwd=EXAMPLES / example,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    shown = re.search(r"^(\d+) of \1 exchanges were answered as expected\.$", run.stdout, re.MULTILINE)
    assert shown is not None
    for page in (ROOT / "README.md", EXAMPLES / example / "README.md"):
        assert re.findall(r"(\d+) (?:real )?exchanges", page.read_text("utf-8")) == [shown[1]], page


@contextmanager
def _served(example: str, directory: Path, port: int) -> Iterator[None]:
    """The example in a copy of its folder, prepared as its README says."""
    prepared = PREPARED.search((directory / "README.md").read_text("utf-8"))
    assert prepared is not None
    command = " ".join(SERVERS[example]).format(port=port)
    script = f"{prepared[0]}\nset -a; . ./.env; set +a\nexec python -m {command}\n"
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", script], cwd=directory, env=_environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(port, process)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("the server did not start")


def _expected(calls: str) -> list[str]:
    """The status that the comment above each call promises."""
    promised: list[str] = []
    for status, rest in re.findall(r"^# (\d{3})(.*)$", calls, re.MULTILINE):
        promised += [status] * (5 if "five times" in rest else 1)
    return promised


@pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("sh", "curl", "openssl")), reason="the calls need sh, curl and openssl"
)
def test_the_calls_of_the_readme_answer_what_it_says(example: str, tmp_path: Path) -> None:
    """Every curl of the README, pasted in its order, gets the status of the comment above it."""
    ignored = shutil.ignore_patterns(".env", "*.db", "uploads", "__pycache__", ".mypy_cache")
    directory = tmp_path / example
    shutil.copytree(EXAMPLES / example, directory, ignore=ignored)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    _, *calls = BLOCK.findall((directory / "README.md").read_text("utf-8"))
    script = "\n".join(calls).replace("http://localhost:8000", f"http://127.0.0.1:{port}")
    with _served(example, directory, port):
        run = subprocess.run(
            ["sh", "-c", script], cwd=directory, env=_environment(), capture_output=True, timeout=120, check=False
        )
    answers = re.findall(r"HTTP/1\.1 (\d{3}) ", run.stdout.decode("utf-8", "replace"))
    assert answers == _expected(script)
