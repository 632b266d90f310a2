"""For test runs of applications that are shielded: variables, tokens, a clock, a store that fails. No bypass."""

from __future__ import annotations

from portalshield.testing.clock import FrozenClock
from portalshield.testing.reset import reset
from portalshield.testing.stores import FailingStore
from portalshield.testing.tokens import environment, mint_token

__all__ = ["FailingStore", "FrozenClock", "environment", "mint_token", "reset"]
