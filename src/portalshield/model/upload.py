"""What a route takes as files: `upload=Upload(...)` in a policy or `@protect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, init=False)
class Upload:
    """Files that a route takes in a multipart form.

    `types`: media types whose bytes can be judged, or ranges of them (`image/*`). `max_file`: bytes of one file, or a
    size such as `10MB`. `max_files`: how many in one request. Unless the route says `max_body`, its body may be as
    large as that many files and `BODY__MAX_SIZE` for the rest.
    """

    types: tuple[str, ...]
    max_file: int | str
    max_files: int

    def __init__(self, types: Iterable[str], max_file: int | str = "10MB", max_files: int = 1) -> None:
        if isinstance(types, str):
            raise TypeError("types is a list of media types, not one text")
        if isinstance(max_files, bool) or not isinstance(max_files, int):
            raise TypeError("max_files is a whole number")
        if isinstance(max_file, bool) or not isinstance(max_file, (int, str)):
            raise TypeError('max_file is a number of bytes or a size: "10MB"')
        object.__setattr__(self, "types", tuple(types))
        object.__setattr__(self, "max_file", max_file)
        object.__setattr__(self, "max_files", max_files)


def as_upload(value: Any) -> Upload:
    """An `Upload`, or the table that stands for one in a policy file."""
    if isinstance(value, Upload):
        return value
    if isinstance(value, Mapping):
        return Upload(**value)
    raise TypeError('upload is Upload(types=["image/png"], max_file="10MB", max_files=5)')
