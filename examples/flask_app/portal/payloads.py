"""Reading JSON bodies, and rows as JSON."""

from datetime import date, datetime
from typing import Any, TypeVar

from flask import abort, request

from .models import Client, CoachingSession, Document, Invoice, Note

Json = dict[str, Any]
T = TypeVar("T")


def body() -> Json:
    """The JSON object that came along, else 400."""
    data = request.get_json()
    if not isinstance(data, dict):
        abort(400, "A JSON object is expected")
    return data


def required(data: Json, name: str, kind: type[T]) -> T:
    """A member of the body, else 400."""
    value = data.get(name)
    if not isinstance(value, kind):
        abort(400, f"{name} is missing")
    return value


def a_day(data: Json, name: str) -> date:
    """A date such as 2026-03-02, else 400."""
    try:
        return date.fromisoformat(required(data, name, str))
    except ValueError:
        abort(400, f"{name} is not a date")


def a_moment(data: Json, name: str) -> datetime:
    """A time with its zone such as 2026-03-02T10:00:00Z, else 400."""
    try:
        moment = datetime.fromisoformat(required(data, name, str))
    except ValueError:
        abort(400, f"{name} is not a time")
    if moment.tzinfo is None:
        abort(400, f"{name} has no time zone")
    return moment


def client_json(client: Client) -> Json:
    return {
        "id": client.id,
        "tenant_id": client.tenant_id,
        "name": client.name,
        "email": client.email,
        "phone": client.phone,
        "created_at": client.created_at.isoformat(),
    }


def note_json(note: Note) -> Json:
    return {
        "id": note.id,
        "client_id": note.client_id,
        "author_id": note.author_id,
        "text": note.text,
        "created_at": note.created_at.isoformat(),
    }


def session_json(session: CoachingSession) -> Json:
    return {
        "id": session.id,
        "tenant_id": session.tenant_id,
        "client_id": session.client_id,
        "starts_at": session.starts_at.isoformat(),
        "minutes": session.minutes,
        "topic": session.topic,
    }


def invoice_json(invoice: Invoice) -> Json:
    return {
        "id": invoice.id,
        "tenant_id": invoice.tenant_id,
        "client_id": invoice.client_id,
        "number": invoice.number,
        "amount_cents": invoice.amount_cents,
        "currency": invoice.currency,
        "status": invoice.status,
        "due_on": invoice.due_on.isoformat(),
        "paid_at": invoice.paid_at.isoformat() if invoice.paid_at else None,
    }


def document_json(document: Document) -> Json:
    return {
        "id": document.id,
        "tenant_id": document.tenant_id,
        "filename": document.filename,
        "content_type": document.content_type,
        "size_bytes": document.size_bytes,
        "uploaded_at": document.uploaded_at.isoformat(),
    }
