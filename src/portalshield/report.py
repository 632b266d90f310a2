"""What `portalshield routes` and `portalshield check` tell: each route's protections, and findings with stable ids."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any, Literal

from portalshield.flow import Plan
from portalshield.layers.headers import YEAR_S
from portalshield.model.policy import METADATA, EffectivePolicy
from portalshield.plan import processes_once
from portalshield.protection import Protection
from portalshield.routes import Row
from portalshield.rules.addresses import parse_networks
from portalshield.rules.fetch_metadata import SAFE_METHODS
from portalshield.rules.origins import is_loopback
from portalshield.settings import LAYERS, Settings, server_trusts_everybody
from portalshield.stores.records import is_shared
from portalshield.telemetry.selftest import selftest

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
_MAX_WRAPPERS = 16
_LOGIN_LIKE = frozenset(
    ("login", "log-in", "signin", "sign-in", "token", "tokens", "signup", "sign-up", "register", "password-reset")
)
_LOGIN_STARTS = ("reset", "forgot")


@dataclass(frozen=True, slots=True)
class RouteReport:
    """One route and method. `decided`: somebody said something about it; otherwise it has the strict default."""

    method: str
    path: str
    kind: str
    source: str
    access: str
    decided: bool
    limits: tuple[str, ...]
    layers: tuple[str, ...]
    body: str | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a deployment should know: a stable id, how bad it is, where, what, and what to do."""

    id: str
    severity: Severity
    where: str
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def reports(rows: Iterable[Row]) -> list[RouteReport]:
    """A line per route and method; HEAD and OPTIONS that only accompany another method are left out."""
    found: list[RouteReport] = []
    for row in rows:
        for method, plan in row.plans.items():
            if method in ("HEAD", "OPTIONS") and len(row.plans) > 1:
                continue
            found.append(_report(row, method, plan))
    return found


def _report(row: Row, method: str, plan: Plan) -> RouteReport:
    policy = plan.policy
    return RouteReport(
        method="WS" if row.route.kind == "websocket" else "*" if row.route.kind == "mount" else method,
        path=row.route.template,
        kind=row.route.kind,
        source=row.route.source,
        access=access(policy),
        decided=policy.declared,
        limits=_limits(policy),
        layers=tuple(dict.fromkeys(step.traits.layer for step in plan.steps)),
        body=getattr(policy.body, "__name__", None),
    )


def _limits(policy: EffectivePolicy) -> tuple[str, ...]:
    found = tuple(f"{limit.quota} by {'+'.join(limit.by) or 'default'}" for limit in policy.limits)
    return (*found, f"failed logins by ip and {policy.login}") if policy.login is not None else found


def access(policy: EffectivePolicy) -> str:
    """Who may come in, in a few words."""
    if policy.health:
        return "health"
    if policy.public:
        return "public" if policy.webhook is None else f"webhook {policy.webhook}"
    words = ["principal" if policy.tenant is False else "principal of any tenant" if policy.cross_tenant else "tenant"]
    words += [f"scopes {' '.join(policy.scopes)}"] if policy.scopes else []
    words += [f"roles {' or '.join(policy.roles)}"] if policy.roles else []
    words += [f"login within {policy.max_age:g}s"] if policy.max_age is not None else []
    words += ["nobody impersonated"] if not policy.impersonation else []
    return ", ".join(words)


def findings(protection: Protection, rows: list[Row], app: Any) -> list[Finding]:
    """Everything worth saying, worst first."""
    settings = protection.settings
    edge = [] if settings.development else [*_of_origins(settings), *_of_fields(settings), *_of_proxies(settings, app)]
    found = [*_of_settings(protection), *edge, *_of_routes(protection, rows), *_of_decorators(rows)]
    found += [*_of_records(settings, rows), *_of_application(settings, app)]
    found += _of_telemetry(protection)
    return sorted(found, key=lambda finding: -SEVERITIES.index(finding.severity))


