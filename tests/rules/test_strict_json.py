"""Strict JSON: what passes means the same to every parser, and nothing hides from the walk."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from portalshield.rules.strict_json import DEEPEST, JSONFault, mentions, parse, walk

NAMES = frozenset(("tenant_id", "tenantId", "org_id"))


def parsed(data: bytes, max_depth: int = 32, max_keys: int = 1000, max_items: int = 1000) -> Any:
    return parse(data, max_depth=max_depth, max_keys=max_keys, max_items=max_items)


def fault(data: bytes, **bounds: int) -> str:
    with pytest.raises(JSONFault) as caught:
        parsed(data, **bounds)
    assert str(caught.value) == caught.value.code
    return caught.value.code


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        " [ ] ",
        "\t{\r\n}",
        "0",
        "-0",
        "-0.0",
        "1e2",
        "1E-400",
        "0.1",
        "1.7976931348623157e308",
        '""',
        '"\\u0041\\n\\"\\\\\\/"',
        '"\\ud83d\\ude00"',
        '"é日本😀\u2028\x7f"',
        '{"a":{"b":[1,2,{"c":null}]}}',
        '{"":0}',
        '{"a":":","b":"a:b"}',
        '{"a":"\\u003a"}',
        '[{"a":1},{"a":2}]',
        '{"a":{"a":{"a":1}}}',
        '{"a":"{\\"a\\":1}","b":"]]]]}}}}"}',
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "[1234567890123456789012345678901234567890]",
        "0.30000000000000000000000000000004",
        '"12345678901234567890123"',
        '"2026-11-25T08:29:00Z"',
    ],
)
def test_ordinary_documents_pass(text: str) -> None:
    """Value and types are those of `json.loads`."""
    assert repr(parsed(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("number", [10**18 + 1, 10**19 - 1, -(10**18) - 1, 10**19 + 1, 2**64 + 1, -(2**63) - 1])
@pytest.mark.parametrize("at", range(21))
def test_long_integers_are_found_wherever_they_stand(number: int, at: int) -> None:
    """Only every third byte is looked at first: at each of them, and with nothing else behind, they come out exact."""
    for text in (f'["{"x" * at}",{number}]', f"[{' ' * at}{number}]", " " * at + str(number)):
        assert repr(parsed(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("digits", [20, 308, 309, 400, 4300])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_come_out_exact(digits: int, sign: str) -> None:
    """Up to 4,300 digits, no float in between."""
    text = sign + "7" * digits
    assert parsed(f'{{"n": [{text}, 1.5]}}'.encode()) == {"n": [int(text), 1.5]}


REFUSED = [
    pytest.param(b"", "syntax", id="empty"),
    pytest.param(b"  ", "syntax", id="blank"),
    pytest.param(b"{", "syntax", id="open-object"),
    pytest.param(b"[1,]", "syntax", id="trailing-comma"),
    pytest.param(b"[1 2]", "syntax", id="missing-comma"),
    pytest.param(b"{'a':1}", "syntax", id="single-quotes"),
    pytest.param(b"{a:1}", "syntax", id="bare-name"),
    pytest.param(b"{1:1}", "syntax", id="number-as-name"),
    pytest.param(b"[1] x", "syntax", id="garbage-behind"),
    pytest.param(b"[1][2]", "syntax", id="two-values"),
    pytest.param(b"1\x00", "syntax", id="nul-behind"),
    pytest.param(b"\x00", "syntax", id="nul"),
    pytest.param(b"01", "syntax", id="leading-zero"),
    pytest.param(b"+1", "syntax", id="plus"),
    pytest.param(b"1.", "syntax", id="bare-point"),
    pytest.param(b".5", "syntax", id="point-first"),
    pytest.param(b"0x1", "syntax", id="hexadecimal"),
    pytest.param(b"1_000", "syntax", id="underscore"),
    pytest.param("١".encode(), "syntax", id="other-digits"),
    pytest.param(b"\xc2\xa01", "syntax", id="no-break-space"),
    pytest.param(b"// c\n1", "syntax", id="comment"),
    pytest.param(b'"\t"', "syntax", id="tab-in-string"),
    pytest.param(b'"\n"', "syntax", id="line-feed-in-string"),
    pytest.param(b'"\\x41"', "syntax", id="unknown-escape"),
    pytest.param(b'"\\u12"', "syntax", id="short-escape"),
    pytest.param(b'"\\u 041"', "syntax", id="blank-in-escape"),
    pytest.param(b'"\\u00_1"', "syntax", id="underscore-in-escape"),
    pytest.param(b"TRUE", "syntax", id="upper-case-literal"),
    pytest.param(b"[}", "syntax", id="bracket-mismatch"),
    pytest.param(b"NaN", "not-finite", id="nan"),
    pytest.param(b"[Infinity]", "not-finite", id="infinity"),
    pytest.param(b'{"a":-Infinity}', "not-finite", id="minus-infinity"),
    pytest.param(b"1e400", "not-finite", id="too-large"),
    pytest.param(b"[-1e400]", "not-finite", id="too-large-negative"),
    pytest.param(b"1" + b"0" * 400 + b".0", "not-finite", id="long-too-large"),
    pytest.param(b"[" + b"1" * 4301 + b"]", "long-integer", id="integer-of-4301-digits"),
    pytest.param(b"-" + b"1" * 100_000, "long-integer", id="integer-bomb"),
    pytest.param(b"\xef\xbb\xbf{}", "bom", id="bom"),
    pytest.param("{}".encode("utf-16"), "not-utf8", id="utf-16-with-bom"),
    pytest.param('{"a":1}'.encode("utf-16-le"), "syntax", id="utf-16-le"),
    pytest.param('{"a":1}'.encode("utf-16-be"), "syntax", id="utf-16-be"),
    pytest.param('{"a":1}'.encode("utf-32-le"), "syntax", id="utf-32-le"),
    pytest.param(b'"\xff"', "not-utf8", id="invalid-byte"),
    pytest.param(b'"\xc0\xaf"', "not-utf8", id="overlong"),
    pytest.param(b'"\xed\xa0\x80"', "not-utf8", id="encoded-surrogate"),
    pytest.param(b'"\xf4\x90\x80\x80"', "not-utf8", id="beyond-unicode"),
    pytest.param(b'"\\ud800"', "lone-surrogate", id="high-surrogate"),
    pytest.param(b'"\\uDC00\\uD800"', "lone-surrogate", id="surrogates-swapped"),
    pytest.param(b'{"\\ud800":1}', "lone-surrogate", id="surrogate-in-name"),
    pytest.param(b'{"a":1,"a":1}', "duplicate-name", id="duplicate"),
    pytest.param(b'{"a":1,"\\u0061":2}', "duplicate-name", id="duplicate-escaped"),
    pytest.param(b'[[{"x":{"a":1,"b":2,"a":{"c":":"}}}]]', "duplicate-name", id="duplicate-nested"),
    pytest.param(b'{"a":1,"a":"\\u003a"}', "duplicate-name", id="duplicate-made-up-by-an-escaped-colon"),
    pytest.param(b'{"a":1,"a":2,"c":"\\u003A"}', "duplicate-name", id="duplicate-made-up-elsewhere"),
    pytest.param(b'{"a":12345678901234567890123,"a":2}', "duplicate-name", id="duplicate-beside-a-big-integer"),
    pytest.param(b'{"a":' + b"1" * 400 + b',"a":2}', "duplicate-name", id="duplicate-beside-a-huge-integer"),
    pytest.param(b'{"":1,"":2}', "duplicate-name", id="duplicate-empty-name"),
]


@pytest.mark.parametrize(("data", "code"), REFUSED)
def test_what_parsers_disagree_on_is_refused(data: bytes, code: str) -> None:
    """Each kind has its code, and the text of the fault is the code alone."""
    assert fault(data) == code


@pytest.mark.parametrize(
    ("data", "bounds", "code"),
    [
        pytest.param(b"[" * 33 + b"]" * 33, {}, "too-deep", id="arrays"),
        pytest.param(b'{"a":' * 33 + b"1" + b"}" * 33, {}, "too-deep", id="objects"),
        pytest.param(b'[{"a":' * 17 + b"1" + b"}]" * 17, {}, "too-deep", id="mixed"),
        pytest.param(b"[" * 900, {}, "too-deep", id="never-closed"),
        pytest.param(b"[" * 1_000_000, {}, "too-many-items", id="bomb"),
        pytest.param(b'{"a":' * 900, {}, "too-deep", id="objects-never-closed"),
        pytest.param(b'["]",' * 40 + b"1" + b"]" * 40, {}, "too-deep", id="closed-in-strings-only"),
        pytest.param(b'["\\"]",' * 40 + b"1" + b"]" * 40, {}, "too-deep", id="closed-behind-escaped-quotes"),
        pytest.param(b'["\\\\",' * 40 + b'"]",1' + b"]" * 40, {}, "too-deep", id="behind-escaped-backslashes"),
        pytest.param(b"[" * 201 + b"]" * 201, {"max_depth": 5000}, "too-deep", id="deeper-than-any-bound"),
        pytest.param(b'{"a":1,"b":2,"c":3}', {"max_keys": 2}, "too-many-keys", id="names"),
        pytest.param(b'[{"a":1},{"b":2},{"c":3}]', {"max_keys": 2}, "too-many-keys", id="names-in-several-objects"),
        pytest.param(b"[1,2,3]", {"max_items": 2}, "too-many-items", id="items"),
        pytest.param(b"[[1],[2]]", {"max_items": 3}, "too-many-items", id="items-in-several-arrays"),
        pytest.param(b"[[],[]]", {"max_items": 3}, "too-many-items", id="empty-containers-count"),
        pytest.param(b"[[],[],[]]", {"max_items": 5}, "too-many-items", id="empty-containers-are-short"),
    ],
)
def test_bounds_hold_before_anything_recursive_runs(data: bytes, bounds: dict[str, int], code: str) -> None:
    """Depth, names and items, whatever strings pretend."""
    assert fault(data, **bounds) == code


@pytest.mark.parametrize(
    ("data", "bounds"),
    [
        pytest.param(b"[" * 32 + b"]" * 32, {}, id="as-deep-as-allowed"),
        pytest.param(b"[" * 200 + b"]" * 200, {"max_depth": DEEPEST}, id="deepest"),
        pytest.param(b"[" + b"[]," * 60 + b"[]]", {}, id="wide-is-not-deep"),
        pytest.param(b'{"a":"' + b"[{" * 500 + b'"}', {}, id="brackets-in-a-string"),
        pytest.param(b'{"a":"\\"' + b"[{" * 500 + b'\\\\"}', {}, id="brackets-behind-an-escaped-quote"),
        pytest.param(b'{"a":"' + b",:" * 2000 + b'"}', {"max_keys": 1, "max_items": 1}, id="marks-in-a-string"),
        pytest.param(b'{"a":1,"b":2}', {"max_keys": 2, "max_items": 1}, id="as-many-names-as-allowed"),
        pytest.param(b"[1,2,3]", {"max_items": 3, "max_keys": 0}, id="as-many-items-as-allowed"),
        pytest.param(b"[[1],[2]]", {"max_items": 4, "max_keys": 0}, id="as-many-items-as-allowed-nested"),
    ],
)
def test_what_is_within_the_bounds_passes(data: bytes, bounds: dict[str, int]) -> None:
    """Brackets, commas and colons in strings count for nothing."""
    assert parsed(data, **bounds) == json.loads(data)


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.text(alphabet='[]{},:"\\u003aA', max_size=12),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text('ab:"\\', max_size=3), v, max_size=4),
    max_leaves=20,
)


@given(_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_every_document_passes_and_round_trips(value: Any, ascii_only: bool, indent: int | None) -> None:
    """What `json.dumps` writes is read back equal, types included."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False).encode()
    result = parsed(data)
    assert repr(result) == repr(json.loads(data)) == repr(value)
    assert json.loads(json.dumps(result, allow_nan=False).encode()) == result


