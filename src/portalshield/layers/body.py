"""Body limits: size by declaration and by arrival, content coding, media type.

Refuses: a malformed length (400), more bytes than allowed (413, without reading where the length was declared), a form
of too many fields or parts (413), a content coding (415: no framework here decodes it, so a bomb stays zipped), a media
type that is not on the route's list (415), a body that takes too long (408, ASGI). Where another layer judges the body
it is read once for all of them, a multipart form up to its first file; else it streams past a byte counter. Does not
cover: slow headers, which reach no application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.needs import Body, BodyAnswer, Gone, ReadBody, TimedOut, TooLarge
from portalshield.model.policy import EffectivePolicy
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Problem, Verdict, problem
from portalshield.rules.media_types import matches, parse_media_type
from portalshield.rules.multipart import FormScanner, MultipartFault, boundary_of
from portalshield.rules.values import size_bytes

_TYPES = ("application/json", "application/*+json", "application/x-www-form-urlencoded", "multipart/form-data")
_LENGTH = problem("malformed-request", why="content-length")
_DECLARED = problem("body-too-large", why="declared", fields=((b"connection", b"close"),))
_ARRIVED = problem("body-too-large", why="arrived", fields=((b"connection", b"close"),))
_CODED = problem("unsupported-media-type", why="content-encoding", fields=((b"accept-encoding", b"identity"),))
_SLOW = problem("body-timeout", why="body-slow", fields=((b"connection", b"close"),))
_LEFT = problem("malformed-request", why="client-gone")
_DISGUISED = problem("unsupported-media-type", why="not-multipart")
_SPACE = b" \t\r\n"
_FORM = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_MANY = problem("body-too-large", why="too-many-fields", fields=((b"connection", b"close"),))
MAX_FIELDS = 1000
"""Fields of an urlencoded form; as many as frameworks read."""
_SEPARATORS = (b"&", b";")
"""Of such fields: python-multipart before 0.0.30 splits at semicolons too."""


class BodyConfig(BaseModel):
    """`PORTALSHIELD_BODY__...`."""

    model_config = FROZEN

    max_size: Annotated[int, Setting("largest body", unit="bytes")] = 1_048_576
    max_depth: Annotated[int, Setting("deepest nesting of JSON")] = 32
    max_keys: Annotated[int, Setting("member names in a JSON document")] = 10_000
    max_items: Annotated[int, Setting("array items in a JSON document")] = 100_000
    max_parts: Annotated[int, Setting("parts of a multipart form, fields and files")] = 100
    content_types: Annotated[tuple[str, ...], Setting("media types a body may have; `*`: any or none")] = _TYPES
    read_timeout: Annotated[float, Setting("how long a body may take to arrive (ASGI)", unit="seconds")] = 30.0

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Bounds that bound nothing or refuse everything."""
        for name, value, least, most in (
            ("MAX_DEPTH", self.max_depth, 1, 200),
            ("MAX_KEYS", self.max_keys, 1, 10_000_000),
            ("MAX_ITEMS", self.max_items, 1, 10_000_000),
            ("MAX_PARTS", self.max_parts, 1, 1000),
            ("READ_TIMEOUT", self.read_timeout, 1, 3600),
        ):
            if not least <= value <= most:
                yield ConfigurationProblem(
                    "PS-BODY-001", f"PORTALSHIELD_BODY__{name}", f"lies outside {least} to {most}."
                )


