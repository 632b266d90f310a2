"""The environment variables that config models declare: their names, and their texts read as what the fields are.

A variable's name is the group's name and the field's name, joined by `__`, behind a prefix; a field with `own=True` has
the group's own name (`AUTH` beside `AUTH__ISSUER`), and a mapping has entries that the user names
(`AUTH__ISSUERS__<NAME>__ISSUER`). Every mistake is told, never a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase, digits
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from portalshield.model.secret import Secret
from portalshield.model.setting import ConfigurationProblem, Setting
from portalshield.rules import values
from portalshield.rules.nearest import did_you_mean

NAME = "<NAME>"
"""Stands in a variable for a name that the user chooses."""

_NAME_CHARS = frozenset(ascii_uppercase + digits + "_")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, where its value goes, its type, its description, its default."""

    name: str
    path: tuple[str, ...]
    type: Any
    setting: Setting
    default: Any


def declared(model: type[BaseModel], prefix: str, path: tuple[str, ...] = ()) -> list[Variable]:
    """Every variable that `model` and the models inside it declare, in their order."""
    found: list[Variable] = []
    for name, field in model.model_fields.items():
        here = (*path, name)
        if (entry := _entry(field)) is not None:
            found += declared(entry, f"{prefix}{name.upper()}__{NAME}__", (*here, NAME))
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += declared(field.annotation, f"{prefix}{name.upper()}__", here)
            continue
        setting = _setting(field)
        own = f"{prefix}{name.rstrip('_').upper()}" if not setting.own else prefix.removesuffix("__")
        found.append(Variable(own, here, field.annotation, setting, field.get_default(call_default_factory=True)))
    return found


def _entry(field: FieldInfo) -> type[BaseModel] | None:
    """The model of each entry of a group by name (`AUTH__ISSUERS__<NAME>__...`); None: no such group."""
    if get_origin(field.annotation) is not Mapping:
        return None
    model: type[BaseModel] = get_args(field.annotation)[1]
    return model


def _setting(field: FieldInfo) -> Setting:
    return next(item for item in field.metadata if isinstance(item, Setting))


def parse(texts: Mapping[str, str], variables: list[Variable]) -> tuple[dict[str, Any], list[ConfigurationProblem]]:
    """The values as a tree for the model, and every text that names no variable or does not parse."""
    known = {variable.name: variable for variable in variables if NAME not in variable.name}
    named = [variable for variable in variables if NAME in variable.name]
    parsed: dict[str, Any] = {}
    mistakes: list[ConfigurationProblem] = []
    for name in sorted(texts):
        variable = known.get(name) or _named(name, named)
        if variable is None:
            hint = did_you_mean(name, [*known, *_entry_names(name, named)])
            mistakes.append(ConfigurationProblem("PS-ENV-001", name, "is not a variable of portalshield.", hint))
            continue
        try:
            value = _parser(variable)(texts[name])
        except ValueError as error:
            mistakes.append(
                ConfigurationProblem("PS-ENV-002", name, f"{error}.", _nearest_choice(variable, texts[name]))
            )
            continue
        _put(parsed, variable.path, value)
    return parsed, mistakes


def _named(name: str, named: Iterable[Variable]) -> Variable | None:
    """The variable of an entry that the user named, with its path; the name is upper case here, lower in the tree."""
    for variable in named:
        start, _, end = variable.name.partition(NAME)
        chosen = name[len(start) : len(name) - len(end)]
        if name == start + chosen + end and _is_entry_name(chosen):
            path = tuple(chosen.lower() if part == NAME else part for part in variable.path)
            return replace(variable, name=name, path=path)
    return None


def _is_entry_name(text: str) -> bool:
    return 0 < len(text) <= 40 and set(text) <= _NAME_CHARS and "__" not in text and text.strip("_") == text


def _entry_names(name: str, named: Iterable[Variable]) -> list[str]:
    """The variables that the entry this name seems to belong to has, for "did you mean"."""
    found = []
    for variable in named:
        start = variable.name.partition(NAME)[0]
        chosen = name.removeprefix(start).partition("__")[0]
        if name.startswith(start) and _is_entry_name(chosen):
            found.append(variable.name.replace(NAME, chosen))
    return found


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _parser(variable: Variable) -> Callable[[str], Any]:
    by_unit: dict[str, Callable[[str], Any]] = {
        "seconds": values.duration_s,
        "bytes": values.size_bytes,
        "share": values.share,
    }
    kind = _plain(variable.type)
    if variable.setting.unit in by_unit:
        parse = by_unit[variable.setting.unit]
        return (lambda text: int(parse(text))) if kind is int else parse
    if get_origin(kind) is Literal:
        return _choice(get_args(kind))
    if get_origin(kind) is tuple:
        return values.comma_list
    by_type: dict[Any, Callable[[str], Any]] = {
        bool: values.boolean,
        int: values.number,
        float: values.share,
        Secret: lambda text: Secret(text.strip()) if text.strip() else None,
        str: lambda text: text.strip() or None if NoneType in get_args(variable.type) else text.strip(),
    }
    return by_type[kind]


def _plain(annotation: Any) -> Any:
    """`X | None` -> `X`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(item for item in get_args(annotation) if item is not NoneType)
    return annotation


def _choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")
        return word

    return parse


def _nearest_choice(variable: Variable, text: str) -> str:
    """Did you mean: the word of a closed set that is near to what was written."""
    kind = _plain(variable.type)
    return did_you_mean(text.strip().lower(), get_args(kind)) if get_origin(kind) is Literal else ""


def as_text(value: Any) -> str:
    """A Python value as an environment would write it: lists with commas."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)
