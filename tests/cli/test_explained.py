"""What `explain` says: decisions where they can be known, "not known here" where only others could tell."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from fastapi import FastAPI, WebSocket
from flask import Flask
from pydantic import BaseModel

from portalshield import Limit, Settings, Shield, protect
from portalshield.explain import Explanation
from portalshield.testing import environment, mint_token

NOBODY = {"AUTH": "none", "AUTH__SECRET": "", "AUTH__ISSUER": "", "AUTH__AUDIENCE": ""}
STRIPE = {"WEBHOOK__STRIPE__SECRET": "whsec_9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c"}


class Client(BaseModel):
    """A body."""

    name: str


def never(*_: Any) -> Any:
    """The application's own function: nobody may call it."""
    raise AssertionError("explain asked the application")


def shielded(terms: Any = None, path: str = "/x", more: Any = None, **env: str) -> Shield:
    """An application of one route for GET and POST, and a WebSocket."""
    app = FastAPI(openapi_url=None)

    def handler() -> dict[str, str]:
        return {}

    async def live(socket: WebSocket) -> None: ...

    app.add_api_route(path, protect(**terms)(handler) if terms else handler, methods=["GET", "POST"])
    app.add_api_websocket_route("/live", live)
    return Shield(app, settings=Settings.from_env(environment(**env)), **(more or {}))


def explained(
    shield: Shield, line: str, data: bytes | None = None, *, user: bool = True, **headers: str
) -> Explanation:
    """With a token of tenant north, where tokens are verified."""
    method, _, path = line.partition(" ")
    if user and shield.settings.auth.secret is not None:
        headers["authorization"] = f"Bearer {mint_token(shield.settings, tenant='north')}"
    return shield.explain(method, path, headers, data)


def said(found: Explanation, outcome: str) -> list[str]:
    """The reasons of every decision with this outcome."""
    return [decision.why for decision in found.decisions if decision.outcome == outcome]


def refusals(found: Explanation) -> list[str]:
    """Outcomes that end a request."""
    return [decision.outcome for decision in found.decisions if decision.outcome[0].isdigit()]


def test_owners_are_not_asked() -> None:
    """The own object is no 404: whose it is only the application can say."""
    found = explained(
        shielded(path="/invoices/{invoice_id}", more={"owners": {"invoice_id": never}}), "GET /invoices/7"
    )
    assert said(found, "not known here") == ["asks owners= whose it is: invoice_id"]
    assert refusals(found) == []


def test_a_flood_of_ids_is_refused_as_ever() -> None:
    """Nobody need be asked for that."""
    query = "&".join(f"invoice_id={number}" for number in range(101))
    found = explained(shielded(more={"owners": {"invoice_id": never}}), f"GET /x?{query}")
    assert refusals(found) == ["400 malformed-request"]


def test_authenticate_is_not_asked_and_the_user_stays_unknown() -> None:
    """No 401, and nothing that depends on the user is judged without."""
    found = explained(shielded({"roles": ["staff"]}, more={"authenticate": never}, **NOBODY), "GET /x")
    first, *later = said(found, "not known here")
    assert first == "asks authenticate=, inside your application"
    assert later
    assert set(later) == {"depends on the user"}
    assert refusals(found) == []


def test_tenant_of_is_not_asked() -> None:
    """What comes behind it in the tenant layer depends on it."""
    shield = shielded(more={"tenant_of": never})
    token = mint_token(shield.settings)
    found = shield.explain("POST", "/x", {"authorization": f"Bearer {token}"}, b'{"tenant_id": "north"}')
    assert said(found, "not known here") == [
        "asks tenant_of= which tenants the user belongs to",
        "depends on the user's tenants",
    ]
    assert refusals(found) == []


def test_keys_are_not_fetched() -> None:
    """A JWKS URL is no 503."""
    token = mint_token(Settings.from_env(environment()), tenant="north")
    variables = {"AUTH__SECRET": "", "AUTH__JWKS_URL": "https://auth.example.test/jwks"}
    found = shielded(**variables, AUTH__ALGORITHMS="RS256").explain("GET", "/x", {})
    assert refusals(found) == ["401 unauthenticated"]
    claims = jwt.decode(token, options={"verify_signature": False})
    signed = jwt.encode(claims, generate_private_key(65537, 2048), algorithm="RS256", headers={"kid": "k1"})
    found = shielded(**variables).explain("GET", "/x", {"authorization": f"Bearer {signed}"})
    assert said(found, "not known here")[0].startswith("fetches keys")
    assert refusals(found) == []


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        pytest.param(None, [], id="no body given"),
        pytest.param(b'{"name": "x"}', [], id="valid"),
        pytest.param(b'{"name": 1}', ["422 invalid-payload"], id="invalid"),
        pytest.param(b"", ["422 invalid-payload"], id="empty"),
        pytest.param(b'{"tenant_id": "south", "name": "x"}', ["404 not-found"], id="a foreign tenant"),
        pytest.param(b'{"name": "' + b"x" * 2000 + b'"}', ["413 body-too-large"], id="too large"),
    ],
)
def test_a_body_is_judged_where_it_is_given(data: bytes | None, ends: list[str]) -> None:
    """Without `--data` what reads it is not known."""
    found = explained(shielded({"body": Client, "max_body": 1000}), "POST /x", data)
    assert refusals(found) == ends
    assert (said(found, "not known here") == ["reads the body: give one with --data"]) is (data is None)


