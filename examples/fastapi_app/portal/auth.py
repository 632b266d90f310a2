"""Who is calling: the bearer token of the request."""

from typing import Annotated

import jwt
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .config import Config
from .db import Db
from .models import User
from .security import read_token

_bearer = HTTPBearer(auto_error=False)


def get_config(request: Request) -> Config:
    """The configuration of the running portal."""
    config: Config = request.app.state.config
    return config


Settings = Annotated[Config, Depends(get_config)]


def get_current_user(
    db: Db, config: Settings, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> User:
    """The user whose token came along, else 401."""
    unauthorized = HTTPException(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    if credentials is None:
        raise unauthorized
    try:
        claims = read_token(config, credentials.credentials)
    except jwt.InvalidTokenError:
        raise unauthorized from None
    user = db.get(User, int(claims["sub"]))
    if user is None:
        raise unauthorized
    return user


CurrentUser = Annotated[User, Depends(get_current_user)]
