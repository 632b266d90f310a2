"""Answers as bytes: what is kept comes back, what is none of ours does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.kept_answers import KEPT, MAX_VALUE, pack, unpack

FIELDS = st.lists(st.tuples(st.sampled_from(sorted(KEPT)), st.binary(max_size=40)), max_size=5).map(tuple)


@given(status=st.integers(200, 599), fields=FIELDS, body=st.binary(max_size=200))
def test_what_is_packed_comes_back(status: int, fields: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
    """Status, kept fields in their order with repeats, and every byte of the body."""
    assert unpack(pack(status, fields, body)) == (status, fields, body)


def test_only_some_fields_are_kept() -> None:
    """How to read the body and where to go on: no cookie, no length, no id of another request, nothing endless."""
    fields = (
        (b"Content-Type", b"application/json"),
        (b"set-cookie", b"session=1"),
        (b"x-request-id", b"1"),
        (b"content-length", b"2"),
        (b"link", b"x" * (MAX_VALUE + 1)),
        (b"location", b"/invoices/7"),
    )
    assert unpack(pack(201, fields, b"{}")) == (
        201,
        ((b"content-type", b"application/json"), (b"location", b"/invoices/7")),
        b"{}",
    )


@given(answer=st.binary(max_size=60))
def test_no_bytes_are_an_exception(answer: bytes) -> None:
    """A store may hold anything: it is an answer or it is none."""
    found = unpack(answer)
    assert found is None or pack(*found)[:3] == answer[:3]


def test_an_answer_that_was_cut_is_none() -> None:
    """Its fields would be another's."""
    whole = pack(200, ((b"content-type", b"text/plain"), (b"etag", b'"1"')), b"")
    assert [size for size in range(len(whole)) if unpack(whole[:size]) is not None] == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02\x00\xc8\x00", id="another version"),
        pytest.param(b"\x01\x00\x64\x00", id="100"),
        pytest.param(b"\x01\x27\x0f\x00", id="9999"),
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    """None of ours."""
    assert unpack(answer) is None
