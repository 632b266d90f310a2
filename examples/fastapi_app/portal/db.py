"""Engine and sessions."""

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection
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


def get_db(connection: HTTPConnection) -> Iterator[Session]:
    """One database session per request."""
    sessions: Sessions = connection.app.state.sessions
    with sessions() as db:
        yield db


Db = Annotated[Session, Depends(get_db)]
