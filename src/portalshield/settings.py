"""Settings: the only reader of the environment. All mistakes at once, with ids and hints, never a value.

Every variable is derived from the config models: the group's name and the field's name, joined by `__`, behind
`PORTALSHIELD_`; a field with `own=True` has the group's own name (`AUTH` beside `AUTH__ISSUER`), and a mapping has
entries that the user names (`AUTH__ISSUERS__<NAME>__ISSUER`). Plain pydantic-settings refuses that and comma lists, so
it is not used (docs/decisions).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase, digits
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from portalshield.layers.auth import AuthConfig, RevocationConfig
from portalshield.layers.body import BodyConfig
from portalshield.layers.cors import CorsConfig
from portalshield.layers.csrf import CsrfConfig
from portalshield.layers.headers import HeadersConfig
from portalshield.layers.hosts import HostsConfig
from portalshield.layers.rate import RateConfig
from portalshield.layers.tenant import TenantConfig
from portalshield.layers.webhook import WebhookConfig
from portalshield.model.secret import Secret
from portalshield.model.setting import ConfigurationError, ConfigurationProblem, Setting
from portalshield.rules import values
from portalshield.rules.addresses import parse_networks
from portalshield.rules.claims import parse_pointer
from portalshield.rules.modes import mode_fault
from portalshield.rules.nearest import did_you_mean
from portalshield.rules.patterns import parse_pattern
from portalshield.rules.webhooks import address_spellings
from portalshield.telemetry.config import BudgetConfig, LogConfig, MetricsConfig, SentryConfig

PREFIX = "PORTALSHIELD_"
FALLBACKS = {"REDIS_URL": PREFIX + "STORAGE", "WEB_CONCURRENCY": PREFIX + "WORKERS"}
"""Names that hosts set themselves, read where our own is unset."""
PROJECT = "SUPABASE_URL"
"""With `AUTH=supabase`: the address of the project, where no issuer is set."""
NAME = "<NAME>"
"""Stands in a variable for a name that the user chooses."""

LAYERS = (
    *("hosts", "cors", "csrf", "rate", "auth", "tenant", "body", "json"),
    *("schema", "upload", "webhook", "idempotency", "headers", "response_guard"),
)
_FROZEN = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
_ModeField = Annotated[str | None, Setting("enforce, report, `report:25%` or off, for this layer")]


class ModeConfig(BaseModel):
    """`PORTALSHIELD_MODE` and `PORTALSHIELD_MODE__<LAYER>`; a route's own mode wins over both."""

    model_config = _FROZEN

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


class StorageConfig(BaseModel):
    """`PORTALSHIELD_STORAGE...`."""

    model_config = _FROZEN

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

    model_config = _FROZEN

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
        credentials = self.cors.allow_credentials or self.auth.cookie_name is not None
        yield from self.mode.problems()
        yield from self.cors.problems(credentials=credentials, development=self.development)
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
    texts.update({name: _as_text(value) for name, value in (config or {}).items() if name.startswith(PREFIX)})
    _fall_back(texts)
    parsed, mistakes = _parse(texts)
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


# -- variables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, where its value goes, its type, its description, its default."""

    name: str
    path: tuple[str, ...]
    type: Any
    setting: Setting
    default: Any


def variables(model: type[BaseModel] = Settings, prefix: str = PREFIX, path: tuple[str, ...] = ()) -> list[Variable]:
    """Every variable that the config models declare, in their order."""
    found: list[Variable] = []
    for name, field in model.model_fields.items():
        here = (*path, name)
        if (entry := _entry(field)) is not None:
            found += variables(entry, f"{prefix}{name.upper()}__{NAME}__", (*here, NAME))
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += variables(field.annotation, f"{prefix}{name.upper()}__", here)
            continue
        setting = _setting(field)
        own = f"{prefix}{name.rstrip('_').upper()}" if not setting.own else prefix.removesuffix("__")
        found.append(Variable(own, here, field.annotation, setting, field.get_default(call_default_factory=True)))
    return found


