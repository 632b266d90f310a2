"""The benchmark's driver: what it measures is really the application handling the request that was meant."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi import FastAPI, Request
from flask import Flask
from flask import request as flask_request
from pydantic import BaseModel

from portalshield import Settings, Shield
from portalshield.bench.driver import (
    AsgiCall,
    UnexpectedStatusError,
    WsgiCall,
    asgi_scope,
    browser_request,
    lifespan,
    wsgi_environ,
)
from portalshield.bench.measure import Series, Variant, back_to_back, calls, spaced
from portalshield.bench.report import Bar, Report, Row
from portalshield.bench.stacks import NullLines, Stacks
from portalshield.cli.bench import bench
from portalshield.settings import LAYERS
from portalshield.testing.tokens import environment, mint_token

ORIGIN = "https://app.example.com"
BODY = b'{"tenant_id":"acme","name":"Ada"}'
SETTINGS = Settings.from_env(environment(CORS__ALLOW_ORIGINS=ORIGIN))


class Client(BaseModel):
    """What the applications below validate."""

    tenant_id: str
    name: str


def fastapi_app(seen: list[Any]) -> FastAPI:
    """Notes what its handlers get."""
    app = FastAPI()

    @app.get("/tenants/{tenant_id}/clients/{client_id}")
    async def read(tenant_id: str, client_id: str, request: Request) -> dict[str, str]:
        seen.append((tenant_id, client_id, request.headers["user-agent"][:7], dict(request.query_params)))
        return {"id": client_id}

    @app.post("/tenants/{tenant_id}/clients")
    async def create(tenant_id: str, client: Client) -> dict[str, str]:
        seen.append((tenant_id, client.name))
        return {"name": client.name}

    return app


def flask_app(seen: list[Any]) -> Flask:
    """The same in Flask."""
    app = Flask(__name__)

    @app.get("/tenants/<tenant_id>/clients/<client_id>")
    def read(tenant_id: str, client_id: str) -> dict[str, str]:
        seen.append((tenant_id, client_id, flask_request.headers["User-Agent"][:7], dict(flask_request.args)))
        return {"id": client_id}

    @app.post("/tenants/<tenant_id>/clients")
    def create(tenant_id: str) -> dict[str, str]:
        client = Client.model_validate(flask_request.get_json())
        seen.append((tenant_id, client.name))
        return {"name": client.name}

    return app


APPLICATIONS = [pytest.param(fastapi_app, id="fastapi"), pytest.param(flask_app, id="flask")]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One loop for the test."""
    with asyncio.Runner() as held:
        yield held


@pytest.fixture
def lines() -> Iterator[NullLines]:
    """Request lines to nowhere."""
    with NullLines() as held:
        yield held


def token() -> str:
    """What the shielded applications accept."""
    return mint_token(SETTINGS, tenant="acme")


# -- the driver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", APPLICATIONS)
def test_a_batch_calls_the_handler_once_per_call_with_the_request_as_meant(make: Any, runner: asyncio.Runner) -> None:
    """Path, query and headers arrive; `count` calls are `count` handled requests."""
    seen: list[Any] = []
    app = make(seen)
    request = browser_request("GET", "/tenants/acme/clients/7?page=2")
    subject = WsgiCall(app, request) if isinstance(app, Flask) else AsgiCall(app, request, runner)
    assert json.loads(subject.answer().body) == {"id": "7"}
    assert subject.batch(3) > 0
    assert seen == [("acme", "7", "Mozilla", {"page": "2"})] * 4


@pytest.mark.parametrize("make", APPLICATIONS)
def test_every_call_of_a_batch_gets_the_whole_body(make: Any, runner: asyncio.Runner) -> None:
    """A body that was consumed by one call is there again for the next."""
    seen: list[Any] = []
    app = make(seen)
    request = browser_request("POST", "/tenants/acme/clients", body=BODY)
    subject = WsgiCall(app, request) if isinstance(app, Flask) else AsgiCall(app, request, runner)
    assert subject.answer().status == 200
    subject.batch(2)
    assert seen == [("acme", "Ada")] * 3


