"""The current request: one context variable, set by the doors, read by helpers, logs and Sentry."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from portalshield.model.exchange import Exchange
from portalshield.model.principal import Principal

MARK = "portalshield.exchange"
"""The key under which a door marks the ASGI scope or WSGI environ (PEP 3333 wants a dot): a second door steps aside."""

INSTALLED = "portalshield"
"""Under this name `app.state` (Starlette) or `app.extensions` (Flask) holds the shield of an application."""

CURRENT: ContextVar[Exchange | None] = ContextVar("portalshield_exchange", default=None)
LAST: ContextVar[Exchange | None] = ContextVar("portalshield_last_exchange", default=None)
"""The request that ended here last, for whoever stands outside the doors and reports on it (Sentry)."""


def marked(native: Any) -> Exchange | None:
    """The exchange a door left on this scope or environ."""
    found = native.get(MARK)
    return found if isinstance(found, Exchange) else None


def current_exchange() -> Exchange:
    """The request that is being handled. `LookupError` outside a request."""
    x = CURRENT.get()
    if x is None:
        raise LookupError("no request is being handled by portalshield here")
    return x


def current_principal() -> Principal:
    """The verified caller. Fails closed: `LookupError` outside a request or on a public route without a credential."""
    principal = current_exchange().principal
    if principal is None:
        raise LookupError(
            "this request has no principal: PORTALSHIELD_AUTH is unset or none, the route is public, or mode is report"
        )
    return principal


def current_tenant() -> str:
    """The proven tenant. Fails closed: `LookupError` where there is none."""
    tenant = current_principal().tenant
    if tenant is None:
        raise LookupError("this request has no tenant")
    return tenant


def payload() -> Any:
    """The object that `body=Model` validated. `LookupError` where nothing was validated."""
    found = current_exchange().payload
    if found is None:
        raise LookupError("no body was validated for this request: add body=Model to the route's policy")
    return found
