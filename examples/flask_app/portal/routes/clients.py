"""One client by number, and the notes about that client."""

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from sqlalchemy import delete, select

from ..auth import current_user, login_required
from ..db import get_db
from ..models import Client, CoachingSession, Invoice, Note
from ..payloads import Json, body, client_json, note_json, required

bp = Blueprint("client", __name__, url_prefix="/clients/<int:client_id>")
notes = Blueprint("notes", __name__, url_prefix="/notes")


def _client(client_id: int, tenant_id: str) -> Client:
    client = get_db().scalar(select(Client).where(Client.id == client_id, Client.tenant_id == tenant_id))
    if client is None:
        abort(404, "No such client")
    return client


@bp.get("")
@login_required
def read_client(client_id: int) -> Json:
    return client_json(_client(client_id, current_user().tenant_id))


@bp.patch("")
@login_required
def change_client(client_id: int) -> Json:
    client = _client(client_id, current_user().tenant_id)
    data = body()
    for name in ("name", "email", "phone"):
        if name in data:
            setattr(client, name, required(data, name, str))
    get_db().commit()
    return client_json(client)


@bp.delete("")
@login_required
def remove_client(client_id: int) -> ResponseReturnValue:
    client = _client(client_id, current_user().tenant_id)
    db = get_db()
    for table in (Note, CoachingSession, Invoice):
        db.execute(delete(table).where(table.client_id == client.id))
    db.delete(client)
    db.commit()
    return "", 204


@notes.get("")
@login_required
def list_notes(client_id: int) -> list[Json]:
    query = select(Note).where(Note.client_id == client_id, Note.tenant_id == request.args["tenant_id"])
    return [note_json(note) for note in get_db().scalars(query.order_by(Note.id))]


@notes.post("")
@login_required
def add_note(client_id: int) -> ResponseReturnValue:
    data = body()
    client = _client(client_id, required(data, "tenant_id", str))
    note = Note(
        tenant_id=client.tenant_id,
        client_id=client.id,
        author_id=current_user().id,
        text=required(data, "text", str),
    )
    db = get_db()
    db.add(note)
    db.commit()
    return note_json(note), 201


bp.register_blueprint(notes)
