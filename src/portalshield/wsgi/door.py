"""The WSGI door: one wrapper around the application (PEP 3333).

The same walk as the ASGI door, driven synchronously. Blocks pass one by one, `close()` is called exactly once, a
`wsgi.file_wrapper` reaches the server unchanged. A read cannot be interrupted here: slow bodies are the server's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from portalshield.context import CURRENT, MARK
from portalshield.model.exchange import Exchange
from portalshield.opening import Opening, nobody, unopened
from portalshield.protection import Protected, Protection, protection_of
from portalshield.runtime import BODYLESS_METHODS, RequestIds, Runtime
from portalshield.wire import reason
from portalshield.wsgi.answers import Response, apart
from portalshield.wsgi.bodies import admit_body, announces
from portalshield.wsgi.fields import EnvironHeaders, measured, path_of
from portalshield.wsgi.walking import judge

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ids = RequestIds()


class WsgiDoor:
    """The outer door. `open_runtime` compiles the application when the first request arrives, never before.

    `steps_aside` is asked where a door further out has judged the request already.
    """

    def __init__(
        self,
        app: WSGIApplication,
        open_runtime: Callable[[], Runtime],
        *,
        steps_aside: Callable[[Runtime], bool] = nobody,
    ) -> None:
        self.app = app
        self._steps_aside = steps_aside
        self._opening = Opening(open_runtime)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request of the server."""
        if MARK in environ:
            outer = environ[MARK].runtime
            if outer is None or self._steps_aside(outer):
                return self.app(environ, start_response)
            environ = dict(environ)  # the outer one keeps its own
        began = perf_counter_ns()
        runtime = self._opening.runtime or self._opening.attempt(several=bool(environ.get("wsgi.multiprocess")))
        if runtime is None:
            return _refuse_unopened(environ, start_response)
        x, judged = _exchange(environ, runtime, began)
        del environ  # error reports show the locals of every frame: the credential is in there
        token = CURRENT.set(x)
        response = Response(x, runtime, start_response)
        response.token = token
        verdict = judge(x, runtime, judged)
        if verdict is not None:
            x.verdict = verdict
            return response.refuse(verdict)
        if x.walk is None:
            admit_body(x)
        x.entered_ns = perf_counter_ns()
        try:
            response.blocks = self.app(x.native, response.start)
            file_wrapper = x.native.get("wsgi.file_wrapper") if x.native is not None else None
            if x.late is None and isinstance(file_wrapper, type) and isinstance(response.blocks, file_wrapper):
                # The server recognises its own wrapper by type and sends the file itself.
                response.handed_over()
                return response.blocks
            response.settle_early()
        except Exception as error:
            return apart(response.rescued(error), x, token)
        except BaseException:
            response.finish()
            raise
        return apart(response, x, token)


def _refuse_unopened(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    accept = environ.get("HTTP_ACCEPT", "").encode("latin-1", "replace")
    status, fields, body = unopened(_ids.draw(), environ["REQUEST_METHOD"], accept)
    start_response(reason(status), [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields])
    return [body]


def _exchange(environ: WSGIEnvironment, runtime: Runtime, began_ns: int) -> tuple[Exchange, Any]:
    x = Exchange()
    x.native = environ
    x.runtime = runtime
    x.headers = EnvironHeaders(environ)
    x.method = environ["REQUEST_METHOD"]
    script = environ.get("SCRIPT_NAME", "")
    x.path = path_of(script + environ.get("PATH_INFO", ""))
    if script:
        rest = path_of(environ.get("PATH_INFO", ""))
        x.rest = rest if rest.startswith("/") else f"/{rest}"  # as frameworks read one that was cut elsewhere
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    x.raw_path = raw.partition("?")[0].encode("latin-1", "replace") if raw else None
    x.query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
    x.https = environ.get("wsgi.url_scheme") == "https"
    x.peer = environ.get("REMOTE_ADDR") or None
    x.request_id = _ids.draw()
    x.began_ns = began_ns
    x.now = time.time()
    length = environ.get("CONTENT_LENGTH")
    if length or "HTTP_TRANSFER_ENCODING" in environ:
        x.has_body = length != "0" or "HTTP_TRANSFER_ENCODING" in environ
    elif environ.get("CONTENT_TYPE") and x.method not in BODYLESS_METHODS:
        x.has_body = not announces(environ) and bool(environ.get("wsgi.input_terminated"))
    fields, size = measured(environ)
    environ[MARK] = x
    return x, runtime.begin(x, fields, size, False)


class ShieldMiddleware:
    """For any WSGI application: `app.wsgi_app = ShieldMiddleware(app.wsgi_app)`; `shield=None`: the environment."""

    def __init__(self, app: WSGIApplication, shield: Protected | None = None) -> None:
        protection: Protection = protection_of(shield)
        aside = protection.aside(app, told=shield is not None)
        self._door = WsgiDoor(app, protection.open_opaque, steps_aside=aside)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        return self._door(environ, start_response)
