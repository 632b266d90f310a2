"""One client by number, and the notes about that client."""

from collections.abc import Sequence

from fastapi import APIRouter, HTTPException
from sqlalchemy import delete, select

from ..auth import CurrentUser
from ..db import Db
from ..models import Client, CoachingSession, Invoice, Note
from ..schemas import ClientOut, ClientPatch, NoteIn, NoteOut

router = APIRouter(prefix="/clients", tags=["clients"])
notes = APIRouter(prefix="/{client_id:int}/notes", tags=["notes"])


def _client(db: Db, client_id: int, tenant_id: str) -> Client:
    client = db.scalar(select(Client).where(Client.id == client_id, Client.tenant_id == tenant_id))
    if client is None:
        raise HTTPException(404, "No such client")
    return client


@router.get("/{client_id:int}", response_model=ClientOut)
def read_client(client_id: int, db: Db, user: CurrentUser) -> Client:
    return _client(db, client_id, user.tenant_id)


@router.patch("/{client_id:int}", response_model=ClientOut)
def change_client(client_id: int, data: ClientPatch, db: Db, user: CurrentUser) -> Client:
    client = _client(db, client_id, user.tenant_id)
    for name, value in data.model_dump(exclude_unset=True).items():
        setattr(client, name, value)
    db.commit()
    return client


@router.delete("/{client_id:int}", status_code=204)
def remove_client(client_id: int, db: Db, user: CurrentUser) -> None:
    client = _client(db, client_id, user.tenant_id)
    for table in (Note, CoachingSession, Invoice):
        db.execute(delete(table).where(table.client_id == client.id))
    db.delete(client)
    db.commit()


@notes.get("", response_model=list[NoteOut])
def list_notes(client_id: int, tenant_id: str, db: Db, user: CurrentUser) -> Sequence[Note]:
    query = select(Note).where(Note.client_id == client_id, Note.tenant_id == tenant_id)
    return db.scalars(query.order_by(Note.id)).all()


@notes.post("", response_model=NoteOut, status_code=201)
def add_note(client_id: int, data: NoteIn, db: Db, user: CurrentUser) -> Note:
    client = _client(db, client_id, data.tenant_id)
    note = Note(tenant_id=data.tenant_id, client_id=client.id, author_id=user.id, text=data.text)
    db.add(note)
    db.commit()
    return note


router.include_router(notes)
