"""The shipped JSON Schema describes the lines that are really written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import fastapi
import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from test_lines import Sink, lines_to, record

from portalshield import Settings, Shield, protect, public
from portalshield.telemetry import setup
from portalshield.telemetry.lines import SCHEMA
from portalshield.telemetry.schema import LINE
from portalshield.testing.tokens import environment, mint_token

_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "null": type(None), "array": list}


def faults(schema: dict[str, Any], value: Any, at: str = "") -> Iterator[str]:
    """What of the value the schema does not allow: the keywords this schema uses, nothing more."""
    if "anyOf" in schema:
        if all(list(faults(option, value)) for option in schema["anyOf"]):
            yield f"{at}: {value!r} is none of its kinds"
        return
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        yield f"{at}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    kind = schema.get("type")
    if kind == "object":
        yield from _object(schema, value)
    elif kind is not None and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        yield f"{at}: {value!r} is no {kind}"
    elif kind == "array":
        for item in value:
            yield from faults(schema["items"], item, at)
    elif kind == "string" and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: {value!r} does not match"
    elif kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value!r} is out of range"


def _object(schema: dict[str, Any], value: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name} is missing" for name in schema["required"] if name not in value)
    yield from (f"{name} is not known" for name in value if name not in schema["properties"])
    for name, member in value.items():
        yield from faults(schema["properties"].get(name, {}), member, name)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="ordinary"),
        pytest.param({"tenant": None, "subject": None, "auth": None, "trace_id": None}, id="anonymous"),
        pytest.param({"status": 401, "problem": "invalid-token", "layer": "auth", "why": "expired"}, id="refused"),
        pytest.param({"would_refuse": [("cors", "origin-not-allowed")]}, id="report mode"),
        pytest.param({"status": 500, "error": "RuntimeError", "over_budget": True}, id="crashed and slow"),
        pytest.param({"replayed": True}, id="a copy"),
        pytest.param({"client_ip": "2001:db8:85a3::8a2e:370:7334", "method": "BREW"}, id="version 6, unknown method"),
        pytest.param({"client_ip": None, "bytes_in": None, "bytes_out": None}, id="nothing known"),
    ],
)
def test_written_line_satisfies_the_schema(values: dict[str, Any]) -> None:
    """Every kind of line, member by member."""
    sink = Sink()
    lines_to(sink).write(record(**values))
    assert list(faults(LINE, json.loads(sink.lines[0]))) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"subject": "alice@example.com"}, id="raw subject"),
        pytest.param({"client_ip": "203.0.113.77"}, id="whole address"),
        pytest.param({"path": "/orgs/1"}, id="another member"),
        pytest.param({"method": "BREW"}, id="open method"),
        pytest.param({"decision": "maybe"}, id="another decision"),
        pytest.param({"schema": SCHEMA + 1}, id="another version"),
        pytest.param({"status": "200"}, id="status as text"),
        pytest.param({"error": "ValueError: secret"}, id="text of an exception"),
    ],
)
def test_schema_refuses_what_may_not_stand_in_a_line(change: dict[str, Any]) -> None:
    """The schema is no rubber stamp."""
    sink = Sink()
    lines_to(sink).write(record())
    assert list(faults(LINE, {**json.loads(sink.lines[0]), **change}))


def _fastapi_app() -> Any:
    app = fastapi.FastAPI()

    @app.get("/open/{name}")
    @public
    async def opened(name: str) -> dict[str, str]:
        return {}

    @app.get("/mine/{name}")
    @protect(tenant=False)
    async def mine(name: str) -> dict[str, str]:
        raise RuntimeError(name)

    return app


def _flask_app() -> Any:
    app = flask.Flask("app")

    @app.get("/open/<name>")
    @public
    def opened(name: str) -> dict[str, str]:
        return {}

    @app.get("/mine/<name>")
    @protect(tenant=False)
    def mine(name: str) -> dict[str, str]:
        raise RuntimeError(name)

    return app


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_lines_through_the_doors_satisfy_the_schema(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered, refused, crashed, unmatched and odd requests: one line each, of this form, without the path."""
    sink = Sink()
    monkeypatch.setattr(setup, "LineWriter", lambda **options: sink)
    app = _fastapi_app() if kind == "asgi" else _flask_app()
    settings = Settings.from_env(environment(LOG__FORMAT="json"))
    Shield(app, settings=settings)
    door = AsgiDoor(app) if kind == "asgi" else WsgiDoor(app)
    token = [("authorization", "Bearer " + mint_token(settings, tenant="a"))]
    traced = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    asked = [
        ("GET", "/open/secretname?q=1", traced), ("GET", "/mine/secretname", []), ("GET", "/mine/secretname", token),
        ("GET", "/secretname/nowhere", []), ("GET", "/secretname/nowhere", token), ("BREW", "/open/secretname", []),
        ("GET", "/open/../secretname", []), ("HEAD", "/open/secretname", []), ("OPTIONS", "/open/secretname", []),
    ]  # fmt: skip
    for method, path, headers in asked:
        try:
            door.request(method, path, headers, lint=False)
        except RuntimeError:
            continue
    lines = [json.loads(line) for line in sink.lines if b'"http_request"' in line]
    assert len(lines) == len(asked)
    assert {fault for line in lines for fault in faults(LINE, line)} == set()
    assert b"secretname" not in b"".join(sink.lines)
