"""Rate limits: per address before authentication, per subject or tenant after it.

Refuses with 429, `Retry-After`, `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). Counts
in verified values only: the socket's address or the nearest untrusted hop, the proven subject and tenant. All limits
of one position are one question to the store. Does not cover: distributed floods (the proxy's), slow headers. Costs
one dict entry per limit in memory, one round trip per position on Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.needs import Count, Counts, Hit, Quota, Unavailable
from portalshield.model.policy import By, EffectivePolicy, Limit
from portalshield.model.setting import ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Verdict, problem
from portalshield.rules.addresses import limit_key
from portalshield.rules.quotas import parse_quotas

Counter = tuple[Quota, tuple[By, ...], str, int]
"""quota, what it counts by, the scope its key starts with, cost."""


class RateConfig(BaseModel):
    """`PORTALSHIELD_RATE__...`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    per_ip: Annotated[str, Setting("before authentication, per address, in the notation of limits; `off` for none")] = (
        "300/minute"
    )
    default: Annotated[str, Setting("after authentication, per subject; `off` for none")] = "off"
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
        for name, notation in (("PER_IP", self.per_ip), ("DEFAULT", self.default)):
            try:
                _counters(notation, self.strategy, ("ip",), "ip", 1)
            except ValueError as error:
                yield ConfigurationProblem(
                    "PS-RATE-001", f"PORTALSHIELD_RATE__{name}", f"{error}.", "Write 300/minute, or off."
                )


class RateStage:
    """The counters of one position; `by_address` ones come before authentication."""

    layer = "rate"

    def __init__(self, counters: tuple[Counter, ...], *, by_address: bool, legacy: bool) -> None:
        self.by_address = by_address
        self._counters = counters
        self._quotas = frozenset(quota for quota, *_ in counters)
        self._legacy = legacy
        policy = ", ".join(f'"{quota.name}";q={quota.amount};w={quota.window_s}' for quota, *_ in counters)
        self._policy = policy.encode()

    def ask(self, x: Exchange) -> Hit | None:
        """Every counter of this position whose key is known, in one question."""
        return Hit(tuple((scope + _key(x, by), quota, cost) for quota, by, scope, cost in self._counters))

    def settle(self, x: Exchange, need: Hit, answer: Counts | Unavailable) -> Verdict:
        """429 when a quota is spent, 503 when the store cannot say and the policy is closed."""
        if isinstance(answer, Unavailable):
            return problem("unavailable", why=answer.reason, fields=((b"retry-after", b"5"),))
        counted = tuple((counter[1], count) for counter, count in zip(need.counters, answer, strict=True))
        x.counts += counted
        spent = [(quota, count) for quota, count in counted if not count.allowed]
        if not spent:
            return None
        wait_s = max(1, *(ceil(count.reset_s) for _, count in spent))
        return problem(
            "rate-limited",
            why="quota-spent",
            fields=((b"retry-after", b"%d" % wait_s),),
            limit=[quota.name for quota, _ in spent],
        )

    def head(self, x: Exchange, head: Head) -> None:
        """`RateLimit` and `RateLimit-Policy` on every answer of a limited route."""
        mine = [(quota, count) for quota, count in x.counts if quota in self._quotas]
        if not mine:
            return
        state = b", ".join(b'"%s";r=%d;t=%d' % (q.name.encode(), c.remaining, ceil(c.reset_s)) for q, c in mine)
        _append(head, b"ratelimit-policy", self._policy)
        _append(head, b"ratelimit", state)
        if self._legacy and b"x-ratelimit-limit" not in head.names:
            head.add(_legacy(mine))


def _append(head: Head, name: bytes, value: bytes) -> None:
    held = head.get(name)
    head.put(name, value if held is None else held + b", " + value) if held is not None else head.add(((name, value),))


def _legacy(counted: list[tuple[Quota, Count]]) -> Fields:
    quota, count = counted[0]
    return (
        (b"x-ratelimit-limit", b"%d" % quota.amount),
        (b"x-ratelimit-remaining", b"%d" % count.remaining),
        (b"x-ratelimit-reset", b"%d" % ceil(count.reset_s)),
    )


def _key(x: Exchange, by: tuple[By, ...]) -> str:
    principal = x.principal
    parts: list[str] = []
    for kind in by:
        if kind == "ip" or principal is None:
            parts.append(limit_key(x.address))
        elif kind == "subject":
            parts.append(f"{principal.issuer or ''}\x1f{principal.subject}")
        else:
            parts.append(principal.tenant or f"\x1e{principal.subject}")
    return parts[0] if len(parts) == 1 else "\x1d".join(parts)


def stages(config: RateConfig, policy: EffectivePolicy, route: str) -> tuple[RateStage | None, RateStage | None]:
    """The two positions: before authentication and after it. Health routes are not limited."""
    if policy.health:
        return None, None
    override = any(limit.override for limit in policy.limits)
    early: list[Counter] = [] if override else _counters(config.per_ip, config.strategy, ("ip",), "ip", 1)
    late: list[Counter] = []
    if not policy.public and not override:
        late += _counters(config.default, config.strategy, ("subject",), "subject", 1)
    for limit in policy.limits:
        by = limit.by or (("ip",) if policy.public else ("subject",))
        (early if by == ("ip",) else late).extend(_of_route(config, limit, by, route))
    return _stage(config, early, by_address=True), _stage(config, late, by_address=False)


def _stage(config: RateConfig, counters: list[Counter], *, by_address: bool) -> RateStage | None:
    if not counters:
        return None
    return RateStage(tuple(counters), by_address=by_address, legacy=config.legacy_headers)


def _of_route(config: RateConfig, limit: Limit, by: tuple[By, ...], route: str) -> list[Counter]:
    return _counters(limit.quota, config.strategy, by, "-".join(("route", *by)), limit.cost, route)


def _counters(notation: str, strategy: str, by: tuple[By, ...], name: str, cost: int, route: str = "") -> list[Counter]:
    if notation.strip().lower() in ("", "off"):
        return []
    scope = f"{name}\x1d{route}\x1d" if route else f"{name}\x1d"
    return [(quota, by, scope, cost) for quota in parse_quotas(notation, name, strategy)]
