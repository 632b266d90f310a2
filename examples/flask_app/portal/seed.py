"""Two practices to play with: `north` and `south`. The same rows on every start of an empty database."""

from datetime import UTC, date, datetime

from sqlalchemy.orm import Session

from .models import Client, CoachingSession, Invoice, Note, Tenant, User
from .security import hash_password

DEMO_PASSWORD = "walk-the-talk-2026"
"""The password of every seeded user."""

_TENANTS = {"north": "North Shore Coaching", "south": "South Bank Coaching"}
_CLIENTS = {
    "north": ("Ada Lindqvist", "Bo Andersen", "Cleo Marsh"),
    "south": ("Dario Conti", "Elif Kaya", "Femi Okafor"),
}
_TOPICS = ("Taking stock", "Career change", "Difficult conversations")
_INVOICES = ((12_000, "paid"), (18_000, "open"), (9_500, "draft"))


def seed(db: Session) -> None:
    """Fill an empty database; one that has tenants stays as it is."""
    if db.get(Tenant, "north") is not None:
        return
    for tenant_id, name in _TENANTS.items():
        db.add(Tenant(id=tenant_id, name=name))
        db.flush()
        coach = _add_users(db, tenant_id)
        for position, client_name in enumerate(_CLIENTS[tenant_id]):
            _add_client(db, tenant_id, client_name, position, coach)
    db.commit()


def _add_users(db: Session, tenant_id: str) -> User:
    password_hash = hash_password(DEMO_PASSWORD)
    users = [
        User(
            tenant_id=tenant_id,
            email=f"{role}@{tenant_id}.example",
            name=f"{role.title()} {tenant_id.title()}",
            role=role,
            password_hash=password_hash,
        )
        for role in ("coach", "assistant")
    ]
    db.add_all(users)
    db.flush()
    return users[0]


def _add_client(db: Session, tenant_id: str, name: str, position: int, coach: User) -> None:
    first_name = name.split()[0].lower()
    client = Client(
        tenant_id=tenant_id,
        name=name,
        email=f"{first_name}@mail.example",
        phone=f"+49 30 5550 10{position}",
        created_at=datetime(2026, 1, 5 + position, 9, 0, tzinfo=UTC),
    )
    db.add(client)
    db.flush()
    amount_cents, status = _INVOICES[position]
    paid_at = datetime(2026, 2, 20, 8, 30, tzinfo=UTC) if status == "paid" else None
    db.add_all(
        (
            CoachingSession(
                tenant_id=tenant_id,
                client_id=client.id,
                starts_at=datetime(2026, 3, 2 + position, 10, 0, tzinfo=UTC),
                topic=_TOPICS[position],
            ),
            Invoice(
                tenant_id=tenant_id,
                client_id=client.id,
                number=f"{tenant_id[0].upper()}-2026-{position + 1:03}",
                amount_cents=amount_cents,
                status=status,
                due_on=date(2026, 3, 15 + position),
                paid_at=paid_at,
            ),
            Note(
                tenant_id=tenant_id,
                client_id=client.id,
                author_id=coach.id,
                text=f"{name} asked to keep this between us.",
                created_at=datetime(2026, 3, 2 + position, 11, 0, tzinfo=UTC),
            ),
        )
    )
