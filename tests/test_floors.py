"""The import contracts hold, and each of them notices a violation planted in a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

VIOLATIONS = [
    pytest.param("rules/values.py", "import portalshield.settings", "Imports point down", id="a rule imports settings"),
    pytest.param(
        "layers/hosts.py", "import portalshield.layers.cors", "No layer imports", id="a layer imports another"
    ),
    pytest.param("rules/values.py", "import time", "no IO", id="a rule reads the clock"),
    pytest.param("flow.py", "import asyncio", "no IO", id="the flow knows a loop"),
    pytest.param("model/head.py", "import starlette.requests", "no IO", id="the model knows a framework"),
    pytest.param("newroom.py", "import portalshield.model", "Imports point down", id="a room that is not on the plan"),
]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
        "--no-logo",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def _copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_contracts_hold(tmp_path: Path) -> None:
    """The tree as it is keeps all three contracts."""
    result = _lint(_copy(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(("file", "line", "contract"), VIOLATIONS)
def test_a_planted_violation_is_caught(tmp_path: Path, file: str, line: str, contract: str) -> None:
    """Each contract fails when one import breaks it."""
    target = _copy(tmp_path) / "src" / "portalshield" / file
    text = target.read_text() if target.exists() else '"""A new room."""\n'
    target.write_text(text + f"\n{line}\n")
    result = _lint(tmp_path)
    assert result.returncode != 0
    assert any(contract in row and "BROKEN" in row for row in result.stdout.splitlines()), result.stdout