def _of_settings(protection: Protection) -> Iterator[Finding]:
    settings = protection.settings
    auth = settings.auth
    if not auth.verifies and protection.authenticate is None:
        severity: Severity = "medium" if auth.preset == "none" else "high"
        yield Finding("PS-AUTH-101", severity, "PORTALSHIELD_AUTH", "Nobody is authenticated by the shield.")
    for prefix, _, issuer in auth.verified():
        if issuer.insecure_no_audience:
            yield Finding("PS-AUTH-102", "high", f"{prefix}__INSECURE_NO_AUDIENCE", "Tokens for others are accepted.")
        if issuer.insecure_no_expiry:
            yield Finding("PS-AUTH-103", "high", f"{prefix}__INSECURE_NO_EXPIRY", "Tokens never end.")
    modes = {"": settings.mode.default, **{name: settings.mode.of(name) or "" for name in LAYERS}}
    for name, mode in modes.items():
        if mode.startswith(("report", "off")) and not settings.development:
            where = "PORTALSHIELD_MODE" + (f"__{name.upper()}" if name else "")
            yield Finding("PS-MODE-101", "high", where, "This layer does not refuse anything.")
    if settings.development:
        return
    if settings.storage.uri.startswith("memory"):
        hint = "With several workers each counts for itself: set REDIS_URL."
        severity = "medium" if (settings.workers or 1) > 1 else "low"
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
    credentials = cors.allow_credentials or settings.auth.cookie_name is not None
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
    for row in rows:
        for method, plan in row.plans.items():
            policy, path = plan.policy, row.route.template
            if method in ("HEAD", "OPTIONS"):
                continue
            if policy.mode is not None and policy.mode != "enforce":
                yield Finding("PS-MODE-102", "high", f"{method} {path}", "This route does not refuse anything.")
            if not policy.csrf and method not in SAFE_METHODS:
                yield Finding("PS-CSRF-102", "medium", f"{method} {path}", "Foreign pages may write here.")
            if not policy.declared and row.route.kind == "http":
                yield Finding("PS-ROUTE-101", "info", f"{method} {path}", "Nobody decided: it has the strict default.")
            yield from _of_login(protection, policy, method, path)


def _of_login(protection: Protection, policy: EffectivePolicy, method: str, path: str) -> Iterator[Finding]:
    if method not in ("POST", "PUT", "PATCH"):
        return
    settings = protection.settings
    where = f"{method} {path}"
    if policy.login is not None and settings.rate.login.strip().lower() in ("", "off"):
        hint = "Remove PORTALSHIELD_RATE__LOGIN=off."
        yield Finding("PS-RATE-102", "high", where, "Failed logins are not limited.", hint)
        return
    anonymous = policy.public or (not settings.auth.verifies and protection.authenticate is None)
    limited = bool(policy.limits) or policy.login is not None
    if anonymous and not limited and _login_like(path):
        hint = f'Policy("{where}", public=True, limits=["20/minute"], by="ip", login="email")'
        yield Finding("PS-RATE-101", "high", where, "A login-like route without a limit.", hint)


def _login_like(path: str) -> bool:
    """`/login`, `/token`, `/signup`, `/auth/...`, `/reset-password`, `/forgot`, wherever they stand in the path."""
    segments = path.lower().strip("/").split("/")
    if "auth" in segments[:-1]:
        return True
    return any(part in _LOGIN_LIKE or part.startswith(_LOGIN_STARTS) for part in segments)


def _of_records(settings: Settings, rows: list[Row]) -> Iterator[Finding]:
    """What must be processed once, and could not be told from a copy."""
    routes: dict[str, list[str]] = {}
    keeps_records = False
    for row in rows:
        for method, plan in row.plans.items():
            keeps_records = keeps_records or processes_once(plan.policy)
            if plan.policy.webhook is not None and method not in ("HEAD", "OPTIONS"):
                routes.setdefault(plan.policy.webhook.lower(), []).append(f"{method} {row.route.template}")
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
