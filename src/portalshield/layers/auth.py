"""Authentication: a verified principal on every route that did not say otherwise.

Refuses: no credential (401, a challenge without error code, RFC 6750), an unusable one (401 `invalid_token`, the same
answer for every cause), two of them (400). On a path that no route serves a caller without a credential gets 404.
Public routes treat an unusable credential as none. Does not cover: what the provider signs. Costs one hash and one dict
lookup for a token that was verified before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel

from portalshield.model.exchange import Exchange
from portalshield.model.needs import FetchKeys, Identified, Identify, Refreshed, Unavailable
from portalshield.model.policy import EffectivePolicy
from portalshield.model.secret import Secret
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Fields, Reply, Verdict, problem, unavailable
from portalshield.rules.authority import Authority, RevocationsUnknownError
from portalshield.rules.claims import parse_pointer
from portalshield.rules.http_tokens import is_token
from portalshield.rules.jws import TokenError, read_header, split_token
from portalshield.rules.presets import PRESETS, Preset, names_anybody
from portalshield.rules.tokens import MAX_LEEWAY_S

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_PREFIX = "PORTALSHIELD_AUTH"
HOST_PREFIX = "__Host-"
"""A browser takes a cookie of such a name only from this host, over https, for all paths (RFC 6265bis, 4.1.3.2)."""


class IssuerConfig(BaseModel):
    """One issuer of tokens: `PORTALSHIELD_AUTH__...`; a further one: `PORTALSHIELD_AUTH__ISSUERS__<NAME>__...`."""

    model_config = FROZEN

    preset: Annotated[
        Literal["supabase", "firebase", "auth0", "clerk", "cognito", "oidc", "jwt", "none"] | None,
        Setting(
            "a provider by name, oidc (any issuer with discovery), jwt (own secret, key or JWKS URL)"
            " or none (the application does its own)",
            own=True,
        ),
    ] = None
    issuer: Annotated[str | None, Setting("the `iss` that tokens must carry, exactly")] = None
    audience: Annotated[
        tuple[str, ...],
        Setting("tokens must be meant for one of these; Firebase: the project id, Cognito: the app clients"),
    ] = ()
    secret: Annotated[Secret | None, Setting("HMAC secret (HS256, HS384, HS512)")] = None
    public_key: Annotated[str | None, Setting("public key as PEM; `\\n` may stand for line ends")] = None
    jwks: Annotated[str | None, Setting("a static JSON Web Key Set")] = None
    jwks_url: Annotated[str | None, Setting("where the key set is fetched, https only")] = None
    algorithms: Annotated[tuple[str, ...], Setting("allowed algorithms, of one family; unset: what fits the key")] = ()
    leeway: Annotated[float, Setting("clock difference that is tolerated", unit="seconds")] = 30.0
    authorized_parties: Annotated[
        tuple[str, ...], Setting("origins that `azp` may name; needed for Clerk, whose tokens have no audience")
    ] = ()
    max_lifetime: Annotated[
        float | None,
        Setting("longest life of a token; unset: 24h, for jwt with an own secret 30d", unit="seconds"),
    ] = None
    subject_claim: Annotated[str, Setting("where the subject stands: a name or a JSON pointer")] = "sub"
    roles_claim: Annotated[
        tuple[str, ...], Setting("where the roles stand, the first that is there; a provider's own unless set")
    ] = ("roles", "role")
    scopes_claim: Annotated[
        tuple[str, ...], Setting("where the scopes stand, the first that is there; a provider's own unless set")
    ] = ("scope", "scp")
    insecure_no_audience: Annotated[bool, Setting("accept tokens meant for anybody; logs on every start")] = False
    insecure_no_expiry: Annotated[bool, Setting("accept tokens that never end; logs on every start")] = False

    @property
    def has_keys(self) -> bool:
        """Keys are configured here, and not fetched from where the provider keeps them."""
        return any(source is not None for source in (self.secret, self.public_key, self.jwks, self.jwks_url))

    def named_issuer(self, row: Preset) -> str | None:
        """The issuer in force."""
        return row.issuer_for(self.issuer, self.audience)

    def faults(self, prefix: str, row: Preset | None, *, several: bool, development: bool) -> Iterator[_Fault]:
        """What is wrong with this issuer. `row` is None where no token is verified; `several`: it is one of many."""
        if not 0 <= self.leeway <= MAX_LEEWAY_S:
            yield _Fault("008", "__LEEWAY", f"lies outside 0s to {MAX_LEEWAY_S:g}s.", "Write 30s.")
        if self.jwks_url is not None and not _fetchable(self.jwks_url, development):
            yield _Fault("007", "__JWKS_URL", "is no https address.", _HTTPS)
        yield from self._pointer_faults(row)
        if row is not None:
            yield from self._source_faults(prefix, row)
            yield from self._party_faults(row)
            if row.template_for(self.issuer) is not None:
                yield from self._directory_faults()
            yield from self._issuer_faults(row, several=several, development=development)

    def _pointer_faults(self, row: Preset | None) -> Iterator[_Fault]:
        named = (("SUBJECT", (self.subject_claim,)), ("ROLES", self.roles_claim), ("SCOPES", self.scopes_claim))
        for name, pointers in named:
            for text in pointers:
                try:
                    fault = row.fault_of(parse_pointer(text), tenant=False) if row is not None else None
                except ValueError as error:
                    fault = str(error)
                if fault is not None:
                    yield _Fault("010", f"__{name}_CLAIM", f"{fault}.")

    def _source_faults(self, prefix: str, row: Preset) -> Iterator[_Fault]:
        sources = [self.secret, self.public_key, self.jwks, self.jwks_url]
        given = sum(source is not None for source in sources)
        if self.secret is not None and not row.own_secret:
            yield _Fault("002", "__SECRET", f"is nothing that {row.name} has: its keys are public.", "Leave it out.")
        elif given > 1 or (given == 0 and not row.key_set and not row.discovery):
            count = "exactly one source" if row.name == "jwt" else "at most one source"
            hint = f"Set one of {prefix}__SECRET, __PUBLIC_KEY, __JWKS or __JWKS_URL."
            yield _Fault("002", "", f"is {row.name}, which needs {count} of keys.", hint)

    def _party_faults(self, row: Preset) -> Iterator[_Fault]:
        if row.issuer and self.issuer is None and len(self.audience) != 1:
            yield _Fault("017", "__AUDIENCE", f"has not one entry: {row.name} needs the one project id.")
        elif row.party == "azp" and not self.authorized_parties:
            yield _Fault(
                "012",
                "__AUTHORIZED_PARTIES",
                f"is missing: {row.name} tokens have no audience, a token of any other site would be accepted.",
                "List the origins of your own pages, for example https://app.example.com.",
            )
        elif row.party != "azp" and not (self.audience or row.audience or self.insecure_no_audience):
            hint = "List the ids of your app clients." if row.party == "client_id" else "Write the `aud` they carry."
            yield _Fault(
                "003",
                "__AUDIENCE",
                "is missing: a token meant for another service would be accepted.",
                f"{hint} Only INSECURE_NO_AUDIENCE=true does without.",
            )
        for number, party in enumerate(self.authorized_parties if row.party == "azp" else (), 1):
            if not _is_origin(party):
                yield _Fault(
                    "012",
                    "__AUTHORIZED_PARTIES",
                    f"entry {number} is no origin.",
                    "Write scheme and host only, without a slash at the end.",
                )

    def _directory_faults(self) -> Iterator[_Fault]:
        """Every directory of the world is let in: nothing may rest on what a directory's own admins can write."""
        if self.insecure_no_audience:
            hint = "Leave it out, and write the client id of your own registration as AUDIENCE."
            yield _Fault("019", "__INSECURE_NO_AUDIENCE", "is on, and ISSUER lets every directory in.", hint)
        if self.subject_claim.removeprefix("/") not in ("sub", "oid"):
            hint = "Write sub or oid: names and addresses are what a directory's admins say."
            yield _Fault("019", "__SUBJECT_CLAIM", "is no id, and ISSUER lets every directory in.", hint)

    def _issuer_faults(self, row: Preset, *, several: bool, development: bool) -> Iterator[_Fault]:
        issuer = self.named_issuer(row)
        if issuer is None:
            if (row.name != "jwt" or self.secret is None or several) and not (row.issuer and not self.issuer):
                hint = f"Write it as {row.issuer_form}." if row.issuer_form else "Write the `iss` your tokens carry."
                yield _Fault("004", "__ISSUER", "is missing: keys and issuer belong together.", hint)
        elif names_anybody(issuer) and row.template_for(issuer) is None:
            yield _Fault(
                "014",
                "__ISSUER",
                "stands for issuers that cannot be told apart safely.",
                "Name the one directory: https://login.microsoftonline.com/<id>/v2.0. For every organisation write"
                " https://login.microsoftonline.com/organizations/v2.0, with oidc.",
            )
        elif not row.writes(issuer):
            hint = f"Write it as {row.issuer_form}, exactly as in the tokens."
            yield _Fault("013", "__ISSUER", f"is not written as {row.name} writes it.", hint)
        elif not self.has_keys and row.key_set_for(issuer) and not _fetchable(issuer, development):
            yield _Fault("007", "__ISSUER", "is no https address.", _HTTPS)


