"""Rate limits: per address before authentication, per subject or tenant after it.

Refuses with 429, `Retry-After`, `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). Counts
in verified values only: the socket's address or the nearest untrusted hop, the proven subject and tenant. All limits
of one position are one question to the store. Does not cover: distributed floods (the proxy's), slow headers. Costs
one dict entry per limit in memory, one round trip per position on Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from math import ceil
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.needs import Counts, Hit, Quota, Unavailable, client_numbers
from portalshield.model.policy import By, EffectivePolicy, Limit
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Problem, Verdict, problem, unavailable
from portalshield.model.view import Price, RequestView
from portalshield.rules.quotas import parse_quotas

Counter = tuple[Quota, tuple[By, ...], str, int]
"""quota, what it counts by, the scope its key starts with, cost."""
_Priced = tuple[Counter, Price | None]
"""A counter and the function that tells its cost."""
_RETRY_S = 5
_UNKNOWN = (0, _RETRY_S)
"""Stands in the fields for a counter that nobody could read."""


class RateConfig(BaseModel):
    """`PORTALSHIELD_RATE__...`."""

    model_config = FROZEN

    per_ip: Annotated[str, Setting("before authentication, per address, in the notation of limits; `off` for none")] = (
        "300/minute"
    )
    default: Annotated[str, Setting("after authentication, per subject; `off` for none")] = "off"
    login: Annotated[
        str, Setting("failed attempts on routes with login=, per address and per account; `off` for none")
    ] = "5/minute"
    strategy: Annotated[
        Literal["fixed-window", "moving-window", "sliding-window-counter"], Setting("how a window is counted")
    ] = "fixed-window"
    on_outage: Annotated[
        Literal["local", "open", "closed"],
        Setting("when the store is down: the same quota in this process, allowed, or 503"),
    ] = "local"
    legacy_headers: Annotated[bool, Setting("also send X-RateLimit-Limit, -Remaining, -Reset")] = False

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Quotas that are none."""
        for name, notation in (("PER_IP", self.per_ip), ("DEFAULT", self.default), ("LOGIN", self.login)):
            try:
                _counters(notation, self.strategy, ("ip",), "ip")
            except ValueError as error:
                yield ConfigurationProblem(
                    "PS-RATE-001", f"PORTALSHIELD_RATE__{name}", f"{error}.", "Write 300/minute, or off."
                )


Who = Literal["ip", "subject"] | Callable[[Exchange], str]
"""Whom a counter counts: an address, a subject (without one its address), or whom a function tells."""


class Counting(Protocol):
    """A store in the memory of this process: it answers at once, there is nothing to wait for."""

    def checker(
        self,
        quota: Quota,
        scope: str,
        who: Who,
        cost: int,
        refuse: Callable[[int], Problem],
    ) -> Callable[[Exchange], Problem | None]:
        """A check that charges what stands under `scope` and who asks, or refuses."""

    def hit(self, hit: Hit) -> Counts:
        """Counts one request against several quotas, all or nothing."""


class RateStage:
    """The counters of one position; `by_address` ones come before authentication. Asks a store and waits for it."""

    layer = "rate"

    def __init__(self, counters: tuple[Counter, ...], *, by_address: bool) -> None:
        self.by_address = by_address
        self._counters = tuple(
            (_KEYS.get(by) or _joined(by), quota, scope, cost) for quota, by, scope, cost in counters
        )
        self.quotas = tuple(quota for quota, *_ in counters)

    def ask(self, x: Exchange) -> Hit:
        """Every counter of this position, in one question."""
        return Hit(tuple([(scope + key(x), quota, cost) for key, quota, scope, cost in self._counters]))

    def settle(self, x: Exchange, need: Hit, answer: Counts | Unavailable) -> Verdict:
        """429 when a quota is spent, 503 when the store cannot say and the policy is closed."""
        if isinstance(answer, Unavailable):
            # In report mode the next position is asked all the same: the fields go by how many have answered.
            x.counts += _UNKNOWN * len(self.quotas)
            return unavailable(answer.reason, _RETRY_S)
        x.counts += client_numbers(answer)
        spent = tuple([quota.name for quota, count in zip(self.quotas, answer, strict=True) if not count.allowed])
        return _too_many(spent, max([ceil(count.reset_s) for count in answer if not count.allowed])) if spent else None


