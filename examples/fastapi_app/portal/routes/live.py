"""A live connection: the dashboard asks for its numbers without reloading."""

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..db import Db
from ..models import Client

router = APIRouter(prefix="/ws")


def count_clients(db: Session, tenant_id: str) -> int:
    """How many clients a practice has at this moment."""
    return db.scalar(select(func.count(Client.id)).where(Client.tenant_id == tenant_id)) or 0


@router.websocket("/tenants/{tenant_id}")
async def live(socket: WebSocket, tenant_id: str, db: Db) -> None:
    await socket.accept()
    try:
        while True:
            await socket.receive_text()
            await socket.send_json(
                {"tenant_id": tenant_id, "clients": await run_in_threadpool(count_clients, db, tenant_id)}
            )
    except WebSocketDisconnect:
        return