def test_a_signature_needs_the_body() -> None:
    """A webhook without `--data` is not known, with it unsigned."""
    shield = shielded({"webhook": "stripe"}, **STRIPE)
    assert refusals(explained(shield, "POST /x")) == []
    assert refusals(explained(shield, "POST /x", b"{}")) == ["400 invalid-signature"]


def test_limits_are_told_and_not_counted() -> None:
    """In words; a price is the application's to tell."""
    shield = shielded({"limits": ["1/minute"], "public": True})
    for _ in range(3):
        found = explained(shield, "GET /x")
        assert refusals(found) == []
    assert any("counts: ip-per-minute 300/minute" in why for why in said(found, "passes"))
    priced = explained(shielded({"limits": [Limit("9/minute", cost=never)]}), "GET /x")
    assert any("a price that the application tells" in why for why in said(priced, "not known here"))


def test_get_is_not_told_of_bodies() -> None:
    """Stages that only judge bodies are left out."""
    found = explained(shielded(), "GET /x")
    assert {decision.layer for decision in found.decisions}.isdisjoint({"body", "json"})


def test_report_mode_shows_what_it_would_have_refused() -> None:
    """And goes on; a share says how many."""
    found = explained(shielded(MODE="report"), "GET /x", user=False)
    assert said(found, "would refuse: 401 unauthenticated") == ["it only reports"]
    assert refusals(found) == []
    share = explained(shielded(MODE="report:25%"), "GET /x", user=False)
    assert "25% of such requests" in share.decisions[-1].why


@pytest.mark.parametrize(
    ("line", "user", "outcome", "why"),
    [
        pytest.param("GET /nope", True, "404 or 405", "no route serves it", id="a user"),
        pytest.param("GET /nope", False, "404 not-found", "no route serves it", id="nobody"),
        pytest.param("DELETE /x", True, "404 or 405", "no route serves it with this method", id="another method"),
    ],
)
def test_a_path_that_nothing_serves_ends_so(line: str, user: bool, outcome: str, why: str) -> None:
    """Whoever asks."""
    found = explained(shielded(), line, user=user)
    assert found.route == "(no route serves it)"
    assert (found.decisions[-1].outcome, found.decisions[-1].why) == (outcome, why)


def test_flask_says_so_too() -> None:
    """And has no WebSockets."""
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/x/<name>", "x", never)
    shield = Shield(app, settings=Settings.from_env(environment()))
    assert explained(shield, "GET /x/a%20b").route == "/x/{name}"
    assert explained(shield, "GET /nope").decisions[-1].why == "no route serves it"
    with pytest.raises(ValueError, match="WebSockets"):
        shield.explain("WS", "/x/a", {})


def test_a_websocket_is_one() -> None:
    """`WS /path`; the same path as a GET is not served."""
    assert explained(shielded(), "WS /live").route == "/live"
    assert explained(shielded(), "GET /live").route == "(no route serves it)"


def test_the_metrics_page_is_the_shield_s_own() -> None:
    """No route, no stage of the application's."""
    found = explained(shielded(METRICS__PATH="/metrics"), "GET /metrics", user=False)
    assert found.route == "(a page of the shield's own)"
    assert found.access == "anybody"
    assert refusals(found) == []


@pytest.mark.parametrize(
    ("terms", "ends"),
    [
        pytest.param({"tenant": False}, ["400 malformed-request"], id="refused"),
        pytest.param({"allow_path": ["encoded-slash"]}, [], id="allowed"),
    ],
)
def test_a_path_is_decoded_as_servers_do(terms: dict[str, Any], ends: list[str]) -> None:
    """`%2F` is a slash to the router and two readers' quarrel; `%20` a space."""
    shield = shielded(terms, path="/x/{name:path}")
    assert refusals(explained(shield, "GET /x/a%2Fb")) == ends
    assert refusals(explained(shield, "GET /x/a%20b")) == []


def test_no_class_name_is_shown() -> None:
    """Words for people in every column."""
    shield = shielded({"body": Client, "idempotent": True, "limits": ["5/minute"]}, more={"owners": {"id": never}})
    found = explained(shield, "POST /x?id=1", b'{"name": "x"}')
    text = " ".join(f"{d.layer} {d.stage} {d.outcome} {d.why}" for d in found.decisions)
    assert "Stage" not in text
    assert all(" " in decision.stage for decision in found.decisions)
