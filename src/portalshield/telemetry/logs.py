"""One call that puts the redactor into every logging channel of the process: structlog and the standard library.

Other libraries' records are redacted in `Logger.handle`, the one place that sees every record with its `extra` fields,
before any filter, handler or other wrapper: a record factory runs before `extra` is set, filters on handlers are lost
when a server runs `dictConfig` again (uvicorn does), and loggers that do not propagate never reach the root.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Literal

import structlog

from portalshield.rules.carriers import REDACTED
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import clock
from portalshield.telemetry.encoding import encode
from portalshield.telemetry.lines import printable
from portalshield.telemetry.records import ACCESS_LOGGERS, MAX_EVENT_TEXT, is_access, redact_record
from portalshield.telemetry.tracebacks import chained_text, format_exception, redacted_traceback
from portalshield.telemetry.tripwire import tripped
from portalshield.telemetry.writer import LineWriter

EventDict = MutableMapping[str, Any]

_Handle = Callable[[logging.Logger, logging.LogRecord], None]


# -- structlog --------------------------------------------------------------------------------------------------------


class RedactEvent:
    """A structlog processor: every value of the event through the redactor, names included.

    Exceptions become redacted text here, without locals. `trusted` names are left alone: the library's own ids.
    """

    def __init__(
        self, redactor: Redactor, trusted: Iterable[str] = ("timestamp", "level", "request_id", "trace_id")
    ) -> None:
        self._redactor = redactor
        self._trusted = frozenset(trusted)

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """The redacted event; a dict of its own, the caller's values are not touched."""
        try:
            return self._redact(event)
        except Exception:
            self._redactor.failed()
            return {"event": REDACTED, "level": method}

    def _redact(self, event: EventDict) -> EventDict:
        error = _exception_of(event.get("exc_info"))
        kept = {name: value for name, value in event.items() if name in self._trusted and _is_short_text(value)}
        rest = {name: value for name, value in event.items() if name not in kept and name != "exc_info"}
        strict = self._redactor.mode == "strict"
        out: dict[str, Any] = {**kept, **self._redactor.value(rest, MAX_EVENT_TEXT, texts=not strict)}
        if strict and isinstance(event.get("event"), str):
            out["event"] = self._redactor.text(event["event"])  # the program's own words; its values are fields
        if error is not None:
            out["exception"] = format_exception(error, self._redactor)
        return out


def _is_short_text(value: Any) -> bool:
    return type(value) is str and len(value) <= 64 and value.isascii() and value.isprintable() and "@" not in value


def _exception_of(info: Any) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple) and len(info) == 3:
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


