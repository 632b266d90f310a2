"""The header fields of an environ, and its path."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class EnvironHeaders:
    """The header fields of an environ, read where they stand. Servers have joined repeats with a comma."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: bytes) -> bytes | None:
        """The value of a field."""
        value = self._environ.get(_KEYS[name])
        return value.encode("latin-1", "replace") if value is not None else None

    def get_all(self, name: bytes) -> list[bytes]:
        """The value as a list: repeats were joined by the server."""
        value = self.get(name)
        return [] if value is None else [value]

    def __contains__(self, name: bytes) -> bool:
        """A field of this name is there."""
        return _KEYS[name] in self._environ

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these names is there."""
        keys = _KEY_SETS.get(names)
        if keys is None:
            keys = _KEY_SETS[names] = frozenset([_KEYS[name] for name in names])
        return keys.isdisjoint(self._environ)


class _Keys(dict[bytes, str]):
    """`x-tenant-id` -> `HTTP_X_TENANT_ID`. Only names that layers ask for come here, never a client's."""

    def __missing__(self, name: bytes) -> str:
        text = name.decode("latin-1").upper().replace("-", "_")
        key = self[name] = text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}"
        return key


_KEYS = _Keys()
_KEY_SETS: dict[frozenset[bytes], frozenset[str]] = {}


def measured(environ: WSGIEnvironment) -> tuple[int, int]:
    """The number of header fields, and their size in bytes."""
    keys = tuple(environ)
    known = _SHAPES.get(keys)
    if known is None:
        names = [key for key in keys if key.startswith("HTTP_")]
        known = len(names), sum(map(len, names)), itemgetter(*names, *_TWO_MORE)
        if len(_SHAPES) >= _MAX_SHAPES:
            _SHAPES.clear()
        if len(keys) <= _LONGEST_SHAPE:
            _SHAPES[keys] = known
    fields, size, values = known
    return fields, size + len("".join(values(environ)))


_SHAPES: dict[tuple[str, ...], tuple[int, int, Callable[[WSGIEnvironment], tuple[str, ...]]]] = {}
"""What the keys of an environ say: how many header fields there are, how long their names, how to get the values."""
_TWO_MORE = ("REQUEST_METHOD", "REQUEST_METHOD")  # an itemgetter of at least two answers a tuple
_MAX_SHAPES, _LONGEST_SHAPE = 1024, 100


def path_of(text: str) -> str:
    """A path as an environ has it (bytes in the guise of latin-1, PEP 3333) as text; U+FFFD where it is no UTF-8."""
    if text.isascii():
        return text or "/"
    try:
        return text.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return "\ufffd"
