"""The header lines of one part of a multipart form, read only where every parser reads them alike.

RFC 7578, 4.2 asks for a Content-Disposition `form-data` with a `name` and forbids the spellings of RFC 2231 (`name*`).
Parsers differ in what they make of the rest: python-multipart takes the last of two dispositions, Werkzeug the first;
Werkzeug unfolds lines, takes bare CR or LF for line ends, honours `name*` and reads `%22` as a quote; a backslash means
something else to each version of each. A part that leaves room for a second reading is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from portalshield.rules.http_tokens import is_token
from portalshield.rules.media_types import parse_media_type

# python-multipart has the same bounds (8 lines of 4,224 bytes) and fails beyond them.
_MAX_LINES = 8
_MAX_LINE_BYTES = 4096
MAX_FILENAME = 255
"""Characters of a file's name: no file system takes more."""
_CONTROLS = bytes((*range(0x20), 0x7F))
_CRLF = b"\r\n"
_IDENTITY_ENCODINGS = frozenset(("7bit", "8bit", "binary"))
_UTF_8 = frozenset(("utf-8", "utf8"))
_SUBSETS_OR_LATIN_1 = frozenset(("us-ascii", "ascii", "iso-8859-1"))


class MultipartFault(ValueError):  # noqa: N818 (a fault of the form, as `JSONFault` is one of a document)
    """The form is refused; `code` is a fixed slug, never a piece of the form.

    Of the form: `preamble`, `delimiter` (the boundary where parsers disagree whether it is one), `too-many-parts`,
    `field-too-large`, `json-too-deep`, `not-utf8`, `truncated`. Of a part: `headers-too-large`, `too-many-headers`,
    `header-syntax`, `duplicate-header`, `no-disposition`, `disposition`, `no-name`, `duplicate-parameter`,
    `extended-parameter`, `escape`, `content-type`, `charset`, `charset-field`, `nested`, `transfer-encoding`,
    `file-named-as-field`, `filename-too-long`. Of an upload: see `uploads.FileJudge`.
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Part(NamedTuple):
    """What the header lines say. `ascii_only`: beyond ASCII, parsers would read the value in different charsets.

    `filename` is what follows `filename=`, None for a field; `content_type` the part's own, as it came.
    """

    name: str
    ascii_only: bool
    filename: str | None = None
    content_type: str | None = None

    @property
    def is_file(self) -> bool:
        """There is a `filename`, be it empty: for every parser this is a file."""
        return self.filename is not None


def read_part(block: bytes) -> Part:
    """The part that these header lines (CRLF between them, none at the end) begin; raises `MultipartFault` only."""
    headers = _headers(block)
    disposition = headers.get("content-disposition")
    if disposition is None:
        raise MultipartFault("no-disposition")
    name, filename = _field(disposition)
    if headers.get("content-transfer-encoding", "binary").lower() not in _IDENTITY_ENCODINGS:
        raise MultipartFault("transfer-encoding")
    content_type = headers.get("content-type")
    if content_type is None:
        return Part(name, False, filename)
    if content_type.lower().startswith("multipart/"):
        raise MultipartFault("nested")
    return Part(name, filename is None and _is_ascii_only(content_type), filename, content_type)


# -- lines ------------------------------------------------------------------------------------------------------------


def _headers(block: bytes) -> dict[str, str]:
    """Values by lower-case name."""
    lines = block.split(_CRLF)
    if len(lines) > _MAX_LINES:
        raise MultipartFault("too-many-headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _header(line)
        if name in headers:
            raise MultipartFault("duplicate-header")
        headers[name] = value
    return headers


def _header(line: bytes) -> tuple[str, str]:
    if len(line) > _MAX_LINE_BYTES:
        raise MultipartFault("headers-too-large")
    # A folded line begins with a blank, so its name is no token; bare CR and LF, tabs and NUL are controls.
    if len(line.translate(None, _CONTROLS)) != len(line):
        raise MultipartFault("header-syntax")
    try:
        name, colon, value = line.decode("utf-8").partition(":")
    except UnicodeDecodeError:
        raise MultipartFault("not-utf8") from None
    if not colon or not is_token(name):
        raise MultipartFault("header-syntax")
    return name.lower(), value.strip(" ")


# -- values -----------------------------------------------------------------------------------------------------------


def _field(disposition: str) -> tuple[str, str | None]:
    """The name of the form field, and of the file if it is one."""
    if "\\" in disposition:
        raise MultipartFault("escape")
    kind, semicolon, rest = disposition.partition(";")
    if kind.lower() != "form-data":
        raise MultipartFault("disposition")
    parameters = _parameters(semicolon + rest)
    name = parameters.get("name")
    if name is None:
        raise MultipartFault("no-name")
    if "%22" in name:
        raise MultipartFault("escape")
    if name.lower() == "_charset_":
        # RFC 7578, 4.6: it would change how all other fields are to be decoded.
        raise MultipartFault("charset-field")
    filename = parameters.get("filename")
    if filename is not None and len(filename) > MAX_FILENAME:
        raise MultipartFault("filename-too-long")
    return name, filename


def _parameters(text: str) -> dict[str, str]:
    """`; a="b"; c=d` from left to right: nothing doubled, nothing empty, blanks only behind a semicolon."""
    found: dict[str, str] = {}
    while text:
        if not text.startswith(";"):
            raise MultipartFault("disposition")
        key, equals, text = text[1:].lstrip(" ").partition("=")
        if not equals or not is_token(key):
            raise MultipartFault("disposition")
        if "*" in key:
            raise MultipartFault("extended-parameter")
        key = key.lower()
        if key in found:
            raise MultipartFault("duplicate-parameter")
        found[key], text = _value(text)
    return found


def _value(text: str) -> tuple[str, str]:
    """A quoted string without escapes or a token, and what stands behind it."""
    if text.startswith('"'):
        value, quote, rest = text[1:].partition('"')
        if not quote:
            raise MultipartFault("disposition")
        return value, rest
    value, semicolon, rest = text.partition(";")
    if not is_token(value):
        raise MultipartFault("disposition")
    return value, semicolon + rest


def _is_ascii_only(content_type: str) -> bool:
    """Werkzeug decodes a field by its own charset if that is one of four, Starlette never does."""
    media = parse_media_type(content_type.encode("utf-8"))
    if media is None or "\\" in content_type or any("*" in key for key, _ in media.parameters):
        raise MultipartFault("content-type")
    charset = (media.parameter("charset") or "utf-8").lower()
    if charset in _UTF_8:
        return False
    if charset in _SUBSETS_OR_LATIN_1:
        return True
    raise MultipartFault("charset")
