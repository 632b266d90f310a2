"""A token that was revoked is refused from then on, cached or not, through both doors, in memory and on Redis."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import MakePortal, Portal
from portalshield import Principal
from portalshield.testing import reset

ISSUER = "https://auth.example.test"
SECRET = "a-secret-of-two-workers-0123456789-abcdefghijk"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
OWN = {"jti": "j1", "sid": "s1", "subject": "u1", "tenant": "north", "issuer": ISSUER}
OTHER = {"jti": "j2", "sid": "s2", "subject": "u2", "tenant": "south"}
CLOSED_PORT = "redis://127.0.0.1:9/0"
UNLIMITED = {"RATE__PER_IP": "off"}
"""Each request of the ASGI door has an event loop of its own: no connections for limits are left behind in them."""
Spell = Callable[[str], str]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A redis-server of our own."""
    from redis_server import Server

    server = Server("--databases", "1000")
    yield server
    server.close()


_DATABASES = count(1)


def fresh(server: Any) -> str:
    """A database that no test has used: nothing of another one's is written back into it."""
    return f"redis://127.0.0.1:{server.port}/{next(_DATABASES)}"


@pytest.fixture(params=["memory", "redis"])
def storage(request: pytest.FixtureRequest) -> str:
    """`STORAGE`, with nothing in it."""
    if request.param == "memory":
        return "memory://"
    return fresh(request.getfixturevalue("server"))


@pytest.fixture(name="make_portal")
def _make_portal(make_portal: MakePortal) -> Iterator[MakePortal]:
    """Whatever is made here follows nobody after its test."""
    made: list[Portal] = []

    def make(*args: Any, **more: Any) -> Portal:
        made.append(make_portal(*args, **more))
        return made[-1]

    yield make
    for portal in made:
        portal.shield.protection.revocations.stop()


@pytest.fixture
def portal(make_portal: MakePortal, storage: str) -> Portal:
    """A portal whose revocations live there."""
    return make_portal({"STORAGE": storage, **UNLIMITED, "AUTH__SECRET": SECRET})


def bearer(token: str) -> list[tuple[str, str]]:
    """The Authorization field with this token."""
    return [("authorization", f"Bearer {token}")]


def held_by(portal: Portal, ids: dict[str, str], **more: Any) -> str:
    """A token with all the handles."""
    claims = {"jti": ids["jti"], "sid": ids["sid"], "subject": ids["subject"], **more}
    return portal.token(ids["tenant"], **claims)


def status(portal: Portal, token: str, target: str = "/search") -> int:
    """What the portal answers to this token."""
    return portal.request("GET", target, bearer(token)).status


@pytest.mark.parametrize("handle", OWN)
def test_a_revoked_token_is_refused_like_any_other(portal: Portal, handle: str) -> None:
    """By id, session, subject, tenant or issuer; remembered tokens too, and nobody else's."""
    mine, theirs, fresh = held_by(portal, OWN), held_by(portal, OTHER), held_by(portal, OWN, roles=["a"])
    assert [status(portal, mine), status(portal, theirs)] == [200, 200]
    portal.shield.revoke(**{handle: OWN[handle]})
    portal.calls.clear()
    for token in (mine, fresh, mine):
        answer = portal.request("GET", "/search", bearer(token))
        assert (answer.status, answer.slug) == (401, "invalid-token")
        assert answer.get("www-authenticate") == 'Bearer error="invalid_token"'
    assert portal.calls == []
    assert status(portal, theirs) == (401 if handle == "issuer" else 200)


@pytest.mark.parametrize("handle", ["subject", "tenant", "issuer"])
def test_a_later_login_works(portal: Portal, handle: str) -> None:
    """Log out everywhere, then log in: what is issued afterwards is not touched."""
    portal.shield.revoke(**{handle: OWN[handle]})
    assert status(portal, held_by(portal, OWN)) == 401
    assert status(portal, held_by(portal, OWN, now=time.time() + 2)) == 200


@pytest.mark.parametrize("handle", ["jti", "sid"])
def test_a_token_or_session_is_ended_for_good(portal: Portal, handle: str) -> None:
    """An issuer's clock that is ahead saves neither the token nor what the session is given next."""
    portal.shield.revoke(**{handle: OWN[handle]})
    assert status(portal, held_by(portal, OWN, now=time.time() + 20)) == 401


