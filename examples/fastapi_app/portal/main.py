"""The application: `uvicorn portal.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.orm import sessionmaker

from .config import Config, from_env
from .db import Base, connect
from .routes import accounts, clients, dashboard, invoices, live, pages, sessions, tenants, webhooks
from .routes.reports import create_reports
from .seed import seed


def create_app(config: Config | None = None) -> FastAPI:
    """Build the portal; the database is opened, created and seeded when the server starts."""
    config = config or from_env()
    engine = connect(config.database_url)
    new_session = sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        Base.metadata.create_all(engine)
        with new_session() as db:
            seed(db)
        yield
        engine.dispose()

    app = FastAPI(title="Client portal", lifespan=lifespan)
    app.state.config = config
    app.state.sessions = new_session
    for area in (pages, accounts, tenants, clients, sessions, invoices, dashboard, webhooks, live):
        app.include_router(area.router)
    app.mount("/internal", create_reports(config, new_session))
    return app


app = create_app()
