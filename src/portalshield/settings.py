"""Settings: the only reader of the environment. All mistakes at once, with ids and hints, never a value.

Every variable is derived from the config models, behind `PORTALSHIELD_`; `variables.py` says how. Plain
pydantic-settings refuses such names and comma lists, so it is not used (docs/decisions/0002).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError

from portalshield.layers.auth import AuthConfig, RevocationConfig
from portalshield.layers.body import BodyConfig
from portalshield.layers.cors import CorsConfig
from portalshield.layers.csrf import CsrfConfig
from portalshield.layers.headers import HeadersConfig
from portalshield.layers.hosts import HostsConfig
from portalshield.layers.rate import RateConfig
from portalshield.layers.tenant import TenantConfig
from portalshield.layers.webhook import WebhookConfig
from portalshield.model.setting import FROZEN, ConfigurationError, ConfigurationProblem, Setting
from portalshield.rules.addresses import parse_networks
from portalshield.rules.claims import parse_pointer
from portalshield.rules.modes import mode_fault
from portalshield.rules.patterns import parse_pattern
from portalshield.rules.webhooks import address_spellings
from portalshield.telemetry.config import BudgetConfig, LogConfig, MetricsConfig, SentryConfig
from portalshield.variables import Variable, as_text, declared, parse

PREFIX = "PORTALSHIELD_"
FALLBACKS = {"REDIS_URL": PREFIX + "STORAGE", "WEB_CONCURRENCY": PREFIX + "WORKERS"}
"""Names that hosts set themselves, read where our own is unset."""
PROJECT = "SUPABASE_URL"
"""With `AUTH=supabase`: the address of the project, where no issuer is set."""

_ModeField = Annotated[str | None, Setting("enforce, report, `report:25%` or off, for this layer")]


class ModeConfig(BaseModel):
    """`PORTALSHIELD_MODE` and `PORTALSHIELD_MODE__<LAYER>`; a route's own mode wins over both."""

    model_config = FROZEN

    default: Annotated[str, Setting("enforce, report, `report:25%` or off, for all layers", own=True)] = "enforce"
    hosts: _ModeField = None
    cors: _ModeField = None
    csrf: _ModeField = None
    rate: _ModeField = None
    auth: _ModeField = None
    tenant: _ModeField = None
    body: _ModeField = None
    json_: _ModeField = None
    schema_: _ModeField = None
    upload: _ModeField = None
    webhook: _ModeField = None
    idempotency: _ModeField = None
    headers: _ModeField = None
    response_guard: _ModeField = None

    def of(self, layer: str) -> str | None:
        """What was said about one layer; None: nothing."""
        found: str | None = (
            getattr(self, layer, None) if layer not in ("json", "schema") else getattr(self, layer + "_")
        )
        return found

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Modes that are none."""
        for name, mode in (("", self.default), *((layer, self.of(layer)) for layer in LAYERS)):
            if mode is not None and mode_fault(mode):
                variable = f"{PREFIX}MODE" + (f"__{name.upper()}" if name else "")
                yield ConfigurationProblem(
                    "PS-MODE-001", variable, "is no mode.", "Write enforce, report, report:25% or off."
                )


LAYERS = tuple(name.rstrip("_") for name in ModeConfig.model_fields if name != "default")
"""Every layer that has a mode of its own."""


class StorageConfig(BaseModel):
    """`PORTALSHIELD_STORAGE...`."""

    model_config = FROZEN

    uri: Annotated[
        str,
        Setting(
            "where limits, revocations and records of what was processed live: memory:// or redis://; "
            "other URIs that limits knows serve limits only",
            own=True,
        ),
    ] = "memory://"
    max_keys: Annotated[int, Setting("entries in memory, of limits and of records each", unit="entries")] = 100_000


class Settings(BaseModel):
    """Everything that can be configured; frozen. `from_env()` reads variables, code may build it directly."""

    model_config = FROZEN

    env: Annotated[Literal["development", "staging", "production"], Setting("where the application runs")] = (
        "production"
    )
    mode: ModeConfig = ModeConfig()
    public: Annotated[tuple[str, ...], Setting('routes that need no token: "GET /, POST /auth/login"')] = ()
    health: Annotated[
        tuple[str, ...], Setting("public routes, exempt from host check and limits, not logged on success")
    ] = ()
    policy_file: Annotated[str | None, Setting("TOML file of policies")] = None
    auth: AuthConfig = AuthConfig()
    revocation: RevocationConfig = RevocationConfig()
    tenant: TenantConfig = TenantConfig()
    csrf: CsrfConfig = CsrfConfig()
    cors: CorsConfig = CorsConfig()
    hosts: HostsConfig = HostsConfig()
    trusted_proxies: Annotated[
        tuple[str, ...], Setting("CIDRs, `unix` or the number of proxies whose forwarded headers count")
    ] = ()
    public_url: Annotated[
        str | None, Setting("the address that others call, where a signature covers it: https://api.example.com")
    ] = None
    workers: Annotated[int | None, Setting("how many processes serve the application, where nobody else tells")] = None
    storage: StorageConfig = StorageConfig()
    rate: RateConfig = RateConfig()
    body: BodyConfig = BodyConfig()
    webhook: Annotated[
        Mapping[str, WebhookConfig], Setting("senders of webhooks, each by the name that a route calls it by")
    ] = {}
    headers: HeadersConfig = HeadersConfig()
    log: LogConfig = LogConfig()
    sentry: SentryConfig = SentryConfig()
    metrics: MetricsConfig = MetricsConfig()
    budget: BudgetConfig = BudgetConfig()

    @property
    def development(self) -> bool:
        """`ENV=development`."""
        return self.env == "development"

    @property
    def origins_send_cookies(self) -> bool:
        """What an allowed origin asks may come with a user's cookies: too loose an origin then reads as that user."""
        return self.cors.allow_credentials or self.auth.cookie_name is not None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None) -> Settings:
        """Read `PORTALSHIELD_*` from `env` (default: the process's), overlaid by `config` (Flask's `app.config`).

        Raises `ConfigurationError` with every mistake found.
        """
        settings, mistakes = read(env, config)
        if mistakes or settings is None:
            raise ConfigurationError(tuple(mistakes))
        return settings

    def problems(self) -> Iterator[ConfigurationProblem]:
        """What is wrong with values that parsed: dangerous, contradictory or incomplete settings."""
        yield from self.mode.problems()
        yield from self.cors.problems(credentials=self.origins_send_cookies, development=self.development)
        yield from self.auth.problems(development=self.development)
        yield from self.csrf.problems(development=self.development)
        for group in (self.hosts, self.headers, self.rate, self.tenant, self.body):
            yield from group.problems()
        for name, sender in self.webhook.items():
            yield from sender.problems(name, public_url=self.public_url)
        yield from self.log.problems()
        yield from self.metrics.problems(development=self.development)
        yield from self.budget.problems()
        yield from _claim_problems(self)
        yield from _top_problems(self)


