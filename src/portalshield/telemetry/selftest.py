"""Does redaction work here? A planted secret goes through every channel that is installed; what comes out is looked at.

For `portalshield check`: nothing is sent or printed. Where redaction is not installed yet (the application has served
no request), it is installed for the test and taken out again.
"""

from __future__ import annotations

import gc
import io
import logging
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import sentry_sdk
import structlog

from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs, sentry
from portalshield.telemetry.config import LogConfig, SentryConfig
from portalshield.telemetry.writer import LineWriter

FOREIGN: Final = (
    "uvicorn.error", "gunicorn.error", "hypercorn.error", "sqlalchemy.engine.Engine", "httpx", "urllib3.connectionpool",
    "boto3", "botocore.endpoint", "asyncio", "py.warnings", "werkzeug",
)  # fmt: skip
"""Loggers of other libraries that are tried, each with a handler of its own and without propagation."""


Severity = Literal["low", "medium", "high", "critical"]

_TEXTS: Final[dict[str, tuple[str, Severity, str, str]]] = {
    "survived": ("PS-LOG-102", "critical", "A planted secret came out of this channel.", "Find what formats it."),
    "structlog-not-redacted": (
        "PS-LOG-103",
        "high",
        "structlog's processors are no list that the redactor could join.",
        "Configure them as a list, or put portalshield.telemetry.logs.RedactEvent before the renderer.",
    ),
    "structlog-locals-switched-off": (
        "PS-LOG-104",
        "low",
        "structlog's tracebacks showed local variables; the shield switches that off.",
        "Use ExceptionDictTransformer(show_locals=False).",
    ),
    "engine-shows-parameters": (
        "PS-LOG-105",
        "medium",
        "A SQLAlchemy engine logs statements with their parameters.",
        "create_engine(..., hide_parameters=True)",
    ),
    "data-collection-set": (
        "PS-SENTRY-101",
        "medium",
        "data_collection is set, which turns Sentry's own scrubber off; the shield's redaction depends on neither.",
        "Leave data_collection out.",
    ),
    "sentry-reads-bodies": (
        "PS-SENTRY-102",
        "medium",
        "Sentry reads bodies before the handler does: an endpoint that reads `receive` itself hangs.",
        'sentry_sdk.init(..., max_request_body_size="never")',
    ),
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong: a slug (`survived`, `data-collection-set`, ...) and where: a channel, a logger, an engine."""

    slug: str
    where: str

    @property
    def id(self) -> str:
        """Stable, as `check` prints it."""
        return _TEXTS[self.slug][0]

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return _TEXTS[self.slug][1]

    @property
    def message(self) -> str:
        """What is wrong."""
        return _TEXTS[self.slug][2]

    @property
    def hint(self) -> str:
        """What to do."""
        return _TEXTS[self.slug][3]


def selftest(log: LogConfig | None = None, sentry_config: SentryConfig | None = None) -> list[Flaw]:
    """Every channel from which a planted secret came out, and settings of others that open one. Never raises."""
    given = log or LogConfig()
    redactor = Redactor(given.redact_fields, given.redact_allow_fields, given.redact_mode)
    flaws: list[Flaw] = []
    with _redaction(redactor, flaws):
        for name in ("portalshield.selftest", *FOREIGN):
            flaws += _tried(f"logging {name}", partial(_through_logger, name))
        flaws += _tried("logging tracebacks", _through_traceback)
        flaws += _tried("structlog", _through_structlog)
        if (sentry_config or SentryConfig()).enabled:
            for name, hook, item in _sentry_hooks(redactor, flaws):
                flaws += _tried(f"Sentry {name}", partial(_through_hook, hook, item))
        else:
            flaws += _of_sentry_left_alone()
    return [*flaws, *_echoing_engines()]


def _tried(channel: str, send: Callable[[str], str]) -> list[Flaw]:
    canary = "Zq7" + secrets.token_hex(8)
    try:
        out = send(canary)
    except Exception:  # a channel that fails shows nothing; that it fails is its owner's to know
        return []
    return [Flaw("survived", channel)] if canary in out else []


@contextmanager
def _redaction(redactor: Redactor, flaws: list[Flaw]) -> Iterator[None]:
    if logs.is_installed():
        yield
        return
    flaws += [Flaw(slug, "structlog") for slug in logs.install(LineWriter(synchronous=True), redactor)]
    try:
        yield
    finally:
        logs.uninstall()


# -- logging


def _through_logger(name: str, canary: str) -> str:
    def send(logger: logging.Logger) -> None:
        extra = {"api_key": canary, "payload": {"password": canary}}
        logger.error("password=%s", canary, extra=extra)
        logger.error(f"mail {canary}@example.com")

    return _captured(name, send)


def _through_traceback(canary: str) -> str:
    def send(logger: logging.Logger) -> None:
        try:
            raise ValueError(f"token={canary}")
        except ValueError:
            logger.exception("failed")

    return _captured("portalshield.selftest", send)


def _captured(name: str, send: Callable[[logging.Logger], None]) -> str:
    """What a handler of this logger prints: text and every attribute of the record. The logger is as before then."""
    logger = logging.getLogger(name)
    before = logger.handlers[:], logger.propagate, logger.disabled, logger.level
    stream, seen = io.StringIO(), _Keeper()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler, seen]
    logger.propagate, logger.disabled, logger.level = False, False, logging.DEBUG
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        send(logger)
    finally:
        logger.handlers[:], logger.propagate, logger.disabled, logger.level = before
        logger.manager._clear_cache()  # type: ignore[attr-defined]
    return stream.getvalue() + "".join(seen.texts)


class _Keeper(logging.Handler):
    """Keeps what a handler that reads attributes would see, except the exception object itself."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.texts.append(repr({name: value for name, value in vars(record).items() if name != "exc_info"}))


def _through_structlog(canary: str) -> str:
    """The configured processors, one after another; the last one's output is not handed to a logger."""
    event: Any = {"event": f"mail {canary}@example.com", "password": canary}
    try:
        raise ValueError(f"token={canary}")
    except ValueError:
        event["exc_info"] = sys.exc_info()
    for step in structlog.get_config()["processors"]:
        event = step(logging.getLogger("portalshield.selftest"), "error", event)
    return repr(event)


# -- Sentry


def _sentry_hooks(redactor: Redactor, flaws: list[Flaw]) -> Iterator[tuple[str, Any, Callable[[str], Any]]]:
    """The hooks of the client that there is, or of one that would be started; and an item for each."""
    client = sentry_sdk.get_client()
    if client.is_active():
        link = sentry.install(redactor)
        options = client.options
        flaws += [Flaw(slug, "Sentry") for slug in (link.findings if link is not None else ())]
    else:
        options = sentry.hooked(redactor)
    for name, item in (
        ("errors", _event),
        ("transactions", lambda canary: {**_event(canary), "type": "transaction"}),
        ("breadcrumbs", lambda canary: {"category": "http", "message": f"mail {canary}@e.io", "data": {"url": canary}}),
        ("logs", lambda canary: {"body": f"password={canary}", "attributes": {"x": canary}}),
        ("spans", lambda canary: {"name": f"SELECT '{canary}'", "attributes": {"db": canary}}),
    ):
        yield name, options[_HOOKS[name]], item


def _through_hook(hook: Any, item: Callable[[str], Any], canary: str) -> str:
    return repr(hook(item(canary), {}))


_HOOKS: Final = {
    "errors": "before_send",
    "transactions": "before_send_transaction",
    "breadcrumbs": "before_breadcrumb",
    "logs": "before_send_log",
    "spans": "before_send_span",
}


def _event(canary: str) -> dict[str, Any]:
    frame = {"filename": "x.py", "function": "f", "lineno": 1, "vars": {"password": canary}}
    return {
        "level": "error",
        "transaction": f"https://x.example/{canary}",
        "request": {"url": canary, "data": canary, "headers": {"authorization": canary}},
        "extra": {"note": canary},
        "exception": {"values": [{"type": "E", "value": f"{canary}@example.com", "stacktrace": {"frames": [frame]}}]},
    }


def _of_sentry_left_alone() -> list[Flaw]:
    """With `SENTRY=false` a client reads bodies before the handler does: an endpoint that reads `receive` hangs."""
    client = sentry_sdk.get_client()
    if client.is_active() and client.options.get("max_request_body_size") != "never":
        return [Flaw("sentry-reads-bodies", "Sentry")]
    return []


# -- databases


def _echoing_engines() -> list[Flaw]:
    """SQLAlchemy engines that log statements with their parameters."""
    module = sys.modules.get("sqlalchemy.engine")
    kind = getattr(module, "Engine", None)
    if not isinstance(kind, type):
        return []
    engines: list[Any] = [found for found in gc.get_objects() if type(found) is kind]
    return [
        Flaw("engine-shows-parameters", str(engine.url.render_as_string(hide_password=True)).partition("://")[0])
        for engine in engines
        if engine.echo and not engine.hide_parameters
    ]
