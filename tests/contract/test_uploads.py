"""Uploads through both doors: correct files reach the handler byte by byte, others never as a complete file."""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from doors import Answer
from fastapi import FastAPI, File, Form, UploadFile
from files import CONTENT_TYPE, FILES, archive, field, file, form, png

from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, Upload, protect, public

TYPES = tuple(FILES)
TAKES = Upload(TYPES, max_file="200KB", max_files=3)
ZIP = FILES["application/zip"][1]

pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
"""Both frameworks leave it to the collector to close what they had spooled of an upload that breaks off."""

Files = list[list[str]]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fastapi_uploads(app: FastAPI, calls: list[str], upload: Any) -> None:
    """/files and /open-files take files as FastAPI does."""

    async def take(files: list[UploadFile] = File(), note: str = Form("")) -> Files:  # noqa: B008
        calls.append("files")
        return [[str(each.filename), str(each.content_type), digest(await each.read())] for each in files]

    app.post("/files")(protect(upload=upload)(take))

    async def take_any(files: list[UploadFile] = File()) -> Files:  # noqa: B008
        return await take(files)

    app.post("/open-files")(public(protect(upload=upload)(take_any)))


def flask_uploads(app: flask.Flask, calls: list[str], upload: Any) -> None:
    """The same on Flask."""

    def take() -> Any:
        files = flask.request.files.getlist("files")
        found = [[str(each.filename), str(each.content_type), digest(each.stream.read())] for each in files]
        calls.append("files")
        return flask.jsonify(found)

    app.add_url_rule("/files", "files", protect(upload=upload)(take), methods=["POST"])
    app.add_url_rule("/open-files", "open", public(protect(upload=upload)(lambda: take())), methods=["POST"])


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """What these tests leave to the collector is collected while they are responsible for it."""
    yield
    gc.collect()


@pytest.fixture
def make(make_portal: MakePortal) -> MakePortal:
    """Makes a portal that takes files; `upload` is what it takes."""

    def made(env: dict[str, str] | None = None, upload: Any = TAKES, **more: Any) -> Portal:
        calls: list[str] = []

        def prepare(app: Any) -> None:
            (fastapi_uploads if isinstance(app, FastAPI) else flask_uploads)(app, calls, upload)

        portal = make_portal(env, prepare, **more)
        portal.calls = calls
        return portal

    return made


def send(portal: Portal, *parts: bytes, target: str = "/files", size: int = 0, **more: Any) -> Answer:
    """A form, in one chunk or in chunks of `size`."""
    body = form(*parts)
    chunks: Any = [body[at : at + size] for at in range(0, len(body), size)] if size else body
    return portal.request("POST", target, [*portal.bearer(), ("content-type", CONTENT_TYPE)], chunks, **more)


def sample(essence: str, name: str = "files") -> bytes:
    filename, content = FILES[essence]
    return file(filename, content, essence, name)


@pytest.mark.parametrize("essence", TYPES)
@pytest.mark.parametrize("target", ["/files", "/open-files"])
def test_each_type_arrives_unchanged(make: MakePortal, essence: str, target: str) -> None:
    """Name, type and every byte, read at once or streaming, where tenants are judged and where nothing is."""
    portal = make()
    filename, content = FILES[essence]
    for size in (0, 50, 1):
        answer = send(portal, sample(essence), target=target, size=size)
        assert answer.status == 200, answer.body
        assert answer.json == [[filename, essence, digest(content)]]


def test_several_files_and_fields_arrive(make: MakePortal) -> None:
    """In their order, the own tenant among the fields."""
    three = ["image/png", "text/csv", "application/pdf"]
    answer = send(make(), field("tenant_id", b"north"), field("note"), *map(sample, three), size=100)
    assert [row[1] for row in answer.json] == three


def test_a_file_larger_than_any_other_body_arrives(make: MakePortal) -> None:
    """The body's limit makes room for the files."""
    content = b"\xff\xd8\xff\xe0" + bytes(2_000_000)
    portal = make(upload=Upload(["image/jpeg"], max_file="3MB"))
    answer = send(portal, file("big.jpg", content, "image/jpeg", "files"), size=65_536)
    assert answer.json == [["big.jpg", "image/jpeg", digest(content)]]


