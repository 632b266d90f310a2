"""What goes in and comes out as JSON."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=120)]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=255)]
Password = Annotated[str, Field(min_length=10, max_length=128)]


class Out(BaseModel):
    """Read from a database row."""

    model_config = ConfigDict(from_attributes=True)


class LoginIn(BaseModel):
    email: Email
    password: Annotated[str, Field(max_length=128)]


class TokenOut(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int


class PasswordResetIn(BaseModel):
    email: Email


class PasswordResetConfirmIn(BaseModel):
    token: Annotated[str, Field(max_length=100)]
    password: Password


class UserOut(Out):
    id: int
    tenant_id: str
    email: str
    name: str
    role: str


class TenantOut(Out):
    id: str
    name: str


class ClientIn(BaseModel):
    name: Name
    email: Email
    phone: Annotated[str, Field(max_length=40)] | None = None


class ClientPatch(BaseModel):
    name: Name | None = None
    email: Email | None = None
    phone: Annotated[str, Field(max_length=40)] | None = None


class ClientOut(Out):
    id: int
    tenant_id: str
    name: str
    email: str
    phone: str | None
    created_at: datetime


class NoteIn(BaseModel):
    tenant_id: str
    text: Annotated[str, Field(min_length=1, max_length=5000)]


class NoteOut(Out):
    id: int
    client_id: int
    author_id: int
    text: str
    created_at: datetime


class SessionIn(BaseModel):
    tenant_id: str
    client_id: int
    starts_at: datetime
    minutes: Annotated[int, Field(ge=15, le=480)] = 50
    topic: Annotated[str, Field(max_length=200)] = ""


class SessionOut(Out):
    id: int
    tenant_id: str
    client_id: int
    starts_at: datetime
    minutes: int
    topic: str


class InvoiceIn(BaseModel):
    tenant_id: str
    client_id: int
    number: Annotated[str, Field(min_length=1, max_length=40)]
    amount_cents: Annotated[int, Field(gt=0, le=10_000_000)]
    due_on: date


class InvoiceOut(Out):
    id: int
    tenant_id: str
    client_id: int
    number: str
    amount_cents: int
    currency: str
    status: str
    due_on: date
    paid_at: datetime | None


class InvoiceRow(InvoiceOut):
    client_name: str


class DocumentOut(Out):
    id: int
    tenant_id: str
    filename: str
    content_type: str
    size_bytes: int
    uploaded_at: datetime


class DashboardOut(BaseModel):
    tenant_id: str
    clients: int
    sessions: int
    open_cents: int
    paid_cents: int