def test_before_says_which_tokens(portal: Portal) -> None:
    """Issued before it: refused. Issued at it: not."""
    now = int(time.time())
    portal.shield.revoke(subject="u1", before=now - 100)
    assert status(portal, held_by(portal, OWN, now=now - 101)) == 401
    assert status(portal, held_by(portal, OWN, now=now - 100)) == 200


def test_a_supabase_session_is_a_session(portal: Portal) -> None:
    """`session_id` counts where there is no `sid`."""
    token = portal.token(session_id="s9")
    assert status(portal, token) == 200
    portal.shield.revoke(sid="s9")
    assert status(portal, token) == 401


@pytest.mark.parametrize("handle", ["jti", "subject", "tenant"])
@pytest.mark.parametrize("spell", [str.upper, lambda text: text.replace("-", ""), str], ids=["upper", "bare", "same"])
def test_uuids_are_compared_as_uuids(portal: Portal, handle: str, spell: Spell) -> None:
    """However the token or the caller spells them."""
    spelt = "0af7651d-9cd4-4c1e-8f7b-3d0c2b1a9e8d"
    token = held_by(portal, {**OWN, handle: spell(spelt)})
    portal.shield.revoke(**{handle: spelt.upper()})
    assert status(portal, token) == 401


def test_a_token_without_time_counts_as_old(portal: Portal) -> None:
    """It cannot show that it is a later login."""
    token = held_by(portal, OWN, iat=None)
    undated = jwt.decode(token, options={"verify_signature": False})
    token = jwt.encode({name: value for name, value in undated.items() if name != "iat"}, SECRET, "HS256")
    assert status(portal, token) == 200
    portal.shield.revoke(subject="u1", before=1.0)
    assert status(portal, token) == 401


def test_a_public_route_treats_a_revoked_token_as_none(portal: Portal) -> None:
    """Logged out, not locked out."""
    portal.shield.revoke(subject="u1")
    assert status(portal, held_by(portal, OWN), "/public") == 200


def test_the_cookie_is_no_way_around(make_portal: MakePortal, storage: str) -> None:
    """How a token comes changes nothing."""
    portal = make_portal({"STORAGE": storage, **UNLIMITED, "AUTH__COOKIE": "__Host-session"})
    cookie = [("cookie", f"__Host-session={held_by(portal, OWN)}")]
    assert portal.request("GET", "/search", cookie).status == 200
    portal.shield.revoke(sid="s1")
    assert portal.request("GET", "/search", cookie).status == 401


