"""Strict verification of signed tokens: one compact JWS in, verified claims out, `TokenError` for everything else.

The facts this obeys: RFC 7519 (claims), RFC 8725bis (allowlists, explicit `typ`, issuer and key belong together), RFC
9068 where `typ` is demanded. Nothing of a token is believed before its signature was checked; `jws.py` takes it apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, TypeGuard, Unpack
from uuid import UUID

from portalshield.rules.jose import Frozen
from portalshield.rules.jws import (
    HARD_MAX_TOKEN_BYTES,
    MAX_TOKEN_BYTES,
    TokenError,
    check_signature,
    read_claims,
    read_header,
    split_token,
)
from portalshield.rules.keys import CANONICAL, Key, KeySnapshot, check_algorithms

MAX_LEEWAY_S = 120.0
"""The most clock difference that can be forgiven."""
TENANT_PLACEHOLDER = "{tenantid}"
"""Where a directory's id stands in `issuer_template`."""

_MAX_AUDIENCES = 16
_KIND_CLAIMS = ("type", "token_type", "token_use", "typ")
_REFUSED_KINDS = frozenset(
    ("refresh", "refreshtoken", "offline", "reset", "resettoken", "passwordreset", "resetpassword", "id", "idtoken")
)


class Claims(Frozen):
    """The verified claims: a dict that cannot be changed (arrays are tuples), and what verification established.

    Times are Unix seconds as they stand in the token. `expires_at` is None only under `insecure_no_expiry`.
    """

    __slots__ = ("algorithm", "expires_at", "issued_at", "issuer", "kid", "not_before", "subject")

    subject: str
    issuer: str | None
    expires_at: float | None
    not_before: float | None
    issued_at: float | None
    kid: str | None
    algorithm: str


class RuleTerms(TypedDict, total=False):
    """The keywords of `Verifier` beside `algorithms`."""

    issuer: str | Iterable[str] | None
    """Exactly what `iss` must be, one of several. Optional only with HMAC (an own secret)."""
    issuer_template: str | None
    """Instead of `issuer`, where one key set serves many directories (Microsoft Entra): `iss` is this text with the
    token's own `tid`, a GUID, in the place of `{tenantid}`, and the key's `issuer` member is one of the two."""
    audience: str | Iterable[str]
    """One of these must be in `aud`."""
    authorized_parties: Iterable[str]
    """`azp` must be one of these: stands in for an audience (Clerk)."""
    authorized_party_optional: bool
    """`azp` may be absent."""
    client_ids: Iterable[str]
    """`client_id` must be one of these: stands in for an audience (Cognito access tokens)."""
    leeway: float
    """Seconds of clock difference that are forgiven, 0 to 120 (30)."""
    max_lifetime: float
    """Seconds `exp` may lie ahead (24 h): keys that live for years are no user tokens."""
    typ: str | Iterable[str]
    """Media types the header's `typ` may name, if it names one (JWT, at+jwt)."""
    typ_required: bool
    """The header must name one (RFC 9068)."""
    kid_required: bool
    """The header must name a key (Firebase)."""
    subject_claim: str
    """The claim that identifies the caller (sub)."""
    required: Iterable[str]
    """Further claims that must be there."""
    demand: Mapping[str, Iterable[str | int | bool]]
    """Claim -> values, one of which it must have."""
    refuse: Mapping[str, Iterable[str | int | bool]]
    """Claim -> values that are refused (the roles of API keys, a pending session)."""
    max_token_bytes: int
    """256 to 16384 (8192)."""
    insecure_no_audience: bool
    """Do without an audience and its substitutes."""
    insecure_no_issuer: bool
    """Do without an issuer although the keys are public ones."""
    insecure_no_expiry: bool
    """Accept tokens without `exp`."""


# -- verifying --------------------------------------------------------------------------------------------------------