_HTTPS = "Keys come over https only (http to loopback outside production)."


class _Fault(NamedTuple):
    """A problem of one issuer, before it is known which variables that issuer has."""

    number: str
    variable: str
    message: str
    hint: str = ""


class Verified(NamedTuple):
    """An issuer whose tokens are verified: how its variables begin, what is known of the provider, what is set."""

    prefix: str
    row: Preset
    config: IssuerConfig


class AuthConfig(IssuerConfig):
    """`PORTALSHIELD_AUTH` and `PORTALSHIELD_AUTH__...`: the first issuer, and what holds for all of them."""

    issuers: Annotated[
        Mapping[str, IssuerConfig],
        Setting("further issuers, each by a name of your own; the token says which it is from"),
    ] = {}
    cookie: Annotated[
        str | None, Setting("name of a cookie that carries the token, `__Host-...`; Clerk: `__session` unless set")
    ] = None
    cache: Annotated[int, Setting("verified tokens that are remembered for at most 60s; 0 = off", unit="entries")] = (
        10_000
    )
    login_url: Annotated[str | None, Setting("anonymous page loads are sent here with 303")] = None

    @property
    def verifies(self) -> bool:
        """Tokens are verified here."""
        return bool(self.verified())

    @property
    def cookie_name(self) -> str | None:
        """The cookie that may carry a token: the configured one, else the provider's own."""
        if self.cookie is not None:
            return self.cookie
        return next((issuer.row.cookie for issuer in self.verified() if issuer.row.cookie), None)

    def verified(self) -> list[Verified]:
        """All issuers whose tokens are verified. A further one is of the provider it is named after, unless it says."""
        if self.preset == "none":
            return []
        found = [Verified(_PREFIX, PRESETS[self.preset], self)] if self.preset is not None else []
        for name, config in self.issuers.items():
            kind = config.preset or (name if name in PRESETS else "jwt")
            if kind != "none":
                found.append(Verified(f"{_PREFIX}__ISSUERS__{name.upper()}", PRESETS[kind], config))
        return found

    def problems(self, *, development: bool) -> Iterator[ConfigurationProblem]:
        """What is missing or dangerous, short of the key material itself (which the plan loads)."""
        verified = self.verified()
        if self.preset in (None, "none"):
            yield from _told(_PREFIX, self.faults(_PREFIX, None, several=False, development=development))
        for prefix, row, config in verified:
            several = len(verified) > 1
            yield from _told(prefix, config.faults(prefix, row, several=several, development=development))
        yield from self._combined(verified)
        if self.cookie is not None:
            yield from self._cookie_problems(development)

    def _combined(self, verified: list[Verified]) -> Iterator[ConfigurationProblem]:
        for name, config in self.issuers.items():
            if self.preset == "none" or config.preset == "none":
                variable = f"{_PREFIX}__ISSUERS__{name.upper()}"
                yield ConfigurationProblem(
                    "PS-AUTH-016", variable, "is set, but none verifies no tokens.", "Leave one of the two out."
                )
        seen: set[str] = set()
        for prefix, row, config in verified:
            named = config.named_issuer(row)
            issuer = row.template_for(named) or named
            if issuer in seen:
                yield ConfigurationProblem(
                    "PS-AUTH-015", f"{prefix}__ISSUER", "is the issuer of another entry.", "Each issuer stands once."
                )
            if issuer is not None:
                seen.add(issuer)

    def _cookie_problems(self, development: bool) -> Iterator[ConfigurationProblem]:
        name, variable = self.cookie or "", f"{_PREFIX}__COOKIE"
        if not is_token(name):
            yield ConfigurationProblem("PS-AUTH-011", variable, "is no name of a cookie.", "Write __Host-session.")
        elif not development and not name.startswith(HOST_PREFIX) and name not in _OWN_COOKIES:
            yield ConfigurationProblem(
                "PS-AUTH-011",
                variable,
                f"does not begin with {HOST_PREFIX}: another host of this domain could set it.",
                "Write __Host-session, and set it with Secure, HttpOnly, SameSite=Lax, Path=/ and no Domain.",
            )


