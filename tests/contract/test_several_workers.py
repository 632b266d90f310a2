"""In production nothing is processed twice because several workers keep records apart: they do not begin to serve."""

from __future__ import annotations

import sys
from typing import Any

import flask
import pytest
from doors import AsgiDoor, WsgiDoor
from fastapi import FastAPI

from portalshield import ConfigurationError, Policy, Settings, Shield
from portalshield.testing import environment

ONCE = Policy("POST /pay", idempotent=True)
PRODUCTION = {"ENV": "production", "HOSTS": "*"}


def flask_door(more: dict[str, str], policies: list[Policy], **environ: Any) -> WsgiDoor:
    app = flask.Flask(__name__)
    app.add_url_rule("/pay", "pay", lambda: "paid", methods=["POST"])
    Shield(app, settings=Settings.from_env(environment(**more)), policies=policies)
    served = app.wsgi_app
    app.wsgi_app = lambda given, start: served({**given, **environ}, start)  # type: ignore[method-assign]
    return WsgiDoor(app)


@pytest.mark.parametrize(
    ("more", "policies", "several", "status"),
    [
        pytest.param(PRODUCTION, [ONCE], True, 503, id="several keep records"),
        pytest.param(PRODUCTION, [ONCE], False, 401, id="one does"),
        pytest.param(PRODUCTION, [], True, 401, id="several keep none"),
        pytest.param({"ENV": "development"}, [ONCE], True, 401, id="in development"),
    ],
)
def test_a_wsgi_server_says_that_there_are_several(
    more: dict[str, str], policies: list[Policy], several: bool, status: int
) -> None:
    """`wsgi.multiprocess` (PEP 3333), as gunicorn sets it."""
    door = flask_door(more, policies, **{"wsgi.multiprocess": several})
    assert door.request("POST", "/pay", [("content-length", "0")]).status == status


@pytest.mark.parametrize(("argv", "status"), [(["gunicorn", "-w", "4", "m:app"], 503), (["gunicorn", "m:app"], 401)])
def test_a_command_line_says_so(monkeypatch: pytest.MonkeyPatch, argv: list[str], status: int) -> None:
    """Also under ASGI, where no server says it otherwise."""
    monkeypatch.setattr(sys, "argv", argv)
    app = FastAPI()

    @app.post("/pay")
    async def pay() -> str:
        return "paid"

    Shield(app, settings=Settings.from_env(environment(**PRODUCTION)), policies=[ONCE])
    assert AsgiDoor(app).request("POST", "/pay", [("content-length", "0")]).status == status


def test_the_message_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do."""
    monkeypatch.setattr(sys, "argv", ["uvicorn", "m:app", "--workers", "2"])
    shield = Shield(settings=Settings.from_env(environment(**PRODUCTION)), policies=[ONCE])
    with pytest.raises(ConfigurationError) as caught:
        shield.protection.open_opaque()
    assert [(problem.id, problem.variable) for problem in caught.value.problems] == [
        ("PS-STORE-003", "PORTALSHIELD_STORAGE")
    ]
