"""The notation of quotas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.model.needs import Quota
from portalshield.rules.quotas import MAX_AMOUNT, MAX_CHARS, parse_quotas


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        pytest.param("300/minute", [("ip-per-minute", 300, 60)], id="slash"),
        pytest.param("5 per 15 minutes", [("ip-per-15-minutes", 5, 900)], id="per with a multiple"),
        pytest.param("1 PER Day", [("ip-per-day", 1, 86_400)], id="any case"),
        pytest.param("10/second; 100/hour", [("ip-per-second", 10, 1), ("ip-per-hour", 100, 3600)], id="two"),
        pytest.param("10/second,100/hour|1/month", None, id="all separators"),
        pytest.param("9/minute; 4/minute", [("ip-per-minute", 4, 60)], id="the smaller of one window"),
        pytest.param("4/60 seconds; 9/minute", [("ip-per-60-seconds", 4, 60)], id="one window spelt twice"),
    ],
)
def test_notation_of_limits(notation: str, expected: list[tuple[str, int, int]] | None) -> None:
    """Quotas come in their order with readable names, one per window."""
    found = parse_quotas(notation, "ip", "moving-window")
    if expected is None:
        assert [quota.window_s for quota in found] == [1, 3600, 30 * 86_400]
    else:
        assert list(found) == [Quota(*row, strategy="moving-window") for row in expected]


@pytest.mark.parametrize(
    "notation",
    [
        pytest.param("", id="empty"),
        pytest.param("hunter2", id="no quota"),
        pytest.param("5/fortnight-hunter2", id="unknown unit"),
        pytest.param("-5/minute", id="negative"),
        pytest.param("5.5/minute", id="fraction"),
        pytest.param("0/minute", id="nothing allowed"),
        pytest.param("5/minute; 0/hour", id="nothing allowed, second"),
        pytest.param(f"{MAX_AMOUNT + 1}/minute", id="amount too large"),
        pytest.param("5/11 years", id="window too long"),
        pytest.param("9" * 5000 + "/minute", id="endless digits"),
        pytest.param("٣/minute", id="digits that are not ASCII"),
        pytest.param("5/minute;" * MAX_CHARS, id="too long"),
        pytest.param("5/minute;hunter2", id="second is none"),
    ],
)
def test_what_is_no_quota_is_refused_without_repeating_it(notation: str) -> None:
    """A mistake raises `ValueError`, and its text shows nothing of what was written."""
    with pytest.raises(ValueError, match=r"^(is|has|allows) ") as caught:
        parse_quotas(notation, "ip")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_policy_is_told_what_a_quota_looks_like() -> None:
    """Its limit is one term of many; a setting is nothing but its quota."""
    with pytest.raises(ValueError, match=r"^has a limit that is no quota: write 5/minute$"):
        parse_quotas("lots", "route-subject")


def test_unknown_strategy_is_refused() -> None:
    """Only the three strategies of `limits` exist."""
    with pytest.raises(ValueError, match="strategy"):
        parse_quotas("5/minute", "ip", "leaky-bucket")


@given(st.text(alphabet="0123456789 /;,|persminutehoday", max_size=40))
def test_any_text_is_quotas_or_a_value_error(text: str) -> None:
    """Whatever is written: distinct windows with positive amounts, or `ValueError`."""
    try:
        found = parse_quotas(text, "ip")
    except ValueError:
        return
    assert found
    assert len({quota.window_s for quota in found}) == len({quota.name for quota in found}) == len(found)
    assert all(quota.amount >= 1 and quota.window_s >= 1 for quota in found)
