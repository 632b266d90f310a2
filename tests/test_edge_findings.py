"""What `check` says about the edge: each dangerous setting has an id, a severity, a test and a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from flask_cors import CORS
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from portalshield import Settings, Shield
from portalshield.findings import Finding
from portalshield.rules.origins import CODES
from portalshield.testing import environment

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "ENV": "production",
    "HOSTS": "portal.example.com",
    "TRUSTED_PROXIES": "10.0.0.0/8",
    "CORS__ALLOW_ORIGINS": "https://app.example.com",
}
EDGE = re.compile(r"PS-(?:HOST|CORS|CSRF|HEAD|PROXY)-\d{3}")
ALWAYS = {"PS-HEAD-103"}
"""Said to everybody in production: redirects are the proxy's."""


def findings(app: Any = None, **variables: str) -> list[Finding]:
    """What `check` says about the edge of a good production deployment with some variables changed."""
    shield = Shield(app or FastAPI(), settings=Settings.from_env(environment(**{**GOOD, **variables})))
    return [finding for finding in shield.check() if EDGE.fullmatch(finding.id)]


@pytest.fixture(autouse=True)
def _no_server_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)


def test_a_good_deployment_has_none() -> None:
    """But for what the proxy should do."""
    assert {finding.id for finding in findings()} == ALWAYS


def test_development_has_none() -> None:
    """Whatever is set."""
    loose = {"HOSTS": "*", "CORS__ALLOW_ORIGINS": "http://localhost:*", "HEADERS__HSTS": "off", "TRUSTED_PROXIES": "1"}
    assert findings(ENV="development", **loose) == []


LOCAL = {"CORS__ALLOW_ORIGINS": "http://localhost:3000"}
PATTERN = {"CORS__ALLOW_ORIGINS": "https://*.example.com"}
CREDENTIALS = {"CORS__ALLOW_CREDENTIALS": "true"}
FINDINGS = (
    pytest.param({"HOSTS": ""}, "PS-HOST-101", "medium", id="any host"),
    pytest.param({"HOSTS": "portal.example.com,*"}, "PS-HOST-101", "medium", id="a star among the hosts"),
    pytest.param(LOCAL, "PS-CORS-201", "medium", id="localhost"),
    pytest.param({"CORS__ALLOW_ORIGINS": "https://127.0.0.1:5173"}, "PS-CORS-201", "medium", id="127.0.0.1"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://127.8.0.1"}, "PS-CORS-201", "medium", id="127.0.0.0/8"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://[::1]:5173"}, "PS-CORS-201", "medium", id="ipv6 loopback"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://App.localhost"}, "PS-CORS-201", "medium", id="under localhost"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://app.example.com"}, "PS-CORS-203", "medium", id="no TLS"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://localhost.example.com"}, "PS-CORS-203", "medium", id="no localhost"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://127.example.com"}, "PS-CORS-203", "medium", id="no loopback"),
    pytest.param({"CORS__ALLOW_ORIGINS": "http://a.example", **CREDENTIALS}, "PS-CORS-203", "high", id="with cookies"),
    pytest.param({"CORS__ALLOW_ORIGINS": "", **CREDENTIALS}, "PS-CORS-204", "low", id="credentials for nobody"),
    pytest.param({**PATTERN, **CREDENTIALS}, "PS-CORS-205", "medium", id="a pattern with credentials"),
    pytest.param({**PATTERN, "AUTH__COOKIE": "__Host-t"}, "PS-CORS-205", "medium", id="a pattern with a cookie"),
    pytest.param({"CSRF__TRUSTED_ORIGINS": "http://a.example"}, "PS-CSRF-101", "high", id="writes without TLS"),
    pytest.param({"CSRF__TRUSTED_ORIGINS": "http://localhost:3000"}, "PS-CSRF-101", "high", id="writes from localhost"),
    pytest.param({"HEADERS__HSTS": "off"}, "PS-HEAD-101", "medium", id="no HSTS"),
    pytest.param({"HEADERS__HSTS": "max-age=86400"}, "PS-HEAD-101", "medium", id="HSTS for a day"),
    pytest.param({"HEADERS__CSP": "off"}, "PS-HEAD-102", "low", id="no CSP"),
    pytest.param({"HEADERS__CACHE_CONTROL": "off"}, "PS-HEAD-102", "low", id="no Cache-Control"),
    pytest.param({"TRUSTED_PROXIES": ""}, "PS-PROXY-101", "low", id="no proxy"),
    pytest.param({"TRUSTED_PROXIES": "0.0.0.0/1,128.0.0.0/1"}, "PS-PROXY-102", "high", id="half the internet, twice"),
    pytest.param({"TRUSTED_PROXIES": "2000::/3"}, "PS-PROXY-102", "high", id="all of IPv6"),
    pytest.param({"TRUSTED_PROXIES": "2"}, "PS-PROXY-106", "info", id="a number of proxies"),
)


@pytest.mark.parametrize(("variables", "code", "severity"), FINDINGS)
def test_a_dangerous_setting_is_found(variables: dict[str, str], code: str, severity: str) -> None:
    """One finding, at its variable, with what to do."""
    (finding,) = [finding for finding in findings(**variables) if finding.id not in ALWAYS]
    assert (finding.id, finding.severity) == (code, severity)
    assert finding.where.startswith("PORTALSHIELD_")
    assert finding.hint


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(CREDENTIALS, id="credentials for exact origins"),
        pytest.param(PATTERN, id="a pattern without credentials"),
        pytest.param({"HEADERS__HSTS": "max-age=63072000; includeSubDomains; preload"}, id="HSTS for two years"),
        pytest.param({"HEADERS__CSP": "default-src 'self'"}, id="an own CSP"),
        pytest.param({"TRUSTED_PROXIES": "10.0.0.0/8,172.16.0.0/12,fc00::/7,unix"}, id="private networks"),
        pytest.param({"TRUSTED_PROXIES": "104.16.0.0/13,2606:4700::/32"}, id="a CDN's networks"),
        pytest.param({"CSRF__TRUSTED_ORIGINS": "https://partner.example"}, id="a partner with TLS"),
    ],
)
def test_an_ordinary_setting_is_not(variables: dict[str, str]) -> None:
    """No cry of wolf."""
    assert {finding.id for finding in findings(**variables)} == ALWAYS