@lru_cache(maxsize=1024)
def _too_many(spent: tuple[str, ...], wait_s: int) -> Problem:
    """A flood gets the same few answers again and again."""
    fields = ((b"retry-after", b"%d" % max(1, wait_s)),)
    return problem("rate-limited", why="quota-spent", fields=fields, limit=list(spent))


class CountedStage(RateStage):
    """The same with a store that answers at once."""

    asks = False

    def __init__(self, counters: tuple[Counter, ...], *, by_address: bool, counting: Counting) -> None:
        super().__init__(counters, by_address=by_address)
        self.check: Callable[[Exchange], Verdict] = (self._sole if len(counters) == 1 else self._several)(counting)
        """429 when a quota is spent. Compiled for what this position counts."""

    def _sole(self, counting: Counting) -> Callable[[Exchange], Verdict]:
        key, quota, scope, cost = self._counters[0]
        who: Who = "ip" if key is _by_ip else "subject" if key is _by_subject else key
        return counting.checker(quota, scope, who, cost, partial(_too_many, (quota.name,)))

    def _several(self, counting: Counting) -> Callable[[Exchange], Verdict]:
        def check(x: Exchange) -> Verdict:
            need = self.ask(x)
            return self.settle(x, need, counting.hit(need))

        return check


class PricedStage(RateStage):
    """The same where functions tell what a request uses up; None: the counter's own cost stands."""

    def __init__(self, counters: tuple[Counter, ...], prices: tuple[Price | None, ...], *, by_address: bool) -> None:
        super().__init__(counters, by_address=by_address)
        self._prices = prices

    def ask(self, x: Exchange) -> Hit:
        """Every counter of this position, each at its price."""
        view = RequestView(x)
        rows = zip(super().ask(x), self._prices, strict=True)
        return Hit(tuple([(key, quota, _asked(price, view) if price else cost) for (key, quota, cost), price in rows]))


def _asked(price: Price, view: RequestView) -> int:
    """Anything but a number of 0 or more is a bug, and a bug refuses the request."""
    cost = price(view)
    if type(cost) is not int or cost < 0:
        raise TypeError("a cost function returned no whole number of 0 or more")
    return cost


class RateFieldsStage:
    """`RateLimit` and `RateLimit-Policy` for everything that was counted, on every answer of a limited route.

    `limits` are the quotas of each position, in the order in which they are asked.
    """

    layer = "rate"

    def __init__(self, limits: Iterable[tuple[Quota, ...]], *, legacy: bool) -> None:
        self._legacy = legacy
        self._ready: dict[int, tuple[tuple[bytes, bytes], bytes]] = {}
        """By how many numbers are known: the field of policies, the form of the states."""
        asked: tuple[Quota, ...] = ()
        for quotas in limits:
            asked += quotas
            policies = b", ".join([b'"%s";q=%d;w=%d' % (q.name.encode(), q.amount, q.window_s) for q in asked])
            states = b", ".join([b'"%s";r=%%d;t=%%d' % q.name.encode() for q in asked])
            self._ready[2 * len(asked)] = ((b"ratelimit-policy", policies), states)
        self._asked = asked
        self._dropped = _FIELDS | _OLD_FIELDS if legacy else _FIELDS

    def head(self, x: Exchange, head: Head) -> None:
        """One policy: the application's own fields do not survive beside ours."""
        head.drop(self._dropped)

    def numbers(self, x: Exchange) -> Fields:
        """One list of policies, one of states."""
        counts = x.counts
        if not counts:
            return ()
        policies, states = self._ready[len(counts)]
        fields: Fields = (policies, (b"ratelimit", states % counts))
        return fields + self._old_fields(counts) if self._legacy else fields

    def _old_fields(self, counts: tuple[int, ...]) -> Fields:
        """They have room for one quota: the one that is nearest to being spent."""
        rows = zip(self._asked, counts[::2], counts[1::2], strict=False)
        quota, remaining, reset_s = min(rows, key=lambda row: row[1])
        return (
            (b"x-ratelimit-limit", b"%d" % quota.amount),
            (b"x-ratelimit-remaining", b"%d" % remaining),
            (b"x-ratelimit-reset", b"%d" % reset_s),
        )


