"""The trace id in `traceparent` (W3C Trace Context, level 1).

`version "-" trace-id "-" parent-id "-" flags`, all lower-case hex: `00-` 32 digits `-` 16 digits `-` 2 digits. A later
version may go on behind a further dash; `ff` is no version. What is malformed means: no trace, start a new one.
"""

from __future__ import annotations

_LENGTH = 55
_HEX = b"0123456789abcdef"
_NO_TRACE = b"0" * 32
_NO_PARENT = b"0" * 16


def trace_id(*fields: bytes) -> str | None:
    """The 32 hex digits of the trace id; None if the fields are not exactly one well-formed `traceparent`.

    Takes all values of the field, because two of them are as bad as none (level 1, 3.2.1).
    """
    if len(fields) != 1:
        return None
    value = fields[0].strip(b" \t")
    head = value[:_LENGTH]
    # Behind the deletion of all hex digits only the three dashes may be left, and they must stand where they belong.
    if len(head) != _LENGTH or head.translate(None, _HEX) != b"---":
        return None
    if not head[2] == head[35] == head[52] == 0x2D or not _may_go_on(head[:2], value[_LENGTH:]):
        return None
    trace, parent = head[3:35], head[36:52]
    return None if trace == _NO_TRACE or parent == _NO_PARENT else trace.decode("ascii")


def _may_go_on(version: bytes, rest: bytes) -> bool:
    if version == b"ff":
        return False
    return not rest or (version != b"00" and rest.startswith(b"-"))
