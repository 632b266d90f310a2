"""The portal behind the shield: `waitress-serve shielded:app`. Nothing in `portal/` knows about this file."""

from collections.abc import Callable
from typing import Annotated, Literal

from portal.db import Sessions
from portal.main import create_app
from portal.models import Client, Invoice
from pydantic import BaseModel, Field
from sqlalchemy import select

from portalshield import Policy, Shield, Upload


class NewClient(BaseModel):
    """What a new client looks like; the view itself takes any JSON object."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=255)]
    phone: Annotated[str, Field(max_length=40)] | None = None


class InvoiceFilter(BaseModel):
    """How invoices may be asked for; the view itself takes any status."""

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
        body=NewClient,
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

app = create_app()


def owner_of(table: type[Client] | type[Invoice]) -> Callable[[str], str | None]:
    """From the number of a row to the tenant that owns it, or None."""
    sessions: Sessions = app.extensions["sessions"]

    def owner(number: str) -> str | None:
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            return None
        with sessions() as db:
            return db.scalar(select(table.tenant_id).where(table.id == int(number)))

    return owner


# A bare number does not say whose it is: these are asked before a view runs.
OWNERS = {"client_id": owner_of(Client), "invoice_id": owner_of(Invoice)}

Shield(app, policies=POLICIES, owners=OWNERS)
