"""The redactor: text and nested values in, the same without secrets and personal data out.

It never raises, never changes what it is given, and is bounded in length, depth and number of items. What it cannot
judge it replaces: a failure inside gives `[REDACTION_ERROR]`, never the raw value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from enum import Enum
from typing import Any, Final, Literal
from uuid import UUID

from portalshield.model.secret import Secret
from portalshield.rules.carriers import REDACTED
from portalshield.rules.detectors import SHORTEST, TOKEN_RUN, Detector, Scanner
from portalshield.rules.key_names import KeyPolicy
from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.truncation import MAX_TEXT, TRUNCATED, cut_text

Mode = Literal["default", "strict"]

REDACTION_ERROR: Final = "[REDACTION_ERROR]"
MAX_TOTAL: Final = 65_536
"""Characters of all texts of one nested value."""
MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 1000
"""Members of one nested value, all levels together."""
BIG_INT: Final = 10**11
"""From here on an integer may be a card or account number and is judged as text."""
_MEMO: Final = 2048
"""Names and clean texts that are remembered; a full memo is emptied, so a flood of new ones costs time, not memory."""
_MEMO_TEXT: Final = 160
"""Characters of a text that is worth remembering: event names, user agents, words."""
_ROUNDS: Final = (MAX_TEXT, MAX_TEXT // 2, MAX_TEXT // 4)
"""Characters that are looked at in each round in which a text should settle."""
_KEPT: Final = (date, time, timedelta, UUID)


class Redactor:
    """Redacts with the default names plus `fields`, minus `allow_fields`.

    `strict` also hides whole IP addresses, long random tokens and the text of objects it does not know. With
    `pseudonyms`, e-mail addresses become `[EMAIL:e_...]`, stable under the key. `detectors` are the user's own.
    `counts` tells how often each detector changed a text, `errors` how often redaction itself failed; `counted` is
    called for each, with `redactions` or `tripwire` and the detector, or `redactor_errors` and nothing.
    """

    __slots__ = ("_clean_texts", "_counted", "_names", "_policy", "_pseudonyms", "_scanner", "counts", "errors", "mode")

    def __init__(
        self,
        fields: Iterable[str] = (),
        allow_fields: Iterable[str] = (),
        mode: Mode = "default",
        pseudonyms: Pseudonyms | None = None,
        detectors: Iterable[Detector] = (),
        counted: Callable[[str, str], None] | None = None,
    ) -> None:
        self.mode: Mode = mode
        self.counts: dict[str, int] = {}
        self.errors = 0
        self._counted = counted
        self._policy = KeyPolicy(fields, allow_fields)
        self._pseudonyms = pseudonyms if mode == "default" else None
        self._names: dict[str, bool] = {}
        self._clean_texts: set[str] = set()
        self._scanner = Scanner(
            self._policy.is_sensitive, self._email, self._count, strict=mode == "strict", own=detectors
        )

    def is_sensitive(self, name: str) -> bool:
        """True if values under this name are hidden whatever they are."""
        return self._policy.is_sensitive(name)

    def text(self, text: str) -> str:
        """The text without what the detectors find: idempotent, valid UTF-8, at most `MAX_TEXT` characters."""
        if type(text) is str and (text in self._clean_texts or (len(text) < TOKEN_RUN and _is_plain(text))):
            return text
        try:
            found = self._text(text)
        except Exception:
            self.failed()
            return REDACTION_ERROR
        if found is text and len(text) <= _MEMO_TEXT:
            if len(self._clean_texts) >= _MEMO:
                self._clean_texts.clear()
            self._clean_texts.add(text)
        return found

    def stays(self, name: str) -> bool:
        """True if the operator wants values under this name readable; they are scanned like any other."""
        return self._policy.stays(name)

    def value(self, value: Any, max_text: int = MAX_TOTAL, *, texts: bool = True) -> Any:
        """A redacted copy of a nested value; `max_text` bounds the characters of all its texts together.

        Containers keep their kind; dataclasses and pydantic models become dicts, exceptions one line of text. Without
        `texts` every text goes, except under names that stay; numbers, truth and times are left.
        """
        try:
            return _Walk(self, max_text, texts).any(value, 0)
        except Exception:
            self.failed()
            return REDACTION_ERROR

    def _text(self, text: str) -> str:
        if type(text) is not str:
            text = str.__str__(text)
        cut = len(text) > MAX_TEXT
        if cut:
            text = cut_text(text)
        try:
            raw = text.encode()
        except UnicodeEncodeError:  # lone surrogates
            raw = text.encode("utf-8", "replace")
            text = raw.decode()
        found = self._scanner.scan(text, raw)
        if found is not text and found != text:
            found, outgrown = self._settled(found)
            cut = cut or outgrown
        return f"{found}{TRUNCATED}" if cut else found

    def _settled(self, text: str) -> tuple[str, bool]:
        """Scan until nothing changes, so that redacting twice is redacting once; what never settles goes whole.

        Placeholders may be longer than what they replace: the second member tells that the text was cut for it. What
        changes again and again is halved each time, so that no text costs more than two and a half of the longest.
        """
        cut = False
        for most in _ROUNDS:
            if len(text) > most - len(TRUNCATED):
                text, cut = cut_text(text, most), True
            found = self._scanner.scan(text, text.encode("utf-8", "replace"))
            if found == text:
                return text, cut
            text = found
        return REDACTED, False

    def _email(self, address: str) -> str:
        if self._pseudonyms is None:
            return "[EMAIL]"
        return f"[EMAIL:{self._pseudonyms.name('email', address)}]"

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        if self._counted is not None:
            self._counted("redactions", name)

    def tripped(self, name: str) -> None:
        """Count what was found in a finished line, by the detector that should have seen it."""
        if self._counted is not None:
            self._counted("tripwire", name)

    def failed(self) -> None:
        """Count a failure: something was replaced or dropped because it could not be judged."""
        self.errors += 1
        if self._counted is not None:
            self._counted("redactor_errors", "")

    def member(self, name: Any) -> tuple[Any, bool]:
        """A mapping's key as it may be shown (an address may be a key), and whether its value is hidden."""
        if type(name) is not str:
            shown = name if name is None or isinstance(name, int | float) else self.text(_described(name))
            return shown, self.is_sensitive(_described(name))
        shown, hidden = self.text(name), self.is_sensitive(name)
        if shown == name and len(name) <= 64:
            if len(self._names) >= _MEMO:
                self._names.clear()
            self._names[name] = hidden
        return shown, hidden


