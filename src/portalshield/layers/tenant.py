"""Tenants: a user of tenant A never reads or changes tenant B, whatever id stands in path, query, header or body.

Every id a request addresses a tenant by is compared with the tenant the credential proves; a foreign one is 404, the
same bytes as for a tenant that does not exist, and the handler never runs. Without a proven tenant a route refuses
(403): there is no default tenant. Does not cover: opaque object ids (an invoice number does not say whose it is).
Costs a set operation per place, and a walk of the JSON body only where a name occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel

from portalshield.model.exchange import UNREAD, Exchange
from portalshield.model.needs import TenantOf, Tenants, Unavailable
from portalshield.model.policy import EffectivePolicy
from portalshield.model.setting import FROZEN, ConfigurationProblem, Setting
from portalshield.model.verdicts import Problem, Verdict, problem, unavailable
from portalshield.rules.addressed import (
    TooManyPairsError,
    as_id,
    header_names,
    in_cookies,
    in_query,
    names_occur,
    same_id,
)
from portalshield.rules.body_ids import UnreadableError, in_body
from portalshield.rules.claims import parse_pointer
from portalshield.rules.multipart import FormScanner, MultipartFault
from portalshield.rules.tenant_scan import TenantScan

FIELDS = ("tenant_id", "tenantId", "org_id", "orgId", "organization_id", "organizationId")

_FOREIGN = problem("not-found", why="foreign-tenant")
_NO_TENANT = problem("no-tenant", why="no-tenant-proven")
_AMBIGUOUS = problem("no-tenant", why="several-tenants-none-addressed")
_FLOOD = problem("malformed-request", why="too-many-parameters")
_UNREADABLE = problem("malformed-request", why="body-unreadable")
_UNJUDGED = problem("body-too-large", why="body-not-judged")
_LATE = problem("malformed-request", why="multipart-field-behind-file")


class TenantConfig(BaseModel):
    """`PORTALSHIELD_TENANT__...`."""

    model_config = FROZEN

    claim: Annotated[
        tuple[str, ...],
        Setting("JSON pointers to the tenant in the token, the first that is there; a provider's own unless set"),
    ] = ("/tenant_id",)
    fields: Annotated[tuple[str, ...], Setting("names that address a tenant in path, query, header, JSON and form")] = (
        FIELDS
    )
    cache: Annotated[float, Setting("how long an answer of tenant_of is kept", unit="seconds")] = 30.0

    def problems(self) -> Iterator[ConfigurationProblem]:
        """Pointers into what users can write themselves, names that are none."""
        for number, text in enumerate(self.claim, 1):
            try:
                parse_pointer(text)
            except ValueError as error:
                yield ConfigurationProblem(
                    "PS-TENANT-001",
                    "PORTALSHIELD_TENANT__CLAIM",
                    f"entry {number} {error}.",
                    "Point at what only the server writes, for example /app_metadata/tenant_id.",
                )
        if not self.claim:
            yield ConfigurationProblem("PS-TENANT-002", "PORTALSHIELD_TENANT__CLAIM", "is empty.", "Write /tenant_id.")
        if not self.fields:
            yield ConfigurationProblem(
                "PS-TENANT-003",
                "PORTALSHIELD_TENANT__FIELDS",
                "is empty.",
                "Name the fields that address a tenant, or switch the layer off with PORTALSHIELD_MODE__TENANT=off.",
            )


class TenantStage:
    """Path, query and header; also settles which tenant is the active one."""

    layer = "tenant"
    needs_principal = True

    def __init__(self, fields: tuple[str, ...], *, looks_up: bool, required: bool) -> None:
        self._fields = frozenset(fields)
        self._in_query = tuple(field.encode() for field in fields)
        self._headers = header_names(fields)
        self._looks_up = self.asks = looks_up
        self._required = required

    def check(self, x: Exchange) -> Verdict:
        """Compare what is addressed with the proven tenant; leave it to `ask` where the tenant is looked up."""
        principal = x.principal
        if principal is None or (self._looks_up and principal.tenant is None):
            return None
        if principal.tenant is None:
            return _NO_TENANT if self._required else None
        tenant = principal.tenant
        for name, value in x.params.items():
            # What the path says and what the framework will hand over; most requests address a tenant nowhere else.
            if name in self._fields and not (value == tenant == x.arguments.get(name)):
                break
        else:
            if not x.query and b"cookie" not in x.headers and x.headers.disjoint(self._headers):
                return None
        try:
            foreign = any(value != tenant and not same_id(value, tenant) for value in self._addressed(x))
        except TooManyPairsError:
            return _FLOOD
        return _FOREIGN if foreign else None

    def ask(self, x: Exchange) -> TenantOf | None:
        """The tenants of a principal whose credential names none."""
        if not self._looks_up or x.principal is None or x.principal.tenant is not None:
            return None
        return TenantOf(x.principal)

    def settle(self, x: Exchange, need: TenantOf, answer: Tenants | Unavailable) -> Verdict:
        """The addressed tenant must be among them; where none is addressed there must be exactly one."""
        if isinstance(answer, Unavailable):
            return unavailable(answer.reason)
        if not answer.tenants:
            return _NO_TENANT if self._required else None
        try:
            addressed = self._addressed(x)
        except TooManyPairsError:
            return _FLOOD
        x.memberships = answer.tenants
        member = self._chosen(addressed, answer.tenants)
        if member is None:
            return _FOREIGN if addressed else (_AMBIGUOUS if self._required else None)
        x.principal = replace(need.principal, tenant=member)
        return self.check(x)

    def _chosen(self, addressed: list[str], tenants: tuple[str, ...]) -> str | None:
        if not addressed:
            return tenants[0] if len(tenants) == 1 else None
        return next((tenant for tenant in tenants if same_id(addressed[0], tenant)), None)

    def _addressed(self, x: Exchange) -> list[str]:
        found: list[str] = []
        fields = self._fields
        for name, value in x.params.items():
            if name in fields:
                # The framework may hand over another id than the path says (`007` as an int): refuse what changes.
                found.append(value if str(x.arguments.get(name, value)) == value else "")
        if x.query and names_occur(x.query, self._in_query):
            found += [value for _, value in in_query(x.query, fields)]
        cookie = x.headers.get(b"cookie")
        if cookie is not None and names_occur(cookie, self._in_query):
            found += [value for _, value in in_cookies(cookie, fields)]
        if not x.headers.disjoint(self._headers):
            for field in self._headers:
                for raw in x.headers.get_all(field):
                    found += [part.strip() for part in raw.decode("latin-1").split(",")]
        return found


class TenantBodyStage:
    """JSON at any depth, all occurrences; forms; and whatever a handler might still read as JSON.

    Of a multipart form the fields before the first file are judged here, for the owners too: a form that parsers read
    differently, and a name that matters behind a file, where the handler runs already, are 400.
    """

    layer = "tenant"
    judges_body = True
    needs_principal = True

    def __init__(self, fields: tuple[str, ...]) -> None:
        self.names = self._fields = frozenset(fields)
        self._names_only = TenantScan(fields).names_only

    def check(self, x: Exchange) -> Verdict:
        """404 if the body addresses another tenant than the proven one."""
        body, principal = x.body, x.principal
        if principal is not None and (x.form is not None or x.form_fault is not None):
            return self._judge_form(x, x.form, principal.tenant)
        if body is None or principal is None:
            return None
        tenants = (principal.tenant,) if principal.tenant is not None else x.memberships
        if not tenants:
            return None
        if not x.body_complete:
            return _UNJUDGED
        if x.json is not UNREAD and self._names_only(body, tenants[0]):
            return None
        try:
            found = in_body(body, x.json, x.headers.get(b"content-type"), self._fields)
        except TooManyPairsError:
            return _FLOOD
        except UnreadableError:
            return _UNREADABLE
        for _, value in found:
            addressed = as_id(value)
            if value is not None and not (addressed and any(same_id(addressed, tenant) for tenant in tenants)):
                return _FOREIGN
        return None

    def guard(self, x: Exchange) -> Callable[[bytes], Problem | None] | None:
        """Judge the rest of a form as it streams to the handler."""
        if x.form is None or x.form_fault is not None or x.form.late or x.body is None or x.principal is None:
            return None
        return _rest(x.form, len(x.body))

    def _judge_form(self, x: Exchange, form: FormScanner | None, tenant: str | None) -> Verdict:
        """What was read of a form. A foreign id before all else, so that the verdict is the same in any chunks."""
        early = form.fields[: len(form.fields) - len(form.late)] if form is not None else ()
        if tenant is not None and any(name in self._fields and not same_id(value, tenant) for name, value in early):
            return _FOREIGN
        if form is None or x.form_fault is not None:
            return _malformed(x.form_fault)
        if form.late:
            return _LATE
        return None if x.body_complete or form.reached_file else _UNJUDGED


def _rest(form: FormScanner, read: int) -> Callable[[bytes], Problem | None]:
    """Judges a form of which `read` bytes were scanned already; they come once more, to the handler."""

    def judge(chunk: bytes) -> Problem | None:
        nonlocal read
        fresh, read = chunk[read:], max(0, read - len(chunk))
        try:
            form.feed(fresh)
            if not chunk:
                form.close()
        except MultipartFault as fault:
            return _malformed(fault.code)
        return _LATE if form.late else None

    return judge


def _malformed(code: str | None) -> Problem:
    return problem("malformed-request", why=f"multipart-{code}")


def fields_of(config: TenantConfig, policy: EffectivePolicy) -> tuple[str, ...]:
    """The names that address a tenant on this route."""
    return (*config.fields, policy.tenant) if isinstance(policy.tenant, str) else config.fields


def stages(
    config: TenantConfig, policy: EffectivePolicy, *, looks_up: bool
) -> tuple[TenantStage | None, TenantBodyStage | None]:
    """The two positions: before the body and after it. Public and cross-tenant routes compare nothing."""
    if policy.public or policy.cross_tenant:
        return None, None
    fields = fields_of(config, policy)
    required = policy.tenant is not False
    return TenantStage(fields, looks_up=looks_up, required=required), TenantBodyStage(fields)
