"""Real HTTP exchanges with a shielded example: what goes out, what comes back, and what the log keeps of it.

Shared by `fastapi_app/demo.py` and `flask_app/demo.py`. The server is a process of its own on a free loopback port; its
standard output is read for the one log line of each request. Only the standard library is used.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
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
SHOWN = 320
"""Characters of a body that are printed."""

_SHOWN_REQUEST = (
    "authorization",
    "host",
    "origin",
    "cookie",
    "content-type",
    "content-length",
    "x-tenant-id",
    "sec-fetch-site",
    "stripe-signature",
    "access-control-request-method",
    "access-control-request-headers",
)
_SHOWN_RESPONSE = (
    "content-type",
    "www-authenticate",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "accept-post",
    "vary",
    "cache-control",
    "strict-transport-security",
    "content-security-policy",
    "ratelimit-policy",
    "ratelimit",
    "retry-after",
    "x-request-id",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, the status it must be answered with, and the response fields that must (not) be there."""

    title: str
    method: str
    path: str
    expected: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


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


def environment(directory: Path, token_secret: str, stripe_secret: str) -> dict[str, str]:
    """The variables of the server: nothing of ours is inherited, so that every run is alike."""
    foreign = ("REDIS_URL", "SUPABASE_URL", "SENTRY_DSN")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PORTAL", *foreign))}
    return kept | {
        "PYTHONUNBUFFERED": "1",
        "PORTAL_DATABASE_URL": f"sqlite:///{directory / 'portal.db'}",
        "PORTAL_UPLOADS": str(directory / "uploads"),
        "STRIPE_WEBHOOK_SECRET": stripe_secret,
        "PORTALSHIELD_ENV": "development",
        "PORTALSHIELD_AUTH": "jwt",
        "PORTALSHIELD_AUTH__SECRET": token_secret,
        "PORTALSHIELD_AUTH__ISSUER": ISSUER,
        "PORTALSHIELD_AUTH__AUDIENCE": AUDIENCE,
        "PORTALSHIELD_CORS__ALLOW_ORIGINS": FRONT_END,
        "PORTALSHIELD_CORS__ALLOW_HEADERS": "Authorization,Content-Type,X-Tenant-Id",
        "PORTALSHIELD_HOSTS": "127.0.0.1,localhost",
        "PORTALSHIELD_HEALTH": "GET /healthz",
        "PORTALSHIELD_RATE__PER_IP": f"{PER_MINUTE}/minute",
        "PORTALSHIELD_BODY__MAX_SIZE": "64KiB",
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
        token_secret, stripe_secret = secrets.token_urlsafe(48), f"whsec_{secrets.token_hex(24)}"
        errors = directory / "stderr.txt"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                command(port),
                cwd=example,
                env=environment(directory, token_secret, stripe_secret),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            server = Server(port, token_secret, stripe_secret, RequestLog(process.stdout))
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
    signed = f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(claims)}"
    return f"{signed}.{_base64url(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def _segment(value: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def stripe_signature(secret: str, body: bytes) -> str:
    """A `Stripe-Signature` field for a body, signed now."""
    now = int(time.time())
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


# -- what is asked -----------------------------------------------------------------------------------------------------


def login(email: str) -> Ask:
    """A login with the demonstration password."""
    body = json.dumps({"email": email, "password": PASSWORD}).encode()
    return Ask(f"{email} logs in", "POST", "/auth/login", 200, {"Content-Type": "application/json"}, body)


def _post(
    title: str, path: str, expected: int, token: str, data: Any, content_type: str = "application/json", **more: Any
) -> Ask:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Ask(title, "POST", path, expected, {**_bearer(token), "Content-Type": content_type}, body, **more)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def own_tenant(owner: str, stripe_secret: str) -> Iterator[Ask]:
    """What the coach of north may do, and what Stripe may."""
    yield Ask("the owner reads her own clients", "GET", "/tenants/north/clients", 200, _bearer(owner))
    invoices = {**_bearer(owner), "X-Tenant-Id": "north"}
    yield Ask("the owner reads her own invoices, named by header", "GET", "/invoices", 200, invoices)
    client = {"name": "Gus Ferro", "email": "gus@mail.example"}
    yield _post("the owner adds a client", "/tenants/north/clients", 201, owner, client)
    form = (
        b'--part\r\nContent-Disposition: form-data; name="file"; filename="agreement.pdf"\r\n'
        b"Content-Type: application/pdf\r\n\r\n%PDF-1.7\n%%EOF\n\r\n--part--\r\n"
    )
    multipart = "multipart/form-data; boundary=part"
    yield _post("the owner uploads a document", "/tenants/north/documents", 201, owner, form, multipart)
    event = b'{"type":"payment_intent.succeeded","data":{"object":{"metadata":{"invoice_id":"2"}}}}'
    signed = {"Stripe-Signature": stripe_signature(stripe_secret, event), "Content-Type": "application/json"}
    yield Ask("Stripe reports a payment", "POST", "/webhooks/stripe", 200, signed, event)


