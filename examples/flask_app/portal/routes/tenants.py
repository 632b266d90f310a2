"""A practice, and what hangs below it: its clients and its documents (nested blueprints)."""

from flask import Blueprint, abort, request
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from ..auth import login_required
from ..db import get_db
from ..models import Client, Tenant
from ..payloads import Json, body, client_json, required
from . import documents

bp = Blueprint("tenants", __name__, url_prefix="/tenants/<tenant_id>")
clients = Blueprint("clients", __name__, url_prefix="/clients")


@bp.get("")
@login_required
def read_tenant(tenant_id: str) -> Json:
    tenant = get_db().get(Tenant, tenant_id)
    if tenant is None:
        abort(404, "No such tenant")
    return {"id": tenant.id, "name": tenant.name}


@clients.get("")
@login_required
def list_clients(tenant_id: str) -> list[Json]:
    query = select(Client).where(Client.tenant_id == tenant_id).order_by(Client.id)
    q = request.args.get("q", "")
    if q:
        query = query.where(Client.name.icontains(q, autoescape=True))
    return [client_json(client) for client in get_db().scalars(query)]


@clients.post("")
@login_required
def create_client(tenant_id: str) -> ResponseReturnValue:
    db = get_db()
    if db.get(Tenant, tenant_id) is None:
        abort(404, "No such tenant")
    data = body()
    client = Client(
        tenant_id=tenant_id,
        name=required(data, "name", str),
        email=required(data, "email", str),
        phone=data.get("phone"),
    )
    db.add(client)
    db.commit()
    return client_json(client), 201


bp.register_blueprint(clients)
bp.register_blueprint(documents.bp)
