"""Appointments."""

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter, HTTPException
from sqlalchemy import select

from ..auth import CurrentUser
from ..db import Db
from ..models import Client, CoachingSession
from ..schemas import SessionIn, SessionOut

router = APIRouter(prefix="/sessions", tags=["sessions"])


@router.get("", response_model=list[SessionOut])
def list_sessions(
    tenant_id: str, db: Db, user: CurrentUser, after: datetime | None = None
) -> Sequence[CoachingSession]:
    query = select(CoachingSession).where(CoachingSession.tenant_id == tenant_id)
    if after is not None:
        query = query.where(CoachingSession.starts_at >= after)
    return db.scalars(query.order_by(CoachingSession.starts_at)).all()


@router.post("", response_model=SessionOut, status_code=201)
def book_session(data: SessionIn, db: Db, user: CurrentUser) -> CoachingSession:
    client = db.get(Client, data.client_id)
    if client is None or client.tenant_id != data.tenant_id:
        raise HTTPException(404, "No such client")
    session = CoachingSession(**data.model_dump())
    db.add(session)
    db.commit()
    return session
