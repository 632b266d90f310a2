"""Security headers, by the content type of the response (OWASP Secure Headers, REST cheat sheet).

Adds what is missing, once; a field the handler set stays. Answers that belong to a principal are kept out of shared
caches. `Server` and `X-Powered-By` of the application go. Does not cover: Subresource Integrity, COEP (it breaks
pages), redirects to https (the proxy's), a `Server` that the server adds. All values are bytes built at start, one
tuple per profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields
from portalshield.rules.nearest import did_you_mean

_REPLACES = "a value replaces it, `off` removes it"
_PREFIX = "PORTALSHIELD_HEADERS__"


class HeadersConfig(BaseModel):
    """`PORTALSHIELD_HEADERS__...`; `on` is the profile's own value."""

    model_config = FROZEN

    hsts: Annotated[str, Setting(f"Strict-Transport-Security, https only; {_REPLACES}")] = "on"
    csp: Annotated[str, Setting(f"Content-Security-Policy of HTML pages; {_REPLACES}")] = "on"
    frame_options: Annotated[str, Setting(f"X-Frame-Options; {_REPLACES}")] = "on"
    referrer_policy: Annotated[str, Setting(f"Referrer-Policy; {_REPLACES}")] = "on"
    permissions_policy: Annotated[str, Setting(f"Permissions-Policy of HTML pages; {_REPLACES}")] = "on"
    opener_policy: Annotated[str, Setting(f"Cross-Origin-Opener-Policy of HTML pages; {_REPLACES}")] = "on"
    resource_policy: Annotated[str, Setting(f"Cross-Origin-Resource-Policy; {_REPLACES}")] = "on"
    cache_control: Annotated[str, Setting(f"Cache-Control of answers to a principal; {_REPLACES}")] = "on"

    @property
    def hsts_max_age_s(self) -> int:
        """How long browsers shall insist on https, seconds; 0: not at all."""
        return YEAR_S if self.hsts == "on" else _hsts(self.hsts)[0] or 0

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Values that no field can have, and values that browsers ignore silently."""
        for name in type(self).model_fields:
            value: str = getattr(self, name)
            variable = _PREFIX + name.upper()
            if not value or not value.isascii() or not value.isprintable():
                yield ConfigurationProblem(
                    "PS-HEAD-001",
                    variable,
                    "is no text of printable ASCII characters.",
                    "Write on, off, or the value in one line.",
                )
            elif value not in ("on", "off"):
                yield from _misread(name, variable, value)


YEAR_S = 31_536_000
_VOCABULARIES: dict[str, tuple[str, ...]] = {
    "frame_options": ("DENY", "SAMEORIGIN"),
    "referrer_policy": (
        *("no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin"),
        *("origin-when-cross-origin", "strict-origin-when-cross-origin", "unsafe-url"),
    ),
    "opener_policy": ("same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"),
    "resource_policy": ("same-origin", "same-site", "cross-origin"),
}
_CSP_API = "default-src 'none'; frame-ancestors 'none'"
_CSP_PAGE = "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
_CREDENTIALS = (b"Authorization", b"Cookie")
_BANNERS = frozenset((b"server", b"x-powered-by"))
_PAGES = frozenset((b"text/html", b"application/xhtml+xml"))
_SCRIPTS = frozenset((b"text/javascript", b"application/javascript"))


def _misread(name: str, variable: str, value: str) -> Iterator[ConfigurationProblem]:
    if name == "hsts" and _hsts(value)[1]:
        yield ConfigurationProblem(
            "PS-HEAD-002", variable, _hsts(value)[1], "Write max-age=31536000 or max-age=31536000; includeSubDomains."
        )
    known = _VOCABULARIES.get(name)
    if known is None:
        return
    # Referrer-Policy is the only list among them: browsers take the last one they know.
    words = [word.strip() for word in value.split(",")] if name == "referrer_policy" else [value]
    wrong = next((word for word in words if word not in known), None)
    if wrong is not None:
        meant = did_you_mean(wrong, known) or f"Write one of {', '.join(known)}."
        yield ConfigurationProblem("PS-HEAD-003", variable, "has a value that browsers do not know.", meant)


def _hsts(value: str) -> tuple[int | None, str]:
    """The `max-age` of a Strict-Transport-Security value (RFC 6797, 6.1), and what is wrong with it, if anything."""
    directives = [part.strip().lower() for part in value.split(";")]
    ages = [part.partition("=")[2].strip().strip('"') for part in directives if part.startswith("max-age=")]
    if len(ages) != 1 or not ages[0].isdigit() or len(ages[0]) > 10:
        return None, "has no max-age in seconds."
    age = int(ages[0])
    if not set(directives) <= {f"max-age={ages[0]}", f'max-age="{ages[0]}"', "includesubdomains", "preload", ""}:
        return age, "has a directive that browsers do not know."
    if "preload" in directives and (age < YEAR_S or "includesubdomains" not in directives):
        return age, "has preload, which needs includeSubDomains and a max-age of a year."
    return age, ""


class HeadersStage:
    """Three profiles, each with and without https, and what a principal adds: all of it ready."""

    layer = "headers"

    def __init__(self, config: HeadersConfig, *, shares_across_origins: bool) -> None:
        own_resource = "cross-origin" if shares_across_origins else "same-origin"
        policy = ("content-security-policy", "off" if config.csp == "off" else "on", _CSP_API)
        script = (
            ("x-content-type-options", "on", "nosniff"),
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
        rows = {"api": (*script[:1], policy, *script[1:]), "page": page, "script": script}
        self._profiles = {
            (name, https): _profile(fields + hsts if https else fields)
            for name, fields in rows.items()
            for https in (False, True)
        }
        self._private = _ready((("cache-control", config.cache_control, "private, no-store"),))

    def head(self, x: Exchange, head: Head) -> None:
        """Add the profile that fits the response's content type; what advertises the application's software goes."""
        head.drop(_BANNERS)
        fields, names = self._profiles[_kind(head.get(b"content-type")), x.https]
        head.add(fields, names)
        if x.principal is not None and self._private and b"cache-control" not in head.names:
            head.fields += self._private
            head.varies += _CREDENTIALS


def _kind(content_type: bytes | None) -> str:
    """The profile of a media type. A script has no policy of its own: a worker would run under it, and a policy that
    allows nothing would stop it."""
    essence = content_type.partition(b";")[0].strip().lower() if content_type is not None else b""
    if essence in _PAGES:
        return "page"
    return "script" if essence in _SCRIPTS else "api"


def _profile(rows: tuple[tuple[str, str, str], ...]) -> tuple[Fields, frozenset[bytes]]:
    fields = _ready(rows)
    return fields, frozenset(name for name, _ in fields)


def _ready(rows: tuple[tuple[str, str, str], ...]) -> Fields:
    chosen = ((name, own if value == "on" else value) for name, value, own in rows if value != "off")
    return tuple((name.encode(), value.encode("ascii")) for name, value in chosen)
