"""docs/settings.md is what the config models say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from portalshield.model.setting import Setting
from portalshield.settings import variables
from portalshield.variables import Variable

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    """The names of docs/settings_page.py."""
    return runpy.run_path(str(DOCS / "settings_page.py"))


def test_the_committed_page_is_the_generated_one(generator: dict[str, Any]) -> None:
    """A setting that was added, renamed or described anew needs `make settings`."""
    assert (DOCS / "settings.md").read_text("utf-8") == generator["page"](), "run: make settings"


def test_every_variable_has_a_row(generator: dict[str, Any]) -> None:
    """One row per variable, whole: a stroke inside a cell is escaped."""
    rows = [line for line in generator["page"]().splitlines() if line.startswith("| `PORTALSHIELD_")]
    assert [line.split("`")[1] for line in rows] == [variable.name for variable in variables()]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_a_secret_never_shows_its_default(generator: dict[str, Any]) -> None:
    """Even a secret that had a default would read as unset."""
    secret = next(found for found in variables() if found.name == "PORTALSHIELD_AUTH__SECRET")
    planted = Variable(secret.name, secret.path, secret.type, secret.setting, "planted-default")
    assert "planted-default" not in generator["row"](planted)
    shown = Variable("PORTALSHIELD_X", ("x",), str, Setting("a text"), "planted-default")
    assert "planted-default" in generator["row"](shown)
