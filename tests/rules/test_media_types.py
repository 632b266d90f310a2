"""Content types are read by the grammar or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules import media_types
from portalshield.rules.media_types import MediaType, matches, parse_media_type


def media(value: bytes) -> MediaType:
    parsed = parse_media_type(value)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("value", "essence", "parameters"),
    [
        pytest.param(b"application/json", "application/json", (), id="plain"),
        pytest.param(b"Application/JSON", "application/json", (), id="case"),
        pytest.param(b" text/html\t", "text/html", (), id="space-around"),
        pytest.param(b"text/html;charset=UTF-8", "text/html", (("charset", "UTF-8"),), id="parameter"),
        pytest.param(b'text/html ; Charset="utf-8"', "text/html", (("charset", "utf-8"),), id="quoted"),
        pytest.param(b"text/html;", "text/html", (), id="trailing-semicolon"),
        pytest.param(b"text/html;;a=b;", "text/html", (("a", "b"),), id="empty-parameters"),
        pytest.param(b'a/b;x="\\"q\\\\;"; y=1', "a/b", (("x", '"q\\;'), ("y", "1")), id="quoted-pairs"),
        pytest.param(b'a/b;x=""', "a/b", (("x", ""),), id="empty-quoted"),
        pytest.param(
            b"multipart/form-data; boundary=--x'y", "multipart/form-data", (("boundary", "--x'y"),), id="form"
        ),
        pytest.param(b"application/vnd.api+json", "application/vnd.api+json", (), id="suffix"),
    ],
)
def test_a_well_formed_value_is_parsed(value: bytes, essence: str, parameters: tuple[tuple[str, str], ...]) -> None:
    """Type and names in lower case, values as they came; the second answer equals the first."""
    for _ in range(2):
        parsed = media(value)
        assert (parsed.essence, parsed.parameters) == (essence, parameters)
        assert f"{parsed.type}/{parsed.subtype}" == essence


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"json",
        b"/json",
        b"application/",
        b"application /json",
        b"application/ json",
        b"application/json, text/plain",
        b"application/json text",
        b"application/json/x",
        b"*/*",
        b"application/*",
        b"a/b;c",
        b"a/b;=d",
        b"a/b;c=",
        b"a/b;c =d",
        b"a/b;c= d",
        b'a/b;c="d',
        b'a/b;c="d"e',
        b'a/b;c="d\\',
        b'a/b;c="\x00"',
        b'a/b;c="\n"',
        b"a/b;c=d;c=e",
        b"a/b;c=d;C=d",
        b"a/b;c=d e",
        b"a/b\x00",
        b"a/b\n",
        "text/plain;x=é".encode(),
        b"a/b;x=" + b"y" * 600,
    ],
)
def test_anything_else_is_no_media_type(value: bytes) -> None:
    """One field, one type, no guessing."""
    assert parse_media_type(value) is None
    assert parse_media_type(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"application/json", True),
        (b"APPLICATION/JSON; charset=utf-16", True),
        (b"text/json", True),
        (b"application/problem+json", True),
        (b"image/svg+json", True),
        (b"application/jsonp", False),
        (b"application/x-json", False),
        (b"text/plain", False),
        (b"application/xml", False),
    ],
)
def test_json_is_what_frameworks_parse_as_json(value: bytes, expected: bool) -> None:
    """`application/json`, `text/json` and `+json`."""
    assert media(value).is_json is expected


@pytest.mark.parametrize(
    ("value", "allowed", "expected"),
    [
        pytest.param(b"application/json", ("application/json",), True, id="exact"),
        pytest.param(b"application/json;charset=utf-8", ("application/json",), True, id="parameters-do-not-count"),
        pytest.param(b"application/json", ("Application/JSON",), True, id="list-in-capitals"),
        pytest.param(b"application/json", (), False, id="empty-list"),
        pytest.param(b"application/json", ("*",), True, id="star"),
        pytest.param(b"application/json", ("*/*",), True, id="any"),
        pytest.param(b"image/png", ("image/*",), True, id="range"),
        pytest.param(b"text/png", ("image/*",), False, id="other-type"),
        pytest.param(b"application/ld+json", ("application/*+json",), True, id="suffix"),
        pytest.param(b"text/ld+json", ("application/*+json",), False, id="suffix-of-another-type"),
        pytest.param(b"text/ld+json", ("*/*+json",), True, id="suffix-of-any-type"),
        pytest.param(b"application/json", ("application/*+json",), False, id="no-suffix"),
        pytest.param(b"application/+json", ("application/*+json",), False, id="suffix-alone"),
        pytest.param(b"application/jsonx", ("application/json",), False, id="longer"),
    ],
)
def test_a_list_has_types_and_ranges(value: bytes, allowed: tuple[str, ...], expected: bool) -> None:
    """Exact entries by equality, ranges by part; lists and tuples alike."""
    assert matches(media(value), allowed) is expected
    assert matches(media(value), list(allowed)) is expected


def test_a_parameter_is_found_by_name() -> None:
    """None where it is missing."""
    parsed = media(b"multipart/form-data; Boundary=Xy")
    assert parsed.parameter("boundary") == "Xy"
    assert parsed.parameter("charset") is None


def test_the_memo_is_bounded_and_keeps_no_junk() -> None:
    """Clients choose the values, so only a fixed number is kept."""
    for number in range(2000):
        parse_media_type(b"a/b%d" % number)
        parse_media_type(b"junk%d" % number)
    assert len(media_types._MEMO) <= 512
    assert not any(key.startswith(b"junk") for key in media_types._MEMO)


def test_equal_types_are_equal() -> None:
    """Values with the same content compare and hash alike."""
    assert media(b"a/b;x=1") == media(b'A/B; x="1"')
    assert hash(media(b"a/b;x=1")) == hash(media(b'A/B; x="1"'))
    assert media(b"a/b") != media(b"a/c")
    assert media(b"a/b") != "a/b"
    assert repr(media(b"a/b;x=1")) == "MediaType('a/b', (('x', '1'),))"


_TOKENS = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).filter(
    lambda t: t != "*"
)
_QUOTED = st.text("\t abcdef;,\"\\=/'", max_size=12)


@given(_TOKENS, _TOKENS, st.dictionaries(_TOKENS, _QUOTED, max_size=4))
def test_what_was_written_is_read_back(type: str, subtype: str, parameters: dict[str, str]) -> None:
    """Any type with quoted parameters survives."""
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    text = f"{type}/{subtype}" + "".join(f'; {name}="{value}"' for name, value in quoted.items())
    parsed = media(text.encode())
    assert (parsed.type, parsed.subtype, dict(parsed.parameters)) == (type, subtype, parameters)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_media_type_or_none(value: bytes) -> None:
    """Never an exception; tokens only."""
    parsed = parse_media_type(value)
    if parsed is not None:
        assert not set(parsed.essence) & set(' ;,"\t')
