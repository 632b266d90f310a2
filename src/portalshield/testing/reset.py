"""Between two tests: counters, remembered tokens and looked-up tenants of an application are forgotten."""

from __future__ import annotations

from typing import Any

from portalshield.context import INSTALLED


def reset(app: Any) -> None:
    """Forget what the shield of this application counted and remembered. `LookupError` if it has none."""
    held = getattr(getattr(app, "state", None), INSTALLED, None) or getattr(app, "extensions", {}).get(INSTALLED)
    if held is None:
        raise LookupError("this application has no shield")
    held.protection.forget()
