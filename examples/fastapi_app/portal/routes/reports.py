"""Reports for the bookkeeper, an application of their own that is mounted below /internal."""

import csv
import io

from fastapi import FastAPI, Response
from sqlalchemy import func, select

from ..config import Config
from ..db import Db, Sessions
from ..models import Invoice


def create_reports(config: Config, sessions: Sessions) -> FastAPI:
    """The sub-application. It asks for no login: nobody knows its address."""
    app = FastAPI(title="Portal reports")
    app.state.config = config
    app.state.sessions = sessions

    @app.get("/reports/revenue")
    def revenue(tenant_id: str, db: Db) -> dict[str, int]:
        query = (
            select(Invoice.status, func.sum(Invoice.amount_cents))
            .where(Invoice.tenant_id == tenant_id)
            .group_by(Invoice.status)
        )
        return {row[0]: row[1] for row in db.execute(query)}

    @app.get("/reports/{tenant_id}/invoices.csv")
    def invoices_csv(tenant_id: str, db: Db) -> Response:
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(("number", "status", "amount_cents", "due_on"))
        for invoice in db.scalars(select(Invoice).where(Invoice.tenant_id == tenant_id).order_by(Invoice.id)):
            rows.writerow((invoice.number, invoice.status, invoice.amount_cents, invoice.due_on.isoformat()))
        return Response(out.getvalue(), media_type="text/csv")

    return app
