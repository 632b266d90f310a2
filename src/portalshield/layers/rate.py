"""Rate limits: per address before authentication, per subject or tenant after it.

Refuses with 429, `Retry-After`, `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). Counts
in verified values only: the socket's address or the nearest untrusted hop, the proven subject and tenant. All limits
of one position are one question to the store. Does not cover: distributed floods (the proxy's), slow headers. Costs
one dict entry per limit in memory, one round trip per position on Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.needs import Counts, Hit, Quota, Unavailable
from portalshield.model.policy import By, EffectivePolicy, Limit
from portalshield.model.setting import ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Problem, Verdict, problem
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

    def __init__(self, counters: tuple[Counter, ...], *, by_address: bool) -> None:
        self.by_address = by_address
        self._counters = tuple(
            (_KEYS.get(by) or _joined(by), quota, scope, cost) for quota, by, scope, cost in counters
        )
        self._sole = self._counters[0] if len(self._counters) == 1 else None
        self.quotas = tuple(quota for quota, *_ in counters)
        self.policy = b", ".join(b'"%s";q=%d;w=%d' % (q.name.encode(), q.amount, q.window_s) for q in self.quotas)
        self.state = b", ".join(b'"%s";r=%%d;t=%%d' % q.name.encode() for q in self.quotas)

    def ask(self, x: Exchange) -> Hit | None:
        """Every counter of this position, in one question."""
        if self._sole is not None:
            by, quota, scope, cost = self._sole
            return Hit(((scope + (x.address_key if by is _by_ip else by(x)), quota, cost),))
        return Hit(tuple([(scope + key(x), quota, cost) for key, quota, scope, cost in self._counters]))

    def settle(self, x: Exchange, need: Hit, answer: Counts | Unavailable) -> Verdict:
        """429 when a quota is spent, 503 when the store cannot say and the policy is closed."""
        if isinstance(answer, Unavailable):
            return problem("unavailable", why=answer.reason, fields=((b"retry-after", b"5"),))
        x.counts += ((self, answer),)
        for count in answer:
            if not count.allowed:
                return self._refusal(answer)
        return None

    def _refusal(self, answer: Counts) -> Problem:
        spent = [(quota, count) for quota, count in zip(self.quotas, answer, strict=True) if not count.allowed]
        wait_s = max(1, *(ceil(count.reset_s) for _, count in spent))
        return problem(
            "rate-limited",
            why="quota-spent",
            fields=((b"retry-after", b"%d" % wait_s),),
            limit=[quota.name for quota, _ in spent],
        )


class RateFieldsStage:
    """`RateLimit` and `RateLimit-Policy` for everything that was counted, on every answer of a limited route."""

    layer = "rate"

    def __init__(self, *, legacy: bool) -> None:
        self._legacy = legacy

    def head(self, x: Exchange, head: Head) -> None:
        """One policy: the application's own fields do not survive beside ours."""
        head.drop(_FIELDS)

    def numbers(self, x: Exchange) -> Fields:
        """One list of policies, one of states."""
        counted = x.counts
        if not counted:
            return ()
        policies, states = [], []
        for stage, counts in counted:
            policies.append(stage.policy)
            if len(counts) == 1:
                states.append(stage.state % (counts[0].remaining, ceil(counts[0].reset_s)))
            else:
                states.append(stage.state % tuple([n for c in counts for n in (c.remaining, ceil(c.reset_s))]))
        fields: Fields = ((b"ratelimit-policy", b", ".join(policies)), (b"ratelimit", b", ".join(states)))
        return fields + _legacy(*counted[0]) if self._legacy else fields


_FIELDS = frozenset((b"ratelimit-policy", b"ratelimit"))


def _legacy(stage: RateStage, counts: Counts) -> Fields:
    return (
        (b"x-ratelimit-limit", b"%d" % stage.quotas[0].amount),
        (b"x-ratelimit-remaining", b"%d" % counts[0].remaining),
        (b"x-ratelimit-reset", b"%d" % ceil(counts[0].reset_s)),
    )


def _by_ip(x: Exchange) -> str:
    return x.address_key


def _by_subject(x: Exchange) -> str:
    principal = x.principal
    return f"{principal.issuer or ''}\x1f{principal.subject}" if principal is not None else x.address_key


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
    return _stage(early, by_address=True), _stage(late, by_address=False)


def _stage(counters: list[Counter], *, by_address: bool) -> RateStage | None:
    return RateStage(tuple(counters), by_address=by_address) if counters else None


def _of_route(config: RateConfig, limit: Limit, by: tuple[By, ...], route: str) -> list[Counter]:
    return _counters(limit.quota, config.strategy, by, "-".join(("route", *by)), limit.cost, route)


def _counters(notation: str, strategy: str, by: tuple[By, ...], name: str, cost: int, route: str = "") -> list[Counter]:
    if notation.strip().lower() in ("", "off"):
        return []
    scope = f"{name}\x1d{route}\x1d" if route else f"{name}\x1d"
    return [(quota, by, scope, cost) for quota in parse_quotas(notation, name, strategy)]
