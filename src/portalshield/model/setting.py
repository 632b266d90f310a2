"""How a setting describes itself, and how a wrong one is reported.

Every field of a config model is `Annotated[type, Setting("what it means")]`; the variable's name, its parser, the
settings page and "did you mean" are derived from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

FROZEN = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
"""What every config model is: unchangeable, without room for an unknown name, silent about values."""

Unit = Literal["", "seconds", "bytes", "entries", "share"]


@dataclass(frozen=True, slots=True)
class Setting:
    """`meaning` is for the settings page, `unit` chooses the parser (`15m`); `own`: it has the group's name."""

    meaning: str
    unit: Unit = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class ConfigurationProblem:
    """One mistake: a stable id (`PS-CORS-003`), the variable, what is wrong, what to do. Never a value."""

    id: str
    variable: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.id, self.variable, self.message, self.hint) if part)


class ConfigurationError(Exception):
    """The configuration has mistakes; `problems` holds all of them, the text one line each."""

    def __init__(self, problems: tuple[ConfigurationProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
