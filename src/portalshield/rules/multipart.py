"""Multipart forms (RFC 7578), scanned as they stream: the fields that the application's parser will see, and no others.

A form that passes means the same to python-multipart as Starlette drives it and to Werkzeug; `form_parts` says where
they differ within a part. Between parts they differ in the boundary: Werkzeug takes it after a bare CR or LF, and
directly behind a part's header lines, for a delimiter, python-multipart for data; blanks behind it are padding to one
and data to another version; both skip some preambles. Each of these hides a field from one of two readers, so the
boundary at the beginning of a line is a delimiter by the letter of RFC 2046, 5.1.1, or a fault.

Every byte is searched by `bytes.find` a bounded number of times; what is kept is a part's header lines, the fields that
are asked for, or a delimiter's length of data.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Sequence
from typing import Protocol

from portalshield.rules.addressed import JSON_BLANKS, TooManyPairsError, in_json_text, meant, opens_json
from portalshield.rules.form_parts import MultipartFault, Part, read_part
from portalshield.rules.media_types import parse_media_type

__all__ = ["FormScanner", "MultipartFault", "boundary_of"]

_MAX_BOUNDARY = 70
_BOUNDARY = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=? ")
_CRLF, _BLANK_LINE, _CLOSE = b"\r\n", b"\r\n\r\n", b"--"
_CR = 0x0D
_JSON_BYTES = 1_048_576
_UTF_8 = getincrementaldecoder("utf-8")


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary in the Content-Type of a multipart form; None if it is no such type, or parsers could differ on it.

    1 to 70 characters of RFC 2046, 5.1.1. The field's own bytes, not a parsed media type: parsers disagree on a
    backslash in a quoted boundary, and parsing loses it. Parameters other than `boundary` and a `charset` of UTF-8
    (Starlette decodes the fields by it, Werkzeug does not) are refused.
    """
    media = parse_media_type(content_type)
    if media is None or media.essence != "multipart/form-data" or b"\\" in content_type:
        return None
    if any(key not in ("boundary", "charset") for key, _ in media.parameters):
        return None
    if (media.parameter("charset") or "utf-8").lower() not in ("utf-8", "utf8"):
        return None
    boundary = (media.parameter("boundary") or "").encode("ascii")
    return boundary if _is_boundary(boundary) else None


class Parts(Protocol):
    """Is told of each part while it is read, and may refuse it with a `MultipartFault`."""

    def begin(self, part: Part) -> None:
        """The header lines of a part were read."""

    def data(self, data: bytes) -> None:
        """Bytes of a file, in pieces that depend on how the form is cut."""

    def end(self) -> None:
        """The delimiter behind a file was read."""