def test_another_spelling_of_a_revoked_token_is_refused(make_portal: MakePortal, storage: str) -> None:
    """ECDSA lets (r, n - s) verify where (r, s) does, and some readers take padding: revocation names no strings."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    portal = make_portal({"STORAGE": storage, **UNLIMITED, "AUTH__SECRET": "", "AUTH__PUBLIC_KEY": pem.decode()})
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "portal", "sub": "u1", "tenant_id": "north", "jti": "j1", "iat": now}
    token = jwt.encode({**claims, "exp": now + 600}, key, "ES256")
    twin = _mirrored(token)
    assert [status(portal, token), status(portal, twin), status(portal, token + "==")] == [200, 200, 401]
    portal.shield.revoke(jti="j1")
    assert [status(portal, each) for each in (token, twin, token + "==")] == [401, 401, 401]


def _mirrored(token: str) -> str:
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    mirrored = raw[:32] + s.to_bytes(32, "big")
    assert mirrored != raw
    return signed + "." + base64.urlsafe_b64encode(mirrored).rstrip(b"=").decode()


def test_another_worker_refuses_it_too(make_portal: MakePortal, server: Any) -> None:
    """Its copy is read anew every two seconds; here at once. The token was in its cache."""
    env = {"STORAGE": fresh(server), **UNLIMITED, "AUTH__SECRET": SECRET}
    one, other = make_portal(env), make_portal(env)
    token = held_by(one, OWN)
    assert [status(one, token), status(other, token)] == [200, 200]
    one.shield.revoke(sid="s1")
    other.shield.protection.revocations.look()
    assert [status(one, token), status(other, token)] == [401, 401]


@pytest.mark.parametrize("on_outage", ["local", "closed"])
def test_nobody_can_tell_without_the_store(make_portal: MakePortal, on_outage: str) -> None:
    """A process that never heard of Redis: 503, however often; forged tokens stay 401, public routes open."""
    portal = make_portal({"STORAGE": CLOSED_PORT, **UNLIMITED, "REVOCATION__ON_OUTAGE": on_outage})
    token = held_by(portal, OWN)
    for _ in range(2):
        answer = portal.request("GET", "/search", bearer(token))
        assert (answer.status, answer.slug, answer.get("retry-after")) == (503, "unavailable", "5")
    assert status(portal, token[:-4] + "AAAA") == 401
    assert portal.request("GET", "/search").status == 401
    assert status(portal, token, "/public") == 200
    assert portal.calls == ["public"]


def test_an_outage_leaves_the_copy_and_raises(make_portal: MakePortal) -> None:
    """What is known stays known for a while; what is revoked now counts here, and the caller hears it may be lost."""
    from redis_server import Server

    victim = Server()
    try:
        portal = make_portal({"STORAGE": victim.uri, **UNLIMITED})
        mine, theirs = held_by(portal, OWN), held_by(portal, OTHER)
        assert [status(portal, mine), status(portal, theirs)] == [200, 200]
        victim.stop()
        with pytest.raises(ConnectionError, match="not certain"):
            portal.shield.revoke(subject="u1")
        assert [status(portal, mine), status(portal, theirs)] == [401, 200]
    finally:
        victim.close()


@pytest.mark.parametrize(
    ("handles", "error"),
    [
        pytest.param({}, ValueError, id="nothing named"),
        pytest.param({"jti": None}, ValueError, id="a token without jti"),
        pytest.param({"subject": ""}, ValueError, id="empty"),
        pytest.param({"subject": "x" * 1025}, ValueError, id="too long"),
        pytest.param({"subject": "\ud800"}, ValueError, id="no text"),
        pytest.param({"subject": 7}, TypeError, id="a number"),
        pytest.param({"issuer": "https://other.example"}, ValueError, id="an issuer of nobody"),
        pytest.param({"subject": "u1", "before": float("nan")}, ValueError, id="no time"),
        pytest.param({"subject": "u1", "before": -1}, ValueError, id="a negative time"),
    ],
)
def test_what_would_revoke_nothing_raises(portal: Portal, handles: Any, error: type[Exception]) -> None:
    """Silence would look like success."""
    with pytest.raises(error):
        portal.shield.revoke(**handles)
    assert status(portal, held_by(portal, OWN)) == 200


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"authenticate": lambda request: Principal("u1", "north")}, id="authenticate"),
        pytest.param(
            {"env": {"AUTH": "none", "AUTH__SECRET": "", "AUTH__AUDIENCE": "", "AUTH__ISSUER": ""}}, id="none"
        ),
    ],
)
def test_where_no_token_is_verified_there_is_nothing_to_revoke(make_portal: MakePortal, own: Any) -> None:
    """The application knows its sessions; it has to end them itself."""
    with pytest.raises(RuntimeError, match="no tokens"):
        make_portal(**own).shield.revoke(subject="u1")


@pytest.mark.parametrize(
    ("env", "life"),
    [
        pytest.param({"AUTH__MAX_LIFETIME": "2h", "AUTH__LEEWAY": "0"}, 7200, id="one issuer"),
        pytest.param({"AUTH__INSECURE_NO_EXPIRY": "true"}, float("inf"), id="never-ending tokens"),
        pytest.param(
            {
                "AUTH__MAX_LIFETIME": "2h",
                "AUTH__ISSUERS__B__SECRET": SECRET,
                "AUTH__ISSUERS__B__ISSUER": "https://b.example",
                "AUTH__ISSUERS__B__AUDIENCE": "portal",
                "AUTH__ISSUERS__B__MAX_LIFETIME": "7d",
                "AUTH__ISSUERS__B__LEEWAY": "10s",
            },
            7 * 86400 + 20,
            id="the longest issuer's",
        ),
    ],
)
def test_an_entry_lives_as_long_as_tokens_may(make_portal: MakePortal, env: dict[str, str], life: float) -> None:
    """Forgotten earlier, it would let a token back in."""
    portal = make_portal(env)
    portal.shield.revoke(subject="u1", before=1_000.0)
    now = time.time()
    (entry,) = portal.shield.protection.revocations.current.entries.values()  # type: ignore[union-attr]
    assert entry.until == pytest.approx(now + life, abs=60)


def test_reset_forgets(make_portal: MakePortal) -> None:
    """Between two tests of an application."""
    portal = make_portal()
    token = held_by(portal, OWN)
    portal.shield.revoke(subject="u1")
    assert status(portal, token) == 401
    reset(portal.app)
    assert status(portal, token) == 200
