"""E-8: a real browser, from an allowed, a foreign, a sub-domain and opaque origins: what each could read, and what not.

Headless Chromium walks through one page per origin, over TLS on loopback; uvicorn serves the shielded portal. Run with
`-s` to see the table. Skipped only where there is no browser; `BROWSER_TESTS=required` (as in CI) makes that a failure.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from browser import Pages, browsing, find
from serving import Recipe, Server

from portalshield import Settings
from portalshield.testing import environment, mint_token

PATIENCE_S = 60.0
APP, API, SUB, EVIL = "app.portal.test", "api.portal.test", "evil.app.portal.test", "evil.test"
ORIGINS = ("app", "sub", "evil", "sandbox", "data")
FOREIGN = ORIGINS[1:]
OWN = ("own", "docs", "redoc")

# Every page knows PAGE, API, TOKEN, REPORTS and NEXT.
COMMON = """
const report = (page, found) => fetch(REPORTS + "?page=" + page, {method: "POST", mode: "no-cors",
  body: JSON.stringify(found)}).then(() => { if (NEXT) location = NEXT; });
"""
CASES = """
const bearer = {authorization: "Bearer " + TOKEN}, json = {"content-type": "application/json"};
const form = (who) => new URLSearchParams({who});
const send = async (path, options) => {
  try {
    const answer = await fetch(API + path, options);
    const headers = Object.fromEntries(answer.headers.entries());
    return {type: answer.type, status: answer.status, headers, body: await answer.text()};
  } catch (error) { return {error: error.name}; }
};
const cases = {
  "GET": ["/public", {}],
  "GET as a principal": ["/search", {headers: bearer}],
  "GET of a page": ["/page", {}],
  "HEAD": ["/public?head", {method: "HEAD"}],
  "PATCH": ["/search", {method: "PATCH", headers: {...bearer, ...json}, body: "{}"}],
  "DELETE": ["/search", {method: "DELETE", headers: bearer}],
  "patch in small letters": ["/search", {method: "patch", headers: {...bearer, ...json}, body: "{}"}],
  "a field off the list": ["/search", {headers: {...bearer, "x-foreign": "1"}}],
  "a field on the list": ["/public", {headers: {"idempotency-key": "k", traceparent: "00-0-0-00"}}],
  "401": ["/search", {}],
  "403": ["/scoped", {headers: bearer}],
  "404": ["/nope", {}],
  "422": ["/invoices", {method: "POST", headers: {...bearer, ...json}, body: "{}"}],
  "431": ["/public", {headers: {traceparent: "a".repeat(20000), tracestate: "a".repeat(20000),
    baggage: "a".repeat(20000), "sentry-trace": "a".repeat(6000)}}],
  "500": ["/boom", {}],
  "log in": ["/cookie", {credentials: "include"}],
  "cookies": ["/cookies", {credentials: "include"}],
  "no cookies": ["/cookies", {credentials: "omit"}],
  "write": ["/write", {method: "POST", body: form(PAGE), credentials: "include"}],
  "write unread": ["/write", {method: "POST", body: form(PAGE + "-unread"), credentials: "include", mode: "no-cors"}],
  "read unread": ["/public", {mode: "no-cors"}],
};
const run = async () => {
  const found = {origin: self.origin};
  for (const [name, [path, options]] of Object.entries(cases)) found[name] = await send(path, options);
  for (let times = 0; times < 4; times++) found["429"] = await send("/limited", {headers: bearer});
  found["writes"] = await send("/writes", {});
  await report(PAGE, found);
  if (self !== top) parent.postMessage("done", "*");
};
run();
"""
OPAQUE = """
let waiting = 2;
onmessage = () => { if (--waiting === 0) location = AFTER; };
const frame = (attributes) => Object.assign(document.body.appendChild(document.createElement("iframe")), attributes);
frame({sandbox: "allow-scripts", srcdoc: SANDBOX});
frame({src: "data:text/html;charset=utf-8," + encodeURIComponent(DATA)});
"""
SWAGGER = """
window.SwaggerUIBundle = (options) => {
  fetch(options.url).then((r) => r.json()).then((found) => report("docs", Object.keys(found)));
};
SwaggerUIBundle.presets = {apis: 0}; SwaggerUIBundle.SwaggerUIStandalonePreset = 0;
"""
REDOC = """
const where = document.querySelector("redoc").getAttribute("spec-url");
fetch(where).then((r) => r.json()).then((found) => report("redoc", Object.keys(found)));
"""


@dataclass
class Run:
    """What one walk through all pages found."""

    found: dict[str, Any]
    api: str
    origins: dict[str, str]


def _script(constants: dict[str, Any], *parts: str) -> str:
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    return head + "".join(parts)


def _page(script: str) -> str:
    # `</script>` inside a string would end the script.
    return "<!doctype html><body><script>" + script.replace("</", "<\\/") + "</script>"


def _publish(pages: Pages, settings: Settings, api: str) -> None:
    """One page per origin, and the stand-ins for the CDN that FastAPI's documentation is loaded from."""
    at = {name: f"https://{host}:{pages.port}" for name, host in (("app", APP), ("sub", SUB), ("evil", EVIL))}
    reports = f"https://reports.test:{pages.port}/"

    def constants(name: str, after: str) -> dict[str, Any]:
        token = mint_token(settings, tenant="north", subject=name)
        return {"PAGE": name, "API": api, "TOKEN": token, "REPORTS": reports, "NEXT": after}

    def html(name: str, after: str) -> tuple[str, str]:
        return "text/html", _page(_script(constants(name, after), COMMON, CASES))

    opaque = {"SANDBOX": html("sandbox", "")[1], "DATA": html("data", "")[1], "AFTER": f"{at['app']}/app"}
    pages.documents = {
        "/first": ("text/html", _page(f"fetch('{api}/cookie', {{credentials: 'include'}}).then(() => {{ location = "
                                      f"'{at['sub']}/sub'; }});")),
        "/sub": html("sub", f"{at['evil']}/evil"),
        "/evil": html("evil", f"{at['evil']}/opaque"),
        "/opaque": ("text/html", _page(_script(opaque, OPAQUE))),
        "/app": html("app", f"{api}/own?reports={at['app']}/own-report.js"),
        "/own-report.js": ("text/javascript", _script(constants("own", f"{api}/docs"), COMMON)),
        "/npm/swagger-ui-dist@5/swagger-ui-bundle.js": (
            "text/javascript", _script(constants("docs", f"{api}/redoc"), COMMON, SWAGGER)),
        "/npm/redoc@2/bundles/redoc.standalone.js": (
            "text/javascript", _script(constants("redoc", ""), COMMON, REDOC)),
    }  # fmt: skip


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One browser, all pages."""
    program = find()
    if program is None:
        assert os.environ.get("BROWSER_TESTS") != "required", "no browser: apt-get install chromium"
        pytest.skip("no browser here")
    folder = tmp_path_factory.mktemp("browser")
    pages = Pages(folder)
    variables = environment(
        CORS__ALLOW_ORIGINS=f"https://{APP}:{pages.port}",
        CORS__ALLOW_CREDENTIALS="true",
        CORS__EXPOSE_HEADERS="X-Total",
        HOSTS=API,
        RATE__PER_IP="100000/minute",
        LOG__LEVEL="error",
    )
    public, private = map(str, pages.certificate)
    command = ("uvicorn", "--host=127.0.0.1", "--port={port}", "--no-access-log", "--no-server-header")
    tls = (f"--ssl-certfile={public}", f"--ssl-keyfile={private}", "browser_app:app")
    server = Server("browser", variables, folder, Recipe("uvicorn", "asgi", (*command, *tls)))
    try:
        server.wait()
        api = f"https://{API}:{server.port}"
        _publish(pages, Settings.from_env(variables), api)
        cdn = f"MAP cdn.jsdelivr.net:443 127.0.0.1:{pages.port}"
        with browsing(program, folder, f"https://{APP}:{pages.port}/first", (cdn,)):
            missing = pages.wait_for({*ORIGINS, *OWN}, PATIENCE_S)
        assert not missing, f"{missing} did not report:\n{_end_of(folder / 'browser.log')}\n{_end_of(server.log)}"
        origins = {name: found["origin"] for name, found in pages.reports.items() if name in ORIGINS}
        run = Run(pages.reports, api, origins)
        _print(run)
        yield run
    finally:
        server.stop()
        pages.close()


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-1500:]


def _print(run: Run) -> None:
    """The table: a status is what the page could read, a dot is a closed door, `opaque` tells nothing."""
    rows = [("", *ORIGINS), ("origin", *(run.origins[name] for name in ORIGINS))]
    cases = [case for case in run.found["app"] if case != "origin"]
    rows += [(case, *(_read(run.found[name][case]) for name in ORIGINS)) for case in cases]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _read(answer: dict[str, Any]) -> str:
    return "." if "error" in answer else answer["type"] if answer["type"] == "opaque" else str(answer["status"])


def test_the_pages_have_the_origins_they_stand_for(walked: Run) -> None:
    """Four kinds: allowed, a sub-domain of it, another site, and two that are `null`."""
    assert walked.origins["app"].startswith(f"https://{APP}:")
    assert walked.origins["sub"].startswith(f"https://{SUB}:")
    assert walked.origins["evil"].startswith(f"https://{EVIL}:")
    assert (walked.origins["sandbox"], walked.origins["data"]) == ("null", "null")


READABLE = {
    **{"GET": 200, "GET as a principal": 200, "GET of a page": 200, "HEAD": 405, "PATCH": 200, "DELETE": 200},
    **{"a field on the list": 200, "401": 401, "403": 403, "404": 404, "422": 422, "429": 429, "431": 431, "500": 500},
    **{"log in": 200, "cookies": 200, "no cookies": 200, "write": 200, "writes": 200},
}
BLOCKED = ("patch in small letters", "a field off the list")


@pytest.mark.parametrize(("case", "status"), READABLE.items(), ids=READABLE)
def test_an_allowed_page_reads_answers_and_errors(walked: Run, case: str, status: int) -> None:
    """C-01, C-06: simple and preflighted requests, with and without credentials, whatever came of them."""
    answer = walked.found["app"][case]
    assert (answer.get("type"), answer.get("status")) == ("cors", status), answer
    assert case == "HEAD" or answer["body"]
    if case == "431":
        return  # the server's own answer, on servers that bound it before us
    assert len(answer["headers"]["x-request-id"]) == 32


@pytest.mark.parametrize("case", BLOCKED)
def test_an_allowed_page_may_not_do_everything(walked: Run, case: str) -> None:
    """Methods are case-sensitive, fields have to be named: the browser does not send it."""
    assert walked.found["app"][case] == {"error": "TypeError"}


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("case", [*READABLE, *BLOCKED])
def test_no_other_page_reads_anything(walked: Run, origin: str, case: str) -> None:
    """C-02: neither answers nor errors, neither public nor its own, with and without credentials."""
    assert walked.found[origin][case] == {"error": "TypeError"}


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_request_that_asks_for_nothing_learns_nothing(walked: Run, origin: str) -> None:
    """`no-cors`: no status, no field, no body; for an allowed page too."""
    for case in ("read unread", "write unread"):
        answer = walked.found[origin][case]
        assert answer == {"type": "opaque", "status": 0, "headers": {}, "body": ""}


def test_only_exposed_fields_are_visible(walked: Run) -> None:
    """C-11: ours, the configured one and those every page may read; not the hidden one, and never a cookie."""
    fields = walked.found["app"]["log in"]["headers"]
    assert fields["x-total"] == "3"
    assert {"x-hidden", "set-cookie", "server"}.isdisjoint(fields)
    spent = walked.found["app"]["429"]["headers"]
    assert int(spent["retry-after"]) >= 1
    assert {"ratelimit", "ratelimit-policy"} <= set(spent)


def test_cookies_travel_where_credentials_are_asked_for(walked: Run) -> None:
    """With `include` the server sees the session, with `omit` it does not."""
    assert json.loads(walked.found["app"]["cookies"]["body"]) == {"session": "1"}
    assert json.loads(walked.found["app"]["no cookies"]["body"]) == {}


def test_no_other_page_writes_with_the_cookie(walked: Run) -> None:
    """CSRF: the portal's own page and the allowed one do, looking at the answer or not; a sub-domain does not."""
    written = walked.found["own"]["writes"]
    assert sorted(found for found in written if found.endswith(" with cookie")) == [
        "who=app with cookie",
        "who=app-unread with cookie",
        "who=own with cookie",
    ]


def test_the_default_policy_breaks_no_page(walked: Run) -> None:
    """Inline script, script file, form post with the cookie and a worker on a page of the portal itself."""
    assert walked.found["own"]["ran"] == ["inline", "file", "post 200", "worker 200"]


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_documentation_renders(walked: Run, page: str) -> None:
    """Scripts of another site run there and read the document behind it."""
    assert {"openapi", "info", "paths"} <= set(walked.found[page])