TYPE, SIZE, FORM = (415, "unsupported-media-type"), (413, "body-too-large"), (400, "malformed-request")
REFUSALS = [
    pytest.param(file("a.png", ZIP, "image/png", "files"), *TYPE, id="other bytes"),
    pytest.param(file("a.exe", b"MZ", "application/x-msdownload", "files"), *TYPE, id="type"),
    pytest.param(file("a.html", b"x", "text/plain", "files"), *TYPE, id="extension"),
    pytest.param(file("a.jpg", FILES["image/jpeg"][1] + ZIP, "image/jpeg", "files"), *TYPE, id="gifar"),
    pytest.param(file("a.txt", b"x" * 200_001, "text/plain", "files"), *SIZE, id="too large"),
    pytest.param(sample("text/plain") * 4, *SIZE, id="too many"),
    pytest.param(file("b.zip", archive({"0": bytes(900_000)}), "application/zip", "files"), *SIZE, id="bomb"),
    pytest.param(field("x") * 101, *SIZE, id="too many parts"),
    pytest.param(file("../a.png", png(), "image/png", "files"), *FORM, id="path"),
    pytest.param(file("a.php.png", png(), "image/png", "files"), *FORM, id="executable"),
    pytest.param(field("tenant_id", b"north") * 2 + sample("text/plain"), *FORM, id="tenant twice"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "status", "slug"), REFUSALS)
@pytest.mark.parametrize("size", [0, 3000])
def test_what_is_refused(make: MakePortal, parts: bytes, status: int, slug: str, size: int) -> None:
    """No handler sees it, and the answer says nothing of it."""
    portal = make()
    answer = send(portal, parts, size=size)
    assert (answer.status, answer.slug, portal.calls) == (status, slug, [])
    assert set(answer.json) == {"type", "title", "status", "request_id"}


def test_a_refusal_in_the_stream_closes_the_connection(make: MakePortal) -> None:
    """Nobody reads the rest. (A WSGI server decides by itself.)"""
    portal = make()
    answer = send(portal, file("a.png", b"x" * 100_000, "image/png", "files"), target="/open-files", size=500)
    assert (answer.status, answer.get("connection")) == (415, "close" if portal.name == "asgi" else None)


def test_a_foreign_tenant_comes_first(make: MakePortal) -> None:
    """404, whatever the files are."""
    portal = make()
    for essence in ("image/png", "text/html"):
        answer = send(portal, field("tenant_id", b"south"), file("a.png", png(), essence, "files"))
        assert (answer.status, answer.slug, portal.calls) == (404, "not-found", [])


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/mixed; boundary=b0undary", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=b0undary; charset=latin-1", 400),
    ],
)
def test_only_forms_are_taken(make: MakePortal, content_type: str, status: int) -> None:
    """And only such as parsers read alike."""
    portal = make()
    headers = [*portal.bearer(), ("content-type", content_type)]
    answer = portal.request("POST", "/open-files", headers, b"{}" if "json" in content_type else b"a=b")
    assert (answer.status, portal.calls) == (status, [])


@pytest.mark.parametrize("cut", [4, 14, 60])
@pytest.mark.parametrize("target", ["/files", "/open-files"])
def test_a_form_that_does_not_end(make: MakePortal, cut: int, target: str) -> None:
    """400 before the handler runs where a length says that nothing more comes, and in the stream where the server says
    so. (A WSGI server that says neither shows the handler no body at all.)"""
    portal = make()
    body = form(sample("image/png"))[:-cut]
    headers = [*portal.bearer(), ("content-type", CONTENT_TYPE)]
    assert portal.request("POST", target, headers, [body[:90], body[90:]]).status == 400
    assert portal.calls == []
    answer = portal.request("POST", target, [*headers, ("transfer-encoding", "chunked")], [body[:90], body[90:]])
    assert answer.status == 400 or (portal.name == "wsgi" and answer.json == [])
    assert portal.calls == [] or answer.json == []


def test_a_handler_that_streams_by_itself_is_cut(make_portal: MakePortal) -> None:
    """What it has read so far ends with a disconnect, not with an end; the answer is ours."""
    portal = make_portal(policies=[Policy("POST /upload", upload=Upload(["image/png"]))])
    answer = send(portal, file("a.png", b"x" * 50_000, "image/png"), target="/upload", size=1000)
    assert (answer.status, answer.slug, portal.calls) == (415, "unsupported-media-type", [])
    assert send(portal, file("a.png", png(), "image/png"), target="/upload", size=9).json["size"] > len(png())


