"""Multipart forms: ids in fields are judged before the handler runs, files stream, and the handler gets exact bytes."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise
from typing import Any

import flask
import pytest
from doors import Answer, AsgiDoor, WsgiDoor
from fastapi import FastAPI, Request
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from portalshield import Principal, Settings, Shield, public
from portalshield.context import CURRENT
from portalshield.testing.tokens import environment, mint_token

BOUNDARY = "b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
CLOSE = b"--b0undary--\r\n"
CONTENT = bytes(range(256)) * 8
"""Of a file: every byte, line ends among them."""


def part(header: str, value: bytes = b"v") -> bytes:
    """One part; `header` is what follows `form-data; `."""
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + value + b"\r\n"


def field(name: str, value: bytes = b"v") -> bytes:
    return part(f'name="{name}"', value)


def file(name: str = "photo", content: bytes = CONTENT) -> bytes:
    return part(f'name="{name}"; filename="a.bin"', content)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + CLOSE


OWN, FOREIGN = field("tenant_id", b"north"), field("tenant_id", b"south")
FILE, NOTE = file(), field("note", b"\xc3\xa4")


# -- an application that takes forms -----------------------------------------------------------------------------------


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def fastapi_forms(app: Any, calls: list[str], exchanges: list[Any]) -> None:
    """/form parses as the framework does, /raw and /unread do not, /open-form parses on a public route."""

    async def parsed(request: Request) -> dict[str, Any]:
        async with request.form() as items:
            every = items.multi_items()
            fields = [[name, value] for name, value in every if isinstance(value, str)]
            files = [[name, digest(await value.read())] for name, value in every if not isinstance(value, str)]
        calls.append("form")
        return {"fields": fields, "files": files}

    @app.post("/form")
    async def take(request: Request) -> dict[str, Any]:
        return await parsed(request)

    @app.post("/open-form")
    @public
    async def take_any(request: Request) -> dict[str, Any]:
        return await parsed(request)

    @app.post("/raw")
    async def raw(request: Request) -> dict[str, Any]:
        seen, size = hashlib.sha256(), 0
        async for chunk in request.stream():
            seen.update(chunk)
            size += len(chunk)
        calls.append("raw")
        exchanges.append(CURRENT.get())
        return {"digest": seen.hexdigest(), "size": size}

    @app.post("/swallow")
    async def swallow(request: Request) -> str:
        with suppress(Exception):
            await request.body()
            return "whole"
        calls.append("swallowed")
        return "done anyway"

    @app.post("/unread")
    async def unread() -> str:
        calls.append("unread")
        return "unread"


def flask_forms(app: Any, calls: list[str], exchanges: list[Any]) -> None:
    """The same on Flask."""
    request = flask.request

    def parsed() -> dict[str, Any]:
        fields = [[name, value] for name, value in request.form.items(multi=True)]
        files = [[name, digest(stored.read())] for name, stored in request.files.items(multi=True)]
        calls.append("form")
        return {"fields": fields, "files": files}

    app.add_url_rule("/form", "take", parsed, methods=["POST"])
    app.add_url_rule("/open-form", "take_any", public(lambda: parsed()), methods=["POST"])

    @app.post("/raw")
    def raw() -> dict[str, Any]:
        seen, size = hashlib.sha256(), 0
        while chunk := request.stream.read(65536):
            seen.update(chunk)
            size += len(chunk)
        calls.append("raw")
        exchanges.append(CURRENT.get())
        return {"digest": seen.hexdigest(), "size": size}

    @app.post("/input")
    def read_input() -> str:
        return digest(READ_BY[-1](request.environ["wsgi.input"]))

    @app.post("/swallow")
    def swallow() -> str:
        with suppress(Exception):
            request.stream.read()
            return "whole"
        calls.append("swallowed")
        return "done anyway"

    @app.post("/unread")
    def unread() -> str:
        calls.append("unread")
        return "unread"


def door_of(kind: str, calls: list[str], exchanges: list[Any]) -> AsgiDoor | WsgiDoor:
    """An application with these routes, no shield around it."""
    app: Any = FastAPI() if kind == "asgi" else Flask(__name__)
    (fastapi_forms if kind == "asgi" else flask_forms)(app, calls, exchanges)
    return AsgiDoor(app) if kind == "asgi" else WsgiDoor(app)


class Forms:
    """The form routes behind a shield and one door; `calls` are those of handlers that got all of a body, `exchanges`
    theirs."""

    def __init__(self, kind: str, env: dict[str, str] | None = None, **more: Any) -> None:
        self.calls: list[str] = []
        self.exchanges: list[Any] = []
        self.door = door_of(kind, self.calls, self.exchanges)
        self.settings = Settings.from_env(environment(RATE__PER_IP="1000000/minute", **(env or {})))
        Shield(self.door.app, settings=self.settings, **more)

    def headers(self, content_type: str = CONTENT_TYPE) -> list[tuple[str, str]]:
        """Those of a form from a user of the tenant `north`."""
        fields = [("content-type", content_type)]
        if self.settings.auth.secret is not None:
            fields.append(("authorization", f"Bearer {mint_token(self.settings, tenant='north')}"))
        return fields

    def post(
        self,
        body: bytes | list[bytes],
        target: str = "/form",
        content_type: str = CONTENT_TYPE,
        more: list[tuple[str, str]] | None = None,
        **how: Any,
    ) -> Answer:
        """Send a form as a user of the tenant `north`."""
        return self.door.request("POST", target, [*self.headers(content_type), *(more or [])], body, **how)


MakeForms = Callable[..., Forms]


@pytest.fixture(params=["asgi", "wsgi"])
def make_forms(request: pytest.FixtureRequest) -> MakeForms:
    """Makes them behind the parametrised door; `env` are names without prefix, keywords those of `Shield`."""
    return partial(Forms, request.param)


shared = cache(Forms)


@pytest.fixture(params=["asgi", "wsgi"])
def forms(request: pytest.FixtureRequest) -> Forms:
    """With the variables of a test run, compiled once for all tests."""
    found = shared(request.param)
    found.calls.clear()
    found.exchanges.clear()
    return found


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


CUTS = [pytest.param(1 << 20, id="whole"), pytest.param(1, id="byte by byte")]


# -- tenants -----------------------------------------------------------------------------------------------------------

FOREIGN_FORMS = [
    pytest.param(form(FOREIGN), id="no file"),
    pytest.param(form(FOREIGN, FILE), id="before the file"),
    pytest.param(form(NOTE, OWN, FOREIGN, FILE), id="last of two"),
    pytest.param(form(FOREIGN, OWN, FILE), id="first of two"),
    pytest.param(form(field("tenant_id[]", b"south"), FILE), id="brackets"),
    pytest.param(form(field("filter[tenant_id]", b"south")), id="nested brackets"),
    pytest.param(form(field("filter.tenant_id", b"south")), id="dotted"),
    pytest.param(form(field("orgId", b"south")), id="other spelling"),
    pytest.param(form(part("name=tenant_id", b"south")), id="unquoted name"),
    pytest.param(form(part('NAME="tenant_id"', b"south")), id="upper-case parameter"),
    pytest.param(form(field("tenant_id", b"")), id="empty"),
    pytest.param(form(field("tenant_id", b"north ")), id="blank behind"),
    pytest.param(form(field("tenant_id", b"north\x00")), id="NUL behind"),
    pytest.param(form(field("tenant_id", b"north\r\nsouth")), id="two lines"),
]
OWN_FORMS = [
    pytest.param(form(), id="empty form"),
    pytest.param(form(NOTE), id="no tenant"),
    pytest.param(form(OWN), id="no file"),
    pytest.param(form(FILE), id="file only"),
    pytest.param(form(OWN, FILE), id="before the file"),
    pytest.param(form(OWN, field("tenant_id[]", b"north"), NOTE, FILE, NOTE, file("other")), id="all of it"),
    pytest.param(form(file("photo", b"")), id="empty file"),
    pytest.param(form(file("photo", form(FOREIGN)[2:]), NOTE), id="a file that contains a field"),
    pytest.param(b"\r\n" + form(OWN, FILE) + b"epilogue", id="preamble line end and epilogue"),
]
LATE_FORMS = [
    pytest.param(form(FILE, FOREIGN), id="foreign"),
    pytest.param(form(FILE, OWN), id="own"),
    pytest.param(form(OWN, FILE, field("filter[orgId]", b"south"), NOTE), id="another spelling"),
    pytest.param(form(file("photo", b""), NOTE, file("b"), FOREIGN), id="behind the second file"),
]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("target", ["/form", "/unread"])
@pytest.mark.parametrize("body", FOREIGN_FORMS)
def test_user_of_a_cannot_reach_b_by_a_field(forms: Forms, body: bytes, target: str, size: int) -> None:
    """A foreign tenant in a field is 404 before the handler runs, whatever the handler reads."""
    answer = forms.post(cut(body, size), target)
    assert (answer.status, answer.slug, forms.calls) == (404, "not-found", [])


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("body", OWN_FORMS)
def test_own_forms_arrive_byte_for_byte(forms: Forms, body: bytes, size: int) -> None:
    """The own tenant's forms pass: the same bytes to who reads bytes, every field and file to who parses."""
    raw = forms.post(cut(body, size), "/raw")
    assert (raw.status, raw.json) == (200, {"digest": digest(body), "size": len(body)})
    parsed = forms.post(cut(body, size))
    assert (parsed.status, len(parsed.json["files"])) == (200, body.count(b"; filename="))
    assert forms.calls == ["raw", "form"]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("target", ["/form", "/raw"])
