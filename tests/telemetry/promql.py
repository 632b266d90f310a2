"""A small evaluator of PromQL: as much of the language as the alert rules use, over series kept in memory.

Vectors are dicts from label sets to numbers. `rate` and `increase` handle resets and extrapolate to nothing: they
divide what they saw by the window. Precedence, from weak to strong: or; and, unless; comparison; + -; * /.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Series = Mapping[Labels, list[tuple[float, float]]]
LOOKBACK_S = 300.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?![\w.]))|(?P<duration>\d+[smhd])|(?P<word>[A-Za-z_:][\w:]*)"
    r'|(?P<text>"[^"]*")|(?P<mark>=~|!=|!~|>=|<=|==|[-+*/(){}\[\],=<>]))'
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
}
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else math.nan,
}


def seconds(text: str) -> float:
    """`5m` -> 300."""
    return float(text[:-1]) * _UNITS[text[-1]]


def series(name: str, points: list[tuple[float, float]], **labels: str) -> tuple[Labels, list[tuple[float, float]]]:
    """One series as the evaluator keeps it."""
    return frozenset({"__name__": name, **labels}.items()), points


class Query:
    """A parsed expression; raises `ValueError` for what it does not understand."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._node = self._or()
        if self._at != len(self._tokens):
            raise ValueError(f"trailing {self._tokens[self._at]!r} in {text!r}")

    def at(self, data: Series, now: float) -> Vector | float:
        """The value at a time."""
        found: Vector | float = self._node(data, now)
        return found

    # -- grammar

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self._peek()
        if not token or (wanted and token != wanted):
            raise ValueError(f"expected {wanted or 'something'}, found {token!r}")
        self._at += 1
        return token

    def _chain(self, lower: Callable[[], Any], words: tuple[str, ...], join: Callable[[str, Any, Any], Any]) -> Any:
        left = lower()
        while self._peek() in words:
            word = self._take()
            left = join(word, left, lower())
        return left

    def _or(self) -> Any:
        return self._chain(self._and, ("or",), _joined(_set_operation))

    def _and(self) -> Any:
        return self._chain(self._comparison, ("and", "unless"), _joined(_set_operation))

    def _comparison(self) -> Any:
        return self._chain(self._sum, tuple(_COMPARE), _joined(_compare))

    def _sum(self) -> Any:
        return self._chain(self._product, ("+", "-"), _joined(_arithmetic))

    def _product(self) -> Any:
        return self._chain(self._unary, ("*", "/"), _joined(_arithmetic))

    def _unary(self) -> Any:
        token = self._peek()
        if token == "(":
            self._take()
            node = self._or()
            self._take(")")
            return node
        if token[:1].isdigit():
            value = float(self._take())
            return lambda data, now: value
        return self._named()

    def _named(self) -> Any:
        name = self._take()
        if name == "sum":
            return self._aggregate()
        if name in ("rate", "increase", "absent", "vector", "histogram_quantile") and self._peek() == "(":
            return self._call(name)
        return self._selector(name)

    def _aggregate(self) -> Any:
        by: tuple[str, ...] = ()
        if self._peek() == "by":
            self._take()
            by = self._names()
        inner = self._call_arguments()[0]
        return lambda data, now: _summed(inner(data, now), by)

    def _names(self) -> tuple[str, ...]:
        self._take("(")
        names = []
        while self._peek() != ")":
            names.append(self._take())
            if self._peek() == ",":
                self._take()
        self._take(")")
        return tuple(names)

    def _call_arguments(self) -> list[Any]:
        self._take("(")
        found = [self._or()]
        while self._peek() == ",":
            self._take()
            found.append(self._or())
        self._take(")")
        return found

    def _call(self, name: str) -> Any:
        arguments = self._call_arguments()
        if name == "absent":
            return lambda data, now: {} if arguments[0](data, now) else {frozenset(): 1.0}
        if name == "vector":
            return lambda data, now: {frozenset(): arguments[0](data, now)}
        if name == "histogram_quantile":
            return lambda data, now: _quantile(arguments[0](data, now), arguments[1](data, now))
        return lambda data, now: arguments[0](data, now, name)

    def _selector(self, name: str) -> Any:
        matchers = self._matchers() if self._peek() == "{" else []
        window = offset = 0.0
        if self._peek() == "[":
            self._take()
            window = seconds(self._take())
            self._take("]")
        if self._peek() == "offset":
            self._take()
            offset = seconds(self._take())

        def chosen(data: Series) -> list[tuple[Labels, list[tuple[float, float]]]]:
            return [
                (frozenset(item for item in labels if item[0] != "__name__"), points)
                for labels, points in data.items()
                if dict(labels)["__name__"] == name and all(match(dict(labels)) for match in matchers)
            ]

        if not window:
            return lambda data, now: _instant(chosen(data), now - offset)
        return lambda data, now, function: _over(chosen(data), now - offset, window, function)

    def _matchers(self) -> list[Callable[[Mapping[str, str]], bool]]:
        self._take("{")
        found: list[Callable[[Mapping[str, str]], bool]] = []
        while self._peek() != "}":
            label, operator, text = self._take(), self._take(), self._take()[1:-1]
            found.append(_matcher(label, operator, text))
            if self._peek() == ",":
                self._take()
        self._take("}")
        return found


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot read {text[at : at + 20]!r}")
        found.append(match[0].strip())
        at = match.end()
    return found


