"""ZIP archives, judged by the end of the file alone: the end-of-central-directory record and the directory before it.

Readers search for that record from the end and differ in what they allow behind and before it (APPNOTE 6.3, 4.3.16):
a comment that holds a second record, bytes in front of the archive, a gap before the record. Each makes two archives of
one file. Here it ends the file, begins where the directory ends, and the directory says all there is. What an entry
really unpacks to is not known without unpacking it; what the directory promises is compared with the file's size, so
entries that share their compressed bytes do not help.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

MAX_RATIO = 100
"""Bytes that the directory promises for each byte of the file."""

RECORD = b"PK\x05\x06"
ENTRY = b"PK\x01\x02"

MAX_COMMENT = 65_535
DIRECTORY_BYTES = 262_144
"""The largest end of an archive (directory, record and comment) that is held: about 3,000 entries."""

# this disk, the directory's disk, entries here, entries, directory bytes, its offset, comment bytes
_RECORD = Struct("<4s4H2LH")
# ..., flags, method, time, date, crc, packed, unpacked, name, extra, comment, disk, ..., offset
_ENTRY = Struct("<4s6H3L5H2L")
_ZIP64 = 0xFFFFFFFF


class ArchiveFault(ValueError):  # noqa: N818 (a fault of the archive, as `MultipartFault` is one of a form)
    """The archive is refused; `code` is a fixed slug: `zip-directory` (none, or one that readers take differently),
    `zip-too-many-entries`, `zip-bomb`, `zip-entry-name`, `zip-macros`, `zip-other-type`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Entry(NamedTuple):
    """What the directory says of one file."""

    name: bytes
    unpacked: int


def judge_archive(tail: bytes, size: int, wanted: tuple[bytes, ...] = ()) -> None:
    """Raises `ArchiveFault` for an archive of `size` bytes that ends with `tail`.

    `wanted`: beginnings of names that must be there, as an office document has them; then macros must not be.
    """
    left, unpacked = set(wanted), 0
    for entry in _entries(tail, size):
        unpacked += entry.unpacked
        if unpacked > MAX_RATIO * size:
            raise ArchiveFault("zip-bomb")
        if _escapes(entry.name):
            raise ArchiveFault("zip-entry-name")
        if wanted and entry.name.lower().endswith(b"vbaproject.bin"):
            raise ArchiveFault("zip-macros")
        left = {name for name in left if not entry.name.startswith(name)}
    if left:
        raise ArchiveFault("zip-other-type")


def holds_archive(tail: bytes) -> bool:
    """Whether a file of another type ends as an archive, too: a reader would find the record and unpack it."""
    at = tail.rfind(RECORD)
    while at >= 0:
        if len(tail) - at >= _RECORD.size and _is_plausible(tail, at):
            return True
        at = tail.rfind(RECORD, 0, at)
    return False


def _is_plausible(tail: bytes, at: int) -> bool:
    _, disk, other, here, entries, length, _, _ = _RECORD.unpack_from(tail, at)
    if disk or other or here != entries or length < entries * _ENTRY.size:
        return False
    start = at - length
    # Of a directory that begins before what is held there is only the record to judge by.
    return start < 0 or entries == 0 or tail.startswith(ENTRY, start)


def _entries(tail: bytes, size: int) -> Iterator[Entry]:
    at = tail.rfind(RECORD)
    if at < 0 or len(tail) - at < _RECORD.size:
        raise ArchiveFault("zip-directory")
    _, disk, other, here, entries, length, offset, comment = _RECORD.unpack_from(tail, at)
    ends = at + _RECORD.size + comment == len(tail) and offset + length == at + size - len(tail)
    if disk or other or not entries or here != entries or not ends or b"PK" in tail[at + _RECORD.size :]:
        raise ArchiveFault("zip-directory")
    if length > at:
        raise ArchiveFault("zip-too-many-entries")
    yield from _walk(tail, at - length, at, entries)


def _walk(tail: bytes, start: int, stop: int, entries: int) -> Iterator[Entry]:
    for _ in range(entries):
        if stop - start < _ENTRY.size or not tail.startswith(ENTRY, start):
            raise ArchiveFault("zip-directory")
        fields = _ENTRY.unpack_from(tail, start)
        unpacked, name, extra, comment = fields[9:13]
        if unpacked == _ZIP64:
            raise ArchiveFault("zip-directory")
        start += _ENTRY.size
        yield Entry(tail[start : start + name], unpacked)
        start += name + extra + comment
    if start != stop:
        raise ArchiveFault("zip-directory")


def _escapes(name: bytes) -> bool:
    """Unpacked by its name, an entry would land outside of the folder it is unpacked to."""
    path = name.replace(b"\\", b"/")
    return path.startswith(b"/") or path[1:2] == b":" or b"\0" in path or b".." in path.split(b"/")
