"""What passes strict JSON means the same to every parser behind it, and none of them shows a tenant that we do not.

500 examples in an ordinary run, 20,000 with HYPOTHESIS_PROFILE=nightly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, quote_plus

import orjson
import pydantic_core
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from starlette.datastructures import FormData, Headers
from starlette.formparsers import FormParser as StarletteParser
from werkzeug.formparser import FormDataParser as WerkzeugParser

from portalshield.rules.addressed import in_query
from portalshield.rules.body_ids import in_body
from portalshield.rules.query import QueryFault, read_query
from portalshield.rules.strict_json import JSONFault, parse

NAMES = frozenset(("tenant_id", "orgId"))
MANY = settings(max_examples=20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 500)
WIDEST = 2**64
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "json": json.loads,
    "orjson": orjson.loads,
    "pydantic": TypeAdapter(Any).validate_json,
    "pydantic_core": pydantic_core.from_json,
}


# -- documents --------------------------------------------------------------------------------------------------------

WORDS = [
    "tenant_id",
    "orgId",
    "tenant\\u005fid",
    "org\\u0049d",
    "\\u0074enant_id",
    "a",
    "",
    "\\ud83d\\ude00",
    "é",
    "\\/",
]
SCALARS = [
    *('"north"', '"south"', '"\\u006eorth"', "7", "-0", "0.1", "1e3", "1E-400", "5e-324", "1e308", "-1.0", "null"),
    *("18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "0.1" + "0" * 20 + "1"),
    *("true", '"\\u0000"', '"\x7f"', '"\\u2028"', '"tenant_id"', "{}", "[]", '"\\ud83d\\ude00"', '"a:b"', '"\\u003a"'),
]
ODD = ["NaN", "Infinity", "1e400", "01", "1.", '"\\ud800"', '"\x01"', "'a'", '{"a":1,"a":2}', "1" * 4301]
SPLICED = [b"\xff", b"\0", b",", b"]", b'"', b"\\", b"{", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"x", b""]
BLANKS = ["", "", "", " ", "\n", "\t", "\r\n"]


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON as text, with what parsers disagree on here and there."""
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "object", "object", "patch"])) if depth else "scalar"
    blank = draw(st.sampled_from(BLANKS))
    if kind == "scalar":
        return blank + draw(st.sampled_from(ODD if draw(st.integers(0, 19)) == 0 else SCALARS))
    if kind == "patch":
        path = draw(st.sampled_from(["/tenant_id", "/a/0/orgId", "/note", "/tenant_id/x"]))
        return blank + '{"op":"replace","path":"' + path + '","value":' + draw(texts(depth=0)) + "}"
    inner = draw(st.lists(texts(depth=depth - 1), max_size=4))
    if kind == "array":
        return blank + "[" + ",".join(inner) + "]" + blank
    members = [f'"{draw(st.sampled_from(WORDS))}"{blank}:{value}' for value in inner]
    return blank + "{" + ",".join(members) + "}"


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A text in some encoding, now and then with something spliced in."""
    text = draw(texts())
    encoding = draw(st.sampled_from(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "utf-32-le"]))
    data = text.encode(encoding, "replace")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        piece = draw(
            st.sampled_from([b"\xff", b"\0", b",", b"]", b'"', b"\\", b"{", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"x"])
        )
        data = data[:at] + piece + data[at + draw(st.integers(0, 1)) :]
    return data


def exactly(value: Any) -> str:
    """Types and values, the order of members included; a float by its bits."""
    return repr(value)


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of one of the names, the plain way."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in NAMES:
                yield name, inner
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)


def integers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from integers(inner)
    elif type(value) is int:
        yield value


@MANY
@given(documents() | st.binary(max_size=12))
@example(b'{"tenant_id":"north","tenant\\u005fid":"south"}')
@example(b'[{"orgId":1},{"orgId":2}]')
@example(b'{"a":1E-400,"b":-0,"c":-0.0}')
def test_all_parsers_agree(data: bytes) -> None:
    """For any document that passes: json, orjson, pydantic and we see one value (integers within 64 bit) and no tenant
    that our walk did not see; it can be written again."""
    try:
        ours = parse(data, max_depth=32, max_keys=1000, max_items=1000)
    except JSONFault:
        event("refused")
        return
    event("passed")
    narrow = all(-WIDEST // 2 <= number < WIDEST for number in integers(ours))
    seen = [exactly(found) for found in in_body(data, ours, b"application/json", NAMES)]
    for name, read in PARSERS.items():
        value = read(data)
        if narrow or name != "orjson":
            assert exactly(value) == exactly(ours), name
            assert {exactly(found) for found in members(value)} <= set(seen), name
    assert exactly(json.loads(json.dumps(ours, allow_nan=False).encode("utf-8"))) == exactly(ours)


# -- forms and queries ------------------------------------------------------------------------------------------------

PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["tenant_id", "orgId", "tenant%5Fid", "tenant_id ", "TENANT_ID", "a", "", "%", "%zz", "\xe9"]),
        st.sampled_from(["=", "=", "=", "", "=="]),
        st.sampled_from(["north", "south", "a+b", "%6eorth", "%FF", "", "=", "%00", "\xe9", "%ed%a0%80"]),
        st.sampled_from(["&", "&", "&", ";", "&&", "&;"]),
    ),
    max_size=6,
).map(lambda rows: "".join("".join(row) for row in rows).encode("latin-1"))  # fmt: skip


def starlette_form(data: bytes) -> list[tuple[str, Any]]:
    async def stream() -> Any:
        yield data
        yield b""

    parsing = StarletteParser(Headers(), stream()).parse()
    try:
        parsing.send(None)
    except StopIteration as stop:
        found: FormData = stop.value
        return found.multi_items()
    raise AssertionError("the parser waits")


def werkzeug_form(data: bytes) -> list[tuple[str, str]]:
    _, form, _ = WerkzeugParser().parse(BytesIO(data), "application/x-www-form-urlencoded", len(data), {})
    return list(form.items(multi=True))


@MANY
@given(PAIRS)
def test_no_form_hides_a_tenant(data: bytes) -> None:
    """What Starlette, Werkzeug or the standard library find under a name that matters, we find, too; bytes that are no
    text each spells in its own way, and for us they are nobody's id."""
    ours = set(in_query(data, NAMES))
    unreadable = {(name, "\ufffd") for name, value in ours if "\ufffd" in value}
    for read in (starlette_form, werkzeug_form, _plain):
        for found in read(data):
            assert found[0] not in NAMES or found in ours or (found[0], "\ufffd") in unreadable, read.__name__