@pytest.mark.parametrize("body", LATE_FORMS)
def test_a_tenant_behind_a_file_is_refused(forms: Forms, body: bytes, target: str, size: int) -> None:
    """Where the handler may run already, a name that matters is 400 whatever its value; nobody gets the form."""
    answer = forms.post(cut(body, size), target)
    assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", [])


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("lost", [4, 6, 20, len(CONTENT)])
def test_a_form_that_breaks_off_behind_a_file_is_refused(forms: Forms, lost: int, size: int) -> None:
    """Parsers differ on what to make of it: nobody gets it, neither who parses nor who reads bytes."""
    body = form(OWN, FILE, NOTE)[:-lost]
    for target in ("/form", "/raw"):
        answer = forms.post(cut(body, size), target)
        assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", [])


@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
@pytest.mark.parametrize("lost", [4, 20, 100_000])
def test_a_long_form_that_breaks_off_is_refused(forms: Forms, lost: int) -> None:
    """Where the handler reads most of it itself: the last byte that was declared is the end."""
    body = form(OWN, file("big", bytes(300_000)), NOTE)[:-lost]
    for target in ("/form", "/raw"):
        answer = forms.post(cut(body, 50_000), target)
        assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", [])
    gc.collect()  # frameworks leave it to the collector to close what they had spooled


