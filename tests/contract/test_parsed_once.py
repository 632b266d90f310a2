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


def _consuming(environ: dict[str, Any]) -> dict[str, Any]:
    environ["wsgi.input"].read(1)
    return {"CONTENT_LENGTH": "1"}


@pytest.mark.parametrize(
    ("body", "changes", "expected"),
    [
        pytest.param(b'{"name": "Ada"}', _rewriting, {"name": "Eve"}, id="another body"),
        pytest.param(b"12345678", _shortening, 1234, id="a shorter one"),
        pytest.param(b'"Ada"', _reading, "Eve", id="another text"),
        pytest.param(b"12", _consuming, 2, id="one that was read in part"),
    ],
)
def test_what_a_middleware_made_of_the_body_counts(body: bytes, changes: Callable[[Any], Any], expected: Any) -> None:
    """The view gets what it would read."""

    def change(app: flask.Flask) -> None:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner({**environ, **changes(environ)}, start)  # type: ignore[method-assign]

    door, seen = portal(change)
    assert post(door, body).status == 200
    found = seen[0]
    assert ({**found, "seen": True} if isinstance(found, dict) else found) == (
        {**expected, "seen": True} if isinstance(expected, dict) else expected
    )


def test_what_was_parsed_before_stays() -> None:
    """A preprocessor may have asked for the document, and have written into it."""

    def change(app: flask.Flask) -> None:
        @app.url_value_preprocessor
        def before(endpoint: str | None, values: dict[str, Any] | None) -> None:
            flask.request.get_json()["added"] = 1

    door, seen = portal(change)
    assert post(door).status == 200
    assert seen == [{**DOCUMENT, "added": 1, "seen": True}]


class Unsealing(flask.Request):
    """Gets at its body in a way of its own."""

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        """What stands in the envelope."""
        return json.dumps(json.loads(super().get_data(*args, **kwargs))["sealed"]).encode()


def test_a_request_that_reads_in_its_own_way_still_does() -> None:
    """The envelope was judged; what the view gets is the application's business, as ever."""

    def change(app: flask.Flask) -> None:
        app.request_class = Unsealing

    door, seen = portal(change)
    assert post(door, b'{"sealed": [1, 2]}').status == 200
    assert seen == [[1, 2]]


def test_data_that_was_put_there_counts() -> None:
    """By a preprocessor, for whoever asks later."""

    def change(app: flask.Flask) -> None:
        @app.before_request
        def before() -> None:
            flask.request._cached_data = b'["other"]'

    door, seen = portal(change)
    assert post(door, b'["this"]').status == 200
    assert seen == [["other"]]


def test_a_parser_that_was_given_to_one_request_is_asked() -> None:
    """Whoever put it there wants its values."""

    class Shouting:
        @staticmethod
        def loads(data: bytes) -> Any:
            return json.loads(data.upper())

    def change(app: flask.Flask) -> None:
        @app.before_request
        def before() -> None:
            flask.request.json_module = Shouting

    door, seen = portal(change)
    assert post(door, b'["ada"]').status == 200
    assert seen == [["ADA"]]


def _by_setting(app: flask.Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 20


def _by_view(app: flask.Flask) -> None:
    @app.before_request
    def limit() -> None:
        flask.request.max_content_length = 20


SETTABLE = flask.Request.max_content_length.fset is not None
"""From Flask 3.1 on a view may set the limit of one request."""


@pytest.mark.parametrize("change", [_by_setting, _by_view] if SETTABLE else [_by_setting])
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


def test_a_thread_without_a_context_may_ask_for_the_document() -> None:
    """A request that was handed to it knows all it needs (its limit, too: the setting lies in the context)."""
    found: Seen = []
    app = flask.Flask(__name__)

    @app.post("/clients")
    def create() -> str:
        at = flask.request._get_current_object()  # type: ignore[attr-defined]
        if SETTABLE:
            at.max_content_length = 1000
        thread = Thread(target=lambda: found.append(at.get_json()))
        thread.start()
        thread.join(5)
        return "done"

    Shield(app, settings=SETTINGS)
    assert post(WsgiDoor(app)).status == 200
    assert found == [DOCUMENT]


def test_a_body_that_gave_its_document_is_read() -> None:
    """Nothing is left in the stream, and the bytes are kept, as if the request had parsed them itself."""
    app, found = flask.Flask(__name__), []

    @app.post("/clients")
    def create() -> str:
        request = flask.request
        found.append((request.get_json(), request.stream.read(), request.get_data(), request.data))
        return "done"

    Shield(app, settings=SETTINGS)
    assert post(WsgiDoor(app), b"[1]").status == 200
    assert found == [([1], b"", b"[1]", b"[1]")]
