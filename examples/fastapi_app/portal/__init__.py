"""A client portal for coaching practices: FastAPI, SQLAlchemy, SQLite."""