class Verifier:
    """The rules for the tokens of one issuer configuration, compiled once.

    `algorithms` is a list of names of one family; the other keywords are those of `RuleTerms`. Raises `ValueError`
    for rules that could not protect anything, each with what to write instead.
    """

    def __init__(self, *, algorithms: Iterable[str], **terms: Unpack[RuleTerms]) -> None:
        unknown = sorted(set(terms) - set(RuleTerms.__annotations__))
        if unknown:
            raise TypeError(f"unknown keyword {unknown[0]!r}")
        self.algorithms = check_algorithms(algorithms)
        allowed = {CANONICAL[name] for name in self.algorithms}
        # A fully specified name and its older one are the same algorithm: allowing one allows the other (RFC 9864).
        self._algorithms = {name: alg for name, alg in CANONICAL.items() if alg in allowed}
        max_bytes = terms.get("max_token_bytes", MAX_TOKEN_BYTES)
        self._max_bytes = int(_within(max_bytes, 256, HARD_MAX_TOKEN_BYTES, "max_token_bytes"))
        self.leeway = _within(terms.get("leeway", 30.0), 0, MAX_LEEWAY_S, "leeway")
        self._max_lifetime = _within(terms.get("max_lifetime", 86400.0), 1, 10**10, "max_lifetime")
        self._compile_header_rules(terms)
        self._compile_parties(terms)
        self._compile_claims(terms)

    def _compile_header_rules(self, terms: RuleTerms) -> None:
        typ = _texts(terms.get("typ", ("JWT", "at+jwt")), "typ")
        self._types = frozenset(map(_media_type, typ))
        self._typ_required = terms.get("typ_required", False)
        self._kid_required = terms.get("kid_required", False)

    def _compile_parties(self, terms: RuleTerms) -> None:
        self._issuers = _texts(terms.get("issuer"), "issuer")
        self.template = _template(terms.get("issuer_template"))
        if self._issuers and self.template is not None:
            raise ValueError("issuer and issuer_template exclude each other")
        self._audiences = _texts(terms.get("audience"), "audience")
        self._parties = _texts(terms.get("authorized_parties"), "authorized_parties")
        self._party_optional = terms.get("authorized_party_optional", False)
        self._client_ids = _texts(terms.get("client_ids"), "client_ids")
        own_secret = self.algorithms[0].startswith("HS")
        named = bool(self._issuers) or self.template is not None
        if not named and not own_secret and not terms.get("insecure_no_issuer", False):
            raise ValueError("issuer is missing: name the issuer whose keys these are")
        if not (self._audiences or self._parties or self._client_ids or terms.get("insecure_no_audience", False)):
            raise ValueError(
                "audience is missing: name this service's audience, or authorized_parties or client_ids;"
                " insecure_no_audience=True does without"
            )

    def _compile_claims(self, terms: RuleTerms) -> None:
        self._expiry_required = not terms.get("insecure_no_expiry", False)
        self._subject_claim = terms.get("subject_claim", "sub")
        self._required = _texts(terms.get("required"), "required")
        self._demand = _values(terms.get("demand"), "demand")
        self._refuse = _values(terms.get("refuse"), "refuse")

    def verify(self, token: str | bytes, keys: KeySnapshot, now: float) -> Claims:
        """The claims of a token that passed every check at `now` (Unix seconds). Raises `TokenError`, nothing else."""
        segments = split_token(token, self._max_bytes)
        alg, kid, typ = read_header(segments.header, self._algorithms)
        if (typ is None and self._typ_required) or (typ is not None and _media_type(typ) not in self._types):
            raise TokenError("wrong-type")
        if kid is None and self._kid_required:
            raise TokenError("bad-header")
        key = keys.select(kid, alg)
        if key is None:
            raise TokenError("unknown-key")
        check_signature(key, segments)
        claims = Claims(read_claims(segments.payload))
        claims.kid = kid
        claims.algorithm = alg
        self._check_times(claims, now)
        self._check_parties(claims, key)
        self._check_content(claims)
        return claims

    @property
    def longest_life_s(self) -> float:
        """How long a token that is accepted now may be accepted; infinite where tokens need not end."""
        return self._max_lifetime + 2 * self.leeway if self._expiry_required else math.inf

    def may_be_from(self, issuer: str) -> bool:
        """Such an issuer fits the template; only to choose the verifier that must then confirm it."""
        before, placeholder, after = (self.template or "").partition(TENANT_PLACEHOLDER)
        fits = issuer.startswith(before) and issuer.endswith(after)
        return bool(placeholder) and fits and _is_guid(issuer[len(before) : len(issuer) - len(after)])

    def _check_times(self, claims: Claims, now: float) -> None:
        claims.expires_at = expires_at = _time(claims, "exp")
        claims.not_before = not_before = _time(claims, "nbf")
        claims.issued_at = issued_at = _time(claims, "iat")
        if expires_at is None:
            if self._expiry_required:
                raise TokenError("missing-claim")
        elif expires_at <= now - self.leeway:
            raise TokenError("expired")
        elif expires_at > (now if issued_at is None else min(now, issued_at)) + self._max_lifetime + self.leeway:
            # From its issue where it says when: one that lives too long is not let in towards its end either.
            raise TokenError("lifetime-too-long")
        if not_before is not None and not_before > now + self.leeway:
            raise TokenError("not-yet-valid")
        if issued_at is not None and issued_at > now + self.leeway:
            raise TokenError("issued-in-future")

    def _check_parties(self, claims: Claims, key: Key) -> None:
        claims.issuer = self._checked_issuer(claims)
        if self.template is not None:
            _check_directory(claims, key, self.template)
        if self._audiences or "aud" in claims:
            self._check_audience(claims)
        if self._parties and not (self._party_optional and "azp" not in claims):
            _check_member(claims, "azp", self._parties)
        if self._client_ids:
            _check_member(claims, "client_id", self._client_ids)

    def _checked_issuer(self, claims: Claims) -> str | None:
        if "iss" not in claims:
            if self._issuers:
                raise TokenError("missing-claim")
            return None
        issuer = claims["iss"]
        if type(issuer) is not str:
            raise TokenError("bad-claim")
        if self._issuers and issuer not in self._issuers:
            raise TokenError("wrong-issuer")
        return issuer

    def _check_audience(self, claims: Claims) -> None:
        if "aud" not in claims:
            raise TokenError("missing-claim")
        audience = claims["aud"]
        if type(audience) is str:
            named: tuple[Any, ...] = (audience,)
        elif type(audience) is tuple and len(audience) <= _MAX_AUDIENCES:
            named = audience
        else:
            raise TokenError("bad-claim")
        if not all(type(name) is str for name in named):
            raise TokenError("bad-claim")
        if self._audiences and self._audiences.isdisjoint(named):
            raise TokenError("wrong-audience")

    def _check_content(self, claims: Claims) -> None:
        claims.subject = _identifier(claims, self._subject_claim)
        if "jti" in claims:
            _identifier(claims, "jti")
        if "sub" in claims:
            _identifier(claims, "sub")
        for name in _KIND_CLAIMS:
            if name in claims:
                _check_kind(claims[name])
        if not self._required <= claims.keys():
            raise TokenError("missing-claim")
        for name, values in self._demand:
            if name not in claims:
                raise TokenError("missing-claim")
            if not _is_one_of(claims[name], values):
                raise TokenError("claim-refused")
        for name, values in self._refuse:
            if name in claims and (_is_compound(claims[name]) or _is_one_of(claims[name], values)):
                raise TokenError("claim-refused")


