"""Flask: install the doors, find the rule, lead the application there, confirm the view that really runs. Plus the
`principal` proxy."""

from __future__ import annotations

from typing import cast

from werkzeug.local import LocalProxy

from portalshield.context import current_principal, payload
from portalshield.flask.install import install, installed
from portalshield.flask.table import FlaskTable, tabulate
from portalshield.model.principal import Principal

__all__ = ["FlaskTable", "install", "installed", "payload", "principal", "tabulate"]

principal: Principal = cast(Principal, LocalProxy(current_principal))
"""The verified caller, as a proxy. Fails closed: `LookupError` outside a request."""
