"""Sentry with redaction: an existing client is adopted, otherwise one is initialised when there is a DSN.

Our hooks run last, after the application's own, and are total: a failure drops the item or blanks it, the original
never leaves. Facts of the request are attached when an item is captured, from a callable, so nothing is done (no
isolation scope, no tag) on requests that succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import sentry_sdk

from portalshield.rules.redaction import Redactor
from portalshield.telemetry import clock
from portalshield.telemetry.projection import UNMATCHED, Projection

Hook = Callable[[Any, Any], Any]
Facts = Callable[[], Mapping[str, Any] | None]

EVENTS_PER_MINUTE: Final = 60
"""Error events of one kind (exception type, place, route) that leave per minute; the rest is counted."""
_KINDS: Final = 512
_NOTHING: Final[Facts] = lambda: None  # noqa: E731

HARD_OPTIONS: Final[Mapping[str, Any]] = {
    # "never" also keeps the SDK from reading the body before the handler does (an endpoint that reads `receive` hangs).
    "max_request_body_size": "never",
    "include_local_variables": False,
    "include_source_context": False,
}
"""Options that are set on every client, adopted or not: nothing they would collect may leave anyway."""


class SentryLink:
    """What `install` did. `adopted`: the client was the application's; `capped`: events held back by the cap."""

    def __init__(
        self, client: Any, adopted: bool, cap: _Cap, findings: tuple[str, ...], captured: dict[str, None]
    ) -> None:
        self.client = client
        self.adopted = adopted
        self.findings = findings
        """Slugs of what an operator should know: `data-collection-set` (Sentry's own scrubber is off then)."""
        self._cap = cap
        self._captured = captured

    @property
    def capped(self) -> int:
        """Events that were held back because too many of their kind came within a minute."""
        return self._cap.held_back

    def failed(self, request_id: str, route: str, status: int) -> None:
        """A request ended with 5xx: reported once, grouped by route and status, unless an exception of it was captured.

        Handlers that answer 500 by themselves, `abort(500)` and error handlers hide what they handle from Sentry. To
        be called while the request is current, so that its facts go along. Never raises.
        """
        if self._captured.pop(request_id, self) is None:
            return
        with sentry_sdk.new_scope() as scope:
            scope.fingerprint = [route, str(status)]
            sentry_sdk.capture_message(f"{status} without an exception", level="error", scope=scope)


def install(
    redactor: Redactor,
    *,
    current: Facts = _NOTHING,
    dsn: str | None = None,
    traces_sample_rate: float = 0.0,
    release: str | None = None,
    environment: str | None = None,
    tags: Iterable[str] = (),
    contexts: Iterable[str] = (),
    events_per_minute: int = EVENTS_PER_MINUTE,
    capped: Callable[[], None] = lambda: None,
    **options: Any,
) -> SentryLink | None:
    """Adopt the active client, or initialise one if `dsn` is given; None when there is neither.

    `current` returns the facts of the running request, ids as pseudonyms; `tags` and `contexts` name what of the
    application's own may go along; `capped` is called for each event that the cap holds back. `options` go to
    `sentry_sdk.init` as they are. Calling it again is harmless, and adopts a client that the application initialised
    in between.
    """
    client = sentry_sdk.get_client()
    adopted = client.is_active()
    if not adopted:
        if not dsn:
            return None
        sentry_sdk.init(
            dsn=dsn,
            traces_sample_rate=traces_sample_rate,
            release=release,
            environment=environment,
            **{**options, **HARD_OPTIONS},
        )
        client = sentry_sdk.get_client()
    cap = _Cap(events_per_minute, capped)
    seen: dict[str, None] = {}
    _attach(client.options, Projection(redactor, current, tags, contexts), redactor, cap, seen)
    return SentryLink(client, adopted, cap, _findings(client.options), seen)


def hooked(redactor: Redactor) -> dict[str, Any]:
    """Options as a client started here would have them, without a client: for the self-test."""
    options: dict[str, Any] = {}
    cap = _Cap(EVENTS_PER_MINUTE, lambda: None)
    _attach(options, Projection(redactor, _NOTHING), redactor, cap, {})
    return options


