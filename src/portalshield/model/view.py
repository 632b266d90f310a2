"""What a function that prices requests may see of one: `@limit("1000/hour", cost=price)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from portalshield.model.principal import Principal

if TYPE_CHECKING:
    from portalshield.model.exchange import Exchange


class RequestView:
    """A request as it stands where limits are counted: before its body is read, read only.

    Address limits are counted before authentication: `principal` is None there. Header fields and the query are what
    the client wrote, so a price made of them must not let anybody pay less by leaving something out.
    """

    __slots__ = ("_x",)

    def __init__(self, x: Exchange) -> None:
        self._x = x

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return self._x.method

    @property
    def path(self) -> str:
        """The decoded path."""
        return self._x.path

    @property
    def route(self) -> str:
        """The template of the route that serves it."""
        return self._x.template

    @property
    def params(self) -> Mapping[str, str]:
        """Path parameters as text."""
        return self._x.params

    @property
    def query(self) -> bytes:
        """The query as it came, without the question mark; at most 8 KiB."""
        return self._x.query

    @property
    def address(self) -> str:
        """The client's address, behind configured proxies the one they vouch for."""
        return self._x.address

    @property
    def principal(self) -> Principal | None:
        """Who is calling, verified; None before authentication and on public routes."""
        return self._x.principal

    @property
    def content_length(self) -> int:
        """The declared length of the body; 0 where none was declared, also for bodies that come in chunks."""
        declared = self._x.headers.get(b"content-length") or b""
        return int(declared) if declared.isdigit() and len(declared) <= 18 else 0

    def header(self, name: str) -> str | None:
        """The value of a header field, by name in any case; None if it is absent."""
        value = self._x.headers.get(name.lower().encode("latin-1"))
        return value.decode("latin-1") if value is not None else None


Price = Callable[[RequestView], int]
"""What a request uses up: 0 or more. It is called for every request, so it is quick and does not wait."""
