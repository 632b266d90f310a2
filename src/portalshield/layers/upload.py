"""Uploads: what is sent as a file is judged while it streams (`upload=Upload(...)`).

Refuses: anything but a multipart form (415); a file whose declared type is not taken, or whose bytes are of another
(415); files that are too large or too many, and archives that promise more than 100 times their size (413); forms that
parsers read differently, names that are paths, hide what they are or end as something else, and a second field of a
name that decides something (400). A body that was read already is judged before the handler runs; one that streams is
cut, and no parser completes the file that was refused. Does not cover: what a correct file of its type does to whoever
opens it (no virus scan, no macros in PDF, archives within archives). Costs one search of the bytes for the boundary,
and for text a check of its UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable

from portalshield.model.exchange import Exchange
from portalshield.model.upload import Upload
from portalshield.model.verdicts import Problem, Verdict, problem
from portalshield.rules.media_types import parse_media_type
from portalshield.rules.multipart import FormScanner, MultipartFault, boundary_of
from portalshield.rules.uploads import FileJudge, UploadRules, compile_rules
from portalshield.rules.values import size_bytes

_FORM = "multipart/form-data"
_NO_FORM = problem("unsupported-media-type", why="upload-no-form", fields=((b"accept-post", _FORM.encode()),))
_NO_BOUNDARY = problem("malformed-request", why="upload-boundary")
_SLUGS = {
    **dict.fromkeys(("too-many-parts", "too-many-files", "file-too-large", "field-too-large"), "body-too-large"),
    **dict.fromkeys(("headers-too-large", "zip-bomb", "zip-too-many-entries"), "body-too-large"),
    **dict.fromkeys(("file-type", "file-content", "file-archive", "filename-extension"), "unsupported-media-type"),
    **dict.fromkeys(("zip-directory", "zip-macros", "zip-other-type"), "unsupported-media-type"),
}
"""What a fault is to the client; every other one is a malformed request."""


class UploadStage:
    """The files of one policy. `names`: the fields of its forms that decide something."""

    layer = "upload"
    judges_body = True

    def __init__(self, rules: UploadRules, *, names: frozenset[str], max_parts: int) -> None:
        self._rules = rules
        self._names = names
        self._max_parts = max_parts

    def check(self, x: Exchange) -> Verdict:
        """Refuse what is no form; judge the whole of one that was read already."""
        content_type = x.headers.get(b"content-type") or b""
        boundary = boundary_of(content_type)
        if boundary is None:
            media = parse_media_type(content_type)
            return _NO_BOUNDARY if media is not None and media.essence == _FORM else _NO_FORM
        if x.body is None or not x.body_complete:
            return None
        scanner = self._scanner(boundary)
        try:
            scanner.feed(x.body)
            scanner.close()
        except MultipartFault as fault:
            return problem(_slug(fault), why=f"upload-{fault.code}")
        return None

    def guard(self, x: Exchange) -> Callable[[bytes], Problem | None] | None:
        """Judge a form that streams, its end with the last byte that was declared, or where the server says so."""
        boundary = boundary_of(x.headers.get(b"content-type") or b"")
        if not x.has_body or boundary is None:
            return None
        declared = x.headers.get(b"content-length") or b""
        return _judge(self._scanner(boundary), int(declared) if declared.isdigit() else -1)

    def _scanner(self, boundary: bytes) -> FormScanner:
        judge = FileJudge(self._rules, self._names)
        return FormScanner(boundary, max_parts=self._max_parts, names=self._names, parts=judge)


def _judge(scanner: FormScanner, left: int) -> Callable[[bytes], Problem | None]:
    """`left`: how many bytes will come, below 0 if nobody said."""
    over = False

    def judge(chunk: bytes) -> Problem | None:
        nonlocal left, over
        left -= len(chunk)
        try:
            scanner.feed(chunk)
            if (left == 0 or not chunk) and not over:
                over = True
                scanner.close()
        except MultipartFault as fault:
            # Nobody reads the rest.
            return problem(_slug(fault), why=f"upload-{fault.code}", fields=((b"connection", b"close"),))
        return None

    return judge


def _slug(fault: MultipartFault) -> str:
    return _SLUGS.get(fault.code, "malformed-request")


def stage(upload: Upload, *, names: frozenset[str], max_parts: int) -> UploadStage:
    """What a route takes. `ValueError` behind "has a policy that" where it is wrong."""
    try:
        max_file = size_bytes(upload.max_file) if isinstance(upload.max_file, str) else upload.max_file
    except ValueError:
        raise ValueError('has a max_file that is no size: write "10MB"') from None
    return UploadStage(compile_rules(upload.types, max_file, upload.max_files), names=names, max_parts=max_parts)