_OWN_COOKIES = frozenset(row.cookie for row in PRESETS.values() if row.cookie)


def _told(prefix: str, faults: Iterator[_Fault]) -> Iterator[ConfigurationProblem]:
    for fault in faults:
        yield ConfigurationProblem(f"PS-AUTH-{fault.number}", prefix + fault.variable, fault.message, fault.hint)


def _fetchable(url: str, development: bool) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.username is not None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and development and parts.hostname in _LOOPBACK)


def _is_origin(text: str) -> bool:
    scheme, separator, rest = text.partition("://")
    return bool(scheme and separator and rest) and text.isprintable() and not set(rest) & set("/?# @")


class RevocationConfig(BaseModel):
    """`PORTALSHIELD_REVOCATION__...`. Where revocations live follows from `PORTALSHIELD_STORAGE`."""

    model_config = FROZEN

    on_outage: Annotated[
        Literal["local", "closed"],
        Setting("when Redis is down: the last known revocations count for 60s, then tokens get 503; or 503 within 5s"),
    ] = "local"


# -- stages -----------------------------------------------------------------------------------------------------------

_BEARER = b"bearer"
_HEADER, _COOKIE = "bearer", "cookie"
_TWO = problem(
    "malformed-request",
    why="two-credentials",
    fields=((b"www-authenticate", b'Bearer error="invalid_request"'),),
)
_MISSING = problem("unauthenticated", why="no-credential", fields=((b"www-authenticate", b"Bearer"),))
_UNSERVED = problem("not-found", why="unserved-without-principal")
_CHALLENGE: Fields = ((b"www-authenticate", b'Bearer error="invalid_token"'),)
_UNKNOWN = unavailable("revocations-unknown")


