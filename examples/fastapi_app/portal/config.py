"""What the portal reads from its environment."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """Where data lies and with what tokens are signed. Token lifetimes are in seconds."""

    database_url: str = "sqlite:///portal.db"
    uploads: Path = Path("uploads")
    public_url: str = "https://portal.example.com"
    token_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    token_issuer: str = "https://portal.example.com"
    token_audience: str = "portal"
    token_ttl_s: int = 3600


def from_env() -> Config:
    """The configuration of this process. Without a token secret every start signs with a new one."""
    env = os.environ
    return Config(
        database_url=env.get("PORTAL_DATABASE_URL", "sqlite:///portal.db"),
        uploads=Path(env.get("PORTAL_UPLOADS", "uploads")),
        public_url=env.get("PORTAL_PUBLIC_URL", "https://portal.example.com"),
        token_secret=env.get("PORTALSHIELD_AUTH__SECRET") or secrets.token_urlsafe(48),
        token_issuer=env.get("PORTALSHIELD_AUTH__ISSUER", "https://portal.example.com"),
        token_audience=env.get("PORTALSHIELD_AUTH__AUDIENCE", "portal"),
    )
