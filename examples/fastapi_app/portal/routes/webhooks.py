"""What Stripe tells us. Signature: https://docs.stripe.com/webhooks#verify-manually"""

import hashlib
import hmac
import json
import time
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from ..auth import Settings
from ..db import Db, utc_now
from ..models import Invoice

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
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


def mark_paid(db: Db, invoice_id: int) -> None:
    """Set one invoice to paid; a repeated event changes nothing."""
    invoice = db.get(Invoice, invoice_id)
    if invoice is not None and invoice.status != "paid":
        invoice.status = "paid"
        invoice.paid_at = utc_now()
        db.commit()


@router.post("/stripe")
async def stripe(
    request: Request, db: Db, config: Settings, signature: Annotated[str, Header(alias="Stripe-Signature")] = ""
) -> dict[str, bool]:
    body = await request.body()
    if not signature_is_valid(config.stripe_webhook_secret, signature, body, time.time()):
        raise HTTPException(400, "Invalid signature")
    event = json.loads(body)
    if event["type"] == "payment_intent.succeeded":
        metadata = event["data"]["object"].get("metadata", {})
        if "invoice_id" in metadata:
            await run_in_threadpool(mark_paid, db, int(metadata["invoice_id"]))
    return {"received": True}
