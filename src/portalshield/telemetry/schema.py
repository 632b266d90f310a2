"""The JSON Schema of the request line, for whoever reads it: `LINE` as a document, draft 2020-12.

It says what may stand in a line, not only what usually does: closed sets, shapes of pseudonyms and ids, cut addresses.
A member that this version does not know is an error, and makes a new `schema` number.
"""

from __future__ import annotations

from typing import Any, Final

from portalshield.telemetry.lines import METHODS, SCHEMA

_SLUG: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}


def _or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


def _pseudonym(letter: str) -> dict[str, Any]:
    return _or_null({"type": "string", "pattern": f"^{letter}_[0-9a-f]{{16}}$"})


_NETWORK: Final = _or_null({"type": "string", "pattern": r"^(\d{1,3}\.\d{1,3}\.\d{1,3}\.0|[0-9a-f:]{2,17})$"})
_PROPERTIES: Final[dict[str, Any]] = {
    "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
    "level": {"enum": ["info", "warning", "error"]},
    "event": {"const": "http_request"},
    "request_id": {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"},
    "trace_id": _or_null({"type": "string", "pattern": "^[0-9a-f]{32}$"}),
    "method": {"enum": [*METHODS, "_OTHER"]},
    "route": {"type": "string", "maxLength": 1024},
    "status": {"type": "integer", "minimum": 0, "maximum": 999},
    "duration_ms": {"type": "number", "minimum": 0},
    "overhead_us": {"type": "number", "minimum": 0},
    "tenant": _pseudonym("t"),
    "subject": _pseudonym("u"),
    "actor": _pseudonym("u"),
    "auth": _or_null(_SLUG),
    "decision": {"enum": ["allowed", "refused", "would_refuse"]},
    "problem": _or_null(_SLUG),
    "layer": _or_null(_SLUG),
    "would_refuse": _or_null(
        {"type": "array", "items": {"type": "array", "items": _SLUG, "minItems": 2, "maxItems": 2}}
    ),
    "bytes_in": _or_null({"type": "integer", "minimum": 0}),
    "bytes_out": _or_null({"type": "integer", "minimum": 0}),
    "client_ip": _NETWORK,
    "why": _SLUG,
    "error": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$"},
    "over_budget": {"const": True},
    "replayed": {"const": True},
    "truncated": {"const": True},
    "schema": {"const": SCHEMA},
    "sample_rate": {"type": "number", "minimum": 0, "maximum": 1},
    "pseudonym_key_id": {"type": "string", "pattern": "^[0-9a-f]{6}$"},
    "release": {"type": "string"},
    "environment": {"type": "string"},
}
_SOMETIMES: Final = frozenset(("why", "error", "over_budget", "replayed", "truncated", "release", "environment"))

LINE: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": f"urn:portalshield:schema:http_request:{SCHEMA}",
    "title": "One request",
    "type": "object",
    "properties": _PROPERTIES,
    "required": [name for name in _PROPERTIES if name not in _SOMETIMES],
    "additionalProperties": False,
}
"""The schema; `json.dumps` writes it to a file."""
