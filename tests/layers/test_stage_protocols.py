"""Every hook of every stage is called as its protocol says (`model/stage.py`)."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from typing import Any

import pytest

import portalshield.layers
from portalshield.model import stage

PROTOCOLS = (stage.Checks, stage.Asks, stage.Concludes, stage.Guards, stage.Judges, stage.Heads, stage.Numbers)
HOOKS = {name: getattr(protocol, name) for protocol in PROTOCOLS for name in vars(protocol) if name[0] != "_"}


def stages() -> list[type[Any]]:
    """All classes of all layers that name their layer."""
    modules = [
        import_module(f"portalshield.layers.{found.name}")
        for found in pkgutil.iter_modules(portalshield.layers.__path__)
    ]
    return [
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and isinstance(getattr(kind, "layer", None), str)
    ]


@pytest.mark.parametrize("kind", stages(), ids=lambda kind: kind.__name__)
def test_hooks_take_what_they_are_given(kind: type[Any]) -> None:
    """The same parameters in the same order; a hook that no protocol knows is called by nobody."""
    for name, expected in HOOKS.items():
        hook = vars(kind).get(name)
        if inspect.isfunction(hook):
            assert [*inspect.signature(hook).parameters] == [*inspect.signature(expected).parameters], name


def test_every_protocol_has_somebody() -> None:
    """Else it describes nothing."""
    found = {name for kind in stages() for name in dir(kind)}
    assert set(HOOKS) <= found
    assert len(stages()) > 15
