"""A practice, and what hangs below it: its clients and its documents."""

from collections.abc import Sequence

from fastapi import APIRouter, HTTPException
from sqlalchemy import select

from ..auth import CurrentUser
from ..db import Db
from ..models import Client, Tenant
from ..schemas import ClientIn, ClientOut, TenantOut
from . import documents

router = APIRouter(prefix="/tenants/{tenant_id}", tags=["tenants"])
clients = APIRouter(prefix="/clients")


@router.get("", response_model=TenantOut)
def read_tenant(tenant_id: str, db: Db, user: CurrentUser) -> Tenant:
    tenant = db.get(Tenant, tenant_id)
    if tenant is None:
        raise HTTPException(404, "No such tenant")
    return tenant


@clients.get("", response_model=list[ClientOut])
def list_clients(tenant_id: str, db: Db, user: CurrentUser, q: str = "") -> Sequence[Client]:
    query = select(Client).where(Client.tenant_id == tenant_id).order_by(Client.id)
    if q:
        query = query.where(Client.name.icontains(q, autoescape=True))
    return db.scalars(query).all()


@clients.post("", response_model=ClientOut, status_code=201)
def create_client(tenant_id: str, data: ClientIn, db: Db, user: CurrentUser) -> Client:
    if db.get(Tenant, tenant_id) is None:
        raise HTTPException(404, "No such tenant")
    client = Client(tenant_id=tenant_id, **data.model_dump())
    db.add(client)
    db.commit()
    return client


router.include_router(clients)
router.include_router(documents.router)
