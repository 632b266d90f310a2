"""Hostile bodies against FastAPI and Flask, bare and shielded: what crashes a bare handler is a refusal behind the
shield, and what a handler answers behind it, it would have answered alone. The run ends with the table (J-01 to J-05,
B-04, P-1, P-3)."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import flask
import pytest
from doors import Answer, AsgiDoor, WsgiDoor
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from conftest import Portal, portal_behind
from portalshield import Settings, Shield
from portalshield.testing import environment

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
DEEP = 5000


class Note(BaseModel):
    """What /model takes."""

    text: str = ""
    amount: float = 0
    more: Any = None


def _fastapi() -> FastAPI:
    app = FastAPI()

    @app.post("/model")
    async def model(note: Note) -> Note:
        return note

    @app.post("/any")
    async def anything(request: Request) -> Any:
        return await request.json()

    @app.post("/form")
    async def form(request: Request) -> Any:
        async with request.form() as items:
            return [[name, str(value)] for name, value in items.multi_items()]

    return app


def _flask() -> flask.Flask:
    app = flask.Flask(__name__)
    app.logger.disabled = True

    @app.post("/any")
    def anything() -> Any:
        return flask.jsonify(flask.request.get_json())

    @app.post("/form")
    def form() -> Any:
        return flask.jsonify(list(flask.request.form.items(multi=True)))

    return app


def _door(kind: str, *, shielded: bool) -> AsgiDoor | WsgiDoor:
    app: Any = _fastapi() if kind == "fastapi" else _flask()
    if shielded:
        Shield(app, settings=Settings.from_env(environment(AUTH="none", RATE__PER_IP="1000000/minute")))
    return AsgiDoor(app) if kind == "fastapi" else WsgiDoor(app)


TARGETS = (("fastapi", "/model"), ("fastapi", "/any"), ("flask", "/any"))
GOOD: dict[str, bytes] = {
    "an object": b'{"text":"a","amount":1}',
    "numbers of all kinds": b'{"more":[0,-0,1.5,1e3,1E-400,18446744073709551615,123456789012345678901234567890]}',
    "escapes": b'{"text":"\\u00e9\\ud83d\\ude00\\u0000\\n\\"\\\\\\/"}',
    "blanks around": b' \t\r\n{"text" : "a"}\n',
    "brackets in a string": b'{"text":"' + b"[{" * 3000 + b'"}',
    "32 levels": b'{"more":' + b"[" * 31 + b"]" * 31 + b"}",
    "prototype names": b'{"more":{"__proto__":1,"constructor":2,"__class__":3}}',
}
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "blanks only": b" \n ",
    "NaN": b'{"amount":NaN}',
    "Infinity": b'{"amount":-Infinity}',
    "1e400": b'{"amount":1e400}',
    "lone surrogate": b'{"text":"\\ud800"}',
    "surrogates swapped": b'{"text":"\\udc00\\ud800"}',
    "surrogate in a name": b'{"more":{"\\udfff":1}}',
    "surrogate as bytes": b'{"text":"\xed\xa0\x80"}',
    "duplicate name": b'{"text":"a","text":"b"}',
    "duplicate, escaped": b'{"text":"a","\\u0074ext":"b"}',
    "duplicate, deep": b'{"more":[{"a":1,"a":2}]}',
    "5,000 arrays": b'{"more":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "5,000 objects": b'{"more":' + b'{"a":' * DEEP + b"1" + b"}" * (DEEP + 1),
    "5,000 opened": b"[" * DEEP,
    "byte order mark": b'\xef\xbb\xbf{"text":"a"}',
    "UTF-16": '{"text":"a"}'.encode("utf-16"),
    "UTF-16 without mark": '{"text":"a"}'.encode("utf-16-le"),
    "UTF-32": '{"text":"a"}'.encode("utf-32"),
    "Latin-1": b'{"text":"\xe9"}',
    "overlong": b'{"text":"\xc0\xaf"}',
    "beyond Unicode": b'{"text":"\xf4\x90\x80\x80"}',
    "4,301 digits": b'{"amount":' + b"1" * 4301 + b"}",
    "100,000 digits": b'{"more":' + b"9" * 100_000 + b"}",
    "trailing garbage": b'{"text":"a"}x',
    "two values": b'{"text":"a"}{"text":"b"}',
    "trailing comma": b'{"text":"a",}',
    "NUL behind": b'{"text":"a"}\0',
    "cut in a string": b'{"text":"a',
    "cut in an escape": b'{"text":"\\u00',
    "cut in a character": b'{"text":"\xc3',
    "cut behind a colon": b'{"text":',
    "single quotes": b"{'text':'a'}",
    "comment": b'{"text":"a"/*x*/}',
    "control in a string": b'{"text":"a\x01"}',
    "unknown escape": b'{"text":"\\x41"}',
    "leading zero": b'{"amount":01}',
    "plus": b'{"amount":+1}',
    "hexadecimal": b'{"amount":0x10}',
    "mismatched": b'{"more":[}]',
    "150,000 items": b'{"more":[' + b"1," * 150_000 + b"1]}",
    "20,000 names": b'{"more":{' + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}}",
    "zip bomb's beginning": b"\x1f\x8b\x08\x00" + bytes(20),
}

NO_BODY = "nothing"
"""Many clients name a type and send no body: what a handler makes of that is its own."""


@pytest.fixture(scope="module")
def doors() -> dict[tuple[str, bool], AsgiDoor | WsgiDoor]:
    """Both frameworks, bare and shielded."""
    kinds = ("fastapi", "flask")
    return {(kind, shielded): _door(kind, shielded=shielded) for kind in kinds for shielded in (False, True)}


Doors = dict[tuple[str, bool], "AsgiDoor | WsgiDoor"]


def _ask(doors: Doors, kind: str, shielded: bool, target: str, body: bytes, content_type: str = JSON) -> Answer:
    return doors[kind, shielded].request("POST", target, [("content-type", content_type)], body)


@pytest.mark.parametrize("name", GOOD)
def test_ordinary_bodies_pass_unchanged(doors: Doors, name: str) -> None:
    """The handler answers what it answers without a shield."""
    for kind, target in TARGETS:
        bare, shielded = (_ask(doors, kind, which, target, GOOD[name]) for which in (False, True))
        assert (bare.status, bare.body) == (shielded.status, shielded.body)


def test_hostile_bodies(doors: Doors, record_property: Any) -> None:
    """Each is refused behind the shield, by it or by the framework; never 500."""
    lines = [f"{'body':24}" + "".join(f"{kind + ' ' + target:>24}" for kind, target in TARGETS)]
    crashes = left = 0
    for name, body in HOSTILE.items():
        line = f"{name:24}"
        for kind, target in TARGETS:
            bare, shielded = (_ask(doors, kind, which, target, body) for which in (False, True))
            line += f"{bare.status:>15} -> {shielded.status:>5}"
            crashes += bare.status >= 500
            left += shielded.status >= 500
            assert 400 <= shielded.status < 500 or name == NO_BODY, name
            assert not any(text in shielded.body for text in (b"Traceback", b"Error", b"line 1")), name
        lines.append(line)
    lines.append(f"{crashes} crashes bare, {left} behind the shield (of no body at all)")
    record_property("table", "\n".join(lines))
    assert crashes > 0, "the table shows nothing"


# -- bombs ------------------------------------------------------------------------------------------------------------

MIB = 1_048_576
MULTIPART = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n'
NESTED = b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n'
BOMBS = [
    pytest.param(JSON, b"", b"[", id="arrays"),
    pytest.param(JSON, b"", b'{"a":', id="objects"),
    pytest.param(JSON, b"", b"1", id="digits"),
    pytest.param(JSON, b'{"', b"k", id="one name"),
    pytest.param(JSON, b'{"a":"', b"\\u0061", id="escapes"),
    pytest.param(JSON, b"[", b'{"a":1},', id="small objects"),
    pytest.param(JSON, b'"', b"[{", id="brackets in a string"),
    pytest.param(FORM, b"", b"a=b&", id="form fields"),
    pytest.param(FORM, b"", b"&", id="empty form fields"),
    pytest.param(MULTIPART, b"", PART, id="parts"),
    pytest.param(MULTIPART, b"", NESTED, id="nested parts"),
    pytest.param(MULTIPART, b"--x\r\n", b"a: b\r\n", id="part headers"),
    pytest.param(MULTIPART, b"--x\r\n", b"a", id="one part header"),
    pytest.param(MULTIPART, b"-", b"-", id="preamble"),
    pytest.param(MULTIPART, b"", b"x", id="preamble of text"),
    pytest.param(MULTIPART, b"", b"\r\n--x", id="delimiters"),
]


@pytest.fixture(scope="module")
def portals() -> list[Portal]:
    """With tenants, so that every body is judged."""
    return [portal_behind(door) for door in ("asgi", "wsgi")]


@pytest.mark.parametrize(("content_type", "opening", "unit"), BOMBS)
def test_bombs_within_the_size_limit_are_refused(
    portals: list[Portal], content_type: str, opening: bytes, unit: bytes
) -> None:
    """One MiB of it, which the size alone would allow: no 5xx, the handler never runs."""
    body = (opening + unit * (MIB // len(unit)))[:MIB]
    for portal in portals:
        portal.calls.clear()
        headers = [*portal.bearer(), ("content-type", content_type)]
        answer = portal.request("POST", "/search", headers, body)
        assert answer.status in (400, 413, 415)
        assert portal.calls == []


class Endless:
    """A body without an end; it counts what was read of it."""

    def __init__(self, opening: bytes, unit: bytes) -> None:
        self._opening = opening
        self._block = unit * (65_536 // len(unit))
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        """As a WSGI input."""
        block = self._opening + self._block
        self._opening = b""
        block = block if size < 0 else block[:size]
        self.given += len(block)
        return block

    readline = read

    async def receive(self) -> dict[str, Any]:
        """As ASGI's."""
        return {"type": "http.request", "body": self.read(), "more_body": True}


