"""Hosts: what is served, what is foreign, what is no host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.hosts import HostPolicy

POLICY = HostPolicy(["app.example.com", "*.tenants.example.com", "localhost", "admin.example.com:8443", "[::1]"])


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        pytest.param(b"app.example.com", None, id="exact"),
        pytest.param(b"APP.Example.com", None, id="case"),
        pytest.param(b"app.example.com:8443", None, id="any-port"),
        pytest.param(b"localhost:8000", None, id="localhost"),
        pytest.param(b"[::1]", None, id="ipv6"),
        pytest.param(b"[::1]:8000", None, id="ipv6-port"),
        pytest.param(b"a.tenants.example.com", None, id="one-label"),
        pytest.param(b"a.tenants.example.com:443", None, id="one-label-port"),
        pytest.param(b"a.b.tenants.example.com", "not-allowed", id="two-labels"),
        pytest.param(b"tenants.example.com", "not-allowed", id="no-label"),
        pytest.param(b"admin.example.com:8443", None, id="configured-port"),
        pytest.param(b"admin.example.com", "not-allowed", id="configured-port-missing"),
        pytest.param(b"admin.example.com:443", "not-allowed", id="other-port"),
        pytest.param(b"evil.example", "not-allowed", id="foreign"),
        pytest.param(b"app.example.com.evil.example", "not-allowed", id="prefix"),
        pytest.param(b"evil-app.example.com", "not-allowed", id="suffix"),
        pytest.param(b"app.example.com.", "not-allowed", id="trailing-dot"),
        pytest.param(b"10.0.0.7", "not-allowed", id="address"),
        pytest.param(b"[::2]", "not-allowed", id="other-ipv6"),
        pytest.param(None, "malformed", id="missing"),
        pytest.param(b"", "malformed", id="empty"),
        pytest.param(b"a@app.example.com", "malformed", id="userinfo"),
        pytest.param(b"app.example.com@evil.example", "malformed", id="userinfo-behind"),
        pytest.param(b"app.example.com/health?x=", "malformed", id="path-and-query"),
        pytest.param(b"app.example.com#x", "malformed", id="fragment"),
        pytest.param(b"app.example.com\\x", "malformed", id="backslash"),
        pytest.param(b"app.example.com, evil.example", "malformed", id="two-hosts"),
        pytest.param(b"app.example.com,evil.example", "malformed", id="two-hosts-without-space"),
        pytest.param(b"app.example.com evil.example", "malformed", id="space"),
        pytest.param(b"app.example.com\n", "malformed", id="line-feed"),
        pytest.param(b"app.example.com\x00", "malformed", id="nul"),
        pytest.param(b"http://app.example.com", "malformed", id="scheme"),
        pytest.param(b"app.example.com:", "malformed", id="empty-port"),
        pytest.param(b"app.example.com:80:80", "malformed", id="two-ports"),
        pytest.param(b"app.example.com:x", "malformed", id="port-in-letters"),
        pytest.param(b"app.example.com:99999", "malformed", id="port-too-large"),
        pytest.param(b"app..example.com", "malformed", id="empty-label"),
        pytest.param(b".example.com", "malformed", id="leading-dot"),
        pytest.param(b"[::1", "malformed", id="open-bracket"),
        pytest.param(b"[::1]x", "malformed", id="behind-the-bracket"),
        pytest.param(b"[::1%eth0]", "malformed", id="zone"),
        pytest.param(b"::1", "malformed", id="ipv6-without-brackets"),
        pytest.param("m\u00fcller.example".encode(), "malformed", id="not-ascii"),
        pytest.param(b"a" * 300, "malformed", id="too-long"),
        pytest.param(b"%61pp.example.com", "malformed", id="percent"),
    ],
)
def test_a_host_is_served_foreign_or_malformed(host: bytes | None, fault: str | None) -> None:
    """The verdict is the same the second time (answers of allowed spellings are kept)."""
    assert POLICY.fault(host) == fault
    assert POLICY.fault(host) == fault


def test_a_star_serves_every_well_formed_host() -> None:
    """Malformed ones stay malformed."""
    policy = HostPolicy(["*"])
    assert policy.fault(b"anything.example:81") is None
    assert policy.fault(b"a/b") == "malformed"


@pytest.mark.parametrize(
    "name", ["https://app.example.com", "app.example.com/x", "", "*.", "a b@", "müller.example", "*.*.a"]
)
def test_a_name_that_is_no_host_is_refused(name: str) -> None:
    """The error numbers the entry and does not repeat it."""
    with pytest.raises(ValueError, match="entry 2 is no host") as caught:
        HostPolicy(["ok.example", name])
    assert name in ("", "*.") or name not in str(caught.value)


def test_kept_spellings_are_bounded() -> None:
    """Ports make many spellings of one allowed host."""
    policy = HostPolicy(["app.example.com"])
    assert all(policy.fault(b"app.example.com:%d" % port) is None for port in range(1, 2000))
    assert len(policy._known) <= 1 + 256


@given(st.binary(max_size=60))
def test_any_field_is_judged_without_an_exception(host: bytes) -> None:
    """What passes is an allowed name with nothing but a port behind it."""
    if POLICY.fault(host) is None:
        name = host.lower().rpartition(b":")[0] if host.rpartition(b":")[2].isdigit() else host.lower()
        assert name in (b"app.example.com", b"localhost", b"admin.example.com", b"[::1]") or name.endswith(
            b".tenants.example.com"
        )
