"""Quotas in the notation of `limits`: `300/minute`, `5 per 15 minutes; 100/day`."""

from __future__ import annotations

from limits import RateLimitItem, parse_many

from portalshield.model.needs import Quota
from portalshield.rules.windows import STRATEGIES

MAX_AMOUNT = 1_000_000_000
MAX_WINDOW_S = 10 * 366 * 86_400
MAX_CHARS = 1_000
"""A notation longer than this is a mistake, not a policy."""


def parse_quotas(notation: str, name: str, strategy: str = "fixed-window") -> tuple[Quota, ...]:
    """The quotas of a notation, in its order, one per window (of two with the same window the smaller rules).

    `name` says what is limited (`ip`); each policy is named after it and its window: `ip-per-15-minutes`. Raises
    `ValueError` with a text that continues "the setting ..." and never repeats what was written.
    """
    if strategy not in STRATEGIES:
        raise ValueError("has a strategy that is none of " + ", ".join(STRATEGIES))
    quotas: dict[int, Quota] = {}
    for number, item in enumerate(_items(notation, name), 1):
        window_s = item.get_expiry()
        _bounded(number, item.amount, window_s)
        held = quotas.get(window_s)
        if held is None or item.amount < held.amount:
            quotas[window_s] = Quota(f"{name}-per-{_period(item)}", item.amount, window_s, strategy)
    return tuple(quotas.values())


def _items(notation: str, name: str) -> list[RateLimitItem]:
    # limits takes any digit (`isdigit` knows more than ASCII) and repeats the text in its errors: neither gets through.
    if notation and len(notation) <= MAX_CHARS and notation.isascii():
        try:
            return parse_many(notation)
        except ValueError:
            pass
    # A setting is nothing but its quota; a policy has much else, so there it is said what is meant.
    raise ValueError("has a limit that is no quota: write 5/minute" if name.startswith("route") else "is no quota")


def _bounded(number: int, amount: int, window_s: int) -> None:
    if amount < 1:
        raise ValueError(f"allows no request at all in quota {number}")
    if amount > MAX_AMOUNT:
        raise ValueError(f"allows more than {MAX_AMOUNT} requests in quota {number}")
    if window_s > MAX_WINDOW_S:
        raise ValueError(f"has a window of more than ten years in quota {number}")


def _period(item: RateLimitItem) -> str:
    unit = item.GRANULARITY.name
    return unit if item.multiples == 1 else f"{item.multiples}-{unit}s"
