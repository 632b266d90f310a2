"""Who is asking: the client's address behind proxies, and the key its limits are counted under.

A forwarded address is believed only as far as each hop that reports it is a configured proxy: the chain is walked from
the right (the socket's side), because everything left of the first stranger is text that the stranger chose. Sources:
RFC 7239, and the conventions of `X-Forwarded-For`, which has no standard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeVar

LOCAL = "local"
"""The address and the limit key of Unix sockets, missing peers and peers that have no address."""

MAX_HOPS = 32
_MEMO_ENTRIES = 4096
_MAX_ENTRY = 64
_DIGITS = frozenset("0123456789")
_TLS = frozenset((b"https", b"wss"))

_V = TypeVar("_V")

Span = tuple[int, int, int]
"""IP version, first and last address as integers."""


class TrustedProxies:
    """Whose forwarded headers count: networks, Unix sockets (`unix`), or any `hops` nearest hops."""

    __slots__ = ("_memo", "_spans", "hops", "unix")

    def __init__(self, spans: tuple[Span, ...] = (), *, unix: bool = False, hops: int = 0) -> None:
        self._spans = spans
        self.unix = unix
        self.hops = hops
        self._memo: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._spans or self.unix or self.hops)

    def covers(self, address: str) -> bool:
        """Whether a canonical address (or `local`) lies in the networks."""
        if address == LOCAL:
            return self.unix
        known = self._memo.get(address)
        if known is None:
            known = _lies_in(address, self._spans)
            _remember(self._memo, address, known)
        return known

    def believes(self, peer: str | None) -> bool:
        """Whether what this socket peer says of a request counts. A number of proxies makes every peer one."""
        return bool(self.hops) or self.covers(canonical_address(peer) if peer else LOCAL)

    @property
    def covers_strangers(self) -> bool:
        """A network holds more public addresses than any operator of proxies has: clients are in it too."""
        return any(_is_too_wide(span) for span in self._spans)


def parse_networks(entries: Sequence[str] | int) -> TrustedProxies:
    """Compile `TRUSTED_PROXIES`: CIDRs and addresses, `unix`, or one number of hops.

    `ValueError` says which entry is wrong and why, without its text.
    """
    if isinstance(entries, int):
        return TrustedProxies(hops=_hops(str(entries), 1))
    if any(_DIGITS.issuperset(entry.strip()) and entry.strip() for entry in entries):
        if len(entries) > 1:
            raise ValueError("a number of proxies stands alone: write either the number or the networks")
        return TrustedProxies(hops=_hops(entries[0].strip(), 1))
    spans = tuple(_span(entry.strip(), number) for number, entry in enumerate(entries, 1) if entry.strip() != "unix")
    return TrustedProxies(spans, unix=any(entry.strip() == "unix" for entry in entries))


def client_address(
    peer: str | None, forwarded_for: Sequence[bytes], forwarded: Sequence[bytes], trusted: TrustedProxies
) -> str:
    """The client's canonical address, or `local`.

    `peer` is the socket's address; `forwarded_for` and `forwarded` are all fields of `X-Forwarded-For` and `Forwarded`
    in their order. `X-Forwarded-For` wins where both came: proxies that write only `Forwarded` are rare, and must
    remove the other. What cannot be read ends the walk at the last good hop.
    """
    nearest = canonical_address(peer) if peer else LOCAL
    if not (forwarded_for or forwarded) or not trusted:
        return nearest
    if trusted.hops:
        return _hop(nearest, _chain(forwarded_for, forwarded), trusted.hops)
    return _walk(nearest, _chain(forwarded_for, forwarded), trusted) if trusted.covers(nearest) else nearest


def came_over_tls(forwarded_proto: Sequence[bytes]) -> bool:
    """Whether a proxy says in `X-Forwarded-Proto` that the client spoke TLS to it, or to one in front of it."""
    return any(part.strip(b" \t").lower() in _TLS for part in b",".join(forwarded_proto).split(b","))


def canonical_address(text: str) -> str:
    """One spelling per address: no port, brackets or zone, IPv4-mapped unwrapped; `local` for what is no address."""
    known = _CANONICAL.get(text)
    if known is None:
        known = _canonical(text)
        if len(text) <= _MAX_ENTRY:
            _remember(_CANONICAL, text, known)
    return known


def limit_key(address: str) -> str:
    """What limits per address are counted under: an IPv4 address whole, an IPv6 address by its /64, else `local`.

    One subscriber has 2**64 addresses of IPv6, so anything finer counts nothing. One dict lookup for a known address.
    """
    known = _KEYS.get(address)
    if known is None:
        known = _prefix(address, 32, 64)
        if len(address) <= _MAX_ENTRY:
            _remember(_KEYS, address, known)
    return known


@lru_cache(maxsize=_MEMO_ENTRIES)
def is_private(address: str) -> bool:
    """Whether the peer is of the house: loopback, private, link-local or carrier-grade space, a Unix socket.

    Own table, because `ipaddress` also calls the documentation networks private, and changed its mind between releases.
    """
    canonical = canonical_address(address)
    return canonical == LOCAL or _lies_in(canonical, _PRIVATE)


# -- the walk ---------------------------------------------------------------------------------------------------------


def _walk(nearest: str, chain: list[str], trusted: TrustedProxies) -> str:
    last = nearest
    for entry in reversed(chain):
        address = canonical_address(entry)
        if address == LOCAL:
            return last
        if not trusted.covers(address):
            return address
        last = address
    return last


def _hop(nearest: str, chain: list[str], hops: int) -> str:
    # A shorter chain did not come through all the proxies: none of its entries is proven.
    if len(chain) < hops:
        return nearest
    last = nearest
    for entry in reversed(chain[-hops:]):
        address = canonical_address(entry)
        if address == LOCAL:
            return last
        last = address
    return last


def _chain(forwarded_for: Sequence[bytes], forwarded: Sequence[bytes]) -> list[str]:
    """The entries from left to right, repeated fields joined; at most the `MAX_HOPS` rightmost."""
    if forwarded_for:
        entries = b",".join(forwarded_for).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
        return [entry for entry in map(_stripped, entries) if entry]
    elements = b",".join(forwarded).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    return [_forwarded_node(element) for element in elements if _stripped(element)]


def _stripped(entry: str) -> str:
    return entry.strip(" \t")


def _forwarded_node(element: str) -> str:
    """The `for` node of one element of `Forwarded`; `unknown`, which is no address, where there is none, or two."""
    nodes = []
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if _stripped(name).lower() == "for":
            nodes.append(_stripped(value))
    if len(nodes) != 1:
        return "unknown"
    node = nodes[0]
    return node[1:-1] if len(node) > 1 and node[0] == node[-1] == '"' else node


# -- addresses --------------------------------------------------------------------------------------------------------

_CANONICAL: dict[str, str] = {}
_KEYS: dict[str, str] = {}


def _remember(memo: dict[str, _V], key: str, value: _V) -> None:
    """Keep an answer; a full memo is emptied, so that minted addresses cost memory only up to its bound."""
    if len(memo) >= _MEMO_ENTRIES:
        memo.clear()
    memo[key] = value


def _canonical(text: str) -> str:
    address = _address(text)
    return LOCAL if address is None else str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    if len(text) > _MAX_ENTRY:
        return None
    try:
        address = ip_address(_bare(text))
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _bare(text: str) -> str:
    """Without port, brackets and zone. `ValueError` for a port that is none."""
    if text.startswith("["):
        text, _, port = text[1:].partition("]")
        if port and not _is_port(port[1:], port[0]):
            raise ValueError
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port, ":"):
            raise ValueError
    return text.partition("%")[0] if ":" in text else text


def _is_port(text: str, separator: str) -> bool:
    return separator == ":" and 0 < len(text) < 6 and _DIGITS.issuperset(text)


def _prefix(text: str, bits_v4: int, bits_v6: int) -> str:
    address = _address(text)
    if address is None:
        return LOCAL
    bits = bits_v4 if address.version == 4 else bits_v6
    if bits == address.max_prefixlen:
        return str(address)
    spare = address.max_prefixlen - bits
    return f"{type(address)(int(address) >> spare << spare)}/{bits}"


def _lies_in(address: str, spans: tuple[Span, ...]) -> bool:
    parsed = _address(address)
    if parsed is None:
        return False
    version, number = parsed.version, int(parsed)
    return any(version == span[0] and span[1] <= number <= span[2] for span in spans)


# -- configuration ----------------------------------------------------------------------------------------------------


def _span(entry: str, number: int) -> Span:
    try:
        network = ip_network(entry)
    except ValueError:
        raise ValueError(
            f"entry {number} is no network: write a CIDR without host bits, such as 10.0.0.0/8, an address, unix, or "
            "the number of proxies"
        ) from None
    if network.prefixlen == 0:
        raise ValueError(f"entry {number} lets clients choose their address: name the proxies, or write their number")
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 6 and first >> 32 == last >> 32 == 0xFFFF:
        return 4, first & 0xFFFFFFFF, last & 0xFFFFFFFF
    return network.version, first, last


def _is_too_wide(span: Span) -> bool:
    version, first, last = span
    if any(version == own[0] and own[1] <= first and last <= own[2] for own in _PRIVATE):
        return False
    return last - first >= 1 << (24 if version == 4 else 108)


def _hops(digits: str, number: int) -> int:
    hops = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
    if not 0 < hops <= MAX_HOPS:
        raise ValueError(f"entry {number} is no number of proxies: write 1 to {MAX_HOPS}")
    return hops


_PRIVATE: tuple[Span, ...] = tuple(
    _span(network, 0)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
