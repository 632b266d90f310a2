"""`portalshield bench`: what the shield costs this application, layer by layer."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click

from portalshield.bench.driver import HOST, Answer, Request, browser_request, lifespan
from portalshield.bench.measure import Series, Variant, back_to_back, spaced
from portalshield.bench.report import Report, Row
from portalshield.bench.stacks import NotComparableError, NullLines, Stacks, call, is_wsgi
from portalshield.cli.application import app_argument, load_app, or_broken
from portalshield.settings import LAYERS
from portalshield.shield import Shield

_BATCH = 25
_BEFORE = "before it was shielded"


@click.command()
@app_argument
@click.option("--method", default="GET", show_default=True, help="The request's method.")
@click.option("--path", default="/", show_default=True, help="The request's path, with a query if it has one.")
@click.option("--token", default=None, help="A bearer token to send along.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header field; may be repeated.")
@click.option("--data", default="", help="A JSON body.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(1, 10_000), help="Interleaved rounds.")
@click.option(
    "--json", "json_to", is_flag=False, flag_value="-", default=None, metavar="[FILE]", help="JSON, `-` for the screen."
)
@click.option("--html", "html_to", default=None, metavar="FILE", help="Write a page with a plot.")
def bench(
    target: str,
    method: str,
    path: str,
    token: str | None,
    headers: tuple[str, ...],
    data: str,
    rounds: int,
    json_to: str | None,
    html_to: str | None,
) -> None:
    """Measure an application bare and shielded, and what each layer costs. In process: no server, no sockets.

    The request is really handled, again and again: choose one that may be repeated. Limits are counted apart.
    """
    if not path.startswith("/"):
        raise click.UsageError("--path begins with a slash")
    fields = tuple(_field(entry) for entry in headers)
    request = browser_request(method.upper(), path, token=token, body=data.encode()).with_headers(fields)
    with _quiet_stdout():
        report = or_broken(json_to == "-", lambda: _measured(target, request, rounds))
    _deliver(report, json_to, html_to)


def _field(entry: str) -> tuple[bytes, bytes]:
    name, colon, value = entry.partition(":")
    if not colon:
        raise click.UsageError("write a header as NAME:VALUE")
    return name.strip().lower().encode(), value.strip().encode("latin-1", "replace")


def _deliver(report: Report, json_to: str | None, html_to: str | None) -> None:
    if html_to is not None:
        Path(html_to).write_text(report.to_html(), encoding="utf-8")
    if json_to is not None and json_to != "-":
        Path(json_to).write_text(report.to_json(), encoding="utf-8")
    click.echo(report.to_json() if json_to == "-" else report.to_text(), nl=False)


def _measured(target: str, request: Request, rounds: int) -> Report:
    app = load_app(target)
    with asyncio.Runner() as runner, NullLines() as lines:
        entered = AsyncExitStack()
        if not is_wsgi(app):
            runner.run(entered.enter_async_context(lifespan(app)))
        try:
            return _report(app, target, request, rounds, runner, lines)
        finally:
            runner.run(entered.aclose())


def _report(app: Any, target: str, request: Request, rounds: int, runner: asyncio.Runner, lines: NullLines) -> Report:
    before = None if Shield.of(app) is not None else _before(app, request, rounds, runner)
    shield = Shield.of(app) or Shield(app)
    request = _hosted(request, shield)
    stacks = Stacks(app, shield, runner, lines)
    try:
        answer = stacks.probe(request)
        _must_be_allowed(request, answer)
        batch = max(1, min(_BATCH, _smallest_quota(answer) * 4 // 5))  # a quarter more is called to warm up
        whole, bare = stacks.shielded("shielded", request), stacks.bare("bare", request, answer.status)
        layers = [*stacks.layers(request, LAYERS, answer.status), stacks.without_line(request)]
        busy = back_to_back([bare, whole, *layers], rounds=rounds, batch=batch)
        idle = spaced([bare, whole], rounds=rounds)
    except NotComparableError as error:
        raise click.UsageError(f"{error}: there is nothing to compare.") from None
    finally:
        stacks.restore()
    return Report(f"{request.method} {request.path} of {target}", tuple(_rows(before, busy, idle)))


def _hosted(request: Request, shield: Shield) -> Request:
    """With a Host that is served here, unless `--header` names one."""
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if host is not HOST:  # by identity: whoever names this very one means it
        return request
    return request.with_headers(((b"host", shield.settings.hosts.example(HOST.decode()).encode()),))


def _before(app: Any, request: Request, rounds: int, runner: asyncio.Runner) -> Series:
    subject = call(app, request, runner)
    subject.answer()
    return back_to_back([Variant(_BEFORE, subject.batch)], rounds=rounds, batch=_BATCH)[_BEFORE]


def _rows(before: Series | None, busy: dict[str, Series], idle: dict[str, Series]) -> Iterator[Row]:
    if before is not None:
        yield Row.of("back to back", before)
    bare, whole = busy["bare"], busy["shielded"]
    yield Row.of("back to back", bare)
    yield Row.of("back to back", whole, bare)
    for name, series in busy.items():
        if name.startswith("without "):
            saved = whole.above(series)
            yield Row.of("what each layer costs", Series(name.removeprefix("without "), saved.samples))
    yield Row.of("spaced by 20 ms", idle["bare"])
    yield Row.of("spaced by 20 ms", idle["shielded"], idle["bare"])


def _must_be_allowed(request: Request, answer: Answer) -> None:
    if answer.status < 400:
        return
    hint = _HINTS.get(answer.status, "")
    raise click.UsageError(
        f"{request.method} {request.path} answers {answer.status}: only requests that are let through are measured."
        + hint
    )


_ASK = " Give a --token; `portalshield token` makes one."
_HINTS = {401: _ASK, 403: _ASK, 421: " Give --header host:NAME with a name of PORTALSHIELD_HOSTS."}


def _smallest_quota(answer: Answer) -> int:
    """A batch must fit into every quota of the route (counters start afresh with each batch)."""
    policies: Sequence[bytes] = [value for name, value in answer.headers if name == b"ratelimit-policy"]
    quotas = [part.partition(b"q=")[2].partition(b";")[0] for value in policies for part in value.split(b",")]
    return min((int(quota) for quota in quotas if quota.isdigit()), default=_BATCH)


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Nothing that the application prints or logs comes between the figures: stream and descriptor lead to nowhere."""
    sys.stdout.flush()
    own = os.dup(1)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(own, 1)
        os.close(own)
