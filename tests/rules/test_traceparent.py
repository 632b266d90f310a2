"""`traceparent` is read by the letter of level 1, or a new trace starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.traceparent import trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def field(version: str = "00", trace: str = TRACE, parent: str = PARENT, flags: str = "01", rest: str = "") -> bytes:
    return f"{version}-{trace}-{parent}-{flags}{rest}".encode()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(field(), id="version-00"),
        pytest.param(field(flags="00"), id="not-sampled"),
        pytest.param(field(flags="ff"), id="unknown-flags"),
        pytest.param(b" \t" + field() + b" ", id="white-space-around"),
        pytest.param(field("01"), id="later-version"),
        pytest.param(field("cc", rest="-of-tomorrow"), id="later-version-goes-on"),
        pytest.param(field("cc", rest="-"), id="later-version-with-a-dash"),
    ],
)
def test_a_valid_field_gives_its_trace_id(value: bytes) -> None:
    """Later versions are read as far as this one goes."""
    assert trace_id(value) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(field("ff"), id="version-ff"),
        pytest.param(field(rest="."), id="something-behind"),
        pytest.param(field(rest="-of-tomorrow"), id="version-00-goes-on"),
        pytest.param(field(rest="-"), id="version-00-with-a-dash"),
        pytest.param(field("cc", rest=".x"), id="later-version-without-dash"),
        pytest.param(field("cc", rest="0"), id="later-version-longer-flags"),
        pytest.param(field("0"), id="version-too-short"),
        pytest.param(field("000"), id="version-too-long"),
        pytest.param(field(".0"), id="version-no-hex"),
        pytest.param(field("0A"), id="version-upper-case"),
        pytest.param(field(trace="0" * 32), id="trace-all-zero"),
        pytest.param(field(trace=TRACE.upper()), id="trace-upper-case"),
        pytest.param(field(trace=TRACE[:-1]), id="trace-too-short"),
        pytest.param(field(trace=TRACE + "0"), id="trace-too-long"),
        pytest.param(field(trace="." + TRACE[1:]), id="trace-no-hex"),
        pytest.param(field(trace=TRACE[:-1] + "-"), id="trace-with-dash"),
        pytest.param(field(parent="0" * 16), id="parent-all-zero"),
        pytest.param(field(parent=PARENT[:-1]), id="parent-too-short"),
        pytest.param(field(parent=PARENT + "0"), id="parent-too-long"),
        pytest.param(field(parent="x" + PARENT[1:]), id="parent-no-hex"),
        pytest.param(field(flags=".0"), id="flags-no-hex"),
        pytest.param(field(flags="0"), id="flags-too-short"),
        pytest.param(field(flags="001"), id="flags-too-long"),
        pytest.param(field(flags="0A"), id="flags-upper-case"),
        pytest.param(field() + b"," + field(), id="two-in-one-field"),
        pytest.param(field().replace(b"-", b"_"), id="other-separator"),
        pytest.param(field() + b"\n", id="line-feed"),
        pytest.param(b"0" + field()[:-1], id="shifted"),
    ],
)
def test_a_malformed_field_gives_none(value: bytes) -> None:
    """No repair: what is not exactly right starts a new trace."""
    assert trace_id(value) is None


def test_no_field_or_two_give_none() -> None:
    """Several fields are as bad as none, also when they agree."""
    assert trace_id() is None
    assert trace_id(field(), field()) is None


@given(st.from_regex(rb"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_the_grammar_and_the_parser_agree(value: bytes) -> None:
    """Every text of the grammar is read, but for the forbidden values."""
    version, trace, parent, _ = value.decode().split("-")
    forbidden = version == "ff" or set(trace) == {"0"} or set(parent) == {"0"}
    assert trace_id(value) == (None if forbidden else trace)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_trace_id_or_none(value: bytes) -> None:
    """Never an exception, never anything but 32 hex digits."""
    found = trace_id(value)
    assert found is None or (len(found) == 32 and set(found) <= set("0123456789abcdef"))
