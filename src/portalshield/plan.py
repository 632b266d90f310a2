"""Settings and policies become immutable plans: the stages of each policy, in the one order there is.

The order and its reasons stand in `ORDER`; which route has which policy is decided here once, before the first request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from portalshield.flow import Plan, compile_plan
from portalshield.layers import (
    auth,
    body,
    cors,
    csrf,
    grants,
    headers,
    hosts,
    idempotency,
    json,
    login,
    owners,
    rate,
    response_guard,
    schema,
    server_timing,
    tenant,
    upload,
    webhook,
)
from portalshield.model.policy import EffectivePolicy
from portalshield.model.stage import Stage
from portalshield.rules.account_names import AccountKeys
from portalshield.rules.authority import Authority
from portalshield.rules.modes import effective
from portalshield.rules.origins import OriginPolicy
from portalshield.rules.webhooks import WebhookVerifier
from portalshield.settings import Settings
from portalshield.stores import gives_back


@dataclass(frozen=True, slots=True)
class Build:
    """What stages are compiled from. `authority` verifies tokens; `identifies` and `looks_up`: the application does."""

    settings: Settings
    authority: Authority | None
    identifies: bool
    looks_up: bool
    cors: cors.CorsStage
    csrf: csrf.CsrfStage
    headers: headers.HeadersStage
    owners: Mapping[str, owners.Owner]
    accounts: AccountKeys
    counting: rate.Counting | None = None
    """Where limits are counted, if that is the memory of this process."""
    timing: server_timing.Timing | None = None
    """Where clients are told how long a request took."""
    webhooks: Mapping[str, WebhookVerifier] = field(default_factory=dict)
    """What verifies each sender's deliveries, by its name."""

    @property
    def authenticates(self) -> bool:
        """Somebody establishes a principal; without, the auth and tenant layers are off (`AUTH=none`)."""
        return self.identifies or self.authority is not None


def build(
    settings: Settings,
    authority: Authority | None,
    *,
    identifies: bool,
    looks_up: bool,
    owned: Mapping[str, owners.Owner],
    counting: rate.Counting | None = None,
    timing: server_timing.Timing | None = None,
) -> Build:
    """Compile what all policies share."""
    credentials = settings.origins_send_cookies
    origins = OriginPolicy(settings.cors.allow_origins, credentials=credentials, development=settings.development)
    named = settings.csrf.trusted_origins or (settings.cors.allow_origins if settings.cors.allow_credentials else ())
    trusted = OriginPolicy(named, credentials=True, development=settings.development)
    return Build(
        settings,
        authority,
        identifies,
        looks_up,
        cors.CorsStage(settings.cors, origins),
        csrf.CsrfStage(trusted),
        headers.HeadersStage(settings.headers, shares_across_origins=bool(settings.cors.allow_origins)),
        owned,
        AccountKeys(_account_secret(settings)),
        counting,
        timing,
        webhook.verifiers(settings.webhook),
    )


def _account_secret(settings: Settings) -> bytes:
    """What account names are hashed under: the same in every process that counts in the same place."""
    if settings.log.pseudonym_key is not None:
        return settings.log.pseudonym_key.reveal().encode()
    uri = settings.storage.uri
    # The address of a Redis holds its password; whoever finds its keys in a dump does not have it.
    return secrets.token_bytes(32) if uri.startswith("memory") else uri.encode()


@dataclass(frozen=True, slots=True)
class _Positions:
    """The stages of one policy that hold two positions in the order, or that others depend on."""

    safe: bool
    """A GET or HEAD changes nothing: there is no forgery to look for."""
    rate_fields: Stage | None
    early_rate: Stage | None
    late_rate: Stage | None
    early_tenant: Stage | None
    late_tenant: tenant.TenantBodyStage | None
    early_owners: Stage | None
    late_owners: owners.OwnerStage | None
    guard: Stage | None
    json: Stage | None
    schema: Stage | None
    query: Stage | None
    login: login.LoginStage | None
    webhook: Stage | None
    idempotency: Stage | None

    @property
    def whole_body(self) -> bool:
        """All of the body is needed, whatever its type."""
        return self.webhook is not None or self.idempotency is not None

    @property
    def signed(self) -> bool:
        """Every request that gets through is signed: no page of another site can have made it."""
        return isinstance(self.webhook, webhook.WebhookStage) and not self.webhook.dry

    @property
    def judges_body(self) -> bool:
        judges = (self.late_tenant, self.late_owners, self.json, self.schema, self.login)
        return self.whole_body or any(stage is not None for stage in judges)

    @property
    def form_names(self) -> frozenset[str]:
        """The fields that are judged in multipart forms."""
        judges = (self.late_tenant, self.late_owners, self.login)
        return frozenset(name for stage in judges if stage is not None for name in stage.names)


