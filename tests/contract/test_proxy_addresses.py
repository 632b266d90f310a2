"""Who is asking, behind proxies and not, through both doors: the address, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import MakePortal, Portal
from portalshield import ConfigurationError, Policy, Settings
from portalshield.context import CURRENT
from portalshield.testing import environment

STRANGER = "203.0.113.7"
PROXY = "10.0.0.1"
CLIENT = "198.51.100.9"
FORGED = "192.0.2.66"
PROXIES = {"TRUSTED_PROXIES": "10.0.0.0/8,2001:db8:f::/48,unix"}
WHO = [Policy("GET /who", public=True)]
CLIENT_FIELDS = [
    *("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP"),
    *("True-Client-IP", "Fastly-Client-IP", "Fly-Client-IP", "X-Original-Forwarded-For", "X-Forwarded"),
    *("Forwarded-For", "X-Appengine-User-IP", "X-Azure-ClientIP", "X-Envoy-External-Address", "X-Remote-Addr"),
]


def value_of(field: str, address: str) -> str:
    """An address as this field would carry it."""
    return f"for={address};proto=https" if field == "Forwarded" else address


def telling(app: Any) -> None:
    """Gives a portal the public route /who: the address the shield found, and what limits count it under."""

    def who() -> dict[str, str]:
        x = CURRENT.get()
        assert x is not None
        return {"address": x.address, "key": x.address_key}

    app.add_api_route("/who", who) if isinstance(app, FastAPI) else app.add_url_rule("/who", "who", who)


def telling_portal(make_portal: MakePortal, **variables: str) -> Portal:
    """A portal with that route and these variables."""
    return make_portal({"RATE__PER_IP": "100000/minute", **variables}, telling, policies=WHO)


def who(portal: Portal, peer: str | None, *fields: tuple[str, str]) -> str:
    """The address the shield found."""
    found: str = portal.request("GET", "/who", fields, peer=peer).json["address"]
    return found


class TestUntrustedPeers:
    """R-02: without a configured proxy, and from a peer that is none, a request's own text is no address."""

    @pytest.mark.parametrize("field", CLIENT_FIELDS)
    @pytest.mark.parametrize("variables", [{}, PROXIES], ids=["no proxies", "other proxies"])
    def test_client_address_fields_change_nothing(
        self, make_portal: MakePortal, field: str, variables: dict[str, str]
    ) -> None:
        """Another value with every request does not buy another quota, and harms nobody else's."""
        portal = make_portal({"RATE__PER_IP": "3/minute", **variables}, telling, policies=WHO)
        answers = [
            portal.request("GET", "/who", [(field, value_of(field, f"198.51.100.{number}"))]) for number in range(5)
        ]
        assert [answer.status for answer in answers] == [200] * 3 + [429] * 2
        assert {answer.json["address"] for answer in answers[:3]} == {STRANGER}
        assert portal.request("GET", "/who", peer="198.51.100.1").status == 200

    def test_all_of_them_at_once(self, make_portal: MakePortal) -> None:
        """Twice each, with several entries."""
        portal = telling_portal(make_portal, **PROXIES)
        fields = [(field, value_of(field, f"{FORGED}, {PROXY}")) for field in CLIENT_FIELDS] * 2
        assert who(portal, STRANGER, *fields) == STRANGER

    @pytest.mark.parametrize("field", CLIENT_FIELDS)
    def test_a_proxy_speaks_through_two_fields_only(self, make_portal: MakePortal, field: str) -> None:
        """What a proxy passes on unread is the client's own text."""
        portal = telling_portal(make_portal, **PROXIES)
        believed = field in ("X-Forwarded-For", "Forwarded")
        assert who(portal, PROXY, (field, value_of(field, CLIENT))) == (CLIENT if believed else PROXY)
        both = (field, value_of(field, FORGED)), ("X-Forwarded-For", CLIENT)
        assert who(portal, PROXY, *(both if field != "X-Forwarded-For" else both[1:])) == CLIENT

    def test_a_private_peer_without_a_configured_proxy_only_reports(self, make_portal: MakePortal) -> None:
        """The whole site would share one bucket; without forwarding fields it is a client like any other."""
        portal = make_portal({"RATE__PER_IP": "2/minute"})
        for field in ("X-Forwarded-For", "Forwarded"):
            fields = [(field, value_of(field, CLIENT))]
            assert [portal.request("GET", "/public", fields, peer=PROXY).status for _ in range(4)] == [200] * 4
        direct = [portal.request("GET", "/public", peer="10.0.0.2").status for _ in range(4)]
        assert direct == [200, 200, 429, 429]

    @pytest.mark.parametrize("field", ["X-Forwarded-Proto", "X-Forwarded-Ssl", "Front-End-Https", "X-Url-Scheme"])
    def test_nor_is_the_scheme(self, portal: Portal, field: str) -> None:
        """A client does not make its own request one over TLS."""
        answer = portal.request("GET", "/public", [(field, "https" if "Proto" in field else "on")])
        assert answer.get("strict-transport-security") is None