class FormScanner:
    """Reads a multipart form in chunks of any size; how it is cut changes neither fields nor verdict.

    `fields`: (name, value) of the complete fields that are no files, in order. With `names`, only those that mean one
    of the names (`t`, `t[]`, `filter[t]`, `filter.t`), under the name meant, and the members of these names in fields
    that are JSON (at most 1 MiB of it); a file of such a name is a fault.
    `reached_file`: the header lines of a file have been read. `late`: the names in `fields` that were completed after
    that. `finished`: the closing delimiter was read. `epilogue_bytes`: what came behind it, which nobody reads.
    """

    __slots__ = (
        "_after_cr",
        "_after_lf",
        "_ascii_only",
        "_boundary",
        "_buffer",
        "_code",
        "_decoder",
        "_json_room",
        "_keeps",
        "_lead",
        "_max_header_bytes",
        "_meanings",
        "_names",
        "_parts",
        "_parts_left",
        "_pieces",
        "_room",
        "_searched",
        "_step",
        "_watched",
        "epilogue_bytes",
        "fields",
        "finished",
        "late",
        "reached_file",
    )

    def __init__(
        self,
        boundary: bytes,
        *,
        max_parts: int = 100,
        max_header_bytes: int = 8192,
        max_field_bytes: int = 65536,
        names: frozenset[str] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """`boundary` as from `boundary_of`, else ValueError.

        `max_header_bytes` is per part and includes the blank line, `max_field_bytes` the sum of what `fields` holds.
        `parts` judges them, whether they are fields or files.
        """
        if not _is_boundary(boundary):
            raise ValueError("not a boundary of RFC 2046, 5.1.1")
        self.fields: list[tuple[str, str]] = []
        self.late: list[str] = []
        self.reached_file = self.finished = False
        self.epilogue_bytes = 0
        self._boundary = b"--" + boundary
        self._after_lf, self._after_cr = b"\n" + self._boundary, b"\r" + self._boundary
        self._names = names
        self._parts = parts
        self._parts_left, self._max_header_bytes, self._room = max_parts, max_header_bytes, max_field_bytes
        self._code: str | None = None
        self._buffer = bytearray()
        self._step: Callable[[FormScanner], bool] = FormScanner._open
        self._searched = 0  # how much of the buffer is known to hold no end of header lines
        self._lead = 0  # how much of the buffer stands before the part's data
        # The part that is being read. A file, and nothing at all, has no decoder; only a judged file is `_watched`.
        self._watched = False
        self._decoder: IncrementalDecoder | None = None
        self._ascii_only = False
        self._meanings: Sequence[str] = ()
        self._keeps: bool | None = False  # None: a field that may yet prove to be JSON
        self._json_room = _JSON_BYTES
        self._pieces: list[str] = []

    def feed(self, chunk: bytes) -> None:
        """Read on. Raises `MultipartFault`, from then on always the same one."""
        if self._code is not None:
            raise MultipartFault(self._code)
        self._buffer += chunk
        try:
            while self._step(self):
                continue
        except MultipartFault as fault:
            self._code = fault.code
            self._buffer.clear()
            raise

    def close(self) -> None:
        """The body ends here. Raises `MultipartFault` if the form does not: Starlette would take what came for all."""
        if self._code is not None or not self.finished:
            raise MultipartFault(self._code or "truncated")

    # -- steps: each goes on to the next and returns True, or needs more bytes and returns False -----------------------

    def _open(self) -> bool:
        """An empty preamble, with or without the line end that belongs to the delimiter."""
        if len(self._buffer) < len(_CRLF):
            return False
        if self._buffer.startswith(_CRLF):
            del self._buffer[:2]
        self._step = FormScanner._delimiter
        return True

    def _delimiter(self) -> bool:
        end = len(self._boundary) + 2
        if len(self._buffer) < end:
            return False
        if not self._buffer.startswith(self._boundary):
            raise MultipartFault("preamble")
        behind = bytes(self._buffer[end - 2 : end])
        del self._buffer[:end]
        if behind not in (_CRLF, _CLOSE):
            raise MultipartFault("delimiter")
        self._complete()
        if behind == _CLOSE:
            self.finished = True
            self._step = FormScanner._epilogue
            return True
        self._parts_left -= 1
        if self._parts_left < 0:
            raise MultipartFault("too-many-parts")
        self._searched = 0
        self._step = FormScanner._headers
        return True

    def _headers(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(_CRLF):
            raise MultipartFault("no-disposition")
        end = buffer.find(_BLANK_LINE, self._searched, self._max_header_bytes)
        if end < 0:
            if len(buffer) >= self._max_header_bytes:
                raise MultipartFault("headers-too-large")
            self._searched = max(0, len(buffer) - len(_BLANK_LINE) + 1)
            return False
        self._begin(read_part(bytes(buffer[:end])))
        # The line end of the blank line stays, so that a boundary right behind it is found to stand at a line's start.
        del buffer[: end + 2]
        self._lead = 2
        self._step = FormScanner._data
        return True

    def _data(self) -> bool:
        buffer = self._buffer
        if self._boundary not in buffer:
            return self._pass_data()
        lf = buffer.find(self._after_lf)
        cr = buffer.find(self._after_cr, 0, len(buffer) if lf < 0 else lf)
        if lf < 0 and cr < 0:
            return self._pass_data()
        stop = lf - 1 if cr < 0 else cr
        if stop < self._lead:
            raise MultipartFault("delimiter")
        self._take(self._lead, stop)
        if cr >= 0 or buffer[stop] != _CR:
            raise MultipartFault("delimiter")
        del buffer[: lf + 1]
        self._step = FormScanner._delimiter
        return True

    def _epilogue(self) -> bool:
        self.epilogue_bytes += len(self._buffer)
        self._buffer.clear()
        return False

    # -- the part that is being read -----------------------------------------------------------------------------------

    def _begin(self, part: Part) -> None:
        meanings = [part.name] if self._names is None else meant(part.name, self._names)
        if part.is_file:
            if meanings and self._names is not None:
                # Starlette has it among the fields, Werkzeug among the files; either way its value is not judged.
                raise MultipartFault("file-named-as-field")
            self.reached_file = True
            self._watched = self._parts is not None
        if self._parts is not None:
            self._parts.begin(part)
        if part.is_file:
            return
        self._decoder = _UTF_8()
        self._ascii_only = part.ascii_only
        self._meanings = meanings
        self._keeps = True if meanings else None if self._names else False

    def _pass_data(self) -> bool:
        """There is no delimiter in the buffer: all is data but for what may be the beginning of one."""
        stop = len(self._buffer) - len(self._after_lf)
        if stop > self._lead:
            self._take(self._lead, stop)
            del self._buffer[:stop]
            self._lead = 0
        return False

    def _take(self, start: int, stop: int) -> None:
        if self._decoder is None:
            if self._watched and self._parts is not None:
                # One copy, where slicing the buffer would be two.
                self._parts.data(bytes(memoryview(self._buffer)[start:stop]))
            return
        # Of a value that is too large, what still fits is judged first: so its first fault is the same in any chunks.
        fitting = stop
        if self._keeps is not False:
            fitting = min(stop, start + (self._room if self._meanings else self._json_room))
        self._decode(self._decoder, bytes(self._buffer[start:fitting]))
        if self._meanings:
            self._room -= stop - start
        elif self._keeps is not False:
            self._json_room -= stop - start
        if fitting < stop:
            if self._keeps is not False:
                raise MultipartFault("field-too-large")
            self._decode(self._decoder, bytes(self._buffer[fitting:stop]))

    def _decode(self, decoder: IncrementalDecoder, data: bytes, final: bool = False) -> None:
        """Fields that nobody asks for are decoded, too: Starlette falls back to Latin-1 where Werkzeug replaces."""
        try:
            text = decoder.decode(data, final)
        except UnicodeDecodeError:
            raise MultipartFault("not-utf8") from None
        if self._ascii_only and not text.isascii():
            raise MultipartFault("charset")
        if self._keeps is None and text.lstrip(JSON_BLANKS):
            self._keeps = opens_json(text)
        if self._keeps:
            self._pieces.append(text)

    def _complete(self) -> None:
        if self._watched and self._parts is not None:
            self._watched = False
            self._parts.end()
        if self._decoder is None:
            return
        self._decode(self._decoder, b"", final=True)
        value = "".join(self._pieces)
        found = [(name, value) for name in self._meanings]
        if self._keeps and self._names is not None:
            found += self._members(value, self._names)
        self.fields += found
        if self.reached_file:
            self.late += [name for name, _ in found]
        self._decoder = None
        self._pieces = []

    def _members(self, value: str, names: frozenset[str]) -> list[tuple[str, str]]:
        try:
            return list(in_json_text(value, names))
        except TooManyPairsError:
            raise MultipartFault("json-too-deep") from None


def _is_boundary(text: bytes) -> bool:
    return 0 < len(text) <= _MAX_BOUNDARY and _BOUNDARY.issuperset(text) and not text.endswith(b" ")