def test_a_late_refusal_replaces_the_answer_of_a_handler_that_swallows_errors(forms: Forms) -> None:
    """A handler that catches what the cut stream raises does not get its own answer out."""
    body = form(FILE, file("big", bytes(200_000)), FOREIGN)
    answer = forms.post(cut(body, 1000), "/swallow")
    assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", ["swallowed"])


def test_foreign_and_unknown_tenant_in_a_field_answer_alike(forms: Forms) -> None:
    """Nothing but the request id tells whether the tenant exists."""
    foreign, unknown = forms.post(form(FOREIGN)), forms.post(form(field("tenant_id", b"never-heard-of")))
    assert foreign.status == unknown.status == 404
    assert {**foreign.json, "request_id": ""} == {**unknown.json, "request_id": ""}


def test_a_tenant_name_of_the_route_counts_too(make_forms: MakeForms) -> None:
    """`TENANT__FIELDS` names what is compared; other names are the application's."""
    forms = make_forms({"TENANT__FIELDS": "customer"})
    assert forms.post(form(field("customer", b"south"), FILE)).status == 404
    assert forms.post(form(FILE, field("customer", b"south"))).status == 400
    assert forms.calls == []
    assert forms.post(form(FOREIGN, FILE, FOREIGN)).status == 200


