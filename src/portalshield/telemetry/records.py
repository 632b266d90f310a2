"""Records of the standard library's logging, redacted in place, whoever made them.

Arguments keep their number and kind, because formatters unpack them. What libraries are known to print (raw paths,
addresses with queries, bound parameters) is cut by the form of their own records.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from portalshield.rules.carriers import REDACTED
from portalshield.rules.redaction import Redactor
from portalshield.telemetry.tracebacks import format_exception, redacted_traceback

MAX_EVENT_TEXT: Final = 8192
"""Characters of all texts of one event that are looked at; the line is shorter anyway."""

ACCESS_LOGGERS: Final = ("uvicorn.access", "hypercorn.access", "gunicorn.access")
"""Loggers whose lines the request line replaces: they print the raw path, query and address."""
_WERKZEUG_ACCESS: Final = '"%s" %s %s'
"""How Flask's development server ends its access lines; its other lines stay."""
_FLASK_CRASH: Final = re.compile(r"Exception on (\S{1,8192}+) \[[A-Z]{1,20}\]")
"""How Flask logs an exception, the raw path in the message itself."""
URL_LOGGERS: Final = frozenset(("httpx", "urllib3.connectionpool", "requests", "aiohttp.access", "botocore.endpoint"))
"""Clients that log the address of each call: what stands behind `?` or `#` is cut off."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BREAKS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redact_record(record: logging.LogRecord, redactor: Redactor) -> None:
    """Redact one record in place: message, arguments, `extra` fields, cached traceback, stack.

    Arguments keep their number and kind while the finished message is clean (uvicorn's access formatter unpacks five).
    When it is not (`"password=%s"`), the redacted message replaces template and arguments. In strict mode texts among
    arguments and fields go, the template stays.
    """
    if record.funcName == "log_exception" and type(record.msg) is str:
        crash = _FLASK_CRASH.fullmatch(record.msg)
        record.msg = record.msg if crash is None else record.msg.replace(crash[1], "[PATH]", 1)
    record.args = _arguments(_without_values(record), redactor)
    _finish(record, redactor)
    for name, value in list(vars(record).items()):
        if name not in _STANDARD:
            vars(record)[name] = REDACTED if _hides(name, value, redactor) else _field(name, value, redactor)
    if record.exc_text:
        record.exc_text = redacted_traceback(record.exc_text, redactor)
    if redactor.mode == "strict" and record.exc_info and isinstance(record.exc_info[1], BaseException):
        record.exc_text = format_exception(record.exc_info[1], redactor)
    if record.stack_info:
        record.stack_info = redacted_traceback(record.stack_info, redactor)


def _hides(name: str, value: Any, redactor: Redactor) -> bool:
    return value is not None and not isinstance(value, bool) and redactor.is_sensitive(name)


def _field(name: str, value: Any, redactor: Redactor) -> Any:
    texts = redactor.mode != "strict" or redactor.stays(name)
    return redactor.value(value, MAX_EVENT_TEXT, texts=texts)


def _without_values(record: logging.LogRecord) -> Any:
    """The arguments without the query of a client's call, and without the values of a statement."""
    args = record.args
    if not isinstance(args, tuple) or not args:
        return args
    if record.name in URL_LOGGERS:
        return tuple(_without_query(value) for value in args)
    if record.name.startswith("sqlalchemy.engine") and "%r" in str(record.msg):  # bound parameters, rows
        return tuple(value if isinstance(value, str | int | float) else REDACTED for value in args)
    return args


def _without_query(value: Any) -> Any:
    if isinstance(value, int | float) or value is None:
        return value
    text = str(value)
    for mark in ("?", "#"):
        head, found, _ = text.partition(mark)
        if found:
            return f"{head}{mark}[QUERY]"
    return value


def _arguments(args: Any, redactor: Redactor) -> Any:
    texts = redactor.mode != "strict"
    if isinstance(args, Mapping):
        return redactor.value(dict(args), MAX_EVENT_TEXT, texts=texts)
    if isinstance(args, tuple) and not texts:
        return tuple(redactor.value(value, MAX_EVENT_TEXT, texts=False) for value in args)
    if isinstance(args, tuple):
        return tuple(_one_line(redactor.text(value)) if type(value) is str else value for value in args)
    return args


def _finish(record: logging.LogRecord, redactor: Redactor) -> None:
    try:
        message = record.getMessage()
    except Exception:  # the arguments do not fit: logging would print them raw to stderr
        record.msg, record.args = redactor.text(f"{record.msg} {record.args}"), ()
        return
    clean = _CONTROLS.sub(_escaped, redactor.text(message)) if message else message
    if clean == message or record.name in ACCESS_LOGGERS:
        if type(record.msg) is not str and not record.args:
            record.msg = clean
        return
    record.msg, record.args = clean, ()


def _one_line(text: str) -> str:
    """Line breaks and terminal controls escaped: a value cannot forge a second line."""
    return text if text.isprintable() else _BREAKS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}" if ord(match[0]) > 0x7F else f"\\x{ord(match[0]):02x}"


def is_access(record: logging.LogRecord) -> bool:
    """True for an access line of a server, which the request line replaces."""
    if record.name in ACCESS_LOGGERS:
        return True
    return record.name == "werkzeug" and type(record.msg) is str and _WERKZEUG_ACCESS in record.msg