@pytest.mark.parametrize(("content_type", "opening", "unit"), BOMBS)
def test_endless_bombs_are_read_no_further_than_the_limit(
    portals: list[Portal], content_type: str, opening: bytes, unit: bytes
) -> None:
    """What is read ends within a block of the limit, and what is held is no more than that, a few times."""
    for portal in portals:
        stream = Endless(opening, unit)
        headers = [*portal.bearer(), ("content-type", content_type), ("transfer-encoding", "chunked")]
        tracemalloc.start()
        try:
            answer = _endless(portal, stream).request("POST", "/upload", headers, lint=False)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status in (400, 413, 415)
        assert stream.given <= MIB + 2 * 65_536
        assert peak < 8 * MIB


def _endless(portal: Portal, stream: Endless) -> AsgiDoor | WsgiDoor:
    if isinstance(portal.door, WsgiDoor):
        return WsgiDoor(portal.app, environ_extra={"wsgi.input": stream})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await portal.app(scope, stream.receive, send)

    return AsgiDoor(app)


# -- cutting ----------------------------------------------------------------------------------------------------------

BODIES = [*GOOD.values(), *(body for body in HOSTILE.values() if len(body) < 200), b'{"tenant_id":"south"}', b"a=b&c=d"]


@settings(max_examples=40)
@given(st.sampled_from(BODIES), st.sampled_from([JSON, FORM, MULTIPART]), st.lists(st.integers(0, 60), max_size=6))
def test_chunking_changes_no_verdict(portals: list[Portal], body: bytes, content_type: str, places: list[int]) -> None:
    """Through the door that sees chunks: the same status and slug as in one piece, and as through the other door."""
    cuts = sorted({min(place, len(body)) for place in places})
    chunks = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    found = []
    for portal, sent in ((portals[0], body), (portals[0], chunks), (portals[1], body)):
        answer = portal.request("POST", "/search", [*portal.bearer(), ("content-type", content_type)], sent)
        found.append((answer.status, None if answer.status == 200 else answer.slug))
        assert answer.status != 200 or json.loads(answer.body)["body"] == body.decode("utf-8", "replace")
    assert len(set(found)) == 1