def test_a_huge_value_of_a_field_that_matters_is_refused(forms: Forms) -> None:
    """No id is 64 KiB long; nothing of that size is kept."""
    answer = forms.post(form(field("tenant_id", b"n" * 70_000)))
    assert (answer.status, forms.calls) == (400, [])


# -- forms that parsers read differently -------------------------------------------------------------------------------

AMBIGUOUS = [
    pytest.param(part('name="note"; name="tenant_id"'), id="two names"),
    pytest.param(part("name*=utf-8''tenant_id"), id="extended name"),
    pytest.param(part("name=\"note\"; filename*=utf-8''a"), id="extended file name"),
    pytest.param(part('name="tenant\\_id"'), id="backslash"),
    pytest.param(part('name="tenant_id%22"'), id="escaped quote"),
    pytest.param(part('name="tenant_id'), id="open quote"),
    pytest.param(part('name = "tenant_id"'), id="blanks around the sign"),
    pytest.param(part('name="note"\r\nContent-Disposition: form-data; name="tenant_id"'), id="two dispositions"),
    pytest.param(part('name="note";\r\n name="tenant_id"'), id="folded line"),
    pytest.param(part('name="note"\nX: "'), id="bare LF in the header lines"),
    pytest.param(part('filename="a"'), id="no name"),
    pytest.param(part('name="_charset_"', b"utf-7"), id="charset field"),
    pytest.param(part('name="note"\r\nContent-Transfer-Encoding: base64', b"eA=="), id="transfer encoding"),
    pytest.param(part('name="note"\r\nContent-Type: multipart/mixed; boundary=c'), id="nested"),
    pytest.param(part('name="tenant_id"; filename="a"', b"south"), id="a file by a tenant's name"),
    pytest.param(part('name="tenant_id"; filename=""', b"south"), id="an empty file name"),
    pytest.param(field("note", b"\xff"), id="no UTF-8"),
    pytest.param(field("note", b"x\n--b0undary\r\ny"), id="boundary behind a bare LF"),
    pytest.param(b"--b0undary \r\n" + FOREIGN.partition(b"\r\n")[2], id="blank behind the boundary"),
]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("behind", [pytest.param(False, id="before"), pytest.param(True, id="behind a file")])
@pytest.mark.parametrize("odd", AMBIGUOUS)
def test_a_part_that_parsers_read_differently_is_400(forms: Forms, odd: bytes, behind: bool, size: int) -> None:
    """Whatever leaves room for a second reading is refused, behind a file too."""
    answer = forms.post(cut(form(FILE, odd) if behind else form(odd, FILE), size), "/raw")
    assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"tenant_id": "south"}', id="JSON"),
        pytest.param(b'\r\n{"tenant_id": "south"}', id="JSON behind a line end"),
        pytest.param(b"tenant_id=south", id="urlencoded"),
        pytest.param(b"preamble\r\n" + form(OWN), id="preamble"),
        pytest.param(form(OWN).replace(b"b0undary", b"other"), id="another boundary"),
        pytest.param(OWN, id="no end"),
        pytest.param(OWN[:-10], id="cut in a value"),
        pytest.param(form(OWN)[:-5], id="cut in the end"),
        pytest.param(form(field("n" * 10_000)), id="header lines without end"),
    ],
)
@pytest.mark.parametrize("size", CUTS)
def test_what_is_no_form_is_400(forms: Forms, body: bytes, size: int) -> None:
    """A body that is something else than its label says, or that does not end, reaches nobody."""
    for target in ("/form", "/raw"):
        answer = forms.post(cut(body, size), target)
        assert (answer.status, answer.slug, forms.calls) == (400, "malformed-request", [])


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("target", ["/form", "/raw", "/open-form"])
def test_parts_are_counted(forms: Forms, target: str, size: int) -> None:
    """100 unless BODY__MAX_PARTS says otherwise: before a file, behind one, and where nobody looks at fields."""
    enough, behind = form(*[NOTE] * 100), form(FILE, *[NOTE] * 99)
    for body in (enough, behind):
        assert forms.post(cut(body, size), target).status == 200
    forms.calls.clear()
    for body in (enough, behind):
        answer = forms.post(cut(NOTE + body, size), target)
        assert (answer.status, answer.slug, forms.calls) == (413, "body-too-large", [])


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("multipart/form-data", id="none"),
        pytest.param("multipart/form-data; boundary=", id="empty"),
        pytest.param("multipart/form-data; boundary=" + "b" * 71, id="too long"),
        pytest.param('multipart/form-data; boundary="b0und\\ary"', id="escaped"),
        pytest.param("multipart/form-data; boundary=b0undary; boundary=other", id="two"),
        pytest.param("multipart/form-data; boundary=b0undary; charset=utf-7", id="charset"),
        pytest.param("multipart/form-data; boundary*=b0undary", id="extended"),
        pytest.param("multipart/form-data; ;= boundary=b0undary", id="no media type"),
        pytest.param("multipart/form-data=x; boundary=b0undary", id="a value behind the type"),
    ],
)
@pytest.mark.parametrize("types", ["multipart/form-data", "*"])
def test_a_boundary_that_parsers_could_differ_on_is_refused(
    make_forms: MakeForms, content_type: str, types: str
) -> None:
    """Also where any media type is taken: frameworks parse the field by laxer rules than RFC 9110."""
    forms = make_forms({"BODY__CONTENT_TYPES": types})
    answer = forms.post(form(OWN, FILE), content_type=content_type)
    assert answer.status == 400 or (types != "*" and answer.status == 415)
    assert forms.calls == []


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param('multipart/form-data; boundary="b0undary"', id="quoted"),
        pytest.param("Multipart/Form-Data; Boundary=b0undary", id="upper case"),
        pytest.param("multipart/form-data; charset=utf-8; boundary=b0undary", id="charset"),
    ],
)
def test_other_spellings_of_the_boundary_are_judged_alike(forms: Forms, content_type: str) -> None:
    """What every parser reads alike passes, and is compared."""
    assert forms.post(form(OWN, FILE), content_type=content_type).status == 200
    assert forms.post(form(FOREIGN, FILE), content_type=content_type).status == 404