@given(_VALUES, st.integers(min_value=1, max_value=4), st.integers(0, 12), st.integers(0, 12))
def test_the_bounds_count_what_is_there(value: Any, max_depth: int, max_keys: int, max_items: int) -> None:
    """The byte-wise count agrees with a count over the parsed value."""
    depth, keys, items = _measured(value)
    data = json.dumps(value).encode()
    fits = depth <= max_depth and keys <= max_keys and items <= max_items
    code = ""
    try:
        parsed(data, max_depth=max_depth, max_keys=max_keys, max_items=max_items)
    except JSONFault as caught:
        code = caught.code
    assert code in (("",) if fits else ("too-deep", "too-many-keys", "too-many-items"))


def _measured(value: Any) -> tuple[int, int, int]:
    """Depth, names, items (empty containers included)."""
    if not isinstance(value, (dict, list)):
        return 0, 0, 0
    children = [_measured(child) for child in (value.values() if isinstance(value, dict) else value)]
    own = (len(value), 0) if isinstance(value, dict) else (0, len(value))
    return (
        1 + max((depth for depth, _, _ in children), default=0),
        own[0] + sum(keys for _, keys, _ in children),
        own[1] + sum(items for _, _, items in children) + (not value),
    )


_PIECES = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b'"a":', b'"b":', b"1", b"-", b"\\", b'\\"', b"\\\\", b" "),
    *(b"\\u003a", b"\\u0061", b"\\ud800", b"1e999", b"NaN", b"9" * 19, b"9" * 20, b"null", b"\xff", b"\xef\xbb\xbf"),
)
_FRAGMENTS = st.lists(st.sampled_from(_PIECES), max_size=14).map(b"".join)


