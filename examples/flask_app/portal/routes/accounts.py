"""Login, password reset, and who am I."""

import logging
from datetime import timedelta

from flask import Blueprint, abort
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from ..auth import current_user, get_config, login_required
from ..db import get_db, utc_now
from ..models import PasswordReset, User
from ..payloads import Json, body, required
from ..security import hash_one_time_token, hash_password, mint_token, new_one_time_token, password_matches

bp = Blueprint("accounts", __name__, url_prefix="/auth")
log = logging.getLogger("portal.mail")


def _user_by_email(email: str) -> User | None:
    return get_db().scalar(select(User).where(User.email == email.lower()))


@bp.post("/login")
def login() -> Json:
    data = body()
    user = _user_by_email(required(data, "email", str))
    if user is None or not password_matches(required(data, "password", str), user.password_hash):
        abort(401, "Wrong email or password")
    config = get_config()
    return {"access_token": mint_token(config, user), "token_type": "bearer", "expires_in": config.token_ttl_s}


@bp.get("/me")
@login_required
def me() -> Json:
    user = current_user()
    return {
        "id": user.id,
        "tenant_id": user.tenant_id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
    }


@bp.post("/password-reset")
def request_password_reset() -> ResponseReturnValue:
    user = _user_by_email(required(body(), "email", str))
    if user is not None:
        token, token_hash = new_one_time_token()
        db = get_db()
        db.add(PasswordReset(user_id=user.id, token_hash=token_hash, expires_at=utc_now() + timedelta(hours=1)))
        db.commit()
        link = f"{get_config().public_url}/reset#token={token}"
        log.warning("No mail server, so here: %s may follow %s", user.email, link)
    return {"status": "If the account exists, a link is on its way."}, 202


@bp.post("/password-reset/confirm")
def confirm_password_reset() -> ResponseReturnValue:
    data = body()
    password = required(data, "password", str)
    if not 10 <= len(password) <= 128:
        abort(400, "Between 10 and 128 characters, please")
    db = get_db()
    token_hash = hash_one_time_token(required(data, "token", str))
    reset = db.scalar(select(PasswordReset).where(PasswordReset.token_hash == token_hash))
    if reset is None or reset.used_at is not None or reset.expires_at < utc_now():
        abort(400, "The link is not valid any more")
    reset.used_at = utc_now()
    reset.user.password_hash = hash_password(password)
    db.commit()
    return "", 204
