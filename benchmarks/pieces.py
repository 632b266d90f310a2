"""Rows for single pieces: counting, tokens, refusing a flood, and what must not grow with the configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jwt
from apps import ORIGIN, Bench, fastapi_app, get_request, settings, token
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from portalshield.asgi import headers_of
from portalshield.bench.driver import asgi_scope, browser_request
from portalshield.bench.measure import Series, Variant, back_to_back, calls
from portalshield.bench.report import Bar, Row
from portalshield.layers.auth import BearerStage
from portalshield.layers.owners import OwnerStage
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Hit, Owners, Quota
from portalshield.model.policy import EffectivePolicy
from portalshield.model.principal import Principal
from portalshield.protection import Protection
from portalshield.rules.token_cache import TokenCache
from portalshield.starlette import StarletteTable
from portalshield.stores import open_store
from portalshield.testing.tokens import mint_token
from portalshield.tokens import TokenError, TokenVerifier

ISSUER, AUDIENCE = "https://auth.example.test", "portal"
MANY, FEW = 10_000, 10
Found = tuple[list[Row], list[Bar]]


def rows_of(group: str, found: Mapping[str, Series]) -> list[Row]:
    """One row per series."""
    return [Row.of(group, series) for series in found.values()]


# -- stores -----------------------------------------------------------------------------------------------------------


def stores(rounds: int) -> Found:
    """The memory store with one and two counters, beside `limits`' own."""
    store = open_store("memory://", max_keys=100_000, on_outage="local", notify=lambda *_: None)
    by_ip, by_subject = Quota("ip", 10**9, 60), Quota("subject", 10**9, 60)
    one = Hit((("ip\x1d203.0.113.7", by_ip, 1),))
    two = Hit((*one.counters, ("subject\x1duser_2b7e151628aed2a6", by_subject, 1)))
    limiter, item = FixedWindowRateLimiter(MemoryStorage()), parse("1000000000/minute")
    found = back_to_back(
        [
            calls("one counter", lambda: store.hit(one)),
            calls("two counters", lambda: store.hit(two)),
            calls("limits, fixed window", lambda: limiter.hit(item, "203.0.113.7")),
        ],
        rounds=rounds,
        batch=400,
    )
    return rows_of("memory store", found), []


# -- tokens -----------------------------------------------------------------------------------------------------------


def tokens(rounds: int) -> Found:
    """A token seen before, and one that is not, against PyJWT's decode with keys it loaded before."""
    now = time.time()
    found = back_to_back([_hit(now), _header(now), _owner()], rounds=rounds, batch=400)
    rows = rows_of("token seen before, and an owner asked", found)
    bars = [
        Bar("37", "cached token, header to principal, us", round(found["header to principal"].middle / 1000, 2), 3.0),
        Bar("21b", "owner question beside the callable, us", round(found["owner question"].middle / 1000, 2), 3.0),
    ]
    for algorithm, signing, public in _keys():
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "tenant_id": "acme", "iat": now, "exp": now + 3600}
        text = jwt.encode(claims, signing, algorithm=algorithm, headers={"kid": "k1"})
        verify = _verifier(algorithm, public)
        ours = calls("portalshield", partial(verify, text))
        theirs = calls("PyJWT decode", _pyjwt(algorithm, public, text))
        found = back_to_back([ours, theirs], rounds=rounds, batch=40)
        rows += rows_of(f"token not seen before, {algorithm}", found)
        ratio = found["portalshield"].middle / found["PyJWT decode"].middle
        bars.append(Bar("B6", f"B6 {algorithm}: verifying / PyJWT's decode", round(ratio, 3), 1.0))
        bars.append(_forged(algorithm, verify, _pyjwt(algorithm, public, _spoilt(text)), _spoilt(text), rounds))
    return rows, bars


