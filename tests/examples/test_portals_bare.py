"""The example portals without the shield: they work, and they have the holes that the shield is there to close."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

pytest.importorskip("sqlalchemy")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PDF = b"%PDF-1.7\n%%EOF\n"


def load(example: str, name: str) -> ModuleType:
    """`portal.<name>` of one example, under a package name of its own: both examples call theirs `portal`."""
    package = f"{example}_portal"
    if package not in sys.modules:
        init = EXAMPLES / example / "portal" / "__init__.py"
        spec = importlib.util.spec_from_file_location(package, init, submodule_search_locations=[str(init.parent)])
        assert spec is not None
        assert spec.loader is not None
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(f"{package}.{name}")


@dataclass(frozen=True)
class Answer:
    """What both test clients answer with."""

    status: int
    text: str
    media_type: str
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.text)


class Portal(Protocol):
    """One running portal, whatever it was written with."""

    uploads: Path

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        file: tuple[str, bytes] | None = None,
    ) -> Answer:
        """One request."""


class FastApiPortal:
    """Through Starlette's TestClient, which is an httpx client."""

    def __init__(self, client: Any, uploads: Path) -> None:
        self.client = client
        self.uploads = uploads

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        file: tuple[str, bytes] | None = None,
    ) -> Answer:
        """One request."""
        files = None if file is None else {"file": file}
        found = self.client.request(method, path, headers=headers, json=json, content=content, files=files)
        return Answer(found.status_code, found.text, found.headers.get("content-type", ""), found.content)


class FlaskPortal:
    """Through Flask's own test client."""

    def __init__(self, client: Any, uploads: Path) -> None:
        self.client = client
        self.uploads = uploads

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        file: tuple[str, bytes] | None = None,
    ) -> Answer:
        """One request."""
        data: Any = content if file is None else {"file": (io.BytesIO(file[1]), file[0])}
        found = self.client.open(path, method=method, headers=headers, json=json, data=data)
        answer = Answer(
            found.status_code, found.get_data(as_text=False).decode("utf-8", "replace"), found.content_type, found.data
        )
        found.close()
        return answer


def _config(example: str, directory: Path) -> Any:
    return load(example, "config").Config(
        database_url=f"sqlite:///{directory / 'portal.db'}",
        uploads=directory / "uploads",
    )


@contextmanager
def _fastapi(directory: Path) -> Iterator[Portal]:
    pytest.importorskip("fastapi")
    with warnings.catch_warnings():
        # Starlette 1.10 prefers another client library and says so when it is imported.
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient
    app = load("fastapi_app", "main").create_app(_config("fastapi_app", directory))
    with TestClient(app) as client:
        yield FastApiPortal(client, directory / "uploads")


@contextmanager
def _flask(directory: Path) -> Iterator[Portal]:
    pytest.importorskip("flask")
    app = load("flask_app", "main").create_app(_config("flask_app", directory))
    yield FlaskPortal(app.test_client(), directory / "uploads")
    app.extensions["engine"].dispose()


PORTALS = {"fastapi": _fastapi, "flask": _flask}


@pytest.fixture(params=PORTALS)
def portal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Portal]:
    """A freshly seeded portal, once per framework."""
    with PORTALS[request.param](tmp_path) as running:
        yield running


def login(portal: Portal, email: str = "coach@north.example", password: str = "walk-the-talk-2026") -> dict[str, str]:
    """The headers of somebody who has logged in."""
    answer = portal.send("POST", "/auth/login", json={"email": email, "password": password})
    assert answer.status == 200, answer.text
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


def test_start_page_and_health_need_no_login(portal: Portal) -> None:
    """The HTML page and the probe answer anybody."""
    page = portal.send("GET", "/")
    assert (page.status, page.media_type) == (200, "text/html; charset=utf-8")
    assert "<form" in page.text
    assert portal.send("GET", "/healthz").json == {"status": "ok"}


def test_login_answers_a_token_with_the_tenant(portal: Portal) -> None:
    """A right password yields a bearer token that the portal knows again."""
    me = portal.send("GET", "/auth/me", headers=login(portal)).json
    assert (me["email"], me["tenant_id"], me["role"]) == ("coach@north.example", "north", "coach")


@pytest.mark.parametrize(
    ("email", "password"),
    [
        pytest.param("coach@north.example", "walk-the-talk-2025", id="wrong password"),
        pytest.param("nobody@north.example", "walk-the-talk-2026", id="unknown account"),
    ],
)
def test_login_refuses(portal: Portal, email: str, password: str) -> None:
    """Neither a wrong password nor an unknown account yields a token, and the answers are equal."""
    answer = portal.send("POST", "/auth/login", json={"email": email, "password": password})
    assert (answer.status, answer.json) == (401, {"detail": "Wrong email or password"})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"Authorization": "Bearer a.b.c"}, id="no JWT"),
        pytest.param({"Authorization": "Basic Y29hY2g6eA=="}, id="another scheme"),
    ],
)
def test_routes_with_a_login_refuse_others(portal: Portal, headers: dict[str, str]) -> None:
    """Without a valid token the client list is 401."""
    assert portal.send("GET", "/tenants/north/clients", headers=headers).status == 401