def test_an_asgi_answer_that_changes_its_status_ends_the_batch(runner: asyncio.Runner) -> None:
    """A refusal in the middle of a batch is never counted as a fast answer."""
    statuses = iter([200, 200, 429])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": next(statuses), "headers": []})
        await send({"type": "http.response.body"})

    subject = AsgiCall(app, browser_request("GET", "/"), runner)
    subject.answer()
    with pytest.raises(UnexpectedStatusError, match="429 instead of 200"):
        subject.batch(5)


def test_a_wsgi_answer_that_changes_its_status_ends_the_batch_and_is_closed() -> None:
    """The same for WSGI, and `close()` is called as a server would."""
    statuses = iter(["200 OK", "503 Service Unavailable"])
    closed: list[bool] = []

    class Blocks(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Blocks:
        start_response(next(statuses), [])
        return Blocks([b"x"])

    subject = WsgiCall(app, browser_request("GET", "/"))
    subject.answer()
    with pytest.raises(UnexpectedStatusError, match="503 instead of 200"):
        subject.batch(5)
    assert closed == [True, True]


def test_an_application_that_waits_for_the_disconnect_gets_it_after_its_answer(runner: asyncio.Runner) -> None:
    """A second `receive` ends when the response does, as with a server (no hang, no early disconnect)."""
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        order.append("answered" if not waiting.done() else "disconnected early")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        order.append((await waiting)["type"])

    AsgiCall(app, browser_request("GET", "/"), runner).answer()
    assert order == ["answered", "http.disconnect"]


def test_a_request_carries_what_a_browser_sends() -> None:
    """About a dozen fields; the credential, origin and length where they were given; added fields replace."""
    request = browser_request("POST", "/a?b=c", token="t" * 400, origin=ORIGIN, body=BODY)
    names = [name for name, _ in request.headers]
    assert len(names) == len(set(names)) == 14
    assert {b"host", b"user-agent", b"authorization", b"origin", b"sec-fetch-site", b"content-length"} <= set(names)
    assert asgi_scope(request)["query_string"] == b"b=c"
    environ = wsgi_environ(request)
    assert (environ["CONTENT_LENGTH"], environ["HTTP_ORIGIN"]) == (str(len(BODY)), ORIGIN)
    changed = request.with_headers([(b"host", b"other.example.com")])
    assert [value for name, value in changed.headers if name == b"host"] == [b"other.example.com"]


def test_lifespan_starts_an_application_up_and_shuts_it_down(runner: asyncio.Runner) -> None:
    """Start-up before the first call, shut-down after the last; an application without lifespan is left alone."""
    order: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            order.append(kind)
            await send({"type": f"lifespan.{kind}.complete"})

    async def without(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("http only")

    async def use() -> None:
        async with lifespan(app):
            order.append("used")
        async with lifespan(without):
            order.append("used without")

    runner.run(use())
    assert order == ["startup", "used", "shutdown", "used without"]


def test_lifespan_reports_a_start_that_failed(runner: asyncio.Runner) -> None:
    """Its message is told instead of measuring an application that did not start."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def use() -> None:
        async with lifespan(app):
            pass

    with pytest.raises(RuntimeError, match="no database"):
        runner.run(use())


# -- variants of an application ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", APPLICATIONS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_variant_reaches_the_handler(make: Any, method: str, runner: asyncio.Runner, lines: NullLines) -> None:
    """Bare, shielded, without each layer: all answer 2xx, and only the shielded ones carry a request id."""
    seen: list[Any] = []
    app = make(seen)
    path, body = ("/tenants/acme/clients/7", b"") if method == "GET" else ("/tenants/acme/clients", BODY)
    request = browser_request(method, path, token=token(), origin=ORIGIN, body=body)
    stacks = Stacks(app, Shield(app, settings=SETTINGS), runner, lines)
    variants = [stacks.bare("bare", request), stacks.shielded("shielded", request), stacks.without_line(request)]
    variants += [stacks.without(layer, request) for layer in LAYERS]
    handled = len(seen)
    found = back_to_back(variants, rounds=2, batch=2)
    assert {name: answer.status for name, answer in stacks.answers.items()} == dict.fromkeys(found, 200)
    assert len(found) == 3 + len(LAYERS)
    assert len(seen) - handled == len(variants) * (2 + 2 * 2)
    marked = {name for name, answer in stacks.answers.items() if b"x-request-id" in dict(answer.headers)}
    assert marked == set(found) - {"bare"}


def test_a_variant_without_a_layer_really_lacks_it(runner: asyncio.Runner, lines: NullLines) -> None:
    """Without `auth` a request without a token gets through; with it, it does not."""
    app = fastapi_app([])
    request = browser_request("GET", "/tenants/acme/clients/7")
    stacks = Stacks(app, Shield(app, settings=SETTINGS), runner, lines)
    stacks.shielded("shielded", request)
    stacks.without("auth", request)
    assert {name: answer.status for name, answer in stacks.answers.items()} == {"shielded": 401, "without auth": 200}


def test_quotas_are_full_again_at_each_batch_unless_told_otherwise(runner: asyncio.Runner, lines: NullLines) -> None:
    """Measuring does not run into the application's own limits, and a flood can be measured on purpose."""
    app = fastapi_app([])
    settings = Settings.from_env(environment(AUTH="none", AUTH__SECRET="", AUTH__ISSUER="", RATE__PER_IP="5/hour"))
    request = browser_request("GET", "/tenants/acme/clients/7")
    stacks = Stacks(app, Shield(app, settings=settings), runner, lines)
    back_to_back([stacks.shielded("allowed", request)], rounds=4, batch=4)
    spent = settings.model_copy(update={"rate": settings.rate.model_copy(update={"per_ip": "1/hour"})})
    back_to_back([stacks.shielded("flood", request, spent, refill=False)], rounds=2, batch=4)
    assert {name: answer.status for name, answer in stacks.answers.items()} == {"allowed": 200, "flood": 429}


def test_restoring_leaves_the_application_as_it_was(runner: asyncio.Runner, lines: NullLines) -> None:
    """After a benchmark the application has its own door again."""
    app = flask_app([])
    Shield(app, settings=SETTINGS)
    own, shield = app.wsgi_app, Shield.of(app)
    assert shield is not None
    stacks = Stacks(app, shield, runner, lines)
    stacks.bare("bare", browser_request("GET", "/tenants/acme/clients/7"))
    assert app.wsgi_app is not own
    stacks.restore()
    assert app.wsgi_app is own


# -- rounds -----------------------------------------------------------------------------------------------------------


def test_every_round_runs_every_variant_once() -> None:
    """No variant is behind by more than a round, so that a drift of the machine hits all alike."""
    ran: list[str] = []

    def variant(name: str) -> Variant:
        return Variant(name, lambda count: ran.append(name) or 1000 * count)  # type: ignore[func-returns-value]

    found = back_to_back([variant("a"), variant("b"), variant("c")], rounds=5, batch=1)
    rounds = [ran[start : start + 3] for start in range(3, len(ran), 3)]
    assert [sorted(names) for names in rounds] == [["a", "b", "c"]] * 5
    assert {name: len(series.samples) for name, series in found.items()} == {"a": 5, "b": 5, "c": 5}


def test_what_a_batch_leaves_behind_is_settled_and_preparing_comes_before_it() -> None:
    """`prepare`, the batch, `settle`: in this order for every sample."""
    order: list[str] = []

    def batch(count: int) -> int:
        order.append(f"batch of {count}")
        return count

    spaced([Variant("a", batch, lambda: order.append("prepare"), lambda: order.append("settle"))], rounds=2, gap_s=0)
    assert order == ["prepare", "batch of 1", "settle"] * 3


def test_what_is_added_is_taken_round_by_round() -> None:
    """The median of differences, not the difference of medians."""
    base, own = Series("base", (10, 100, 20)), Series("own", (15, 108, 29))
    assert own.above(base).samples == (5, 8, 9)
    assert (own.above(base).middle, own.low, own.high) == (8, 15, 108)


def test_a_function_is_called_as_often_as_was_asked() -> None:
    """`calls` measures the function itself."""
    ran: list[None] = []
    assert calls("append", lambda: ran.append(None)).batch(7) >= 0
    assert len(ran) == 7


# -- the report -------------------------------------------------------------------------------------------------------


def report() -> Report:
    """Two rows and two bars, one of them missed."""
    rows = (Row("GET <x>", "bare", 53.0, 49.5, 59.5), Row("GET <x>", "shielded", 70.25, 66.0, 900.0, 17.0))
    bars = (Bar("B1", "B1: GET", 1.9, 1.5), Bar("interim", "interim: GET", 2.6, 2.5, interim=True))
    return Report("Figures & bars", rows, bars, ("A note.",), "a machine", {"starlette": "1.10.0"})


def test_a_report_survives_json() -> None:
    """What `to_json` writes, `from_json` reads; the verdicts stand in it for other readers."""
    text = report().to_json()
    assert Report.from_json(text) == report()
    assert [bar["passed"] for bar in json.loads(text)["bars"]] == [False, False]


def test_a_report_as_text_names_every_figure_and_verdict() -> None:
    """The table for terminals."""
    lines = [line.split() for line in report().to_text().splitlines()]
    assert ["shielded", "70.2", "66.0", "900.0", "17.0"] in lines
    assert [line[-2:] for line in lines if "<=" in line] == [["not", "yet"], ["2.5", "MISSED"]]


def test_a_report_as_html_is_complete_in_itself_and_escaped() -> None:
    """No script, nothing to load, names as text."""
    page = report().to_html()
    assert page.count("<svg") == 1
    assert page.count("<rect") == 2
    assert "GET &lt;x&gt;" in page
    assert "Figures &amp; bars" in page
    assert not any(mark in page for mark in ("<script", "http://", "https://", "GET <x>"))


def test_a_plot_of_savings_below_zero_stays_inside_its_picture() -> None:
    """What a layer costs may come out negative where it costs nothing: bars keep a positive length."""
    page = Report("t", (Row("g", "csrf", -0.4, -3.0, 1.0),), machine="m", versions={}).to_html()
    assert 'width="1.0"' in page
    assert "-" not in page.partition("<rect")[2].partition("<text")[0].replace("stroke-", "")


# -- the command ------------------------------------------------------------------------------------------------------

_MODULE = """
import os
import flask
import portalshield.fastapi
import portalshield.flask
from fastapi import Depends, FastAPI, Request
from flask import Flask
from portalshield import Principal, Shield, current_tenant, limit, payload, protect
from pydantic import BaseModel

class Client(BaseModel):
    name: str

app = FastAPI()

@app.get("/tenants/{tenant_id}")
@limit("2/minute")
async def read(tenant_id: str) -> dict[str, str]:
    print("printed by the application")
    return {"id": tenant_id}

shielded = Flask(__name__)

@shielded.get("/tenants/<tenant_id>")
def read_too(tenant_id: str) -> dict[str, str]:
    return {"id": tenant_id}

Shield(shielded)

asking = FastAPI()

@asking.get("/tenants/{tenant_id}")
async def ask(tenant_id: str, who: Principal = Depends(portalshield.fastapi.principal)) -> dict[str, str]:
    return {"tenant": current_tenant(), "who": who.subject}

@asking.get("/marked/{tenant_id}")
async def marked(tenant_id: str, request: Request) -> dict[str, bool]:
    return {"marked": bool(request.scope["portalshield.exchange"])}

@asking.post("/tenants/{tenant_id}")
@protect(body=Client)
async def create(tenant_id: str) -> dict[str, str]:
    return {"name": payload().name}

Shield(asking)

asking_too = Flask(__name__)

@asking_too.get("/tenants/<tenant_id>")
def ask_too(tenant_id: str) -> dict[str, str]:
    return {"tenant": current_tenant(), "who": portalshield.flask.principal.subject}

@asking_too.get("/marked/<tenant_id>")
def marked_too(tenant_id: str) -> dict[str, bool]:
    return {"marked": bool(flask.request.environ["portalshield.exchange"])}

@asking_too.post("/tenants/<tenant_id>")
@protect(body=Client)
def create_too(tenant_id: str) -> dict[str, str]:
    return {"name": payload().name, "again": flask.request.get_json()["name"]}

Shield(asking_too)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with an application that has no shield yet and one that has."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    name = f"portal_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(_MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(("attribute", "measured_before"), [("app", True), ("shielded", False)])
def test_bench_measures_an_application_layer_by_layer(
    module: str, attribute: str, measured_before: bool, tmp_path: Path
) -> None:
    """JSON and page are written; an application without a shield is measured before it gets one."""
    page, figures = tmp_path / "plot.html", tmp_path / "figures.json"
    arguments = ["--path", "/tenants/acme", "--rounds", "1", "--token", mint_token(Settings.from_env(), tenant="acme")]
    result = CliRunner().invoke(
        bench, [f"{module}:{attribute}", *arguments, "--html", str(page), "--json", str(figures)]
    )
    assert result.exit_code == 0, result.output
    found = Report.from_json(figures.read_text(encoding="utf-8"))
    groups = [row.group for row in found.rows]
    assert groups.count("what each layer costs") == len(LAYERS) + 1
    assert ("before it was shielded" in {row.name for row in found.rows}) is measured_before
    assert page.read_text(encoding="utf-8").count("<svg") == 3
    assert "printed by the application" not in result.output


@pytest.mark.parametrize("attribute", ["asking", "asking_too"])
@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="who is calling"),
        pytest.param(["--method", "POST", "--data", '{"name":"Ada"}'], id="what was validated"),
    ],
)
def test_bench_measures_handlers_that_ask_the_shield(
    module: str, attribute: str, more: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without the door they get what they got behind it; nothing is logged on the way."""
    token = mint_token(Settings.from_env(), tenant="acme")
    arguments = ["--path", "/tenants/acme", "--rounds", "1", "--token", token, "--json", "-", *more]
    result = CliRunner().invoke(bench, [f"{module}:{attribute}", *arguments])
    assert result.exit_code == 0, result.output
    assert {row["name"] for row in json.loads(result.stdout)["rows"]} >= {"bare", "shielded"}
    assert "Traceback" not in capfd.readouterr().err


README = Path(__file__).resolve().parents[2] / "README.md"
_PROGRAMS = re.compile(r"<!-- program: .*? -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("number", [pytest.param(0, id="fastapi"), pytest.param(1, id="flask")])
def test_bench_measures_the_programs_of_the_readme(
    number: int, module: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they are written there; nothing is logged on the way."""
    program = _PROGRAMS.findall(README.read_text("utf-8"))[number]
    (tmp_path / f"{module}_written.py").write_text(program, encoding="utf-8")
    token = mint_token(Settings.from_env(), tenant="north")
    arguments = ["--path", "/tenants/north/clients", "--rounds", "1", "--token", token, "--json", "-"]
    result = CliRunner().invoke(bench, [f"{module}_written:app", *arguments])
    assert result.exit_code == 0, result.output
    assert {row["name"] for row in json.loads(result.stdout)["rows"]} >= {"bare", "shielded"}
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("attribute", ["asking", "asking_too"])
def test_bench_refuses_what_cannot_be_compared(module: str, attribute: str) -> None:
    """A crash page is not measured: one sentence, exit status 2."""
    token = mint_token(Settings.from_env(), tenant="acme")
    arguments = ["--path", "/marked/acme", "--rounds", "1", "--token", token]
    result = CliRunner().invoke(bench, [f"{module}:{attribute}", *arguments])
    assert result.exit_code == 2
    assert "without the shield this request ends in" in result.output
    assert "Traceback" not in result.output


def test_bench_prints_json_alone_when_asked(module: str) -> None:
    """`--json -`: standard output is one document, whatever the application prints."""
    token = mint_token(Settings.from_env(), tenant="acme")
    result = CliRunner().invoke(
        bench, [f"{module}:app", "--path", "/tenants/acme", "--rounds", "1", "--token", token, "--json", "-"]
    )
    assert json.loads(result.stdout)["title"] == f"GET /tenants/acme of {module}:app"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--path", "/tenants/acme"], "answers 401", id="no token"),
        pytest.param(["--path", "tenants"], "begins with a slash", id="no slash"),
        pytest.param(["--header", "nonsense"], "NAME:VALUE", id="a header without a colon"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(module: str, arguments: list[str], told: str) -> None:
    """A refused request is not benchmarked; usage mistakes end with 2."""
    result = CliRunner().invoke(bench, [f"{module}:app", *arguments, "--rounds", "1"])
    assert result.exit_code == 2
    assert told in result.stderr