def _matcher(label: str, operator: str, text: str) -> Callable[[Mapping[str, str]], bool]:
    if operator == "=":
        return lambda labels: labels.get(label, "") == text
    if operator == "!=":
        return lambda labels: labels.get(label, "") != text
    if operator == "=~":
        return lambda labels: re.fullmatch(text, labels.get(label, "")) is not None
    raise ValueError(f"operator {operator}")


# -- evaluation


def _instant(found: list[tuple[Labels, list[tuple[float, float]]]], now: float) -> Vector:
    out: Vector = {}
    for labels, points in found:
        recent = [value for time, value in points if now - LOOKBACK_S < time <= now]
        if recent:
            out[labels] = recent[-1]
    return out


def _over(found: list[tuple[Labels, list[tuple[float, float]]]], now: float, window: float, function: str) -> Vector:
    out: Vector = {}
    for labels, points in found:
        values = [value for time, value in points if now - window < time <= now]
        if len(values) > 1:
            grown = sum(max(0.0, b - a) if b >= a else b for a, b in pairwise(values))
            out[labels] = grown / window if function == "rate" else grown
    return out


def _summed(vector: Vector, by: tuple[str, ...]) -> Vector:
    out: Vector = {}
    for labels, value in vector.items():
        kept = frozenset(item for item in labels if item[0] in by)
        out[kept] = out.get(kept, 0.0) + value
    return out


def _quantile(share: float, vector: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in vector.items():
        edge = dict(labels)["le"]
        rest = frozenset(item for item in labels if item[0] != "le")
        groups.setdefault(rest, []).append((math.inf if edge == "+Inf" else float(edge), value))
    out: Vector = {}
    for labels, buckets in groups.items():
        buckets.sort()
        total = buckets[-1][1]
        if total <= 0:
            continue
        low, before = 0.0, 0.0
        for edge, count in buckets:
            if count >= share * total:
                inside = (share * total - before) / (count - before) if count > before else 0.0
                out[labels] = low if edge == math.inf else low + (edge - low) * inside
                break
            low, before = edge, count
    return out


def _joined(combine: Callable[[str, Any, Any], Any]) -> Callable[[str, Any, Any], Any]:
    return lambda word, left, right: lambda data, now: combine(word, left(data, now), right(data, now))


def _set_operation(word: str, left: Vector, right: Vector) -> Vector:
    if word == "and":
        return {labels: value for labels, value in left.items() if labels in right}
    if word == "unless":
        return {labels: value for labels, value in left.items() if labels not in right}
    return {**right, **left}


def _compare(word: str, left: Any, right: Any) -> Vector:
    test = _COMPARE[word]
    if isinstance(right, dict):
        return {labels: value for labels, value in left.items() if labels in right and test(value, right[labels])}
    return {labels: value for labels, value in left.items() if test(value, right)}


def _arithmetic(word: str, left: Any, right: Any) -> Any:
    act = _ARITHMETIC[word]
    if isinstance(left, dict) and isinstance(right, dict):
        return {labels: act(value, right[labels]) for labels, value in left.items() if labels in right}
    if isinstance(left, dict):
        return {labels: act(value, right) for labels, value in left.items()}
    if isinstance(right, dict):
        return {labels: act(left, value) for labels, value in right.items()}
    return act(left, right)


def firing(expression: str, lasts: str, data: Series, times: list[float]) -> list[float]:
    """The times at which an alert fires: its expression held at every look for as long as `lasts` says."""
    query, wait = Query(expression), float(lasts[:-1]) * _UNITS[lasts[-1]]
    since: dict[Labels, float] = {}
    fired = []
    for now in times:
        active = query.at(data, now)
        assert isinstance(active, dict)
        since = {labels: since.get(labels, now) for labels in active}
        if any(now - began >= wait for began in since.values()):
            fired.append(now)
    return fired
