"""Security headers, by the content type of the response (OWASP Secure Headers, REST cheat sheet).

Adds what is missing, once; a field the handler set stays. Answers that belong to a principal are kept out of shared
caches. Does not cover: Subresource Integrity, COEP (it breaks pages), redirects to https (the proxy's). All values are
bytes built at start, one tuple per profile.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.setting import Setting
from portalshield.model.verdicts import Fields

_REPLACES = "a value replaces it, `off` removes it"


class HeadersConfig(BaseModel):
    """`PORTALSHIELD_HEADERS__...`; `on` is the profile's own value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    hsts: Annotated[str, Setting(f"Strict-Transport-Security, https only; {_REPLACES}")] = "on"
    csp: Annotated[str, Setting(f"Content-Security-Policy of HTML pages; {_REPLACES}")] = "on"
    frame_options: Annotated[str, Setting(f"X-Frame-Options; {_REPLACES}")] = "on"
    referrer_policy: Annotated[str, Setting(f"Referrer-Policy; {_REPLACES}")] = "on"
    permissions_policy: Annotated[str, Setting(f"Permissions-Policy of HTML pages; {_REPLACES}")] = "on"
    opener_policy: Annotated[str, Setting(f"Cross-Origin-Opener-Policy of HTML pages; {_REPLACES}")] = "on"
    resource_policy: Annotated[str, Setting(f"Cross-Origin-Resource-Policy; {_REPLACES}")] = "on"
    cache_control: Annotated[str, Setting(f"Cache-Control of answers to a principal; {_REPLACES}")] = "on"


_CSP_API = "default-src 'none'; frame-ancestors 'none'"
_CSP_PAGE = "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"


_CREDENTIALS = (b"Authorization", b"Cookie")


class HeadersStage:
    """Two profiles, each with and without https, and what a principal adds: all of it ready."""

    layer = "headers"

    def __init__(self, config: HeadersConfig, *, shares_across_origins: bool) -> None:
        own_resource = "cross-origin" if shares_across_origins else "same-origin"
        api = (
            ("x-content-type-options", "on", "nosniff"),
            ("content-security-policy", "off" if config.csp == "off" else "on", _CSP_API),
            ("x-frame-options", config.frame_options, "DENY"),
            ("referrer-policy", config.referrer_policy, "no-referrer"),
            ("cross-origin-resource-policy", config.resource_policy, own_resource),
        )
        page = (
            ("x-content-type-options", "on", "nosniff"),
            ("content-security-policy", config.csp, _CSP_PAGE),
            ("x-frame-options", config.frame_options, "SAMEORIGIN"),
            ("referrer-policy", config.referrer_policy, "strict-origin-when-cross-origin"),
            ("cross-origin-opener-policy", config.opener_policy, "same-origin-allow-popups"),
            ("cross-origin-resource-policy", config.resource_policy, "same-site"),
            ("permissions-policy", config.permissions_policy, "camera=(), microphone=(), geolocation=(), payment=()"),
        )
        hsts = (("strict-transport-security", config.hsts, "max-age=31536000"),)
        self._profiles = {
            (False, False): _profile(api),
            (False, True): _profile(api + hsts),
            (True, False): _profile(page),
            (True, True): _profile(page + hsts),
        }
        self._private = _ready((("cache-control", config.cache_control, "private, no-store"),))

    def head(self, x: Exchange, head: Head) -> None:
        """Add the profile that fits the response's content type."""
        content_type = head.get(b"content-type")
        fields, names = self._profiles[content_type is not None and content_type[:9].lower() == b"text/html", x.https]
        head.add(fields, names)
        if x.principal is not None and self._private and b"cache-control" not in head.names:
            head.fields += self._private
            head.varies += _CREDENTIALS


def _profile(rows: tuple[tuple[str, str, str], ...]) -> tuple[Fields, frozenset[bytes]]:
    fields = _ready(rows)
    return fields, frozenset(name for name, _ in fields)


def _ready(rows: tuple[tuple[str, str, str], ...]) -> Fields:
    chosen = ((name, own if value == "on" else value) for name, value, own in rows if value != "off")
    return tuple((name.encode(), value.encode("latin-1")) for name, value in chosen)
