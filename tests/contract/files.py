"""One small correct file of each type that uploads may have, and forms to send them in."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

BOUNDARY = "b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
OFFICE = "application/vnd.openxmlformats-officedocument."
OPEN = "application/vnd.oasis.opendocument."


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">2L5B", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp(data: bytes = b"\0" * 40) -> bytes:
    body = b"WEBPVP8 " + struct.pack("<L", len(data)) + data
    return b"RIFF" + struct.pack("<L", len(body)) + body


def archive(entries: Mapping[str, bytes], *, stored: bool = False, comment: bytes = b"") -> bytes:
    """A ZIP file as the standard library writes it."""
    target = io.BytesIO()
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target, "w", kind) as made:
        for name, data in entries.items():
            made.writestr(name, data)
        made.comment = comment
    return target.getvalue()


def office(folder: str) -> bytes:
    """The outside of a docx, xlsx or pptx."""
    names = ("[Content_Types].xml", "_rels/.rels", f"{folder}/document.xml")
    return archive(dict.fromkeys(names, b"<?xml version='1.0'?><x/>"))


def opendocument(essence: str) -> bytes:
    return archive({"mimetype": essence.encode(), "content.xml": b"<x/>"}, stored=True)


def mp4(brand: bytes, *others: bytes) -> bytes:
    names = brand + b"\0\0\2\0" + b"".join(others)
    return struct.pack(">L", 8 + len(names)) + b"ftyp" + names + struct.pack(">L", 40) + b"mdat" + bytes(32)


def mp3(frames: int = 3) -> bytes:
    """MPEG 1, layer III, 128 kbit/s, 44.1 kHz: frames of 417 bytes."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * frames


FILES: dict[str, tuple[str, bytes]] = {
    "image/png": ("dot.png", png()),
    "image/jpeg": (
        "Foto.JPG",
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xda\0\x08\1\1\0\0\x3f\0\x7f\xff\xd9",
    ),
    "image/gif": (
        "a.gif",
        b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    ),
    "image/webp": ("a.webp", webp()),
    "application/pdf": (
        "Rechnung März 2026.pdf",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n",
    ),
    "application/zip": ("all.zip", archive({"a.txt": b"hello", "b/c.txt": b"x" * 400})),
    OFFICE + "wordprocessingml.document": ("Brief.docx", office("word")),
    OFFICE + "spreadsheetml.sheet": ("sheet.xlsx", office("xl")),
    OFFICE + "presentationml.presentation": ("talk.pptx", office("ppt")),
    OPEN + "text": ("text.odt", opendocument(OPEN + "text")),
    OPEN + "spreadsheet": ("sheet.ods", opendocument(OPEN + "spreadsheet")),
    OPEN + "presentation": ("talk.odp", opendocument(OPEN + "presentation")),
    "video/mp4": ("clip.mp4", mp4(b"isom", b"iso2", b"avc1", b"mp41")),
    "audio/mp4": ("voice.m4a", mp4(b"M4A ", b"isom")),
    "audio/mpeg": ("song.mp3", mp3()),
    "text/csv": ("list.csv", "\ufeffname;amount\r\nMüller;3,50\r\n".encode()),
    "text/plain": ("notes.txt", "one\n\ttwo ☃\n".encode()),
}
"""By media type: the file's name and its bytes."""


def part(header: str, value: bytes = b"v", content_type: str | None = None) -> bytes:
    """One part of a form; `header` is what follows `form-data; `."""
    line = f"Content-Type: {content_type}\r\n" if content_type is not None else ""
    return f"--{BOUNDARY}\r\nContent-Disposition: form-data; {header}\r\n{line}\r\n".encode() + value + b"\r\n"


def field(name: str, value: bytes = b"v") -> bytes:
    return part(f'name="{name}"', value)


def file(filename: str, content: bytes, content_type: str | None, name: str = "file") -> bytes:
    return part(f'name="{name}"; filename="{filename}"', content, content_type)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
