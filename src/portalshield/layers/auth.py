"""Authentication: a verified principal on every route that did not say otherwise.

Refuses: no credential (401, a challenge without error code, RFC 6750), an unusable one (401 `invalid_token`, the same
answer for every cause), two of them (400), missing scopes or roles (403 `insufficient_scope`). On a path that no route
serves a caller without a credential gets 404. Public routes treat an unusable credential as none. Does not cover: what
the provider signs. Costs one hash and one dict lookup for a token that was verified before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from portalshield.model.exchange import Exchange
from portalshield.model.needs import FetchKeys, Identified, Identify, Refreshed, Unavailable
from portalshield.model.policy import EffectivePolicy
from portalshield.model.secret import Secret
from portalshield.model.setting import ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Reply, Verdict, problem
from portalshield.rules.authority import Authority
from portalshield.rules.claims import parse_pointer
from portalshield.rules.tokens import TokenError, read_header, split_token

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class AuthConfig(BaseModel):
    """`PORTALSHIELD_AUTH` and `PORTALSHIELD_AUTH__...`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    preset: Annotated[
        Literal["jwt", "none"] | None,
        Setting("jwt (own secret, key or JWKS URL) or none (the application does its own)", own=True),
    ] = None
    issuer: Annotated[str | None, Setting("the `iss` that tokens must carry, exactly")] = None
    audience: Annotated[tuple[str, ...], Setting("tokens must be meant for one of these")] = ()
    secret: Annotated[Secret | None, Setting("HMAC secret (HS256, HS384, HS512)")] = None
    public_key: Annotated[str | None, Setting("public key as PEM; `\\n` may stand for line ends")] = None
    jwks: Annotated[str | None, Setting("a static JSON Web Key Set")] = None
    jwks_url: Annotated[str | None, Setting("where the key set is fetched, https only")] = None
    algorithms: Annotated[tuple[str, ...], Setting("allowed algorithms, of one family; unset: what fits the key")] = ()
    leeway: Annotated[float, Setting("clock difference that is tolerated", unit="seconds")] = 30.0
    cookie: Annotated[str | None, Setting("name of a cookie that carries the token")] = None
    max_lifetime: Annotated[
        float | None, Setting("longest life of a token; unset: 30d with an own secret, else 24h", unit="seconds")
    ] = None
    subject_claim: Annotated[str, Setting("where the subject stands: a name or a JSON pointer")] = "sub"
    roles_claim: Annotated[tuple[str, ...], Setting("where the roles stand, the first that is there")] = (
        "roles",
        "role",
    )
    scopes_claim: Annotated[tuple[str, ...], Setting("where the scopes stand, the first that is there")] = (
        "scope",
        "scp",
    )
    cache: Annotated[int, Setting("verified tokens that are remembered for at most 60s; 0 = off", unit="entries")] = (
        10_000
    )
    login_url: Annotated[str | None, Setting("anonymous page loads are sent here with 303")] = None
    insecure_no_audience: Annotated[bool, Setting("accept tokens meant for anybody; logs on every start")] = False
    insecure_no_expiry: Annotated[bool, Setting("accept tokens that never end; logs on every start")] = False

    @property
    def verifies(self) -> bool:
        """Tokens are verified here."""
        return self.preset not in (None, "none")

    def problems(self, *, development: bool) -> Iterator[ConfigurationProblem]:
        """What is missing or dangerous, short of the key material itself (which the plan loads)."""
        prefix = "PORTALSHIELD_AUTH"
        if self.verifies:
            yield from self._missing(prefix)
        if not 0 <= self.leeway <= 120:
            yield ConfigurationProblem("PS-AUTH-008", f"{prefix}__LEEWAY", "lies outside 0s to 120s.", "Write 30s.")
        if self.jwks_url is not None and not _fetchable(self.jwks_url, development):
            yield ConfigurationProblem(
                "PS-AUTH-007",
                f"{prefix}__JWKS_URL",
                "is no https address.",
                "Key sets come over https only (http to loopback outside production).",
            )
        named = (("SUBJECT", (self.subject_claim,)), ("ROLES", self.roles_claim), ("SCOPES", self.scopes_claim))
        for name, pointers in named:
            for text in pointers:
                try:
                    parse_pointer(text)
                except ValueError as error:
                    yield ConfigurationProblem("PS-AUTH-010", f"{prefix}__{name}_CLAIM", f"{error}.")

    def _missing(self, prefix: str) -> Iterator[ConfigurationProblem]:
        sources = [self.secret, self.public_key, self.jwks, self.jwks_url]
        if sum(source is not None for source in sources) != 1:
            yield ConfigurationProblem(
                "PS-AUTH-002",
                prefix,
                "=jwt needs exactly one source of keys.",
                f"Set one of {prefix}__SECRET, __PUBLIC_KEY, __JWKS or __JWKS_URL.",
            )
        if not self.audience and not self.insecure_no_audience:
            yield ConfigurationProblem(
                "PS-AUTH-003",
                f"{prefix}__AUDIENCE",
                "is missing: a token meant for another service would be accepted.",
                "Write the `aud` your tokens carry; only INSECURE_NO_AUDIENCE=true does without.",
            )
        if self.issuer is None and self.secret is None:
            yield ConfigurationProblem(
                "PS-AUTH-004",
                f"{prefix}__ISSUER",
                "is missing: keys and issuer belong together.",
                "Write the `iss` your tokens carry, exactly.",
            )


def _fetchable(url: str, development: bool) -> bool:
    parts = urlsplit(url)
    if parts.username is not None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and development and parts.hostname in _LOOPBACK)


