"""Pseudonyms: keyed, bound to domain and tenant, rotatable, of one shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.pseudonyms import PREFIXES, Pseudonyms

KEY = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
NAMES = Pseudonyms(KEY)


@pytest.mark.parametrize(
    ("domain", "value", "tenant", "expected"),
    [
        pytest.param("user", "user-1", "acme", "u_f8ce36f8e2e58488", id="user in a tenant"),
        pytest.param("tenant", "acme", "", "t_27ae73491c2bab60", id="tenant"),
        pytest.param("email", "alice@example.com", "", "e_282276228367c75f", id="e-mail"),
    ],
)
def test_known_answers(domain: str, value: str, tenant: str, expected: str) -> None:
    """The construction does not change between versions: old lines stay joinable."""
    assert NAMES.name(domain, value, tenant) == expected  # type: ignore[arg-type]


def test_key_id_is_known() -> None:
    """The id that goes into every line is derived from the key and stable."""
    assert NAMES.key_id == "a87b59"
    assert Pseudonyms(OTHER).key_id != NAMES.key_id


def test_same_user_in_two_tenants_is_unlinkable() -> None:
    """The tenant is part of the message."""
    assert NAMES.name("user", "u1", "a") != NAMES.name("user", "u1", "b")


def test_value_and_tenant_do_not_run_together() -> None:
    """`("ab", "c")` and `("a", "bc")` are different."""
    assert NAMES.name("user", "bc", "a") != NAMES.name("user", "c", "ab")


def test_domains_cannot_be_joined() -> None:
    """The same text as user, e-mail, address and path gives different digits."""
    digits = {NAMES.name(domain, "x")[2:] for domain in PREFIXES}
    assert len(digits) == len(PREFIXES)


def test_case_and_composition_do_not_matter() -> None:
    """`É` in one or two code points, upper or lower case, is one name."""
    assert NAMES.name("email", "E\u0301VA@x.fr") == NAMES.name("email", "\u00e9va@x.fr")


def test_rotation_finds_both_names() -> None:
    """After a rotation a value is found under the current key and under the one before."""
    rotated = Pseudonyms(OTHER, previous=KEY)
    assert rotated.name("user", "u1") == Pseudonyms(OTHER).name("user", "u1")
    assert rotated.candidates("user", "u1") == (
        (rotated.key_id, Pseudonyms(OTHER).name("user", "u1")),
        (NAMES.key_id, NAMES.name("user", "u1")),
    )


@pytest.mark.parametrize("key", [pytest.param(b"", id="empty"), pytest.param(b"x" * 15, id="15 bytes")])
def test_short_key_is_refused_without_showing_it(key: bytes) -> None:
    """A guessable key is no key; the message does not repeat it."""
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Pseudonyms(key)


@given(st.text(alphabet=st.characters(), max_size=200), st.text(max_size=50))
def test_shape_is_constant(value: str, tenant: str) -> None:
    """Any text, lone surrogates included, gives a prefix and 16 hex digits."""
    assert re.fullmatch(r"u_[0-9a-f]{16}", NAMES.name("user", value, tenant))