class TestTheRightmostStranger:
    """X-01: from the right, trusted hops are skipped; what cannot be read ends the walk at the last good hop."""

    WALKS = (
        pytest.param([CLIENT], CLIENT, id="one"),
        pytest.param([f"{FORGED}, {CLIENT}"], CLIENT, id="the rightmost"),
        pytest.param([f"{FORGED}, {CLIENT}, 10.2.3.4"], CLIENT, id="a proxy skipped"),
        pytest.param([f"{FORGED}, {CLIENT}, 10.2.3.4,10.9.9.9 "], CLIENT, id="two proxies skipped"),
        pytest.param([f"10.0.0.7, {FORGED}, {CLIENT}"], CLIENT, id="a forged proxy in front"),
        pytest.param([FORGED, CLIENT], CLIENT, id="two fields are one"),
        pytest.param([f"{FORGED}, {CLIENT}", "10.2.3.4"], CLIENT, id="two fields, a proxy skipped"),
        pytest.param([CLIENT, ""], CLIENT, id="an empty second field"),
        pytest.param([f"{CLIENT},, ,"], CLIENT, id="empty entries"),
        pytest.param([f"{FORGED}, garbage"], PROXY, id="garbage next to the peer"),
        pytest.param([f"{FORGED}, garbage, 10.2.3.4"], "10.2.3.4", id="garbage behind a proxy"),
        pytest.param([f"garbage, {CLIENT}"], CLIENT, id="garbage behind the client"),
        pytest.param([f"{FORGED}, unknown"], PROXY, id="unknown"),
        pytest.param([f"{FORGED}, 300.1.1.1"], PROXY, id="no address"),
        pytest.param([f"{FORGED}, 0x7f.1"], PROXY, id="an address in another notation"),
        pytest.param([f"{FORGED}, " + "9" * 500], PROXY, id="far too long"),
        pytest.param([f"{FORGED}, \xff\xfe"], PROXY, id="bytes"),
        pytest.param(["10.2.3.4, 10.2.3.5"], "10.2.3.4", id="nothing but proxies"),
        pytest.param([""], PROXY, id="empty"),
        pytest.param([" , ,"], PROXY, id="nothing but commas"),
        pytest.param([f"{CLIENT}:54321"], CLIENT, id="port"),
        pytest.param([f"{FORGED}, {CLIENT}:x"], PROXY, id="a port that is none"),
        pytest.param(["2001:db8:1::9"], "2001:db8:1::9", id="ipv6"),
        pytest.param(["[2001:db8:1::9]:443"], "2001:db8:1::9", id="ipv6 with brackets and port"),
        pytest.param(["2001:DB8:1:0:0:0:0:9"], "2001:db8:1::9", id="ipv6 spelt out"),
        pytest.param(["fe80::9%eth0"], "fe80::9", id="zone"),
        pytest.param([f"::ffff:{CLIENT}"], CLIENT, id="mapped"),
        pytest.param([f"{CLIENT}, ::ffff:10.2.3.4"], CLIENT, id="a mapped proxy skipped"),
        pytest.param([f"{CLIENT}, 2001:db8:f:1::1"], CLIENT, id="an ipv6 proxy skipped"),
        pytest.param([f"<script>, {CLIENT}"], CLIENT, id="markup behind the client"),
        pytest.param([", ".join([FORGED] * 5000 + [CLIENT])], CLIENT, id="a long chain"),
    )

    @pytest.mark.parametrize(("fields", "address"), WALKS)
    def test_x_forwarded_for(self, make_portal: MakePortal, fields: list[str], address: str) -> None:
        """From a trusted peer, over IPv4, mapped and over a Unix socket alike."""
        portal = telling_portal(make_portal, **PROXIES)
        sent = [("X-Forwarded-For", value) for value in fields]
        for peer in (PROXY, f"::ffff:{PROXY}"):
            assert who(portal, peer, *sent) == address
        assert who(portal, None, *sent) == (address if address != PROXY else "local")
        assert who(portal, STRANGER, *sent) == STRANGER

    @pytest.mark.parametrize(
        ("fields", "address"),
        [
            pytest.param([f"for={CLIENT}"], CLIENT, id="one"),
            pytest.param([f"for={FORGED}, for={CLIENT};proto=https;by=10.0.0.1"], CLIENT, id="the rightmost"),
            pytest.param([f"for={FORGED}", f"For={CLIENT}"], CLIENT, id="two fields, any case"),
            pytest.param([f'for="{CLIENT}:4711"'], CLIENT, id="quoted with port"),
            pytest.param(['for="[2001:db8:1::9]:4711"'], "2001:db8:1::9", id="ipv6"),
            pytest.param([f"for={CLIENT}, for=10.2.3.4"], CLIENT, id="a proxy skipped"),
            pytest.param([f"for={FORGED}, for=unknown"], PROXY, id="unknown"),
            pytest.param([f"for={FORGED}, for=_hidden"], PROXY, id="obfuscated"),
            pytest.param([f"for={FORGED}, proto=https"], PROXY, id="no node"),
            pytest.param([f"for={FORGED}, for={CLIENT};for={FORGED}"], PROXY, id="two nodes"),
            pytest.param(["for="], PROXY, id="empty"),
        ],
    )
    def test_forwarded(self, make_portal: MakePortal, fields: list[str], address: str) -> None:
        """RFC 7239, where the other field is missing; with both, the one that proxies write."""
        portal = telling_portal(make_portal, **PROXIES)
        sent = [("Forwarded", value) for value in fields]
        assert who(portal, PROXY, *sent) == address
        assert who(portal, PROXY, *sent, ("X-Forwarded-For", "198.51.100.77")) == "198.51.100.77"

    @pytest.mark.parametrize(
        ("hops", "sent", "address"),
        [
            pytest.param("1", f"{FORGED}, {CLIENT}", CLIENT, id="one"),
            pytest.param("2", f"{FORGED}, {CLIENT}, 104.16.0.1", CLIENT, id="two, whatever their addresses"),
            pytest.param("2", f"{FORGED}, {CLIENT}:80, [2001:db8::1]:80", CLIENT, id="with ports"),
            pytest.param("2", CLIENT, PROXY, id="a chain that is too short proves nothing"),
            pytest.param("2", f"{CLIENT}, garbage", PROXY, id="garbage next to the peer"),
            pytest.param("2", f"garbage, {CLIENT}", CLIENT, id="garbage where the client should be"),
            pytest.param("32", f"{FORGED}, {CLIENT}", PROXY, id="more hops than entries"),
        ],
    )
    def test_a_number_of_proxies(self, make_portal: MakePortal, hops: str, sent: str, address: str) -> None:
        """Where their addresses change: the entry that the outermost of them wrote."""
        assert who(telling_portal(make_portal, TRUSTED_PROXIES=hops), PROXY, ("X-Forwarded-For", sent)) == address

    @pytest.mark.parametrize("variables", [{}, PROXIES, {"TRUSTED_PROXIES": "1"}], ids=["none", "networks", "hops"])
    @pytest.mark.parametrize(("peer", "address"), [(None, "local"), ("", "local"), (STRANGER, STRANGER)])
    def test_a_missing_peer_is_no_missing_check(
        self, make_portal: MakePortal, variables: dict[str, str], peer: str | None, address: str
    ) -> None:
        """A Unix socket has a key like any other client, and a quota."""
        portal = make_portal({"RATE__PER_IP": "2/minute", **variables}, telling, policies=WHO)
        answers = [portal.request("GET", "/who", peer=peer) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[0].json["address"] == address


class TestKeys:
    """X-02: what a limit per address counts under."""

    @pytest.mark.parametrize(
        ("first", "second", "shared"),
        [
            pytest.param("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True, id="one /64"),
            pytest.param("2001:db8:1:2::1", "2001:db8:1:3::1", False, id="the next /64"),
            pytest.param("2001:DB8:1:2::1", "2001:db8:1:2:0::2", True, id="spelling"),
            pytest.param(STRANGER, f"::ffff:{STRANGER}", True, id="mapped"),
            pytest.param(STRANGER, "203.0.113.8", False, id="ipv4 is whole"),
        ],
    )
    @pytest.mark.parametrize("forwarded", [False, True], ids=["peer", "forwarded"])
    def test_one_subscriber_has_one_quota(
        self, make_portal: MakePortal, first: str, second: str, shared: bool, forwarded: bool
    ) -> None:
        """2**64 addresses of one customer are one; as peers and as forwarded clients."""
        portal = make_portal({"RATE__PER_IP": "1/minute", **PROXIES})

        def status(address: str) -> int:
            fields = [("X-Forwarded-For", address)] if forwarded else []
            return portal.request("GET", "/public", fields, peer=PROXY if forwarded else address).status

        assert (status(first), status(second)) == (200, 429 if shared else 200)


class TestAppliedTwice:
    """A server or middleware that already rewrote the peer does not let a client choose its address."""

    CHAIN = ("X-Forwarded-For", f"{FORGED}, {CLIENT}")

    @pytest.mark.parametrize("proxies", ["10.0.0.0/8", "1"], ids=["networks", "hops"])
    def test_the_forged_entry_is_never_believed(self, make_portal: MakePortal, proxies: str) -> None:
        """uvicorn's own middleware and Werkzeug's ProxyFix around the shield."""
        portal = telling_portal(make_portal, TRUSTED_PROXIES=proxies)
        app = portal.door.app
        portal.door.app = (
            ProxyHeadersMiddleware(app, PROXY) if portal.name == "asgi" else ProxyFix(app.wsgi_app, x_for=1)
        )
        assert who(portal, PROXY, self.CHAIN) == CLIENT
        direct = who(portal, STRANGER, ("X-Forwarded-For", FORGED))
        # Whoever reaches a server around its proxies is believed by a number of them, and by ProxyFix (PS-PROXY-106).
        assert direct == (STRANGER if proxies != "1" and portal.name == "asgi" else FORGED)

    def test_a_number_of_proxies_survives_a_server_that_trusts_everybody(self, make_portal: MakePortal) -> None:
        """`FORWARDED_ALLOW_IPS=*` takes the leftmost entry; counting from the right does not care (PS-PROXY-103)."""
        portal = telling_portal(make_portal, TRUSTED_PROXIES="1")
        if portal.name == "asgi":
            portal.door.app = ProxyHeadersMiddleware(portal.door.app, "*")
        assert who(portal, PROXY, self.CHAIN) == CLIENT


class TestWhatElseAProxySays:
    """The scheme and the request id, from a trusted peer only."""

    @pytest.mark.parametrize(
        ("value", "tls"),
        [
            pytest.param("https", True, id="https"),
            pytest.param("HTTPS", True, id="capitals"),
            pytest.param("https, http", True, id="the outer proxy of two"),
            pytest.param("http", False, id="http"),
            pytest.param("httpsx", False, id="something else"),
            pytest.param("", False, id="empty"),
        ],
    )
    @pytest.mark.parametrize("proxies", ["10.0.0.0/8", "1"], ids=["networks", "hops"])
    def test_the_scheme(self, make_portal: MakePortal, value: str, tls: bool, proxies: str) -> None:
        """Strict-Transport-Security behind a proxy that ends TLS."""
        portal = make_portal({"TRUSTED_PROXIES": proxies})
        for peer, believed in ((PROXY, tls), (STRANGER, tls and proxies == "1")):
            answer = portal.request("GET", "/public", [("X-Forwarded-Proto", value)], peer=peer)
            assert (answer.get("strict-transport-security") is not None) is believed

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            pytest.param("01234567-89ab_CDEF", True, id="letters, digits, hyphen, underscore"),
            pytest.param("a" * 8, True, id="shortest"),
            pytest.param("a" * 64, True, id="longest"),
            pytest.param("a" * 7, False, id="too short"),
            pytest.param("a" * 65, False, id="too long"),
            pytest.param("", False, id="empty"),
            pytest.param("<script>alert(1)</script>", False, id="markup"),
            pytest.param("abcdefgh ijkl", False, id="space"),
            pytest.param("abcdefgh\xe9", False, id="another alphabet"),
        ],
    )
    @pytest.mark.parametrize("share", ["enforce", "report:50%"])
    def test_the_request_id(self, make_portal: MakePortal, given: str, kept: bool, share: str) -> None:
        """In the field and in the document; whoever gives it does not choose the share of requests it belongs to."""
        portal = make_portal({**PROXIES, "MODE__AUTH": share})
        documents = 0
        for peer, believed in ((PROXY, kept), (STRANGER, False), (None, kept)):
            answer = portal.request("GET", "/nope", [("X-Request-ID", given)], peer=peer)
            found = answer.get("x-request-id") or ""
            assert (found == given) is believed
            answered = (answer.get("content-type") or "").startswith("application/problem+json")
            assert found.encode() in answer.body or not answered
            documents += answered
            assert believed or (len(found) == 32 and int(found, 16) >= 0)
        assert documents == 3 or share != "enforce"

    def test_two_request_ids_are_none(self, make_portal: MakePortal) -> None:
        """ASGI hands both over, WSGI joins them: ours it is."""
        portal = make_portal(PROXIES)
        two = [("X-Request-ID", "first-0001"), ("X-Request-ID", "second-0002")]
        assert len(portal.request("GET", "/public", two, peer=PROXY).get("x-request-id") or "") == 32

    def test_a_proxy_that_nobody_named_is_warned_of_once(
        self, make_portal: MakePortal, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not for strangers who forge, and not where proxies are named."""
        for variables, peer, warnings in (({}, PROXY, 1), ({}, STRANGER, 0), (PROXIES, PROXY, 0)):
            portal = make_portal(variables)
            caplog.clear()
            for _ in range(3):
                portal.request("GET", "/public", [("X-Forwarded-For", CLIENT)], peer=peer)
            assert sum("PORTALSHIELD_TRUSTED_PROXIES" in record.getMessage() for record in caplog.records) == warnings


class TestSettings:
    """`TRUSTED_PROXIES`."""

    @pytest.mark.parametrize(
        "value",
        [
            *("0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0/33", "hunter2", "*", "0", "33", "2,10.0.0.0/8", "1,2"),
            *("10.0.0.0/8;hunter2", "10.0.0", "-1", "1.5", "UNIX,hunter2", "10.0.0.0-10.0.0.9"),
        ],
    )
    def test_a_wrong_entry_stops_the_start(self, value: str) -> None:
        """PS-PROXY-001 with a hint; everybody is nobody's proxy; never the value."""
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_env(environment(TRUSTED_PROXIES=value))
        (problem,) = caught.value.problems
        assert (problem.id, problem.variable) == ("PS-PROXY-001", "PORTALSHIELD_TRUSTED_PROXIES")
        assert problem.hint
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("value", ["10.0.0.0/8, 192.0.2.7", "2001:db8::/32", "unix", "unix,127.0.0.1", "2", ""])
    def test_networks_addresses_unix_and_a_number(self, value: str) -> None:
        """Each alone or together, the number alone."""
        assert isinstance(Settings.from_env(environment(TRUSTED_PROXIES=value)).trusted_proxies, tuple)