@given(_FRAGMENTS | st.binary(max_size=20))
@example(b'{"a":1,"a":"\\u003a"}')
@example(b"-9999999999999999999")
def test_a_verdict_or_a_fault_for_any_bytes(data: bytes) -> None:
    """Passing means: the standard library agrees in value and type, sees no duplicate, and the value can be written."""
    try:
        value = parsed(data)
    except JSONFault:
        return
    assert repr(value) == repr(json.loads(data, object_pairs_hook=_no_duplicates))
    assert json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")


@given(_FRAGMENTS)
def test_nothing_good_is_refused(data: bytes) -> None:
    """What two strict readings accept (orjson's grammar, no duplicate by a hook) passes here, too."""
    try:
        orjson.loads(data)
        expected = json.loads(data, object_pairs_hook=_no_duplicates)
    except ValueError:
        return
    assert parsed(data) == expected


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param({"tenant_id": "a"}, [("tenant_id", "a")], id="top"),
        pytest.param({"x": [{"y": {"org_id": 7}}]}, [("org_id", 7)], id="nested"),
        pytest.param([[[{"tenantId": None}]]], [("tenantId", None)], id="null-is-reported"),
        pytest.param({"tenant_id": "a", "x": {"tenant_id": "b"}}, [("tenant_id", "a"), ("tenant_id", "b")], id="every"),
        pytest.param(
            {"tenant_id": {"tenant_id": "b"}}, [("tenant_id", {"tenant_id": "b"}), ("tenant_id", "b")], id="in"
        ),
        pytest.param({"TENANT_ID": "a", "xtenant_id": "b"}, [], id="other-names"),
        pytest.param("tenant_id", [], id="a-text"),
        pytest.param({"x": "tenant_id"}, [], id="as-a-value"),
        pytest.param([], [], id="empty"),
    ],
)
def test_every_occurrence_of_a_name_is_found(value: Any, found: list[tuple[str, Any]]) -> None:
    """At any depth, outer ones first."""
    assert list(walk(value, NAMES)) == found


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        pytest.param({"op": "replace", "path": "/tenant_id", "value": "b"}, "b", id="replace"),
        pytest.param({"op": "add", "path": "/rows/0/tenant_id", "value": "b"}, "b", id="add-deep"),
        pytest.param({"op": "test", "path": "/tenant_id/x", "value": "b"}, "b", id="below-the-name"),
        pytest.param({"op": "add", "path": "tenant_id", "value": "b"}, "b", id="no-leading-slash"),
    ],
)
def test_a_patch_that_writes_a_name_is_reported_with_its_value(operation: dict[str, Any], value: str) -> None:
    """RFC 6902 operations address members by pointer."""
    assert walk([operation], NAMES) == (("tenant_id", value),)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param({"op": "copy", "from": "/x", "path": "/tenant_id"}, id="copy-into"),
        pytest.param({"op": "copy", "from": "/x", "path": "/tenant_id", "value": "a"}, id="copy-with-a-decoy"),
        pytest.param({"op": "move", "from": "/tenant_id", "path": "/x"}, id="move-away"),
        pytest.param({"op": "remove", "path": "/tenant_id"}, id="remove"),
        pytest.param({"op": "replace", "path": "/tenant_id"}, id="value-missing"),
        pytest.param({"op": ["add"], "path": "/tenant_id", "value": "a"}, id="odd-op"),
    ],
)
def test_a_patch_without_a_value_to_judge_is_reported_whole(operation: dict[str, Any]) -> None:
    """A copy brings a value from elsewhere: nothing in the operation could prove that it is the right one."""
    assert walk([operation], NAMES) == (("tenant_id", operation),)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"path": "/tenant_id", "value": "b"}, id="no-op"),
        pytest.param({"op": "replace", "path": "/name", "value": "b"}, id="other-member"),
        pytest.param({"op": "replace", "path": ["tenant_id"], "value": "b"}, id="path-is-no-text"),
        pytest.param({"op": "replace", "path": "/xtenant_id", "value": "b"}, id="longer-segment"),
    ],
)
def test_what_is_no_patch_of_a_name_is_not_reported(document: dict[str, Any]) -> None:
    """Ordinary documents have members called `path`, too."""
    assert walk(document, NAMES) == ()


