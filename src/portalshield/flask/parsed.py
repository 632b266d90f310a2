"""JSON that was judged is not parsed again."""

from __future__ import annotations

from functools import cache
from io import SEEK_END
from typing import Any, cast
from weakref import ref

from flask import Flask, Request
from flask.json.provider import DefaultJSONProvider

from portalshield.model.exchange import Exchange
from portalshield.rules.media_types import parse_media_type
from portalshield.wsgi.bodies import holds_body


class JudgedJson(tuple[Any, Any]):
    """Stands where a request keeps the JSON that it has parsed: once somebody asks for that, it is the value that was
    judged, if `get_json` would read this very body with the standard parser, which finds the same value."""

    _app: Flask
    _x: Exchange
    _at: ref[Request]

    def __new__(cls, app: Flask, x: Exchange, at: Request) -> JudgedJson:
        """For one request, which keeps it: it does not keep the request."""
        self = super().__new__(cls, (..., ...))
        self._app, self._x, self._at = app, x, ref(at)
        return self

    def __getitem__(self, silent: Any) -> Any:
        """The value, or the mark of one that was not parsed yet."""
        at, x = self._at(), self._x
        if at is None or not _would_parse_the_same(self._app, x, at):
            return ...
        at._cached_json = (x.json, x.json)
        at._cached_data = x.body or b""
        at.environ["wsgi.input"].seek(0, SEEK_END)  # as if it had been read
        return x.json


def _would_parse_the_same(app: Flask, x: Exchange, at: Request) -> bool:
    own = vars(at)
    media = parse_media_type(at.environ.get("CONTENT_TYPE", "").encode("latin-1", "replace"))
    most = own.get("_max_content_length")
    most = app.config["MAX_CONTENT_LENGTH"] if most is None else most
    return (
        holds_body(at.environ, x.body)
        and _reads_as_flask_does(cast(Any, type(at)))
        and media is not None
        and media.type == "application"
        and media.is_json
        and "_cached_data" not in own
        and at.json_module is app.json
        and type(app.json).loads is DefaultJSONProvider.loads
        and "loads" not in vars(app.json)
        and (most is None or most >= len(x.body or b""))
    )


@cache
def _reads_as_flask_does(kind: Any) -> bool:
    """A class of requests that has no way of its own to get at the body."""
    return all(getattr(kind, name) is getattr(Request, name) for name in _READING)


_READING = ("get_data", "data", "stream", "input_stream", "is_json", "mimetype", "max_content_length")