def foreign_tenant(owner: str) -> Iterator[Ask]:
    """The same coach with the id of another practice, and of one that does not exist."""
    yield Ask("another tenant's id in the path", "GET", "/tenants/south/clients", 404, _bearer(owner))
    yield Ask("... in the query", "GET", "/sessions?tenant_id=south", 404, _bearer(owner))
    yield Ask("... in a header", "GET", "/invoices", 404, {**_bearer(owner), "X-Tenant-Id": "south"})
    booking = {"tenant_id": "south", "client_id": 4, "starts_at": "2026-05-04T08:00:00Z"}
    yield _post("... in the body", "/sessions", 404, owner, booking)
    yield Ask("a client of another practice, by number alone", "GET", "/clients/4", 404, _bearer(owner))
    yield Ask("a tenant that does not exist looks the same", "GET", "/tenants/atlantis/clients", 404, _bearer(owner))


def wrong_credentials(secret: str, assistant: str) -> Iterator[Ask]:
    """Without a token, with bad ones, and with one that grants too little."""
    path, challenge = "/tenants/north/clients", ("www-authenticate",)
    yield Ask("no token", "GET", path, 401, present=challenge)
    expired = token(secret, iat=int(time.time()) - 7200, exp=int(time.time()) - 3600)
    yield Ask("an expired token", "GET", path, 401, _bearer(expired), present=challenge)
    yield Ask("a token that somebody else signed", "GET", path, 401, _bearer(token(secret[::-1])), present=challenge)
    unsigned = f"{_segment({'alg': 'none'})}.{token(secret).split('.')[1]}."
    yield Ask("a token that nobody signed", "GET", path, 401, _bearer(unsigned), present=challenge)
    report = "/internal/reports/revenue?tenant_id=south"
    yield Ask("a route whose author forgot the login", "GET", report, 401, present=challenge)
    client = {"name": "Gus Ferro", "email": "gus@mail.example"}
    yield _post("an assistant may not add clients", path, 403, assistant, client, present=challenge)


