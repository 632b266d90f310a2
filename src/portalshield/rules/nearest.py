"""Did you mean: the known word nearest to what was typed."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The most similar known word, or None where nothing is near."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean X?`, or an empty text."""
    found = nearest(word, known)
    return f"Did you mean {found}?" if found else ""
