"""The header fields of a scope."""

from __future__ import annotations


class RawHeaders(dict[bytes, bytes]):
    """The scope's header list as a dict by lower-case name; `raw` is the list itself, for repeats."""

    __slots__ = ("raw",)
    raw: list[tuple[bytes, bytes]]

    def get_all(self, name: bytes) -> list[bytes]:
        """All values of a field in their order."""
        if name not in self:
            return []
        return [self[name]] if len(self) == len(self.raw) else [value for key, value in self.raw if key == name]

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these names is there."""
        return names.isdisjoint(self)


def headers_of(raw: list[tuple[bytes, bytes]]) -> tuple[RawHeaders, int]:
    """The header fields and the size of all of them in bytes."""
    headers = RawHeaders(raw)
    headers.raw = raw
    names = b"".join(headers)
    # Names without any letter (`1: x`) are not lower case by `islower`, and do not change either.
    if not names.islower() and names != names.lower():
        # Servers lower the names; what does not may be read by an application that ignores their case.
        return headers_of([(name.lower(), value) for name, value in raw])
    if len(headers) != len(raw):
        return headers, sum([len(name) + len(value) for name, value in raw])
    return headers, len(names) + len(b"".join(headers.values()))


def one_cookie(raw: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Browsers split `Cookie` where the protocol compresses fields (RFC 9113, 8.2.3; RFC 9114, 4.2.1), and not every
    server puts it together again. In HTTP/1 two of them stay two, and are refused."""
    crumbs = [value for name, value in raw if name.lower() == b"cookie"]
    joined = (b"cookie", b"; ".join(crumbs))
    return [field for field in raw if field[0].lower() != b"cookie"] + [joined] if len(crumbs) > 1 else raw
