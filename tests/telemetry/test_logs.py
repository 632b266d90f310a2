"""Logging: the redactor in structlog and in every logger of the standard library."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import logging.handlers
import queue
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import uvicorn

from portalshield.rules.detectors import Detector
from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs
from portalshield.telemetry.logs import RedactEvent, install, quiet_access_loggers, uninstall
from portalshield.telemetry.redactor import default, redact, set_default, slow_detectors
from portalshield.telemetry.tracebacks import format_exception

CANARY = "Zq7canary9x"


class Sink:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def emit(self, line: bytes, *, eventful: bool = True) -> None:
        """Keep the line."""
        self.lines.append(line)

    def events(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A fresh installation into a sink; everything is taken out again."""
    handle, formatted = logging.Logger.handle, logging.Formatter.formatException
    kept = Sink()
    install(kept, Redactor())  # type: ignore[arg-type]
    yield kept
    uninstall()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    assert logging.Logger.handle is handle
    assert logging.Formatter.formatException is formatted


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that does not propagate, as uvicorn's do."""
    made = logging.getLogger("tests.foreign")
    made.handlers[:] = []
    made.propagate = False
    made.setLevel(logging.DEBUG)
    yield made
    made.handlers[:] = []


def text_of(logger: logging.Logger, format: str = "%(levelname)s %(message)s") -> io.StringIO:
    """What a text handler on this logger prints."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(format))
    logger.addHandler(handler)
    return stream


# -- standard library


@pytest.mark.parametrize(
    ("template", "args"),
    [
        pytest.param("password=%s", (CANARY,), id="split over template and argument"),
        pytest.param("%s=%s", ("password", CANARY), id="all in arguments"),
        pytest.param("%(k)s: %(v)s", ({"k": "api_key", "v": CANARY},), id="mapping argument"),
        pytest.param("got %s", ({"password": CANARY},), id="dict as object"),
        pytest.param(f"token={CANARY}", (), id="in the template"),
        pytest.param("failed: %s", (ValueError(f"secret={CANARY}"),), id="exception as argument"),
        pytest.param("to %s", (f"{CANARY}@example.com",), id="e-mail"),
    ],
)
def test_foreign_record_is_redacted(sink: Sink, logger: logging.Logger, template: str, args: tuple[Any, ...]) -> None:
    """The finished message is what counts, whatever it was put together from."""
    stream = text_of(logger)
    logger.info(template, *args)
    assert stream.getvalue().startswith("INFO ")
    assert CANARY not in stream.getvalue()


def test_clean_arguments_keep_their_number_and_kind(sink: Sink, logger: logging.Logger) -> None:
    """A formatter that unpacks arguments finds them as they were."""
    seen: list[logging.LogRecord] = []
    logger.addHandler(logging.handlers.QueueHandler(queue.Queue()))
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    logger.info("%s %d %.1f", "x", 3, 1.5)
    assert seen[0].args == ("x", 3, 1.5)


def test_extra_fields_are_redacted_for_every_handler(sink: Sink, logger: logging.Logger) -> None:
    """A handler that only reads attributes never sees the value, nested or under a sensitive name."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    value = {"password": CANARY}
    logger.info("x", extra={"api_key": CANARY, "body": value, "count": 3, "mail": f"{CANARY}@example.com"})
    assert CANARY not in repr(vars(seen[0]))
    assert vars(seen[0])["count"] == 3
    assert value == {"password": CANARY}


def test_value_cannot_forge_a_line(sink: Sink, logger: logging.Logger) -> None:
    """CR, LF and ESC in an argument come out escaped; the program's own line breaks stay."""
    stream = text_of(logger)
    logger.info("user %s\nsecond", "x\r\nERROR forged\x1b[31m")
    assert stream.getvalue().splitlines() == ["INFO user x\\x0d\\x0aERROR forged\\x1b[31m", "second"]


