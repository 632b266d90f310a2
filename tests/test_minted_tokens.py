"""Tokens for test runs: verified like any other, and expired where that is asked for."""

from __future__ import annotations

import time

import pytest

from portalshield.protection import Protection
from portalshield.rules.jws import TokenError
from portalshield.settings import Settings
from portalshield.testing.tokens import environment, mint_token


@pytest.mark.parametrize("leeway", ["0s", "30s", "119.5s"])
def test_a_negative_life_has_expired_whatever_the_leeway(leeway: str) -> None:
    """`ttl_s=-1` is refused as expired at the very moment it was minted; a second of life is accepted."""
    settings = Settings.from_env(environment(AUTH__LEEWAY=leeway))
    authority, now = Protection(settings).authority, time.time()
    assert authority is not None
    for ttl_s in (-0.5, -1, -3600):
        with pytest.raises(TokenError) as refused:
            authority.verify(mint_token(settings, ttl_s=ttl_s, now=now).encode(), now, "bearer")
        assert refused.value.code == "expired"
    living = mint_token(settings, tenant="north", ttl_s=1, now=now).encode()
    assert authority.verify(living, int(now), "bearer").tenant == "north"
