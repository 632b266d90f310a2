"""Revoked tokens: by id, session, subject, tenant and issuer; nothing is forgotten early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules import revocation
from portalshield.rules.revocation import KINDS, NONE, Kind, Revocation
from portalshield.rules.token_cache import Handles

HANDLES = Handles(token_id="j1", session_id="s1", subject="u1", tenant="north", issued_at=100.0)
OWN: dict[Kind, str] = {"jti": "j1", "sid": "s1", "subject": "u1", "tenant": "north", "issuer": "https://a.example"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_refuses_what_was_issued_before(kind: Kind) -> None:
    """An entry names one handle; a token issued later is a new one."""
    entry = Revocation(kind, OWN[kind], before=150.0, until=1000.0)
    held = NONE.with_all([entry], now=150.0)
    assert held.refuse(HANDLES, "https://a.example")
    assert not held.refuse(HANDLES._replace(issued_at=151.0), "https://a.example")
    assert held.refuse(HANDLES._replace(issued_at=None), "https://a.example")


@pytest.mark.parametrize("kind", KINDS)
def test_another_value_is_not_touched(kind: Kind) -> None:
    """Only what is named."""
    held = NONE.with_all([Revocation(kind, "other", 150.0, 1000.0)], now=150.0)
    assert not held.refuse(HANDLES, "https://a.example")


def test_an_ended_entry_is_dropped_when_the_next_one_comes() -> None:
    """Entries live until every token they name has expired."""
    held = NONE.with_all([Revocation("jti", "j1", 150.0, 200.0)], now=150.0)
    assert held.with_all([Revocation("jti", "j2", 250.0, 300.0)], now=250.0).entries.keys() == {("jti", "j2")}


@given(st.permutations([100.0, 200.0, 300.0]))
def test_the_latest_not_before_counts_in_any_order(befores: list[float]) -> None:
    """Two workers may revoke the same subject; the order of arrival changes nothing."""
    held = NONE
    for before in befores:
        held = held.with_all([Revocation("subject", "u1", before, 1000.0)], now=0.0)
    assert held.entries[("subject", "u1")].before == 300.0


def test_too_many_entries_are_an_error_not_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgetting one would let a token back in."""
    monkeypatch.setattr(revocation, "MAX_ENTRIES", 3)
    rows = [Revocation("jti", str(n), 1.0, 10.0) for n in range(4)]
    with pytest.raises(OverflowError, match="revoke a subject"):
        NONE.with_all(rows, now=0.0)
