"""Is this request sent by another site's page? CSRF protection without tokens.

The rule of Go 1.25's CrossOriginProtection: browsers say in `Sec-Fetch-Site` where a request comes from, and a page
cannot forge it; older ones send `Origin` with every unsafe request. What has neither comes from no browser of the last
years. Go's path bypass is left out on purpose (CVE-2025-47910). Added: `Referer` where `Origin` is missing.
"""

from __future__ import annotations

from collections.abc import Container

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""RFC 9110, 9.2.1. `CONNECT` and everything unknown is unsafe."""

_OWN_SITE = frozenset((b"same-origin", b"none"))
_AMBIENT = frozenset((b"basic", b"digest", b"negotiate", b"ntlm"))


def is_ambient(authorization: bytes) -> bool:
    """Whether browsers add this `Authorization` by themselves, to requests of foreign pages too, once a user has logged
    in with it (RFC 7617, 7616, 4559). A bearer token has to be added by a script, and a foreign one may not."""
    return authorization.lstrip(b" \t").partition(b" ")[0].lower() in _AMBIENT


def cross_site(
    method: str,
    sec_fetch_site: bytes | None,
    origin: bytes | None,
    referer: bytes | None,
    host: bytes | None,
    trusted: Container[bytes],
) -> bool:
    """Whether an unsafe request comes from a foreign page: True refuses.

    The values are header fields as they came, None or empty where missing; `trusted` holds origins as browsers send
    them. Safe methods are False. `same-site` counts as foreign: a sub-domain can be another party.
    """
    if method in SAFE_METHODS or method.upper() in SAFE_METHODS:
        return False
    if sec_fetch_site:
        return sec_fetch_site not in _OWN_SITE and origin not in trusted
    source = origin or referer
    if not source:
        return False
    if is_same_host(source, host):
        return False
    return origin not in trusted if origin else _origin_of(source) not in trusted


def is_same_host(url: bytes, host: bytes | None) -> bool:
    """Whether an `Origin` or `Referer` names this `Host`, port included, in any case."""
    scheme, _, rest = url.partition(b"://")
    if not host or scheme not in (b"https", b"http"):
        return False
    return _authority(rest).lower() == host.lower()


def _origin_of(url: bytes) -> bytes:
    scheme, _, rest = url.partition(b"://")
    return scheme + b"://" + _authority(rest)


def _authority(rest: bytes) -> bytes:
    for mark in (b"/", b"?", b"#"):
        rest = rest.partition(mark)[0]
    return rest