def browsers(owner: str) -> Iterator[Ask]:
    """Preflights, a cross-site form post, a foreign Host."""
    allow = ("access-control-allow-origin",)
    preflight = (*allow, "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age")
    wanted = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    path = "/tenants/north/clients"
    yield Ask("preflight of our front end", "OPTIONS", path, 204, {"Origin": FRONT_END, **wanted}, present=preflight)
    foreign = {"Origin": "https://elsewhere.example"}
    yield Ask("preflight of a foreign origin", "OPTIONS", path, 204, {**foreign, **wanted}, absent=preflight)
    yield Ask("our front end reads", "GET", path, 200, {**_bearer(owner), "Origin": FRONT_END}, present=allow)
    riding = {**foreign, "Cookie": "session=1", "Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
    yield Ask("a foreign page posts with our cookie", "POST", "/auth/login", 403, riding, b"{}")
    yield Ask("a Host that is not ours", "GET", path, 421, {**_bearer(owner), "Host": "elsewhere.example"})


def wrong_bodies(owner: str) -> Iterator[Ask]:
    """Too large, of the wrong type, ambiguous, and not what the route takes."""
    path = "/tenants/north/clients"
    large = {"name": "x" * 17_000, "email": "gus@mail.example"}
    yield _post("a body over the route's 16 KB", path, 413, owner, large)
    yield _post("a media type the route does not take", path, 415, owner, b"Gus", "text/plain")
    yield _post("JSON that names a member twice", path, 400, owner, b'{"name":"Gus","name":"Eve"}')
    yield _post("a member missing, another unexpected", path, 422, owner, {"name": "Gus Ferro", "is_admin": True})


# -- printing ----------------------------------------------------------------------------------------------------------


class Printer:
    """Prints exchanges; in colour on a terminal, unless NO_COLOR is set."""

    def __init__(self) -> None:
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.count = 0

    def exchange(self, ask: Ask, answer: Answer, log: str | None, faults: list[str]) -> None:
        """Request, response, log line, and what was wrong."""
        self.count += 1
        verdict = self._paint("31", "NOT AS EXPECTED") if faults else self._paint("32", "as expected")
        print(f"\n{self._paint('1', f'{self.count:>2}  {ask.title}')}  [{verdict}]")
        print(self._paint("36", f"  > {ask.method} {ask.path}"))
        sent = {name.lower(): value for name, value in ask.headers.items()}
        if ask.body:
            sent["content-length"] = str(len(ask.body))
        self._fields(">", sent, _SHOWN_REQUEST)
        if ask.body:
            print(f"  > {self._dim(_readable(ask.body, ask.path))}")
        print(self._paint("32" if answer.status < 400 else "33", f"  < {answer.status} {answer.reason}"))
        self._fields("<", answer.headers, _SHOWN_RESPONSE)
        if answer.body:
            print(f"  < {self._dim(_readable(answer.body, ask.path))}")
        print(f"  log {log or '(none)'}")
        for fault in faults:
            print(self._paint("31", f"  !   {fault}"))

    def _fields(self, mark: str, fields: Mapping[str, str], names: tuple[str, ...]) -> None:
        for name in names:
            if name in fields:
                value = fields[name]
                print(f"  {mark} {name:<29} {self._dim(_shortened(value, 90))}")

    def _dim(self, text: str) -> str:
        return self._paint("2", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def _readable(body: bytes, path: str) -> str:
    text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\n", "\\n")
    if path == "/auth/login":
        text = text.replace(PASSWORD, "...")
    return _shortened(text, SHOWN)


# -- the run -----------------------------------------------------------------------------------------------------------


class Demonstration:
    """Sends the exchanges to one server, prints and judges them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._printer = Printer()
        self.failed = 0

    @property
    def count(self) -> int:
        """How many exchanges were printed."""
        return self._printer.count

    def run(self) -> None:
        """All of it; the flood comes last because it spends the quota of this address."""
        owner = self._log_in("coach@north.example")
        assistant = self._log_in("assistant@north.example")
        self._all(own_tenant(owner, self._server.stripe_secret))
        self._compare(self._all(foreign_tenant(owner)))
        self._all(wrong_credentials(self._server.token_secret, assistant))
        self._all(browsers(owner))
        self._all(wrong_bodies(owner))
        self._flood(owner)

    def exchange(self, ask: Ask) -> Answer:
        """Send, judge and print one request."""
        return self._report(ask, self._server.send(ask))

    def _all(self, asks: Iterator[Ask]) -> list[Answer]:
        return [self.exchange(ask) for ask in asks]

    def _compare(self, refusals: list[Answer]) -> None:
        """A foreign tenant must not be told from one that does not exist."""
        alike = {answer.body.replace(answer.headers.get("x-request-id", "?").encode(), b"") for answer in refusals}
        if len(alike) == 1:
            print(f"\n    These {len(refusals)} refusals are the same bytes, but for the request id.")
            return
        print("\n    NOT AS EXPECTED: these refusals differ.")
        self.failed += 1

    def _report(self, ask: Ask, answer: Answer) -> Answer:
        log = self._server.log.line(answer.headers.get("x-request-id", ""))
        faults = [*_faults(ask, answer), *self._log_faults(ask, answer, log)]
        self.failed += bool(faults)
        self._printer.exchange(ask, answer, log, faults)
        return answer

    def _log_in(self, email: str) -> str:
        answer = self.exchange(login(email))
        if answer.status != 200:
            raise SystemExit("Nobody can log in, so nothing else can be shown.")
        issued: str = json.loads(answer.body)["access_token"]
        return issued

    def _flood(self, owner: str) -> None:
        limits = ("ratelimit", "ratelimit-policy", "retry-after")
        path = "/tenants/north/clients"
        ask = Ask(f"too many requests within a minute ({PER_MINUTE})", "GET", path, 429, _bearer(owner), present=limits)
        for _ in range(2 * PER_MINUTE + 1):
            answer = self._server.send(ask)
            if answer.status == 429:
                break
        self._report(ask, answer)

    def _log_faults(self, ask: Ask, answer: Answer, log: str | None) -> Iterator[str]:
        if log is None:
            yield "no log line has this X-Request-ID"
            return
        if json.loads(log).get("status") != answer.status:
            yield "the log line has another status"
        private = [value.partition(" ")[2] for name, value in ask.headers.items() if name == "Authorization"]
        private += [PASSWORD, "@north.example", "@mail.example", "south"]
        if any(value in log for value in private):
            yield "the log line repeats something private"


def _faults(ask: Ask, answer: Answer) -> Iterator[str]:
    if answer.status != ask.expected:
        yield f"the status should be {ask.expected}"
    for name in ask.present:
        if name not in answer.headers:
            yield f"{name} is missing"
    for name in ask.absent:
        if name in answer.headers:
            yield f"{name} should not be there"


def main(example: Path, command: Callable[[int], list[str]]) -> int:
    """Show everything; 0 if all of it was answered as expected, else 1.

    The server is stopped afterwards. On a terminal, or with `--serve`, it goes on until Ctrl-C.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with serving(example, command) as server:
        shown = Demonstration(server)
        shown.run()
        print(f"\n{shown.count - shown.failed} of {shown.count} exchanges were answered as expected.")
        if "--serve" in sys.argv[1:] or sys.stdin.isatty():
            print(f"The portal goes on at http://127.0.0.1:{server.port} (log in as coach@north.example, {PASSWORD};")
            print("wait a minute, the flood spent this address's quota). Ctrl-C stops it.", flush=True)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    print("The server has been stopped.")
    return 1 if shown.failed else 0
