"""CSRF without tokens: refuses unsafe cross-site requests that a browser sends with a cookie.

Acts on an unsafe request that carries a cookie and no `Authorization`, or an `Authorization` that browsers add by
themselves (Basic and its like). Decides by `Sec-Fetch-Site`, else by `Origin` or `Referer` against `Host` (the rule of
Go 1.25's CrossOriginProtection). Does not cover: handlers that change state on GET. Costs two header lookups where
there is no cookie.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.fetch_metadata import SAFE_METHODS, cross_site, is_ambient
from portalshield.rules.origins import origin_faults

_REFUSED = problem("csrf-refused", why="cross-site")


class CsrfConfig(BaseModel):
    """`PORTALSHIELD_CSRF__...`."""

    model_config = FROZEN

    trusted_origins: Annotated[
        tuple[str, ...],
        Setting("foreign origins whose unsafe requests may carry a cookie; unset: the CORS origins, with credentials"),
    ] = ()

    def problems(self, *, development: bool) -> Iterator[ConfigurationProblem]:
        """Entries that are no origins or would trust strangers, all of them."""
        for error in origin_faults(self.trusted_origins, credentials=True, development=development):
            yield ConfigurationProblem("PS-CSRF-001", "PORTALSHIELD_CSRF__TRUSTED_ORIGINS", str(error), error.hint)


class CsrfStage:
    """`trusted` holds the foreign origins that may ride on a cookie, as browsers send them."""

    layer = "csrf"

    def __init__(self, trusted: Container[bytes]) -> None:
        self._trusted = trusted

    def check(self, x: Exchange) -> Verdict:
        """403 for a cross-site request that rides on what the browser adds."""
        if x.method in SAFE_METHODS:
            return None
        get = x.headers.get
        authorization = get(b"authorization")
        if (not is_ambient(authorization)) if authorization else get(b"cookie") is None:
            return None
        refused = cross_site(
            x.method, get(b"sec-fetch-site"), get(b"origin"), get(b"referer"), get(b"host"), self._trusted
        )
        return _REFUSED if refused else None
