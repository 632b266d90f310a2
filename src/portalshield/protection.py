"""The protection of one application: settings and policies, checked together, ready to be compiled into a runtime.

It knows no framework: the top floor hands in how routes are listed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol

from portalshield.context import CURRENT, LAST
from portalshield.flow import Plan
from portalshield.issuers import authority_of
from portalshield.layers.exposition import ExpositionStage
from portalshield.layers.owners import Owner
from portalshield.layers.server_timing import value_of
from portalshield.model.exchange import Exchange
from portalshield.model.policy import Policy
from portalshield.model.principal import Principal
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.opening import looked_through
from portalshield.plan import Build, build, compile_policy, page_plan, unserved_plans
from portalshield.policies import PolicyRow, effective_policy, policy_rows, records_apart
from portalshield.policy_file import read_policies
from portalshield.routes import PatternTable, Route, Table
from portalshield.rules.addresses import parse_networks
from portalshield.rules.detectors import Detector
from portalshield.rules.modes import effective
from portalshield.rules.paths import METHODS
from portalshield.rules.revocation import Kind, revoked
from portalshield.rules.server_workers import workers_of
from portalshield.runtime import Runtime
from portalshield.settings import Settings, read
from portalshield.stores import MemoryStore, Store, open_records, open_store
from portalshield.stores.memo import TimedMemo
from portalshield.stores.revocations import open_revocations
from portalshield.telemetry.lines import RequestLines
from portalshield.telemetry.metrics import Metrics
from portalshield.telemetry.setup import detector_problems, open_metrics, open_telemetry

_log = logging.getLogger("portalshield")
Authenticate = Callable[[Any], Any]
TenantLookup = Callable[[Principal], Any]
_AT_ONCE_NS = 1_000_000_000


class Protection:
    """Settings, policies and the application's own functions. `ConfigurationError` holds every mistake at once."""

    def __init__(
        self,
        settings: Settings | None = None,
        policies: Iterable[Policy] = (),
        authenticate: Authenticate | None = None,
        tenant_of: TenantLookup | None = None,
        owners: Mapping[str, Owner] | None = None,
        config: Mapping[str, Any] | None = None,
        detectors: Iterable[Detector] = (),
    ) -> None:
        found, problems = (settings, list(settings.problems())) if settings is not None else read(config=config)
        policies = tuple(policies)
        self.alone = bool(policies or authenticate or tenant_of or owners)
        """It was told in code what no other shield knows."""
        self.authenticate = authenticate
        self.tenant_of = tenant_of
        self.owners = dict(owners or {})
        self._detectors = tuple(detectors)
        self._runtime: Runtime | None = None
        if found is None:
            raise ConfigurationError(tuple(problems))
        self.settings = found
        from_file, file_problems = read_policies(found.policy_file)
        self.rows, pattern_problems = policy_rows(found, (*from_file, *policies))
        self.revocations = open_revocations(found.storage.uri, found.revocation.on_outage)
        self.authority, self.keys, key_problems = (
            authority_of(found.auth, found.tenant, development=found.development, revocations=self.revocations)
            if not any(problem.id.startswith(("PS-AUTH", "PS-TENANT")) for problem in problems)
            else (None, {}, [])
        )
        problems += [*file_problems, *pattern_problems, *key_problems, *self._undecided(problems)]
        problems += detector_problems(self._detectors)
        if problems:
            raise ConfigurationError(tuple(problems))
        for prefix, _, issuer in found.auth.verified():
            for name in ("insecure_no_audience", "insecure_no_expiry"):
                if getattr(issuer, name):
                    _log.warning("%s__%s is on: tokens are checked less strictly", prefix, name.upper())

    def _undecided(self, problems: list[ConfigurationProblem]) -> Iterable[ConfigurationProblem]:
        """Nobody said how users are authenticated."""
        settings = self.settings
        if settings.auth.preset is not None or settings.auth.issuers or self.authenticate is not None:
            return
        if any(problem.variable == "PORTALSHIELD_AUTH" for problem in problems):
            return
        if settings.development:
            _log.warning("PORTALSHIELD_AUTH is not set: nobody is authenticated, tenants are not separated")
        else:
            yield ConfigurationProblem(
                "PS-AUTH-001",
                "PORTALSHIELD_AUTH",
                "is not set.",
                "Write the provider, jwt, or none if the application authenticates by itself, or pass authenticate=.",
            )

    @property
    def _verifies(self) -> bool:
        """Tokens are verified here, not by the application."""
        return self.authority is not None and self.authenticate is None

    def revoke(self, named: Mapping[Kind, str | None], before: float | None) -> None:
        """Refuse tokens from now on; see `Shield.revoke`."""
        authority = self.authority
        if authority is None or not self._verifies:
            raise RuntimeError("no tokens are verified here: there is nothing to revoke")
        issuer = named.get("issuer")
        if issuer is not None and not authority.knows(issuer):
            raise ValueError("issuer is none of those that are configured")
        self.revocations.add(revoked(named, before=before, now=time.time(), longest_life_s=authority.longest_life_s))

    def build(self, store: Store | None = None) -> Build:
        """What all plans are compiled from. Without a store, limits ask for one."""
        return build(
            self.settings,
            self.authority if self._verifies else None,
            identifies=self.authenticate is not None,
            looks_up=self.tenant_of is not None,
            owned=self.owners,
            counting=store if isinstance(store, MemoryStore) else None,
            timing=_timing if self.settings.metrics.server_timing else None,
        )

    @cached_property
    def metrics(self) -> Metrics:
        """What is counted of this application's requests, from the first one on."""
        return open_metrics(self.settings.budget)

    @property
    def guards_responses(self) -> bool:
        """Answers are read for other tenants' rows, unless a route says otherwise."""
        mode = self.settings.mode
        authenticates = self.authenticate is not None or self.authority is not None
        return authenticates and effective("response_guard", None, mode.of("response_guard"), mode.default) is not None

    @property
    def asks_inside(self) -> bool:
        """Something is asked inside the application's own middleware: an inner door is needed."""
        return self.authenticate is not None or self.tenant_of is not None

    def coverage(self) -> dict[str, tuple[int, int]]:
        """How many JSON answers of each route carried a tenant field, and how many did not."""
        return self._runtime.coverage.read() if self._runtime is not None else {}

    def open(
        self,
        tabulate: Callable[[Build, list[PolicyRow]], tuple[Table, Plan]],
        *,
        has_inner: bool = False,
        request_of: Callable[[Any], Any] = lambda native: native,
    ) -> Runtime:
        """Compile everything. Called by a door when the first scope or request arrives."""
        settings = self.settings
        telemetry = open_telemetry(
            settings.log,
            settings.sentry,
            environment=settings.env,
            facts=_facts,
            metrics_config=settings.metrics,
            metrics=self.metrics,
            detectors=self._detectors,
        )
        if not settings.development and not settings.hosts.allowed:
            _log.warning("PORTALSHIELD_HOSTS is not set: any Host is served")
        store = open_store(
            settings.storage.uri,
            max_keys=settings.storage.max_keys,
            on_outage=settings.rate.on_outage,
            notify=_log.warning,
        )
        build = self.build(store)
        table, strict = tabulate(build, self.rows)
        apart = next(records_apart(settings, table.plans()), None)
        if apart is not None and settings.workers is None and (workers_of(sys.argv) or 1) > 1:
            raise ConfigurationError((apart,))
        exposition = ExpositionStage(telemetry.exposition.admits, telemetry.exposition.page)
        path = telemetry.exposition.path
        self._runtime = Runtime(
            settings=settings,
            table=table,
            strict=strict,
            owner=self,
            store=store,
            records=open_records(settings.storage.uri, max_entries=settings.storage.max_keys),
            lines=telemetry.lines,
            metrics=telemetry.metrics,
            on_failure=telemetry.sentry.failed if telemetry.sentry is not None else None,
            pages={(method, path): page_plan(build, exposition) for method in ("GET", "HEAD")} if path else {},
            budget_ns=min(settings.budget.app_ms, settings.budget.p95_ms) * 1_000_000,
            keys=dict(self.keys),
            revocations=self.revocations if self._verifies else None,
            tenants=TimedMemo(10_000, settings.tenant.cache),
            trusted=parse_networks(settings.trusted_proxies) if settings.trusted_proxies else None,
            authenticate=self.authenticate,
            tenant_of=self.tenant_of,
            on_crash=_report,
            apart=apart,
            has_inner=has_inner,
            request_of=request_of,
        )
        return self._runtime

    def aside(self, app: Any, *, told: bool) -> Callable[[Runtime], bool]:
        """When a door of patterns around `app` leaves a request to one further out: one of the same shield, or of
        patterns where this has none; also, where nobody told it anything but the environment, one that lists the routes
        of `app`."""

        def steps_aside(outer: Runtime) -> bool:
            if outer.owner is self or (not self.rows and isinstance(outer.table, PatternTable)):
                return True
            return not told and any(outer.table.lists(_routes_of(each)) for each in looked_through(app))

        return steps_aside

    def forget(self) -> None:
        """Forget what was counted and remembered (a test run)."""
        if self.authority is not None:
            self.authority.forget()
        self.revocations.clear()
        if self._runtime is not None:
            self._runtime.tenants.clear()
            self._runtime.store.clear()
            self._runtime.records.clear()

    def open_opaque(self) -> Runtime:
        """For an application without a router to ask."""
        return self.open(_by_patterns)


