"""A query string as the pairs that frameworks make of it (WHATWG URL, urlencoded parsing)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

MAX_PARAMETERS = 1000
"""More parameters than anybody sends on purpose."""


class QueryFault(ValueError):  # noqa: N818 (a fault of the query, as `JSONFault` is one of a document)
    """The query is refused; `code` is a fixed slug: `too-many-parameters` or `not-utf8`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def read_query(data: bytes) -> dict[str, list[str]]:
    """All values by name, in their order. Raises `QueryFault`: frameworks replace what is no UTF-8, each where it
    likes, and none of them would see what is validated here."""
    if data.count(b"&") >= MAX_PARAMETERS:
        raise QueryFault("too-many-parameters")
    found: dict[str, list[str]] = {}
    for pair in data.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            found.setdefault(_decoded(name), []).append(_decoded(value))
    return found


def _decoded(text: bytes) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise QueryFault("not-utf8") from None
