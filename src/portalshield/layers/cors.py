"""CORS: which foreign origins may read responses (Fetch standard, section 3.3).

Answers preflights itself, without credentials and without the application. A foreign origin by itself is no refusal
(browsers send `Origin` on same-origin POSTs too): it gets no CORS fields, so its scripts cannot read the answer. A
WebSocket handshake has no CORS at all, so there a foreign origin is refused (403). Does not cover: requests that no
browser sends, and side effects of simple requests (csrf). Costs one set lookup per request with an `Origin`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Reply, Verdict, problem
from portalshield.rules.fetch_metadata import is_same_host
from portalshield.rules.http_tokens import is_token
from portalshield.rules.nearest import did_you_mean
from portalshield.rules.origins import OriginPolicy, origin_faults
from portalshield.rules.paths import METHODS

_ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_TRACING = ("traceparent", "tracestate", "baggage", "sentry-trace")
_OWN = frozenset(
    (
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-methods",
        b"access-control-allow-headers",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"access-control-allow-private-network",
    )
)
# Fetch, 2.2.1: browsers never send the first two. The rest of METHODS is what the request line may have here.
_ASKABLE = METHODS - {"CONNECT", "TRACE"}
_ANSWERED_NAMES = 64
_ORIGIN = (b"Origin",)
_FOREIGN = problem("origin-not-allowed", why="websocket-origin")


class CorsConfig(BaseModel):
    """`PORTALSHIELD_CORS__...`."""

    model_config = FROZEN

    allow_origins: Annotated[
        tuple[str, ...],
        Setting("exact origins, `https://*.example.com` (one label) or one `*` inside the first label"),
    ] = ()
    allow_methods: Annotated[tuple[str, ...], Setting("methods a preflight may ask for")] = _ALL_METHODS
    allow_headers: Annotated[tuple[str, ...], Setting("request header fields a preflight may ask for")] = (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        *_TRACING,
    )
    expose_headers: Annotated[tuple[str, ...], Setting("response header fields that scripts may read")] = ()
    allow_credentials: Annotated[bool, Setting("browsers may send and keep cookies")] = False
    max_age: Annotated[int, Setting("how long a browser may keep a preflight; at most 2h are sent", unit="seconds")] = (
        7200
    )

    def problems(self, *, credentials: bool, development: bool) -> Iterable[ConfigurationProblem]:
        """What is dangerous or broken in the policy, each with its own id."""
        prefix = "PORTALSHIELD_CORS__"
        for error in origin_faults(self.allow_origins, credentials=credentials, development=development):
            yield ConfigurationProblem(f"PS-CORS-{error.code}", prefix + "ALLOW_ORIGINS", str(error), error.hint)
        for number, name in enumerate(self.allow_methods, 1):
            if name not in _ASKABLE:
                meant = did_you_mean(name.upper(), _ASKABLE) or "Write PATCH, or leave it out for all methods."
                yield ConfigurationProblem(
                    "PS-CORS-101",
                    prefix + "ALLOW_METHODS",
                    f"entry {number} is no method in capitals that a preflight could ask for.",
                    f"Methods are case-sensitive. {meant}",
                )
        for variable, names in (("ALLOW_HEADERS", self.allow_headers), ("EXPOSE_HEADERS", self.expose_headers)):
            for number, name in enumerate(names, 1):
                if not is_token(name) or name == "*":
                    yield ConfigurationProblem(
                        "PS-CORS-102",
                        prefix + variable,
                        f"entry {number} is no header field name.",
                        "Name each field; * never covers Authorization and is a literal with credentials.",
                    )
        if any(name.lower() in ("set-cookie", "set-cookie2") for name in self.expose_headers):
            yield ConfigurationProblem(
                "PS-CORS-104",
                prefix + "EXPOSE_HEADERS",
                "names Set-Cookie.",
                "No browser lets scripts read it (Fetch, 2.2.2): send what they need in a field of its own.",
            )
        if not 0 <= self.max_age <= 86400:
            yield ConfigurationProblem(
                "PS-CORS-103", prefix + "MAX_AGE", "lies outside 0 to 86400 seconds.", "Write 7200 or less."
            )


class CorsStage:
    """One compiled policy for the whole application."""

    layer = "cors"

    def __init__(self, config: CorsConfig, origins: OriginPolicy) -> None:
        self._allows = origins.allows
        self._varies = bool(config.allow_origins)
        self._methods = frozenset(name.encode() for name in config.allow_methods)
        self._headers = frozenset(name.lower().encode() for name in config.allow_headers) | {b"accept", b"range"}
        credentials: Fields = ((b"access-control-allow-credentials", b"true"),) if config.allow_credentials else ()
        self._preflight: Fields = (
            (b"access-control-allow-methods", ", ".join(config.allow_methods).encode()),
            (b"access-control-allow-headers", ", ".join(config.allow_headers).encode()),
            (b"access-control-max-age", str(min(config.max_age, 7200)).encode()),
        )
        exposed = ", ".join((*config.expose_headers, "X-Request-ID", "RateLimit", "RateLimit-Policy", "Retry-After"))
        self._credentials = credentials
        self._exposed: Fields = (*credentials, (b"access-control-expose-headers", exposed.encode()))

    def check(self, x: Exchange) -> Verdict:
        """Find out whether the origin is shared with, answer preflights, refuse foreign WebSocket handshakes."""
        origin = x.headers.get(b"origin")
        if origin is None:
            return None
        if self._allows(origin):
            x.origin = origin
        elif x.websocket:
            return None if is_same_host(origin, x.headers.get(b"host")) else _FOREIGN
        if x.method == "OPTIONS" and x.headers.get(b"access-control-request-method") is not None:
            return Reply(204, self._answer(x))
        return None

    def head(self, x: Exchange, head: Head) -> None:
        """Our fields instead of the application's, and `Vary: Origin` wherever the answer could differ."""
        preflight = x.method == "OPTIONS" and isinstance(x.verdict, Reply)
        if not preflight:
            head.drop(_OWN)
        if self._varies:
            head.varies += _ORIGIN
        origin = x.origin
        if origin is None:
            # A refusal from before our check is readable by an allowed front end too.
            origin = x.headers.get(b"origin") if x.problem is not None else None
            if origin is None or not self._allows(origin):
                return
        head.fields += self._credentials if preflight else self._exposed
        head.fields.append((b"access-control-allow-origin", origin))

    def _answer(self, x: Exchange) -> Fields:
        asked = x.headers.get(b"access-control-request-method")
        if x.origin is None or asked not in self._methods:
            return ()
        # A list may come in several fields and have empty elements (RFC 9110, 5.6.1); browsers send one without.
        names = b",".join(x.headers.get_all(b"access-control-request-headers"))
        wanted = {part.strip(b" \t").lower() for part in names.split(b",")} - {b""}
        return self._preflight if len(wanted) <= _ANSWERED_NAMES and wanted <= self._headers else ()
