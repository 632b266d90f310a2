"""Hosts: which `Host` values are served here.

Refuses: a Host outside the list (421), none at all (400). A foreign Host is how password-reset links and caches are
poisoned. Malformed and doubled ones are refused on every request, before any layer. Does not cover: the TLS name (SNI),
which is the server's. Health routes are exempt: load balancers send an address. Costs one set lookup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.policy import EffectivePolicy
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.hosts import HostPolicy, host_faults


class HostsConfig(BaseModel):
    """`PORTALSHIELD_HOSTS`."""

    model_config = FROZEN

    allowed: Annotated[
        tuple[str, ...],
        Setting("allowed Host values, exact or `*.example.com` (one label); empty: any", own=True),
    ] = ()

    def example(self, default: str) -> str:
        """A Host that is served here: the first of the list, for a pattern one that fits it; `default` if any is."""
        return self.allowed[0].replace("*", "www") if self.allowed else default

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Names that no Host field can have, all of them."""
        for error in host_faults(self.allowed):
            hint = "Write a name such as app.example.com or *.example.com, without a scheme."
            yield ConfigurationProblem("PS-HOST-001", "PORTALSHIELD_HOSTS", f"{error}.", hint)


_MALFORMED = problem("malformed-request", why="host-malformed")
_FOREIGN = problem("host-not-allowed", why="host-not-listed")


class HostsStage:
    """Compares the Host field with the list."""

    layer = "hosts"

    def __init__(self, names: tuple[str, ...]) -> None:
        self._fault = HostPolicy(names).fault

    def check(self, x: Exchange) -> Verdict:
        """400 for a malformed Host, 421 for one that is not served here."""
        fault = self._fault(x.headers.get(b"host"))
        if fault is None:
            return None
        return _MALFORMED if fault == "malformed" else _FOREIGN


def stage(config: HostsConfig, policy: EffectivePolicy) -> HostsStage | None:
    """None where any Host is served, and on health routes."""
    return None if policy.health or not config.allowed else HostsStage(config.allowed)
