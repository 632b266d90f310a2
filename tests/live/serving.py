"""Real servers on loopback, each a process of its own, and a client of raw sockets."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_S = 40.0
"""How long a server may take to listen; imports are slow on a busy machine."""
STOP_S = 5.0
READ_S = 15.0


APP = "portal_app:app"


@dataclass(frozen=True)
class Recipe:
    """How a server is started; `{port}` is filled in. The rest is what it does by itself, without any middleware."""

    package: str
    kind: str
    command: tuple[str, ...]
    keeps_alive: bool = True
    reads_first: bool = False
    """The whole body, before the application is called: no early 413."""
    ends_cleanly: bool = False
    """A response whose application crashed half-way."""
    rewrites: tuple[str, ...] = ()
    """What it resolves in a path before anybody can see it."""


def _gunicorn(worker: str, *more: str) -> tuple[str, ...]:
    return ("gunicorn", "--bind=127.0.0.1:{port}", "--workers=1", f"--worker-class={worker}", *more, APP)


_UVICORN = ("uvicorn", "--host=127.0.0.1", "--port={port}", "--no-access-log", APP)
_GRANIAN = ("granian", "--host=127.0.0.1", "--port={port}", "--no-log", APP)

SERVERS = {
    "uvicorn-h11": Recipe("uvicorn", "asgi", (*_UVICORN, "--http=h11")),
    "uvicorn-httptools": Recipe("httptools", "asgi", (*_UVICORN, "--http=httptools")),
    "hypercorn": Recipe("hypercorn", "asgi", ("hypercorn", "--bind=127.0.0.1:{port}", APP)),
    "granian-asgi": Recipe("granian", "asgi", (*_GRANIAN, "--interface=asgi")),
    "granian-wsgi": Recipe("granian", "wsgi", (*_GRANIAN, "--interface=wsgi"), ends_cleanly=True, rewrites=("%2f",)),
    "gunicorn-asgi": Recipe("gunicorn", "asgi", _gunicorn("asgi")),
    "gunicorn-sync": Recipe("gunicorn", "wsgi", _gunicorn("sync"), keeps_alive=False),
    "gunicorn-gthread": Recipe("gunicorn", "wsgi", _gunicorn("gthread", "--threads=2")),
    "waitress": Recipe(
        "waitress", "wsgi", ("waitress", "--listen=127.0.0.1:{port}", APP), reads_first=True, rewrites=("//",)
    ),
}


class Server:
    """One server process."""

    def __init__(self, name: str, variables: dict[str, str], folder: Path, recipe: Recipe | None = None) -> None:
        self.recipe = recipe or SERVERS[name]
        self.signal = folder / f"{name}.signal"
        self.log = folder / f"{name}.log"
        self.port = _free_port()
        paths = (ROOT / "src", ROOT / "tests" / "contract", ROOT / "tests" / "live")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PORTALSHIELD_")}
        environment = {
            **inherited,
            **variables,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LIVE_KIND": self.recipe.kind,
            "LIVE_SIGNAL": str(self.signal),
        }
        command = [part.format(port=self.port) for part in self.recipe.command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
            )

    def wait(self) -> Server:
        """Until it listens."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            time.sleep(0.02)
        raise AssertionError(f"{self.recipe.command[0]} does not listen: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Ask this process to end, and see to it that it does."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """A new connection."""
        with socket.create_connection(("127.0.0.1", self.port), READ_S) as connection:
            yield Client(connection)

    def send(self, method: str, target: str, *fields: str, body: bytes = b"") -> Response:
        """One request on a connection of its own; a body is declared by its length."""
        with self.connect() as client:
            client.write(request(method, target, *fields, body=body))
            return client.response(head=method == "HEAD")


def http2(server: Server, method: str, target: str, fields: list[tuple[str, str]], body: bytes = b"") -> Response:
    """One request over HTTP/2 without TLS; a body is sent without announcing its length, as HTTP/2 allows."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

    engine = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
    answer = Response(0, [])
    with socket.create_connection(("127.0.0.1", server.port), READ_S) as connection:
        engine.initiate_connection()
        pseudo = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "portal.example.com")]
        engine.send_headers(1, [*pseudo, *fields], end_stream=not body)
        if body:
            engine.send_data(1, body, end_stream=True)
        connection.sendall(engine.data_to_send())
        while data := connection.recv(65_536):
            for event in engine.receive_data(data):
                if isinstance(event, ResponseReceived):
                    answer.fields = [(str(name), str(value)) for name, value in event.headers]
                    answer.status = int(answer.get(":status") or 0)
                elif isinstance(event, DataReceived):
                    answer.body += event.data
                elif isinstance(event, (StreamEnded, StreamReset)):
                    answer.complete = isinstance(event, StreamEnded)
                    return answer
            connection.sendall(engine.data_to_send())
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def request(
    method: str, target: str, *fields: str, body: bytes = b"", host: str | None = "portal.example.com"
) -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *fields]
    if body and not any(name.lower().startswith(("content-length", "transfer-encoding")) for name in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*parts: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@dataclass
class Response:
    """What came back. `complete`: its framing ended as announced."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = False

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def slug(self) -> str:
        """The problem that was answered, empty for an answer that is none of ours."""
        if self.get("content-type") != "application/problem+json":
            return ""
        return str(json.loads(self.body)["type"]).rpartition(":")[2]

    @property
    def stays(self) -> bool:
        """The server keeps the connection."""
        return self.complete and (self.get("connection") or "").lower() != "close"


class Client:
    """One connection; reads exactly one response at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""

    def write(self, data: bytes) -> bool:
        """False if the server does not want it any more."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def response(self, *, head: bool = False) -> Response:
        """The next final response."""
        response = self.begin()
        if head or response.status in (204, 304):
            response.complete = True
        elif (length := response.get("content-length")) is not None:
            response.body = self.take(int(length))
            response.complete = len(response.body) == int(length)
        elif (response.get("transfer-encoding") or "").lower() == "chunked":
            while (chunk := self.chunk()) is not None:
                response.body += chunk
                response.complete = chunk == b""
                if response.complete:
                    break
        else:
            while block := self._read():
                response.body += block
        return response

    def begin(self) -> Response:
        """The next response's head; interim ones are skipped."""
        while True:
            lines = self._head().decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            if status >= 200:
                rows = (line.partition(":") for line in lines[1:])
                return Response(status, [(name.lower(), value.strip()) for name, _, value in rows])

    def chunk(self) -> bytes | None:
        """The next chunk, empty at the end of the body; None where the connection ended before it."""
        line = self._line()
        if not line:
            return None
        data = self.take(int(line.split(b";")[0], 16) + 2)
        return data[:-2] if data.endswith(b"\r\n") else None

    def closed(self) -> bool:
        """Nothing more comes, and the server has closed."""
        return self._held == b"" and self._read() == b""

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._held:
            block = self._read()
            assert block, f"the connection ended inside a head: {self._held[:200]!r}"
            self._held += block
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return head

    def _line(self) -> bytes:
        while b"\r\n" not in self._held:
            block = self._read()
            if not block:
                return b""
            self._held += block
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer if the connection ends before."""
        while len(self._held) < count and (block := self._read()):
            self._held += block
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _read(self) -> bytes:
        try:
            return self._connection.recv(65_536)
        except ConnectionError:
            return b""


@contextlib.contextmanager
def all_running(names: list[str], variables: dict[str, str], folder: Path) -> Iterator[dict[str, Server]]:
    """Servers that start, import and end at the same time; each is stopped by its own id."""
    servers = {name: Server(name, variables, folder) for name in names}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.process.terminate()
        for server in servers.values():
            server.stop()
