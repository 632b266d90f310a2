"""What may leave towards Sentry: an allowlist, item by item. What is not named here is not sent.

Deny lists lost this race (the default SDK sends 42 of 50 planted secrets, every scrubber still more than 25). Here the
structure is rebuilt from known members; in the default mode messages pass the value scanner, in strict mode they are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from portalshield.rules.carriers import REDACTED
from portalshield.rules.redaction import Redactor

Record = dict[str, Any]

UNMATCHED: Final = "unmatched"
"""The transaction's name where Sentry has a URL."""

_TEMPLATE_SOURCES: Final = frozenset(("route", "component", "custom", "task", "view"))
_EVENT: Final = (
    "event_id", "timestamp", "start_timestamp", "platform", "level", "type", "release", "environment", "dist",
    "transaction_info", "check_in_id", "monitor_slug", "monitor_config", "duration", "status",
)  # fmt: skip
_SDK: Final = ("name", "version", "integrations", "packages")
_TRACE: Final = ("trace_id", "span_id", "parent_span_id", "op", "status", "origin", "client_sample_rate")
_SAMPLING: Final = (
    "trace_id",
    "public_key",
    "sample_rate",
    "sample_rand",
    "sampled",
    "release",
    "environment",
    "org_id",
)
_RUNTIME: Final = ("name", "version")
_FRAME: Final = ("filename", "function", "module", "lineno", "in_app")
_MECHANISM: Final = ("type", "handled", "synthetic", "exception_id", "parent_id", "is_exception_group")
_SPAN: Final = (
    "trace_id", "span_id", "parent_span_id", "same_process_as_parent", "op", "origin", "status", "start_timestamp",
    "timestamp",
)  # fmt: skip
_CRUMB: Final = ("type", "category", "level", "timestamp")
_CRUMBS_WITHOUT_TEXT: Final = frozenset(("query", "redis", "http", "httplib", "xhr", "fetch", "subprocess", "aiohttp"))
_LOG: Final = ("severity_text", "severity_number", "time_unix_nano", "trace_id", "span_id")
_METRIC: Final = ("timestamp", "trace_id", "span_id", "name", "type", "value", "unit")
_STREAMED: Final = ("trace_id", "span_id", "parent_span_id", "status", "is_segment", "start_timestamp", "end_timestamp")
_ATTRIBUTES: Final = frozenset(
    (
        "sentry.op", "sentry.origin", "sentry.release", "sentry.environment", "sentry.dist", "sentry.platform",
        "sentry.kind", "sentry.sdk.name", "sentry.sdk.version", "sentry.sdk.integrations",
        "sentry.segment.name.source", "sentry.span.source", "sentry.segment.id", "logger.name", "code.function.name",
        "code.line.number", "http.request.method", "http.response.status_code",
    )
)  # fmt: skip
_TAGS: Final = frozenset(("runtime", "runtime.name", "runtime.version", "environment", "level", "mechanism", "handled"))
_SHIELD: Final = (
    "request_id", "trace_id", "method", "route", "status", "tenant", "subject", "decision", "problem", "layer", "auth",
    "over_budget",
)  # fmt: skip
_SHIELD_TAGS: Final = ("request_id", "route", "tenant", "decision", "problem", "layer", "over_budget")


