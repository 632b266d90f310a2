"""Passwords, access tokens and one-time tokens."""

import hashlib
import hmac
import secrets
import time
from typing import Any

import jwt

from .config import Config
from .models import User

SCOPES = {
    "coach": "clients:read clients:write sessions:write invoices:read invoices:write",
    "assistant": "clients:read",
}


def hash_password(password: str) -> str:
    """`scrypt$salt$digest`, both in hex."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def password_matches(password: str, stored: str) -> bool:
    """Compare a password with what `hash_password` stored."""
    _, salt, digest = stored.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(digest))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def mint_token(config: Config, user: User) -> str:
    """The access token that a login answers with."""
    now = int(time.time())
    claims = {
        "sub": str(user.id),
        "tenant_id": user.tenant_id,
        "roles": [user.role],
        "scope": SCOPES[user.role],
        "iss": config.token_issuer,
        "aud": config.token_audience,
        "iat": now,
        "exp": now + config.token_ttl_s,
    }
    return jwt.encode(claims, config.token_secret, algorithm="HS256")


def read_token(config: Config, token: str) -> dict[str, Any]:
    """The claims of a valid access token; raises `jwt.InvalidTokenError`."""
    claims: dict[str, Any] = jwt.decode(
        token,
        config.token_secret,
        algorithms=["HS256"],
        issuer=config.token_issuer,
        audience=config.token_audience,
    )
    return claims


def new_one_time_token() -> tuple[str, str]:
    """A token for a link, and the hash of it that is stored."""
    token = secrets.token_urlsafe(32)
    return token, hash_one_time_token(token)


def hash_one_time_token(token: str) -> str:
    """What a one-time token is stored and looked up as."""
    return hashlib.sha256(token.encode()).hexdigest()
