"""An opaque object id is asked for the tenant that owns it, before the handler runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from conftest import MakePortal, Portal
from portalshield import Policy, protect

OWNERS = {"7": "north", "8": "north", "9": "south"}
FORM = ("content-type", "application/x-www-form-urlencoded")
CLIENT = "/tenants/north/clients/"


class Registry:
    """Tells whose a client is, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def sync(self, value: str) -> str | None:
        """The tenant of a client, or None."""
        self.asked.append(value)
        return OWNERS.get(value)

    async def awaited(self, value: str) -> str | None:
        """The same, async."""
        return self.sync(value)

    def failing(self, value: str) -> str | None:
        """A look-up whose database is down."""
        self.asked.append(value)
        raise ConnectionError("secret-in-exception")

    async def failing_awaited(self, value: str) -> str | None:
        """The same, async."""
        return self.failing(value)


@pytest.fixture
def registry() -> Registry:
    """Who owns which client."""
    return Registry()


@pytest.fixture(params=["sync", "awaited"])
def owned(request: pytest.FixtureRequest, make_portal: MakePortal, registry: Registry) -> Portal:
    """A portal that knows the owners of `client_id`, through a sync and through an async function."""
    return make_portal(owners={"client_id": getattr(registry, request.param)})


def _in_path(portal: Portal, value: str) -> Any:
    return portal.request("GET", CLIENT + value, portal.bearer())


def _in_query(portal: Portal, value: str) -> Any:
    return portal.request("GET", f"/search?client_id={value}", portal.bearer())


def _in_brackets(portal: Portal, value: str) -> Any:
    return portal.request("GET", f"/search?filter[client_id]={value}&client_id=7", portal.bearer())


def _in_form(portal: Portal, value: str) -> Any:
    return portal.request("POST", "/search", [*portal.bearer(), FORM], f"a=1&client_id={value}".encode())


def _in_json(portal: Portal, value: str) -> Any:
    return portal.json("POST", "/search", json.dumps({"client_id": value}).encode(), portal.bearer())


def _as_number(portal: Portal, value: str) -> Any:
    return portal.json("POST", "/search", b'{"client_id": %s}' % (value or '""').encode(), portal.bearer())


def _nested(portal: Portal, value: str) -> Any:
    document = {"rows": [{"client_id": "7"}, {"x": {"client_id": value}}]}
    return portal.json("POST", "/search", json.dumps(document).encode(), portal.bearer())


def _in_list(portal: Portal, value: str) -> Any:
    return portal.json("POST", "/search", json.dumps({"client_id": ["7", value]}).encode(), portal.bearer())


def _patched(portal: Portal, value: str) -> Any:
    document = [{"op": "replace", "path": "/client_id", "value": value}]
    return portal.json("PATCH", "/search", json.dumps(document).encode(), portal.bearer())


PLACES = [
    pytest.param(_in_path, id="path"),
    pytest.param(_in_query, id="query"),
    pytest.param(_in_brackets, id="query brackets"),
    pytest.param(_in_form, id="form"),
    pytest.param(_in_json, id="JSON"),
    pytest.param(_as_number, id="JSON number"),
    pytest.param(_nested, id="nested JSON"),
    pytest.param(_in_list, id="list in JSON"),
    pytest.param(_patched, id="JSON Patch"),
]
Ask = Callable[[Portal, str], Any]


@pytest.mark.parametrize("ask", PLACES)
def test_an_own_object_passes(owned: Portal, registry: Registry, ask: Ask) -> None:
    """The handler runs, and each distinct id was asked for once."""
    assert ask(owned, "8").status == 200
    assert len(owned.calls) == 1
    assert sorted(registry.asked) == sorted(set(registry.asked))
    assert "8" in registry.asked


@pytest.mark.parametrize("ask", PLACES)
def test_a_foreign_object_looks_like_none(owned: Portal, ask: Ask) -> None:
    """Another tenant's object, one that does not exist: the same bytes, and the handler never runs."""
    answers = [ask(owned, value) for value in ("9", "404")]
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].slug == "not-found"
    first, second = (answer.body.replace(answer.get("x-request-id").encode(), b"") for answer in answers)
    assert first == second
    names = [[name for name, _ in answer.headers] for answer in answers]
    assert names[0] == names[1]
    assert owned.calls == []


@pytest.mark.parametrize("value", ["true", "{}", "[[8]]", '""', "1.5", '{"$ne": "9"}'])
def test_what_is_no_id_has_no_owner(owned: Portal, registry: Registry, value: str) -> None:
    """Operators, booleans and the like are refused, and nobody is asked about them."""
    answer = owned.json("POST", "/search", f'{{"client_id": {value}}}'.encode(), owned.bearer())
    assert (answer.status, owned.calls, registry.asked) == (404, [], [])


def test_null_names_no_object(owned: Portal, registry: Registry) -> None:
    """A member without a value addresses nothing."""
    assert owned.json("POST", "/search", b'{"client_id": null}', owned.bearer()).status == 200
    assert registry.asked == []


