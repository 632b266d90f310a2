"""Invoices: the front end says in a header for which practice it asks."""

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from ..auth import CurrentUser
from ..db import Db
from ..models import Client, Invoice
from ..schemas import InvoiceIn, InvoiceOut, InvoiceRow

router = APIRouter(prefix="/invoices", tags=["invoices"])
TenantHeader = Annotated[str, Header(alias="X-Tenant-Id")]


def _invoice(db: Db, invoice_id: int, tenant_id: str) -> Invoice:
    invoice = db.get(Invoice, invoice_id)
    if invoice is None or invoice.tenant_id != tenant_id:
        raise HTTPException(404, "No such invoice")
    return invoice


@router.get("")
def list_invoices(tenant_id: TenantHeader, db: Db, user: CurrentUser, status: str | None = None) -> list[InvoiceRow]:
    query = select(Invoice).where(Invoice.tenant_id == tenant_id).options(joinedload(Invoice.client))
    if status is not None:
        query = query.where(Invoice.status == status)
    return [
        InvoiceRow(**InvoiceOut.model_validate(invoice).model_dump(), client_name=invoice.client.name)
        for invoice in db.scalars(query.order_by(Invoice.id))
    ]


@router.post("", response_model=InvoiceOut, status_code=201)
def create_invoice(data: InvoiceIn, db: Db, user: CurrentUser) -> Invoice:
    client = db.get(Client, data.client_id)
    if client is None or client.tenant_id != data.tenant_id:
        raise HTTPException(404, "No such client")
    invoice = Invoice(**data.model_dump())
    db.add(invoice)
    db.commit()
    return invoice


@router.get("/{invoice_id:int}", response_model=InvoiceOut)
def read_invoice(invoice_id: int, tenant_id: TenantHeader, db: Db, user: CurrentUser) -> Invoice:
    return _invoice(db, invoice_id, tenant_id)


@router.post("/{invoice_id:int}/send", response_model=InvoiceOut)
def send_invoice(invoice_id: int, tenant_id: TenantHeader, db: Db, user: CurrentUser) -> Invoice:
    invoice = _invoice(db, invoice_id, tenant_id)
    if invoice.status != "draft":
        raise HTTPException(409, "Only drafts can be sent")
    invoice.status = "open"
    db.commit()
    return invoice