# -- owners ------------------------------------------------------------------------------------------------------------


class Invoices:
    """Whose an invoice is; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, value: str) -> str | None:
        self.asked.append(value)
        return {"1": "north", "2": "south", "3": "north"}.get(value)


@pytest.mark.parametrize(
    ("body", "status", "asked"),
    [
        pytest.param(form(field("invoice_id", b"1"), FILE), 200, ["1"], id="own"),
        pytest.param(form(field("invoice_id", b"2"), FILE), 404, ["2"], id="foreign"),
        pytest.param(form(field("invoice_id", b"9")), 404, ["9"], id="unknown"),
        pytest.param(form(field("invoice_id", b"")), 404, [], id="empty"),
        pytest.param(form(field("invoice_id[]", b"1"), field("x[invoice_id]", b"2")), 404, ["1", "2"], id="repeated"),
        pytest.param(
            form(OWN, *[field("invoice_id", b"1")] * 3, field("invoice_id", b"3")), 200, ["1", "3"], id="once"
        ),
        pytest.param(form(FOREIGN, field("invoice_id", b"1")), 404, [], id="of a foreign tenant"),
        pytest.param(form(FILE, field("invoice_id", b"1")), 400, None, id="behind the file"),
        pytest.param(form(file("invoice_id")), 400, [], id="as a file"),
        pytest.param(form(*[field("invoice_id", b"%d" % n) for n in range(101)]), 400, [], id="a flood"),
    ],
)
@pytest.mark.parametrize("size", CUTS)
def test_an_object_id_in_a_field_is_asked_for_its_owner(
    make_forms: MakeForms, body: bytes, status: int, asked: list[str] | None, size: int
) -> None:
    """`owners=` covers the fields of a form as it covers JSON: each id once, before the handler."""
    invoices = Invoices()
    forms = make_forms(owners={"invoice_id": invoices}, env={"BODY__MAX_PARTS": "200"})
    answer = forms.post(cut(body, size))
    assert (answer.status, forms.calls) == (status, ["form"] if status == 200 else [])
    assert invoices.asked == (asked if asked is not None else [])


def test_an_owner_that_fails_is_503(make_forms: MakeForms) -> None:
    """Nobody knows whose it is, so nobody gets it."""

    def down(value: str) -> str:
        raise OSError("the database is away")

    forms = make_forms(owners={"invoice_id": down})
    assert (forms.post(form(field("invoice_id", b"1"))).status, forms.calls) == (503, [])


# -- limits and streams ------------------------------------------------------------------------------------------------

CHUNKED = [("transfer-encoding", "chunked")]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([form(OWN, field("note", b"x" * 2000))], id="form in one chunk"),
        pytest.param(cut(form(OWN, field("note", b"x" * 2000)), 100), id="form"),
        pytest.param(cut(form(OWN, file(content=b"x" * 2000)), 100), id="file"),
        pytest.param([form(OWN, file(content=b"x" * 2000))], id="file in one chunk"),
        pytest.param(cut(form(OWN, FILE) + b"\r\n" * 500, 100), id="epilogue"),
    ],
)
@pytest.mark.parametrize("target", ["/form", "/raw"])
def test_more_bytes_than_allowed_are_413(make_forms: MakeForms, body: list[bytes], target: str) -> None:
    """Declared or not, read or streaming: the limit counts every byte once."""
    forms = make_forms({"BODY__MAX_SIZE": "1KB"})
    arrived = forms.post(body, target, more=CHUNKED)
    declared = forms.post(body, target)
    assert (arrived.status, declared.status, forms.calls) == (413, 413, [])


def test_a_form_of_exactly_the_limit_passes(make_forms: MakeForms) -> None:
    """What was read before the handler is not counted again."""
    body = form(OWN, FILE)
    exact = make_forms({"BODY__MAX_SIZE": str(len(body))})
    assert [exact.post(cut(body, 100), more=CHUNKED).status, exact.post(cut(body, 100)).status] == [200, 200]
    short = make_forms({"BODY__MAX_SIZE": str(len(body) - 1)})
    assert short.post(cut(body, 100), more=CHUNKED).status == 413


def test_an_empty_body_under_a_forms_label_is_nobodys_business(forms: Forms) -> None:
    """No parser finds a field in nothing."""
    assert (forms.post([b""], "/raw", more=CHUNKED).status, forms.calls) == (200, ["raw"])


class Pipe:
    """A body of `size` bytes that exists one block at a time; `taken` counts what was drawn."""

    def __init__(self, head: bytes, size: int) -> None:
        self._buffer = head
        self._left = size
        self.taken = 0

    def read(self, size: int) -> bytes:
        if len(self._buffer) < size and self._left:
            block = min(self._left, 65_536)
            self._left -= block
            self._buffer += bytes(block)
            if not self._left:
                self._buffer += b"\r\n" + CLOSE
        chunk, self._buffer = self._buffer[:size], self._buffer[size:]
        self.taken += len(chunk)
        return chunk

    readline = read


def poured(door: AsgiDoor | WsgiDoor, pipe: Pipe, headers: list[tuple[str, str]], target: str) -> int:
    """Send what the pipe holds; the status."""
    fields = [("host", "portal.example.com"), *headers]
    if isinstance(door, WsgiDoor):
        environ: dict[str, Any] = {"wsgi.input": pipe, "wsgi.input_terminated": True}
        return WsgiDoor(door.app, environ_extra=environ).request("POST", target, fields, lint=False).status
    return asyncio.run(_poured(door, pipe, fields, target))


async def _poured(door: AsgiDoor, pipe: Pipe, headers: list[tuple[str, str]], target: str) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        chunk = pipe.read(65_536)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(message: Any) -> None:
        sent.append(message)

    await door.app(door._scope("POST", target, headers, "203.0.113.7", False), receive, send)
    return int(sent[0]["status"])


def test_a_big_file_streams_in_constant_memory(make_forms: MakeForms) -> None:
    """32 MiB pass; what is held is a few blocks, scanner, counter and doors included."""
    forms = make_forms({"BODY__MAX_SIZE": "64MB"})
    headers = [*forms.headers(), *CHUNKED]
    assert poured(forms.door, Pipe(OWN + file(content=b""), 65_536), headers, "/raw") == 200
    pipe = Pipe(OWN + file(content=b"")[:-2], 32 << 20)
    tracemalloc.start()
    try:
        status = poured(forms.door, pipe, headers, "/raw")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, forms.calls) == (200, ["raw", "raw"])
    assert pipe.taken > 32 << 20
    assert peak < 2 << 20


def test_no_more_is_read_before_the_handler_than_up_to_the_file(make_forms: MakeForms) -> None:
    """A handler that reads nothing runs when the first block of the file is there."""
    forms = make_forms({"BODY__MAX_SIZE": "64MB"})
    headers = [*forms.headers(), *CHUNKED]
    pipe = Pipe(OWN + file(content=b"")[:-2], 32 << 20)
    assert (poured(forms.door, pipe, headers, "/unread"), forms.calls) == (200, ["unread"])
    assert pipe.taken <= 65_536


# -- where nobody judges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [form(FOREIGN, FILE), form(FILE, FOREIGN), form(part('name="x"; name="y"'))])
def test_forms_on_public_routes_are_not_judged(forms: Forms, body: bytes) -> None:
    """A public route knows no tenant: its forms stream as they come."""
    assert forms.post(cut(body, 64), "/open-form").status == 200
    assert forms.calls == ["form"]


def test_forms_are_not_judged_where_the_tenant_layer_is_off(make_forms: MakeForms) -> None:
    """`MODE__TENANT=off`: no field is looked at; JSON under the label stays refused."""
    forms = make_forms({"MODE__TENANT": "off"})
    assert forms.post(form(FILE, FOREIGN)).status == 200
    assert forms.post(b'{"tenant_id": "south"}').status == 415


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(
    ("body", "noted"),
    [
        pytest.param(form(FOREIGN, FILE), ("tenant", "not-found"), id="foreign"),
        pytest.param(form(FILE, FOREIGN), ("tenant", "malformed-request"), id="behind a file"),
        pytest.param(form(FILE, part('name="x"; name="y"')), ("tenant", "malformed-request"), id="fault behind a file"),
        pytest.param(form(part('name="x"; name="y"'), FILE), ("tenant", "malformed-request"), id="fault"),
    ],
)
def test_report_mode_notes_once_and_hands_everything_on(
    make_forms: MakeForms, body: bytes, noted: tuple[str, str], size: int
) -> None:
    """`MODE__TENANT=report`: the bytes arrive unchanged, and it is known what would have been refused."""
    forms = make_forms({"MODE__TENANT": "report"})
    answer = forms.post(cut(body, size), "/raw")
    assert answer.json == {"digest": digest(body), "size": len(body)}
    assert [x.would_refuse for x in forms.exchanges] == [[noted]]


def test_a_form_is_judged_where_the_application_identifies(make_forms: MakeForms) -> None:
    """With `authenticate=` the walk goes on inside the application; forms are read and guarded there alike."""
    forms = make_forms({"AUTH": "none"}, authenticate=lambda request: Principal(subject="u1", tenant="north"))
    assert [forms.post(cut(body, 64)).status for body in (form(FOREIGN, FILE), form(FILE, OWN))] == [404, 400]
    assert forms.calls == []
    assert forms.post(cut(form(OWN, FILE), 64), "/raw").json["digest"] == digest(form(OWN, FILE))


# -- any form, in any chunks -------------------------------------------------------------------------------------------

ODD = part('name="x"; name="tenant_id"')
PARTS = st.sampled_from([OWN, FOREIGN, NOTE, FILE, file("other", b"\r\n--b0undar"), field("orgId[]", b"north"), ODD])


def expected(parts: list[bytes]) -> int:
    """The status by the rules as they are written down, without a scanner."""
    first = next((at for at, each in enumerate(parts) if b"; filename=" in each), len(parts))
    fault = parts.index(ODD) if ODD in parts else len(parts)
    if FOREIGN in parts[: min(first, fault)]:
        return 404
    late = any(b"tenant_id" in each or b"orgId" in each for each in parts[first:])
    return 400 if late or ODD in parts else 200


@cache
def bare(kind: str) -> AsgiDoor | WsgiDoor:
    """The form routes without a shield."""
    return door_of(kind, [], [])


class Dripping(io.BytesIO):
    """A `wsgi.input` that gives its bytes in the pieces it was cut into, whatever was asked for."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(b"".join(pieces))
        self._ends = sorted({sum(map(len, pieces[: at + 1])) for at in range(len(pieces))})

    def _most(self, size: int | None) -> int:
        at = self.tell()
        end = next((end for end in self._ends if end > at), at)
        return end - at if size is None or size < 0 else min(size, end - at)

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._most(size))

    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(self._most(size))


