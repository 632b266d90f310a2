"""No cookie, form or text in a text hides a tenant from us that a framework finds."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import cookie_parser
from werkzeug.http import parse_cookie

from portalshield.model.exchange import UNREAD
from portalshield.rules.addressed import MAX_LAYERS, TooManyPairsError, in_cookies, in_form, in_strings, names_occur
from portalshield.rules.body_ids import in_body
from portalshield.rules.strict_json import parse

NAMES = frozenset(("tenant_id",))
_INNER = '{"tenant_id":"south"}'
_COOKIE_PIECES = (
    *("tenant_id", "f", "=", "=", ";", "; ", '"', "south", "north", "\\", '\\"', "\\073", "\\163outh", "\xff"),
    *("\xa0", "\x85", "\x1f", "\x0b", " ", "\t", "\xc2\xa0", _INNER, _INNER.replace('"', '\\"')),
    '"{\\"a\\":\\";\\",\\"tenant_id\\":\\"south\\"}"',
    json.dumps([{"x": _INNER}], separators=(",", ":")),
)


def tenants(text: str) -> list[Any]:
    """What a handler may find that strips a text, reads it as JSON and looks everywhere."""
    try:
        left = [json.loads(text.strip())]
    except ValueError:
        return []
    found = []
    for value in left:
        if isinstance(value, dict):
            found += [value["tenant_id"]] if "tenant_id" in value else []
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            found += tenants(value)
    return found


def is_foreign(pairs: list[tuple[str, str]]) -> bool:
    """A handler finds the other tenant in a parameter or in JSON."""
    return any((name == "tenant_id" and value == "south") or "south" in tenants(value) for name, value in pairs)


@given(st.lists(st.sampled_from(_COOKIE_PIECES), min_size=2, max_size=12).map("".join))
def test_no_cookie_hides_a_tenant(field: str) -> None:
    """As Starlette and as Werkzeug read it."""
    read = list(cookie_parser(field).items())
    with suppress(UnicodeDecodeError):  # Flask has no cookies then
        read += parse_cookie(field).items(multi=True)
    data = field.encode("latin-1")
    if is_foreign(read):
        assert names_occur(data, (b"tenant_id",))
        assert any(value != "north" for _, value in in_cookies(data, NAMES))


def old_form(data: str) -> list[tuple[str, str]]:
    """As python-multipart before 0.0.30 reads a form: at a `;` where no `&` follows, and blank at either."""
    found, rest = [], data.lstrip("&;")
    while rest:
        end = next((at for at in (rest.find("&"), rest.find(";")) if at != -1), len(rest))
        name, _, value = rest[:end].partition("=")
        found.append((name, value))
        rest = rest[end:].lstrip("&;")
    return found


_FORM_PIECES = (
    "tenant_id",
    "f",
    "=",
    "=",
    "=",
    ";",
    ";",
    "&",
    "south",
    "north",
    _INNER,
    '{"a":";","tenant_id":"south"}',
)


@given(st.lists(st.sampled_from(_FORM_PIECES), min_size=2, max_size=12).map("".join))
def test_no_semicolon_hides_a_tenant(data: str) -> None:
    """`cut` gives every value that the old parser finds; without it whatever matters is still seen."""
    read = old_form(data)
    cut = list(in_form(data.encode(), NAMES, cut=True))
    assert {pair for pair in read if pair[0] == "tenant_id"} <= set(cut)
    if is_foreign(read):
        assert any(value != "north" for _, value in in_form(data.encode(), NAMES))


trees = st.recursive(
    st.none() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(trees, st.integers(1, MAX_LAYERS), st.booleans(), st.booleans())
def test_no_text_in_a_text_hides_a_tenant(tree: Any, times: int, ascii_only: bool, strict: bool) -> None:
    """However often it is wrapped, and by whichever serialiser; strictly parsed or not."""
    document: Any = [tree, {"tenant_id": "south"}]
    for _ in range(times):
        document = {"f": json.dumps(document, ensure_ascii=ascii_only), "x": tree}
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "replace")
    parsed = parse(body, max_depth=99, max_keys=9999, max_items=9999) if strict else UNREAD
    assert ("tenant_id", "south") in in_body(body, parsed, b"application/json", NAMES)


def test_texts_have_bounds() -> None:
    """Number and depth; a long number is no id, and no end of the look."""
    with pytest.raises(TooManyPairsError):
        list(in_strings([_INNER] * 1001, NAMES))
    with pytest.raises(TooManyPairsError):
        list(in_strings('{"tenant_id":' + "[" * 5000 + "]" * 5000 + "}", NAMES))
    assert ("tenant_id", "south") in list(in_strings('{"x":' + "1" * 5000 + ',"tenant_id":"south"}', NAMES))
    assert list(in_strings(["{", '["tenant_id"', '{"tenant_id":"south"} x', "tenant_id"] * 400, NAMES)) == []
