"""Login, password reset, and who am I."""

import logging
from datetime import timedelta

from fastapi import APIRouter, HTTPException
from sqlalchemy import select

from ..auth import CurrentUser, Settings
from ..db import Db, utc_now
from ..models import PasswordReset, User
from ..schemas import LoginIn, PasswordResetConfirmIn, PasswordResetIn, TokenOut, UserOut
from ..security import hash_one_time_token, hash_password, mint_token, new_one_time_token, password_matches

router = APIRouter(prefix="/auth", tags=["auth"])
log = logging.getLogger("portal.mail")


@router.post("/login")
def login(data: LoginIn, db: Db, config: Settings) -> TokenOut:
    user = db.scalar(select(User).where(User.email == data.email.lower()))
    if user is None or not password_matches(data.password, user.password_hash):
        raise HTTPException(401, "Wrong email or password")
    return TokenOut(access_token=mint_token(config, user), expires_in=config.token_ttl_s)


@router.get("/me", response_model=UserOut)
def me(user: CurrentUser) -> User:
    return user


@router.post("/password-reset", status_code=202)
def request_password_reset(data: PasswordResetIn, db: Db, config: Settings) -> dict[str, str]:
    user = db.scalar(select(User).where(User.email == data.email.lower()))
    if user is not None:
        token, token_hash = new_one_time_token()
        db.add(PasswordReset(user_id=user.id, token_hash=token_hash, expires_at=utc_now() + timedelta(hours=1)))
        db.commit()
        log.warning("No mail server, so here: %s may follow %s/reset#token=%s", user.email, config.public_url, token)
    return {"status": "If the account exists, a link is on its way."}


@router.post("/password-reset/confirm", status_code=204)
def confirm_password_reset(data: PasswordResetConfirmIn, db: Db) -> None:
    reset = db.scalar(select(PasswordReset).where(PasswordReset.token_hash == hash_one_time_token(data.token)))
    if reset is None or reset.used_at is not None or reset.expires_at < utc_now():
        raise HTTPException(400, "The link is not valid any more")
    reset.used_at = utc_now()
    reset.user.password_hash = hash_password(data.password)
    db.commit()