def test_pointer_escapes_are_undone() -> None:
    """`~1` is a slash and `~0` a tilde (RFC 6901)."""
    patch = [{"op": "add", "path": "/a~1b", "value": 1}, {"op": "add", "path": "/c~01", "value": 2}]
    assert walk(patch, frozenset(("a/b", "c~1"))) == (("a/b", 1), ("c~1", 2))


def test_the_walk_does_not_recurse() -> None:
    """A value deeper than the interpreter's stack is walked."""
    value: Any = {"tenant_id": "a"}
    for _ in range(50_000):
        value = [value]
    assert walk(value, NAMES) == (("tenant_id", "a"),)


@pytest.mark.parametrize(
    ("data", "names", "expected"),
    [
        pytest.param(b'{"tenant_id":1}', NAMES, True, id="member"),
        pytest.param(b'[{"op":"add","path":"/a/org_id"}]', NAMES, True, id="pointer"),
        pytest.param(b'{"\\u0074enant_id":1}', NAMES, True, id="escaped"),
        pytest.param(b'{"a":"\\u00e9"}', NAMES, True, id="any-u-escape"),
        pytest.param(b'{"name":"x\\n","tenant":1,"organic":2}', NAMES, False, id="only-the-stems"),
        pytest.param(b"{}", NAMES, False, id="empty-object"),
        pytest.param(b'{"tenant_id":1}', frozenset(), False, id="no-names"),
        pytest.param(b'{"a\\/b":1}', frozenset(("a/b",)), True, id="escaped-slash"),
        pytest.param(b'[{"path":"/a~1b"}]', frozenset(("a/b",)), True, id="escaped-in-a-pointer"),
        pytest.param('{"büro":1}'.encode(), frozenset(("büro",)), True, id="not-ascii"),
    ],
)
def test_the_prefilter(data: bytes, names: frozenset[str], expected: bool) -> None:
    """No is certain, yes is a maybe."""
    assert mentions(data, names) is expected


_NAMED = st.sampled_from(["tenant_id", "tenantId", "org_id", "a/b", "c~d", 'q"', "é", "x"])


@given(
    st.recursive(
        st.integers() | st.text(max_size=3),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(_NAMED, v, max_size=3),
        max_leaves=10,
    ),
    st.frozensets(_NAMED, max_size=4),
    st.booleans(),
)
def test_the_prefilter_never_misses_what_the_walk_finds(value: Any, names: frozenset[str], ascii_only: bool) -> None:
    """If a name occurs, its bytes or an escape do; also where slashes are escaped."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    for spelled in (text, text.replace("/", "\\/")):
        if walk(json.loads(spelled), names):
            assert mentions(spelled.encode(), names)
    assert {name for name, _ in walk(value, names)} == names & _names_in(value)


def _names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for child in value.values() for name in _names_in(child)}
    if isinstance(value, list):
        return {name for child in value for name in _names_in(child)}
    return set()