def _findings(options: Mapping[str, Any]) -> tuple[str, ...]:
    collection = options.get("data_collection")
    given = isinstance(collection, Mapping) and collection.get("provided_by_user")
    return ("data-collection-set",) if given else ()


def _attach(
    options: dict[str, Any], projection: Projection, redactor: Redactor, cap: _Cap, captured: dict[str, None]
) -> None:
    options.update(HARD_OPTIONS)
    experiments = options.get("_experiments") or {}

    def before(name: str) -> Hook | None:
        """The application's hook; ours from an earlier call is looked through, so that it is not stacked."""
        held = options.get(name) or experiments.get(name)
        return getattr(held, "_portalshield_user", held)

    def error(event: Any, hint: Any) -> Any:
        _note(projection, event, captured)
        return projection.event(event) if cap.admits(event, clock.monotonic()) else None

    def put(name: str, ours: Hook, blank: Callable[[Any], Any]) -> None:
        options[name] = _total(before(name), ours, blank, redactor)

    put("before_send", error, _dropped)
    put("before_send_transaction", lambda event, hint: projection.event(event), _dropped)
    put("before_breadcrumb", lambda crumb, hint: projection.breadcrumb(crumb), _dropped)
    put("before_send_log", lambda log, hint: projection.log(log), _dropped)
    put("before_send_metric", lambda metric, hint: projection.metric(metric), _dropped)
    put("before_send_span", lambda span, hint: projection.span(span), _blank_span)


def _note(projection: Projection, event: Mapping[str, Any], captured: dict[str, None]) -> None:
    """Remember that this request's exception was captured, also where the cap holds it back; bounded."""
    if not event.get("exception"):
        return
    request_id = projection.request_id()
    if request_id is not None:
        if len(captured) >= _KINDS:
            captured.clear()
        captured[request_id] = None


def _dropped(item: Any) -> None:
    return None


def _blank_span(span: Any) -> dict[str, Any]:
    # A span cannot be dropped here: Sentry keeps the original when a hook raises or returns nothing.
    return {"name": UNMATCHED, "attributes": {}}


def _total(user: Hook | None, ours: Hook, blank: Callable[[Any], Any], redactor: Redactor) -> Hook:
    """The application's hook, then ours; whatever fails, only `blank` of the item is left."""

    def hook(item: Any, hint: Any) -> Any:
        try:
            if isinstance(hint, dict) and hint.get("attachments"):
                hint["attachments"] = []
            kept = item if user is None else user(item, hint)
            return blank(item) if kept is None else ours(kept, hint)
        except Exception:
            redactor.failed()
            return blank(item)

    hook._portalshield_user = user  # type: ignore[attr-defined]
    return hook


class _Cap:
    """At most so many events of one kind per minute; kinds beyond the bound share one counter."""

    def __init__(self, per_minute: int, capped: Callable[[], None]) -> None:
        self._per_minute = per_minute
        self._capped = capped
        self._ends = float("-inf")
        self._seen: dict[tuple[Any, ...], int] = {}
        self.held_back = 0

    def admits(self, event: Mapping[str, Any], now: float) -> bool:
        if event.get("type") == "check_in":
            return True
        if now >= self._ends:
            self._ends, self._seen = now + 60, {}
        kind = _kind(event)
        if kind not in self._seen and len(self._seen) >= _KINDS:
            kind = ()
        count = self._seen[kind] = self._seen.get(kind, 0) + 1
        if count <= self._per_minute:
            return True
        self.held_back += 1
        self._capped()
        return False


def _kind(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Exception type and the place it was raised at; for messages, the logger."""
    values = (event.get("exception") or {}).get("values") or ()
    if not values:
        return (event.get("logger"), event.get("level"), *map(str, event.get("fingerprint") or ()))
    last = values[-1]
    frames: Any = (last.get("stacktrace") or {}).get("frames") or ({},)
    return (last.get("type"), frames[-1].get("filename"), frames[-1].get("lineno"))
