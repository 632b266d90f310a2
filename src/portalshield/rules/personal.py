"""Personal data found by its own shape: e-mail, IBAN, IP addresses, dates of birth, passports.

Version numbers, times, MAC addresses and `a::b` stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from portalshield.rules import checksums

NameEmail = Callable[[str], str]
"""Turns an address into what is printed in its place."""

# -- e-mail -----------------------------------------------------------------------------------------------------------

_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-%~"
_DOMAIN = re.compile(r"[^\W_][\w.\-]{2,253}+")
_AT = re.compile("@")
# systemd units, images for dense screens, package versions: `x@y` that is not an address.
_NOT_TLD = frozenset(
    (
        "service",
        "socket",
        "timer",
        "slice",
        "scope",
        "mount",
        "target",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "webp",
        "svg",
        "js",
        "css",
        "py",
    )
)
_ESCAPES = ("n", "r", "t", "b", "f")
MAX_LOCAL = 64
"""Characters before the at sign that belong to an address (RFC 5321)."""


def emails(text: str, name: NameEmail) -> str:
    """Addresses, with letters of any script: from each at sign outwards, so that cost does not depend on the text."""
    out: list[str] = []
    done = 0
    for match in _AT.finditer(text):
        begin = _local_start(text, match.start(), done)
        end = _domain_end(text, match.end())
        if begin < match.start() and end:
            out += (text[done:begin], name(f"{text[begin : match.start()]}@{text[match.end() : end]}"))
            done = end
    if not done:
        return text
    out.append(text[done:])
    return "".join(out)


def _local_start(text: str, at: int, floor: int) -> int:
    window = text[max(floor, at - MAX_LOCAL) : at]
    kept = window.rstrip(_LOCAL)
    while kept and not kept[-1].isascii() and kept[-1].isalnum():
        kept = kept[:-1].rstrip(_LOCAL)
    run = window[len(kept) :]
    if kept.endswith("\\") and run[:1] in _ESCAPES:
        run = run[1:]  # the `n` of `\\nada@example.com` is no letter of hers
    return at - len(run.lstrip(".-%~"))


def _domain_end(text: str, start: int) -> int:
    """One past the domain, 0 if this is none: labels and a top level of letters."""
    match = _DOMAIN.match(text, start)
    if match is None:
        return 0
    domain = match[0].rstrip(".-_")
    top = domain.rpartition(".")[2]
    if top == domain or len(top) < 2 or not (top.isalpha() or top.lower().startswith("xn--")):
        return 0
    return 0 if top.lower() in _NOT_TLD else start + len(domain)


# -- IBAN -------------------------------------------------------------------------------------------------------------

_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[0-9]{2}(?=[ \-]?[A-Za-z0-9])")


def ibans(text: str) -> str:
    """Account numbers of the IBAN registry: the country's length and mod 97."""
    out: list[str] = []
    done = 0
    for match in _IBAN.finditer(text):
        length = checksums.IBAN_LENGTHS.get(match[1].upper())
        end = _iban_end(text, match.end(), length - 4) if length and match.start() >= done else 0
        if end and checksums.iban(text[match.start() : end].replace(" ", "").replace("-", "")):
            out += (text[done : match.start()], "[IBAN]")
            done = end
    out.append(text[done:])
    return "".join(out)


def _iban_end(text: str, start: int, wanted: int) -> int:
    """One past the `wanted`-th letter or digit, single spaces and dashes between; 0 if more of the word follows."""
    position = start
    for _ in range(wanted):
        if text[position : position + 1] in (" ", "-"):
            position += 1
        char = text[position : position + 1]
        if not (char.isascii() and char.isalnum()):
            return 0
        position += 1
    return 0 if text[position : position + 1].isalnum() else position


# -- addresses --------------------------------------------------------------------------------------------------------

_IPV4 = re.compile(r"(?<![\w.])([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(/[0-9]{1,2})?(?!\w|\.[0-9])")
_FOUR = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}+(/[0-9]{1,3})?(?![\w:])")
_VERSION_WORD = re.compile(
    r"(?:(?:version|ver|release|build)[ :=]{0,2}|(?<![/\w])[A-Za-z][\w.\-]{0,20}/)$", re.IGNORECASE
)