_Values = frozenset[tuple[type, str | int | bool]]


def _media_type(typ: str) -> str:
    """Media types ignore case; without a slash "application/" is implied (RFC 7515, 4.1.9)."""
    return typ.lower().removeprefix("application/")


def _time(claims: Claims, name: str) -> float | None:
    """A NumericDate (RFC 7519, 2): a JSON number and nothing that merely looks like one. Finite by the parser."""
    if name not in claims:
        return None
    value = claims[name]
    if (type(value) is int or type(value) is float) and value >= 0:
        return value if value < 10**15 else 1e15  # beyond any limit; an int of 400 digits is no float
    raise TokenError("bad-claim")


def _identifier(claims: Claims, name: str) -> str:
    """1 to 255 printable characters: it becomes a key, a log field, a column."""
    value = claims.get(name)
    if type(value) is str and 0 < len(value) <= 255 and value.isprintable():
        return value
    raise TokenError("bad-claim" if name in claims else "missing-claim")


def _check_directory(claims: Claims, key: Key, template: str) -> None:
    """Which directory a token is of, who issued it, and for whom its key may sign: all three say the same."""
    directory = claims.get("tid")
    if not _is_guid(directory):
        raise TokenError("bad-claim" if "tid" in claims else "missing-claim")
    issuer = template.replace(TENANT_PLACEHOLDER, directory)
    if claims.issuer != issuer or key.issuer not in (issuer, template):
        raise TokenError("wrong-issuer")


def _is_guid(value: Any) -> TypeGuard[str]:
    """As directories write it, in lower case: an id with two spellings would be two tenants."""
    try:
        return type(value) is str and len(value) == 36 and str(UUID(value)) == value
    except ValueError:
        return False


def _check_member(claims: Claims, name: str, allowed: frozenset[str]) -> None:
    if name not in claims:
        raise TokenError("missing-claim")
    value = claims[name]
    if type(value) is not str or value not in allowed:
        raise TokenError("wrong-party")


def _check_kind(value: Any) -> None:
    """A refresh, reset or ID token is no proof for an API, although the same key signed it."""
    if type(value) is str and value.lower().replace("_", "").replace("-", "").replace(" ", "") in _REFUSED_KINDS:
        raise TokenError("wrong-kind")


def _is_compound(value: Any) -> bool:
    return isinstance(value, dict | tuple)


def _is_one_of(value: Any, values: _Values) -> bool:
    """With the type, because 1 == True in Python and not in JSON."""
    return not _is_compound(value) and (type(value), value) in values


# -- compiling --------------------------------------------------------------------------------------------------------


def _within(value: Any, low: float, high: float, name: str) -> Any:
    number = type(value) in (int, float) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise ValueError(f"{name} is a number from {low:g} to {high:g}")
    return value


def _texts(value: str | Iterable[str] | None, name: str) -> frozenset[str]:
    texts = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{name} has an entry that is empty or no text")
    return frozenset(texts)


def _template(text: str | None) -> str | None:
    if text is not None and text.count(TENANT_PLACEHOLDER) != 1:
        raise ValueError(f"issuer_template has {TENANT_PLACEHOLDER} in it, once")
    return text


def _values(rules: Mapping[str, Iterable[str | int | bool]] | None, name: str) -> tuple[tuple[str, _Values], ...]:
    compiled = []
    for claim, values in (rules or {}).items():
        if isinstance(values, str):
            raise ValueError(f"{name} maps a claim to a list of values, not to one text")
        compiled.append((claim, frozenset((type(value), value) for value in values)))
    return tuple(compiled)
