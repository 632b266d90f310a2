"""What a file is by its bytes: a short table of the types that portals take, each with how it begins and how it ends.

The signature stands at the first byte (readers that look for it further on are how polyglots are made), and where a
format says where it ends, the file must end there: PNG's last chunk, GIF's trailer, the length that WebP declares, the
`%%EOF` of a PDF. Text is UTF-8 without control characters that does not begin as markup or as another type. Sources:
PNG 3rd edition, 5.2; GIF89a, 17 and 27; RFC 9649 (WebP); ISO 32000-2, 7.5; APPNOTE 6.3 (ZIP); ISO 14496-12, 4.3;
ISO 11172-3, 2.4.1.3 (MP3) and ID3v2.4, 3.1; WHATWG MIME Sniffing, 7.1 for markup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

HEAD_BYTES = 2048
"""How much of its beginning a type is recognised by; the second frame of an MP3 begins within it."""

TEXT_CONTROLS = bytes(sorted({*range(0x20), 0x7F} - set(b"\t\n\r\f")))
"""No text has these."""


class Kind(NamedTuple):
    """One type. `extensions` are in lower case. `begins` is asked with the first `HEAD_BYTES`, `ends` with them, the
    last bytes of the file (1,024 at least, or all) and its size. `entries`: of a ZIP archive, the beginnings of names
    that must be among its own."""

    essence: str
    extensions: tuple[str, ...]
    begins: Callable[[bytes], bool]
    ends: Callable[[bytes, bytes, int], bool] = lambda head, tail, size: True
    aliases: tuple[str, ...] = ()
    is_text: bool = False
    is_archive: bool = False
    entries: tuple[bytes, ...] = ()


# -- images -----------------------------------------------------------------------------------------------------------

_IEND = b"\0\0\0\0IEND\xae\x42\x60\x82"


def _png(head: bytes) -> bool:
    return head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


def _jpeg(head: bytes) -> bool:
    return head.startswith(b"\xff\xd8\xff") and len(head) > 3 and 0xC0 <= head[3] <= 0xFE


def _gif(head: bytes) -> bool:
    return head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 13


def _webp(head: bytes) -> bool:
    return head.startswith(b"RIFF") and head[8:15] == b"WEBPVP8"


def _webp_ends(head: bytes, tail: bytes, size: int) -> bool:
    """As long as it declares; an odd length may have been written without its padding."""
    declared = int.from_bytes(head[4:8], "little") + 8
    return size in (declared, declared + declared % 2)


def _png_ends(head: bytes, tail: bytes, size: int) -> bool:
    return tail.endswith(_IEND)


def _gif_ends(head: bytes, tail: bytes, size: int) -> bool:
    return tail.rstrip(b"\0").endswith(b";")


# -- documents --------------------------------------------------------------------------------------------------------

_PDF_END = 1024


def _pdf(head: bytes) -> bool:
    return head.startswith((b"%PDF-1.", b"%PDF-2."))


def _pdf_ends(head: bytes, tail: bytes, size: int) -> bool:
    return b"%%EOF" in tail[-_PDF_END:]


def _zip(head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04")


def _opendocument(essence: bytes) -> Callable[[bytes], bool]:
    """Its first entry is called `mimetype`, stored as it is (OpenDocument 1.3, part 2, 3.3)."""
    begins = b"mimetype" + essence

    def judge(head: bytes) -> bool:
        return _zip(head) and head[30 : 30 + len(begins)] == begins

    return judge


# -- sound and film ---------------------------------------------------------------------------------------------------

_VIDEO = frozenset(
    (
        b"isom",
        b"iso2",
        b"iso3",
        b"iso4",
        b"iso5",
        b"iso6",
        b"mp41",
        b"mp42",
        b"avc1",
        b"M4V ",
        b"M4VH",
        b"dash",
        b"MSNV",
    )
)
_AUDIO = frozenset((b"M4A ", b"M4B ", b"mp42", b"isom", b"iso2"))
_MAX_FTYP = 512
# Kilobit per second by the index of a frame header, layer III: version 1, and versions 2 and 2.5.
_RATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _brands(wanted: frozenset[bytes]) -> Callable[[bytes], bool]:
    """A file type box that names one of the brands, as its own or as a compatible one."""

    def judge(head: bytes) -> bool:
        size = int.from_bytes(head[:4], "big")
        if head[4:8] != b"ftyp" or not 16 <= size <= _MAX_FTYP or size % 4 or len(head) < size:
            return False
        found = {head[at : at + 4] for at in (8, *range(16, size, 4))}
        return not wanted.isdisjoint(found)

    return judge


def _mp3(head: bytes) -> bool:
    """An ID3 tag, or two frames of layer III one after the other: the sync bits alone are too few to tell."""
    if head.startswith(b"ID3"):
        return len(head) >= 10 and 2 <= head[3] <= 4 and head[4] != 0xFF and max(head[6:10]) < 0x80
    length = _frame_bytes(head)
    return length > 0 and _frame_bytes(head[length : length + 4]) > 0


def _frame_bytes(header: bytes) -> int:
    """The length of the MPEG layer III frame that begins here; 0 if none does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate, sampling = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer != 1 or not 0 < rate < 15 or sampling == 3:
        return 0
    kbits = (_RATES_1 if version == 3 else _RATES_2)[rate]
    return (144 if version == 3 else 72) * kbits * 1000 // _SAMPLES[version][sampling] + (header[2] >> 1 & 1)