Place = Callable[[Build, EffectivePolicy, _Positions], "Stage | None"]

ORDER: tuple[tuple[Place, str], ...] = (
    (lambda b, p, s: hosts.stage(b.settings.hosts, p), "a foreign Host must not even learn whether a route exists"),
    (lambda b, p, s: b.cors, "a preflight carries no credentials: it is answered before anybody asks for them"),
    (lambda b, p, s: s.early_rate, "cheap, and it protects everything dearer behind it, token checks included"),
    (lambda b, p, s: None if s.safe or s.signed or not p.csrf else b.csrf, "refuses before a cookie is even read"),
    (lambda b, p, s: _principal(b, p), "everything behind it speaks about a verified principal"),
    (lambda b, p, s: grants.stage(p), "own tenant but missing scope is 403, told only to who is known"),
    (lambda b, p, s: s.early_tenant, "ids in path, query and header are judged before a byte of the body is read"),
    (lambda b, p, s: s.early_owners, "object ids, once the cheap comparison of tenant ids has passed"),
    (lambda b, p, s: s.late_rate, "counts verified subjects and tenants, so it stands behind them"),
    (lambda b, p, s: s.query, "a query that is wrong is refused before a byte of the body is read"),
    (lambda b, p, s: _body(b, p, s), "bounds what the next ones parse"),
    (lambda b, p, s: s.webhook, "the signature covers the raw bytes: nobody parses what the sender did not sign"),
    (lambda b, p, s: s.json, "one strict parse for tenants and schema; what it refuses nobody else reads"),
    (lambda b, p, s: s.late_tenant, "a foreign tenant is 404 even where the schema would say more"),
    (lambda b, p, s: s.late_owners, "object ids in the body, likewise"),
    (lambda b, p, s: s.schema, "the dearest check, on a request that everybody else let through"),
    (lambda b, p, s: s.idempotency, "a repetition passes every check again; only what would run claims a record"),
    (lambda b, p, s: s.login, "what the schema refuses is no guess; behind it stands only who might let them in"),
    (lambda b, p, s: _upload(b, p, s), "files, of whoever may send some; what streams is judged behind all others"),
    (lambda b, p, s: b.headers, "adds to the response only, behind whatever the others added"),
    (lambda b, p, s: s.rate_fields, "tells about everything that was counted, once"),
    (lambda b, p, s: server_timing.stage(p, b.timing), "the last of the numbers: it tells how long it took"),
    (lambda b, p, s: s.guard, "reads what the handler answered"),
)  # fmt: skip
"""What stands where, and why there."""


def _body(b: Build, policy: EffectivePolicy, positions: _Positions) -> Stage:
    reads, whole = positions.judges_body, positions.whole_body
    return body.stage(b.settings.body, policy, reads=reads, names=positions.form_names, whole=whole)


def _upload(b: Build, policy: EffectivePolicy, positions: _Positions) -> Stage | None:
    if policy.upload is None:
        return None
    return upload.stage(policy.upload, names=positions.form_names, max_parts=b.settings.body.max_parts)


def _principal(b: Build, policy: EffectivePolicy) -> Stage | None:
    if b.identifies:
        return auth.IdentifyStage(policy)
    if b.authority is None or policy.health:
        return None
    config = b.settings.auth
    return auth.BearerStage(b.authority, policy=policy, cookie=config.cookie_name, login_url=config.login_url)


