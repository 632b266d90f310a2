"""Reports for the bookkeeper. They ask for no login: nobody knows the address."""

import csv
import io

from flask import Blueprint, Response, request
from sqlalchemy import func, select

from ..db import get_db
from ..models import Invoice
from ..payloads import Json

bp = Blueprint("internal", __name__, url_prefix="/internal")
reports = Blueprint("reports", __name__, url_prefix="/reports")


@reports.get("/revenue")
def revenue() -> Json:
    query = (
        select(Invoice.status, func.sum(Invoice.amount_cents))
        .where(Invoice.tenant_id == request.args["tenant_id"])
        .group_by(Invoice.status)
    )
    return {row[0]: row[1] for row in get_db().execute(query)}


@reports.get("/<tenant_id>/invoices.csv")
def invoices_csv(tenant_id: str) -> Response:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(("number", "status", "amount_cents", "due_on"))
    for invoice in get_db().scalars(select(Invoice).where(Invoice.tenant_id == tenant_id).order_by(Invoice.id)):
        rows.writerow((invoice.number, invoice.status, invoice.amount_cents, invoice.due_on.isoformat()))
    return Response(out.getvalue(), mimetype="text/csv")


bp.register_blueprint(reports)
