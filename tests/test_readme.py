"""The prose is true: programs of README.md run, links lead somewhere, ARCHITECTURE.md names every file there is."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doors import AsgiDoor, WsgiDoor

from portalshield.testing.tokens import environment

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = re.compile(r"<!-- program: (\S+) (\S+) (\d+) -->\n```python\n(.*?)```", re.DOTALL)
PROGRAMS = PROGRAM.findall((ROOT / "README.md").read_text("utf-8"))
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


@pytest.mark.parametrize(("method", "path", "status", "source"), PROGRAMS, ids=["fastapi", "flask", "asgi", "wsgi"])
def test_a_program_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, status: str, source: str
) -> None:
    """It runs as written; without a token its `app` answers what the comment above says, and its home page."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)
    app = names["app"]
    door = AsgiDoor(app) if inspect.iscoroutinefunction(type(app).__call__) else WsgiDoor(app)
    assert door.request(method, path).status == int(status)
    assert door.request("GET", "/").status == 200


def test_the_tests_of_the_readme_run(tmp_path: Path) -> None:
    """With its FastAPI program as main.py; the token opens its own tenant, a route with a webhook needs its secret."""
    readme = (ROOT / "README.md").read_text("utf-8")
    (written,) = re.findall(r"## In your tests\n\n```python\n(.*?)```", readme, re.DOTALL)
    (secret,) = re.findall(r"`(environment\(WEBHOOK__STRIPE.*)`", readme)
    source = PROGRAMS[0][3].replace("current_tenant, public", "current_tenant, protect, public")
    (tmp_path / "main.py").write_text(f'{source}\n\n@app.post("/paid")\n@protect(webhook="stripe")\ndef paid(): ...\n')
    (tmp_path / "test_portal.py").write_text(
        f"import secrets\n{written.replace('environment()', secret)}"
        "from doors import AsgiDoor\n"
        "expired = mint_token(shield.settings, tenant='north', ttl_s=-1)\n"
        "door, late = AsgiDoor(app), {'Authorization': f'Bearer {expired}'}\n"
        "answers = open('answers.txt', 'w')\n"
        "for path, fields in (('north', headers), ('south', headers), ('north', late)):\n"
        "    named = [(name.lower(), value) for name, value in fields.items()]\n"
        "    print(door.request('GET', f'/tenants/{path}/clients', named).status, file=answers)\n"
    )
    paths = [str(ROOT / "src"), str(ROOT / "tests" / "contract"), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        [sys.executable, "test_portal.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (tmp_path / "answers.txt").read_text().split() == ["200", "404", "401"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text("utf-8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_architecture_names_every_file() -> None:
    """The map is kept as the code is: a new file gets a line, a line of a file that is gone goes."""
    source = ROOT / "src" / "portalshield"
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(r"^- `([\w/]+\.py)`", text, re.MULTILINE)
    there = [path.relative_to(source).as_posix() for path in source.rglob("*.py") if path.stat().st_size]
    assert sorted(named) == sorted(there)
