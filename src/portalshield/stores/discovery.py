"""Where an issuer's keys are, by its own metadata (OpenID Connect Discovery 1.0, RFC 8414): a loader for `RemoteKeys`.

`RemoteKeys` fetches the metadata like any key set; this loader reads it and fetches the key set it names, in the same
thread, so a request never waits for two documents and nothing is fetched on a request's thread. The metadata must name
exactly the issuer they are expected to be of (section 4.3), else another issuer's keys would be taken for ours; behind
an endpoint for every directory that is the template its row knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from portalshield.rules.jose import json_object
from portalshield.stores.fetching import fetch

MAX_METADATA_DEPTH = 16
STEP_TIMEOUT_S = 1.5
"""What each of the two documents may take; together the 3 s of a plain key set."""

S = TypeVar("S")


class MetadataError(ValueError):
    """The metadata cannot be used. The text never repeats it."""


def key_set_address(body: bytes, issuer: str) -> str:
    """The `jwks_uri` of an issuer's metadata. `MetadataError` for anything but its own metadata with one."""
    try:
        metadata = json_object(body, MAX_METADATA_DEPTH)
    except (ValueError, RecursionError):
        raise MetadataError("the metadata is not a JSON object") from None
    if metadata.get("issuer") != issuer:
        raise MetadataError("the metadata is that of another issuer")
    address = metadata.get("jwks_uri")
    if not isinstance(address, str):
        raise MetadataError("the metadata names no key set")
    return address


def discovered(
    issuer: str,
    load: Callable[[bytes], S],
    *,
    allow_http: bool = False,
    timeout_s: float = STEP_TIMEOUT_S,
    max_bytes: int = 262_144,
) -> Callable[[bytes], S]:
    """A loader that follows the metadata to the key set and gives its body to `load`.

    Raises `MetadataError`, or `FetchError` for an address that is not https (http to loopback with `allow_http`) or
    does not answer within `timeout_s` seconds and `max_bytes` bytes. Blocks: it belongs in the refreshing thread.
    """

    def follow(body: bytes) -> S:
        return load(fetch(key_set_address(body, issuer), timeout_s, max_bytes, allow_http))

    return follow
