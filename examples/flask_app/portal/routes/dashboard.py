"""The numbers on the start page of a practice."""

from flask import Blueprint, request
from sqlalchemy import case, func, select

from ..auth import login_required
from ..db import get_db
from ..models import Client, CoachingSession, Invoice
from ..payloads import Json

bp = Blueprint("dashboard", __name__)


@bp.get("/dashboard")
@login_required
def dashboard() -> Json:
    tenant_id = request.args["tenant_id"]
    db = get_db()
    open_cents, paid_cents = db.execute(
        select(
            func.coalesce(func.sum(case((Invoice.status == "open", Invoice.amount_cents), else_=0)), 0),
            func.coalesce(func.sum(case((Invoice.status == "paid", Invoice.amount_cents), else_=0)), 0),
        ).where(Invoice.tenant_id == tenant_id)
    ).one()
    return {
        "tenant_id": tenant_id,
        "clients": db.scalar(select(func.count(Client.id)).where(Client.tenant_id == tenant_id)),
        "sessions": db.scalar(select(func.count(CoachingSession.id)).where(CoachingSession.tenant_id == tenant_id)),
        "open_cents": open_cents,
        "paid_cents": paid_cents,
    }