_UNROUTED = "has allow_path, which needs an application whose routes can be read: this one may read a path its own way."


def _by_patterns(b: Build, rows: list[PolicyRow]) -> tuple[Table, Plan]:
    strict, _ = unserved_plans(b)
    patterns = []
    for row in rows:
        route = Route("", row.pattern.segments, row.pattern.methods, None)
        if row.policy.terms.get("allow_path"):
            told = (ConfigurationProblem("PS-POLICY-005", row.variable, _UNROUTED, "Leave allow_path out."),)
            raise ConfigurationError(told)
        plans = {
            method: compile_policy(
                b, effective_policy(b.settings, rows, route, method), row.policy.match, safe=method in ("GET", "HEAD")
            )
            for method in row.pattern.methods or METHODS
        }
        patterns.append((row.pattern, plans))
    return PatternTable(patterns, strict), strict


def _facts(lines: RequestLines) -> Mapping[str, Any] | None:
    """What a Sentry event may know of the running request: no ids but pseudonyms, no path but the template."""
    x = CURRENT.get() or _just_ended()
    if x is None:
        return None
    facts: dict[str, Any] = {"request_id": x.request_id, "method": x.method, "route": x.template}
    principal = x.principal
    if principal is not None:
        facts["subject"] = lines.pseudonym("user", principal.subject, principal.tenant or "")
        if principal.tenant is not None:
            facts["tenant"] = lines.pseudonym("tenant", principal.tenant)
    return facts


def _just_ended() -> Exchange | None:
    """Sentry's own wrappers stand outside the doors and capture when a request has left them, at once. Whatever comes
    later on this thread belongs to nobody's request."""
    x = LAST.get()
    return x if x is not None and time.perf_counter_ns() - x.ended_ns < _AT_ONCE_NS else None


def _timing(x: Exchange) -> bytes:
    return value_of(time.perf_counter_ns() - x.began_ns, x.entered_ns - x.began_ns)


def _report(x: Exchange, error: BaseException) -> None:
    _log.error("portalshield: %s", type(error).__name__, exc_info=error)


class Protected(Protocol):
    """Whatever holds a protection: `Shield`."""

    @property
    def protection(self) -> Protection:
        """Settings and policies, checked."""


def _routes_of(app: Any) -> Any:
    """Whatever a table may list: a router, or the map of the Flask application whose method this is."""
    return getattr(getattr(app, "__self__", None), "url_map", app)


def protection_of(shield: Protected | None) -> Protection:
    """The shield's protection; None reads the environment."""
    return Protection() if shield is None else shield.protection