class Projection:
    """Rebuilds each kind of item. `current()` gives the request's own facts (ids as pseudonyms) or None.

    `tags` and `contexts` are names of the application's own that may go along; their values are scanned.
    """

    def __init__(
        self,
        redactor: Redactor,
        current: Callable[[], Mapping[str, Any] | None],
        tags: Iterable[str] = (),
        contexts: Iterable[str] = (),
    ) -> None:
        self._redactor = redactor
        self._strict = redactor.mode == "strict"
        self._current = current
        self._tags = _TAGS | frozenset(tags)
        self._contexts = frozenset(contexts)

    def event(self, event: Mapping[str, Any]) -> Record:
        """An error, message, check-in or transaction."""
        out = _only(event, _EVENT)
        out["sdk"] = _only(_mapping(event.get("sdk")), _SDK)
        if event.get("type") == "check_in":
            return out
        facts = self._facts()
        out["contexts"] = self._contexts_of(event, facts)
        out["tags"] = self._tags_of(event, facts)
        self._name(event, out, facts)
        method = _mapping(event.get("request")).get("method")
        if isinstance(method, str) and method.isalpha() and len(method) <= 10:
            out["request"] = {"method": method}
        if "subject" in facts:
            out["user"] = {"id": facts["subject"]}
        self._texts(event, out)
        self._parts(event, out)
        return out

    def breadcrumb(self, crumb: Mapping[str, Any]) -> Record:
        """Category, level, type, time; the message where it is no statement or address."""
        out = _only(crumb, _CRUMB)
        if crumb.get("message") is not None and crumb.get("category") not in _CRUMBS_WITHOUT_TEXT and not self._strict:
            out["message"] = self._text(crumb["message"])
        out["category"] = self._text(crumb["category"]) if crumb.get("category") is not None else "default"
        return out

    def log(self, log: Mapping[str, Any]) -> Record:
        """A structured log: body, severity, time, ids, the SDK's own attributes."""
        attributes = self._attributes(log)
        facts = self._facts()
        attributes.update({f"portalshield.{name}": facts[name] for name in _SHIELD_TAGS if name in facts})
        return {**_only(log, _LOG), "body": self._text(log.get("body", "")), "attributes": attributes}

    def metric(self, metric: Mapping[str, Any]) -> Record:
        """A metric: name, value, unit; no attributes of the application."""
        return {**_only(metric, _METRIC), "attributes": self._attributes(metric)}

    def span(self, span: Mapping[str, Any]) -> Record:
        """A streamed span: a name only if it is a template, no statement, no address."""
        attributes = self._attributes(span)
        source = attributes.get("sentry.segment.name.source") or attributes.get("sentry.span.source")
        named = source in _TEMPLATE_SOURCES and "?" not in str(span.get("name")) and "://" not in str(span.get("name"))
        name = self._redactor.text(str(span.get("name"))) if named and not self._strict else None
        return {
            **_only(span, _STREAMED),
            "name": name or self._route() or str(attributes.get("sentry.op") or UNMATCHED),
            "attributes": attributes,
        }

    def request_id(self) -> str | None:
        """The id of the running request."""
        found = self._facts().get("request_id")
        return found if isinstance(found, str) else None

    # -- parts

    def _facts(self) -> Record:
        try:
            facts = self._current()
        except Exception:
            self._redactor.failed()
            return {}
        return {name: facts[name] for name in _SHIELD if facts.get(name) is not None} if facts else {}

    def _route(self) -> str | None:
        return self._facts().get("route")

    def _text(self, text: Any) -> str:
        return REDACTED if self._strict else self._redactor.text(str(text))

    def _attributes(self, item: Mapping[str, Any]) -> Record:
        held = _mapping(item.get("attributes"))
        return {name: _scalar(value, self._redactor) for name, value in held.items() if name in _ATTRIBUTES}

    def _contexts_of(self, event: Mapping[str, Any], facts: Record) -> Record:
        held = _mapping(event.get("contexts"))
        trace = _mapping(held.get("trace"))
        out: Record = {"runtime": _only(_mapping(held.get("runtime")), _RUNTIME)}
        if trace:
            out["trace"] = _only(trace, _TRACE)
            if "dynamic_sampling_context" in trace:
                out["trace"]["dynamic_sampling_context"] = _only(_mapping(trace["dynamic_sampling_context"]), _SAMPLING)
        out.update({name: self._redactor.value(held[name]) for name in self._contexts if name in held})
        if facts:
            out["portalshield"] = dict(facts)
        return out

    def _tags_of(self, event: Mapping[str, Any], facts: Record) -> Record:
        held = event.get("tags")
        pairs = held.items() if isinstance(held, Mapping) else [pair for pair in held or () if len(pair) == 2]
        out = {name: self._redactor.text(str(value)) for name, value in pairs if name in self._tags}
        return {**out, **{name: str(facts[name]) for name in _SHIELD_TAGS if name in facts}}

    def _name(self, event: Mapping[str, Any], out: Record, facts: Record) -> None:
        """The transaction's name is a URL where no route was found; then ours, or none."""
        name, source = event.get("transaction"), _mapping(event.get("transaction_info")).get("source")
        if "transaction_info" in out:
            out["transaction_info"] = {"source": source if source in _TEMPLATE_SOURCES else "custom"}
        if facts.get("route") is not None:
            out["transaction"] = UNMATCHED if facts["route"] == "(unmatched)" else facts["route"]
        elif name is not None:
            known = source in _TEMPLATE_SOURCES and "?" not in name and "://" not in name
            out["transaction"] = self._redactor.text(str(name)) if known else UNMATCHED

    def _texts(self, event: Mapping[str, Any], out: Record) -> None:
        if event.get("logger") is not None:
            out["logger"] = self._redactor.text(str(event["logger"]))
        entry = _mapping(event.get("logentry"))
        if event.get("message") is not None:
            out["message"] = self._text(event["message"])
        if entry:
            out["logentry"] = {
                name: self._text(entry[name]) for name in ("message", "formatted") if entry.get(name) is not None
            }
        fingerprint = event.get("fingerprint")
        own = isinstance(fingerprint, list) and fingerprint[:1] == [self._route()]
        if fingerprint and (own or not self._strict):
            out["fingerprint"] = [self._redactor.text(str(part)) for part in fingerprint]

    def _parts(self, event: Mapping[str, Any], out: Record) -> None:
        for name, build in (
            ("exception", self._exception),
            ("threads", self._thread),
            ("breadcrumbs", self.breadcrumb),
        ):
            values = _values(event.get(name))
            if values:
                out[name] = {"values": [build(value) for value in values]}
        if isinstance(event.get("spans"), list):
            out["spans"] = [_only(_mapping(span), _SPAN) for span in event["spans"]]
        if event.get("stacktrace"):
            out["stacktrace"] = _stacktrace(event["stacktrace"])

    def _exception(self, value: Mapping[str, Any]) -> Record:
        out = _only(value, ("type", "module", "thread_id"))
        out["value"] = self._text(value.get("value") or "")
        if value.get("mechanism"):
            out["mechanism"] = _only(_mapping(value["mechanism"]), _MECHANISM)
        if value.get("stacktrace"):
            out["stacktrace"] = _stacktrace(value["stacktrace"])
        return out

    def _thread(self, value: Mapping[str, Any]) -> Record:
        out = _only(value, ("id", "crashed", "current"))
        if value.get("stacktrace"):
            out["stacktrace"] = _stacktrace(value["stacktrace"])
        return out


def _only(record: Mapping[str, Any], names: Iterable[str]) -> Record:
    return {name: record[name] for name in names if record.get(name) is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _values(value: Any) -> list[Mapping[str, Any]]:
    held = value.get("values") if isinstance(value, Mapping) else value
    held = getattr(held, "value", held)  # Sentry's AnnotatedValue around a list that was cut
    return [item for item in held if isinstance(item, Mapping)] if isinstance(held, list | tuple) else []


def _stacktrace(value: Any) -> Record:
    frames = _mapping(value).get("frames")
    return {"frames": [_only(_mapping(frame), _FRAME) for frame in frames or ()]}


def _scalar(value: Any, redactor: Redactor) -> Any:
    """An attribute as it came, or Sentry's wire form `{"value": ..., "type": ...}`, its text scanned."""
    if isinstance(value, Mapping) and "value" in value:
        return {**value, "value": _scalar(value["value"], redactor)}
    return (
        redactor.text(value) if isinstance(value, str) else value if isinstance(value, int | float) else str(value)[:64]
    )