@pytest.mark.parametrize(
    ("value", "proxies", "found"),
    [
        pytest.param("*", "10.0.0.0/8", True, id="everybody, and networks here"),
        pytest.param(" * ", "", True, id="everybody, and nobody here"),
        pytest.param("*", "1", False, id="everybody, and a number here: counted from the right"),
        pytest.param("10.0.0.0/8", "10.0.0.0/8", False, id="networks"),
    ],
)
def test_a_server_that_lets_clients_choose_is_found(
    monkeypatch: pytest.MonkeyPatch, value: str, proxies: str, found: bool
) -> None:
    """uvicorn's own variable."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", value)
    ids = {finding.id: finding for finding in findings(TRUSTED_PROXIES=proxies)}
    assert ("PS-PROXY-103" in ids) is found
    assert not found or (ids["PS-PROXY-103"].severity, ids["PS-PROXY-103"].where) == ("high", "FORWARDED_ALLOW_IPS")


def _fastapi_with(middleware: Any, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        app = FastAPI()
        app.add_middleware(middleware, **options)
        return app

    return make


def _flask_with_cors() -> Flask:
    app = Flask(__name__)
    CORS(app)
    return app


def _flask_behind_fix() -> Flask:
    app = Flask(__name__)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    return app


@pytest.mark.parametrize(
    ("make", "variables", "code", "severity", "where"),
    [
        pytest.param(
            _fastapi_with(CORSMiddleware, allow_origins=["*"]),
            {},
            "PS-CORS-202",
            "low",
            "CORSMiddleware",
            id="starlette",
        ),
        pytest.param(_flask_with_cors, {}, "PS-CORS-202", "low", "flask_cors", id="flask-cors"),
        pytest.param(
            _flask_with_cors,
            {"CORS__ALLOW_ORIGINS": ""},
            "PS-CORS-202",
            "medium",
            "flask_cors",
            id="and no policy here",
        ),
        pytest.param(
            _fastapi_with(ProxyHeadersMiddleware),
            {"TRUSTED_PROXIES": ""},
            "PS-PROXY-105",
            "low",
            "ProxyHeadersMiddleware",
            id="uvicorn's middleware inside",
        ),
        pytest.param(
            _flask_behind_fix, {"TRUSTED_PROXIES": ""}, "PS-PROXY-105", "low", "ProxyFix", id="ProxyFix inside"
        ),
    ],
)
def test_what_the_application_does_by_itself_is_found(
    make: Callable[[], Any], variables: dict[str, str], code: str, severity: str, where: str
) -> None:
    """A second CORS policy, a second reader of forwarded fields."""
    (finding,) = [finding for finding in findings(make(), **variables) if finding.id == code]
    assert (finding.severity, finding.where) == (severity, where)
    assert finding.hint


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", ""])
def test_a_proxy_fix_around_the_shield_is_found(proxies: str) -> None:
    """PS-PROXY-104, where the shield reads forwarded fields too."""
    app = Flask(__name__)
    shield = Shield(app, settings=Settings.from_env(environment(**{**GOOD, "TRUSTED_PROXIES": proxies})))
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    found = {finding.id: finding.where for finding in shield.check() if finding.id.startswith("PS-PROXY-10")}
    assert found == ({"PS-PROXY-104": "ProxyFix"} if proxies else {"PS-PROXY-101": "PORTALSHIELD_TRUSTED_PROXIES"})


def test_every_id_of_the_edge_has_a_test_and_a_page() -> None:
    """What the source can say stands in docs/ and in a test, id by id."""
    sources = [ROOT / "src/portalshield" / name for name in ("findings.py", "settings.py")]
    sources += [ROOT / "src/portalshield/layers" / f"{name}.py" for name in ("cors", "csrf", "headers", "hosts")]
    said = {found for path in sources for found in EDGE.findall(path.read_text("utf-8"))}
    said |= {f"PS-CORS-{code}" for code in CODES}
    assert len(said) >= 40
    pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert sorted(said - set(EDGE.findall(pages))) == []
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    # Tables of ids by number: PS-CORS-<code> and PS-HEAD-<code>.
    numbered = {f"PS-{group}-{code}" for group in ("CORS", "HEAD") for code in re.findall(r'"(\d{3})"', tests)}
    assert sorted(said - set(EDGE.findall(tests)) - numbered) == []
