"""JSON that was judged is not parsed again by Flask, where parsing would find the same."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from threading import Thread
from typing import Any

import flask
import pytest
from doors import Answer, WsgiDoor
from flask.json.provider import DefaultJSONProvider

from portalshield import Settings, Shield
from portalshield.testing import environment, mint_token

SETTINGS = Settings.from_env(environment())
Seen = list[Any]


def portal(change: Callable[[flask.Flask], None] = lambda app: None) -> tuple[WsgiDoor, Seen]:
    """Hands over what `get_json` gave it."""
    app, seen = flask.Flask(__name__), []

    @app.post("/clients")
    def create() -> dict[str, bool]:
        found = flask.request.get_json()
        seen.append(found)
        if isinstance(found, dict):
            found["seen"] = True  # what a view does to its document is its own business
        return {"data": flask.request.get_data() == json.dumps(DOCUMENT).encode()}

    change(app)
    Shield(app, settings=SETTINGS)
    return WsgiDoor(app), seen


DOCUMENT = {"name": "Ada", "price": 1.5, "big": 2**70, "tags": [None, True, "x"]}


def post(door: WsgiDoor, body: bytes = json.dumps(DOCUMENT).encode(), media: str = "application/json") -> Answer:
    """As a member of a tenant."""
    token = mint_token(SETTINGS, tenant="north")
    return door.request("POST", "/clients", [("authorization", f"Bearer {token}"), ("content-type", media)], body)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Flask's own parser was given."""
    given: list[Any] = []
    loads = DefaultJSONProvider.loads

    def counting(self: DefaultJSONProvider, text: Any, **options: Any) -> Any:
        given.append(text)
        return loads(self, text, **options)

    monkeypatch.setattr(DefaultJSONProvider, "loads", counting)
    return given


def test_a_view_gets_the_value_that_was_judged(parsed: list[Any]) -> None:
    """It is what the parser would have found, it belongs to this request, and the bytes are still there."""
    door, seen = portal()
    for _ in range(2):
        answer = post(door)
        assert (answer.status, answer.json) == (200, {"data": True})
    assert seen == [{**DOCUMENT, "seen": True}] * 2
    assert seen[0] is not seen[1]
    assert parsed == []


@pytest.mark.parametrize("body", [b"null", b"[]", b"0", b'"x"', b"false"])
def test_values_that_are_not_true_are_values(body: bytes, parsed: list[Any]) -> None:
    """As without the shield."""
    door, seen = portal()
    assert post(door, body).status == 200
    assert (seen, parsed) == ([json.loads(body)], [])


def test_a_parser_of_ones_own_is_asked() -> None:
    """It may find something else."""

    class Exact(DefaultJSONProvider):
        def loads(self, s: str | bytes, **kwargs: Any) -> Any:
            """Decimal numbers."""
            return json.loads(s, parse_float=Decimal)

    def change(app: flask.Flask) -> None:
        app.json = Exact(app)

    door, seen = portal(change)
    assert post(door, b'{"price": 1.10}').status == 200
    assert str(seen[0]["price"]) == "1.10"


def _rewriting(environ: dict[str, Any]) -> dict[str, Any]:
    return {"wsgi.input": io.BytesIO(b'{"name": "Eve"}'), "CONTENT_LENGTH": "15"}


def _shortening(environ: dict[str, Any]) -> dict[str, Any]:
    return {"CONTENT_LENGTH": "4", "wsgi.input": io.BytesIO(b"1234")}


def _reading(environ: dict[str, Any]) -> dict[str, Any]:
    data = environ["wsgi.input"].read()
    return {"wsgi.input": io.BytesIO(data.replace(b"Ada", b"Eve"))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [(_rewriting, {"name": "Eve"}), (_shortening, 1234), (_reading, {**DOCUMENT, "name": "Eve"})],
)
def test_what_a_middleware_made_of_the_body_counts(changes: Callable[[Any], Any], expected: Any) -> None:
    """The view gets what it would read."""

    def change(app: flask.Flask) -> None:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner({**environ, **changes(environ)}, start)  # type: ignore[method-assign]

    door, seen = portal(change)
    assert post(door).status == 200
    assert {**seen[0], "seen": True} == {**expected, "seen": True} if isinstance(expected, dict) else seen == [expected]


def _by_setting(app: flask.Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 20


def _by_view(app: flask.Flask) -> None:
    @app.before_request
    def limit() -> None:
        flask.request.max_content_length = 20


@pytest.mark.parametrize("change", [_by_setting, _by_view])
def test_limits_of_the_application_hold(change: Callable[[flask.Flask], None]) -> None:
    """413 from the moment it is set, as without the shield."""
    door, seen = portal(change)
    assert (post(door).status, seen) == (413, [])
    assert (post(door, b'{"a": 1}').status, len(seen)) == (200, 1)


def test_a_type_that_flask_does_not_take_is_415() -> None:
    """The shield reads `text/json` as JSON; Flask does not."""
    settings = Settings.from_env(environment(BODY__CONTENT_TYPES="application/json,text/json"))
    app = flask.Flask(__name__)

    @app.post("/clients")
    def create() -> Any:
        return flask.jsonify(flask.request.get_json())

    Shield(app, settings=settings)
    headers = [("authorization", f"Bearer {mint_token(settings, tenant='north')}"), ("content-type", "text/json")]
    assert WsgiDoor(app).request("POST", "/clients", headers, b'{"a": 1}').status == 415


def test_a_request_that_outlives_its_context_still_gives_its_document() -> None:
    """A thread that was handed the request parses it, whoever else is served meanwhile."""
    found: Seen = []
    app = flask.Flask(__name__)

    @app.post("/clients")
    def create() -> str:
        at = flask.request._get_current_object()  # type: ignore[attr-defined]
        at.max_content_length = 1000
        thread = Thread(target=lambda: found.append(at.get_json()))
        thread.start()
        thread.join(5)
        return "done"

    Shield(app, settings=SETTINGS)
    assert post(WsgiDoor(app)).status == 200
    assert found == [DOCUMENT]
