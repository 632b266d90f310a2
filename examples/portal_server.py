"""A shielded example as a process of its own on a free loopback port, with secrets that are drawn for each run.

Its standard output is read for the one log line of each request. Only the standard library is used.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ISSUER = "https://portal.example.com"
AUDIENCE = "portal"
PASSWORD = "walk-the-talk-2026"
FRONT_END = "https://app.example.com"
PER_MINUTE = 60
START_S = 30.0
LOG_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, the status it must be answered with, what must stand in the answer, and fields that must not.

    `logged`: there is a line for it. Probes and scrapes that succeed leave none.
    """

    title: str
    method: str
    path: str
    expected: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    contains: str = ""
    logged: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; header names in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


# -- the server ------------------------------------------------------------------------------------------------------


class RequestLog:
    """The log lines of the server by request id, read from its standard output by a thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: dict[str, str] = {}
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def line(self, request_id: str) -> str | None:
        """The line of one request; waits for it at most `LOG_WAIT_S`."""
        with self._arrived:
            self._arrived.wait_for(lambda: request_id in self._lines, LOG_WAIT_S)
            return self._lines.get(request_id)

    def _read(self) -> None:
        for text in self._stream:
            with suppress(ValueError):
                record = json.loads(text)
                if isinstance(record, dict) and record.get("event") == "http_request":
                    with self._arrived:
                        self._lines[str(record.get("request_id"))] = text.rstrip("\n")
                        self._arrived.notify_all()


@dataclass(frozen=True, slots=True)
class Server:
    """A running example and the secrets it was started with."""

    port: int
    token_secret: str
    stripe_secret: str
    metrics_token: str
    log: RequestLog

    def send(self, ask: Ask) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            # A server that refuses early may close before it has read everything: its answer counts all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(ask.method, ask.path, ask.body or None, dict(ask.headers))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.reason, headers, response.read())
        finally:
            connection.close()


def environment(directory: Path, token_secret: str, stripe_secret: str, metrics_token: str) -> dict[str, str]:
    """The variables of the server: no setting is inherited, so that every run is alike."""
    foreign = ("REDIS_URL", "SUPABASE_URL", "SENTRY_DSN", "PROMETHEUS_MULTIPROC_DIR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PORTAL", *foreign))}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "PORTAL_DATABASE_URL": f"sqlite:///{directory / 'portal.db'}",
        "PORTAL_UPLOADS": str(directory / "uploads"),
        "PORTALSHIELD_ENV": "development",
        "PORTALSHIELD_AUTH": "jwt",
        "PORTALSHIELD_AUTH__SECRET": token_secret,
        "PORTALSHIELD_AUTH__ISSUER": ISSUER,
        "PORTALSHIELD_AUTH__AUDIENCE": AUDIENCE,
        "PORTALSHIELD_CORS__ALLOW_ORIGINS": FRONT_END,
        "PORTALSHIELD_CORS__ALLOW_HEADERS": "Authorization,Content-Type,Idempotency-Key,X-Tenant-Id",
        "PORTALSHIELD_HOSTS": "127.0.0.1,localhost",
        "PORTALSHIELD_HEALTH": "GET /healthz",
        "PORTALSHIELD_RATE__PER_IP": f"{PER_MINUTE}/minute",
        "PORTALSHIELD_BODY__MAX_SIZE": "64KiB",
        "PORTALSHIELD_WEBHOOK__STRIPE__SECRET": stripe_secret,
        "PORTALSHIELD_METRICS__PATH": "/metrics",
        "PORTALSHIELD_METRICS__TOKEN": metrics_token,
        "PORTALSHIELD_LOG__FORMAT": "json",
    }


@contextmanager
def serving(example: Path, command: Callable[[int], list[str]]) -> Iterator[Server]:
    """Start the example in its directory, wait until it answers, and stop that one process at the end."""
    with tempfile.TemporaryDirectory(prefix="portal-") as name, socket.socket() as probe:
        directory = Path(name)
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        probe.close()
        drawn = secrets.token_urlsafe(48), f"whsec_{secrets.token_hex(24)}", secrets.token_urlsafe(32)
        errors = directory / "stderr.txt"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                command(port),
                cwd=example,
                env=environment(directory, *drawn),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            server = Server(port, *drawn, RequestLog(process.stdout))
            _wait_until_ready(server, process, errors)
            yield server
        finally:
            _stop(process)


def _wait_until_ready(server: Server, process: subprocess.Popen[str], errors: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(OSError):
            server.send(Ask("ready?", "GET", "/healthz", 200))
            return
        time.sleep(0.1)
    raise SystemExit(f"The server did not start:\n{errors.read_text()}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


# -- tokens and signatures ---------------------------------------------------------------------------------------------


def token(secret: str, **changed: Any) -> str:
    """An HS256 access token (RFC 7519) of north's coach, with some claims changed."""
    now = int(time.time())
    claims = {
        "sub": "1",
        "tenant_id": "north",
        "roles": ["coach"],
        "scope": "clients:read clients:write",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 600,
    } | changed
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    return f"{signed}.{_base64url(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def segment(value: Mapping[str, Any]) -> str:
    """One part of a token: compact JSON in base64url."""
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def stripe_signature(secret: str, body: bytes) -> str:
    """A `Stripe-Signature` field for a body, signed now."""
    now = int(time.time())
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"
