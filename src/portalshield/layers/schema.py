"""Schemas: the body is validated before the handler runs (`body=Model`).

Refuses with 422: JSON pointers (RFC 6901) to what is wrong and a fixed text per kind of error, nothing of the input.
Unknown members are refused unless the model says otherwise (mass assignment). The bytes are handed on unchanged; a
handler may take the validated object instead of parsing again. Costs one validation straight from the bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from portalshield.model.exchange import Exchange
from portalshield.model.verdicts import Problem, Verdict, problem

_MAX_ERRORS = 50
_TEXTS = {
    "missing": "is required",
    "extra_forbidden": "is not expected here",
    "json_invalid": "is not valid JSON",
    "string_type": "must be a text",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "has the wrong form",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "is none of the allowed values",
    "enum": "is none of the allowed values",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "too_short": "has too few items",
    "too_long": "has too many items",
    "date_parsing": "must be a date",
    "datetime_parsing": "must be a date and time",
    "uuid_parsing": "must be a UUID",
}


class SchemaStage:
    """Validates against one pydantic type; the adapter is built once."""

    layer = "schema"

    def __init__(self, model: Any) -> None:
        self._validate = TypeAdapter(model).validate_json
        self._extra: Literal["forbid"] | None = None if _decides_extra(model) else "forbid"
        self._declared = _declared(model)

    def check(self, x: Exchange) -> Verdict:
        """422 with pointers, or keep the validated object."""
        try:
            x.payload = self._validate(x.body or b"", extra=self._extra)
        except ValidationError as error:
            return self._refusal(error)
        return None

    def _refusal(self, error: ValidationError) -> Problem:
        rows = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_ERRORS]
        errors = [
            {"pointer": self._pointer(row), "type": row["type"], "message": _TEXTS.get(row["type"], "is not valid")}
            for row in rows
        ]
        return problem("invalid-payload", why="schema", errors=errors)

    def _pointer(self, row: Any) -> str:
        """Ends at the last declared member: the name of an unexpected one is the client's input."""
        loc = row["loc"][:-1] if row["type"] == "extra_forbidden" else row["loc"]
        known = [part for part in loc if isinstance(part, int) or part in self._declared]
        return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in known)


def _decides_extra(model: Any) -> bool:
    return "extra" in getattr(model, "model_config", {})


def _declared(model: Any) -> frozenset[str]:
    """Every property name of the type's JSON schema: names the author chose, none of the client's."""
    found: set[str] = set()
    pending: list[Any] = [TypeAdapter(model).json_schema()]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                found |= set(properties)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return frozenset(found)