_BEARER = b"bearer"
_TWO = problem(
    "malformed-request",
    why="two-credentials",
    fields=((b"www-authenticate", b'Bearer error="invalid_request"'),),
)
_MISSING = problem("unauthenticated", why="no-credential", fields=((b"www-authenticate", b"Bearer"),))
_UNSERVED = problem("not-found", why="unserved-without-principal")
_CHALLENGE: Fields = ((b"www-authenticate", b'Bearer error="invalid_token"'),)
_NO_KEYS_FIELDS: Fields = ((b"retry-after", b"5"),)


class BearerStage:
    """A token in the Authorization field (RFC 6750, 2.1) or in the configured cookie."""

    layer = "auth"

    def __init__(
        self, authority: Authority, *, policy: EffectivePolicy, cookie: str | None, login_url: str | None
    ) -> None:
        self._authority = authority
        self._optional = policy.public
        self._missing = _UNSERVED if policy.unserved else _MISSING
        self._cookie = cookie.encode() if cookie else None
        self._login = (
            Reply(303, ((b"location", login_url.encode()), (b"cache-control", b"no-store"))) if login_url else None
        )

    def check(self, x: Exchange) -> Verdict:
        """Establish the principal, or say why not."""
        try:
            token = self._credential(x)
        except TokenError as fault:
            return self._invalid(fault)
        except ValueError:
            return _TWO
        if token is None:
            return None if self._optional else self._anonymous(x)
        principal = self._authority.recall(token, x.now)
        if principal is not None:
            x.principal = principal
            return None
        return self._verify(x, token, last=False)

    def ask(self, x: Exchange) -> FetchKeys | None:
        """Fresh keys, where the token names one that is not known."""
        if x.credential is None:
            return None
        return FetchKeys(self._authority.issuer, key_id(x.credential))

    def settle(self, x: Exchange, need: FetchKeys, answer: Refreshed | Unavailable) -> Verdict:
        """Look again; what is still unknown is invalid, and without any keys nobody can tell (503)."""
        token, x.credential = x.credential, None
        if isinstance(answer, Unavailable):
            return None if self._optional else problem("unavailable", why=answer.reason, fields=_NO_KEYS_FIELDS)
        return self._verify(x, token or b"", last=True)

    def _verify(self, x: Exchange, token: bytes, *, last: bool) -> Verdict:
        try:
            x.principal = self._authority.verify(token, x.now)
        except TokenError as fault:
            if fault.code != "unknown-key" or last or self._optional:
                return self._invalid(fault)
            x.credential = token
        return None

    def _credential(self, x: Exchange) -> bytes | None:
        field = x.headers.get(b"authorization")
        token = None
        if field is not None:
            scheme, _, token = field.partition(b" ")
            if scheme.lower() != _BEARER or not token or b" " in token or b"," in token:
                raise TokenError("malformed")
        if self._cookie is None:
            return token
        held = cookie_values(x.headers.get(b"cookie") or b"", self._cookie)
        if len(set(held) | ({token} if token is not None else set())) > 1:
            raise ValueError
        return token if token is not None or not held else held[0]

    def _invalid(self, fault: TokenError) -> Verdict:
        if self._optional:
            return None
        if self._missing is _UNSERVED:
            return _UNSERVED
        return problem("invalid-token", why=f"token-{fault.code}", fields=_CHALLENGE)

    def _anonymous(self, x: Exchange) -> Verdict:
        if self._login is not None and x.method == "GET" and b"text/html" in (x.headers.get(b"accept") or b""):
            return self._login
        return self._missing


def key_id(token: bytes) -> str | None:
    """The `kid` a token names, of a token whose header was accepted before."""
    return read_header(split_token(token).header).kid


def cookie_values(field: bytes, name: bytes) -> list[bytes]:
    """Every value of one cookie (RFC 6265, 4.2.1); a browser may send two of different paths."""
    pairs = (pair.strip().partition(b"=") for pair in field.split(b";"))
    return [value.strip(b'"') for key, _, value in pairs if key == name]


class IdentifyStage:
    """The application says who it is (`Shield(authenticate=...)`), inside its own middleware."""

    layer = "auth"

    def __init__(self, policy: EffectivePolicy) -> None:
        self._optional = policy.public
        self._missing = _UNSERVED if policy.unserved else _MISSING

    def ask(self, x: Exchange) -> Identify:
        """Always: the application's session may know somebody on a public route too."""
        return Identify()

    def settle(self, x: Exchange, need: Identify, answer: Identified | Unavailable) -> Verdict:
        """The principal it named; 503 where it failed."""
        if isinstance(answer, Unavailable):
            return problem("unavailable", why=answer.reason, fields=_NO_KEYS_FIELDS)
        x.principal = answer.principal
        return None if answer.principal is not None or self._optional else self._missing


class GrantStage:
    """Scopes and roles: all scopes, one of the roles."""

    layer = "auth"
    needs_principal = True

    def __init__(self, scopes: tuple[str, ...], roles: tuple[str, ...]) -> None:
        self._scopes = frozenset(scopes)
        self._roles = frozenset(roles)
        named = f', scope="{" ".join(scopes)}"' if scopes else ""
        challenge = f'Bearer error="insufficient_scope"{named}'.encode()
        self._refusal = problem("insufficient-scope", why="not-granted", fields=((b"www-authenticate", challenge),))

    def check(self, x: Exchange) -> Verdict:
        """403 for a principal that may not do this."""
        principal = x.principal
        if principal is None:
            return None
        if not self._scopes <= set(principal.scopes):
            return self._refusal
        return self._refusal if self._roles and self._roles.isdisjoint(principal.roles) else None


def grants(policy: EffectivePolicy) -> GrantStage | None:
    """None where a principal is enough."""
    return GrantStage(policy.scopes, policy.roles) if policy.scopes or policy.roles else None
