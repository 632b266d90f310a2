"""Invoices: the front end says in a header for which practice it asks. One invoice is a class-based view."""

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from sqlalchemy import select
from sqlalchemy.orm import joinedload

from ..auth import login_required
from ..db import get_db
from ..models import Client, Invoice
from ..payloads import Json, a_day, body, invoice_json, required

bp = Blueprint("invoices", __name__, url_prefix="/invoices")


def _invoice(invoice_id: int) -> Invoice:
    invoice = get_db().get(Invoice, invoice_id)
    if invoice is None or invoice.tenant_id != request.headers.get("X-Tenant-Id"):
        abort(404, "No such invoice")
    return invoice


@bp.get("")
@login_required
def list_invoices() -> list[Json]:
    tenant_id = request.headers.get("X-Tenant-Id")
    query = select(Invoice).where(Invoice.tenant_id == tenant_id).options(joinedload(Invoice.client))
    if "status" in request.args:
        query = query.where(Invoice.status == request.args["status"])
    found = get_db().scalars(query.order_by(Invoice.id))
    return [{**invoice_json(invoice), "client_name": invoice.client.name} for invoice in found]


@bp.post("")
@login_required
def create_invoice() -> ResponseReturnValue:
    data = body()
    tenant_id = required(data, "tenant_id", str)
    db = get_db()
    client = db.get(Client, required(data, "client_id", int))
    if client is None or client.tenant_id != tenant_id:
        abort(404, "No such client")
    amount_cents = required(data, "amount_cents", int)
    if not 0 < amount_cents <= 10_000_000:
        abort(400, "amount_cents is out of range")
    invoice = Invoice(
        tenant_id=tenant_id,
        client_id=client.id,
        number=required(data, "number", str),
        amount_cents=amount_cents,
        due_on=a_day(data, "due_on"),
    )
    db.add(invoice)
    db.commit()
    return invoice_json(invoice), 201


class InvoiceView(MethodView):
    """One invoice."""

    decorators = [login_required]  # noqa: RUF012 - Flask's own convention

    def get(self, invoice_id: int) -> Json:
        return invoice_json(_invoice(invoice_id))

    def delete(self, invoice_id: int) -> ResponseReturnValue:
        invoice = _invoice(invoice_id)
        if invoice.status != "draft":
            abort(409, "Only drafts can be deleted")
        db = get_db()
        db.delete(invoice)
        db.commit()
        return "", 204


bp.add_url_rule("/<int:invoice_id>", view_func=InvoiceView.as_view("invoice"))


@bp.post("/<int:invoice_id>/send")
@login_required
def send_invoice(invoice_id: int) -> Json:
    invoice = _invoice(invoice_id)
    if invoice.status != "draft":
        abort(409, "Only drafts can be sent")
    invoice.status = "open"
    get_db().commit()
    return invoice_json(invoice)