def test_clients_are_created_listed_changed_and_removed(portal: Portal) -> None:
    """The life of one client."""
    headers = login(portal)
    created = portal.send(
        "POST", "/tenants/north/clients", headers=headers, json={"name": "Gus Ferro", "email": "gus@mail.example"}
    )
    assert created.status == 201
    path = f"/clients/{created.json['id']}"
    names = [client["name"] for client in portal.send("GET", "/tenants/north/clients", headers=headers).json]
    assert names == ["Ada Lindqvist", "Bo Andersen", "Cleo Marsh", "Gus Ferro"]
    found = portal.send("GET", "/tenants/north/clients?q=gus", headers=headers).json
    assert [client["id"] for client in found] == [created.json["id"]]
    assert portal.send("PATCH", path, headers=headers, json={"phone": "+49 30 1"}).json["phone"] == "+49 30 1"
    assert portal.send("DELETE", path, headers=headers).status == 204
    assert portal.send("GET", path, headers=headers).status == 404


def test_notes_are_added_and_listed(portal: Portal) -> None:
    """Notes hang below a client (nested router, nested blueprint)."""
    headers = login(portal)
    data = {"tenant_id": "north", "text": "Prefers mornings."}
    assert portal.send("POST", "/clients/1/notes", headers=headers, json=data).status == 201
    notes = portal.send("GET", "/clients/1/notes?tenant_id=north", headers=headers).json
    assert [note["text"] for note in notes] == ["Ada Lindqvist asked to keep this between us.", "Prefers mornings."]


def test_sessions_are_booked_and_listed(portal: Portal) -> None:
    """An appointment names its tenant in the body, the list in the query."""
    headers = login(portal)
    data = {"tenant_id": "north", "client_id": 2, "starts_at": "2026-05-04T08:00:00Z", "topic": "Review"}
    assert portal.send("POST", "/sessions", headers=headers, json=data).status == 201
    listed = portal.send("GET", "/sessions?tenant_id=north&after=2026-05-01T00:00:00Z", headers=headers).json
    assert [(session["topic"], session["minutes"]) for session in listed] == [("Review", 50)]


def test_invoices_are_created_sent_and_listed(portal: Portal) -> None:
    """An invoice starts as a draft; the list carries the client's name."""
    headers = {**login(portal), "X-Tenant-Id": "north"}
    data = {"tenant_id": "north", "client_id": 1, "number": "N-9", "amount_cents": 5000, "due_on": "2026-06-01"}
    created = portal.send("POST", "/invoices", headers=headers, json=data)
    assert (created.status, created.json["status"]) == (201, "draft")
    path = f"/invoices/{created.json['id']}"
    assert portal.send("POST", f"{path}/send", headers=headers).json["status"] == "open"
    assert portal.send("POST", f"{path}/send", headers=headers).status == 409
    assert portal.send("GET", path, headers=headers).json["status"] == "open"
    rows = portal.send("GET", "/invoices?status=open", headers=headers).json
    assert [(row["number"], row["client_name"]) for row in rows] == [
        ("N-2026-002", "Bo Andersen"),
        ("N-9", "Ada Lindqvist"),
    ]


def test_dashboard_adds_up(portal: Portal) -> None:
    """The aggregates of the seeded rows."""
    assert portal.send("GET", "/dashboard?tenant_id=north", headers=login(portal)).json == {
        "tenant_id": "north",
        "clients": 3,
        "sessions": 3,
        "open_cents": 18_000,
        "paid_cents": 12_000,
    }


def test_upload_stores_under_a_name_of_its_own(portal: Portal) -> None:
    """A file name that climbs out of the directory names nothing on disk, and the file comes back unchanged."""
    headers = login(portal)
    path = "/tenants/north/documents"
    uploaded = portal.send("POST", path, headers=headers, file=("../../agreement.pdf", PDF))
    assert uploaded.status == 201, uploaded.text
    assert "/" not in uploaded.json["filename"]
    assert uploaded.json["size_bytes"] == len(PDF)
    assert [file.suffix for file in portal.uploads.iterdir()] == [".pdf"]
    assert not list(portal.uploads.parent.glob("*.pdf"))
    assert portal.send("GET", path, headers=headers).json == [uploaded.json]
    assert portal.send("GET", f"{path}/{uploaded.json['id']}/download", headers=headers).body == PDF


def test_upload_refuses_other_files(portal: Portal) -> None:
    """What is no document is not stored."""
    answer = portal.send("POST", "/tenants/north/documents", headers=login(portal), file=("run.sh", b"#!/bin/sh"))
    assert answer.status == 400
    assert not portal.uploads.exists()