# -- text -------------------------------------------------------------------------------------------------------------

_BOM = b"\xef\xbb\xbf"
_TAGS = (
    *(b"<!doctype html", b"<html", b"<head", b"<script", b"<iframe", b"<h1", b"<div", b"<font", b"<table", b"<a"),
    *(
        b"<style",
        b"<title",
        b"<b",
        b"<body",
        b"<br",
        b"<p",
        b"<svg",
        b"<object",
        b"<embed",
        b"<form",
        b"<img",
        b"<link",
    ),
)
_MARKS = (b"<?", b"<!--", b"#!", b"%pdf-", b"%!ps-", b"{\\rtf", b"gif87a", b"gif89a")


def _text(head: bytes) -> bool:
    """Nothing that a browser or a reader of another type would take it for."""
    start = head.removeprefix(_BOM).lstrip(b" \t\r\n\f").lower()
    if start.startswith(_MARKS):
        return False
    return not any(start.startswith(tag) and start[len(tag) : len(tag) + 1] in _TAG_ENDS for tag in _TAGS)


_TAG_ENDS = frozenset((b"", b" ", b">", b"/", b"\t", b"\r", b"\n", b"\f"))

# -- the table --------------------------------------------------------------------------------------------------------

_OFFICE = "application/vnd.openxmlformats-officedocument."
_CONTENT_TYPES = b"[Content_Types].xml"


def _office(name: str, extension: str, folder: bytes) -> Kind:
    return Kind(f"{_OFFICE}{name}", (extension,), _zip, is_archive=True, entries=(_CONTENT_TYPES, folder))


def _open(name: str, extension: str) -> Kind:
    essence = f"application/vnd.oasis.opendocument.{name}"
    return Kind(essence, (extension,), _opendocument(essence.encode()), is_archive=True)


_KINDS = (
    Kind("image/png", ("png",), _png, _png_ends),
    Kind("image/jpeg", ("jpg", "jpeg", "jpe", "jfif"), _jpeg, aliases=("image/jpg", "image/pjpeg")),
    Kind("image/gif", ("gif",), _gif, _gif_ends),
    Kind("image/webp", ("webp",), _webp, _webp_ends),
    Kind("application/pdf", ("pdf",), _pdf, _pdf_ends),
    Kind("application/zip", ("zip",), _zip, aliases=("application/x-zip-compressed",), is_archive=True),
    _office("wordprocessingml.document", "docx", b"word/"),
    _office("spreadsheetml.sheet", "xlsx", b"xl/"),
    _office("presentationml.presentation", "pptx", b"ppt/"),
    _open("text", "odt"),
    _open("spreadsheet", "ods"),
    _open("presentation", "odp"),
    Kind("video/mp4", ("mp4", "m4v"), _brands(_VIDEO)),
    Kind("audio/mp4", ("m4a", "mp4"), _brands(_AUDIO), aliases=("audio/x-m4a",)),
    Kind("audio/mpeg", ("mp3",), _mp3, aliases=("audio/mp3",)),
    # Windows with Excel calls a CSV file by Excel's old type.
    Kind("text/csv", ("csv",), _text, aliases=("application/vnd.ms-excel", "application/csv"), is_text=True),
    Kind("text/plain", ("txt", "text", "log", "md", "csv", "tsv"), _text, is_text=True),
)

KINDS: dict[str, Kind] = {kind.essence: kind for kind in _KINDS}
"""Every type that can be judged, by its media type."""
