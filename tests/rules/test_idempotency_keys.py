"""The value of `Idempotency-Key`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.idempotency_keys import LONGEST, parse_key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        pytest.param(b"8e03978e-40d5-43e8-bc93-6894a57f9324", b"8e03978e-40d5-43e8-bc93-6894a57f9324", id="a UUID"),
        pytest.param(b'"8e03978e"', b"8e03978e", id="a String"),
        pytest.param(b" abc\t", b"abc", id="blanks around it"),
        pytest.param(b'"a b, c"', b"a b, c", id="blanks and commas inside"),
        pytest.param(rb'"a\"b\\c"', rb'a"b\c', id="escapes"),
        pytest.param(b"a" * LONGEST, b"a" * LONGEST, id="the longest"),
        pytest.param(rb'"' + rb"\\" * LONGEST + rb'"', b"\\" * LONGEST, id="the longest, all escaped"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b'""', None, id="an empty String"),
        pytest.param(b'"', None, id="one quote"),
        pytest.param(b'"abc', None, id="no end"),
        pytest.param(rb'"abc\"', None, id="an escaped end"),
        pytest.param(rb'"a\bc"', None, id="an escape of something else"),
        pytest.param(b'"a"b"', None, id="a quote inside"),
        pytest.param(b'"abc";v=1', None, id="a parameter"),
        pytest.param(b'"a", "b"', None, id="a list"),
        pytest.param(b"a, b", None, id="two keys joined"),
        pytest.param(b"a b", None, id="a blank"),
        pytest.param(b"a" * (LONGEST + 1), None, id="too long"),
        pytest.param("é".encode(), None, id="beyond ASCII"),
        pytest.param('"é"'.encode(), None, id="a String beyond ASCII"),
        pytest.param(b'"\x7f"', None, id="a control character"),
    ],
)
def test_keys(value: bytes, key: bytes | None) -> None:
    """One text, quoted or bare; everything else is no key."""
    assert parse_key(value) == key


@given(value=st.binary(max_size=40))
def test_no_value_is_an_exception(value: bytes) -> None:
    """A key, or none."""
    key = parse_key(value)
    assert key is None or 0 < len(key) <= len(value)
