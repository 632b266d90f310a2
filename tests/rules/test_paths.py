"""Ambiguous paths and methods are found, ordinary ones pass."""

from __future__ import annotations

from posixpath import normpath
from unicodedata import normalize
from urllib.parse import quote_from_bytes, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.paths import METHODS, method_fault, path_fault


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/clients",
        "/clients/",
        "/clients/4f1c/invoices/12.pdf",
        "/.well-known/openid-configuration",
        "/a/...",
        "/a/..b/.c",
        "/users/@me",
        "/a b/c+d,e=f:g!$&'()*~-_",
        "/dateien/übersicht",
        "/日本語",
        '/quotes/"x"',
        "/emoji/😀",
    ],
)
def test_ordinary_paths_pass(path: str) -> None:
    """No false alarm for what applications really serve, with and without the raw path."""
    assert path_fault(path, None) is None
    assert path_fault(path, quote_from_bytes(path.encode()).encode()) is None


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        pytest.param("", "path-relative", id="empty"),
        pytest.param("*", "path-relative", id="asterisk"),
        pytest.param("admin", "path-relative", id="no-slash"),
        pytest.param("http://host/admin", "path-relative", id="absolute-form"),
        pytest.param("//admin", "path-double-slash", id="leading-double-slash"),
        pytest.param("/a//b", "path-double-slash", id="inner-double-slash"),
        pytest.param("/a//", "path-double-slash", id="trailing-double-slash"),
        pytest.param("/a/../b", "path-dot-segment", id="parent"),
        pytest.param("/a/./b", "path-dot-segment", id="self"),
        pytest.param("/..", "path-dot-segment", id="parent-of-root"),
        pytest.param("/a/.", "path-dot-segment", id="trailing-self"),
        pytest.param("/ü/..", "path-dot-segment", id="parent-behind-a-letter"),
        pytest.param("/a\\b", "path-backslash", id="backslash"),
        pytest.param("/..\\admin", "path-backslash", id="backslash-parent"),
        pytest.param("/a;b=c", "path-parameter", id="semicolon"),
        pytest.param("/admin%2f", "path-percent", id="encoded-twice"),
        pytest.param("/100%", "path-percent", id="percent"),
        pytest.param("/a\x00", "path-control", id="nul"),
        pytest.param("/a\n", "path-control", id="line-feed-at-the-end"),
        pytest.param("/a\r\nb", "path-control", id="line-break"),
        pytest.param("/a\x7f", "path-control", id="delete"),
        pytest.param("/ü\x85", "path-control", id="c1"),
        pytest.param("/ü\x1b", "path-control", id="escape-beside-a-letter"),
        pytest.param("/cafe\u0301", "path-not-nfc", id="decomposed"),
        pytest.param("/\u212b", "path-not-nfc", id="angstrom-sign"),
        pytest.param("/a\ufffd", "path-not-utf8", id="replacement-character"),
        pytest.param("/a\udcff", "path-not-utf8", id="surrogate-escape"),
        pytest.param("/a\ud800", "path-not-utf8", id="lone-surrogate"),
    ],
)
def test_ambiguous_paths_have_a_fault(path: str, fault: str) -> None:
    """Each kind of ambiguity has its slug."""
    assert path_fault(path, None) == fault


@pytest.mark.parametrize(
    ("raw_path", "fault"),
    [
        pytest.param(b"/a%2Fb", "path-encoded-slash", id="slash"),
        pytest.param(b"/a%2fb", "path-encoded-slash", id="slash-lower-case"),
        pytest.param(b"/a%5cb", "path-encoded-backslash", id="backslash"),
        pytest.param(b"/a%5Cb", "path-encoded-backslash", id="backslash-upper-case"),
        pytest.param(b"/a%20b", None, id="space"),
        pytest.param(b"/a/b", None, id="nothing-encoded"),
        pytest.param(b"/a/b?next=%2Fhome", None, id="only-in-the-query"),
        pytest.param(b"/a%2Fb?next=x", "path-encoded-slash", id="before-the-query"),
    ],
)
def test_the_raw_path_shows_encoded_separators(raw_path: bytes, fault: str | None) -> None:
    """The decoded path alone cannot tell `a%2Fb` from `a/b`."""
    assert path_fault("/a/b", raw_path) == fault


@given(st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_what_passes_has_one_reading(segments: list[str]) -> None:
    """Normalising, decoding again and Unicode composition change nothing in a path that passes."""
    path = "/" + "/".join(segments)
    if path_fault(path, None) is None:
        assert normpath(path) == (path.rstrip("/") or "/")
        assert unquote(path) == path
        assert normalize("NFC", path) == path
        assert path.encode("utf-8").decode("utf-8") == path


@given(st.text(alphabet="/.ab;%\\\x00 \u00e9", max_size=12))
def test_the_fast_path_agrees_with_the_slow_one(path: str) -> None:
    """A letter beyond ASCII forces the slow path; the verdict about the rest stays."""
    if path.startswith("/") and path.isascii():
        assert path_fault(path, None) == path_fault(f"/\u00e9{path}", None)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_registered_methods_pass(method: str) -> None:
    """As they are written in the registry."""
    assert method_fault(method) is None


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        pytest.param("post", "method-case", id="lower-case"),
        pytest.param("Get", "method-case", id="mixed-case"),
        pytest.param("PURGE", "method-unknown", id="unregistered"),
        pytest.param("", "method-malformed", id="empty"),
        pytest.param("GET ", "method-malformed", id="space"),
        pytest.param("GET\n", "method-malformed", id="line-feed"),
        pytest.param("GÉT", "method-malformed", id="not-ascii"),
        pytest.param("GE(T", "method-malformed", id="delimiter"),
    ],
)
def test_other_methods_have_a_fault(method: str, fault: str) -> None:
    """No spelling slips past a policy."""
    assert method_fault(method) == fault
