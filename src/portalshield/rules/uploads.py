"""Uploads: every file of a multipart form judged as it streams past, none of it held.

The form itself is `multipart.FormScanner`'s: what it lets pass, python-multipart and Werkzeug read alike. Here each
file's name, declared type, size, first and last bytes are judged, in the order in which they come, so that the verdict
is the same in any chunks; and before the delimiter behind a file has passed, so that no parser completes a file that
was refused. Kept of a file are its first 2 KiB and a bounded end: 64 KiB, of an archive 256 KiB, twice while it grows.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from unicodedata import category, normalize

from portalshield.rules.addressed import meant
from portalshield.rules.archives import DIRECTORY_BYTES, MAX_COMMENT, ArchiveFault, holds_archive, judge_archive
from portalshield.rules.form_parts import MultipartFault, Part
from portalshield.rules.magic import HEAD_BYTES, KINDS, TEXT_CONTROLS, Kind
from portalshield.rules.media_types import parse_media_type

__all__ = ["FileJudge", "UploadRules", "compile_rules", "filename_fault"]

_UTF_8 = getincrementaldecoder("utf-8")
_TEXT_CHARSETS = frozenset(("utf-8", "utf8", "us-ascii"))
_RECORD_BYTES = MAX_COMMENT + 22

_EXECUTABLE = frozenset(
    (
        *("php", "php2", "php3", "php4", "php5", "php6", "php7", "php8", "phps", "pht", "phtml", "phar", "asp"),
        *("aspx", "ashx", "asmx", "ascx", "asa", "cer", "cshtml", "jsp", "jspx", "jspf", "jsw", "jsv", "cgi"),
        *("fcgi", "pl", "pm", "py", "pyc", "rb", "sh", "bash", "zsh", "ksh", "csh", "shtml", "shtm", "stm", "exe"),
        *("bat", "cmd", "msi", "scr", "pif", "vbs", "vbe", "wsf", "wsh", "hta", "ps1", "psm1", "jar", "war", "dll"),
        *("cpl", "lnk", "reg", "htaccess", "htpasswd"),
    )
)
"""Servers that look at every extension of a name run the file for any of these. Not `com` and `js`: names of sites and
libraries stand before a last extension too often, and no server runs those."""

_DEVICES = frozenset(("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))))
_ENCODED = ("%2f", "%5c", "%00", "%22", "%0a", "%0d")
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Change the direction of text: `gpj.exe` is shown as a picture's name."""


@dataclass(frozen=True, slots=True)
class UploadRules:
    """What one route takes. `kinds`: by declared media type, other names of the same type included."""

    kinds: Mapping[str, Kind]
    max_file_bytes: int
    max_files: int


def compile_rules(types: Iterable[str], max_file_bytes: int, max_files: int) -> UploadRules:
    """Types are media types that `magic.KINDS` knows, or ranges of them (`image/*`). `ValueError` says what is wrong
    with the text behind "a policy that"."""
    kinds: dict[str, Kind] = {}
    for number, entry in enumerate(types, 1):
        found = _kinds(entry.strip().lower())
        if not found:
            known = ", ".join(KINDS)
            raise ValueError(f"takes an upload type (number {number}) that cannot be judged; known are {known}")
        for kind in found:
            kinds.update(dict.fromkeys((kind.essence, *kind.aliases), kind))
    if not kinds:
        raise ValueError("takes no type of upload")
    if max_file_bytes < 1 or max_files < 1:
        raise ValueError("takes no upload at all: max_file and max_files are 1 or more")
    return UploadRules(kinds, max_file_bytes, max_files)


def _kinds(entry: str) -> list[Kind]:
    if entry.endswith("/*"):
        return [kind for essence, kind in KINDS.items() if essence.startswith(entry[:-1])]
    return [kind for kind in KINDS.values() if entry in (kind.essence, *kind.aliases)]


# -- names ------------------------------------------------------------------------------------------------------------


def filename_fault(filename: str, kind: Kind) -> str | None:
    """Why a file of this kind may not be called so: `filename`, `filename-executable`, `filename-extension`; or None.

    Judged as a file system that normalises names would store it (NFKC). A name without an extension passes.
    """
    name = normalize("NFKC", filename)
    if any(category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING for character in name):
        return "filename"
    if not set(name).isdisjoint('/\\"<>') or name[1:2] == ":" or name[:1] in (".", " ") or name[-1:] in (".", " "):
        return "filename"
    lower = name.casefold()
    if any(code in lower for code in _ENCODED) or name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        return "filename"
    stem, dot, extension = lower.rpartition(".")
    if dot and any(_bare(part) in _EXECUTABLE for part in (*stem.split(".")[1:], extension)):
        return "filename-executable"
    return None if not dot or extension in kind.extensions else "filename-extension"


def _bare(extension: str) -> str:
    """What servers make of `php;`, `php:` and `php ` before another extension."""
    for mark in ";:% ":
        extension = extension.strip(" ").partition(mark)[0]
    return extension


