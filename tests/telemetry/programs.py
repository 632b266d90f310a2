"""Programs of the tests, each in a process of its own: Sentry's integrations patch for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def told_by(program: str) -> Any:
    """What a program of this folder prints, as JSON; its environment has no variables of ours or of Sentry."""
    folders = (ROOT / "src", ROOT / "tests" / "contract", ROOT / "tests" / "telemetry")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PORTALSHIELD_", "SENTRY_"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "telemetry" / program)],
        env={**environment, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)
