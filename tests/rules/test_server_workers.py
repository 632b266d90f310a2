"""What a server's command line says about its processes."""

from __future__ import annotations

import pytest

from portalshield.rules.server_workers import workers_of


@pytest.mark.parametrize(
    ("argv", "workers"),
    [
        pytest.param(["/app/.venv/bin/gunicorn", "-w", "4", "main:app"], 4, id="gunicorn"),
        pytest.param(["gunicorn", "-w4", "main:app"], 4, id="joined"),
        pytest.param(["gunicorn", "main:app", "--workers=3"], 3, id="equals sign"),
        pytest.param(["/usr/bin/uvicorn", "main:app", "--workers", "2"], 2, id="uvicorn"),
        pytest.param(["/lib/uvicorn/__main__.py", "main:app", "--workers", "2"], 2, id="as a module"),
        pytest.param(["hypercorn", "-w", "2", "main:app"], 2, id="hypercorn"),
        pytest.param(["granian", "--interface", "asgi", "--workers", "1", "main:app"], 1, id="granian with one"),
        pytest.param(["C:\\venv\\Scripts\\uvicorn.exe", "main:app", "--workers", "2"], 2, id="Windows"),
        pytest.param(["gunicorn", "main:app"], None, id="not said"),
        pytest.param(["gunicorn", "-c", "conf.py", "main:app"], None, id="in a file"),
        pytest.param(["gunicorn", "--worker-class", "gthread", "main:app"], None, id="another option"),
        pytest.param(["uvicorn", "--workers"], None, id="without a number"),
        pytest.param(["pytest", "-w", "4"], None, id="no server"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_the_number_behind_the_option(argv: list[str], workers: int | None) -> None:
    """Of the servers that are known, and of nobody else."""
    assert workers_of(argv) == workers
