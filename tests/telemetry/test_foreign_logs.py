"""Lines of other libraries, produced by those libraries themselves where that needs no network."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import flask
import httpx
import pytest
import sqlalchemy
import urllib3.connectionpool
from sqlalchemy.exc import IntegrityError

from portalshield.rules.redaction import Redactor
from portalshield.telemetry import logs
from portalshield.telemetry.tracebacks import format_exception

CANARY = "Zq7canary9x"


class NoLines:
    """A writer for lines of our own, which nobody looks at here."""

    def emit(self, line: bytes, *, eventful: bool = True) -> None:
        """Drop it."""


@pytest.fixture(params=["default", "strict"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Redaction installed in either mode."""
    logs.install(NoLines(), Redactor(mode=request.param))  # type: ignore[arg-type]
    yield request.param
    logs.uninstall()


class Listener:
    """What a text handler on one logger prints, at any level, whatever the library configured before."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._before = self._logger.level, self._logger.propagate
        self._stream = io.StringIO()
        self._handler = logging.StreamHandler(self._stream)
        self._handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def __enter__(self) -> Listener:
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.level, self._logger.propagate = self._before
        self._logger.manager._clear_cache()  # type: ignore[attr-defined]

    @property
    def text(self) -> str:
        """Everything so far."""
        return self._stream.getvalue()


LOGGERS = [
    "uvicorn.error", "uvicorn", "gunicorn.error", "hypercorn.error", "sqlalchemy.engine.Engine", "httpx",
    "httpcore.http11",
    "urllib3.connectionpool", "boto3", "botocore.auth", "asyncio", "py.warnings", "celery.worker", "werkzeug", "root",
]  # fmt: skip


@pytest.mark.parametrize("name", LOGGERS)
def test_every_logger_is_covered_whether_it_propagates_or_not(mode: str, name: str) -> None:
    """Message, arguments, fields and exception of a record come out without the value."""
    with Listener(name) as heard:
        logger = logging.getLogger(name)
        logger.error("password=%s", CANARY, extra={"api_key": CANARY})
        try:
            raise ValueError(f"token={CANARY}")
        except ValueError:
            logger.exception("failed for %s", f"{CANARY}@example.com")
    assert "ERROR" in heard.text
    assert CANARY not in heard.text


def test_httpx_shows_no_query_and_no_fragment(mode: str) -> None:
    """The line per call keeps method, host, path and status."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with Listener("httpx") as heard, httpx.Client(transport=transport) as client:
        client.get(f"https://api.example.com/v1/items?q={CANARY}#f{CANARY}")
    assert "HTTP Request" in heard.text
    assert CANARY not in heard.text
    assert mode == "strict" or "https://api.example.com/v1/items?[QUERY]" in heard.text


def test_urllib3_shows_no_query(mode: str) -> None:
    """Its template and the shape of its arguments are the library's own."""
    with Listener("urllib3.connectionpool") as heard:
        log = urllib3.connectionpool.log
        log.debug('%s://%s:%s "%s %s %s" %s %s', "https", "x.io", 443, "GET", f"/a?q={CANARY}", "HTTP/1.1", 200, 12)
    assert CANARY not in heard.text
    assert "200 12" in heard.text
    assert mode == "strict" or '"GET /a?[QUERY] HTTP/1.1"' in heard.text


def test_sqlalchemy_echo_shows_statements_without_values(mode: str) -> None:
    """Bound parameters and rows are not printed, also without `hide_parameters`."""
    engine = sqlalchemy.create_engine("sqlite://", echo="debug")
    with Listener("sqlalchemy.engine.Engine") as heard, engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT :value AS found"), {"value": CANARY}).fetchall()
    engine.dispose()
    assert "SELECT" in heard.text
    assert CANARY not in heard.text


def test_sqlalchemy_error_shows_statement_without_values(mode: str) -> None:
    """The text of an integrity error carries parameters; a logged one does not."""
    engine = sqlalchemy.create_engine("sqlite://")
    with Listener("tests.orm") as heard, engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (name TEXT UNIQUE)"))
        insert = sqlalchemy.text("INSERT INTO t VALUES (:name)")
        connection.execute(insert, {"name": CANARY})
        try:
            connection.execute(insert, {"name": CANARY})
        except IntegrityError:
            logging.getLogger("tests.orm").exception("insert failed")
    engine.dispose()
    assert "IntegrityError" in heard.text
    assert CANARY not in heard.text


