"""Who is calling: the bearer token of the request."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jwt
from flask import current_app, g, request
from werkzeug.exceptions import Unauthorized

from .config import Config
from .db import get_db
from .models import User
from .security import read_token

P = ParamSpec("P")
R = TypeVar("R")


def get_config() -> Config:
    """The configuration of the running portal."""
    config: Config = current_app.extensions["portal"]
    return config


def current_user() -> User:
    """The user that `login_required` found."""
    user: User = g.user
    return user


def login_required(view: Callable[P, R]) -> Callable[P, R]:
    """Answer 401 unless a valid token came along."""

    @wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        g.user = _load_user()
        return view(*args, **kwargs)

    return wrapped


def _load_user() -> User:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("Not authenticated")
    try:
        claims = read_token(get_config(), token)
    except jwt.InvalidTokenError:
        raise Unauthorized("Not authenticated") from None
    user = get_db().get(User, int(claims["sub"]))
    if user is None:
        raise Unauthorized("Not authenticated")
    return user