def test_password_reset_link_works_once(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    """The link that was logged changes the password, one time."""
    with caplog.at_level(logging.WARNING, logger="portal.mail"):
        asked = portal.send("POST", "/auth/password-reset", json={"email": "coach@south.example"})
    assert asked.status == 202
    token = caplog.messages[-1].partition("#token=")[2]
    data = {"token": token, "password": "another-good-one"}
    assert portal.send("POST", "/auth/password-reset/confirm", json=data).status == 204
    assert login(portal, "coach@south.example", "another-good-one")
    assert portal.send("POST", "/auth/password-reset/confirm", json=data).status == 400


def test_password_reset_does_not_tell_who_has_an_account(portal: Portal) -> None:
    """A known and an unknown address get the same answer."""
    answers = [
        portal.send("POST", "/auth/password-reset", json={"email": email})
        for email in ("coach@north.example", "nobody@north.example")
    ]
    assert answers[0] == answers[1]


# -- the holes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "extra", "data", "leak"),
    [
        pytest.param("GET", "/tenants/south/clients", {}, None, "Dario Conti", id="clients by path"),
        pytest.param("GET", "/sessions?tenant_id=south", {}, None, "Career change", id="sessions by query"),
        pytest.param("GET", "/invoices", {"X-Tenant-Id": "south"}, None, "Elif Kaya", id="invoices by header"),
        pytest.param("GET", "/clients/4/notes?tenant_id=south", {}, None, "between us", id="notes by query"),
        pytest.param("GET", "/dashboard?tenant_id=south", {}, None, "18000", id="figures by query"),
        pytest.param(
            "POST",
            "/sessions",
            {},
            {"tenant_id": "south", "client_id": 4, "starts_at": "2026-05-04T08:00:00Z"},
            '"south"',
            id="a booking by body",
        ),
    ],
)
def test_a_user_of_north_reaches_south(
    portal: Portal, method: str, path: str, extra: dict[str, str], data: Any, leak: str
) -> None:
    """The handlers trust the tenant they are told: the hole that is closed by the shield, not by them."""
    answer = portal.send(method, path, headers={**login(portal), **extra}, json=data)
    assert answer.status in (200, 201)
    assert leak in answer.text


def test_anybody_reads_the_internal_reports(portal: Portal) -> None:
    """The mounted part forgot to ask for a login."""
    assert portal.send("GET", "/internal/reports/revenue?tenant_id=south").json["paid"] == 12_000
    assert "S-2026-001" in portal.send("GET", "/internal/reports/south/invoices.csv").text


def test_a_client_of_another_tenant_is_not_found_by_number(portal: Portal) -> None:
    """A bare number names no tenant, so no shield could compare it: here the portal compares by itself."""
    assert portal.send("GET", "/clients/4", headers=login(portal)).status == 404


def test_anybody_opens_a_live_connection(tmp_path: Path) -> None:
    """The FastAPI portal's WebSocket forgot to ask for a login, too."""
    with _fastapi(tmp_path) as portal:
        assert isinstance(portal, FastApiPortal)
        with portal.client.websocket_connect("/ws/tenants/south") as socket:
            socket.send_text("numbers, please")
            assert socket.receive_json() == {"tenant_id": "south", "clients": 3}


def test_anybody_reports_a_payment(portal: Portal) -> None:
    """The webhook believes whoever posts."""
    event = {"type": "payment_intent.succeeded", "data": {"object": {"metadata": {"invoice_id": "2"}}}}
    assert portal.send("POST", "/webhooks/stripe", json=event).json == {"received": True}
    invoice = portal.send("GET", "/invoices/2", headers={**login(portal), "X-Tenant-Id": "north"}).json
    assert invoice["status"] == "paid"
    assert invoice["paid_at"] is not None


def test_who_clicks_twice_gets_two_invoices(portal: Portal) -> None:
    """A repeated request is another request."""
    data = {"tenant_id": "north", "client_id": 1, "number": "N-9", "amount_cents": 5000, "due_on": "2026-06-01"}
    headers = {**login(portal), "Idempotency-Key": '"n-9"'}
    made = [portal.send("POST", "/invoices", headers=headers, json=data).json["id"] for _ in range(2)]
    assert len(set(made)) == 2


def test_a_program_passes_as_a_document(portal: Portal) -> None:
    """Only the name of a file is looked at."""
    path = "/tenants/north/documents"
    assert portal.send("POST", path, headers=login(portal), file=("agreement.pdf", b"MZ\x90\x00")).status == 201


def test_passwords_can_be_tried_all_day(portal: Portal) -> None:
    """The sixth attempt is looked at like the first."""
    for number in range(5):
        wrong = {"email": "coach@north.example", "password": f"wrong-{number}"}
        assert portal.send("POST", "/auth/login", json=wrong).status == 401
    assert login(portal)
