"""What `portalshield check` tells: findings with stable ids, worst first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any, Literal

from portalshield.layers.headers import YEAR_S
from portalshield.model.policy import METADATA
from portalshield.policies import processes_once
from portalshield.protection import Protection
from portalshield.report import Entry, authenticates, enforced, entries, pattern_of
from portalshield.routes import Row
from portalshield.rules.addresses import parse_networks
from portalshield.rules.entrances import entrance, login_like
from portalshield.rules.fetch_metadata import SAFE_METHODS
from portalshield.rules.modes import NAMED_ONLY, enforced_share
from portalshield.rules.origins import is_loopback
from portalshield.rules.patterns import REST
from portalshield.settings import LAYERS, Settings, server_trusts_everybody
from portalshield.stores import is_shared
from portalshield.telemetry.selftest import selftest

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
_NUMBERS = {
    "APP": (101,),
    "AUTH": (101, 102, 103, 104, 105, 106),
    "CORS": (201, 202, 203, 204, 205),
    "CSRF": (101, 102),
    "HEAD": (101, 102, 103),
    "HOOK": (101, 102),
    "HOST": (101,),
    "LOG": (101, 102, 103, 104, 105),
    "METRICS": (101,),
    "MODE": (101, 102),
    "PATH": (101,),
    "PROXY": (101, 102, 103, 104, 105, 106),
    "RATE": (101, 102),
    "ROUTE": (101, 102, 103),
    "SENTRY": (101, 102),
    "STORE": (101, 102),
    "WIRE": (101,),
}
IDS = frozenset(f"PS-{group}-{number}" for group, numbers in _NUMBERS.items() for number in numbers)
"""Every finding there is."""
_MAX_WRAPPERS = 16
_FIRST = 5
"""So many undecided routes are named; `--json` has all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a deployment should know: a stable id, how bad it is, where, what, and what to do.

    `routes` are all that are meant, where one finding stands for several."""

    id: str
    severity: Severity
    where: str
    message: str
    hint: str = ""
    routes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def unshielded(where: str) -> Finding:
    """What there is to say first of an application that nothing protects."""
    hint = "Add: from portalshield import Shield; Shield(app)"
    return Finding("PS-WIRE-101", "critical", where, "This application has no shield: every route is open.", hint)


def findings(protection: Protection, rows: list[Row], app: Any) -> list[Finding]:
    """Everything worth saying, worst first."""
    settings = protection.settings
    edge = [] if settings.development else [*_of_origins(settings), *_of_fields(settings), *_of_proxies(settings, app)]
    found = [*_of_auth(protection), *_of_modes(settings), *_of_storage(settings), *edge]
    found += [*_of_routes(protection, rows), *_of_decorators(rows), *_of_patterns(protection, rows)]
    found += [*_of_records(settings, rows), *_of_application(settings, app)]
    found += _of_telemetry(protection)
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def _of_auth(protection: Protection) -> Iterator[Finding]:
    auth = protection.settings.auth
    if not auth.verifies and protection.authenticate is None:
        severity: Severity = "medium" if auth.preset == "none" else "high"
        hint = "Name the provider of your tokens in PORTALSHIELD_AUTH (jwt for any), or pass authenticate= to Shield."
        yield Finding("PS-AUTH-101", severity, "PORTALSHIELD_AUTH", "Nobody is authenticated by the shield.", hint)
    if auth.verifies and protection.authenticate is not None:
        message = "PORTALSHIELD_AUTH and authenticate= are both there: tokens are not verified."
        yield Finding("PS-AUTH-105", "high", "PORTALSHIELD_AUTH", message, "Leave one out.")
    for prefix, _, issuer in auth.verified():
        if issuer.insecure_no_audience:
            yield Finding("PS-AUTH-102", "high", f"{prefix}__INSECURE_NO_AUDIENCE", "Tokens for others are accepted.")
        if issuer.insecure_no_expiry:
            yield Finding("PS-AUTH-103", "high", f"{prefix}__INSECURE_NO_EXPIRY", "Tokens never end.")


def _of_modes(settings: Settings) -> Iterator[Finding]:
    """What does not refuse outside development."""
    modes = {"": settings.mode.default, **{name: settings.mode.of(name) or "" for name in LAYERS}}
    for name, mode in modes.items():
        said = _refused(mode) if mode and not settings.development else ""
        if said:
            still = f" {', '.join(sorted(NAMED_ONLY))} still refuse: they have to be named." if not name else ""
            where = "PORTALSHIELD_MODE" + (f"__{name.upper()}" if name else "")
            hint = "Remove the variable" + (
                " once would_refuse in the log lines shows no request that should pass." if "report" in mode else "."
            )
            yield Finding("PS-MODE-101", "high", where, said, hint + still)


def _refused(mode: str) -> str:
    """What a mode leaves of the refusals, as a sentence; empty if all."""
    share = enforced_share(mode)
    if share == 1:
        return ""
    return f"Only {share:.0%} is refused." if share else "Nothing is refused."


def _of_storage(settings: Settings) -> Iterator[Finding]:
    if settings.development:
        return
    if settings.storage.uri.startswith("memory"):
        hint = "With several workers each counts for itself: set REDIS_URL."
        severity: Severity = "medium" if (settings.workers or 1) > 1 else "low"
        yield Finding("PS-STORE-101", severity, "PORTALSHIELD_STORAGE", "Limits are counted in memory.", hint)
    if settings.log.pseudonym_key is None:
        hint = "Set it, and the same tenant keeps its pseudonym across restarts."
        yield Finding("PS-LOG-101", "low", "PORTALSHIELD_LOG__PSEUDONYM_KEY", "Pseudonyms change at every start.", hint)


def _of_origins(settings: Settings) -> Iterator[Finding]:
    """Hosts, CORS and CSRF outside development."""
    if not settings.hosts.allowed or "*" in settings.hosts.allowed:
        hint = "List the names of this site: a foreign one ends up in password-reset links and shared caches."
        yield Finding("PS-HOST-101", "medium", "PORTALSHIELD_HOSTS", "Any Host is served.", hint)
    cors, where = settings.cors, "PORTALSHIELD_CORS__ALLOW_ORIGINS"
    credentials = settings.origins_send_cookies
    if any(map(is_loopback, cors.allow_origins)):
        hint = "Whatever runs on a user's machine may read answers: keep it for development."
        yield Finding("PS-CORS-201", "medium", where, "A localhost origin is allowed.", hint)
    if any(_is_plain(origin) for origin in cors.allow_origins):
        severity: Severity = "high" if credentials else "medium"
        hint = "Whoever is on the way can put scripts into its pages: write https://."
        yield Finding("PS-CORS-203", severity, where, "An origin without TLS is allowed.", hint)
    if cors.allow_credentials and not cors.allow_origins:
        hint = "Name the origins, or remove it."
        yield Finding("PS-CORS-204", "low", "PORTALSHIELD_CORS__ALLOW_CREDENTIALS", "No origin is allowed.", hint)
    if credentials and any("*" in origin for origin in cors.allow_origins):
        hint = "Whoever gets a host that fits reads with a user's cookies: name each origin."
        yield Finding("PS-CORS-205", "medium", where, "A pattern is allowed together with cookies.", hint)
    if any(_is_plain(origin) or is_loopback(origin) for origin in settings.csrf.trusted_origins):
        hint = "Name origins with https:// that nobody else can write to."
        yield Finding(
            "PS-CSRF-101", "high", "PORTALSHIELD_CSRF__TRUSTED_ORIGINS", "A localhost or plain origin may write.", hint
        )


def _is_plain(origin: str) -> bool:
    return origin.lower().startswith("http://") and not is_loopback(origin)


def _of_fields(settings: Settings) -> Iterator[Finding]:
    """Security headers outside development."""
    headers, prefix = settings.headers, "PORTALSHIELD_HEADERS__"
    if headers.hsts_max_age_s < YEAR_S:
        hint = "Remove the variable: a year is the default. Browsers then refuse plain http to this name."
        yield Finding("PS-HEAD-101", "medium", prefix + "HSTS", "Browsers may come back without TLS.", hint)
    for name in type(headers).model_fields:
        if name != "hsts" and getattr(headers, name) == "off":
            yield Finding(
                "PS-HEAD-102", "low", prefix + name.upper(), "This field is not sent.", "Remove the variable."
            )
    hint = "Have the proxy answer plain http with 308 to https: a redirect here would break its health checks."
    yield Finding("PS-HEAD-103", "info", "http", "The shield does not redirect to https.", hint)


def _of_proxies(settings: Settings, app: Any) -> Iterator[Finding]:
    """Who may say where a request comes from, outside development."""
    trusted, where = parse_networks(settings.trusted_proxies), "PORTALSHIELD_TRUSTED_PROXIES"
    if not trusted:
        hint = "Behind one, name its network or the number of proxies: limits per address only report until then."
        yield Finding("PS-PROXY-101", "low", where, "No proxy is configured.", hint)
    if trusted.covers_strangers:
        hint = "Name the proxies only: everybody in these networks chooses the address that is limited and logged."
        yield Finding("PS-PROXY-102", "high", where, "Clients are taken for proxies.", hint)
    if server_trusts_everybody() and not trusted.hops:
        hint = f"Name the proxies there, or leave it out and set {where}: the leftmost entry is the client's own text."
        yield Finding("PS-PROXY-103", "high", "FORWARDED_ALLOW_IPS", "Clients choose their address.", hint)
    outside, inside = _proxy_middleware(app)
    if trusted and outside:
        hint = f"Remove it, or leave {where} out: exactly one of the two may do it."
        yield Finding("PS-PROXY-104", "medium", outside, "Forwarded headers are applied before the shield.", hint)
    if not trusted and inside:
        hint = f"Set {where} instead: limits and log lines see the proxy's address."
        yield Finding("PS-PROXY-105", "low", inside, "The application believes forwarded headers, we do not.", hint)
    if trusted.hops:
        hint = "Let the server be reached through its proxies only, or name their networks."
        yield Finding("PS-PROXY-106", "info", where, "A direct client could choose its address.", hint)


def _proxy_middleware(app: Any) -> tuple[str, str]:
    """The names of what applies forwarded headers around the shield and inside it; empty where there is none."""
    outside = inside = ""
    passed = False
    layer = getattr(app, "wsgi_app", None)
    for _ in range(_MAX_WRAPPERS):
        name = type(layer).__name__
        passed = passed or name == "WsgiDoor"
        if name == "ProxyFix":
            outside, inside = (outside, name) if passed else (name, inside)
        layer = getattr(layer, "app", None) or getattr(layer, "wsgi_app", None)
    return outside, inside or "".join(_names(app) & {"ProxyHeadersMiddleware"})


def _names(app: Any) -> set[str]:
    """What is installed in an application: middleware by the names of their classes, Flask extensions by module."""
    names = {getattr(item.cls, "__name__", "") for item in getattr(app, "user_middleware", ())}
    for hooks in getattr(app, "after_request_funcs", {}).values():
        names |= {str(getattr(hook, "__module__", "")).partition(".")[0] for hook in hooks}
    return names


def _of_routes(protection: Protection, rows: list[Row]) -> Iterator[Finding]:
    page = protection.settings.metrics.path
    listed = list(entries(rows))
    yield from _of_undecided([entry for entry in listed if not entry.plan.policy.declared])
    for entry in listed:
        yield from _of_grants(protection, entry)
        yield from _of_openings(entry)
        yield from _of_login(protection, entry)
        if entry.route.template == page:
            hint = "Choose another path: the shield answers this one, and the route is never reached."
            message = f"{entry.where} is a route of the application."
            yield Finding("PS-METRICS-101", "high", "PORTALSHIELD_METRICS__PATH", message, hint)


def _of_undecided(undecided: list[Entry]) -> Iterator[Finding]:
    """All of them together: there may be many more than of anything else. And those that cannot wait."""
    if not undecided:
        return
    names = tuple(dict.fromkeys(entry.where for entry in undecided))
    strict = all(authenticates(entry.plan) for entry in undecided)
    count = "Nobody decided about " + ("one route" if len(names) == 1 else f"{len(names)} routes")
    first, more = ", ".join(names[:_FIRST]), len(names) - _FIRST
    hint = f"`portalshield routes` shows them: {first}" + (f" and {more} more. " if more > 0 else ". ")
    hint += "Write @protect(...) or @public at the handlers, or policies."
    message = f"{count}: the strict default holds." if strict else f"{count}."
    yield Finding("PS-ROUTE-101", "info", "routes", message, hint, names)
    yield from dict.fromkeys(finding for entry in undecided for finding in _of_entrance(entry))


def _of_entrance(entry: Entry) -> Iterator[Finding]:
    """What is there for those who have no token, and asks for one."""
    kind = entrance(entry.plans, entry.route.template) if entry.route.kind == "http" else ""
    if not kind or not enforced(entry.plan):
        return
    match = pattern_of(entry.route, entry.label)
    if kind == "health":
        message, hint = "Whoever asks whether you are up gets 401.", f'PORTALSHIELD_HEALTH="{match}"'
    elif kind == "login":
        message, hint = (
            "It asks for a token, which nobody has before the login.",
            f'Policy("{match}", public=True, login="email")',
        )
    else:
        message, hint = "Nobody sees this page before the login.", f'Policy("{match}", public=True)'
    yield Finding("PS-AUTH-106", "medium", entry.where, message, f"Add {hint}, or say @protect() where it is meant so.")


def _of_grants(protection: Protection, entry: Entry) -> Iterator[Finding]:
    """What is asked of users, where there are none."""
    policy = entry.plan.policy
    asked = [name for name in ("scopes", "roles", "max_age") if getattr(policy, name)]
    if policy.public or not asked or authenticates(entry.plan):
        return
    hint = "Set PORTALSHIELD_AUTH or pass authenticate=, or remove them."
    if protection.settings.auth.verifies or protection.authenticate is not None:
        hint = "Remove mode off of the auth layer, or remove them."
    message = f"It asks for {' and '.join(asked)}, but nobody is authenticated: everybody gets in."
    yield Finding("PS-AUTH-104", "high", entry.where, message, hint)


def _of_openings(entry: Entry) -> Iterator[Finding]:
    """What a route itself leaves open."""
    policy, where = entry.plan.policy, entry.where
    said = _refused(policy.mode) if policy.mode is not None else ""
    if said:
        hint = "Remove mode= from this route once its lines show no request that should pass."
        yield Finding("PS-MODE-102", "high", where, said, hint)
    if not policy.csrf and not SAFE_METHODS.issuperset(entry.plans):
        hint = "Remove csrf=False, unless the handler asks for a token of its own, or takes no cookie."
        yield Finding("PS-CSRF-102", "medium", where, "Foreign pages may write here with a user's cookie.", hint)
    if policy.allow_path:
        kinds = ", ".join(sorted(kind.removeprefix("path-") for kind in policy.allow_path))
        hint = "Make sure that proxies and the handler read such a path as the framework does, or remove allow_path."
        yield Finding("PS-PATH-101", "low", where, f"Its path may have {kinds}.", hint)


def _of_login(protection: Protection, entry: Entry) -> Iterator[Finding]:
    methods = [method for method in entry.plans if method in ("POST", "PUT", "PATCH")]
    if not methods or entry.route.kind == "websocket":
        return
    settings, policy = protection.settings, entry.plan.policy
    where = f"{'|'.join(methods)} {entry.route.template}"
    if policy.login is not None and settings.rate.login.strip().lower() in ("", "off"):
        hint = "Remove PORTALSHIELD_RATE__LOGIN=off."
        yield Finding("PS-RATE-102", "high", where, "Failed logins are not limited.", hint)
        return
    anonymous = policy.public or not authenticates(entry.plan)
    limited = bool(policy.limits) or policy.login is not None
    if anonymous and not limited and login_like(entry.route.template):
        match = pattern_of(entry.route, "|".join(methods))
        hint = f'Policy("{match}", public=True, limits=["20/minute"], by="ip", login="email")'
        yield Finding("PS-RATE-101", "high", where, "A login-like route without a limit.", hint)


def _of_patterns(protection: Protection, rows: list[Row]) -> Iterator[Finding]:
    """Policies for whatever lies below a path, where nothing does. (Any other that covers no route stops the start.)"""
    for row in protection.rows if rows else ():
        pattern = row.pattern
        if pattern.segments[-1] != REST or any(pattern.covers(r.route.methods, r.route.segments) for r in rows):
            continue
        hint = "Compare it with what `portalshield routes` prints, or remove it."
        message = f'"{row.policy.match}" covers no route.'
        yield Finding("PS-ROUTE-103", "medium", row.variable, message, hint)


def _of_records(settings: Settings, rows: list[Row]) -> Iterator[Finding]:
    """What must be processed once, and could not be told from a copy."""
    routes: dict[str, list[str]] = {}
    keeps_records = False
    for entry in entries(rows):
        policy = entry.plan.policy
        keeps_records = keeps_records or processes_once(policy)
        if policy.webhook is not None:
            routes.setdefault(policy.webhook.lower(), []).append(entry.where)
    if keeps_records and not settings.development and not is_shared(settings.storage.uri):
        hint = "Set REDIS_URL: each worker keeps its own, and a restart forgets them."
        severity: Severity = "high" if (settings.workers or 1) > 1 else "medium"
        message = "Records of webhooks and idempotency keys are kept in memory."
        yield Finding("PS-STORE-102", severity, "PORTALSHIELD_STORAGE", message, hint)
    for name, served in routes.items():
        if len(served) > 1:
            hint = "Give each route a sender of its own: what is sent to two of these is processed by the first alone."
            yield Finding("PS-HOOK-101", "medium", ", ".join(served), f"They share the sender {name}.", hint)
    for name in settings.webhook:
        if rows and name not in routes:
            hint = f'Say webhook="{name}" on its route, or remove it.'
            where = f"PORTALSHIELD_WEBHOOK__{name.upper()}"
            yield Finding("PS-HOOK-102", "low", where, "No route takes this sender's deliveries.", hint)


def _of_decorators(rows: list[Row]) -> Iterator[Finding]:
    """A decorated function in a module with handlers that no route serves: probably a forgotten route."""
    modules = {row.route.source.rpartition(".")[0]: row for row in rows}
    served = {row.route.source for row in rows}
    for name in modules:
        module = sys.modules.get(name)
        for attribute, value in list(vars(module).items()) if module is not None else ():
            if not issubclass(type(value), FunctionType | type):
                continue  # `flask.request` and its like stand for something else, and raise outside of a request
            here = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            if (
                isinstance(getattr(value, METADATA, None), dict)
                and here == f"{name}.{attribute}"
                and here not in served
            ):
                yield Finding("PS-ROUTE-102", "high", here, "It is decorated, but no route serves it.")


def _of_application(settings: Settings, app: Any) -> Iterator[Finding]:
    own_cors = " and ".join(sorted(_names(app) & {"CORSMiddleware", "flask_cors"}))
    if own_cors and not settings.cors.allow_origins:
        hint = "Set PORTALSHIELD_CORS__ALLOW_ORIGINS and remove it, or PORTALSHIELD_MODE__CORS=off."
        yield Finding("PS-CORS-202", "medium", own_cors, "Its fields are removed; no origin is allowed here.", hint)
    elif own_cors:
        hint = "Remove it: the shield's policy replaces its fields."
        yield Finding("PS-CORS-202", "low", own_cors, "The application has a CORS policy of its own.", hint)
    if getattr(app, "debug", False):
        yield Finding("PS-APP-101", "medium", "debug", "The application runs in debug mode.")


def _of_telemetry(protection: Protection) -> Iterator[Finding]:
    """A planted secret through every channel."""
    for flaw in selftest(protection.settings.log, protection.settings.sentry):
        yield Finding(flaw.id, flaw.severity, flaw.where, flaw.message, flaw.hint)
