"""The policy file: every mistake at once, each with what it is about and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from portalshield import ConfigurationError
from portalshield.policy_file import read_policies
from portalshield.protection import Protection
from portalshield.testing.tokens import environment


class Note(BaseModel):
    """What the files below name."""

    text: str


def _told(tmp_path: Path, written: str) -> list[str]:
    file = tmp_path / "policies.toml"
    file.write_text(written, "utf-8")
    policies, problems = read_policies(str(file))
    assert not (policies and problems), "a file of one route is good or not"
    assert {problem.id for problem in problems} <= {"PS-POLICY-002"}
    return [str(problem).removeprefix("PS-POLICY-002 PORTALSHIELD_POLICY_FILE ") for problem in problems]


def test_a_good_file_is_policies(tmp_path: Path) -> None:
    """Lists for tuples, `module:Model` for types."""
    file = tmp_path / "policies.toml"
    file.write_text(
        f'[[route]]\nmatch = "POST /notes"\nbody = "{__name__}:Note"\nlimits = ["5/minute"]\nby = ["ip", "tenant"]\n'
    )
    (policy,), problems = read_policies(str(file))
    assert problems == []
    assert policy.match == "POST /notes"
    assert policy.terms["body"].__name__ == "Note"
    assert policy.terms["limits"][0].by == ("ip", "tenant")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param('scope = ["a"]', "route 1 has an unknown key: scope. Did you mean scopes?", id="near a key"),
        pytest.param("zzz = 1", "route 1 has an unknown key: zzz.", id="near nothing"),
        pytest.param(
            "owners = 1", "route 1 has an unknown key: owners. Owners are functions: name them in code.", id="f"
        ),
        pytest.param(
            'body = "no_such_module:Note"',
            "route 1 names a body that cannot be imported: no_such_module:Note (ModuleNotFoundError).",
            id="no module",
        ),
        pytest.param(
            'query = "portalshield:Note"',
            "route 1 names a query that cannot be imported: portalshield:Note (AttributeError). "
            "A model in the file that calls Shield(app) must stand above it.",
            id="not there yet",
        ),
        pytest.param(
            'body = "Note"', 'route 1 names a body that is not written as "module:Name".', id="no module named"
        ),
        pytest.param(
            'scopes = "a"', "route 1: scopes is a list of texts, not one text.", id="a term of the wrong kind"
        ),
    ],
)
def test_a_mistake_says_what_it_is_about(tmp_path: Path, written: str, told: str) -> None:
    """The key, the model, the kind of error."""
    assert _told(tmp_path, f'[[route]]\nmatch = "GET /notes"\n{written}\n') == [told]


def test_a_module_that_fails_shows_nothing_of_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its code raises is a mistake of the file; only the type of the error is told."""
    (tmp_path / "failing_models.py").write_text("raise RuntimeError('hunter2')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (told,) = _told(tmp_path, '[[route]]\nmatch = "GET /notes"\nbody = "failing_models:Note"\n')
    assert "cannot be imported: failing_models:Note (RuntimeError)." in told
    assert "hunter2" not in told


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    """Of every table and key, the known ones beside the unknown ones."""
    told = _told(
        tmp_path,
        "[[rout]]\n[[route]]\nscope = []\npublic = true\nroles = ['a']\nbody = 'x'\n[[route]]\nscopes = 'a'\n",
    )
    assert [line.partition(":")[0] for line in told] == [
        "has an unknown table",
        "route 1 has an unknown key",
        'route 1 has no match = "GET /path".',
        'route 1 names a body that is not written as "module',
        "route 1",
        'route 2 has no match = "GET /path".',
        "route 2",
    ]
    assert not any("?." in line for line in told)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param('[route]\nmatch = "GET /"\n', "has a route that is no list of tables.", id="one table"),
        pytest.param('route = ["GET /"]\n', "has a route that is no list of tables.", id="a list of texts"),
        pytest.param("[[route]\n", "names a file that is no TOML.", id="no TOML"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, written: str, told: str) -> None:
    """Is told, not stumbled over."""
    (line,) = _told(tmp_path, written)
    assert line.startswith(told)


def test_a_file_that_is_not_there() -> None:
    """Where it is looked for is told, its name is not."""
    _, (problem,) = read_policies("hunter2.toml")
    assert problem.message == "names a file that cannot be read (relative to the working directory)."


def test_mistakes_of_file_and_settings_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One start tells both."""
    file = tmp_path / "policies.toml"
    file.write_text('[[route]]\nmatch = "GET /notes"\nscope = []\n')
    for name, value in environment(POLICY_FILE=str(file), BODY__MAX_SIZE="many").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Protection()
    assert {problem.id for problem in caught.value.problems} == {"PS-ENV-002", "PS-POLICY-002"}
