"""Numbers that belong to a person: payment cards, phone numbers, US social security numbers.

A run of digits and separators is taken as a whole first, then group by group, because a run may hold several numbers.
It needs a checksum, an assigned range, a written form or a word in front of it; dates, epochs, UUIDs, versions and
object ids stay readable.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from portalshield.rules import checksums
from portalshield.rules.carriers import without_breaks

_NUMBER = re.compile(r"\+?\(?[0-9](?:[ .()/\-]{0,2}+[0-9])*+")
_UUID = re.compile(
    r"(?<![0-9A-Za-z])[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}(?![0-9A-Za-z])"
)
_GROUP = re.compile(r"[0-9]++")
_SSN_WORD = re.compile(r"ssn|social|taxpayer", re.IGNORECASE)
_CARD_WORD = re.compile(r"(?<!\[)\bcards?\b|\bcc\b|\bvisa\b|mastercard|\bamex\b|maestro|\bjcb\b", re.IGNORECASE)
_PHONE_WORD = re.compile(
    r"(?<!\[)phone|\btel\b|mobile|\bcell|\bfax|whatsapp|\bsms\b|msisdn|handy|\bdial|\breach |"
    r"\bcall (?:me|us|him|her|them|at|on)\b|\bcan call\b",
    re.IGNORECASE,
)
_PHONE_WORD_BEHIND = re.compile(r"[ \-]?\(?(?:office|fax|mobile|cell|phone|home)\b", re.IGNORECASE)
_SPOKEN = (
    "phone", "tel", "mobile", "cell", "fax", "whatsapp", "sms", "msisdn", "handy", "dial", "reach", "call", "office",
    "home", "card", "cc", "visa", "amex", "maestro", "jcb", "ssn", "social", "taxpayer",
)  # fmt: skip
"""A text without any of these says of no number what it is."""
_SPOKEN_AT = re.compile("|".join(_SPOKEN))
_EXTENSION = re.compile(r"x[0-9]{1,6}(?![A-Za-z0-9])")
_BEFORE = 24
"""Characters before a number in which a word may say what it is."""
_BEHIND = 10
"""Characters behind one."""
# Written national numbers: a leading 0 and the group lengths in use.
_NATIONAL = frozenset(
    (
        (3, 4, 4),
        (2, 4, 4),
        (4, 6),
        (4, 7),
        (5, 5),
        (5, 6),
        (3, 7),
        (3, 8),
        (2, 2, 2, 2, 2),
        (4, 3, 4),
        (5, 3, 3),
        (4, 3, 3),
        (3, 3, 2, 2),
        (4, 2, 2, 2),
        (4, 3, 2, 2),
    )
)


def numbers(text: str) -> str:
    """Payment cards (last four stay), phone numbers and US social security numbers."""
    spared = [match.span() for match in _UUID.finditer(text)] if text.count("-") > 3 else []
    out: list[str] = []
    done = 0
    seen = without_breaks(text)
    lowered = seen.lower()
    spoken = any(word in lowered for word in _SPOKEN)
    said = [word.start() for word in _SPOKEN_AT.finditer(lowered)] if spoken else []
    for match in _NUMBER.finditer(seen):
        if len(match[0]) < 6 or _inside(match.start(), spared):
            continue
        replaced, end = _number(seen, match, spoken and _is_near(match, said))
        if replaced is not None:
            out += (text[done : match.start()], replaced)
            done = end
    if not done:
        return text
    out.append(text[done:])
    return "".join(out)


def _is_near(match: re.Match[str], said: list[int]) -> bool:
    """True if one of the words begins before or behind this number, near enough for `_BEFORE` and `_BEHIND`."""
    index = bisect_left(said, match.start() - 2 * _BEFORE)
    return index < len(said) and said[index] <= match.end() + _BEHIND


def _inside(position: int, spans: list[tuple[int, int]]) -> bool:
    index = bisect_right(spans, (position, 1 << 60)) - 1
    return index >= 0 and spans[index][0] <= position < spans[index][1]


def _number(text: str, match: re.Match[str], spoken: bool) -> tuple[str | None, int]:
    """The run with its numbers replaced, None if it holds none, and where it ends: an extension belongs to it."""
    start, end, found = match.start(), match.end(), match[0]
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if before.isalnum() or (before and before in "_.$#"):
        return None, end
    context = text[max(0, start - _BEFORE) : start] if spoken else ""
    behind = text[end : end + _BEHIND] if spoken or after == "x" else ""
    if after.isalnum() or after == "_":
        extension = _EXTENSION.match(behind)
        is_phone = extension is not None and _read(found, context, "") == "[PHONE]"
        return ("[PHONE]", end + extension.end()) if is_phone and extension is not None else (None, end)
    if found[0] == "(" and ")" not in found:
        inner = _read(found[1:], context, behind)
        return None if inner is None else f"({inner}", end
    return _read(found, context, behind), end


def _read(found: str, context: str, behind: str) -> str | None:
    """The run with its numbers replaced, None if it holds none; `context` stands before it, `behind` after it."""
    groups = _GROUP.findall(found)
    digits = "".join(groups)
    if len(digits) <= 19:
        kind = _whole(found, digits, groups, context, behind)
        if kind is not None:
            return kind
    return _windows(found) if len(digits) > 9 and len(groups) > 1 else None


def _whole(found: str, digits: str, groups: list[str], context: str, behind: str) -> str | None:
    """What the run is when it is read as one number."""
    count = len(digits)
    if count == 9 and checksums.ssn(digits) and (_is_written_ssn(found) or _SSN_WORD.search(context)):
        return "[SSN]"
    if found[0] == "+" and count >= 8:
        return "[PHONE]"
    if count >= 12 and len(groups) == 1 and (checksums.card(digits) or _is_named_card(digits, context)):
        return f"[CARD:{digits[-4:]}]"
    if count > 15:
        return None
    if digits[:2] == "00" and digits[2] != "0" and count >= 11 and len(groups) > 1:
        return "[PHONE]"
    if found[0] == "(" and ")" in found[:8] and 9 <= count <= 12:
        return "[PHONE]"
    if count > 9 and len(groups) > 1 and _is_written_phone(found, groups):  # none of the forms is shorter
        return "[PHONE]"
    if count < 6 or _is_date(groups):
        return None
    said = (context and _PHONE_WORD.search(context)) or (behind and count > 6 and _PHONE_WORD_BEHIND.match(behind))
    return "[PHONE]" if said else None


def _is_named_card(digits: str, context: str) -> bool:
    """Behind a word an issuer need not be known: ranges are given out faster than tables are written."""
    return context != "" and _CARD_WORD.search(context) is not None and len(set(digits)) > 1 and checksums.luhn(digits)


def _is_date(groups: list[str]) -> bool:
    shape = tuple(map(len, groups[:3]))
    return shape in ((4, 2, 2), (2, 2, 4)) or (len(groups) == 1 and len(groups[0]) in (10, 13) and groups[0][0] == "1")


def _is_written_ssn(found: str) -> bool:
    return len(found) == 11 and found[3] in "- " and found[3] == found[6]


def _is_written_phone(found: str, groups: list[str]) -> bool:
    marks = set(_GROUP.sub("", found))
    shape = tuple(map(len, groups))
    if found[0] == "0":
        allowed = {"."} if shape == (2, 2, 2, 2, 2) and "." in marks else {" ", "-", "(", ")"}
        return shape in _NATIONAL and marks <= allowed and found[1] != "0"
    if shape[:1] == (1,) and groups[0] == "1":
        groups, shape = groups[1:], shape[1:]
    if shape != (3, 3, 4) or groups[0][0] < "2" or groups[1][0] < "2":
        return False
    return marks in ({"-"}, {"."}) or ("(" in marks and ")" in marks) or marks == {" ", "-"}


def _windows(found: str) -> str | None:
    """The run with every card, social security and phone number in it replaced: a run may hold several numbers."""
    groups = list(_GROUP.finditer(found))
    lengths = [len(group[0]) for group in groups]
    out: list[str] = []
    done = index = 0
    while index < len(groups):
        stop, kind = _window(found, groups, lengths, index)
        if not stop:
            index += 1
            continue
        out += (found[done : groups[index].start()].removesuffix("("), kind)
        done, index = groups[stop - 1].end(), stop
    if not done:
        return None
    out.append(found[done:])
    return "".join(out)


def _window(found: str, groups: list[re.Match[str]], lengths: list[int], index: int) -> tuple[int, str]:
    """One past the last group of the number that begins with this group, and what it is; 0 if none does."""
    if lengths[index] >= 4:
        stop = _card_stop(found, groups, index)
        return stop, f"[CARD:{groups[stop - 1][0][-4:].rjust(4, '*')}]" if stop else ""
    if lengths[index] == 3 and lengths[index + 1 : index + 3] in ([3, 4], [2, 4]):
        stop = index + 3
        piece = found[groups[index].start() : groups[stop - 1].end()]
        parts = [group[0] for group in groups[index:stop]]
        if lengths[index + 1] == 2:
            return (stop, "[SSN]") if _is_written_ssn(piece) and checksums.ssn("".join(parts)) else (0, "")
        return (stop, "[PHONE]") if _is_written_phone(piece, parts) or piece[3] == ")" else (0, "")
    return 0, ""


def _card_stop(found: str, groups: list[re.Match[str]], index: int) -> int:
    """One past the last group of a card number: at most six groups with one space or dash between them."""
    digits = ""
    for stop in range(index, min(index + 6, len(groups))):
        if stop > index and found[groups[stop - 1].end() : groups[stop].start()] not in (" ", "-"):
            return 0
        digits += groups[stop][0]
        if len(digits) > 19:
            return 0
        if len(digits) >= 13 and checksums.card(digits):
            return stop + 1
    return 0
