"""The numbers on the start page of a practice."""

from fastapi import APIRouter
from sqlalchemy import case, func, select

from ..auth import CurrentUser
from ..db import Db
from ..models import Client, CoachingSession, Invoice
from ..schemas import DashboardOut

router = APIRouter(tags=["dashboard"])


@router.get("/dashboard")
def dashboard(tenant_id: str, db: Db, user: CurrentUser) -> DashboardOut:
    clients = select(func.count(Client.id)).where(Client.tenant_id == tenant_id)
    sessions = select(func.count(CoachingSession.id)).where(CoachingSession.tenant_id == tenant_id)
    open_cents, paid_cents = db.execute(
        select(
            func.coalesce(func.sum(case((Invoice.status == "open", Invoice.amount_cents), else_=0)), 0),
            func.coalesce(func.sum(case((Invoice.status == "paid", Invoice.amount_cents), else_=0)), 0),
        ).where(Invoice.tenant_id == tenant_id)
    ).one()
    return DashboardOut(
        tenant_id=tenant_id,
        clients=db.scalar(clients) or 0,
        sessions=db.scalar(sessions) or 0,
        open_cents=open_cents,
        paid_cents=paid_cents,
    )
