"""Refusals on the wire: `application/problem+json` (RFC 9457), for page loads a small static page.

The bodies are built at start from the catalogue; only the request id differs between two answers of one kind.
"""

from __future__ import annotations

from html import escape
from http import HTTPStatus

import orjson

from portalshield.model.verdicts import CATALOGUE, Problem, ProblemType, Reply

Rendered = tuple[int, list[tuple[bytes, bytes]], bytes]

_NO_STORE = (b"cache-control", b"no-store")
_PROBLEM = (b"content-type", b"application/problem+json")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_BODYLESS = frozenset((204, 304))


def _opening(kind: ProblemType) -> bytes:
    members = {"type": f"urn:portalshield:problem:{kind.slug}", "title": kind.title, "status": kind.status}
    return orjson.dumps(members)[:-1] + b',"request_id":"'


def _page(kind: ProblemType) -> bytes:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(kind.title)}</title>'
        f"<h1>{escape(kind.title)}</h1><p>{kind.status}. Reference: <code>"
    ).encode()


_OPENINGS = {slug: _opening(kind) for slug, kind in CATALOGUE.items()}
_PAGES = {slug: _page(kind) for slug, kind in CATALOGUE.items()}


def render(verdict: Problem | Reply, request_id: str, accept: bytes | None) -> Rendered:
    """Status, header fields and body of a refusal or an early answer. `Accept: text/html` gets the page."""
    if isinstance(verdict, Reply):
        fields = list(verdict.fields)
        if verdict.status not in _BODYLESS:
            fields.append((b"content-length", b"%d" % len(verdict.body)))
        return verdict.status, fields, verdict.body
    if accept is not None and wants_page(accept):
        opening, closing, kind = _PAGES[verdict.type.slug], b"</code></p></html>", _HTML
    else:
        opening, closing, kind = _OPENINGS[verdict.type.slug], verdict.ready or _prepared(verdict), _PROBLEM
    body = opening + request_id.encode() + closing
    return verdict.type.status, [kind, (b"content-length", b"%d" % len(body)), _NO_STORE, *verdict.fields], body


def _prepared(verdict: Problem) -> bytes:
    """The end of its document. Most refusals are the same few values again and again: it is made once for each."""
    members = orjson.dumps(dict(verdict.members))[1:-1] if verdict.members else b""
    closing = b'"' + (b"," + members if members else b"") + b"}"
    object.__setattr__(verdict, "ready", closing)
    return closing


def wants_page(accept: bytes) -> bool:
    """A browser's page load: it names text/html, an API client does not."""
    return b"text/html" in accept


def reason(status: int) -> str:
    """The status line's text for WSGI: `404 Not Found`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Status"