_BEARERS = frozenset((b"Bearer ", b"bearer "))


class BearerStage:
    """A token in the Authorization field (RFC 6750, 2.1) or in the configured cookie."""

    layer = "auth"

    def __init__(
        self, authority: Authority, *, policy: EffectivePolicy, cookie: str | None, login_url: str | None
    ) -> None:
        self._authority = authority
        self._recall = authority.recall
        self.asks = authority.fetches
        self._optional = policy.public
        self._missing = _UNSERVED if policy.unserved else _MISSING
        self._cookie = cookie.encode() if cookie else None
        self._login = (
            Reply(303, ((b"location", login_url.encode()), (b"cache-control", b"no-store"))) if login_url else None
        )

    def check(self, x: Exchange) -> Verdict:
        """Establish the principal, or say why not."""
        field = x.headers.get(b"authorization")
        if self._cookie is None and field is not None and field[:7] in _BEARERS:
            # The ordinary request; a token that is malformed was never remembered.
            principal = self._recall(field[7:], x.now)
            if principal is not None and principal.auth_method == _HEADER:
                x.principal = principal
                return None
        try:
            token, method = self._credential(x)
        except TokenError as fault:
            return self._invalid(fault)
        except ValueError:
            return _TWO
        if token is None:
            return None if self._optional else self._anonymous(x)
        principal = self._authority.recall(token, x.now)
        if principal is None:
            return self._verify(x, token, method, last=False)
        # One token may come either way: it is one credential, but how it came is told as it was.
        x.principal = principal if principal.auth_method == method else replace(principal, auth_method=method)
        return None

    def ask(self, x: Exchange) -> FetchKeys | None:
        """Fresh keys, where the token names one that is not known."""
        if x.credential is None:
            return None
        return FetchKeys(self._authority.issuer_of(x.credential), key_id(x.credential))

    def settle(self, x: Exchange, need: FetchKeys, answer: Refreshed | Unavailable) -> Verdict:
        """Look again; what is still unknown is invalid, and without any keys nobody can tell (503)."""
        token, x.credential = x.credential, None
        if isinstance(answer, Unavailable):
            return None if self._optional else unavailable(answer.reason)
        method = _HEADER if x.headers.get(b"authorization") is not None else _COOKIE
        return self._verify(x, token or b"", method, last=True)

    def _verify(self, x: Exchange, token: bytes, method: str, *, last: bool) -> Verdict:
        try:
            x.principal = self._authority.verify(token, x.now, method)
        except TokenError as fault:
            if fault.code != "unknown-key" or last or self._optional:
                return self._invalid(fault)
            x.credential = token
        except RevocationsUnknownError:
            return None if self._optional else _UNKNOWN
        return None

    def _credential(self, x: Exchange) -> tuple[bytes | None, str]:
        """The token and how it came. `TokenError`: the field is malformed; `ValueError`: two different credentials."""
        field = x.headers.get(b"authorization")
        token = None
        if field is not None:
            scheme, _, token = field.partition(b" ")
            if scheme.lower() != _BEARER or not token or b" " in token or b"," in token:
                raise TokenError("malformed")
        if self._cookie is None:
            return token, _HEADER
        held = cookie_values(x.headers.get(b"cookie") or b"", self._cookie)
        if len(set(held) | ({token} if token is not None else set())) > 1:
            raise ValueError
        return (token, _HEADER) if token is not None or not held else (held[0], _COOKIE)

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
    pairs = (pair.partition("=") for pair in field.decode("latin-1").split(";"))
    # Blanks as Starlette strips them: those of latin-1 too.
    wanted = name.decode("latin-1")
    return [value.strip().strip('"').encode("latin-1") for key, _, value in pairs if key.strip() == wanted]


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
            return unavailable(answer.reason)
        x.principal = answer.principal
        return None if answer.principal is not None or self._optional else self._missing
