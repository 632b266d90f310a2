"""Authorization: what a principal must have beyond being known.

Refuses: missing scopes or roles (403 `insufficient_scope`), an impersonated user where that is forbidden (the same), a
login that is too old (401 `insufficient_user_authentication`, RFC 9470). Does not cover: which object it is about; that
is asked of tenants and owners. Costs a comparison of two sets.
"""

from __future__ import annotations

from portalshield.model.exchange import Exchange
from portalshield.model.policy import EffectivePolicy
from portalshield.model.verdicts import Problem, Verdict, problem
from portalshield.rules.claims import authenticated_at


class GrantStage:
    """All scopes, one of the roles, a login young enough, and, where impersonation is forbidden, nobody acting in the
    user's name."""

    layer = "auth"
    needs_principal = True

    def __init__(
        self,
        scopes: tuple[str, ...] = (),
        roles: tuple[str, ...] = (),
        *,
        max_age_s: float | None = None,
        impersonation: bool = True,
    ) -> None:
        self._scopes = frozenset(scopes)
        self._roles = frozenset(roles)
        self._refusal = _insufficient("not-granted", scopes)
        self._max_age_s = max_age_s
        self._too_old = _stale_login(max_age_s or 0)
        self._impersonation = impersonation

    def check(self, x: Exchange) -> Verdict:
        """403 for a principal that may not do this, 401 for one that must log in again first."""
        principal = x.principal
        if principal is None:
            return None
        if principal.actor is not None and not self._impersonation:
            return _IMPERSONATED
        if not self._scopes <= set(principal.scopes):
            return self._refusal
        if self._roles and self._roles.isdisjoint(principal.roles):
            return self._refusal
        if self._max_age_s is None:
            return None
        at = authenticated_at(principal.claims)
        # Who cannot say when he logged in has not done so recently.
        return None if at is not None and x.now - at < self._max_age_s else self._too_old


def _insufficient(why: str, scopes: tuple[str, ...] = ()) -> Problem:
    named = f', scope="{" ".join(scopes)}"' if scopes else ""
    challenge = f'Bearer error="insufficient_scope"{named}'.encode()
    return problem("insufficient-scope", why=why, fields=((b"www-authenticate", challenge),))


def _stale_login(max_age_s: float) -> Problem:
    """RFC 9470, section 3: the client sends the user to log in again, with this `max_age`."""
    challenge = f'Bearer error="insufficient_user_authentication", max_age="{int(max_age_s)}"'.encode()
    return problem("insufficient-user-authentication", why="login-too-old", fields=((b"www-authenticate", challenge),))


_IMPERSONATED = _insufficient("impersonated")


def stage(policy: EffectivePolicy) -> GrantStage | None:
    """None where a principal is enough."""
    if not (policy.scopes or policy.roles or policy.max_age is not None or not policy.impersonation):
        return None
    return GrantStage(policy.scopes, policy.roles, max_age_s=policy.max_age, impersonation=policy.impersonation)