def test_each_distinct_id_is_asked_once(owned: Portal, registry: Registry) -> None:
    """In path, query and body together; what the head asked the body need not ask again."""
    body = json.dumps({"client_id": ["7", "8", "8", 7]}).encode()
    answer = owned.json("POST", f"{CLIENT}7?client_id=7&client_id=8", body, owned.bearer())
    assert (answer.status, sorted(registry.asked)) == (200, ["7", "8"])


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 400)])
def test_more_ids_than_anybody_means_are_refused(make_portal: MakePortal, count: int, status: int) -> None:
    """100 distinct ids are asked for, 101 are a 400 and none is."""
    asked: list[str] = []

    def anybody(value: str) -> str:
        asked.append(value)
        return "north"

    portal = make_portal(owners={"client_id": anybody})
    body = json.dumps({"client_id": [str(number) for number in range(count)]}).encode()
    answer = portal.json("POST", "/search", body, portal.bearer())
    assert (answer.status, len(asked)) == (status, count if status == 200 else 0)
    query = "&".join(f"client_id={number}" for number in range(count))
    assert portal.request("GET", f"/search?{query}", portal.bearer()).status == status


@pytest.mark.parametrize("name", ["failing", "failing_awaited"])
def test_a_failing_look_up_is_503(make_portal: MakePortal, registry: Registry, name: str) -> None:
    """Nobody knows whose it is: nothing runs, nothing of the exception is told."""
    portal = make_portal(owners={"client_id": getattr(registry, name)})
    answer = _in_path(portal, "7")
    assert (answer.status, answer.slug, answer.get("retry-after"), portal.calls) == (503, "unavailable", "5", [])
    assert b"secret" not in answer.body


def test_a_foreign_tenant_is_refused_before_anybody_is_asked(owned: Portal, registry: Registry) -> None:
    """The cheap comparison comes first; so does authentication."""
    assert owned.request("GET", "/tenants/south/clients/9", owned.bearer()).status == 404
    assert owned.request("GET", CLIENT + "7").status == 401
    assert registry.asked == []


def test_an_own_id_counts_as_uuid_too(make_portal: MakePortal) -> None:
    """Owners may answer a UUID in another spelling than the token has."""
    tenant = "7f9c24e8-3b12-4fef-91e0-6b1f0a0b9c11"
    portal = make_portal(owners={"client_id": lambda value: tenant.upper()})
    assert portal.request("GET", "/search?client_id=1", portal.bearer(tenant)).status == 200


def test_owners_of_one_route(make_portal: MakePortal, registry: Registry) -> None:
    """`@protect(owners={...})` and a policy's `owners` add to the shield's, for their route alone."""

    def prepare(app: Any) -> None:
        if hasattr(app, "add_url_rule"):
            app.add_url_rule("/drafts/<draft_id>", "draft", protect(owners={"draft_id": registry.sync})(lambda **_: {}))
        else:

            async def draft(draft_id: str) -> dict[str, str]:
                return {}

            app.get("/drafts/{draft_id}")(protect(owners={"draft_id": registry.awaited})(draft))

    portal = make_portal(
        prepare=prepare,
        owners={"client_id": registry.sync},
        policies=[Policy("GET /search", owners={"note_id": registry.sync})],
    )
    statuses = [
        portal.request("GET", target, portal.bearer()).status
        for target in (
            "/drafts/7",
            "/drafts/9",
            "/drafts/7?client_id=9",
            "/search?note_id=9",
            "/search?client_id=9",
            "/search?draft_id=9",
            "/drafts/8?note_id=9",
        )
    ]
    assert statuses == [200, 404, 404, 404, 404, 200, 200]


def test_report_mode_asks_and_lets_pass(make_portal: MakePortal, registry: Registry) -> None:
    """`MODE__TENANT=report` notes a foreign object and a failing look-up, and the handler runs."""
    portal = make_portal({"MODE__TENANT": "report"}, owners={"client_id": registry.sync, "note_id": registry.failing})
    assert portal.request("GET", "/search?client_id=9", portal.bearer()).status == 200
    assert portal.request("GET", "/search?note_id=9", portal.bearer()).status == 200
    assert (registry.asked, len(portal.calls)) == (["9", "9"], 2)


def test_public_routes_ask_nobody(owned: Portal, registry: Registry) -> None:
    """There is no tenant to compare an owner with."""
    assert owned.request("GET", "/public?client_id=9", owned.bearer()).status == 200
    assert registry.asked == []


def test_owners_are_asked_where_strict_json_is_off(make_portal: MakePortal) -> None:
    """A body that no strict parser has read is still read for object ids, as loosely as a handler would."""
    portal = make_portal({"MODE__JSON": "off"}, owners={"invoice_id": {"i-north": "north"}.get})
    assert portal.json("POST", "/search", b'{"invoice_id": "i-south"}', portal.bearer()).status == 404
    twice = b'{"invoice_id": "i-north", "invoice_id": "x"}'
    assert portal.json("POST", "/search", twice, portal.bearer()).status == 404
    assert portal.json("POST", "/search", b'{"invoice_id": "i-north"}', portal.bearer()).status == 200
