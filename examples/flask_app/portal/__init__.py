"""A client portal for coaching practices: Flask, SQLAlchemy, SQLite."""
