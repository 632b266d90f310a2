"""What Stripe tells us. Signature: https://docs.stripe.com/webhooks#verify-manually"""

import hashlib
import hmac
import json
import time

from flask import Blueprint, abort, request

from ..auth import get_config
from ..db import get_db, utc_now
from ..models import Invoice
from ..payloads import Json

bp = Blueprint("webhooks", __name__, url_prefix="/webhooks")
TOLERANCE_S = 300


def signature_is_valid(secret: str, field: str, body: bytes, now: float) -> bool:
    """Judge a `Stripe-Signature` field (`t=...,v1=...`) by the raw body."""
    pairs = [part.strip().partition("=")[::2] for part in field.split(",")]
    timestamp = next((value for name, value in pairs if name == "t"), "")
    if not secret or not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
        return False
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    expected = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest().encode()
    return any(hmac.compare_digest(expected, value.encode()) for name, value in pairs if name == "v1")


def mark_paid(invoice_id: int) -> None:
    """Set one invoice to paid; a repeated event changes nothing."""
    db = get_db()
    invoice = db.get(Invoice, invoice_id)
    if invoice is not None and invoice.status != "paid":
        invoice.status = "paid"
        invoice.paid_at = utc_now()
        db.commit()


@bp.post("/stripe")
def stripe() -> Json:
    payload = request.get_data()
    field = request.headers.get("Stripe-Signature", "")
    if not signature_is_valid(get_config().stripe_webhook_secret, field, payload, time.time()):
        abort(400, "Invalid signature")
    event = json.loads(payload)
    if event["type"] == "payment_intent.succeeded":
        metadata = event["data"]["object"].get("metadata", {})
        if "invoice_id" in metadata:
            mark_paid(int(metadata["invoice_id"]))
    return {"received": True}