# -- files ------------------------------------------------------------------------------------------------------------


class FileJudge:
    """Judges the parts of one form for its `FormScanner`; raises `MultipartFault`.

    Codes: `too-many-files`, `file-too-large`, `file-type` (none declared, or one that is not taken), `file-content`
    (the bytes are not of the declared type), `file-archive` (they are an archive, too), `file-without-name`,
    `duplicate-field`, those of `filename_fault` and of `ArchiveFault`.

    `names`: fields of these names decide something; each may come once. A file without a name and without a byte is
    what a browser sends for an input nobody used: it counts as no file.
    """

    __slots__ = ("_decoder", "_files", "_head", "_keep", "_kind", "_names", "_rules", "_seen", "_size", "_tail")

    def __init__(self, rules: UploadRules, names: frozenset[str] = frozenset()) -> None:
        self._rules = rules
        self._names = names
        self._seen: set[str] = set()
        self._files = 0
        # The file that is being read; without a kind, one without a name.
        self._kind: Kind | None = None
        self._size = self._keep = 0
        self._head, self._tail = bytearray(), bytearray()
        self._decoder: IncrementalDecoder = _UTF_8()

    def begin(self, part: Part) -> None:
        """A field or a file, by its header lines."""
        self._kind = None
        if part.filename is None:
            self._count(part.name)
        elif part.filename:
            self._open(part.filename, part.content_type)

    def data(self, data: bytes) -> None:
        """The next bytes of the file."""
        if not data:
            return
        if self._kind is None:
            raise MultipartFault("file-without-name")
        room = self._rules.max_file_bytes - self._size
        self._judge(self._kind, data[:room])
        if len(data) > room:
            raise MultipartFault("file-too-large")

    def end(self) -> None:
        """The file is over: what only its end can tell."""
        kind = self._kind
        if kind is None:
            return
        if len(self._head) < HEAD_BYTES:
            self._begins(kind)
        if kind.is_text:
            self._read_text(b"", final=True)
        elif kind.is_archive:
            self._judge_archive(kind)
        elif not kind.ends(bytes(self._head), bytes(self._tail[-HEAD_BYTES:]), self._size):
            raise MultipartFault("file-content")
        elif holds_archive(bytes(self._tail[-_RECORD_BYTES:])):
            raise MultipartFault("file-archive")

    def _count(self, name: str) -> None:
        for known in meant(name, self._names):
            if known in self._seen:
                raise MultipartFault("duplicate-field")
            self._seen.add(known)

    def _open(self, filename: str, content_type: str | None) -> None:
        self._files += 1
        if self._files > self._rules.max_files:
            raise MultipartFault("too-many-files")
        kind = self._declared(content_type)
        fault = filename_fault(filename, kind)
        if fault is not None:
            raise MultipartFault(fault)
        self._kind = kind
        self._size = 0
        self._keep = DIRECTORY_BYTES if kind.is_archive else _RECORD_BYTES
        self._head.clear()
        self._tail.clear()
        self._decoder = _UTF_8()

    def _declared(self, content_type: str | None) -> Kind:
        media = parse_media_type(content_type.encode("utf-8")) if content_type else None
        kind = self._rules.kinds.get(media.essence) if media is not None else None
        if media is None or kind is None:
            raise MultipartFault("file-type")
        for name, value in media.parameters:
            if name != "charset" or value.lower() not in _TEXT_CHARSETS or not kind.is_text:
                raise MultipartFault("file-type")
        return kind

    # -- bytes --------------------------------------------------------------------------------------------------------

    def _judge(self, kind: Kind, data: bytes) -> None:
        """Always cut where the head ends, so that what is wrong first is found first in any chunks."""
        missing = HEAD_BYTES - len(self._head)
        if missing > 0:
            self._head += data[:missing]
            self._pass(kind, data[:missing])
            if len(data) >= missing:
                self._begins(kind)
            data = data[missing:]
        if data:
            self._pass(kind, data)

    def _begins(self, kind: Kind) -> None:
        if not kind.begins(bytes(self._head)):
            raise MultipartFault("file-content")

    def _pass(self, kind: Kind, data: bytes) -> None:
        self._size += len(data)
        if kind.is_text:
            self._read_text(data)
            return
        tail = self._tail
        tail += data[-self._keep :]
        if len(tail) > 2 * self._keep:
            del tail[: -self._keep]

    def _read_text(self, data: bytes, final: bool = False) -> None:
        if len(data.translate(None, TEXT_CONTROLS)) != len(data):
            raise MultipartFault("file-content")
        try:
            self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise MultipartFault("file-content") from None

    def _judge_archive(self, kind: Kind) -> None:
        try:
            judge_archive(bytes(self._tail[-self._keep :]), self._size, kind.entries)
        except ArchiveFault as fault:
            raise MultipartFault(fault.code) from None
