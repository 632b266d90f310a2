"""What both doors share: the compiled application, and all about a request that needs neither `await` nor a socket.

A door builds the exchange, asks `begin`, drives the walk with its answers, finishes the response head
with the plan's `finish_head` and hands the finished exchange to `done`. Nothing here starts a thread or opens a socket.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from portalshield.context import LAST
from portalshield.flow import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_PARAMETERS,
    MAX_URL_BYTES,
    Plan,
    Walk,
    begin,
    doubled,
    enforces,
    oversized,
)
from portalshield.held import Answered, Coverage, Held
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Answer, Identified, Need, Owners, TenantOf, Tenants
from portalshield.model.principal import Principal
from portalshield.model.setting import ConfigurationProblem
from portalshield.model.verdicts import Problem, Reply, Verdict, problem
from portalshield.routes import Table, ambiguous
from portalshield.rules.addresses import TrustedProxies, came_over_tls, client_address, is_private, limit_key
from portalshield.rules.hosts import HostPolicy
from portalshield.rules.request_ids import is_usable
from portalshield.settings import Settings
from portalshield.stores import Store
from portalshield.stores.memo import TimedMemo
from portalshield.stores.records import RecordStore
from portalshield.stores.revocations import RevocationStore
from portalshield.telemetry.lines import RequestLines, record_of
from portalshield.telemetry.metrics import Metrics
from portalshield.wire import Rendered, render

_UNANNOUNCED = problem("malformed-request", why="body-unannounced")
UNCONFIRMED = problem("internal-error", why="route-not-confirmed")
CRASHED = problem("internal-error", why="application-crashed")
_BUG = problem("internal-error", why="stage-failed")
_TWO_LENGTHS = problem("malformed-request", why="length-and-coding")
_BAD_HOST = problem("malformed-request", why="host-malformed")
_TWO_CREDENTIALS = problem(
    "malformed-request",
    why="two-authorization",
    fields=((b"www-authenticate", b'Bearer error="invalid_request"'),),
)
_FORWARDED = frozenset((b"x-forwarded-for", b"forwarded"))
_UNUSUAL = _FORWARDED | {b"transfer-encoding"}
_COMMA = 0x2C  # as an integer: faster to find than as bytes
_NO_PROXY = (
    "requests come through a proxy, and PORTALSHIELD_TRUSTED_PROXIES does not name it: limits per address only report"
    " until it does (docs/proxies.md)"
)
BODYLESS_METHODS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))
"""A body of these has no meaning of its own (RFC 9110, 9.3): without an announced length none is expected."""
_POOL = 4096
_KNOWN, _LONGEST_SPELLING = 4096, 512
_log = logging.getLogger("portalshield")


class RequestIds:
    """Random 128-bit ids from a pool of system randomness; a forked child draws its own pool."""

    def __init__(self) -> None:
        self._next: Callable[[], str]
        self._drain()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._drain)

    def draw(self) -> str:
        """32 lower-case hex digits."""
        try:
            return self._next()
        except StopIteration:
            digits = os.urandom(_POOL).hex()
            # A list's iterator hands out each item once, whichever thread asks.
            self._next = iter([digits[at : at + 32] for at in range(0, len(digits), 32)]).__next__
            return self._next()

    def _drain(self) -> None:
        empty: list[str] = []
        self._next = iter(empty).__next__


Found = tuple[str, Any, Mapping[str, str], Mapping[str, Any], bool, Mapping[int, Any], Plan]
"""What the table found: template, endpoint, params, arguments, opaque and ways of the exchange; the plan."""


@dataclass(slots=True, repr=False)
class Runtime:
    """One application, compiled. `keys`: the fetched key sets by issuer; `tenants` remembers answers of tenant_of."""

    settings: Settings
    table: Table
    strict: Plan
    store: Store
    records: RecordStore
    """What was processed already (webhooks, idempotency)."""
    lines: RequestLines | None
    metrics: Metrics
    keys: dict[str, Any]
    tenants: TimedMemo[tuple[str, ...]]
    trusted: TrustedProxies | None
    authenticate: Callable[[Any], Any] | None
    tenant_of: Callable[[Principal], Any] | None
    on_crash: Callable[[Exchange, BaseException], None]
    on_failure: Callable[[str, str, int], None] | None = None
    """Told of each answer of 500 or more that no exception explains: request id, template, status (Sentry)."""
    owner: object = None
    """The protection that was compiled."""
    pages: Mapping[tuple[str, str], Plan] = field(default_factory=dict)
    """What the shield itself answers, by method and path."""
    revocations: RevocationStore | None = None
    """Followed in each process; None where the application authenticates by itself."""
    budget_ns: int = 300_000_000
    """How long the application may take; a request that takes longer is marked in its line."""
    apart: ConfigurationProblem | None = None
    """What is wrong if several processes serve this: each would keep records of its own."""
    has_inner: bool = False
    """There is an inner door, where `authenticate` and `tenant_of` are asked."""
    request_of: Callable[[Any], Any] = field(default=lambda native: native)
    """The framework's own request for an environ."""
    proxy_warned: bool = False
    """The warning about a proxy that nobody named was given."""
    good_hosts: set[bytes] = field(default_factory=set)
    coverage: Coverage = field(default_factory=Coverage)
    known: dict[tuple[str, str, bytes | None], Found] = field(default_factory=dict)
    """What serves a path, by method and spelling, as the table found it lately."""
    hosts: HostPolicy = field(default_factory=lambda: HostPolicy(("*",)))
    """Any well-formed host: a malformed one is refused whatever is served (RFC 9112, 3.2)."""

    def begin(self, x: Exchange, fields: int, field_bytes: int, doubles: bool) -> Verdict | Walk:
        """Judge a request as far as it goes without waiting: its verdict, or the walk through the rest.

        `fields` and `field_bytes` count all header fields, `doubles`: a name came more than once.
        """
        x.plan = self.strict
        headers = x.headers
        try:
            if not self.table.fresh():
                self.known = {}
            # What was found for this very spelling before was sane then; a mounted path is only a part of one.
            found = None if x.rest or x.websocket else self.known.get((x.method, x.path, x.raw_path))
            usual = headers.disjoint(_UNUSUAL)
            if (
                found is None
                or doubles
                or fields > MAX_FIELDS
                or field_bytes > MAX_FIELD_BYTES
                or len(x.path) + len(x.query) > MAX_URL_BYTES
                or (x.query and x.query.count(b"&") >= MAX_PARAMETERS)
                or headers.get(b"host") not in self.good_hosts
                or not usual
                or _COMMA in (headers.get(b"authorization") or b"")
            ):
                verdict = None if found is not None else ambiguous(x, self.table)
                verdict = verdict or oversized(x, fields, field_bytes)
                verdict = verdict or (doubled(x) if doubles else None) or self._misframed(x)
                if verdict is not None:
                    x.layer = "request"
                    return verdict
            if self.trusted is None and (usual or headers.disjoint(_FORWARDED)):
                x.address = x.peer or "local"
            else:
                self._address(x)
            x.address_key = limit_key(x.address)
            if found is None:
                x.plan = self._find(x)
            else:
                x.template, x.endpoint, x.params, x.arguments, x.opaque, x.ways, x.plan = found
                x.served = True
            return begin(x, x.plan)
        except Exception as error:
            return self.stage_failed(x, error)

    def _find(self, x: Exchange) -> Plan:
        """Ask the table, and remember what serves this spelling of the path; bounded, a flood costs a match each."""
        page = self.pages.get((x.method, x.path)) if not x.websocket else None
        if page is not None:
            x.template = x.path
            return page
        known = self.known  # what is found while somebody else notices a new route is not remembered behind it
        plan = self.table.find(x)
        size = len(x.path) + len(x.raw_path or b"")
        if x.served and x.lasting and not x.rest and not x.websocket and size <= _LONGEST_SPELLING:
            if len(known) >= _KNOWN:
                known.clear()
            found = (x.template, x.endpoint, x.params, x.arguments, x.opaque, x.ways, plan)
            known[(x.method, x.path, x.raw_path)] = found
        return plan

    def _misframed(self, x: Exchange) -> Problem | None:
        """A Host that is no authority, a body with two lengths (RFC 9112, 6.1: how requests are smuggled), or two
        credentials that a server or proxy has joined into one field."""
        get = x.headers.get
        host = get(b"host")
        if host and host not in self.good_hosts:
            if self.hosts.fault(host) is not None:
                return _BAD_HOST
            if len(self.good_hosts) < _KNOWN:
                self.good_hosts.add(host)
        if x.has_body and get(b"transfer-encoding") is not None and get(b"content-length"):
            return _TWO_LENGTHS
        credential = get(b"authorization")
        if credential is not None and b"," in credential and _folded(credential):
            return _TWO_CREDENTIALS
        return None

    def remembered(self, x: Exchange, need: Need) -> Answer | None:
        """What `tenant_of` answered a moment ago; None: ask."""
        if not isinstance(need, TenantOf):
            return None
        found = self.tenants.get((need.principal.issuer, need.principal.subject), x.now)
        return Tenants(found) if found is not None else None

    def identified(self, found: Any) -> Identified:
        """What `authenticate` returned: a principal, or nobody, whatever else it was."""
        return Identified(found if isinstance(found, Principal) else None)

    def owned(self, found: Iterable[Any]) -> Owners:
        """What the owners of objects returned, as texts."""
        return Owners(tuple([str(tenant) if tenant is not None else None for tenant in found]))

    def remember_tenants(self, x: Exchange, principal: Principal, answer: Any) -> Tenants:
        """Normalise what `tenant_of` returned (one, several or None) and keep it."""
        tenants = (answer,) if isinstance(answer, str) else tuple(map(str, answer)) if answer is not None else ()
        self.tenants.put((principal.issuer, principal.subject), tenants, x.now)
        return Tenants(tenants)

    def refuse(self, x: Exchange, verdict: Problem | Reply) -> Rendered:
        """A refusal or early answer, complete with everything the layers add."""
        if verdict is UNCONFIRMED:
            self.known = {}
        if isinstance(verdict, Problem):
            x.problem = verdict
            if not x.layer:
                x.layer = "application" if verdict is CRASHED else "route"
        status, fields, body = render(verdict, x.request_id, x.headers.get(b"accept"))
        return status, x.plan.finish_head(x, status, fields)[0], b"" if x.method == "HEAD" else body

    def unconfirmed(self, x: Exchange) -> bool:
        """The framework routed the request, but not to the handler whose policy was applied."""
        return x.reached and x.served and not (x.confirmed and x.walk is None)

    def hold(self, x: Exchange, status: int, readable: bool | Exception, length: bytes) -> Held | None:
        """An answer that its judge wants to read. `x.late` is set where that went wrong."""
        x.judged = True
        stage, enforced = x.plan.reader
        try:
            if type(readable) is not bool:
                raise readable
            wanted = stage.wants(x, readable, length)
        except Exception as error:
            x.late = self._judge_failed(x, error, enforced)
            return None
        if wanted:
            return Held(status, wanted, enforced > 0)
        if x.covered is False and status < 400:
            self.coverage.count(x.template, covered=False)
        return None

    def settle(self, x: Exchange, held: Held) -> None:
        """Judge what was read, if it came as it was declared; `x.late` is set where it is refused."""
        began = perf_counter_ns()
        x.covered = False
        if held.left == 0:
            stage, enforced = x.plan.reader
            try:
                verdict = stage.judge(x, held.body)
            except Exception as error:
                x.late = self._judge_failed(x, error, enforced)
            else:
                if verdict is not None and enforces(x, stage.layer, enforced, verdict):
                    x.late = verdict
        if held.status < 400:
            self.coverage.count(x.template, covered=x.covered)
        x.judging_ns = perf_counter_ns() - began

    def conclusions(self, x: Exchange, answered: Answered, *, whole: bool) -> Iterator[Need]:
        """What has to be put in order now that the outcome is known; `whole`: the answer came to its end.

        A refusal is nothing that the application answered.
        """
        ending = answered.ending(whole=whole and x.problem is None and x.verdict is None)
        for conclude in x.plan.concludes:
            try:
                need = conclude(x, ending)
            except Exception as error:
                self.on_crash(x, error)
                continue
            if need is not None:
                yield need

    def stage_failed(self, x: Exchange, error: Exception) -> Problem:
        """A bug refuses the request: never fail open."""
        x.layer = "shield"
        self.on_crash(x, error)
        return _BUG

    def _judge_failed(self, x: Exchange, error: Exception, enforced: float) -> Problem | None:
        """A bug in a judge that only reports is told of, and changes no answer."""
        if enforced > 0:
            return self.stage_failed(x, error)
        self.on_crash(x, error)
        return None

    def done(self, x: Exchange, status: int, duration_ns: int, overhead_ns: int, bytes_out: int) -> None:
        """The request is over: count it and write its line."""
        # The scope holds the exchange: without this every request would be a cycle for the garbage collector.
        x.native = None
        self.metrics.record(x.method, x.template, status, duration_ns, overhead_ns)
        if self.on_failure is not None:
            x.ended_ns = x.began_ns + duration_ns
            LAST.set(x)
        slow = duration_ns - overhead_ns > self.budget_ns
        calm = not slow and status < 500 and x.would_refuse is None and x.crash is None
        if x.problem is not None or not calm:
            self._eventful(x, status)
        lines = self.lines
        if lines is None:
            return
        if calm and lines.direct and not x.aborted and not x.gone and not x.replayed:
            if status >= 400 or not x.plan.policy.health:
                lines.plain(x, status, duration_ns, overhead_ns, bytes_out)
            return
        record = record_of(x, status, duration_ns, overhead_ns, bytes_out)
        record.over_budget = slow
        lines.write(record)

    def _eventful(self, x: Exchange, status: int) -> None:
        """Count what layers decided, and tell whoever wants to know of failures."""
        decide, route = self.metrics.decision, x.template
        if x.problem is not None:
            decide(x.layer, "refused", x.problem.type.slug, route)
        for layer, slug in x.would_refuse or ():
            decide(layer, "would_refuse", slug, route)
        if status >= 500 and x.crash is None and self.on_failure is not None:
            self.on_failure(x.request_id, route, status)

    def _address(self, x: Exchange) -> None:
        headers, trusted = x.headers, self.trusted
        if trusted is None:
            x.address = x.peer or "local"
            x.address_trusted = not is_private(x.address)
            if not x.address_trusted and not self.proxy_warned:
                self.proxy_warned = True
                _log.warning(_NO_PROXY)
            return
        x.address = client_address(x.peer, headers.get_all(b"x-forwarded-for"), headers.get_all(b"forwarded"), trusted)
        if not trusted.believes(x.peer):
            return
        x.https = x.https or came_over_tls(headers.get_all(b"x-forwarded-proto"))
        given = headers.get_all(b"x-request-id")
        if len(given) == 1 and is_usable(given[0]):
            x.lot, x.request_id = x.request_id, given[0].decode()


def _folded(credential: bytes) -> bool:
    """`Bearer a, Basic b`: neither scheme has commas of its own (RFC 6750, 2.1; RFC 7617), Digest has."""
    scheme, _, rest = credential.partition(b" ")
    return scheme.lower() in (b"bearer", b"basic") and any(b" " in part.strip() for part in rest.split(b",")[1:])


def _unannounced(chunk: bytes) -> Problem | None:
    """A body that neither a length nor a coding announced: nobody judged it (HTTP/2 allows it, RFC 9113, 8.1.1)."""
    return _UNANNOUNCED if chunk else None


NO_BODY: list[Callable[[bytes], Problem | None]] = [_unannounced]
"""The guards of a request that announced no body."""
