"""The cache of verified tokens: what it serves, until when, and how much it holds."""

from __future__ import annotations

import sys
import threading
from dataclasses import FrozenInstanceError
from hashlib import sha256
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portalshield.rules.token_cache import Entry, Handles, TokenCache

NOW = 1_800_000_000.0
GENERATIONS = {"main": 3, "other": 0}


class Someone(NamedTuple):
    """Stands for a principal: the cache only keeps and returns it."""

    subject: str


def someone(subject: str) -> Any:
    """A principal of this subject."""
    return cast(Any, Someone(subject))


def put(cache: TokenCache, name: str, now: float = NOW, **terms: Any) -> None:
    """Remember the token `name` for the subject `name`."""
    cache.put(name.encode(), someone(name), **{"issuer": "main", "generation": 3, "now": now, **terms})


def subject(cache: TokenCache, name: str, now: float = NOW, generations: dict[str, int] = GENERATIONS) -> str | None:
    """Whom the cache says the token `name` proves."""
    entry = cache.get(name.encode(), generations, now)
    return entry.principal.subject if entry else None


def test_a_token_is_remembered_with_all_it_proves() -> None:
    """Principal, issuer, generation and the handles to revoke it by."""
    cache = TokenCache()
    handles = Handles("t1", "s1", "u1", "acme", NOW - 5)
    cache.put(b"t", someone("u1"), issuer="main", generation=3, now=NOW, valid_until=NOW + 50, handles=handles)
    entry = cache.get(b"t", GENERATIONS, NOW)
    assert isinstance(entry, Entry)
    assert (entry.principal.subject, entry.issuer, entry.generation, entry.handles) == ("u1", "main", 3, handles)
    with pytest.raises(FrozenInstanceError):
        entry.issuer = "other"  # type: ignore[misc]


def test_an_unknown_token_is_a_miss() -> None:
    """Also one that differs in a single byte."""
    cache = TokenCache()
    put(cache, "a.b.c")
    assert subject(cache, "a.b.d") is None
    assert subject(cache, "a.b.c ") is None
    assert subject(cache, "a.b.c") == "a.b.c"


@pytest.mark.parametrize(
    ("terms", "at", "served"),
    [
        pytest.param({"valid_until": NOW + 10}, 9.999, True, id="before exp"),
        pytest.param({"valid_until": NOW + 10}, 10, False, id="at exp"),
        pytest.param({"valid_until": NOW + 10}, 11, False, id="after exp"),
        pytest.param({"valid_from": NOW - 1}, -1, True, id="at nbf"),
        pytest.param({"valid_from": NOW - 1}, -1.001, False, id="the clock went back before nbf"),
        pytest.param({"valid_until": NOW + 1000}, 59.999, True, id="younger than the maximum age"),
        pytest.param({"valid_until": NOW + 1000}, 60, False, id="as old as the maximum age"),
        pytest.param({}, 60, False, id="without exp: the maximum age"),
        pytest.param({}, -60.001, False, id="the clock went back further than the maximum age"),
    ],
)
def test_an_entry_ends_to_the_second(terms: dict[str, float], at: float, served: bool) -> None:
    """With `exp`, `nbf` and the maximum age of 60 s, whichever comes first."""
    cache = TokenCache()
    put(cache, "t", **terms)
    assert (subject(cache, "t", NOW + at) is not None) is served


def test_a_withdrawn_key_ends_what_it_signed() -> None:
    """Another generation, and an issuer that is not configured (any more), are misses."""
    cache = TokenCache()
    put(cache, "t")
    assert subject(cache, "t", generations={"main": 4}) is None
    assert subject(cache, "t", generations={"main": 2}) is None
    assert subject(cache, "t", generations={"other": 3}) is None
    assert subject(cache, "t", generations={"main": 3}) == "t"


def test_the_token_itself_is_not_kept() -> None:
    """Only its SHA-256: a memory dump gives no credential away."""
    cache = TokenCache()
    put(cache, "header.payload.signature")
    assert list(cache._young) == [sha256(b"header.payload.signature").digest()]


def test_clear_forgets_everything() -> None:
    """A new configuration starts empty."""
    cache = TokenCache()
    put(cache, "t")
    cache.clear()
    assert subject(cache, "t") is None
    assert len(cache) == 0


def test_zero_entries_switch_it_off() -> None:
    """Nothing is stored, every look-up is a miss."""
    cache = TokenCache(0)
    put(cache, "t")
    assert subject(cache, "t") is None
    assert len(cache) == 0


def test_what_is_used_stays_what_is_not_goes() -> None:
    """A hit in the old generation moves up; two generations later the unused ones are gone."""
    cache = TokenCache(8)
    put(cache, "kept")
    put(cache, "idle")
    for number in range(40):
        put(cache, f"n{number}")
        assert subject(cache, "kept") == "kept"
    assert subject(cache, "idle") is None


def test_an_ended_entry_does_not_move_up() -> None:
    """Otherwise dead tokens would push out living ones."""
    cache = TokenCache(4)
    put(cache, "dead", valid_until=NOW + 1)
    put(cache, "a")
    put(cache, "b")
    assert subject(cache, "dead", NOW + 2) is None
    assert len(cache._young) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120))
def test_it_never_holds_more_than_configured_nor_a_foreign_principal(size: int, steps: list[tuple[bool, int]]) -> None:
    """Whatever is put and asked in whatever order (one entry means two generations of one)."""
    cache = TokenCache(size)
    for store, number in steps:
        if store:
            put(cache, f"n{number}")
        assert subject(cache, f"n{number}") in (None, f"n{number}")
        assert len(cache) <= max(size, 2)


def test_threads_never_see_a_foreign_principal() -> None:
    """Eight threads put and ask at once, rotating all the time: own answers only, bounded, no error."""
    cache = TokenCache(64)
    wrong: list[str] = []

    def work(seed: int) -> None:
        try:
            for step in range(3000):
                name = f"n{(seed * 31 + step * 7) % 200}"
                if step % 3 == 0:
                    put(cache, name)
                if subject(cache, name) not in (None, name):
                    wrong.append(name)
        except Exception as error:
            wrong.append(repr(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(cache) <= 64 + 2 * 8
