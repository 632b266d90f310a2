"""CSRF without tokens: refuses unsafe cross-site requests that a browser sends with a cookie.

Acts on an unsafe request that carries a cookie and no `Authorization`. Decides by `Sec-Fetch-Site`, else by `Origin`
or `Referer` against `Host` (the rule of Go 1.25's CrossOriginProtection). Does not cover: handlers that change state
on GET. Costs two header lookups where there is no cookie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from portalshield.model.exchange import Exchange
from portalshield.model.setting import ConfigurationProblem, Setting
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.fetch_metadata import cross_site
from portalshield.rules.origins import OriginError, OriginPolicy

_SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_REFUSED = problem("csrf-refused", why="cross-site")


class CsrfConfig(BaseModel):
    """`PORTALSHIELD_CSRF__...`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    trusted_origins: Annotated[
        tuple[str, ...],
        Setting("foreign origins whose unsafe requests may carry a cookie; unset: the CORS origins, with credentials"),
    ] = ()

    def problems(self, *, development: bool) -> Iterator[ConfigurationProblem]:
        """Origins that are none."""
        try:
            OriginPolicy(self.trusted_origins, credentials=True, development=development)
        except OriginError as error:
            yield ConfigurationProblem("PS-CSRF-001", "PORTALSHIELD_CSRF__TRUSTED_ORIGINS", str(error), error.hint)


class CsrfStage:
    """`trusted` are canonical origins."""

    layer = "csrf"

    def __init__(self, trusted: frozenset[bytes]) -> None:
        self._trusted = trusted

    def check(self, x: Exchange) -> Verdict:
        """403 for a cross-site request that rides on a cookie."""
        if x.method in _SAFE:
            return None
        get = x.headers.get
        if get(b"cookie") is None or get(b"authorization") is not None:
            return None
        refused = cross_site(
            x.method, get(b"sec-fetch-site"), get(b"origin"), get(b"referer"), get(b"host"), self._trusted
        )
        return _REFUSED if refused else None
