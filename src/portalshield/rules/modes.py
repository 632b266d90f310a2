"""Modes of a layer: enforce, report, `report:25%` (a quarter is enforced) or off."""

from __future__ import annotations

from portalshield.rules.values import share

NAMED_ONLY = frozenset(("body", "cors", "webhook"))
"""Layers that a global `MODE=report` does not weaken: they must be named."""


def mode_fault(mode: str) -> bool:
    """The text is no mode."""
    try:
        enforced_share(mode)
    except ValueError:
        return True
    return False


def enforced_share(mode: str) -> float | None:
    """enforce -> 1, report -> 0, `report:25%` -> 0.25, off -> None (the layer is not there)."""
    name, _, rest = mode.strip().lower().partition(":")
    if name == "report":
        return share(rest) if rest else 0.0
    if name == "enforce" and not rest:
        return 1.0
    if name == "off" and not rest:
        return None
    raise ValueError("is no mode: write enforce, report, report:25% or off")


def effective(layer: str, route: str | None, named: str | None, default: str) -> float | None:
    """The route's mode wins, then the layer's, then the default: its `report` never weakens what must be named."""
    if route is not None:
        return enforced_share(route)
    if named is not None:
        return enforced_share(named)
    shared = enforced_share(default)
    if shared != 1 and layer in NAMED_ONLY:
        return 1.0
    return shared