def test_traceback_shows_no_message_value_and_no_locals(sink: Sink, logger: logging.Logger) -> None:
    """Exception text, cause, notes and group members pass the redactor in text tracebacks."""
    stream = text_of(logger)
    local = CANARY
    try:
        try:
            raise ValueError(f"password={local}")
        except ValueError as error:
            error.add_note(f"api_key: {local}")
            raise ExceptionGroup(f"token={local}", [KeyError(f"secret={local}")]) from error
    except ExceptionGroup:
        logger.exception("failed")
    assert "ValueError: password=[REDACTED]" in stream.getvalue()
    assert "ExceptionGroup" in stream.getvalue()
    assert CANARY not in stream.getvalue()


def _descend_with(descend: Any) -> Any:
    def step(level: int) -> None:
        descend(level)

    return step


def test_long_traceback_keeps_its_message() -> None:
    """Of a traceback over the limit the last line stays: it says what happened."""

    def descend(level: int) -> None:
        if level == 0:
            raise ValueError(f"password={CANARY}")
        # Alternating functions: equal frames in a row are folded by the traceback module.
        (descend if level % 2 else _descend_with(descend))(level - 1)

    try:
        descend(150)
    except ValueError as error:
        text = format_exception(error, Redactor())
    assert text.startswith("Traceback")
    assert "[TRUNCATED]" in text
    assert "ValueError: password=[REDACTED]" in text
    assert CANARY not in text


def test_survives_a_later_dict_config(sink: Sink) -> None:
    """A server that configures logging afterwards (new handlers, no propagation) is covered too."""
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"h": {"class": "logging.StreamHandler", "stream": stream}},
            "loggers": {"tests.later": {"handlers": ["h"], "level": "INFO", "propagate": False}},
        }
    )
    logging.getLogger("tests.later").info("password=%s", CANARY)
    assert stream.getvalue() == "password=[REDACTED]\n"


