"""Appointments."""

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from ..auth import login_required
from ..db import get_db
from ..models import Client, CoachingSession
from ..payloads import Json, a_moment, body, required, session_json

bp = Blueprint("sessions", __name__, url_prefix="/sessions")


@bp.get("")
@login_required
def list_sessions() -> list[Json]:
    query = select(CoachingSession).where(CoachingSession.tenant_id == request.args["tenant_id"])
    if "after" in request.args:
        query = query.where(CoachingSession.starts_at >= a_moment(request.args.to_dict(), "after"))
    return [session_json(session) for session in get_db().scalars(query.order_by(CoachingSession.starts_at))]


@bp.post("")
@login_required
def book_session() -> ResponseReturnValue:
    data = body()
    tenant_id = required(data, "tenant_id", str)
    db = get_db()
    client = db.get(Client, required(data, "client_id", int))
    if client is None or client.tenant_id != tenant_id:
        abort(404, "No such client")
    minutes = data.get("minutes", 50)
    if not isinstance(minutes, int) or not 15 <= minutes <= 480:
        abort(400, "Between 15 and 480 minutes, please")
    session = CoachingSession(
        tenant_id=tenant_id,
        client_id=client.id,
        starts_at=a_moment(data, "starts_at"),
        minutes=minutes,
        topic=str(data.get("topic", ""))[:200],
    )
    db.add(session)
    db.commit()
    return session_json(session), 201
