"""All detectors in their order, each behind a gate that costs next to nothing.

Four gates in C speed (an at sign, `=` or `:`, a run of digits, a run of token characters) tell for nearly every string
that there is nothing to look for. A 60-character string that opens none of them costs about a microsecond.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from portalshield.rules import carriers, numbers, personal, vendors
from portalshield.rules.carriers import Judge

SECRET = "[SECRET]"  # noqa: S105 - what stands in a secret's place
DIGIT_RUN = 7
"""Digits in a row, punctuation aside, from which a number is looked at."""
_DATED = 4
"""Digits of the shortest date: `1.1.80`."""
SHORTEST = 6
"""Characters of the shortest find without a mark: an address like `a@b.co`, six digits behind a word."""
TOKEN_RUN = 14
"""Token characters in a row from which a token is looked for."""

_DIGITS = bytes(48 if 48 <= code <= 57 else 32 for code in range(256))
_NUMBER_MARKS = b" -.()/"
_TOKENS = bytes(97 if chr(code) in "_+/=.-~" or (code < 128 and chr(code).isalnum()) else 32 for code in range(256))
_DULL = bytes(set(range(256)) - set(b"=:@%\\'\"<\x1b"))
"""Bytes that open no gate by themselves: what is left after their deletion is looked at."""
_DIGIT_NEEDLE, _TOKEN_NEEDLE = b"0" * DIGIT_RUN, b"a" * TOKEN_RUN


_GIVEN, _DECODED, _COLOURLESS, _BLANKED = range(4)
"""A text as it is; with its escapes decoded; without its colours; with line ends for its breaks. Only what is further
to the right is made of a reading, so that no text is read without end."""


class Pattern(Protocol):
    """A compiled regular expression of `re`, or of an engine that is linear for any pattern: `re2.compile` (RE2)."""

    def sub(self, repl: Callable[[Any], str], string: str, /) -> str:
        """The text with every match replaced by what `repl` makes of it."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One of the user's own: `pattern` finds, `check` (if given) confirms, matches over `max_length` are left alone.

    What it finds becomes `[NAME]` with the name in capitals. `name` is letters, digits and underscores.
    """

    name: str
    pattern: Pattern
    check: Callable[[str], bool] | None = None
    max_length: int = 256

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,11}", self.name):
            raise ValueError("a detector's name is 1 to 12 letters, digits and underscores")

    def apply(self, text: str) -> str:
        """The text with what this detector finds replaced."""
        return self.pattern.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        found = match[0]
        if not found or len(found) > self.max_length or (self.check is not None and not self.check(found)):
            return found
        return f"[{self.name.upper()}]"


class Scanner:
    """Runs every detector over one text. `count(name)` is called for each detector that changed it."""

    __slots__ = ("_always", "_count", "_email", "_own", "_sensitive", "_strict")

    def __init__(
        self,
        sensitive: Judge,
        email: personal.NameEmail,
        count: Callable[[str], None],
        *,
        strict: bool = False,
        own: Iterable[Detector] = (),
    ) -> None:
        self._sensitive = sensitive
        self._email = email
        self._count = count
        self._strict = strict
        self._own = tuple(own)
        self._always = bool(self._own) or strict

    def scan(self, text: str, raw: bytes, view: int = _GIVEN) -> str:
        """One pass. `raw` is the text in UTF-8; the text is bounded by the caller, and read as `view` says."""
        marks = raw.translate(None, _DULL)
        digits = raw.translate(_DIGITS, _NUMBER_MARKS)
        number = _DIGIT_NEEDLE in digits
        token = _TOKEN_NEEDLE in raw.translate(_TOKENS)
        dots = raw.count(b".") > 2
        if b"-----BEGIN" in raw:
            text = self._step("pem", text, vendors.PEM.sub("[PEM]", text))
        if digits.count(b"0") >= _DATED:
            text = self._by_context(text, raw.lower())
        dashes = b" -" in raw or raw.startswith(b"-")
        if not (marks or number or token or dots or dashes or self._always):
            return text
        lowered = raw.lower()
        if view == _GIVEN and (b"%" in marks or b"\\" in marks) and _ENCODED.search(raw):
            text = self._decoded(text)
        pair = b"=" in marks or b":" in marks
        if token or pair:
            text = self._secrets(text, raw, lowered, token, pair)
        if dashes:
            text = self._step("option", text, carriers.options(text, self._sensitive))
        if marks:
            text = self._quoted(text, raw, lowered, marks)
        if b"@" in marks and view != _BLANKED:
            text = self._step("email", text, personal.emails(text, self._email))
        if number:
            text = self._step("iban", text, personal.ibans(text))
        text = self._numbers(text, number and view != _BLANKED, dots)
        for detector in self._own:
            text = self._step(detector.name, text, detector.apply(text))
        if self._strict:
            text = self._step("opaque", text, opaque(text))
        return self._between_breaks(text) if view <= _DECODED and (b"\\" in marks or b"\x1b" in marks) else text

    def _step(self, name: str, before: str, after: str) -> str:
        if after is not before and after != before:
            self._count(name)
        return after

    def _secrets(self, text: str, raw: bytes, lowered: bytes, token: bool, pair: bool) -> str:
        step = self._step
        if b"://" in raw and b"@" in raw:
            text = step("url", text, carriers.userinfo(text))
        if (b" " in raw or b"+" in raw or b"%20" in raw) and carriers.names_scheme(lowered):
            text = step("scheme", text, carriers.schemes(text))
        if token:
            if b"eyJ" in raw:
                text = step("jwt", text, vendors.JWT.sub("[JWT]", text))
            text = step("vendor", text, vendors.TOKEN.sub(SECRET, text))
        if pair:
            text = step("detail", text, carriers.database_details(text))
            text = step("pair", text, carriers.pairs(text, self._sensitive))
            if b"name=" in raw:
                text = step("form", text, carriers.parts(text, self._sensitive))
        return text

    def _quoted(self, text: str, raw: bytes, lowered: bytes, marks: bytes) -> str:
        """Detectors whose gate is a quote or a bracket, and a word or mark of their own."""
        step = self._step
        if b"'" in marks or b'"' in marks:
            if b"password" in lowered or b"identified" in lowered:
                text = step("sql", text, carriers.statements(text))
            if b"'," in raw or b'",' in raw:
                text = step("pair", text, carriers.header_pairs(text, self._sensitive))
        if b"<" in marks and b"</" in raw:
            text = step("element", text, carriers.elements(text, self._sensitive))
        return text

    def _numbers(self, text: str, number: bool, dots: bool) -> str:
        step = self._step
        if number:
            text = step("number", text, numbers.numbers(text))
        if dots:
            text = step("ip", text, personal.ipv4(text, self._strict))
        if text.count(":") > 1:
            text = step("ip", text, personal.ipv6(text, self._strict))
        return text

    def _by_context(self, text: str, lowered: bytes) -> str:
        if b"birth" in lowered or b"dob" in lowered or b"born" in lowered or b"d.o.b" in lowered:
            text = self._step("birth", text, personal.births(text))
        if b"passport" in lowered:
            text = self._step("passport", text, personal.passports(text))
        return text

    # -- other readings of the text: each is scanned as a whole; only pieces in which something was found change

    def _between_breaks(self, text: str) -> str:
        """A letter of an escape is no letter of what comes next: in `\\n203.0.113.7` an address begins. And a colour
        is nothing at all: in `password\\x1b[0m=a` stands a pair."""
        pieces = carriers.BREAK.split(text)
        if len(pieces) == 1:
            return text
        text = self._reread(text, pieces, pieces[::2], _BLANKED)
        if not any(mark[-1] in "mK" for mark in pieces[1::2]):
            return text
        pieces = carriers.LINE_END.split(text)
        return self._reread(text, pieces, [carriers.COLOUR.sub("", piece) for piece in pieces[::2]], _COLOURLESS)

    def _reread(self, text: str, pieces: list[str], seen: list[str], view: int) -> str:
        """The text that is `pieces`, every other of which is read as `seen` says."""
        found = self._lines(seen, view)
        if found is None:
            return text
        for index, (before, after) in enumerate(zip(seen, found, strict=True)):
            if before != after:
                pieces[2 * index] = after
        return "".join(pieces)

    def _decoded(self, text: str) -> str:
        chunks = [chunk for chunk in _CHUNK.finditer(text) if "%" in chunk[0] or "\\u00" in chunk[0]]
        seen = _plain(_BETWEEN.join([chunk[0] for chunk in chunks])).split(_BETWEEN)
        found = self._lines(seen, _DECODED)
        if found is None:
            return text
        out: list[str] = []
        done = 0
        changed = [(chunk, after) for chunk, before, after in zip(chunks, seen, found, strict=True) if before != after]
        for (chunk, after), first in zip(changed, self._undecoded([chunk[0] for chunk, _ in changed]), strict=True):
            # Numbers first: a letter that was an escape would abut them. The rest is found in the next round.
            shown = _CONTROL.sub(lambda m: f"%{ord(m[0]):02X}", after) if first == chunk[0] else first
            out += (text[done : chunk.start()], shown)
            done = chunk.end()
        out.append(text[done:])
        return "".join(out)

    def _undecoded(self, chunks: list[str]) -> list[str]:
        """Without the numbers that stand in them as they are; credentials, of which a number may be a part, stay."""
        joined = "\n".join(chunks)
        return chunks if vendors.TOKEN.search(joined) else self._numbers(joined, True, True).split("\n")

    def _lines(self, seen: list[str], view: int) -> list[str] | None:
        """What is left of each of these, read one below the other; None if nothing was found."""
        joined = "\n".join(seen)
        found = self.scan(joined, joined.encode("utf-8", "replace"), view)
        if found == joined:
            return None
        lines = _aligned(joined.split("\n"), found.split("\n"))
        out, at = [], 0
        for piece in seen:
            end = at + piece.count("\n") + 1
            out.append("\n".join(lines[at:end]))
            at = end
        return out


_ENCODED = re.compile(rb"%[0-9A-Fa-f]{2}|\\u00[0-9A-Fa-f]{2}")
_CHUNK = re.compile(r"[^\s&\"'<>,;]{1,2048}+")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_ESCAPE = re.compile(r"\\u00([0-9A-Fa-f]{2})")
_BETWEEN = "\x1f"
"""Stands between chunks: white space, so in none of them."""


def _plain(chunks: str) -> str:
    """Percent and JSON escapes undone, twice at most; bytes that are no UTF-8 become U+FFFD."""
    for _ in range(2):
        decoded = unquote(chunks.replace("%1F", "?").replace("%1f", "?"), errors="replace")
        decoded = _ESCAPE.sub(lambda m: "?" if m[1] in ("1f", "1F") else chr(int(m[1], 16)), decoded)
        if decoded == chunks:
            break
        chunks = decoded
    return chunks if "%" not in chunks and "\\u00" not in chunks else _ESCAPE.sub("?", chunks.replace("%", "?"))


def _aligned(before: list[str], after: list[str]) -> list[str]:
    """As many lines as `before`. If a find went over several of them (a quote that opens in one line and closes in
    another), nobody knows what belongs to what: all from the first change to the last go."""
    most = len(after)
    if most == len(before):
        return after
    first = next((i for i in range(most) if before[i] != after[i]), most)
    most -= first
    last = next((i for i in range(most) if before[-1 - i] != after[-1 - i]), most)
    stop = len(after) - last
    return [*after[:first], carriers.REDACTED, *[""] * (len(before) - first - last - 1), *after[stop:]]


# -- tokens without a name (strict only) ------------------------------------------------------------------------------

_OPAQUE = re.compile(r"(?<![A-Za-z0-9_+/=\-])[A-Za-z0-9_+/=\-]{24,512}+")
_SHAPED = re.compile(r"[0-9a-fA-F\-]{24,}|[0-9A-HJKMNP-TV-Z]{26}")
# Ids that Stripe gives its objects look random, and open nothing.
_OBJECT = re.compile(
    r"(?:acct|card|ch|cs|cus|dp|evt|file|il|in|mbur|pi|pm|po|price|prod|promo|py|re|seti|si|src|sub|tok|tr|txn|txi)_"
    r"(?:test_|live_)?[A-Za-z0-9]{10,80}"
)
MIN_ENTROPY = 3.9
"""Bits per character from which a long run of characters counts as random."""


def opaque(text: str) -> str:
    """Long runs of three character classes and high entropy; hex, UUIDs and ULIDs stay."""
    return _OPAQUE.sub(lambda m: SECRET if _random(m[0]) else m[0], text)


def _random(run: str) -> bool:
    if _SHAPED.fullmatch(run) or _OBJECT.fullmatch(run) or run.count("/") > 2:
        return False
    if not (any(map(str.islower, run)) and any(map(str.isupper, run)) and any(map(str.isdigit, run))):
        return False
    size = len(run)
    return -sum(count / size * math.log2(count / size) for count in Counter(run).values()) >= MIN_ENTROPY