class BodyStage:
    """The limits of one policy. `reads`: another stage of this policy judges the body, so it is read here; `names`:
    the fields of multipart forms that it judges; `max_parts`: how many parts such forms may have; `whole`: it needs
    all of every body, files too."""

    layer = "body"
    judges_body = True

    def __init__(
        self,
        limit: int,
        content_types: tuple[str, ...],
        *,
        reads: bool,
        names: frozenset[str],
        max_parts: int,
        whole: bool = False,
    ) -> None:
        self._limit = limit
        self._any = "*" in content_types
        self._types = content_types
        self._reads = reads
        self._names = names
        self._max_parts = max_parts
        self._whole = whole
        accepted = ", ".join(content_types).encode()
        self._refused = problem("unsupported-media-type", why="content-type", fields=((b"accept-post", accepted),))

    def check(self, x: Exchange) -> Verdict:
        """Judge what the header fields declare."""
        if not x.has_body:
            return None
        get = x.headers.get
        content_type = get(b"content-type")
        # Before all else: where this layer only reports, others still judge by it.
        media = x.media = parse_media_type(content_type) if content_type is not None else None
        declared = get(b"content-length")
        if declared is not None:
            if not declared.isdigit() or len(declared) > 18:
                return _LENGTH
            if int(declared) > self._limit:
                return _DECLARED
            if declared == b"0":
                return None
        coding = get(b"content-encoding")
        if coding is not None and coding.strip().lower() not in (b"", b"identity"):
            return _CODED
        if self._any or (media is not None and matches(media, self._types)):
            return None
        return self._refused

    def ask(self, x: Exchange) -> ReadBody | None:
        """The body, where somebody judges it. Of a form whose fields are judged what stands before the first file;
        else multipart streams: its parts are no JSON, which `guard` proves."""
        if not self._reads or not x.has_body:
            return None
        essence = _essence(x)
        if essence == _FORM and self._names:
            return self._read_form(x)
        return None if essence.startswith("multipart/") and not self._whole else ReadBody(self._limit)

    def _read_form(self, x: Exchange) -> ReadBody | None:
        boundary = boundary_of(x.headers.get(b"content-type") or b"")
        if boundary is None:
            x.form_fault = "boundary"
            return None
        scanner = x.form = FormScanner(boundary, names=self._names, max_parts=self._max_parts)

        def until(chunk: bytes) -> bool:
            try:
                scanner.feed(chunk)
            except MultipartFault as fault:
                x.form_fault = fault.code
                return True
            return scanner.reached_file and not self._whole

        return ReadBody(self._limit, until)

    def settle(self, x: Exchange, need: ReadBody, answer: BodyAnswer) -> Verdict:
        """Keep the body, or refuse what is too large, too slow or gone."""
        match answer:
            case Body():
                x.body, x.body_complete = answer.data, answer.complete
                _end_form(x)
                return _MANY if _has_too_many(x, answer.data) else None
            case TooLarge():
                x.body, x.body_complete = answer.prefix, answer.complete
                _end_form(x)
                return _ARRIVED
            case TimedOut():
                x.body, x.body_complete = answer.prefix, False
                return _SLOW
            case Gone():
                x.gone = True
                return _LEFT

    def guard(self, x: Exchange) -> Callable[[bytes], Problem | None] | None:
        """Count the bytes of a body that nobody reads to its end before the application."""
        if not x.has_body or (x.body is not None and (x.form is None or len(x.body) > self._limit)):
            return None
        essence = _essence(x)
        if essence == _URLENCODED:
            return _counter(self._limit, _SEPARATORS, MAX_FIELDS)
        if not essence.startswith("multipart/"):
            return _counter(self._limit)
        boundary = boundary_of(x.headers.get(b"content-type") or b"")
        if boundary is None:
            return _dashed(_counter(self._limit))
        return _dashed(_counter(self._limit, (b"--" + boundary + b"\r\n",), self._max_parts + 1))


def _has_too_many(x: Exchange, body: bytes) -> bool:
    """More fields of an urlencoded form than frameworks read, more parts of a multipart one than are allowed."""
    if x.form is not None:
        return x.form_fault == "too-many-parts"
    return sum(map(body.count, _SEPARATORS)) >= MAX_FIELDS and _essence(x) == _URLENCODED


def _end_form(x: Exchange) -> None:
    """A form that was read whole must end: parsers differ on what to make of one that was cut."""
    if x.form is None or x.form_fault is not None or not x.body or not x.body_complete:
        return
    try:
        x.form.close()
    except MultipartFault as fault:
        x.form_fault = fault.code


_Judge = Callable[[bytes], Problem | None]


def _counter(limit: int, separators: tuple[bytes, ...] = (), too_many: int = 0) -> _Judge:
    """Counts bytes, and how often a separator comes (all of one length), wherever the chunks are cut."""
    seen = found = 0
    size = len(separators[0]) if separators else 0
    held = b""

    def judge(chunk: bytes) -> Problem | None:
        nonlocal seen, found, held
        seen += len(chunk)
        if seen > limit:
            return _ARRIVED
        if too_many:
            text = held + chunk if held else chunk
            found += sum(map(text.count, separators))
            # One byte less than the separator: none of it is counted twice.
            held = text[1 - size :] if size > 1 else b""
            if found >= too_many:
                return _MANY
        return None

    return judge


def _dashed(count: _Judge) -> _Judge:
    """A JSON text under a multipart label would reach `request.json()` unjudged; multipart starts with a dash."""
    started = False

    def judge(chunk: bytes) -> Problem | None:
        nonlocal started
        refusal = count(chunk)
        if refusal is None and not started and (first := chunk.lstrip(_SPACE)[:1]):
            started = True
            if first != b"-":
                return _DISGUISED
        return refusal

    return judge


def _essence(x: Exchange) -> str:
    """The media type without parameters, empty if there is none.

    What is no media type by RFC 9110 but speaks of a form is one: frameworks parse the field by laxer rules.
    """
    if x.media is not None:
        return str(x.media.essence)
    return _FORM if _FORM.encode() in (x.headers.get(b"content-type") or b"").lower() else ""


def stage(
    config: BodyConfig,
    policy: EffectivePolicy,
    *,
    reads: bool,
    names: frozenset[str] = frozenset(),
    whole: bool = False,
) -> BodyStage:
    """The limits of this route: its own `max_body` and `content_types`, else the configured ones."""
    types = policy.content_types or config.content_types
    return BodyStage(_limit(config, policy), types, reads=reads, names=names, max_parts=config.max_parts, whole=whole)


def _limit(config: BodyConfig, policy: EffectivePolicy) -> int:
    """The route's own, room for the files that it takes, or the configured one; in bytes."""
    if policy.max_body is not None:
        return _bytes(policy.max_body)
    if policy.upload is None:
        return config.max_size
    return config.max_size + policy.upload.max_files * _bytes(policy.upload.max_file)


def _bytes(size: int | str) -> int:
    return size_bytes(size) if isinstance(size, str) else size
