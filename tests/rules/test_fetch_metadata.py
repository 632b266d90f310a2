"""Cross-site requests: the published table of the rule, and what browsers send beyond it."""

from __future__ import annotations

from itertools import product

import pytest

from portalshield.rules.fetch_metadata import SAFE_METHODS, cross_site

HOST = b"example.com"
TRUSTED = frozenset((b"https://trusted.example",))


def refused(
    method: str = "POST",
    site: bytes | None = None,
    origin: bytes | None = None,
    referer: bytes | None = None,
    host: bytes | None = HOST,
) -> bool:
    return cross_site(method, site, origin, referer, host, TRUSTED)


@pytest.mark.parametrize(
    ("method", "site", "origin", "expected"),
    [
        pytest.param("POST", b"same-origin", None, False, id="same-origin"),
        pytest.param("POST", b"none", None, False, id="none"),
        pytest.param("POST", b"cross-site", None, True, id="cross-site"),
        pytest.param("POST", b"same-site", None, True, id="same-site"),
        pytest.param("POST", None, None, False, id="neither"),
        pytest.param("POST", None, b"https://example.com", False, id="matching-origin"),
        pytest.param("POST", None, b"https://attacker.example", True, id="foreign-origin"),
        pytest.param("POST", None, b"null", True, id="null-origin"),
        pytest.param("GET", b"cross-site", None, False, id="get"),
        pytest.param("HEAD", b"cross-site", None, False, id="head"),
        pytest.param("OPTIONS", b"cross-site", None, False, id="options"),
        pytest.param("PUT", b"cross-site", None, True, id="put"),
        pytest.param("POST", None, b"https://trusted.example", False, id="trusted-origin"),
        pytest.param("POST", b"cross-site", b"https://trusted.example", False, id="trusted-origin-cross-site"),
        pytest.param("POST", b"cross-site", b"https://attacker.example", True, id="foreign-origin-cross-site"),
    ],
)
def test_the_table_of_the_rule(method: str, site: bytes | None, origin: bytes | None, expected: bool) -> None:
    """The verdicts that Go's CrossOriginProtection documents."""
    assert refused(method, site, origin) is expected


@pytest.mark.parametrize("site", [b"Same-Origin", b"same-origin ", b"same-origin, cross-site", b"x", b"\xff", b"0"])
def test_an_odd_value_is_foreign(site: bytes) -> None:
    """Only the two known values pass."""
    assert refused(site=site)
    assert not refused(site=site, origin=b"https://trusted.example")


@pytest.mark.parametrize("method", ["post", "Post", "DELETE", "PATCH", "CONNECT", "PURGE", "", "GETX"])
def test_every_method_that_is_not_safe_is_judged(method: str) -> None:
    """No spelling is exempt: frameworks upper-case methods."""
    assert refused(method, b"cross-site")


@pytest.mark.parametrize("method", ["get", "Head", "TRACE"])
def test_safe_methods_pass_in_any_case(method: str) -> None:
    """They change nothing (RFC 9110, 9.2.1)."""
    assert not refused(method, b"cross-site")


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        pytest.param(b"https://EXAMPLE.com", b"example.COM", False, id="case"),
        pytest.param(b"http://example.com", b"example.com", False, id="other-scheme"),
        pytest.param(b"https://example.com:8443", b"example.com:8443", False, id="same-port"),
        pytest.param(b"https://example.com:8443", b"example.com", True, id="other-port"),
        pytest.param(b"https://example.com.evil.example", b"example.com", True, id="prefix"),
        pytest.param(b"https://example.com@evil.example", b"example.com", True, id="userinfo"),
        pytest.param(b"example.com", b"example.com", True, id="no-scheme"),
        pytest.param(b"https://a.example, https://example.com", b"example.com", True, id="two-origins"),
        pytest.param(b"https://example.com", None, True, id="no-host"),
        pytest.param(b"https://", b"", True, id="both-empty"),
        pytest.param(b"file://example.com", b"example.com", True, id="other-kind-of-scheme"),
        pytest.param(b"", b"example.com", False, id="empty-counts-as-missing"),
    ],
)
def test_without_fetch_metadata_the_origin_must_be_ours(origin: bytes, host: bytes | None, expected: bool) -> None:
    """Its authority must equal Host, in any case."""
    assert refused(origin=origin, host=host) is expected


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        pytest.param(b"https://example.com/form?x=1", False, id="own-page"),
        pytest.param(b"https://example.com", False, id="own-page-without-slash"),
        pytest.param(b"https://example.com?x", False, id="own-page-with-query"),
        pytest.param(b"https://attacker.example/", True, id="foreign-page"),
        pytest.param(b"https://attacker.example/?https://example.com", True, id="own-host-in-the-query"),
        pytest.param(b"https://trusted.example/page", False, id="trusted-page"),
        pytest.param(b"about:blank", True, id="no-authority"),
        pytest.param(b"", False, id="empty-counts-as-missing"),
    ],
)
def test_the_referer_stands_in_for_a_missing_origin(referer: bytes, expected: bool) -> None:
    """Only where Origin and Fetch Metadata are both missing."""
    assert refused(referer=referer) is expected


def test_the_whole_matrix_refuses_nothing_that_is_safe_and_lets_no_foreign_page_in() -> None:
    """Sec-Fetch-Site x Origin x Host agreement x method: the verdict follows from the first fact that is known."""
    sites = (None, b"same-origin", b"none", b"same-site", b"cross-site")
    origins = (None, b"https://example.com", b"https://attacker.example", b"https://trusted.example", b"null")
    for method, site, origin in product(("GET", "POST", "DELETE"), sites, origins):
        trusted = origin == b"https://trusted.example"
        if method in SAFE_METHODS:
            expected = False
        elif site is not None:
            expected = site in (b"same-site", b"cross-site") and not trusted
        else:
            expected = origin in (b"https://attacker.example", b"null")
        assert refused(method, site, origin) is expected, (method, site, origin)
