"""A small application for the command line's tests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from portalshield import public

app = FastAPI()


@app.get("/tenants/{tenant_id}/clients")
def clients(tenant_id: str) -> dict[str, str]:
    """Strict default."""
    return {"tenant": tenant_id}


@app.post("/auth/login")
@public
def login() -> dict[str, str]:
    """Public, without a limit: a finding."""
    return {}


@public
def forgotten() -> None:
    """Decorated, but no route serves it: a finding."""


def create_app() -> Any:
    """A factory."""
    made = FastAPI()
    made.add_api_route("/made", clients)
    return made
