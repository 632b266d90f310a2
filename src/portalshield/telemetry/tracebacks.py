"""Tracebacks without what the program was working on: no locals, every message through the redactor, bounded.

The whole chain is shown, `__context__` too where a framework cleared `__cause__` with `from None`, and every member of
an exception group.
"""

from __future__ import annotations

import traceback
from typing import Final

from portalshield.rules.redaction import Redactor
from portalshield.rules.truncation import MAX_TEXT

_HEAD: Final = 2048
_MAX_FRAMES: Final = 50
_MAX_CHAIN: Final = 10


def redacted_traceback(text: str, redactor: Redactor) -> str:
    """A formatted traceback through the redactor. Of a long one the beginning and the end stay: the message is last."""
    if len(text) <= MAX_TEXT:
        return redactor.text(text)
    head = text[: text.rfind("\n", 0, _HEAD) + 1]
    start = len(text) - (MAX_TEXT - _HEAD - 256)
    tail = text[text.find("\n", start) + 1 :] if "\n" in text[start:] else text[start:]
    return f"{redactor.text(head)}  [TRUNCATED]\n{redactor.text(tail)}"


def format_exception(error: BaseException, redactor: Redactor) -> str:
    """The exception with its chain, notes and group members as text, redacted; in strict mode without any message."""
    try:
        if redactor.mode == "strict":
            return _places(error)
        return redacted_traceback(chained_text(error), redactor)
    except Exception:  # an exception's own __str__ may raise
        return type(error).__name__


def chained_text(error: BaseException) -> str:
    """The traceback with every context, raw: also what `from None` hides, which Sentry's middleware puts everywhere."""
    shown = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = shown
    for _ in range(_MAX_CHAIN):
        if link is None:
            break
        link.__suppress_context__ = False
        link = link.__cause__ or link.__context__
    return "".join(shown.format())


def _places(error: BaseException) -> str:
    """Types and places only, the first cause first."""
    chain, current = [error], error.__cause__ or error.__context__
    while current is not None and current not in chain and len(chain) < _MAX_CHAIN:
        chain.append(current)
        current = current.__cause__ or current.__context__
    lines: list[str] = []
    for link in reversed(chain):
        frames = traceback.extract_tb(link.__traceback__, limit=-_MAX_FRAMES)
        lines.append("Traceback (most recent call last):")
        lines += [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames]
        members = link.exceptions[:10] if isinstance(link, BaseExceptionGroup) else ()
        lines.append(" ".join((type(link).__name__, *(type(member).__name__ for member in members))))
    return "\n".join(lines)
