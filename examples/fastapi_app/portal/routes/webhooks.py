"""What Stripe tells us. It believes whoever posts: a check of the signature is on the list."""

from typing import Any

from fastapi import APIRouter

from ..db import Db, utc_now
from ..models import Invoice

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


def mark_paid(db: Db, invoice_id: int) -> None:
    """Set one invoice to paid."""
    invoice = db.get(Invoice, invoice_id)
    if invoice is not None:
        invoice.status = "paid"
        invoice.paid_at = utc_now()
        db.commit()


@router.post("/stripe")
def stripe(event: dict[str, Any], db: Db) -> dict[str, bool]:
    if event["type"] == "payment_intent.succeeded":
        metadata = event["data"]["object"].get("metadata", {})
        if "invoice_id" in metadata:
            mark_paid(db, int(metadata["invoice_id"]))
    return {"received": True}