def _spoilt(token: str) -> str:
    """The same token with another signature of the same length."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def _forged(algorithm: str, verify: Callable[[str], Any], theirs: Callable[[], Any], token: str, rounds: int) -> Bar:
    def refusing(call: Callable[[], Any], error: type[Exception]) -> Callable[[], None]:
        def refused() -> None:
            try:
                call()
            except error:
                return
            raise AssertionError("a forged token was accepted")

        return refused

    ours = calls("portalshield", refusing(partial(verify, token), TokenError))
    found = back_to_back([ours, calls("PyJWT", refusing(theirs, jwt.InvalidTokenError))], rounds=rounds, batch=40)
    ratio = found["portalshield"].middle / found["PyJWT"].middle
    return Bar("B6", f"B6 {algorithm}: refusing a forged token / PyJWT", round(ratio, 3), 1.0)


def _header(now: float) -> Variant:
    """The whole auth stage for a token that was seen before."""
    config = settings()
    authority = Protection(config).authority
    if authority is None:
        raise LookupError("the benchmark's settings verify tokens")
    stage = BearerStage(authority, policy=EffectivePolicy(), cookie=None, login_url=None)
    raw = [(b"authorization", b"Bearer " + mint_token(config, tenant="acme").encode())]
    x = Exchange()
    x.headers, _ = headers_of(raw)
    x.now = now
    stage.check(x)

    def check() -> None:
        x.principal = None
        if stage.check(x) is not None or x.principal is None:
            raise AssertionError("the token was refused")

    return calls("header to principal", check)


def _owner() -> Variant:
    """What asking an owner costs beside the owner itself: finding the id, the need, the comparison."""
    stage = OwnerStage({"invoice_id": lambda value: "acme"}, in_body=False)
    x = Exchange()
    x.headers, _ = headers_of([])
    x.principal = Principal("u1", "acme")
    x.params = x.arguments = {"invoice_id": "42"}
    answer = Owners(("acme",))

    def ask() -> None:
        x.owners = None
        need = stage.ask(x)
        if need is None or stage.settle(x, need, answer) is not None:
            raise AssertionError("the owner was not asked")

    return calls("owner question", ask)


def _hit(now: float) -> Variant:
    cache, token = TokenCache(), b"eyJhbGciOiJIUzI1NiJ9." + b"x" * 380
    cache.put(token, Principal("u1", "acme"), issuer=ISSUER, generation=1, now=now)
    generations = {ISSUER: 1}
    return calls("cache hit", lambda: cache.get(token, generations, now))


def _keys() -> Iterator[tuple[str, Any, Any]]:
    """Algorithm, signing key, key to verify with."""
    secret = "a shared secret of the benchmark, long enough to be one"
    yield "HS256", secret, secret
    for algorithm, private in (
        ("RS256", rsa.generate_private_key(public_exponent=65_537, key_size=2048)),
        ("PS256", rsa.generate_private_key(public_exponent=65_537, key_size=2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ):
        yield algorithm, private, private.public_key()


def _verifier(algorithm: str, public: Any) -> Callable[[str], Any]:
    text = public if isinstance(public, str) else _pem(public)
    return TokenVerifier(keys=text, algorithms=[algorithm], issuer=ISSUER, audience=AUDIENCE).verify


def _pem(public: Any) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = public.public_bytes(serialization.Encoding.PEM, kind)
    return pem.decode()


def _pyjwt(algorithm: str, public: Any, text: str) -> Callable[[], Any]:
    options: Any = {"require": ["exp"]}
    return lambda: jwt.decode(
        text, public, algorithms=[algorithm], issuer=ISSUER, audience=AUDIENCE, leeway=30, options=options
    )


# -- a flood ----------------------------------------------------------------------------------------------------------


def flood(bench: Bench, rounds: int) -> Found:
    """A request over its quota is cheaper than the application's own answer to it."""
    request = get_request()
    bare = bench.plain("bare", fastapi_app(), request)
    spent = bench.shielded("429", fastapi_app(), request, expect=429, RATE__PER_IP="1/hour")
    found = back_to_back([bare, spent], rounds=rounds, batch=25)
    ratio = found["429"].middle / found["bare"].middle
    rows, bars = _strangers(bench, rounds)
    return rows_of("flood over its quota", found) + rows, [
        Bar("B6", "B6 429 / bare request", round(ratio, 3), 0.5),
        *bars,
    ]


def _strangers(bench: Bench, rounds: int) -> Found:
    """A tenant that exists elsewhere and one that exists nowhere are refused in the same time."""

    def refused(name: str) -> Variant:
        request = browser_request("GET", f"/tenants/{name}/clients/42", token=token(), origin=ORIGIN)
        return bench.shielded(name, fastapi_app(), request, expect=404)

    found = back_to_back([refused("other"), refused("nobody")], rounds=rounds, batch=50)
    ratio = found["other"].middle / found["nobody"].middle
    return rows_of("foreign and unknown tenant", found), [
        Bar("23", "23 foreign / unknown tenant, time to refuse", round(max(ratio, 1 / ratio), 3), 1.1)
    ]


# -- size of the configuration ----------------------------------------------------------------------------------------


def sizes(bench: Bench, rounds: int) -> Found:
    """Ten thousand origins or routes cost what ten do."""
    origins = _origins(bench, rounds)
    routes = _routes(rounds)
    bars = [
        Bar("B7", f"B7 {MANY:,} origins / {FEW}", _ratio(origins), 1.15),
        Bar("B7", f"B7 {MANY:,} routes / {FEW}, the lookup alone", _ratio(routes), 1.15),
    ]
    return rows_of("whole request by origins allowed", origins) + rows_of("route lookup", routes), bars


def _ratio(found: Mapping[str, Series]) -> float:
    few, many = found.values()
    return round(many.middle / few.middle, 3)


def _origins(bench: Bench, rounds: int) -> Mapping[str, Series]:
    def variant(count: int) -> Variant:
        allowed = ",".join(["https://app.example.com", *(f"https://c{n}.example.com" for n in range(count - 1))])
        return bench.shielded(f"{count:,} origins", fastapi_app(), get_request(), CORS__ALLOW_ORIGINS=allowed)

    return back_to_back([variant(FEW), variant(MANY)], rounds=rounds, batch=25)


def _routes(rounds: int) -> Mapping[str, Series]:
    return back_to_back([_lookup(FEW), _lookup(MANY)], rounds=rounds, batch=400)


def _lookup(count: int) -> Variant:
    async def endpoint(request: Any) -> Response:
        return Response()

    app = Starlette(routes=[Route(f"/kind{n}/{{item_id}}", endpoint) for n in range(count)])
    table = StarletteTable(app, Protection(settings()).build(), [])
    request = browser_request("GET", f"/kind{count - 1}/42")
    scope = asgi_scope(request)

    def find() -> None:
        x = Exchange()
        x.native, x.path = scope, request.path
        table.find(x)

    return calls(f"{count:,} routes", find)