def sent(door: AsgiDoor | WsgiDoor, pieces: list[bytes], target: str, headers: list[tuple[str, str]]) -> Answer:
    """Send the pieces as they were cut."""
    if isinstance(door, WsgiDoor):
        door = WsgiDoor(door.app, environ_extra={"wsgi.input": Dripping(pieces)})
    return door.request("POST", target, headers, pieces)


@pytest.mark.parametrize("target", ["/raw", "/form"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@settings(max_examples=60)
@given(parts=st.lists(PARTS, max_size=6), data=st.data())
def test_chunking_never_changes_what_the_handler_gets(
    kind: str, target: str, parts: list[bytes], data: st.DataObject
) -> None:
    """However a form is cut: the same verdict, and the handler gets what it would get without a shield, or nothing."""
    body = form(*parts)
    ends = data.draw(st.lists(st.integers(0, len(body)), max_size=8).map(sorted), label="cut at")
    # Cut between the dashes of a delimiter, Werkzeug 3.1 itself reads a CR into the value: it gets its forms whole.
    whole = (kind, target) == ("wsgi", "/form")
    pieces = [body] if whole else [body[start:end] for start, end in pairwise([0, *ends, len(body)])]
    forms = shared(kind)
    forms.calls.clear()
    answer = sent(forms.door, pieces, target, forms.headers())
    assert answer.status == expected(parts)
    assert forms.calls == ([target[1:]] if answer.status == 200 else [])
    if answer.status == 200:
        assert answer.json == sent(bare(kind), pieces, target, forms.headers()).json


READ_BY: list[Callable[[Any], bytes]] = []
"""How the handler of /input reads."""
WAYS: list[Any] = [
    pytest.param(lambda stream: stream.read(), id="read"),
    pytest.param(lambda stream: b"".join(iter(lambda: stream.read(7), b"")), id="read some"),
    pytest.param(lambda stream: b"".join(iter(stream.readline, b"")), id="readline"),
    pytest.param(lambda stream: b"".join(iter(lambda: stream.readline(5), b"")), id="readline, bounded"),
    pytest.param(lambda stream: b"".join(stream.readlines()), id="readlines"),
    pytest.param(lambda stream: b"".join(stream), id="iteration"),
    pytest.param(lambda stream: stream.read(3) + stream.readline() + stream.read(), id="mixed"),
]


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("piece", [1, 50, 1000, 1 << 20])
def test_a_wsgi_input_is_whole_however_it_is_read(read: Callable[[Any], bytes], piece: int) -> None:
    """What was read before the handler and what was not are one stream to every method of `wsgi.input`."""
    forms = shared("wsgi")
    body = form(OWN, NOTE, FILE, NOTE)
    READ_BY.append(read)
    answer = sent(forms.door, cut(body, piece), "/input", forms.headers())
    assert (READ_BY.pop(), answer.status, answer.body.decode()) == (read, 200, digest(body))
