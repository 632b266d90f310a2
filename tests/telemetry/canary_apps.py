"""A FastAPI and a Flask application that do everything wrong at once, and what Sentry and the log then send.

Run as a program (Sentry's framework integrations patch for good): prints one JSON document,
`{framework: {configuration: {channel: [names of canaries that left]}}}`. Configurations: off (no shield), default,
strict; unlinked (a shield with SENTRY=false beside a default client: what its own frames hold). Canaries are `pattern`
(a shape of its own), `structural` (an opaque text where structure tells what it is) or `message` (an opaque text in
prose).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import fastapi
import flask
import sentry_sdk
import structlog
from doors import AsgiDoor, WsgiDoor
from sentry_sdk import logger as sentry_logs
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from portalshield import Settings, Shield, protect
from portalshield.telemetry import logs
from portalshield.telemetry.writer import _writers
from portalshield.testing.tokens import environment, mint_token

Kind = Literal["pattern", "structural", "message"]
DSN = "https://public@sentry.invalid/1"
CHANNELS = ("errors", "transactions", "spans", "logs", "metrics", "breadcrumbs", "frames", "other", "stdout")
OWN_FRAMES = "our frames"


@dataclass(frozen=True)
class Canary:
    """A planted value."""

    name: str
    kind: Kind
    value: str


def _opaque(name: str, kind: Kind = "structural") -> Canary:
    return Canary(name, kind, "Zq7" + name.replace(" ", "").replace("-", "") + "x9Kw")


OPAQUE = [
    _opaque(name)
    for name in (
        "query value", "path segment", "header", "cookie", "api key header", "body field", "body nested", "body list",
        "form password", "local str", "local dict", "local list", "local object", "extra", "extra nested", "context",
        "tag", "user id", "user name", "breadcrumb data", "breadcrumb query", "breadcrumb http", "span name",
        "span data", "span sql", "transaction name", "transaction data", "log extra", "log extra nested",
        "log attribute", "metric attribute", "attachment", "server name", "fingerprint extra", "structlog password",
    )
]  # fmt: skip
PROSE = [
    _opaque(name, "message")
    for name in ("exception text", "cause text", "note", "captured message", "breadcrumb message", "log message")
]
PATTERNS = [
    Canary("e-mail in exception", "pattern", "zq7canary@example.com"),
    Canary("card in note", "pattern", "4242424242424242"),
    Canary("phone in breadcrumb", "pattern", "+14155552671"),
    Canary("stripe key in log", "pattern", "sk_live_" + "Zq7canary3AbCdEfGh12"),
    Canary("jwt in message", "pattern", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5"),
    Canary("ssn in cause", "pattern", "078-05-1120"),
    Canary("iban in sentry log", "pattern", "DE89370400440532013000"),
    Canary("password pair in exception", "pattern", "Zq7pairhunter2"),
    Canary("url password in log", "pattern", "Zq7urlsecret"),
]
CANARIES = [*OPAQUE, *PROSE, *PATTERNS]
BY_NAME = {canary.name: canary.value for canary in CANARIES}


class Recorder(Transport):
    """Keeps envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep it."""
        self.envelopes.append(envelope)


class Customer:
    """An object whose repr talks."""

    def __repr__(self) -> str:
        return f"Customer({BY_NAME['local object']})"


def misbehave(token: str) -> None:
    """Everything an application may do with values, then an exception."""
    v = BY_NAME
    local_text, local_dict, local_list = v["local str"], {"k": v["local dict"]}, [v["local list"]]
    customer = Customer()
    scope = sentry_sdk.get_isolation_scope()
    scope.set_extra("order", {"note": v["extra"], "deep": [{"password": v["extra nested"]}]})
    scope.set_context("order", {"note": v["context"]})
    scope.set_tag("plan", v["tag"])
    scope.set_user({"id": v["user id"], "username": v["user name"]})
    scope.add_attachment(bytes=v["attachment"].encode(), filename="a.txt")
    sentry_sdk.add_breadcrumb(category="auth", message=f"login {v['breadcrumb message']} {v['phone in breadcrumb']}")
    sentry_sdk.add_breadcrumb(category="x", data={"field": v["breadcrumb data"]})
    sentry_sdk.add_breadcrumb(category="query", message=f"SELECT '{v['breadcrumb query']}'")
    sentry_sdk.add_breadcrumb(category="http", data={"url": f"https://x.example/?q={v['breadcrumb http']}"})
    with sentry_sdk.start_span(op="task", name=v["span name"]) as span:
        span.set_data("field", v["span data"])
    with sentry_sdk.start_span(op="db", name=f"SELECT '{v['span sql']}'"):
        pass
    current = (
        None
        if sentry_sdk.get_client().options.get("trace_lifecycle") == "stream"
        else sentry_sdk.get_current_scope().transaction
    )
    if current is not None:
        current.set_data("body", v["transaction data"])
    sentry_sdk.metrics.count("orders", 1, attributes={"customer": v["metric attribute"]})
    sentry_logs.info(f"paid to {v['iban in sentry log']}", attributes={"order": v["log attribute"]})
    log = logging.getLogger("canary.app")
    extra = {"detail": v["log extra"], "body": {"deep": v["log extra nested"]}}
    log.error("failed %s %s", v["log message"], v["stripe key in log"], extra=extra)
    log.error("database postgresql://app:%s@db/x is gone", v["url password in log"])
    structlog.get_logger().error("failed", password=v["structlog password"], mail=v["e-mail in exception"])
    sentry_sdk.capture_message(f"message {v['captured message']} {v['jwt in message']}")
    assert local_text, (local_dict, local_list, customer)
    assert token
    try:
        raise ValueError(f"cause {v['cause text']} {v['ssn in cause']}")
    except ValueError as cause:
        error = RuntimeError(
            f"broken {v['exception text']} {v['e-mail in exception']} password={v['password pair in exception']}"
        )
        error.add_note(f"note {v['note']} {v['card in note']}")
        raise error from cause


def fastapi_app() -> Any:
    """One route."""
    app = fastapi.FastAPI()

    @app.post("/shops/{shop}/orders")
    @protect(tenant=False)
    async def order(shop: str, request: fastapi.Request) -> dict[str, str]:
        await request.json()
        misbehave(request.headers.get("authorization", ""))
        return {}

    return app


def flask_app() -> Any:
    """The same."""
    app = flask.Flask("canary")

    @app.post("/shops/<shop>/orders")
    @protect(tenant=False)
    def order(shop: str) -> dict[str, str]:
        flask.request.get_json()
        misbehave(flask.request.headers.get("authorization", ""))
        return {}

    return app


FRAMEWORKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "fastapi": (fastapi_app, AsgiDoor),
    "flask": (flask_app, WsgiDoor),
}


def run(framework: str, configuration: str, stream: bool) -> dict[str, list[str]]:
    """One request, one request to nowhere; what left, by channel."""
    recorder = Recorder()
    options: dict[str, Any] = {"trace_lifecycle": "stream"} if stream else {}
    sentry_sdk.get_global_scope().clear()
    sentry_sdk.get_isolation_scope().clear()
    sentry_sdk.init(
        DSN, transport=recorder, traces_sample_rate=1.0, enable_logs=True, server_name=BY_NAME["server name"],
        send_default_pii=configuration == "off", **options,
    )  # fmt: skip
    make, door_of = FRAMEWORKS[framework]
    app = make()
    mode = "strict" if configuration == "strict" else "default"
    variables = environment(LOG__REDACT_MODE=mode, LOG__FORMAT="json", SENTRY=str(configuration != "unlinked"))
    settings = Settings.from_env(variables)
    token = mint_token(settings, tenant="a", canary=BY_NAME["fingerprint extra"])
    if configuration != "off":
        Shield(app, settings=settings)
    door = door_of(app)
    if framework == "flask":
        app.config["PROPAGATE_EXCEPTIONS"] = False
    headers = [
        ("content-type", "application/json"),
        ("authorization", f"Bearer {token}"),
        ("cookie", f"session={BY_NAME['cookie']}"),
        ("x-custom", BY_NAME["header"]),
        ("x-api-key", BY_NAME["api key header"]),
    ]
    body = {
        "field": BY_NAME["body field"],
        "deep": {"password": BY_NAME["body nested"], "list": [BY_NAME["body list"]]},
        "password": BY_NAME["form password"],
    }
    target = f"/shops/{BY_NAME['path segment']}/orders?q={BY_NAME['query value']}"
    for path in (target, f"/nowhere/{BY_NAME['transaction name']}"):
        with contextlib.suppress(Exception):  # an unprotected application passes its own on
            door.request("POST", path, headers, json.dumps(body).encode())
    client = sentry_sdk.get_client()
    client.flush(timeout=2)
    found = by_channel(recorder, token)
    client.close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)
    return found


def by_channel(recorder: Recorder, token: str) -> dict[str, list[str]]:
    """Names of the canaries in each kind of item."""
    texts: dict[str, list[str]] = {channel: [] for channel in (*CHANNELS, OWN_FRAMES)}
    for envelope in recorder.envelopes:
        for item in envelope.items:
            data = item.get_bytes().decode("utf-8", "replace")
            if item.type == "event":
                _event(json.loads(data), texts)
            else:
                kinds = {"transaction": "transactions", "span": "spans", "log": "logs", "trace_metric": "metrics"}
                texts[kinds.get(item.type, "other")].append(data)
    planted = {**BY_NAME, "the token itself": token.rpartition(".")[2]}
    return {
        channel: sorted(name for name, value in planted.items() if any(value in text for text in found))
        for channel, found in texts.items()
    }


def _event(event: dict[str, Any], texts: dict[str, list[str]]) -> None:
    for value in (event.get("exception") or {}).get("values") or ():
        for frame in (value.get("stacktrace") or {}).get("frames") or ():
            ours = str(frame.get("module")).startswith("portalshield.")
            texts[OWN_FRAMES if ours else "frames"].append(json.dumps(frame))
        value.pop("stacktrace", None)
    texts["breadcrumbs"].append(json.dumps(event.pop("breadcrumbs", None)))
    texts["errors"].append(json.dumps(event))


def main() -> None:
    """All combinations; what the process prints is a channel too."""
    report: dict[str, dict[str, dict[str, list[str]]]] = {}
    real = os.dup(1)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        for framework in FRAMEWORKS:
            for configuration in ("off", "default", "strict", "unlinked"):
                report.setdefault(framework, {})[configuration] = _combined(framework, configuration, printed)
    os.write(real, json.dumps(report).encode())


def _combined(framework: str, configuration: str, printed: BinaryIO) -> dict[str, list[str]]:
    logs.uninstall()
    structlog.reset_defaults()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(detail)s", defaults={"detail": ""}))
    logging.getLogger().handlers[:] = [handler]
    merged: dict[str, set[str]] = {}
    begun = printed.seek(0, os.SEEK_END)
    for stream in (False, True):
        for channel, names in run(framework, configuration, stream).items():
            merged.setdefault(channel, set()).update(names)
    sys.stdout.flush()
    for writer in list(_writers):
        writer.flush()
    printed.seek(begun)
    text = printed.read().decode("utf-8", "replace")
    assert configuration == "off" or '"event":"http_request"' in text
    merged["stdout"] = {name for name, value in BY_NAME.items() if value in text}
    return {channel: sorted(names) for channel, names in merged.items()}


if __name__ == "__main__":
    sys.argv[:] = [sys.argv[0], f"--secret={BY_NAME['extra']}"]
    main()
    logs.uninstall()
