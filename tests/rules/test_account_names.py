"""Names that an application might take for one account have one key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.account_names import LONGEST_NAME, AccountKeys, NameTooLongError, fold

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
        pytest.param("j\u00f8se@example.com", id="a letter with a stroke"),
        pytest.param("jose@example\U000e0041.com", id="what is no character"),
        pytest.param(" " * 9000 + "jose@example.com", id="a page of blanks"),
    ],
)
def test_spellings_of_one_account_have_one_key(spelling: str) -> None:
    """Case, accents, blanks, compatibility forms and invisible characters buy no further attempts."""
    assert KEYS.key(spelling) == KEYS.key("jose@example.com")


@pytest.mark.parametrize("name", ["   ", "\u200b\u0301", "\x00", "\u3164"])
def test_a_name_without_a_visible_character_is_one_account(name: str) -> None:
    """Whatever it is made of: an application may ignore the same and enter somebody's."""
    assert KEYS.key(name) == KEYS.key("\u200b") != ""


def test_an_empty_name_has_no_key() -> None:
    """Nothing to count under."""
    assert KEYS.key("") == ""


@pytest.mark.parametrize("filler", ["\u200b", "\u00ad", "a", "\u0301"])
def test_a_name_is_never_cut(filler: str) -> None:
    """The longest has a key that ends with it; a longer one is refused."""
    long = filler * (LONGEST_NAME - 1)
    assert KEYS.key(long + "x") != KEYS.key(long + "y")
    with pytest.raises(NameTooLongError):
        KEYS.key(long + "xy")


def test_every_character_folds_whatever_its_case() -> None:
    """All of Unicode: what was folded stays, and no way to change case makes another account."""
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        name = f"a{chr(code)}b"
        folded = fold(name)
        assert {fold(other) for other in (folded, name.upper(), name.lower(), name.casefold())} == {folded}, hex(code)


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        ("\u0131", "i"),
        ("\u0130", "i"),
        ("\u00e6\u0153", "aeoe"),
        ("\u0142\u0111\u0127\u0167", "ldht"),
        ("\u1e9e", "ss"),
        ("\u00f0\u00fe", "dth"),
        ("\U0001f600", "\ufffd"),
    ],
)
def test_letters_that_normalisation_leaves_alone(spelling: str, plain: str) -> None:
    """Strokes, ligatures, dotless and dotted i; emoji are one character to older collations."""
    assert fold(spelling) == fold(spelling.upper()) == plain


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
    """Any text, lone surrogates too, has a key; what was folded folds to itself, if it is no longer than names are."""
    folded = fold(name)
    assert len(folded) > LONGEST_NAME or fold(folded) == folded
    assert len(KEYS.key(name)) == (32 if name else 0)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_case_never_matters(name: str) -> None:
    """Whatever way a database compares without case, the key is the same."""
    assert KEYS.key(name.casefold()) == KEYS.key(name)
