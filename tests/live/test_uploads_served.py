"""Uploads over real sockets: every type arrives byte by byte, what only pretends does not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator

import pytest
from files import CONTENT_TYPE, FILES, field, file, form, png
from serving import SERVERS, Server, all_running, chunked, request

from portalshield import Settings
from portalshield.testing import environment, mint_token

VARIABLES = environment(RATE__PER_IP="1000000/minute", LOG__LEVEL="error")
BEARER = "Authorization: Bearer " + mint_token(Settings.from_env(VARIABLES), tenant="north")
FORM = f"Content-Type: {CONTENT_TYPE}"
NAMES = ("uvicorn-h11", "uvicorn-httptools", "gunicorn-sync", "gunicorn-gthread")
INSTALLED = [name for name in NAMES if importlib.util.find_spec(SERVERS[name].package) is not None]
ZIP = FILES["application/zip"][1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """All servers at once; each is stopped by its own id."""
    with all_running(INSTALLED, VARIABLES, tmp_path_factory.mktemp("uploads")) as servers:
        yield servers


@pytest.fixture(params=INSTALLED)
def server(request: pytest.FixtureRequest, running: dict[str, Server]) -> Server:
    """One of them, listening."""
    return running[request.param].wait()


@pytest.mark.parametrize("essence", FILES)
def test_each_type_arrives_unchanged(server: Server, essence: str) -> None:
    """With its length declared, and in chunks."""
    filename, content = FILES[essence]
    body = form(field("tenant_id", b"north"), file(filename, content, essence))
    expected = [filename, hashlib.sha256(content).hexdigest()]
    assert json.loads(server.send("POST", "/files", BEARER, FORM, body=body).body) == expected
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    answer = server.send("POST", "/files", BEARER, FORM, "Transfer-Encoding: chunked", body=chunked(*pieces))
    assert json.loads(answer.body) == expected


def test_a_large_file_arrives_unchanged(server: Server) -> None:
    """8 MB, more than any other body may have."""
    content = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 32_768
    answer = server.send("POST", "/files", BEARER, FORM, body=form(file("big.jpg", content, "image/jpeg")))
    assert json.loads(answer.body) == ["big.jpg", hashlib.sha256(content).hexdigest()]


@pytest.mark.parametrize(
    ("part", "status"),
    [
        pytest.param(file("a.png", ZIP, "image/png"), 415, id="zip as png"),
        pytest.param(file("a.jpg", FILES["image/jpeg"][1] + ZIP, "image/jpeg"), 415, id="jpeg and zip"),
        pytest.param(file("a.php.png", png(), "image/png"), 400, id="executable"),
        pytest.param(file("a.txt", b"x" * 300_000 + b"\0", "text/plain"), 415, id="late in the stream"),
        pytest.param(field("tenant_id", b"south") + file("a.png", png(), "image/png"), 404, id="foreign tenant"),
    ],
)
def test_what_is_refused(server: Server, part: bytes, status: int) -> None:
    """The answer arrives, whatever of the body was still on its way; the next request is answered as itself."""
    body = form(part)
    assert server.send("POST", "/files", BEARER, FORM, body=body).status == status
    with server.connect() as client:
        client.write(request("POST", "/files", BEARER, FORM, "Transfer-Encoding: chunked", body=chunked(body)))
        first = client.response()
        assert first.status == status
        if first.stays and server.recipe.keeps_alive and client.write(request("GET", "/public")):
            assert client.response().status == 200