class _Walk:
    """One pass over one nested value: counts what it has seen and knows where it stands."""

    __slots__ = ("_items", "_left", "_open", "_redactor", "_texts")

    def __init__(self, redactor: Redactor, max_text: int, texts: bool) -> None:
        self._texts = texts
        self._redactor = redactor
        self._left = max_text
        self._items = 0
        self._open: set[int] = set()

    def any(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._str(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return value if -BIG_INT < value < BIG_INT else self._big(value)
        if kind is dict or kind is list:
            return self._nested(value, depth)
        if isinstance(value, Mapping | list | tuple | AbstractSet) or _is_record(value):
            return self._nested(value, depth)
        return self._leaf(value)

    def _str(self, text: str) -> str:
        if not self._texts:
            return REDACTED if text else text
        if self._left <= 0:
            return TRUNCATED
        if len(text) > self._left:
            text = cut_text(text, self._left)
            self._left = 0
            return self._redactor.text(text) + TRUNCATED
        self._left -= len(text)
        return self._redactor.text(text)

    def _big(self, value: int) -> Any:
        if abs(value) >= 10**40:  # no number of a person; printing millions of digits would take seconds
            return value if abs(value) < 10**100 else TRUNCATED
        text = str(value)
        found = self._redactor.text(text)
        return value if found == text else found

    def _nested(self, value: Any, depth: int) -> Any:
        mark = id(value)
        if mark in self._open:
            return "[CYCLE]"
        if depth >= MAX_DEPTH:
            return TRUNCATED
        self._open.add(mark)
        try:
            return self._members(value, depth + 1)
        finally:
            self._open.discard(mark)

    def _members(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is dict:
            return self._mapping(value.items(), depth)
        if kind is list:
            return self._sequence(value, depth)
        if isinstance(value, Mapping):
            return self._mapping(value.items(), depth)
        if isinstance(value, list | tuple):
            found = self._sequence(value, depth)
            return found if isinstance(value, list) else tuple(found)
        if isinstance(value, AbstractSet):
            return self._set(value, depth)
        return self._mapping(_members_of(value), depth)

    def _mapping(self, items: Iterable[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        redactor = self._redactor
        out: dict[Any, Any] = {}
        known, clean = redactor._names, redactor._clean_texts if self._texts else ()
        for name, value in items:
            self._items += 1
            if self._items > MAX_ITEMS or self._left <= 0:
                out[TRUNCATED] = True
                break
            shown, hidden = name, known.get(name) if type(name) is str else None
            if hidden is None:
                shown, hidden = redactor.member(name)
            if hidden:
                out[shown] = _hidden(value)
            elif type(value) is str and value in clean:
                self._left -= len(value)
                out[shown] = value
            elif not self._texts and redactor.stays(_described(name)):
                out[shown] = redactor.value(value, self._left)
            else:
                out[shown] = self.any(value, depth)
        return out

    def _sequence(self, values: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        if (
            len(values) == 2
            and isinstance(values[0], str | bytes)
            and self._redactor.is_sensitive(_described(values[0]))
        ):
            return [self.any(values[0], depth), _hidden(values[1])]  # a header: ("authorization", "Bearer ...")
        out = []
        for value in values:
            self._items += 1
            if self._items > MAX_ITEMS or self._left <= 0:
                out.append(TRUNCATED)
                break
            out.append(self.any(value, depth))
        return out

    def _set(self, values: AbstractSet[Any], depth: int) -> Any:
        out = self._sequence(list(values), depth) if len(values) != 2 else [self.any(v, depth) for v in values]
        try:
            return frozenset(out) if isinstance(values, frozenset) else set(out)
        except TypeError:  # a member became a dict
            return out

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.any(value.value, 0) if isinstance(value, Enum) else self._str(str.__str__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._str(bytes(value[: MAX_TEXT * 2]).decode("utf-8", "replace")).encode()
        if isinstance(value, Secret) or hasattr(value, "get_secret_value"):
            return REDACTED
        if isinstance(value, _KEPT):
            return value
        if isinstance(value, Enum):
            return self.any(value.value, 0)
        if isinstance(value, int):
            return self.any(int(value), 0)
        if isinstance(value, BaseException):
            return self._str(f"{type(value).__name__}: {value}".removesuffix(": "))
        if self._redactor.mode == "strict":
            return f"<{type(value).__name__}>"
        return self._str(repr(value))


def _is_plain(text: str) -> bool:
    """A single word, or so few characters without a mark that no detector finds anything: `EUR`, `A-100`, `1.14.2`."""
    return text.isalpha() or (len(text) < SHORTEST and "=" not in text and ":" not in text and text.isascii())


def _is_record(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, type):
        return False
    return is_dataclass(kind) or hasattr(kind, "model_fields") or hasattr(kind, "__attrs_attrs__")


def _members_of(value: Any) -> Iterable[tuple[str, Any]]:
    """Names and values of a dataclass, attrs class or pydantic model, without running any of its own code."""
    kind = type(value)
    if is_dataclass(kind):
        names = [field.name for field in dataclass_fields(kind)]
    elif hasattr(kind, "model_fields"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        return [*vars(value).items(), *extra.items()]
    else:
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    return [(name, getattr(value, name, None)) for name in names]


def _hidden(value: Any) -> Any:
    """What stands for a value under a sensitive name; nothing and yes or no give nothing away."""
    return value if value is None or value is True or value is False or value == "" else REDACTED


def _described(name: Any) -> str:
    if isinstance(name, bytes):
        return name[:256].decode("utf-8", "replace")
    return str(name)[:256]
