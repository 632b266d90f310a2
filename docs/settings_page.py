"""Prints docs/settings.md from the config models: `python docs/settings_page.py > docs/settings.md`."""

from __future__ import annotations

import sys
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from portalshield import Secret
from portalshield.settings import FALLBACKS, PREFIX, PROJECT, Variable, variables

HEADER = """\
# Settings

Generated from the config models by `make settings`; do not edit.

Every setting is an environment variable. Lists are separated by commas. Durations: `30s`, `15m`, `24h`, `7d`; a bare
number is seconds. Sizes: `500KB`, `2MB` (2,000,000), `1MiB` (1,048,576); a bare number is bytes. Booleans: `true`,
`false`, `1`, `0`. Shares: `0.25` or `25%`. An unknown name stops the start, with "did you mean". All mistakes are
reported at once, each with its id, and never with a value.

For Flask, `app.config["PORTALSHIELD_..."]` wins over the environment.

| variable | type | default | meaning |
| --- | --- | --- | --- |
"""
_UNITS = {"seconds": "duration", "bytes": "size", "share": "share", "entries": "number"}
_KINDS: dict[Any, str] = {bool: "boolean", int: "number", float: "number", str: "text", Secret: "secret"}
_DURATIONS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_SIZES = ((2**20, "MiB"), (2**10, "KiB"), (1, ""))


def page() -> str:
    """The whole page, with its last line end."""
    fallbacks = [f"`{name}` is read where `{own}` is unset." for name, own in FALLBACKS.items()]
    fallbacks.append(f"With `{PREFIX}AUTH=supabase`, `{PROJECT}` is read where `{PREFIX}AUTH__ISSUER` is unset.")
    return HEADER + "".join(map(row, variables())) + "\n" + "\n".join(fallbacks) + "\n"


def row(variable: Variable) -> str:
    """One line of the table."""
    cells = (f"`{variable.name}`", kind(variable), default(variable), variable.setting.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def kind(variable: Variable) -> str:
    """What the text of the variable is read as; the words it may be, where there are few."""
    unit = variable.setting.unit
    if unit:
        return _UNITS[unit]
    plain = _plain(variable.type)
    if get_origin(plain) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(plain))
    return "list" if get_origin(plain) is tuple else _KINDS[plain]


def default(variable: Variable) -> str:
    """The default as it would be written; nothing of a secret."""
    value = variable.default
    if _plain(variable.type) is Secret or value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    if variable.setting.unit == "seconds":
        return f"`{_largest(value, _DURATIONS)}`"
    return f"`{_largest(value, _SIZES)}`" if variable.setting.unit == "bytes" else f"`{value}`"


def _largest(value: float, units: tuple[tuple[int, str], ...]) -> str:
    """In the largest unit that divides it: 7200 -> 2h, 1048576 -> 1MiB."""
    size, name = next((size, name) for size, name in units if (value >= size and value % size == 0) or size == 1)
    return f"{value / size:g}{name}"


def _plain(annotation: Any) -> Any:
    """`X | None` -> `X`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(item for item in get_args(annotation) if item is not NoneType)
    return annotation


if __name__ == "__main__":
    sys.stdout.write(page())
