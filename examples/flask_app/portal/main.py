"""The application: `flask --app portal.main run`."""

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from .config import Config, from_env
from .db import Base, connect, init_app
from .routes import accounts, clients, dashboard, invoices, pages, reports, sessions, tenants, webhooks
from .seed import seed


def create_app(config: Config | None = None) -> Flask:
    """Build the portal and open its database; an empty one is created and seeded."""
    config = config or from_env()
    engine = connect(config.database_url)
    Base.metadata.create_all(engine)
    with Session(engine) as db:
        seed(db)

    app = Flask(__name__)
    app.extensions["portal"] = config
    app.extensions["engine"] = engine
    init_app(app, engine)
    app.register_error_handler(HTTPException, _as_json)
    for area in (pages, accounts, tenants, clients, sessions, invoices, dashboard, webhooks, reports):
        app.register_blueprint(area.bp)
    return app


def _as_json(error: HTTPException) -> ResponseReturnValue:
    return jsonify(detail=error.description), error.code or 500
