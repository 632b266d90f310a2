"""Which `Host` values are served here.

A foreign Host ends up in password-reset links and shared caches, and in `request.url` of frameworks that build it from
the field, so a value that is no plain authority is malformed, whatever the list says. Source: RFC 9110, 7.2; RFC 3986,
3.2.2 without userinfo.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Literal

HostFault = Literal["malformed", "not-allowed"]

# Underscores are no host names by RFC 1123, but resolvers, browsers and compose files use them.
_NAME = bytes(sorted(b"abcdefghijklmnopqrstuvwxyz0123456789-_."))
_MEMO_ENTRIES = 256


class HostPolicy:
    """The allowed hosts, compiled.

    `names`: exact names, `*.example.com` (the `*` is one label), addresses, `*` for any well-formed host; in any case.
    A name without a port allows every port, `example.com:8443` that one. `ValueError` says which entry cannot be used.
    """

    __slots__ = ("_any", "_exact", "_full", "_known", "_parents")

    def __init__(self, names: Sequence[str]) -> None:
        exact: set[bytes] = set()
        parents: set[bytes] = set()
        for number, name in enumerate(names, 1):
            if name == "*":
                continue
            starred = name.startswith("*.")
            (parents if starred else exact).add(_compile(name[2:] if starred else name, number))
        self._any = "*" in names
        self._exact = frozenset(exact)
        self._parents = frozenset(parents)
        # Allowed spellings only, so that a client cannot fill it with junk; ports make them many, hence the bound.
        self._known = set(exact)
        self._full = len(exact) + _MEMO_ENTRIES

    def fault(self, host: bytes | None) -> HostFault | None:
        """What is wrong with this Host field; None if it is served here. One set lookup for a usual one."""
        if host in self._known:
            return None
        parts = _split(host.lower()) if host else None
        if parts is None:
            return "malformed"
        if not (self._any or self._allows(*parts)):
            return "not-allowed"
        if host is not None and len(self._known) < self._full:
            self._known.add(host)
        return None

    def _allows(self, name: bytes, port: bytes) -> bool:
        if name in self._exact or name + port in self._exact:
            return True
        label, _, parent = name.partition(b".")
        return bool(label) and (parent in self._parents or parent + port in self._parents)


def host_faults(names: Sequence[str]) -> tuple[ValueError, ...]:
    """Every entry that `HostPolicy` would refuse, numbered from 1; empty if the list can be used."""
    faults = []
    for number, name in enumerate(names, 1):
        try:
            _compile(name.removeprefix("*."), number) if name != "*" else None
        except ValueError as error:
            faults.append(error)
    return tuple(faults)


def _compile(name: str, number: int) -> bytes:
    lowered = name.lower()
    parts = _split(lowered.encode()) if lowered.isascii() else None
    if parts is None:
        raise ValueError(f"entry {number} is no host")
    return b"".join(parts)


def _split(host: bytes) -> tuple[bytes, bytes] | None:
    """Lower-case host and `:port` (empty without one); None where it is not exactly one plain authority."""
    if len(host) > 255 + 6:
        return None
    if host.startswith(b"["):
        address, bracket, port = host.partition(b"]")
        name = address + bracket
        well_formed = bool(bracket) and _is_ipv6(address[1:])
    else:
        name, colon, digits = host.partition(b":")
        port = colon + digits
        well_formed = _is_name(name)
    return (name, port) if well_formed and _is_port(port) else None


def _is_name(name: bytes) -> bool:
    if not name or len(name) > 253 or name.translate(None, _NAME):
        return False
    return b".." not in name and not name.startswith(b".")


def _is_ipv6(text: bytes) -> bool:
    try:
        return IPv6Address(text.decode("ascii")).scope_id is None
    except ValueError:
        return False


def _is_port(port: bytes) -> bool:
    if not port:
        return True
    return port.startswith(b":") and port[1:].isdigit() and len(port) < 7 and int(port[1:]) < 65536