def _plain(data: bytes) -> Iterable[tuple[str, str]]:
    return parse_qsl(data.decode("latin-1"), keep_blank_values=True)


@MANY
@given(PAIRS)
def test_a_query_that_passes_is_the_frameworks_query(data: bytes) -> None:
    """The same names and values, in the same order."""
    try:
        ours = read_query(data)
    except QueryFault:
        return
    if data.isascii():
        theirs: dict[str, list[str]] = {}
        for name, value in parse_qsl(data.decode("ascii"), keep_blank_values=True):
            theirs.setdefault(name, []).append(value)
        assert ours == theirs


@given(st.dictionaries(st.text(max_size=8), st.lists(st.text(max_size=8), min_size=1, max_size=3), max_size=5))
def test_any_text_comes_through_a_query(wanted: dict[str, list[str]]) -> None:
    """As it was encoded."""
    pairs = [(name, value) for name, values in wanted.items() for value in values]
    query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs)
    assert read_query(query.encode("ascii")) == wanted


def _quoted(text: str) -> str:
    return quote_plus(text.encode("utf-8", "replace"))


@pytest.mark.parametrize(
    ("query", "code"),
    [(b"&" * 1000, "too-many-parameters"), (b"a=%ff", "not-utf8"), (b"%ed%a0%80=1", "not-utf8"), (b"\xff", "not-utf8")],
)
def test_a_query_that_is_none(query: bytes, code: str) -> None:
    """Too many parameters, no UTF-8."""
    with pytest.raises(QueryFault, match=code):
        read_query(query)
    assert len(read_query(b"&".join(b"a%d=1" % number for number in range(1000)))) == 1000