def read(
    env: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None
) -> tuple[Settings | None, list[ConfigurationProblem]]:
    """The settings as far as they can be read, and every mistake: texts that do not parse, values that are wrong."""
    texts = dict(os.environ if env is None else env)
    texts.update({name: as_text(value) for name, value in (config or {}).items() if name.startswith(PREFIX)})
    _fall_back(texts)
    own = {name: text for name, text in texts.items() if name.startswith(PREFIX)}
    parsed, mistakes = parse(own, variables())
    try:
        settings = Settings.model_validate(parsed)
    except ValidationError as error:
        return None, mistakes + [_mistake(row) for row in error.errors(include_url=False, include_input=False)]
    # A group that already has a mistake is incomplete: what follows from a gap in it would only mislead.
    groups = {_group(mistake.variable) for mistake in mistakes}
    told = {mistake.variable for mistake in mistakes}
    found = list(settings.problems())
    mistakes += [
        item
        for item in found
        if item.variable not in told and (item.variable in texts or _group(item.variable) not in groups)
    ]
    return settings, mistakes


def _fall_back(texts: dict[str, str]) -> None:
    for name, own in FALLBACKS.items():
        if texts.get(name) and own not in texts and (name != "WEB_CONCURRENCY" or texts[name].strip().isdecimal()):
            texts[own] = texts[name]
    project, issuer = texts.get(PROJECT, "").strip(), PREFIX + "AUTH__ISSUER"
    if project and issuer not in texts and texts.get(PREFIX + "AUTH", "").strip().lower() == "supabase":
        texts[issuer] = project.rstrip("/") + "/auth/v1"  # the project's Auth server, which signs its tokens


def server_trusts_everybody(env: Mapping[str, str] | None = None) -> bool:
    """Whether uvicorn, alone or under gunicorn, takes the client's address from whoever sends one: it reads a variable
    of its own, and with `*` it believes the leftmost entry, which the client wrote."""
    given = (os.environ if env is None else env).get("FORWARDED_ALLOW_IPS", "")
    return given.strip() == "*"


def variables() -> list[Variable]:
    """Every variable there is, in the models' order."""
    return declared(Settings, PREFIX)


def _mistake(row: Any) -> ConfigurationProblem:
    path = tuple(str(part) for part in row["loc"])
    name = next((item.name for item in variables() if item.path == path), PREFIX + "__".join(path).upper())
    return ConfigurationProblem("PS-ENV-003", name, "has a value of the wrong kind.")


def _group(variable: str) -> str:
    return variable.removeprefix(PREFIX).split("__")[0]


def _claim_problems(settings: Settings) -> Iterable[ConfigurationProblem]:
    """Tenants taken from what a provider lets users change."""
    for number, text in enumerate(settings.tenant.claim, 1):
        try:
            pointer = parse_pointer(text)
        except ValueError:
            continue  # the tenant layer tells
        faults = (issuer.row.fault_of(pointer, tenant=True) for issuer in settings.auth.verified())
        fault = next((fault for fault in faults if fault is not None), None)
        if fault is not None:
            hint = "Point at an id that only the provider or your server writes."
            yield ConfigurationProblem("PS-TENANT-004", PREFIX + "TENANT__CLAIM", f"entry {number} {fault}.", hint)


def _top_problems(settings: Settings) -> Iterable[ConfigurationProblem]:
    for name, patterns in (("PUBLIC", settings.public), ("HEALTH", settings.health)):
        for number, text in enumerate(patterns, 1):
            try:
                parse_pattern(text)
            except ValueError as error:
                yield ConfigurationProblem("PS-POLICY-001", PREFIX + name, f"entry {number} {error}.")
    try:
        parse_networks(settings.trusted_proxies)
    except ValueError as error:
        fault, _, hint = str(error).partition(": ")  # what is wrong, and what to write
        yield ConfigurationProblem(
            "PS-PROXY-001", PREFIX + "TRUSTED_PROXIES", f"{fault}.", f"{hint[:1].upper()}{hint[1:]}."
        )
    if settings.public_url is not None:
        try:
            address_spellings(settings.public_url)
        except ValueError as error:
            yield ConfigurationProblem("PS-URL-001", PREFIX + "PUBLIC_URL", f"{error}.", "Write scheme and host.")
    if settings.storage.max_keys < 100:
        yield ConfigurationProblem(
            "PS-STORE-002", PREFIX + "STORAGE__MAX_KEYS", "is below 100.", "Write 100000, or leave it out."
        )
