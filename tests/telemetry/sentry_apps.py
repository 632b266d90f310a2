"""Shielded applications under Sentry's own framework integrations; prints what arrived, scenario by scenario.

Run as a program: the integrations patch frameworks for good. `{scenario: result}` as one JSON document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import fastapi
import flask
import sentry_sdk
from doors import AsgiDoor, WsgiDoor
from fastapi.responses import StreamingResponse
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.transport import Transport
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from portalshield import Policy, Settings, Shield
from portalshield.asgi import ShieldMiddleware as AsgiShield
from portalshield.testing.tokens import environment, mint_token
from portalshield.wsgi import ShieldMiddleware as WsgiShield

DSN = "https://public@sentry.invalid/1"
OPEN = (Policy("* /*", tenant=False),)


class Recorder(Transport):
    """Keeps envelopes."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep it."""
        self.envelopes.append(envelope)

    def items(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of one kind."""
        found = [item for envelope in self.envelopes for item in envelope.items if item.type == kind]
        return [json.loads(item.get_bytes()) for item in found]


def fastapi_app() -> Any:
    """Routes that fail in several ways."""
    app = fastapi.FastAPI()

    @app.get("/orgs/{name}/boom")
    async def boom(name: str) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("boom")

    @app.get("/threads/{name}")
    def threads(name: str) -> None:
        raise RuntimeError("in a thread")

    @app.get("/streams/{name}")
    async def streams(name: str) -> StreamingResponse:
        async def blocks() -> Any:
            yield b"first"
            raise RuntimeError("half-way")

        return StreamingResponse(blocks())

    @app.get("/answers/{name}")
    async def answers(name: str) -> PlainTextResponse:
        return PlainTextResponse("broken", 503)

    @app.post("/reads/{name}")
    async def reads(name: str, request: Request) -> dict[str, int]:
        message = await asyncio.wait_for(request.receive(), 5)
        return {"size": len(message["body"])}

    return app


def flask_app() -> Any:
    """The same, as far as Flask has it."""
    app = flask.Flask("app")

    @app.get("/orgs/<name>/boom")
    def boom(name: str) -> str:
        raise RuntimeError("boom")

    @app.get("/answers/<name>")
    def answers(name: str) -> Any:
        flask.abort(500)

    return app


@contextlib.contextmanager
def client(**options: Any) -> Iterator[Recorder]:
    """A recording client, closed afterwards."""
    recorder = Recorder()
    sentry_sdk.get_global_scope().clear()
    sentry_sdk.get_isolation_scope().clear()
    sentry_sdk.init(DSN, transport=recorder, traces_sample_rate=1.0, **options)
    try:
        yield recorder
    finally:
        sentry_sdk.get_client().close(timeout=1)
        sentry_sdk.get_global_scope().set_client(None)


SETTINGS = Settings.from_env(environment(LOG__FORMAT="json"))
HEADERS = [("authorization", "Bearer " + mint_token(SETTINGS, tenant="a"))]


def wired(kind: str, wiring: str) -> Any:
    """The application behind a shield, put on in one of three ways; and its door."""
    app = fastapi_app() if kind == "asgi" else flask_app()
    if wiring == "shield":
        Shield(app, settings=SETTINGS, policies=OPEN)
    elif wiring == "add_middleware":
        app.add_middleware(AsgiShield, shield=Shield(settings=SETTINGS, policies=OPEN))
    elif kind == "asgi":
        app = AsgiShield(app, Shield(settings=SETTINGS, policies=OPEN))
    else:
        app.wsgi_app = WsgiShield(app.wsgi_app, Shield(settings=SETTINGS, policies=OPEN))
    return AsgiDoor(app) if kind == "asgi" else WsgiDoor(app)


def asked(door: Any, method: str, path: str, body: bytes = b"") -> Any:
    """One request; an application that fails passes its exception on under ASGI."""
    headers = [*HEADERS, *([("content-type", "application/json")] if body else [])]
    try:
        answer = door.request(method, path, headers, body)
    except Exception as error:
        return {"raised": type(error).__name__}
    return {"status": answer.status, "request_id": answer.get("x-request-id")}


def seen(recorder: Recorder) -> dict[str, Any]:
    """What a test looks at."""
    return {
        "events": [
            {
                "types": [value["type"] for value in (event.get("exception") or {}).get("values", ())],
                "tags": event.get("tags"),
                "transaction": event.get("transaction"),
                "user": event.get("user"),
                "fingerprint": event.get("fingerprint"),
            }
            for event in recorder.items("event")
        ],
        "transactions": [
            {"name": event.get("transaction"), "tags": event.get("tags")} for event in recorder.items("transaction")
        ],
    }


def one(kind: str, wiring: str, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    """One request through one wiring."""
    with client() as recorder:
        answer = asked(wired(kind, wiring), method, path, body)
        sentry_sdk.get_client().flush(timeout=1)
        return {"answer": answer, **seen(recorder)}


def crowd() -> dict[str, Any]:
    """A hundred requests at once, each with a name of its own."""
    with client() as recorder:
        door = wired("asgi", "shield")

        async def all_of_them() -> list[str | None]:
            async def single(number: int) -> str | None:
                try:
                    answer = await door.arequest("GET", f"/orgs/n{number}/boom", HEADERS)
                except RuntimeError:
                    return None
                return str(answer.get("x-request-id"))

            return await asyncio.gather(*(single(number) for number in range(100)))

        ids = asyncio.run(all_of_them())
        sentry_sdk.get_client().flush(timeout=1)
        return {"ids": ids, **seen(recorder)}


def explicit() -> dict[str, Any]:
    """Sentry's middleware put on by hand beside its integration, and a mounted application."""
    with client() as recorder:
        app = fastapi_app()
        app.mount("/sub", fastapi_app())
        Shield(app, settings=SETTINGS, policies=OPEN)
        door = AsgiDoor(SentryAsgiMiddleware(app))
        answers = [asked(door, "GET", path) for path in ("/orgs/a/boom", "/sub/orgs/a/boom")]
        sentry_sdk.get_client().flush(timeout=1)
        return {"answers": answers, **seen(recorder)}


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        f"{kind} {wiring} exception": lambda k=kind, w=wiring: one(k, w, "GET", "/orgs/a/boom")  # type: ignore[misc]
        for kind, wiring in (
            ("asgi", "shield"), ("asgi", "wrapped"), ("asgi", "add_middleware"), ("wsgi", "shield"),
            ("wsgi", "wrapped"),
        )
    },
    "thread": lambda: one("asgi", "shield", "GET", "/threads/a"),
    "stream": lambda: one("asgi", "shield", "GET", "/streams/a"),
    "asgi answered": lambda: one("asgi", "shield", "GET", "/answers/a"),
    "wsgi answered": lambda: one("wsgi", "shield", "GET", "/answers/a"),
    "reads receive": lambda: one("asgi", "shield", "POST", "/reads/a", b'{"a": 1}'),
    "asgi unmatched": lambda: one("asgi", "shield", "GET", "/nowhere/secret-path"),
    "wsgi unmatched": lambda: one("wsgi", "shield", "GET", "/nowhere/secret-path"),
    "crowd": crowd,
    "explicit": explicit,
}  # fmt: skip


if __name__ == "__main__":
    real = os.dup(1)
    os.dup2(2, 1)
    report = {name: scenario() for name, scenario in SCENARIOS.items()}
    os.write(real, json.dumps(report).encode())
    sys.stdout.flush()
