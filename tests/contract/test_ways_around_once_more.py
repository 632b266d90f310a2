"""Ways around the shield that a third attack found: other blanks, other separators, texts within texts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.responses import JSONResponse

from conftest import MakePortal, Portal, portal_behind
from portalshield import protect

FORM = ("content-type", "application/x-www-form-urlencoded")
JSON = ("content-type", "application/json")


def driven(portal: Portal, kind: str, headers: list[tuple[str, str]]) -> list[Any]:
    """The messages that an ASGI application sends for these header fields and no others."""
    sent: list[Any] = []
    waiting = [{"type": f"{kind}.connect"}, {"type": f"{kind}.disconnect", "code": 1000}]
    if kind == "http":
        waiting = [{"type": "http.request"}]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "path": "/chat"}
    scope |= {"raw_path": b"/chat", "query_string": b"", "root_path": "", "client": ("203.0.113.7", 5000), "state": {}}
    scope |= {"scheme": "ws" if kind == "websocket" else "http", "server": ("testserver", 80), "method": "GET"}
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    asyncio.run(portal.app(scope, receive, send))
    return sent


class TestCookies:
    """A name is found whatever blanks stand around it: frameworks strip those of Latin-1 too."""

    @pytest.mark.parametrize("blank", ["\xa0", "\x85", "\x1c", "\x1f", "\x0b", " \xa0\t"], ids=ascii)
    @pytest.mark.parametrize(
        "cookie",
        [
            pytest.param("a=b;{}tenant_id=south", id="before the name"),
            pytest.param("a=b; tenant_id{}=south", id="behind the name"),
            pytest.param("tenant_id={}south", id="before the value"),
            pytest.param('tenant_id={}"south"{}', id="around a quoted value"),
            pytest.param('filter={}{"tenant_id":"south"}', id="before JSON"),
            pytest.param('filter={"tenant_id":"south"}{}', id="behind JSON"),
            pytest.param('filter={}"{\\"tenant_id\\":\\"south\\"}"', id="before quoted JSON"),
            pytest.param('filter="{}{\\"tenant_id\\":\\"south\\"}"', id="within the quotes"),
        ],
    )
    def test_blanks(self, portal: Portal, cookie: str, blank: str) -> None:
        """None of them hides another tenant."""
        headers = [*portal.bearer(), ("cookie", cookie.replace("{}", blank))]
        assert portal.request("GET", "/search", headers, lint=False).status == 404
        assert portal.calls == []

    def test_a_semicolon_between_quotes(self, portal: Portal) -> None:
        """Werkzeug takes it for one of the value."""
        cookie = 'a="; f="{\\"a\\":\\";\\",\\"tenant_id\\":\\"south\\"}"'
        assert portal.request("GET", "/search", [*portal.bearer(), ("cookie", cookie)]).status == 404
        cookie = cookie.replace("south", "north")
        assert portal.request("GET", "/search", [*portal.bearer(), ("cookie", cookie)]).status == 200

    def test_an_own_id_beyond_ascii(self, portal: Portal) -> None:
        """Its last byte may be a blank of Latin-1."""
        for cookie in ("tenant_id=Voil\xe0", 'f={"tenant_id":"Voil\xe0"}'):
            headers = [*portal.bearer("Voil\xe0"), ("cookie", cookie.encode().decode("latin-1"))]
            assert portal.request("GET", "/search", headers, lint=False).status == 200

    def test_a_name_beyond_ascii(self, make_portal: MakePortal) -> None:
        """In either encoding."""
        portal = make_portal({"TENANT__FIELDS": "b\xfcro_id"})
        for name in ("b\xfcro_id", "b\xfcro_id".encode().decode("latin-1")):
            headers = [*portal.bearer(), ("cookie", f"{name}=south")]
            assert portal.request("GET", "/search", headers, lint=False).status == 404

    def test_a_websocket(self) -> None:
        """The handshake carries cookies too."""
        ran: list[str] = []

        async def chat(websocket: WebSocket) -> None:
            ran.append(websocket.cookies.get("tenant_id", ""))
            await websocket.close()

        portal = portal_behind("asgi", prepare=lambda app: app.add_api_websocket_route("/chat", chat))
        for cookie, wanted in (("a=b; \xa0tenant_id=south", []), ("a=b; \xa0tenant_id=north", ["north"])):
            driven(portal, "websocket", [("host", "portal.example.com"), *portal.bearer(), ("cookie", cookie)])
            assert ran == wanted


def test_blanks_before_json_in_a_query(portal: Portal) -> None:
    """A handler that strips the value reads it."""
    for blank in ("%C2%A0", "%1F", "%0B", "%E2%80%83", "\xa0"):
        for target in (f'/search?f={blank}{{"tenant_id":"south"}}', f'/search?f={{"tenant_id":"south"}}{blank}'):
            assert portal.request("GET", target, portal.bearer(), lint=False).status == 404


class TestSemicolons:
    """A form is judged with `;` as a part of a value, and as what separates fields."""

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"a=1;tenant_id=south", id="behind a value"),
            pytest.param(b"a;tenant_id=south", id="behind a name"),
            pytest.param(b";tenant_id=south", id="at the beginning"),
            pytest.param(b"a=1&b=2;tenant_id=south;", id="in the last pair"),
            pytest.param(b"tenant_id=north;tenant_id=south", id="the second of two"),
            pytest.param(b"tenant_id;x=1", id="a name alone"),
            pytest.param(b";tenant_id=south&b=1", id="at the beginning of a pair"),
            pytest.param(b';f={"a":";","tenant_id":"south"}&b=1', id="JSON at the beginning"),
            pytest.param(b'a=1;f={"tenant_id":"south"}', id="JSON behind it"),
            pytest.param(b'f={"tenant_id":"south"};a=1', id="JSON before it"),
            pytest.param(b'f={"a":";","tenant_id":"south"}', id="JSON around it"),
        ],
    )
    def test_a_foreign_tenant(self, portal: Portal, body: bytes) -> None:
        """In either reading."""
        assert portal.request("POST", "/search", [*portal.bearer(), FORM], body).status == 404
        assert portal.calls == []

    @pytest.mark.parametrize(
        ("tenant", "body"),
        [
            pytest.param("north;inc", b"tenant_id=north;inc", id="an id with one"),
            pytest.param("north;inc", b"tenant_id=north%3Binc&a=1;b=2", id="an encoded one"),
            pytest.param("north", b"note=a;b;c&tenant_id=north", id="a text"),
            pytest.param("north", b"note=a;tenant_id=north;c", id="a text that names the own tenant"),
        ],
    )
    def test_the_own_tenant(self, portal: Portal, tenant: str, body: bytes) -> None:
        """Semicolons in values are no offence."""
        assert portal.request("POST", "/search", [*portal.bearer(tenant), FORM], body).status == 200

    def test_an_object_id(self, make_portal: MakePortal) -> None:
        """Users may choose such ids: what stands before a `;` must be theirs as well."""
        portal = make_portal(owners={"invoice_id": {"1": "north", "9": "south", "9;x": "north", "1;x": "north"}.get})
        expected = {b"a=1;invoice_id=9": 404, b"invoice_id=9;x": 404, b"invoice_id=9%3Bx": 200, b"invoice_id=1;x": 200}
        found = {body: portal.request("POST", "/search", [*portal.bearer(), FORM], body).status for body in expected}
        assert found == expected

    @pytest.mark.parametrize("path", ["/search", "/public"])
    def test_they_count_as_fields(self, portal: Portal, path: str) -> None:
        """Whether the body is read or streams."""
        for body, status in ((b"a=1;b&" * 499, 200), (b"a=1;b&" * 500, 413)):
            assert portal.request("POST", path, [*portal.bearer(), FORM], body).status == status


def nested(document: Any, times: int) -> Any:
    """JSON in a string of JSON, so often."""
    for _ in range(times):
        document = {"filter": json.dumps(document)}
    return document


class TestJsonInJson:
    """A string that is JSON is judged as JSON."""

    @pytest.mark.parametrize("times", [1, 2, 4])
    @pytest.mark.parametrize("decoy", [{}, {"tenant_id": "north"}, {"op": "x"}], ids=["alone", "own beside", "op"])
    def test_a_foreign_tenant(self, portal: Portal, times: int, decoy: dict[str, str]) -> None:
        """However deep; in the query as well."""
        for tenant, status in (("south", 404), ("north", 200)):
            document = json.dumps({**decoy, "a": [1, nested({"x": [{"tenant_id": tenant}]}, times)]})
            assert portal.json("POST", "/search", document.encode(), portal.bearer()).status == status
            target = "/search?f=" + document.replace(" ", "").replace("\\", "%5C")
            assert portal.request("GET", target, portal.bearer()).status == status

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(r"{\"tenant_id\":\"south\"}", id="plain"),
            pytest.param(r"\n \u00a0[{\"tenant_id\":\"south\"}]", id="behind blanks"),
            pytest.param(r"{\u0022tenant_id\u0022:\u0022south\u0022}", id="escaped quotes"),
            pytest.param(r"{\"\u0074enant_id\":\"south\"}", id="an escaped letter"),
            pytest.param(r"{\"\\u0074enant_id\":\"south\"}", id="a letter escaped inside"),
            pytest.param(r"{\"\u005cu0074enant_id\":\"south\"}", id="an escaped backslash"),
            pytest.param(r"{\"\\\u00750074enant_id\":\"south\"}", id="an escaped u"),
            pytest.param(r"{\"tenant_id\":\"south\",\"tenant_id\":\"north\"}", id="the first of two"),
            pytest.param(r"{\"a\":\"{\\\"tenant_id\\\":\\\"south\\\"}\",\"a\":1}", id="within the first of two"),
            pytest.param(r"[{\"op\":\"add\",\"path\":\"/tenant_id\",\"value\":\"south\"}]", id="JSON Patch"),
            pytest.param(r"{\"tenant_id\":\"south\",\"a\":\"\n\"}", id="a line end in a string"),
        ],
    )
    @pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
    def test_spellings(self, portal: Portal, inner: str, content_type: str) -> None:
        """Under any type: handlers ignore it."""
        headers = [*portal.bearer(), ("content-type", content_type)]
        for tenant, status in (("south", 404), ("north", 200)):
            body = '{"filter":"' + inner.replace("south", tenant) + '"}'
            assert portal.request("POST", "/search", headers, body.encode()).status == status

    def test_an_object_id(self, make_portal: MakePortal) -> None:
        """Owners are asked about it."""
        portal = make_portal(owners={"invoice_id": {"1": "north", "9": "south"}.get})
        for number, status in (("9", 404), ("1", 200)):
            body = json.dumps(nested({"invoice_id": number}, 1)).encode()
            assert portal.json("POST", "/search", body, portal.bearer()).status == status

    @pytest.mark.parametrize(
        "text",
        ['[sic] "tenant_id":"south"', '{"tenant_id":"south"', 'a {"tenant_id":"south"}', '{"tenant_id":"south"} b'],
    )
    def test_a_text_that_is_no_json(self, portal: Portal, text: str) -> None:
        """Is left alone."""
        assert portal.json("POST", "/search", json.dumps({"note": text}).encode(), portal.bearer()).status == 200

    def test_more_than_anybody_sends(self, portal: Portal) -> None:
        """Too deep and too many are refused, own or not."""
        for document in (nested({"tenant_id": "north"}, 9), [json.dumps({"tenant_id": "north"})] * 1001):
            answer = portal.json("POST", "/search", json.dumps(document).encode(), portal.bearer())
            assert (answer.status, answer.slug) == (400, "malformed-request")


class TestLoginBrake:
    """One account has its attempts, however it is spelt and wherever it stands."""

    @pytest.fixture
    def logins(self, make_portal: MakePortal) -> Portal:
        """Nobody gets in."""

        def prepare(app: Any) -> None:
            if not isinstance(app, FastAPI):
                app.add_url_rule("/login", "login", mark(lambda: ("{}", 401)), methods=["POST"])
                return

            async def login(request: Request) -> Any:
                await request.body()
                return JSONResponse({}, 401)

            app.add_api_route("/login", mark(login), methods=["POST"])

        mark = protect(public=True, login="email")
        return make_portal(prepare=prepare)

    def statuses(self, portal: Portal, header: tuple[str, str], bodies: list[bytes]) -> list[int]:
        """The answers to these bodies, each from an address of its own."""
        return [
            portal.request("POST", "/login", [header], body, peer=f"198.51.100.{number}").status
            for number, body in enumerate(bodies, 1)
        ]

    def test_spellings(self, logins: Portal) -> None:
        """Upper case makes one letter of i and dotless i; strokes and ligatures are ignored where accents are."""
        spelt = [
            "SILVIA",
            "s\u0131lv\u0131a",
            "s\u0130lvia",
            "\u017filvia",
            "silv\u0268a",
            "sil\u200bvia",
            "silvi\U000e0041a",
        ]
        names = [name.replace("l", letter) for name, letter in zip(spelt, "Ll\u0142l\u0141\u2c62l", strict=True)]
        found = self.statuses(logins, JSON, [json.dumps({"email": name}).encode() for name in names])
        assert found == [401] * 5 + [429] * 2

    @pytest.mark.parametrize("filler", ["\u200b", "a", "\u0301"])
    def test_a_name_that_is_too_long(self, logins: Portal, filler: str) -> None:
        """It is refused: cut, it would be another account's, or nobody's."""
        bodies = [json.dumps({"email": filler * count + "v@x.se"}).encode() for count in (507, 512, 5000)]
        assert self.statuses(logins, JSON, bodies) == [400] * 3

    def test_a_name_of_nothing_visible(self, logins: Portal) -> None:
        """It is an account as any other."""
        bodies = [json.dumps({"email": "\u200b" * count}).encode() for count in range(1, 8)]
        assert self.statuses(logins, JSON, bodies) == [401] * 5 + [429] * 2

    def test_behind_a_semicolon(self, logins: Portal) -> None:
        """Where old parsers find a field, and before one, where they end it."""
        bodies = [b"password=%d;email=v@x.se" % n for n in range(4)] + [b"email=v@x.se;%d" % n for n in range(4)]
        assert self.statuses(logins, FORM, bodies) == [401] * 5 + [429] * 3

    def test_in_a_text_that_is_json(self, logins: Portal) -> None:
        """A model may read it so."""
        bodies = [json.dumps(nested({"email": "v@x.se", "n": n}, 1)).encode() for n in range(7)]
        assert self.statuses(logins, JSON, bodies) == [401] * 5 + [429] * 2


@pytest.mark.parametrize("names", [["1"], ["1", "2-3"], ["_"], ["!"]])
def test_header_names_without_a_letter(portal: Portal, names: list[str]) -> None:
    """They are legal, and fields like any other; alone too: HTTP/1.0 needs no Host."""
    fields = [(name, "x") for name in names]
    assert portal.request("GET", "/search", [*portal.bearer(), *fields], lint=False).status == 200
    if portal.name == "asgi":
        assert driven(portal, "http", fields)[0]["type"] == "http.response.start"


COOKIE = {"AUTH__COOKIE": "__Host-session"}


@pytest.mark.parametrize(
    "cookie",
    [
        pytest.param("__Host-session={first}; __Host-session={second}", id="plainly"),
        pytest.param("__Host-session={first}; __Host-session ={second}", id="a blank behind the name"),
        pytest.param("__Host-session={first}; \xa0__Host-session={second}", id="NBSP before the name"),
        pytest.param('__Host-session={first}; __Host-session="{second}"\x85', id="quoted, NEL behind it"),
    ],
)
def test_a_second_token_does_not_hide_behind_blanks(make_portal: MakePortal, cookie: str) -> None:
    """Two different tokens are 400 in whatever spelling a framework finds the second one."""
    portal = make_portal(COOKIE)
    first, second = portal.token(), portal.token(subject="somebody else")
    answer = portal.request("GET", "/me", [("cookie", cookie.format(first=first, second=second))])
    assert (answer.status, portal.calls) == (400, [])


def test_one_token_may_be_spelt_either_way(make_portal: MakePortal) -> None:
    """Quotes and blanks around it are none of it."""
    portal = make_portal(COOKIE)
    for cookie in ("__Host-session={}", '__Host-session="{}"', "a=b; \xa0__Host-session={}"):
        assert portal.request("GET", "/me", [("cookie", cookie.format(portal.token()))]).status == 200
