"""Answers that are kept to be given again: which of their fields, and as which bytes.

The bytes: a version (1), the status (2 bytes), the number of fields (1), each field's name (a length of 1 byte) and
value (of 2), then the body. Kept are the fields that say how to read the body and where to go on; cookies, whatever
else a login may have set, and fields that every answer gets anew are not.
"""

from __future__ import annotations

from portalshield.model.verdicts import Fields

VERSION = 1
MAX_VALUE = 8192
KEPT = frozenset(
    (
        b"content-type",
        b"content-language",
        b"content-encoding",
        b"content-disposition",
        b"content-location",
        b"location",
        b"etag",
        b"last-modified",
        b"link",
        b"cache-control",
        b"vary",
    )
)
"""Lower-case names of the fields that are kept."""


def pack(status: int, fields: Fields, body: bytes) -> bytes:
    """The bytes of an answer; of its fields those in `KEPT`, at most 255 with at most `MAX_VALUE` bytes each."""
    kept = [(name.lower(), value) for name, value in fields if name.lower() in KEPT and len(value) <= MAX_VALUE][:255]
    pieces = [bytes((VERSION,)), status.to_bytes(2), bytes((len(kept),))]
    for name, value in kept:
        pieces += (bytes((len(name),)), name, len(value).to_bytes(2), value)
    return b"".join((*pieces, body))


def unpack(answer: bytes) -> tuple[int, Fields, bytes] | None:
    """Status, fields and body; None for what `pack` of this version did not write."""
    if len(answer) < 4 or answer[0] != VERSION:
        return None
    status, at = int.from_bytes(answer[1:3]), 4
    fields: list[tuple[bytes, bytes]] = []
    for _ in range(answer[3]):
        name, at = _piece(answer, at, 1)
        value, at = _piece(answer, at, 2)
        fields.append((name, value))
    if at > len(answer) or not 200 <= status <= 599:
        return None
    return status, tuple(fields), answer[at:]


def _piece(answer: bytes, at: int, width: int) -> tuple[bytes, int]:
    """A length of `width` bytes and as many bytes; the second number is where they end, past the end if they do not."""
    starts = at + width
    ends = starts + int.from_bytes(answer[at:starts])
    return answer[starts:ends], ends