def test_uvicorn_access_is_replaced_and_the_rest_stays(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    """After `uvicorn.Config` ran its own configuration no access line comes out; error lines do, redacted."""
    uvicorn.Config("x:y")
    access = logging.getLogger("uvicorn.access")
    access.info('%s - "%s %s HTTP/%s" %d', "203.0.113.9:1", "GET", f"/x?token={CANARY}", "1.1", 200)
    logging.getLogger("uvicorn.error").info("password=%s", CANARY)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "password=[REDACTED]" in captured.err
    quiet_access_loggers()
    assert not access.hasHandlers()


def test_access_lines_that_are_kept_are_redacted_and_well_formed(capsys: pytest.CaptureFixture[str]) -> None:
    """With `replace_access=False` uvicorn's formatter still finds its five arguments."""
    install(Sink(), Redactor(), replace_access=False)  # type: ignore[arg-type]
    try:
        uvicorn.Config("x:y")
        logging.getLogger("uvicorn.access").info(
            '%s - "%s %s HTTP/%s" %d', "203.0.113.9:1", "GET", f"/x?token={CANARY}", "1.1", 200
        )
    finally:
        uninstall()
        quiet_access_loggers()
    captured = capsys.readouterr()
    assert "/x?token=[REDACTED]" in captured.out
    assert CANARY not in captured.out + captured.err
    assert "Logging error" not in captured.err


def test_wrong_template_still_gives_a_redacted_line(sink: Sink, logger: logging.Logger) -> None:
    """Arguments that do not fit their template are printed beside it, redacted, instead of raw to stderr."""
    stream = text_of(logger)
    logger.info("a %s %s", f"password={CANARY}")
    assert stream.getvalue() == "INFO a %s %s ('password=[REDACTED]',)\n"


def test_failing_redactor_leaves_a_mark(sink: Sink, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """When redaction itself breaks, the record says so and nothing else."""

    def broken(*args: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(logs, "redact_record", broken)
    stream = text_of(logger)
    logger.info("password=%s", CANARY)
    assert stream.getvalue() == "INFO [REDACTION_ERROR]\n"


def test_installing_twice_redacts_once(sink: Sink, logger: logging.Logger) -> None:
    """A second call replaces the first; one uninstall restores everything (see the fixture)."""
    first = logging.Logger.handle
    install(sink, Redactor())  # type: ignore[arg-type]
    assert logging.Logger.handle is not first
    stream = text_of(logger)
    logger.info("password=%s", CANARY)
    assert stream.getvalue() == "INFO password=[REDACTED]\n"


# -- structlog


def test_structlog_line_is_json_redacted_and_carries_the_context(sink: Sink) -> None:
    """Own lines: timestamp, level, event first, bound context, every value redacted."""
    structlog.contextvars.bind_contextvars(request_id="abcdefgh12345678", note=f"token={CANARY}")
    structlog.get_logger().info("paid", amount=3, card="4111 1111 1111 1111", user={"password": CANARY}, items=[1, 2])
    (event,) = sink.events()
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event["request_id"] == "abcdefgh12345678"
    assert event["card"] == "[CARD:1111]"
    assert event["user"] == {"password": "[REDACTED]"}
    assert event["items"] == [1, 2]
    assert CANARY not in json.dumps(event)


def test_structlog_exception_is_text_without_locals(sink: Sink) -> None:
    """`log.exception` prints a redacted traceback."""
    secret_local = CANARY
    try:
        raise ValueError(f"password={secret_local}")
    except ValueError:
        structlog.get_logger().exception("failed")
    (event,) = sink.events()
    assert event["level"] == "error"
    assert "ValueError: password=[REDACTED]" in event["exception"]
    assert CANARY not in json.dumps(event)


def test_structlog_level_filters(sink: Sink) -> None:
    """Lines below the level are not made."""
    structlog.get_logger().debug("x")
    assert sink.lines == []


def test_trusted_names_do_not_let_values_through(sink: Sink) -> None:
    """A request id that is no id is scanned like anything else."""
    structlog.get_logger().info("x", request_id=f"{CANARY}@example.com", trace_id={"password": CANARY})
    assert CANARY not in json.dumps(sink.events())


def test_structlog_of_the_application_is_joined_not_replaced(sink: Sink) -> None:
    """A configuration that exists keeps its renderer; the redactor stands before it, locals are switched off."""
    uninstall()
    seen: list[dict[str, Any]] = []

    def render(logger: Any, method: str, event: Any) -> str:
        seen.append(dict(event))
        raise structlog.DropEvent

    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    renderer = structlog.processors.ExceptionRenderer(transformer)
    structlog.configure(processors=[renderer, render])
    early = structlog.get_logger().bind(a=1)
    findings = install(sink, Redactor())  # type: ignore[arg-type]
    assert findings == ("structlog-locals-switched-off",)
    local = CANARY
    try:
        raise ValueError(f"password={local}")
    except ValueError:
        early.error("x", password=CANARY, exc_info=True)
    assert seen[0]["password"] == "[REDACTED]"
    assert "ValueError" in repr(seen[0])
    assert CANARY not in repr(seen)
    uninstall()
    assert not any(isinstance(step, RedactEvent) for step in structlog.get_config()["processors"])


def test_console_format_is_one_escaped_line_per_event() -> None:
    """The console variant prints no control characters of a value."""
    kept = Sink()
    structlog.reset_defaults()
    install(kept, Redactor(), format="console")  # type: ignore[arg-type]
    try:
        structlog.get_logger().info("hello", who="x\x1b[31m\nforged")
    finally:
        uninstall()
    (line,) = kept.lines
    assert b"hello who=" in line
    assert line[:-1].decode().isprintable()


# -- the process's redactor


def test_redact_is_public_for_text_and_values() -> None:
    """Texts come back as texts, values as copies, through the process's redactor."""
    assert redact("password=x") == "password=[REDACTED]"
    assert redact({"password": "x"}) == {"password": "[REDACTED]"}
    assert redact(ValueError("token=abc")) == "ValueError: token=[REDACTED]"
    before = set_default(Redactor(fields=["case"]))
    try:
        assert redact({"case": "x"}) == {"case": "[REDACTED]"}
    finally:
        set_default(before)
    assert default() is before


def test_exploding_detector_is_found_before_it_serves() -> None:
    """A pattern with nested repetition is named, an ordinary one is not; a step clock stands for time."""
    ticks = iter(range(10_000))

    def steps() -> float:
        return float(next(ticks)) * 1e-6

    ordinary = Detector("fine", re.compile(r"B-\d{1,8}"))
    assert slow_detectors([ordinary], steps) == ()
    assert slow_detectors([Detector("bad", re.compile(r"(a+)+$"))]) == ("bad",)