@pytest.mark.parametrize(
    "detail",
    [
        "DETAIL:  Key (email)=({}) already exists.",
        "DETAIL:  Key (lower(email), org)=({}, 7) already exists.",
        'duplicate key value violates unique constraint "u"\nDETAIL:  Key (a)=({}) conflicts with Key (a)=(x).',
    ],
)
def test_detail_of_postgres_is_cut(mode: str, detail: str) -> None:
    """The value of a violated constraint goes, the names of its columns stay."""
    with Listener("tests.pg") as heard:
        logging.getLogger("tests.pg").error("%s", detail.format(CANARY))
        logging.getLogger("tests.pg").error(detail.format(CANARY))
    assert CANARY not in heard.text


def test_asyncio_reports_lost_exceptions_redacted(mode: str) -> None:
    """A task that nobody awaited tells its exception without the value."""
    with Listener("asyncio") as heard:

        async def run() -> None:
            async def fail() -> None:
                raise ValueError(f"secret={CANARY}")

            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task
            gc.collect()

        asyncio.run(run())
    assert "never retrieved" in heard.text
    assert CANARY not in heard.text


def test_captured_warnings_are_redacted(mode: str) -> None:
    """`logging.captureWarnings` sends warnings through the redactor too."""
    logging.captureWarnings(True)
    try:
        with Listener("py.warnings") as heard, warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.showwarning(f"password={CANARY}", UserWarning, "x.py", 1)
    finally:
        logging.captureWarnings(False)
    assert heard.text
    assert CANARY not in heard.text


def test_flask_logs_crashes_without_the_path(mode: str) -> None:
    """Flask puts the raw path into its message; it is replaced, the method stays."""
    app = flask.Flask("crashing")

    @app.get("/clients/<name>")
    def client(name: str) -> str:
        raise RuntimeError("broken")

    with Listener("crashing") as heard:
        assert app.test_client().get(f"/clients/{CANARY}").status_code == 500
    assert "Exception on [PATH] [GET]" in heard.text
    assert CANARY not in heard.text


def test_development_server_prints_no_access_line(mode: str) -> None:
    """Werkzeug's access lines hold path and address; its other lines stay."""
    with Listener("werkzeug") as heard:
        log = logging.getLogger("werkzeug")
        log.info('127.0.0.1 - - [now] "%s" %s %s\n', f"GET /x?{CANARY} HTTP/1.1", 200, "-")
        log.info("Press CTRL+C to quit")
    assert heard.text == "INFO Press CTRL+C to quit\n"


# -- exceptions


def chained() -> RuntimeError:
    """An exception whose cause was hidden with `from None`, as Sentry's middleware does."""
    try:
        try:
            raise KeyError(f"token={CANARY}")
        except KeyError:
            raise RuntimeError("outer") from None
    except RuntimeError as error:
        return error


def test_hidden_context_is_logged() -> None:
    """The whole chain is in the text, although its cause was cleared."""
    logs.install(NoLines(), Redactor())  # type: ignore[arg-type]
    with Listener("tests.chain") as heard:
        logging.getLogger("tests.chain").error("x", exc_info=chained())
    logs.uninstall()
    for text in (heard.text, format_exception(chained(), Redactor())):
        assert "KeyError: 'token=[REDACTED]" in text
        assert "RuntimeError: outer" in text
        assert CANARY not in text


def test_strict_mode_prints_types_and_places_only() -> None:
    """No message, no note, no source line; every member of a group by its type."""
    group: Any = ExceptionGroup("all", [ValueError(CANARY), KeyError(CANARY)])
    group.add_note(CANARY)
    group.__context__ = chained()
    text = format_exception(group, Redactor(mode="strict"))
    assert CANARY not in text
    assert "outer" not in text
    assert text.splitlines()[-1] == "ExceptionGroup ValueError KeyError"
    assert "in chained" in text


def test_chain_that_is_a_circle_ends() -> None:
    """An exception that is its own context is printed once."""
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    for mode in ("default", "strict"):
        text = format_exception(first, Redactor(mode=mode))  # type: ignore[arg-type]
        assert text.count("ValueError") == 2


def test_strict_mode_keeps_templates_numbers_and_allowed_names() -> None:
    """Texts go; what the program wrote itself, counts, and named fields stay readable."""
    logs.install(NoLines(), Redactor(mode="strict", allow_fields=["plan"]))  # type: ignore[arg-type]
    seen: list[logging.LogRecord] = []
    logger = logging.getLogger("tests.strict")
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    try:
        fields = {"plan": "gold", "note": CANARY, "rows": 3, "deep": {"plan": "silver", "x": [CANARY, 1]}}
        logger.error("sold %s for %d", CANARY, 12, extra=fields)
    finally:
        logger.removeHandler(handler)
        logs.uninstall()
    (record,) = seen
    assert record.getMessage() == "sold [REDACTED] for 12"
    assert (vars(record)["plan"], vars(record)["note"], vars(record)["rows"]) == ("gold", "[REDACTED]", 3)
    assert vars(record)["deep"] == {"plan": "silver", "x": ["[REDACTED]", 1]}
