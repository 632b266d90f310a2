"""Start the shielded portal under uvicorn and show what it answers: `python demo.py` (`--serve` keeps it running)."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def command(port: int) -> list[str]:
    """How the server is started, in this directory."""
    return [sys.executable, "-m", "uvicorn", "shielded:app", "--host=127.0.0.1", f"--port={port}", "--no-access-log"]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    from demonstration import main

    sys.exit(main(HERE, command))