def _stamped(logger: Any, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = clock.stamp(clock.now())
    return event


class _Lines:
    """structlog's logger: hands rendered lines to the writer, and counts one that should not look as it does."""

    __slots__ = ("_redactor", "_writer")

    def __init__(self, writer: LineWriter, redactor: Redactor) -> None:
        self._writer = writer
        self._redactor = redactor

    def msg(self, line: bytes) -> None:
        found = tripped(line)
        if found is not None:
            self._redactor.tripped(found)
        self._writer.emit(line)

    log = debug = info = warning = warn = error = critical = fatal = exception = failure = err = msg


def _render_json(logger: Any, method: str, event: EventDict) -> bytes:
    return encode({**_first(event), **event})


def _render_console(logger: Any, method: str, event: EventDict) -> bytes:
    error = event.pop("exception", None)
    rest = " ".join(f"{name}={value!r}" for name, value in event.items() if name not in ("timestamp", "level", "event"))
    text = f"{str(event.get('timestamp', ''))[11:23]} {event.get('level', ''):<7} {event.get('event', '')} {rest}"
    lines = [printable(text.rstrip()), *(printable(line) for line in str(error or "").splitlines())]
    return "\n".join(lines).encode("utf-8", "replace") + b"\n"


def _first(event: EventDict) -> dict[str, Any]:
    return {name: event[name] for name in ("timestamp", "level", "event") if name in event}


# -- standard library -------------------------------------------------------------------------------------------------


class _Installed:
    """What this module put in place, so that it can be taken out again."""

    __slots__ = ("format_exception", "handle", "redactor", "replace_access", "structlog_before")

    def __init__(self, redactor: Redactor, replace_access: bool) -> None:
        self.redactor = redactor
        self.replace_access = replace_access
        self.handle: _Handle = logging.Logger.handle
        self.format_exception: Any = logging.Formatter.formatException
        self.structlog_before: dict[str, Any] | None = None


_installed: _Installed | None = None


def install(
    writer: LineWriter,
    redactor: Redactor,
    *,
    level: str = "info",
    format: Literal["json", "console"] = "json",
    replace_access: bool = True,
) -> tuple[str, ...]:
    """Redact every log record of the process and send structlog's lines to `writer`. Returns findings, by slug.

    A structlog configuration of the application stays: the redactor is put before its renderer. Calling it again
    replaces redactor and writer. `replace_access`: the servers' access lines are dropped, the request line says more.
    """
    global _installed
    uninstall()
    state = _Installed(redactor, replace_access)
    logging.Logger.handle = _patched_handle(state)  # type: ignore[method-assign, assignment]
    logging.Formatter.formatException = _patched_format(state)  # type: ignore[method-assign]
    if replace_access:
        quiet_access_loggers()
    _installed = state
    if structlog.is_configured():
        return _join_structlog(state)
    state.structlog_before = {}
    _configure_structlog(writer, redactor, level, format)
    return ()


def is_installed() -> bool:
    """True between `install` and `uninstall`."""
    return _installed is not None


def uninstall() -> None:
    """Take out what `install` put in; another library's wrapper around it stays."""
    global _installed
    state, _installed = _installed, None
    if state is None:
        return
    if getattr(logging.Logger.handle, "_portalshield", False):
        logging.Logger.handle = state.handle  # type: ignore[method-assign, assignment]
    if getattr(logging.Formatter.formatException, "_portalshield", False):
        logging.Formatter.formatException = state.format_exception  # type: ignore[method-assign]
    if state.structlog_before == {}:
        structlog.reset_defaults()
    elif state.structlog_before is not None:
        processors = structlog.get_config()["processors"]
        processors[:] = [step for step in processors if not isinstance(step, RedactEvent)]


def quiet_access_loggers() -> None:
    """Take the handlers of access loggers away: uvicorn asks for them per connection and then formats nothing at all.

    To be called again at the first request, because a server may configure logging after the application is imported.
    """
    for name in ACCESS_LOGGERS:
        access = logging.getLogger(name)
        access.handlers[:] = []
        access.propagate = False


def _patched_handle(state: _Installed) -> _Handle:
    original = state.handle

    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        if state.replace_access and is_access(record):
            return
        try:
            redact_record(record, state.redactor)
        except Exception:
            state.redactor.failed()
            record.msg, record.args, record.exc_info = "[REDACTION_ERROR]", (), None
        original(self, record)

    handle._portalshield = True  # type: ignore[attr-defined]
    return handle


def _patched_format(state: _Installed) -> Any:
    original = state.format_exception

    def format_exception_text(self: logging.Formatter, info: Any) -> str:
        error = info[1]
        hides = isinstance(error, BaseException) and error.__suppress_context__ and error.__cause__ is None
        text = chained_text(error) if hides else original(self, info)
        return redacted_traceback(text, state.redactor)

    format_exception_text._portalshield = True  # type: ignore[attr-defined]
    return format_exception_text


def _configure_structlog(writer: LineWriter, redactor: Redactor, level: str, format: str) -> None:
    lines = _Lines(writer, redactor)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _stamped,
            RedactEvent(redactor),
            _render_console if format == "console" else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: lines,
        cache_logger_on_first_use=False,
    )


def _join_structlog(state: _Installed) -> tuple[str, ...]:
    """Put the redactor before the renderer of a configuration that is not ours, and switch locals off."""
    processors = structlog.get_config()["processors"]
    if not isinstance(processors, list) or not processors:
        return ("structlog-not-redacted",)
    state.structlog_before = {"joined": True}
    processors[:] = [step for step in processors if not isinstance(step, RedactEvent)]
    # In place: loggers that are bound already hold this very list.
    processors.insert(len(processors) - 1, RedactEvent(state.redactor))
    return ("structlog-locals-switched-off",) if _without_locals(processors) else ()


def _without_locals(processors: list[Any]) -> bool:
    """Frame locals out of structured tracebacks (structlog's `dict_tracebacks` shows them by default)."""
    found = False
    for step in processors:
        transformer: Any = getattr(step, "format_exception", None)
        if getattr(transformer, "show_locals", False):
            transformer.show_locals = False
            found = True
    return found
