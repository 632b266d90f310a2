"""The one line per request: event `http_request`, built from what the door knows when the last byte has left.

Every field is the library's own (closed sets, numbers, templates, keyed pseudonyms), so nothing is scanned and a line
costs about what its serialisation costs.
"""

from __future__ import annotations

import zlib
from ipaddress import ip_address
from typing import Any, Final, Literal

from portalshield.model.exchange import Exchange
from portalshield.model.principal import Principal
from portalshield.rules.pseudonyms import Domain, Pseudonyms
from portalshield.rules.redaction import Redactor
from portalshield.rules.traceparent import trace_id
from portalshield.telemetry import clock
from portalshield.telemetry.encoding import encode, tail_of
from portalshield.telemetry.writer import LineWriter

SCHEMA: Final = 1
"""Version of the line's fields."""
METHODS: Final = {
    name: name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
}
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_MEMO: Final = 4096
_MAX_ADDRESS: Final = 64


_ALLOWED: Final = ("info", '"decision":"allowed","problem":null,"layer":null', "")
_NOBODY: Final = '"tenant":null,"subject":null,"actor":null,"auth":null'


class RequestRecord:
    """What a door knows of a request at its end. Class-level defaults: an instance costs what is really set.

    Ids are raw here; the line holds their pseudonyms only. Times are milliseconds (`duration_ms`) and microseconds
    (`overhead_us`), `time` is Unix seconds at the end, 0 for now.
    """

    time: float = 0.0
    request_id: str = ""
    trace_id: str | None = None
    method: str = "GET"
    route: str = "(unmatched)"
    """The template, never a path."""
    status: int = 0
    duration_ms: float = 0.0
    overhead_us: float = 0.0
    tenant: str | None = None
    subject: str | None = None
    actor: str | None = None
    auth: str | None = None
    """How the principal proved itself: bearer, cookie, application."""
    problem: str | None = None
    """The slug of the refusal that was answered."""
    layer: str | None = None
    why: str | None = None
    """The fixed slug behind a refusal that the client does not see."""
    would_refuse: list[tuple[str, str]] | None = None
    """(layer, slug) of what report mode let pass."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    client_ip: str | None = None
    error: str | None = None
    """The class name of an exception, `aborted` or `disconnected`."""
    over_budget: bool = False
    replayed: bool = False
    """A copy that got the answer of the first."""
    quiet: bool = False
    """Not logged when nothing happened (health routes)."""


def record_of(x: Exchange, status: int, duration_ns: int, overhead_ns: int, bytes_out: int) -> RequestRecord:
    """What there is to tell of a request that was not over without any ado."""
    principal = x.principal
    record = RequestRecord()
    record.request_id = x.request_id
    traced = x.headers.get_all(b"traceparent")
    if traced:
        record.trace_id = trace_id(*traced)
    record.method = x.method
    record.route = x.template
    record.status = status
    record.duration_ms = duration_ns / 1e6
    record.overhead_us = overhead_ns // 1000
    record.client_ip = x.address
    record.bytes_in = x.bytes_in or len(x.body or b"")
    record.bytes_out = bytes_out
    if principal is not None:
        record.tenant = principal.tenant
        record.subject = principal.subject
        record.actor = principal.actor
        record.auth = principal.auth_method
    if x.problem is not None:
        record.problem = x.problem.type.slug
        record.why = x.problem.why
        record.layer = x.layer
    record.quiet = x.plan.policy.health
    record.would_refuse = x.would_refuse
    record.replayed = x.replayed
    if x.aborted or x.gone:
        record.error = "aborted" if x.aborted else "disconnected"
    elif x.crash is not None:
        record.error = type(x.crash).__name__
    return record


class RequestLines:
    """Writes request lines to `writer`.

    `sample` is the share of uneventful requests that is written: by trace id, so that all services keep the same ones.
    Errors, refusals, would-be refusals and requests over budget are always written. Lines below `level` are not.
    """

    def __init__(
        self,
        writer: LineWriter,
        redactor: Redactor,
        pseudonyms: Pseudonyms,
        *,
        sample: float = 1.0,
        level: str = "info",
        format: Literal["json", "console"] = "json",
        release: str | None = None,
        environment: str | None = None,
    ) -> None:
        self._writer = writer
        self._redactor = redactor
        self._pseudonyms = pseudonyms
        self._sample = sample
        self._threshold = int(sample * 0x100000000)
        self._least = LEVELS[level]
        self._console = format == "console"
        self._names: dict[tuple[str, str, str], str] = {}
        self._addresses: dict[str, str | None] = {}
        self._texts: dict[str | None, str] = {}
        self._people: dict[int, tuple[Principal, str]] = {}
        self.direct = format == "json" and sample >= 1.0 and LEVELS[level] <= LEVELS["info"]
        """Lines without any ado may be written by `plain`."""
        self._tail = tail_of(
            {
                "schema": SCHEMA,
                "sample_rate": sample,
                "pseudonym_key_id": pseudonyms.key_id,
                **({"release": redactor.text(release)} if release else {}),
                **({"environment": redactor.text(environment)} if environment else {}),
            }
        )
        self._end = self._tail + b"\n"

    def write(self, record: RequestRecord) -> None:
        """Write the request's line, or leave it out (level, sampling). Never blocks, never raises."""
        try:
            self._write(record)
        except Exception:
            self._redactor.failed()
            self._writer.emit(encode({"event": "http_request", "level": "error", "error": "log_failed"}))

    def _write(self, record: RequestRecord) -> None:
        status = record.status
        failed = status >= 500 or record.error not in (None, "disconnected")
        level = "error" if failed else "warning" if record.problem else "info"
        if LEVELS[level] < self._least:
            return
        eventful = status >= 400 or level != "info" or record.over_budget or record.would_refuse is not None
        if not eventful and (record.quiet or (self._sample < 1.0 and not self._is_sampled(record))):
            return
        fields = self.fields(record, level)
        line = _console(fields) if self._console else encode(fields, self._tail)
        self._writer.emit(line, eventful=eventful)

    def plain(self, x: Exchange, status: int, duration_ns: int, overhead_ns: int, bytes_out: int) -> None:
        """The line of a request that was answered or refused without any ado, which most are; only where `direct`
        says so.

        The request hands over what it knows; the writing thread makes the line of it.
        """
        traced = x.headers.get_all(b"traceparent") if b"traceparent" in x.headers else None
        size = x.bytes_in or (len(x.body) if x.body is not None else 0)
        # In the order of `_line`; the exchange itself would keep the body alive until the line is written.
        facts = (x.now, duration_ns, x.request_id, traced, x.method, x.template, status, overhead_ns, x.principal)
        refusal = x.problem
        told = (refusal.type.slug, x.layer, refusal.why) if refusal is not None else None
        self._writer.emit((self._line, *facts, size, bytes_out, x.address, told), eventful=status >= 400)

    def _line(
        self,
        began: float,
        duration_ns: int,
        request_id: str,
        traced: list[bytes] | None,
        method: str,
        template: str,
        status: int,
        overhead_ns: int,
        principal: Principal | None,
        bytes_in: int,
        bytes_out: int,
        address: str,
        refusal: tuple[str, str, str] | None,
    ) -> bytes:
        """The same members in the same order as `fields`, straight into text: half the price."""
        quoted, texts = self._quoted, self._texts
        found = trace_id(*traced) if traced else None
        trace = f'"{found}"' if found else "null"
        who = _NOBODY
        if principal is not None:
            # By identity: a principal is remembered with its token, and hashing one costs more than the rest.
            held = self._people.get(id(principal))
            who = held[1] if held is not None and held[0] is principal else self._person(principal)
        cut = self._addresses.get(address) or self._address(address)
        level, decision, why = _ALLOWED
        if refusal is not None:
            slug, layer, reason = map(quoted, refusal)
            level, decision = "warning", f'"decision":"refused","problem":{slug},"layer":{layer}'
            why = f',"why":{reason}' if refusal[2] else ""
        text = (
            f'{{"timestamp":"{clock.stamp(began + duration_ns / 1e9)}","level":"{level}","event":"http_request",'
            f'"request_id":"{request_id}","trace_id":{trace},'
            f'"method":"{METHODS.get(method, "_OTHER")}",'
            f'"route":{texts.get(template) or quoted(template)},"status":{status},'
            f'"duration_ms":{duration_ns // 1000 / 1000},'
            f'"overhead_us":{overhead_ns // 100 / 10},{who},{decision},'
            f'"would_refuse":null,"bytes_in":{bytes_in},"bytes_out":{bytes_out},'
            f'"client_ip":{texts.get(cut) or quoted(cut)}{why}'
        )
        return text.encode() + self._end

    def _person(self, principal: Principal) -> str:
        """Tenant, subject, actor and proof of a principal as they stand in a line; remembered per principal."""
        tenant, subject, actor = principal.tenant, principal.subject, principal.actor
        members = {
            "tenant": None if tenant is None else self.pseudonym("tenant", tenant),
            "subject": self.pseudonym("user", subject, tenant or ""),
            "actor": None if actor is None else self.pseudonym("user", actor, tenant or ""),
            "auth": principal.auth_method,
        }
        text = encode(members).decode()[1:-2]
        if len(self._people) >= _MEMO:
            self._people.clear()
        self._people[id(principal)] = (principal, text)
        return text

    def _quoted(self, value: str | None) -> str:
        """A text as JSON, remembered: templates, methods of proof, cut addresses."""
        found = self._texts.get(value)
        if found is None:
            found = encode({"": value}).decode()[4:-2]
            if len(self._texts) >= _MEMO:
                self._texts.clear()
            if value is None or len(value) <= 512:
                self._texts[value] = found
        return found

    def fields(self, record: RequestRecord, level: str) -> dict[str, Any]:
        """The line's own members: contract order, pseudonyms and cut addresses in place of ids."""
        tenant, subject, address, would = record.tenant, record.subject, record.client_ip, record.would_refuse
        bound = tenant or ""
        names = self._names
        at = record.time or clock.now()
        fields: dict[str, Any] = {
            "timestamp": clock.stamp(at),
            "level": level,
            "event": "http_request",
            "request_id": record.request_id,
            "trace_id": record.trace_id,
            "method": METHODS.get(record.method, "_OTHER"),
            "route": record.route,
            "status": record.status,
            "duration_ms": int(record.duration_ms * 1000) / 1000,
            "overhead_us": int(record.overhead_us * 10) / 10,
            "tenant": None if tenant is None else names.get(("tenant", tenant, "")) or self._name("tenant", tenant, ""),
            "subject": None
            if subject is None
            else names.get(("user", subject, bound)) or self._name("user", subject, bound),
            "actor": None if record.actor is None else self._name("user", record.actor, bound),
            "auth": record.auth,
            "decision": "refused" if record.problem else "would_refuse" if would else "allowed",
            "problem": record.problem,
            "layer": record.layer,
            "would_refuse": would,
            "bytes_in": record.bytes_in,
            "bytes_out": record.bytes_out,
            "client_ip": None if address is None else self._addresses.get(address) or self._address(address),
        }
        if record.why:
            fields["why"] = record.why
        if record.error is not None:
            fields["error"] = record.error
        if record.over_budget:
            fields["over_budget"] = True
        if record.replayed:
            fields["replayed"] = True
        return fields

    def pseudonym(self, domain: Domain, value: str, tenant: str = "") -> str:
        """The name a line prints for this value; remembered for the callers that come often."""
        return self._names.get((domain, value, tenant)) or self._name(domain, value, tenant)

    def _name(self, domain: Domain, value: str, tenant: str) -> str:
        name = self._pseudonyms.name(domain, value, tenant)
        if len(self._names) >= _MEMO:
            self._names.clear()
        if len(value) + len(tenant) <= 512:
            self._names[(domain, value, tenant)] = name
        return name

    def _address(self, address: str) -> str | None:
        cut = truncated_address(address)
        if len(self._addresses) >= _MEMO:
            self._addresses.clear()
        if len(address) <= _MAX_ADDRESS:
            self._addresses[address] = cut
        return cut

    def _is_sampled(self, record: RequestRecord) -> bool:
        """The last 32 bits of the trace id are random (W3C Trace Context); without one the request id decides."""
        if record.trace_id is not None:
            return int(record.trace_id[-8:], 16) < self._threshold
        return zlib.crc32(record.request_id.encode("utf-8", "replace")) < self._threshold


def truncated_address(address: str) -> str | None:
    """The network of an address: /24 for IPv4 (also inside IPv6), /48 for IPv6; None for what is no address."""
    try:
        parsed = ip_address(address[:_MAX_ADDRESS].partition("%")[0])
    except ValueError:
        return None
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    host_bits = 8 if parsed.version == 4 else 80
    return str(type(parsed)(int(parsed) >> host_bits << host_bits))


def _console(fields: dict[str, Any]) -> bytes:
    """A line for people: time, level, status, method, route, time taken, then what is out of the ordinary."""
    shown = ("problem", "layer", "would_refuse", "error", "tenant", "subject", "actor", "request_id")
    rest = " ".join(f"{name}={fields[name]}" for name in shown if fields.get(name))
    text = (
        f"{fields['timestamp'][11:23]} {fields['level']:<7} {fields['status']} {fields['method']} {fields['route']} "
        f"{fields['duration_ms']:.1f} ms (shield {fields['overhead_us']:.0f} us) {rest}"
    )
    return printable(text).encode("utf-8", "replace")[:4095].rstrip() + b"\n"


def printable(text: str) -> str:
    """The text with everything a terminal could act on (controls, line separators, bidi marks) escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