def ipv4(text: str, whole: bool = False) -> str:
    """IPv4 addresses cut to their /24, `[IP]` if `whole`; loopback and versions (`Chrome/131.0.0.0`) stay."""
    found = _FOUR.search(text)
    if found is None:
        return text

    def cut(match: re.Match[str]) -> str:
        if match[5] == "/24" and match[4] == "0" and not whole:
            return match[0]  # cut already
        if max(map(int, match.groups()[:4])) > 255 or match[1] in ("127", "0"):
            return match[0]
        start = match.start()
        if start and text[start - 1] in "/ :=" and _is_version(text[max(0, start - 24) : start]):
            return match[0]
        if whole:
            return "[IP]"
        if match[5] and int(match[5][1:]) < 24:
            return match[0]
        return f"{match[1]}.{match[2]}.{match[3]}.0/24"

    out: list[str] = []
    done = 0
    # No address begins more than two digits before the first place where one may be.
    for match in _IPV4.finditer(text, max(0, found.start() - 2)):
        shown = cut(match)
        if shown != match[0]:
            out += (text[done : match.start()], shown)
            done = match.end()
    if not done:
        return text
    out.append(text[done:])
    return "".join(out)


def _is_version(before: str) -> bool:
    if before[-1] != "/" and not before.rstrip(" :=").lower().endswith(("version", "ver", "release", "build")):
        return False
    return _VERSION_WORD.search(before) is not None


def ipv6(text: str, whole: bool = False) -> str:
    """IPv6 addresses cut to their /48, `[IP]` if `whole`; times, MAC addresses and `a::b` stay."""

    def cut(match: re.Match[str]) -> str:
        address, _, prefix = match[0].partition("/")
        if prefix == "48" and address.endswith("::") and address.count(":") < 5 and not whole:
            return match[0]  # cut already
        if len(address.partition(":")[0]) < 3 and address.count(":") < 7:
            return match[0]
        first = _first_groups(address)
        if first is None or (prefix and int(prefix) < 48 and not whole):
            return match[0]
        return "[IP]" if whole else f"{first}::/48"

    return _IPV6.sub(cut, text)


def _first_groups(address: str) -> str | None:
    """The first three groups without what is zero at their end; None if this is no address (RFC 4291, 2.2).

    `address` is groups of at most four hexadecimal digits, eight at most, with colons between them.
    """
    head, gap, tail = address.partition("::")
    groups, rest = head.split(":") if head else [], tail.split(":") if tail else []
    count = len(groups) + len(rest)
    if not (all(groups) and all(rest) and (count < 8 if gap else count == 8)):
        return None
    groups += ["0"] * (8 - count)
    first = [f"{int(group, 16):x}" for group in (groups + rest)[:3]]
    while first and first[-1] == "0":
        first.pop()
    return ":".join(first)


# -- by context -------------------------------------------------------------------------------------------------------

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}+"
_BIRTH = re.compile(
    r"(?<![A-Za-z])((?:dob|d\.o\.b\.|date of birth|birth[ \-]?date|birthday|born(?: on)?)[ :=\"']{1,4}(?:is )?)"
    rf"([0-9]{{1,4}}[\-/. ][0-9]{{1,2}}[\-/. ][0-9]{{1,4}}|[0-9]{{1,2}}[ .]{{1,2}}{_MONTH}[ ,]{{1,2}}[0-9]{{2,4}}"
    rf"|{_MONTH}[ ]{{1,2}}[0-9]{{1,2}},?[ ]{{1,2}}[0-9]{{2,4}})",
    re.IGNORECASE,
)
_PASSPORT = re.compile(
    r"(?<![A-Za-z])(passport(?:[ ](?:no\.?|number|nr\.?|#|id))?[ :=#\"']{1,4}(?:is )?)"
    r"([A-Z]{0,2}[0-9]{6,9}[A-Z]?|[A-Z][0-9][0-9A-Z]{6,8})(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def births(text: str) -> str:
    """Dates behind words for birth."""
    return _BIRTH.sub(r"\1[DATE]", text)


def passports(text: str) -> str:
    """Numbers behind the word passport."""
    return _PASSPORT.sub(r"\1[PASSPORT]", text)
