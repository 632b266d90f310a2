"""A real browser for tests: headless Chromium, pages for it on loopback, and what those pages report.

Pages run one after the other in one process: each reports by a request that needs no permission, then goes on to the
next. Names resolve to this machine only; nothing outside it is reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--ignore-certificate-errors", "--disable-extensions", "--no-default-browser-check"),
)
STOP_S = 5.0


def find() -> str | None:
    """The browser's program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name)) is not None), None)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of nobody for any name, and its key: the browser is told not to mind."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal.test")])
    now = datetime.now(UTC)  # noqa: TID251 (a certificate is made for today)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    public, private = folder / "browser.pem", folder / "browser.key"
    public.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private


class Pages:
    """An https server with the test's pages, for whatever name it is asked by; collects what they report."""

    def __init__(self, folder: Path) -> None:
        self.documents: dict[str, tuple[str, str]] = {}
        """Path -> media type and text."""
        self.reports: dict[str, Any] = {}
        self._arrived = threading.Condition()
        self.certificate = certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def wait_for(self, names: set[str], timeout_s: float) -> set[str]:
        """The names that have not reported when the time is up; empty as soon as all have."""
        with self._arrived:
            self._arrived.wait_for(lambda: names <= set(self.reports), timeout_s)
        return names - set(self.reports)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_S)

    def _handler(pages: Pages) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (`self` is the handler's)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_GET(self) -> None:
                kind, text = pages.documents.get(urlsplit(self.path).path, ("text/plain", ""))
                self._answer(kind, text.encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                (name,) = parse_qs(urlsplit(self.path).query)["page"]
                with pages._arrived:
                    pages.reports[name] = json.loads(body)
                    pages._arrived.notify_all()
                self._answer("text/plain", b"")

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", f"{kind}; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: tests print what matters."""

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle()

        return Handler


@contextlib.contextmanager
def browsing(program: str, folder: Path, url: str, resolve: tuple[str, ...] = ()) -> Iterator[None]:
    """The browser at this address, its profile in `folder`; it and what it started end with the block.

    `resolve` are further rules of `--host-resolver-rules`; every other name is this machine.
    """
    rules = ", ".join((*resolve, "MAP * 127.0.0.1"))
    command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--host-resolver-rules={rules}", url]
    # Its socket is in TMPDIR, and the path of one may have 107 bytes only: not in the profile's folder.
    with (folder / "browser.log").open("wb") as log, tempfile.TemporaryDirectory(prefix="browser-") as short:
        variables = {**os.environ, "HOME": str(folder), "TMPDIR": short}
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=variables, start_new_session=True
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                # It leads a group of its own: this ends it and what it started, nothing else.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(STOP_S)
