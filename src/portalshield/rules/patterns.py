"""Route patterns of policies, `PUBLIC` and `HEALTH`: methods and a path template.

`"GET|POST /clients/{client_id}"`: literal segments, `{name}` for one segment, a last `*` for the rest. Patterns are
compared with route templates (which routes does this policy cover?) and, for an application without a router to ask,
with paths. Source: the contract of the policy table; segments are those of RFC 3986, 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))
PARAMETER = "{}"
"""Stands for any one segment in a compiled template."""
REST = "*"
"""Stands for all further segments, none included."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`methods` None: any; `segments` hold literals, `PARAMETER` and at most one last `REST`; `names` by position."""

    methods: frozenset[str] | None
    segments: tuple[str, ...]
    names: tuple[str | None, ...] = ()

    @property
    def specificity(self) -> tuple[int, int, int]:
        """Sorts general before specific: literals count first, then length, then named methods."""
        literals = sum(segment not in (PARAMETER, REST) for segment in self.segments)
        return (literals, len(self.segments) - (REST in self.segments), self.methods is not None)

    def covers(self, methods: frozenset[str] | None, segments: tuple[str, ...]) -> bool:
        """Every path of the route template `segments` lies in this pattern, and a method is shared."""
        if self.methods is not None and methods is not None and self.methods.isdisjoint(methods):
            return False
        return self.covers_path(segments)

    def covers_path(self, segments: tuple[str, ...]) -> bool:
        """The same for the path alone; also right for a concrete path's segments."""
        mine = self.segments
        if mine and mine[-1] == REST:
            mine = mine[:-1]
            if len(segments) < len(mine):
                return False
        elif len(segments) != len(mine):
            return False
        return all(
            segment == want or (want == PARAMETER and segment != REST)
            for want, segment in zip(mine, segments, strict=False)
        )

    def parameters(self, segments: tuple[str, ...]) -> dict[str, str]:
        """Name -> segment for a concrete path that the pattern covers."""
        return {name: text for name, text in zip(self.names, segments, strict=False) if name is not None}


def segments_of(path: str) -> tuple[str, ...]:
    """`/a/b` -> `("a", "b")`; a trailing slash is a last empty segment, `/` has one empty segment."""
    return tuple(path[1:].split("/"))


def parse_pattern(text: str) -> Pattern:
    """Compile `"GET|POST /clients/{id}"`. `ValueError` says what is wrong without repeating the text."""
    head, _, path = text.strip().partition(" ")
    path = path.strip()
    if not path and head.startswith("/"):
        raise ValueError('has no method: write "GET /path" or "* /path"')
    methods = _parse_methods(head)
    if not path.startswith("/"):
        raise ValueError('has no path: write "GET /path"')
    segments: list[str] = []
    names: list[str | None] = []
    for index, part in enumerate(pieces := path[1:].split("/")):
        last = index == len(pieces) - 1
        segment, name = _parse_segment(part, last)
        segments.append(segment)
        names.append(name)
    return Pattern(methods, tuple(segments), tuple(names))


def _parse_methods(text: str) -> frozenset[str] | None:
    if text == "*":
        return None
    methods = set(text.split("|"))
    if not methods <= _METHODS:
        raise ValueError('has an unknown method: write GET, POST, "GET|POST" or *')
    if "GET" in methods:
        methods.add("HEAD")
    return frozenset(methods)


def _parse_segment(part: str, last: bool) -> tuple[str, str | None]:
    if part == REST:
        if not last:
            raise ValueError("has a * before its end: a * stands for the rest of the path")
        return REST, None
    if part.startswith("{") and part.endswith("}"):
        name = part[1:-1]
        if not name.isidentifier():
            raise ValueError("has a parameter that is no name: write {client_id}")
        return PARAMETER, name
    if any(mark in part for mark in "{}*"):
        raise ValueError("mixes text and parameter in one segment: a parameter is a whole segment")
    return part, None
