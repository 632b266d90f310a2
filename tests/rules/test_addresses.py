"""The client's address is never a text that the client chose; its limit key has one spelling."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules import addresses
from portalshield.rules.addresses import (
    LOCAL,
    MAX_HOPS,
    TrustedProxies,
    canonical_address,
    client_address,
    is_private,
    limit_key,
    parse_networks,
)

PROXY = "10.0.0.1"
TRUSTED = parse_networks(["10.0.0.0/8", "2001:db8:ffff::/48"])


def walked(*fields: bytes, peer: str | None = PROXY) -> str:
    return client_address(peer, fields, (), TRUSTED)


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        pytest.param((b"203.0.113.7",), "203.0.113.7", id="one-hop"),
        pytest.param((b"6.6.6.6, 203.0.113.7",), "203.0.113.7", id="forged-entry-left"),
        pytest.param((b"203.0.113.7, 10.9.9.9",), "203.0.113.7", id="trusted-hop-skipped"),
        pytest.param((b"6.6.6.6, 203.0.113.7, 10.9.9.9, 10.8.8.8",), "203.0.113.7", id="several-trusted-hops"),
        pytest.param((b"6.6.6.6", b"203.0.113.7"), "203.0.113.7", id="repeated-fields-joined"),
        pytest.param((b"203.0.113.7", b"10.9.9.9"), "203.0.113.7", id="trusted-hop-in-a-second-field"),
        pytest.param((b"10.1.1.1, 10.2.2.2",), "10.1.1.1", id="all-trusted"),
        pytest.param((b"6.6.6.6, junk",), PROXY, id="junk-at-the-right"),
        pytest.param((b"6.6.6.6, junk, 10.9.9.9",), "10.9.9.9", id="junk-behind-a-good-hop"),
        pytest.param((b"",), PROXY, id="empty"),
        pytest.param((b" , ,",), PROXY, id="only-commas"),
        pytest.param((b"6.6.6.6, 203.0.113.7, ",), "203.0.113.7", id="trailing-comma"),
        pytest.param((b"203.0.113.7:51234",), "203.0.113.7", id="port"),
        pytest.param((b"[2001:db8::7]:51234",), "2001:db8::7", id="bracket-and-port"),
        pytest.param((b"[2001:DB8:0::7]",), "2001:db8::7", id="bracket"),
        pytest.param((b"2001:db8::7",), "2001:db8::7", id="ipv6"),
        pytest.param((b"fe80::7%eth0",), "fe80::7", id="zone"),
        pytest.param((b"::ffff:203.0.113.7",), "203.0.113.7", id="mapped"),
        pytest.param((b"::ffff:10.9.9.9",), "10.9.9.9", id="mapped-trusted"),
        pytest.param((b"203.0.113.7, 2001:db8:ffff::1",), "203.0.113.7", id="trusted-ipv6-hop"),
        pytest.param((b"203.0.113.7:port",), PROXY, id="bad-port"),
        pytest.param((b"[2001:db8::7]x",), PROXY, id="bad-bracket"),
        pytest.param((b"[2001:db8::7",), "2001:db8::7", id="open-bracket"),
        pytest.param((b"0203.0.113.7",), PROXY, id="leading-zero"),
        pytest.param((b"203.0.113",), PROXY, id="short"),
        pytest.param((b"3405803783",), PROXY, id="integer"),
        pytest.param((b"\xb2.0.0.1",), PROXY, id="other-digits"),
        pytest.param((b"unknown",), PROXY, id="unknown"),
        pytest.param((b"1" * 100,), PROXY, id="too-long"),
        pytest.param((b"203.0.113.7 6.6.6.6",), PROXY, id="two-in-one-entry"),
    ],
)
def test_the_rightmost_untrusted_hop_is_the_client(fields: tuple[bytes, ...], address: str) -> None:
    """Right to left, trusted ones skipped; what cannot be read leaves the last good hop."""
    assert walked(*fields) == address


FORWARDING = [b"6.6.6.6", b"6.6.6.6, 7.7.7.7", b"10.0.0.1", b"::1", b"127.0.0.1", b"unknown", b"", b"local", b"*"]


@pytest.mark.parametrize("field", FORWARDING)
def test_an_untrusted_peer_changes_nothing(field: bytes) -> None:
    """Forwarding fields of a stranger are not read."""
    assert client_address("198.51.100.9", (field,), (b"for=" + field,), TRUSTED) == "198.51.100.9"
    assert client_address("198.51.100.9", (field,), (b"for=" + field,), TrustedProxies()) == "198.51.100.9"


@pytest.mark.parametrize(
    ("field", "address"),
    [
        pytest.param(b"for=203.0.113.7", "203.0.113.7", id="plain"),
        pytest.param(b"For=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7", id="more-parameters"),
        pytest.param(b'proto=https; for="203.0.113.7:4711"', "203.0.113.7", id="quoted-with-port"),
        pytest.param(b'for="[2001:db8::7]:4711"', "2001:db8::7", id="ipv6"),
        pytest.param(b"for=6.6.6.6, for=203.0.113.7, for=10.9.9.9", "203.0.113.7", id="chain"),
        pytest.param(b"for=6.6.6.6, for=_hidden", PROXY, id="obfuscated"),
        pytest.param(b"for=unknown", PROXY, id="unknown"),
        pytest.param(b"proto=https", PROXY, id="no-for"),
        pytest.param(b"for=6.6.6.6;for=7.7.7.7", PROXY, id="two-for"),
    ],
)
def test_forwarded_is_read_where_the_other_field_is_missing(field: bytes, address: str) -> None:
    """RFC 7239 elements are walked by the same rule."""
    assert client_address(PROXY, (), (field,), TRUSTED) == address


def test_x_forwarded_for_wins_over_forwarded() -> None:
    """One field decides; the other one is not mixed in."""
    assert client_address(PROXY, (b"203.0.113.7",), (b"for=6.6.6.6",), TRUSTED) == "203.0.113.7"


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/app.sock"])
def test_a_peer_without_an_address_is_local(peer: str | None) -> None:
    """Unix sockets and missing peers have a key, never "no check"; their headers count only with `unix`."""
    assert client_address(peer, (), (), TRUSTED) == LOCAL
    assert client_address(peer, (b"203.0.113.7",), (), TRUSTED) == LOCAL
    assert client_address(peer, (b"203.0.113.7",), (), parse_networks(["unix"])) == "203.0.113.7"


@pytest.mark.parametrize(
    ("hops", "field", "address"),
    [
        pytest.param(1, b"6.6.6.6, 203.0.113.7", "203.0.113.7", id="one"),
        pytest.param(2, b"6.6.6.6, 203.0.113.7, 192.0.2.1", "203.0.113.7", id="two"),
        pytest.param(2, b"203.0.113.7", "198.51.100.9", id="chain-too-short"),
        pytest.param(2, b"junk, 192.0.2.1", "192.0.2.1", id="junk-behind-a-good-hop"),
        pytest.param(1, b"203.0.113.7, junk", "198.51.100.9", id="junk-at-the-right"),
    ],
)
def test_a_hop_count_takes_that_entry_from_the_right(hops: int, field: bytes, address: str) -> None:
    """The alternative form: the n-th entry from the right, and nothing that the proxies did not write."""
    assert client_address("198.51.100.9", (field,), (), parse_networks(hops)) == address
    assert client_address("198.51.100.9", (field,), (), parse_networks([str(hops)])) == address


def test_a_long_chain_is_cut() -> None:
    """Only the rightmost entries are looked at, so a client cannot buy time with commas."""
    field = b"6.6.6.6," + b"10.0.0.2," * (MAX_HOPS * 3) + b"10.0.0.3"
    assert walked(field) == "10.0.0.2"


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        pytest.param(["proxy.internal"], "entry 1 is no network", id="name"),
        pytest.param(["10.0.0.0/8", ""], "entry 2 is no network", id="empty"),
        pytest.param(["10.0.0.1/8"], "entry 1 is no network", id="host-bits"),
        pytest.param(["0.0.0.0/0"], "entry 1 lets clients choose", id="everybody"),
        pytest.param(["::/0"], "entry 1 lets clients choose", id="everybody-ipv6"),
        pytest.param(["2", "10.0.0.0/8"], "stands alone", id="number-and-network"),
        pytest.param(["0"], "entry 1 is no number", id="zero"),
        pytest.param(["99"], "entry 1 is no number", id="too-many"),
        pytest.param(["9" * 5000], "entry 1 is no number", id="huge"),
    ],
)
def test_a_wrong_entry_is_named_without_its_text(entries: list[str], text: str) -> None:
    """The error numbers the entry and says what to write."""
    with pytest.raises(ValueError, match=text) as caught:
        parse_networks(entries)
    assert all(entry not in str(caught.value).split() for entry in entries if not entry.isdigit() and entry)


def test_overlong_texts_are_not_remembered() -> None:
    """They are no address, and a memo is no place for them."""
    text = "7" * 1000
    assert (limit_key(text), canonical_address(text)) == (LOCAL, LOCAL)
    assert text not in addresses._KEYS
    assert text not in addresses._CANONICAL


def test_networks_may_be_addresses_and_mapped() -> None:
    """A single address is a network of one; an IPv4-mapped network covers the IPv4 addresses in it."""
    assert parse_networks(["192.0.2.1"]).covers("192.0.2.1")
    assert not parse_networks(["192.0.2.1"]).covers("192.0.2.2")
    assert parse_networks(["::ffff:10.0.0.0/104"]).covers("10.1.2.3")
    assert not parse_networks([])


@pytest.mark.parametrize(
    ("address", "key"),
    [
        pytest.param("203.0.113.7", "203.0.113.7", id="ipv4"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.7", id="mapped"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="ipv6"),
        pytest.param("2001:0db8:0001:0002::9", "2001:db8:1:2::/64", id="other-host-of-the-64"),
        pytest.param("::1", "::/64", id="loopback"),
        pytest.param("local", "local", id="local"),
        pytest.param("testclient", "local", id="name"),
        pytest.param("", "local", id="empty"),
    ],
)
def test_limits_count_ipv4_whole_and_ipv6_by_64(address: str, key: str) -> None:
    """One subscriber, one key."""
    assert limit_key(address) == key
    assert limit_key(address) == key


@pytest.mark.parametrize(
    ("address", "private"),
    [
        pytest.param("10.1.2.3", True, id="ten"),
        pytest.param("172.31.0.1", True, id="172"),
        pytest.param("172.32.0.1", False, id="beyond-172"),
        pytest.param("192.168.1.1", True, id="192-168"),
        pytest.param("127.0.0.1", True, id="loopback"),
        pytest.param("::ffff:127.0.0.1", True, id="mapped-loopback"),
        pytest.param("169.254.169.254", True, id="link-local"),
        pytest.param("100.64.0.1", True, id="carrier-grade"),
        pytest.param("fd00::1", True, id="unique-local"),
        pytest.param("fe80::1", True, id="ipv6-link-local"),
        pytest.param("::1", True, id="ipv6-loopback"),
        pytest.param("local", True, id="unix"),
        pytest.param("203.0.113.7", False, id="documentation-range"),
        pytest.param("8.8.8.8", False, id="public"),
        pytest.param("2001:db8::1", False, id="ipv6-documentation"),
    ],
)
def test_private_means_of_the_house(address: str, private: bool) -> None:
    """Documentation ranges count as public, whatever the release of the standard library says."""
    assert is_private(address) is private


def test_the_memos_stay_bounded() -> None:
    """Minted addresses cost memory up to a bound only."""
    for number in range(addresses._MEMO_ENTRIES + 50):
        limit_key(str(ip_address(number + 2**24)))
        walked(str(ip_address(number + 2**24)).encode())
    for memo in (addresses._KEYS, addresses._CANONICAL, TRUSTED._memo):
        assert len(memo) <= addresses._MEMO_ENTRIES


@given(st.ip_addresses())
def test_every_address_has_one_spelling(address: object) -> None:
    """Canonical text is a fixed point, with and without brackets and port."""
    text = canonical_address(str(address))
    assert canonical_address(text) == text
    assert canonical_address(f"[{text}]:80" if ":" in text else f"{text}:80") == text


@given(st.lists(st.binary(max_size=40), max_size=4), st.ip_addresses(v=4))
def test_what_stands_left_of_a_stranger_is_not_read(forged: list[bytes], stranger: object) -> None:
    """Any bytes to the left of the first untrusted hop leave the verdict as it is."""
    text = str(stranger)
    expected = walked(text.encode())
    if not TRUSTED.covers(text):
        assert walked(*forged, text.encode()) == expected == text


@given(st.lists(st.binary(max_size=60), max_size=3), st.lists(st.binary(max_size=60), max_size=3))
def test_any_field_gives_an_address_or_local(forwarded_for: list[bytes], forwarded: list[bytes]) -> None:
    """Never an exception, never raw client text."""
    found = client_address(PROXY, forwarded_for, forwarded, TRUSTED)
    assert found == LOCAL or str(ip_address(found)) == found