_FIELDS = frozenset((b"ratelimit-policy", b"ratelimit"))
_OLD_FIELDS = frozenset((b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"))


def _by_ip(x: Exchange) -> str:
    return x.address_key


def _by_subject(x: Exchange) -> str:
    principal = x.principal
    return principal.rate_key if principal is not None else x.address_key


def _by_tenant(x: Exchange) -> str:
    principal = x.principal
    if principal is None:
        return x.address_key
    return principal.tenant or f"\x1e{principal.subject}"


_KEYS: dict[tuple[By, ...], Callable[[Exchange], str]] = {
    ("ip",): _by_ip,
    ("subject",): _by_subject,
    ("tenant",): _by_tenant,
}
"""What a counter counts by; without a principal everything counts by address."""


def _joined(by: tuple[By, ...]) -> Callable[[Exchange], str]:
    parts = [_KEYS[(kind,)] for kind in by]
    return lambda x: "\x1d".join([part(x) for part in parts])


def stages(
    config: RateConfig, policy: EffectivePolicy, route: str, counting: Counting | None = None
) -> tuple[RateStage | None, RateStage | None]:
    """The two positions: before authentication and after it. Health routes are not limited."""
    if policy.health:
        return None, None
    override = any(limit.override for limit in policy.limits)
    early: list[_Priced] = []
    late: list[_Priced] = []
    if not override:
        early += _free(_counters(config.per_ip, config.strategy, ("ip",), "ip"))
    if not override and not policy.public:
        late += _free(_counters(config.default, config.strategy, ("subject",), "subject"))
    for limit in policy.limits:
        by = limit.by or (("ip",) if policy.public else ("subject",))
        (early if by == ("ip",) else late).extend(_of_route(config, limit, by, route))
    _tell_apart(early, late)
    return _stage(early, counting, by_address=True), _stage(late, counting, by_address=False)


def _stage(rows: list[_Priced], counting: Counting | None, *, by_address: bool) -> RateStage | None:
    if not rows:
        return None
    counters, prices = tuple(counter for counter, _ in rows), tuple(price for _, price in rows)
    if any(prices):
        return PricedStage(counters, prices, by_address=by_address)
    if counting is None:
        return RateStage(counters, by_address=by_address)
    return CountedStage(counters, by_address=by_address, counting=counting)


def _tell_apart(*positions: list[_Priced]) -> None:
    """Quotas of one name get numbers: the fields are lists of names."""
    seen: dict[str, int] = {}
    for rows in positions:
        for number, ((quota, by, scope, cost), price) in enumerate(rows):
            seen[quota.name] = times = seen.get(quota.name, 0) + 1
            if times > 1:
                rows[number] = (replace(quota, name=f"{quota.name}-{times}"), by, scope, cost), price


class Limiting(Protocol):
    """A position of the walk that tells `Exchange.counts` of each of its quotas."""

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """In the order of the counts."""


def fields_stage(config: RateConfig, limits: Iterable[Limiting | None]) -> RateFieldsStage | None:
    """What tells about these positions; None where nothing is limited."""
    quotas = [stage.quotas for stage in limits if stage is not None]
    return RateFieldsStage(quotas, legacy=config.legacy_headers) if quotas else None


def login_quotas(config: RateConfig) -> tuple[Quota, ...]:
    """What `RATE__LOGIN` allows. An outage of the store never opens these."""
    counters = _counters(config.login, config.strategy, ("ip",), "login")
    return tuple(replace(quota, brake=True) for quota, *_ in counters)


def _free(counters: list[Counter]) -> list[_Priced]:
    return [(counter, None) for counter in counters]


def _of_route(config: RateConfig, limit: Limit, by: tuple[By, ...], route: str) -> list[_Priced]:
    price = None if isinstance(limit.cost, int) else limit.cost
    cost = limit.cost if isinstance(limit.cost, int) else 1
    counters = _counters(limit.quota, config.strategy, by, "-".join(("route", *by)), cost, route)
    if any(cost > quota.amount for quota, *_ in counters):
        raise ValueError("has a limit that no request fits into: its cost is above its quota")
    return [(counter, price) for counter in counters]


def _counters(
    notation: str, strategy: str, by: tuple[By, ...], name: str, cost: int = 1, route: str = ""
) -> list[Counter]:
    if notation.strip().lower() in ("", "off"):
        return []
    scope = f"{name}\x1d{route}\x1d" if route else f"{name}\x1d"
    return [(quota, by, scope, cost) for quota in parse_quotas(notation, name, strategy)]
