"""Schemas: body and query are validated before the handler runs (`body=Model`, `query=Model`).

Refuses with 422: JSON pointers (RFC 6901) to what is wrong and a fixed text per kind of error, nothing of the input.
Unknown members and parameters are refused unless the model says otherwise (mass assignment). The bytes are handed on
unchanged; a handler may take the validated object instead of parsing again. Costs one validation straight from the
bytes.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core.core_schema import ErrorType

from portalshield.model.exchange import UNREAD, Exchange
from portalshield.model.verdicts import Problem, Verdict, problem
from portalshield.rules.query import QueryFault, read_query

_MAX_ERRORS = 50
_TYPES = frozenset((*get_args(ErrorType), "multiple_values"))
"""Types of errors that are nobody's input; a validator's own might be."""
_TEXTS = {
    "missing": "is required",
    "multiple_values": "is given more than once",
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
    """Validates the body against one pydantic type; the adapter is built once."""

    layer = "schema"

    def __init__(self, model: Any) -> None:
        self._shape = _Shape(model)
        self._validate = self._shape.adapter.validate_json

    def check(self, x: Exchange) -> Verdict:
        """422 with pointers, or keep the validated object."""
        try:
            x.payload = self._validate(x.body or b"", extra=self._shape.extra)
        except ValidationError as error:
            return self._shape.refusal(error, _document(x))
        return None


class QueryStage:
    """Validates the query against one pydantic type.

    A parameter that comes twice is one error, unless the type declares a list. `keeps`: nothing else of the request is
    validated, so a handler may take this object.
    """

    layer = "schema"

    def __init__(self, model: Any, *, keeps: bool) -> None:
        self._shape = _Shape(model)
        self._keeps = keeps

    def check(self, x: Exchange) -> Verdict:
        """400 for a query that is none, 422 with pointers, or keep the validated object."""
        try:
            given = read_query(x.query)
        except QueryFault as fault:
            return problem("malformed-request", why=f"query-{fault.code}")
        single, lists = self._shape.single, self._shape.lists
        doubled = [name for name, values in given.items() if len(values) > 1 and name in single]
        if doubled:
            return _refusal([_error(_escaped(name), "multiple_values") for name in doubled])
        query = {name: values if name in lists else values[0] for name, values in given.items()}
        try:
            # Everything here is text: a model that is strict elsewhere cannot be so in a query.
            found = self._shape.adapter.validate_python(query, strict=False, extra=self._shape.extra)
        except ValidationError as error:
            return self._shape.refusal(error, query)
        if self._keeps:
            x.payload = found
        return None


class _Shape:
    """What is known of one pydantic type before the first request."""

    def __init__(self, model: Any) -> None:
        self.adapter: TypeAdapter[Any] = TypeAdapter(model)
        self.extra: Literal["forbid"] | None = None if _decides_extra(model) else "forbid"
        schema = _json_schema(self.adapter)
        self._declared = _declared(schema)
        properties = _resolved(schema, schema).get("properties", {})
        self.lists = frozenset(name for name, member in properties.items() if _is_list(member, schema))
        self.single = frozenset(properties) - self.lists

    def refusal(self, error: ValidationError, document: Any) -> Problem:
        """The errors as 422. `document`: what was validated, to tell members from the names of union branches."""
        rows = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_ERRORS]
        return _refusal([_error(self._pointer(row, document), row["type"]) for row in rows])

    def _pointer(self, row: Any, document: Any) -> str:
        """Ends at the last declared member: any other name on the way is the client's input."""
        loc = row["loc"][:-1] if row["type"] == "extra_forbidden" else row["loc"]
        pointer = ""
        node = document
        for part in loc:
            if isinstance(node, list):
                if not isinstance(part, int):
                    continue
                pointer += f"/{part}"
                node = node[part] if part < len(node) else None
            elif isinstance(node, dict) and (part in node or (row["type"] == "missing" and part == loc[-1])):
                if part not in self._declared:
                    break
                pointer += _escaped(str(part))
                node = node.get(part)
        return pointer


def _document(x: Exchange) -> Any:
    if x.json is not UNREAD:
        return x.json
    try:
        return json.loads(x.body or b"")
    except (ValueError, RecursionError):
        return None


# -- answers ----------------------------------------------------------------------------------------------------------


def _refusal(errors: list[dict[str, str]]) -> Problem:
    return problem("invalid-payload", why="schema", errors=errors)


def _error(pointer: str, type: str) -> dict[str, str]:
    known = type if type in _TYPES else "value_error"
    return {"pointer": pointer, "type": known, "message": _TEXTS.get(known, "is not valid")}


def _escaped(name: str) -> str:
    """One segment of a pointer (RFC 6901, 3)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


# -- what a type declares ---------------------------------------------------------------------------------------------


def _decides_extra(model: Any) -> bool:
    return "extra" in getattr(model, "model_config", {})


def _json_schema(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    try:
        return adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        return {}  # a type of the author's own: it validates, but its pointers name nothing


def _declared(schema: dict[str, Any]) -> frozenset[str]:
    """Every property name of a JSON schema: names the author chose, none of the client's."""
    found: set[str] = set()
    pending: list[Any] = [schema]
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


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    found: dict[str, Any] = schema.get("$defs", {}).get(name, node)
    return found


def _is_list(member: dict[str, Any], schema: dict[str, Any]) -> bool:
    """A list, or a list or nothing."""
    branches = [_resolved(branch, schema) for branch in (member, *member.get("anyOf", ()))]
    return any(branch.get("type") == "array" for branch in branches)
