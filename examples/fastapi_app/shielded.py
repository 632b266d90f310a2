"""The portal behind the shield: `uvicorn shielded:app`. Nothing in `portal/` knows about this file."""

from collections.abc import Callable
from typing import Literal

from portal.db import Sessions
from portal.main import app
from portal.models import Client, Invoice
from portal.schemas import ClientIn
from pydantic import BaseModel
from sqlalchemy import select

from portalshield import Policy, Shield, Upload


class InvoiceFilter(BaseModel):
    """How invoices may be asked for; the handler itself takes any status."""

    status: Literal["draft", "open", "paid"] | None = None


POLICIES = (
    # Who has no token yet. Five wrong passwords a minute, per account and per address.
    Policy("GET /", public=True),
    Policy("POST /auth/login", public=True, login="email", limits=["20/minute"], by="ip", max_body="4KB"),
    Policy("POST /auth/password-reset", public=True, limits=["5/minute"], by="ip", max_body="4KB"),
    Policy("POST /auth/password-reset/confirm", public=True, limits=["5/minute"], by="ip", max_body="4KB"),
    # Stripe has no token either: it signs what it sends. A delivery that comes twice is processed once.
    Policy("POST /webhooks/stripe", webhook="stripe", max_body="256KB", content_types=["application/json"]),
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
        upload=Upload(types=["application/pdf", "image/png", "image/jpeg", "text/plain"], max_file="10MB"),
        limits=["30/hour"],
        by="tenant",
    ),
    Policy("GET /invoices", scopes=["invoices:read"], query=InvoiceFilter),
    # With an Idempotency-Key, who clicks twice gets one invoice.
    Policy("POST /invoices", scopes=["invoices:write"], idempotent=True),
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