def compile_policy(b: Build, policy: EffectivePolicy, route: str, *, safe: bool = False) -> Plan:
    """All stages of one policy, those that are off left out.

    `route` names it in the keys of its limits; `safe`: it is only used for GET and HEAD.
    """
    config = b.settings
    json_stage = json.JsonStage(config.body.max_depth, config.body.max_keys, config.body.max_items)
    scoped = b.authenticates and share_of(config, policy, "tenant") is not None
    tenants = tenant.stages(config.tenant, policy, looks_up=b.looks_up) if scoped else (None, None)
    early_owners, late_owners, guard = _object_stages(b, policy, scoped)
    limits = rate.stages(config.rate, policy, route, b.counting)
    brake = None if safe else _brake(b, policy)
    once = _once(b, policy, safe=safe)
    positions = _Positions(
        safe,
        rate.fields_stage(config.rate, (*limits, brake)),
        *limits,
        *tenants,
        early_owners,
        late_owners,
        guard,
        json_stage if share_of(config, policy, "json") is not None else None,
        schema.SchemaStage(policy.body) if policy.body is not None else None,
        schema.QueryStage(policy.query, keeps=policy.body is None) if policy.query is not None else None,
        brake,
        *once,
    )
    found = (place(b, policy, positions) for place, _ in ORDER)
    stages = [(stage, share_of(config, policy, stage.layer)) for stage in found if stage is not None]
    return compile_plan(policy, [(stage, share) for stage, share in stages if share is not None])


def _brake(b: Build, policy: EffectivePolicy) -> login.LoginStage | None:
    if policy.login is not None and not gives_back(b.settings.storage.uri):
        raise ValueError("has login=, which needs memory:// or redis:// as PORTALSHIELD_STORAGE")
    return login.stage(policy.login, rate.login_quotas(b.settings.rate), b.accounts)


def _once(b: Build, policy: EffectivePolicy, *, safe: bool) -> tuple[Stage | None, Stage | None]:
    """Webhook and idempotency: what must not be processed twice."""
    if policy.webhook is not None and (policy.idempotent is not None or policy.health):
        raise ValueError("says webhook=, which contradicts idempotent= and PORTALSHIELD_HEALTH")
    if policy.upload is not None and (policy.webhook is not None or policy.idempotent is not None):
        raise ValueError("says upload=, which streams what webhook= and idempotent= need to read whole")
    if policy.webhook is not None:
        share = share_of(b.settings, policy, "webhook")
        signed = webhook.stage(policy.webhook, b.webhooks, b.settings.public_url, dry=share != 1)
        return signed if share is not None else None, None
    share = share_of(b.settings, policy, "idempotency")
    if policy.idempotent is None or safe or share is None:
        return None, None
    # What does not refuse every request must not answer in the handler's place either.
    return None, idempotency.IdempotencyStage(policy.idempotent, dry=share != 1)


def _object_stages(
    b: Build, policy: EffectivePolicy, scoped: bool
) -> tuple[Stage | None, owners.OwnerStage | None, Stage | None]:
    """Owners at both positions, and the response guard: for routes of one tenant."""
    if not scoped or policy.public or policy.cross_tenant:
        return None, None, None
    guard = response_guard.ResponseGuardStage(tenant.fields_of(b.settings.tenant, policy))
    owned = {**b.owners, **dict(policy.owners)}
    if not owned:
        return None, None, guard
    return owners.OwnerStage(owned, in_body=False), owners.OwnerStage(owned, in_body=True), guard


def share_of(settings: Settings, policy: EffectivePolicy, layer: str) -> float | None:
    named = settings.mode.of(layer)
    share = effective(layer, policy.mode, named, settings.mode.default)
    if layer == "body" and share is None:
        return 0.0  # a body that others judge is read whatever its own mode
    if layer == "response_guard" and share is not None and named is None and policy.mode is None:
        return share if settings.development else 0.0
    return share


def page_plan(b: Build, stage: Stage) -> Plan:
    """The plan of what the shield itself answers: public, unlimited and quiet like a health route."""
    return compile_plan(EffectivePolicy(public=True, health=True, declared=True), [(stage, 1.0), (b.headers, 1.0)])


def unserved_plans(b: Build) -> tuple[Plan, Plan]:
    """The plans of paths that no route serves: strict, and public for a method or slash that is only misspelt."""
    strict = compile_policy(b, EffectivePolicy(unserved=True), "")
    return strict, compile_policy(b, EffectivePolicy(public=True), "")