def test_without_a_body_the_handler_decides(make: MakePortal) -> None:
    """An upload of nothing is the handler's to refuse."""
    portal = make()
    answer = portal.request("POST", "/files", portal.bearer())
    assert answer.status == (422 if portal.name == "asgi" else 200)


@pytest.mark.parametrize(("mode", "status"), [("report", 200), ("off", 200), ("enforce", 400)])
def test_modes(make: MakePortal, mode: str, status: int) -> None:
    """`MODE__UPLOAD`: reported, off, enforced; in the stream and before."""
    portal = make({"MODE__UPLOAD": mode})
    for target in ("/files", "/open-files"):
        answer = send(portal, file("a.php.png", png(), "image/png", "files"), target=target, size=100)
        assert answer.status == status
        assert answer.status == 400 or answer.json == [["a.php.png", "image/png", digest(png())]]


def test_a_policy_table_and_a_policy_file_say_it_too(make_portal: MakePortal, tmp_path: Any) -> None:
    """`upload = {types = [...]}`."""
    written = tmp_path / "policies.toml"
    written.write_text('[[route]]\nmatch = "POST /upload"\nupload = {types = ["image/*"], max_file = "1KB"}\n')
    portal = make_portal({"POLICY_FILE": str(written)})
    large = b"\xff\xd8\xff\xe0" + bytes(1000)
    files = [(file("a.png", png(), "image/png"), 200), (file("a.jpg", large, "image/jpeg"), 413)]
    for each, status in [*files, (file("a.txt", b"x", "text/plain"), 415)]:
        assert send(portal, each, target="/upload").status == status


@pytest.mark.parametrize(
    "upload",
    [
        pytest.param(Upload(["image/svg+xml"]), id="a type that cannot be judged"),
        pytest.param(Upload(["image/png"], max_file="much"), id="no size"),
        pytest.param(Upload([]), id="no types"),
        pytest.param(Upload(["image/png"], max_files=0), id="no files"),
    ],
)
def test_a_rule_that_cannot_be_stops_the_start(make_portal: MakePortal, upload: Upload) -> None:
    """With the route and what is wrong."""
    portal = make_portal(policies=[Policy("POST /upload", upload=upload)])
    with pytest.raises(ConfigurationError) as caught:
        portal.shield.routes()
    assert [(item.id, item.variable) for item in caught.value.problems] == [("PS-POLICY-004", "POST /upload")]


@pytest.mark.parametrize(
    "make_upload",
    [
        lambda: Upload("image/png"),
        lambda: Upload(["image/png"], max_files=True),
        lambda: Upload(["image/png"], max_file=1.5),  # type: ignore[arg-type]
        lambda: protect(upload=["image/png"]),  # type: ignore[arg-type]
        lambda: protect(upload={"type": ["image/png"]}),
        lambda: protect(upload=TAKES, body=dict),
    ],
)
def test_a_slip_shows_where_it_stands(make_upload: Callable[[], Any]) -> None:
    """A `TypeError` at the decorator."""
    with pytest.raises(TypeError):
        make_upload()


def test_a_refused_upload_is_no_crash(make_portal: MakePortal, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that stumbles over what was taken away from it: one refusal, no traceback, nothing for Sentry."""
    seen: list[Any] = []

    def prepare(app: Any) -> None:
        upload = Upload(["image/png"])
        if isinstance(app, flask.Flask):
            flask_uploads(app, [], upload)
            flask.got_request_exception.connect(lambda *_, **more: seen.append(more), app, weak=False)
            served = app.wsgi_app
            # As gunicorn does: Werkzeug then reads the body itself, and makes no broken connection of our error.
            app.wsgi_app = lambda given, start: served({**given, "wsgi.input_terminated": True}, start)  # type: ignore
        else:
            fastapi_uploads(app, [], upload)

    portal = make_portal(prepare=prepare)
    with caplog.at_level(logging.WARNING):
        answer = send(portal, file("a.png", b"x" * 90_000, "image/png"), size=1000)
    assert (answer.status, answer.slug) == (415, "unsupported-media-type")
    assert [record.levelname for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert seen == []
