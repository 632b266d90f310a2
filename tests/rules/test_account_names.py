"""Names that an application might take for one account have one key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.account_names import LONGEST_NAME, AccountKeys, fold

KEYS = AccountKeys(b"secret")


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param("jose@example.com", id="as it is"),
        pytest.param("JOSE@Example.COM", id="upper case"),
        pytest.param("  jose@example.com\t\n", id="blanks around it"),
        pytest.param("jose @example.com", id="a blank inside"),
        pytest.param("jos\u00e9@example.com", id="an accent, composed"),
        pytest.param("jose\u0301@example.com", id="an accent, apart"),
        pytest.param("\uff4a\uff4f\uff53\uff45@example.com", id="full width"),
        pytest.param("jose\u200b@example.com", id="a zero-width space"),
        pytest.param("jose@example.com\x00", id="a zero byte"),
        pytest.param("\u00a0jose@example.com\u3000", id="blanks beyond ASCII"),
        pytest.param("jo\u017fe@example.com", id="a long s"),
        pytest.param(" " * 9000 + "jose@example.com", id="a page of blanks"),
    ],
)
def test_spellings_of_one_account_have_one_key(spelling: str) -> None:
    """Case, accents, blanks, compatibility forms and invisible characters buy no further attempts."""
    assert KEYS.key(spelling) == KEYS.key("jose@example.com")


@pytest.mark.parametrize("name", ["", "   ", "\u200b\u0301", "\x00"])
def test_a_name_without_a_visible_character_has_no_key(name: str) -> None:
    """Nothing to count under."""
    assert KEYS.key(name) == ""


def test_different_accounts_and_secrets_have_different_keys() -> None:
    """Keyed: the same name under another secret is another key, and no key shows the name."""
    keys = {KEYS.key("a@example.com"), KEYS.key("b@example.com"), AccountKeys(b"other").key("a@example.com")}
    assert len(keys) == 3
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_an_empty_secret_is_refused() -> None:
    """BLAKE2 would take it for no key at all."""
    with pytest.raises(ValueError, match="empty"):
        AccountKeys(b"")


@given(st.text(max_size=80))
def test_folding_is_stable_and_bounded(name: str) -> None:
    """Any text, lone surrogates too, has a key; what was folded folds to itself; length is bounded."""
    folded = fold(name)
    assert fold(folded) == folded
    assert len(KEYS.key(name)) in (0, 32)
    assert len(fold(name * 1000)) <= LONGEST_NAME * 18


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_case_never_matters(name: str) -> None:
    """Whatever way a database compares without case, the key is the same."""
    assert KEYS.key(name.casefold()) == KEYS.key(name)
