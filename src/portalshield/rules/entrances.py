"""What a route is there for by its name, where that is for callers who have no token yet. Hints for people, never a
decision about a request."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

_LOGIN_LIKE = frozenset(
    ("login", "log-in", "signin", "sign-in", "token", "tokens", "signup", "sign-up", "register", "password-reset")
)
_LOGIN_STARTS = ("reset", "forgot")
_TOKENS = frozenset(("token", "tokens"))
_HEALTH_LIKE = frozenset(
    ("health", "healthz", "healthcheck", "health-check", "live", "livez", "ready", "readyz", "ping", "heartbeat")
)
_PREFIXES = frozenset(("api", "v1", "v2", "v3"))
_RESETS = ("/reset-password", "/password-reset", "/password/reset", "/reset/password")
_INSIDE = frozenset(("admin", "internal", "staff"))


def login_like(path: str) -> bool:
    """`/login`, `/token`, `/signup`, `/auth/...`, `/reset-password`, `/forgot`, wherever they stand in the path."""
    segments = path.lower().strip("/").split("/")
    if "auth" in segments[:-1]:
        return True
    return any(part in _LOGIN_LIKE or part.startswith(_LOGIN_STARTS) for part in segments)


Entrance = Literal["", "health", "login", "page"]


def entrance(methods: Collection[str], path: str) -> Entrance:
    """What a route is there for by its name, if it is for those who have no token: whether the application is up, a
    login (also a registration, a forgotten password), the page of one. Empty for any other, and for whatever has a
    parameter: it may be somebody's data."""
    told = set(methods) - {"HEAD", "OPTIONS"}
    if "{" in path or not told <= {"GET", "POST"} or not _INSIDE.isdisjoint(path.lower().split("/")):
        return ""
    if told == {"GET"} and health_like(path):
        return "health"
    if not _logs_in(path.lower(), page="GET" in told):
        return ""
    return "login" if "POST" in told else "page"


def health_like(path: str) -> bool:
    """`/healthz`, `/api/health`, `/health/ready`: nothing else stands in the path."""
    segments = [part for part in path.lower().strip("/").split("/") if part not in _PREFIXES]
    return bool(segments) and _HEALTH_LIKE.issuperset(segments)


def _logs_in(path: str, *, page: bool) -> bool:
    """Narrower than `login_like`, which also means what is done after the login (`/auth/users`). A list of tokens is no
    page for everybody."""
    path = path.rstrip("/").replace("_", "-")
    last = path.rpartition("/")[2]
    if last in _TOKENS:
        return last == "token" and not page
    return last in _LOGIN_LIKE or last.startswith("forgot") or path.endswith(_RESETS)
