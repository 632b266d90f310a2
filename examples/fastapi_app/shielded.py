"""The portal behind the shield: `uvicorn shielded:app`. Nothing in `portal/` knows about this file."""

from collections.abc import Callable

from portal.db import Sessions
from portal.main import app
from portal.models import Client, Invoice
from portal.schemas import ClientIn
from sqlalchemy import select

from portalshield import Policy, Shield

POLICIES = (
    # Who has no token yet. Guessing is slowed down per address.
    Policy("GET /", public=True),
    Policy("POST /auth/login", public=True, limits=["10/minute"], by="ip", max_body="4KB"),
    Policy("POST /auth/password-reset", public=True, limits=["5/minute"], by="ip", max_body="4KB"),
    Policy("POST /auth/password-reset/confirm", public=True, limits=["5/minute"], by="ip", max_body="4KB"),
    # Stripe signs what it sends; the handler verifies that.
    Policy("POST /webhooks/stripe", public=True, max_body="256KB", content_types=["application/json"]),
    # Everything else needs a token of the addressed tenant. Some routes ask for more.
    Policy("GET /auth/me", tenant=False),
    Policy(
        "POST /tenants/{tenant_id}/clients",
        body=ClientIn,
        max_body="16KB",
        content_types=["application/json"],
        scopes=["clients:write"],
    ),
    Policy(
        "POST /tenants/{tenant_id}/documents",
        max_body="10MB",
        content_types=["multipart/form-data"],
        limits=["30/hour"],
        by="tenant",
    ),
    Policy("GET /invoices", scopes=["invoices:read"]),
    Policy("POST /invoices", scopes=["invoices:write"]),
    Policy("* /internal/*", roles=["coach"]),
)


def owner_of(table: type[Client] | type[Invoice]) -> Callable[[str], str | None]:
    """From the number of a row to the tenant that owns it, or None."""
    sessions: Sessions = app.state.sessions

    def owner(number: str) -> str | None:
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            return None
        with sessions() as db:
            return db.scalar(select(table.tenant_id).where(table.id == int(number)))

    return owner


# A bare number does not say whose it is: these are asked before a handler runs.
OWNERS = {"client_id": owner_of(Client), "invoice_id": owner_of(Invoice)}

Shield(app, policies=POLICIES, owners=OWNERS)
