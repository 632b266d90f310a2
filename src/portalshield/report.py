"""What `portalshield routes` and `portalshield check` tell: each route's protections, and findings with stable ids."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from portalshield.flow import Plan
from portalshield.model.policy import METADATA, EffectivePolicy
from portalshield.protection import Protection
from portalshield.routes import Row
from portalshield.settings import LAYERS

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
_LOGIN_LIKE = ("/login", "/token", "/signin", "/signup", "/register", "/reset", "/forgot", "/auth/")


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
        limits=tuple(f"{limit.quota} by {'+'.join(limit.by) or 'default'}" for limit in policy.limits),
        layers=tuple(dict.fromkeys(step.traits.layer for step in plan.steps)),
        body=getattr(policy.body, "__name__", None),
    )


def access(policy: EffectivePolicy) -> str:
    """Who may come in, in a few words."""
    if policy.health:
        return "health"
    if policy.public:
        return "public"
    words = ["principal" if policy.tenant is False else "principal of any tenant" if policy.cross_tenant else "tenant"]
    words += [f"scopes {' '.join(policy.scopes)}"] if policy.scopes else []
    words += [f"roles {' or '.join(policy.roles)}"] if policy.roles else []
    words += [f"login within {policy.max_age:g}s"] if policy.max_age is not None else []
    words += ["nobody impersonated"] if not policy.impersonation else []
    return ", ".join(words)


def findings(protection: Protection, rows: list[Row], app: Any) -> list[Finding]:
    """Everything worth saying, worst first."""
    found = [*_of_settings(protection), *_of_routes(protection, rows), *_of_decorators(rows), *_of_application(app)]
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
    if not settings.hosts.allowed:
        yield Finding("PS-HOST-101", "low", "PORTALSHIELD_HOSTS", "Any Host is served.", "List the names of this site.")
    if any("localhost" in origin or "127.0.0.1" in origin for origin in settings.cors.allow_origins):
        yield Finding("PS-CORS-201", "medium", "PORTALSHIELD_CORS__ALLOW_ORIGINS", "A localhost origin is allowed.")
    if settings.storage.uri.startswith("memory"):
        hint = "With several workers each counts for itself: set REDIS_URL."
        yield Finding("PS-STORE-101", "low", "PORTALSHIELD_STORAGE", "Limits are counted in memory.", hint)
    if settings.log.pseudonym_key is None:
        hint = "Set it, and the same tenant keeps its pseudonym across restarts."
        yield Finding("PS-LOG-101", "low", "PORTALSHIELD_LOG__PSEUDONYM_KEY", "Pseudonyms change at every start.", hint)


def _of_routes(protection: Protection, rows: list[Row]) -> Iterator[Finding]:
    for row in rows:
        for method, plan in row.plans.items():
            policy, path = plan.policy, row.route.template
            if method in ("HEAD", "OPTIONS"):
                continue
            if policy.mode is not None and policy.mode != "enforce":
                yield Finding("PS-MODE-102", "high", f"{method} {path}", "This route does not refuse anything.")
            if not policy.declared and row.route.kind == "http":
                yield Finding("PS-ROUTE-101", "info", f"{method} {path}", "Nobody decided: it has the strict default.")
            if method == "POST" and policy.public and not policy.limits and _login_like(path):
                hint = f'Policy("POST {path}", public=True, limits=["5/minute"], by="ip")'
                yield Finding("PS-RATE-101", "high", f"POST {path}", "A login-like route without a limit.", hint)


def _login_like(path: str) -> bool:
    return any(word in path.lower() for word in _LOGIN_LIKE)


def _of_decorators(rows: list[Row]) -> Iterator[Finding]:
    """A decorated function in a module with handlers that no route serves: probably a forgotten route."""
    modules = {row.route.source.rpartition(".")[0]: row for row in rows}
    served = {row.route.source for row in rows}
    for name in modules:
        module = sys.modules.get(name)
        for attribute, value in list(vars(module).items()) if module is not None else ():
            here = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            if (
                isinstance(getattr(value, METADATA, None), dict)
                and here == f"{name}.{attribute}"
                and here not in served
            ):
                yield Finding("PS-ROUTE-102", "high", here, "It is decorated, but no route serves it.")


def _of_application(app: Any) -> Iterator[Finding]:
    names = {getattr(item.cls, "__name__", "") for item in getattr(app, "user_middleware", ())}
    if "CORSMiddleware" in names:
        hint = "Remove it: the shield's policy replaces its fields."
        yield Finding("PS-CORS-202", "low", "CORSMiddleware", "The application has a CORS policy of its own.", hint)
    if getattr(app, "debug", False):
        yield Finding("PS-APP-101", "medium", "debug", "The application runs in debug mode.")
