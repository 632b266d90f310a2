"""FastAPI: dependencies for handlers. `Depends(principal)` also puts the bearer scheme into OpenAPI."""

from __future__ import annotations

from typing import Any

from fastapi import Depends
from fastapi.security import HTTPBearer

from portalshield.context import current_principal
from portalshield.context import payload as current_payload
from portalshield.model.principal import Principal

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="JWT")
_DECLARED = Depends(_bearer)


async def principal(_declared: Any = _DECLARED) -> Principal:
    """The verified caller. `LookupError` on a public route without a credential."""
    return current_principal()


async def payload() -> Any:
    """The object that `body=Model` validated, instead of parsing the body again."""
    return current_payload()
