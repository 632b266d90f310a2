"""What Stripe tells us. It believes whoever posts: a check of the signature is on the list."""

from flask import Blueprint

from ..db import get_db, utc_now
from ..models import Invoice
from ..payloads import Json, body

bp = Blueprint("webhooks", __name__, url_prefix="/webhooks")


def mark_paid(invoice_id: int) -> None:
    """Set one invoice to paid."""
    db = get_db()
    invoice = db.get(Invoice, invoice_id)
    if invoice is not None:
        invoice.status = "paid"
        invoice.paid_at = utc_now()
        db.commit()


@bp.post("/stripe")
def stripe() -> Json:
    event = body()
    if event["type"] == "payment_intent.succeeded":
        metadata = event["data"]["object"].get("metadata", {})
        if "invoice_id" in metadata:
            mark_paid(int(metadata["invoice_id"]))
    return {"received": True}
