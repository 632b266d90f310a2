"""Engine and sessions."""

import sqlite3
import time
from datetime import UTC, datetime
from typing import Any

from flask import Flask, current_app, g
from sqlalchemy import DateTime, Dialect, Engine, StaticPool, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.types import TypeDecorator

Sessions = sessionmaker[Session]


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime; SQLite forgets the zone, so UTC is stored."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The tables of the portal."""


def utc_now() -> datetime:
    """This moment."""
    return datetime.fromtimestamp(time.time(), tz=UTC)


def connect(url: str) -> Engine:
    """An engine for a SQLite address; `sqlite://` is one database in memory, shared by all threads."""
    if url in ("sqlite://", "sqlite:///:memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(url)
    event.listen(engine, "connect", _check_foreign_keys)
    return engine


def _check_foreign_keys(connection: sqlite3.Connection, record: Any) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


def init_app(app: Flask, engine: Engine) -> None:
    """One database session per request, closed at its end."""
    app.extensions["sessions"] = sessionmaker(engine, expire_on_commit=False)
    app.teardown_appcontext(_close)


def get_db() -> Session:
    """The session of this request."""
    if "db" not in g:
        sessions: Sessions = current_app.extensions["sessions"]
        g.db = sessions()
    db: Session = g.db
    return db


def _close(error: BaseException | None) -> None:
    db: Session | None = g.pop("db", None)
    if db is not None:
        db.close()