def _entry(field: FieldInfo) -> type[BaseModel] | None:
    """The model of each entry of a group by name (`AUTH__ISSUERS__<NAME>__...`); None: no such group."""
    if get_origin(field.annotation) is not Mapping:
        return None
    model: type[BaseModel] = get_args(field.annotation)[1]
    return model


def _setting(field: FieldInfo) -> Setting:
    return next(item for item in field.metadata if isinstance(item, Setting))


def _parse(texts: Mapping[str, str]) -> tuple[dict[str, Any], list[ConfigurationProblem]]:
    known = {variable.name: variable for variable in variables() if NAME not in variable.name}
    named = [variable for variable in variables() if NAME in variable.name]
    parsed: dict[str, Any] = {}
    mistakes: list[ConfigurationProblem] = []
    for name in sorted(name for name in texts if name.startswith(PREFIX)):
        variable = known.get(name) or _named(name, named)
        if variable is None:
            hint = did_you_mean(name, [*known, *_entry_names(name, named)])
            mistakes.append(ConfigurationProblem("PS-ENV-001", name, "is not a variable of portalshield.", hint))
            continue
        try:
            value = _parser(variable)(texts[name])
        except ValueError as error:
            mistakes.append(
                ConfigurationProblem("PS-ENV-002", name, f"{error}.", _nearest_choice(variable, texts[name]))
            )
            continue
        _put(parsed, variable.path, value)
    return parsed, mistakes


def _named(name: str, named: Iterable[Variable]) -> Variable | None:
    """The variable of an entry that the user named, with its path; the name is upper case here, lower in the tree."""
    for variable in named:
        start, _, end = variable.name.partition(NAME)
        chosen = name[len(start) : len(name) - len(end)]
        if name == start + chosen + end and _is_entry_name(chosen):
            path = tuple(chosen.lower() if part == NAME else part for part in variable.path)
            return replace(variable, name=name, path=path)
    return None


def _is_entry_name(text: str) -> bool:
    return 0 < len(text) <= 40 and set(text) <= _NAME_CHARS and "__" not in text and text.strip("_") == text


_NAME_CHARS = frozenset(ascii_uppercase + digits + "_")


def _entry_names(name: str, named: Iterable[Variable]) -> list[str]:
    """The variables that the entry this name seems to belong to has, for "did you mean"."""
    found = []
    for variable in named:
        start = variable.name.partition(NAME)[0]
        chosen = name.removeprefix(start).partition("__")[0]
        if name.startswith(start) and _is_entry_name(chosen):
            found.append(variable.name.replace(NAME, chosen))
    return found


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _parser(variable: Variable) -> Callable[[str], Any]:
    by_unit: dict[str, Callable[[str], Any]] = {
        "seconds": values.duration_s,
        "bytes": values.size_bytes,
        "share": values.share,
    }
    kind = _plain(variable.type)
    if variable.setting.unit in by_unit:
        parse = by_unit[variable.setting.unit]
        return (lambda text: int(parse(text))) if kind is int else parse
    if get_origin(kind) is Literal:
        return _choice(get_args(kind))
    if get_origin(kind) is tuple:
        return values.comma_list
    by_type: dict[Any, Callable[[str], Any]] = {
        bool: values.boolean,
        int: values.number,
        float: values.share,
        Secret: lambda text: Secret(text.strip()) if text.strip() else None,
        str: lambda text: text.strip() or None if NoneType in get_args(variable.type) else text.strip(),
    }
    return by_type[kind]


def _plain(annotation: Any) -> Any:
    """`X | None` -> `X`."""
    if get_origin(annotation) in (Union, UnionType):
        return next(item for item in get_args(annotation) if item is not NoneType)
    return annotation


def _choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in allowed:
            raise ValueError(f"is none of {', '.join(allowed)}")
        return word

    return parse


def _nearest_choice(variable: Variable, text: str) -> str:
    """Did you mean: the word of a closed set that is near to what was written."""
    kind = _plain(variable.type)
    return did_you_mean(text.strip().lower(), get_args(kind)) if get_origin(kind) is Literal else ""


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)


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
