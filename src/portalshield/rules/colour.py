"""Is a function of the application's async? Asked once per function, at start."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any


@lru_cache(maxsize=1024)
def is_async(function: Callable[..., Any]) -> bool:
    """Calling it gives an awaitable: an `async def`, a partial of one, an object whose `__call__` is one."""
    while hasattr(function, "func"):
        function = function.func
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)
