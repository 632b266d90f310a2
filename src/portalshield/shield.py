"""`Shield(app)`: the one line. It finds out what the application is and has that framework's file install the doors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from portalshield.explain import Explanation, explain, own_page
from portalshield.findings import Finding, findings
from portalshield.layers.owners import Owner
from portalshield.model.policy import Policy
from portalshield.model.setting import ConfigurationError, ConfigurationProblem
from portalshield.protection import Authenticate, Protection, TenantLookup
from portalshield.report import RouteReport, Survey, reports, senders
from portalshield.routes import Row
from portalshield.rules.detectors import Detector
from portalshield.settings import Settings
from portalshield.telemetry.metrics import Metrics


class Shield:
    """Protects one application, in place: `type(app)`, its test client and its OpenAPI stay as they were.

    `settings` default to the environment (for Flask overlaid by `app.config["PORTALSHIELD_*"]`); nothing is read
    before there is an application. `policies` are terms by route pattern; `owners` tell whose an object id is.
    `authenticate(request)` returns a `Principal` or None and replaces `AUTH`; `tenant_of(principal)` returns a tenant,
    several or None where the credential names none; all of them sync or async. `detectors` find what else must not
    leave in logs and Sentry events. Raises `ConfigurationError` with every
    mistake at once, `TypeError` for an application that is neither FastAPI, Starlette nor Flask (wrap those in a
    `ShieldMiddleware`).
    """

    def __init__(
        self,
        app: Any = None,
        *,
        settings: Settings | None = None,
        policies: Iterable[Policy] = (),
        owners: Mapping[str, Owner] | None = None,
        authenticate: Authenticate | None = None,
        tenant_of: TenantLookup | None = None,
        detectors: Iterable[Detector] = (),
    ) -> None:
        self._settings = settings
        self._policies = tuple(policies)
        self._owners = dict(owners or {})
        self._authenticate = authenticate
        self._tenant_of = tenant_of
        self._detectors = tuple(detectors)
        self._protection: Protection | None = None
        self._app: Any = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Install the shield; an application that has one already keeps it."""
        kind = framework_of(app)
        if kind is None:
            raise TypeError(
                f"Shield installs itself into FastAPI, Starlette and Flask applications, not {type(app).__name__}: "
                "wrap this one in portalshield.asgi.ShieldMiddleware or portalshield.wsgi.ShieldMiddleware"
            )
        self._app = app
        installed = Shield.of(app)
        if installed is not None:
            self._protection = installed.protection
            return
        self._protect(getattr(app, "config", {}) if kind == "flask" else {})
        _framework_file(kind).install(app, self)
        if kind == "starlette" and "fastapi" in sys.modules:
            _framework_file("fastapi").keep_input_out(app)

    @staticmethod
    def of(app: Any) -> Shield | None:
        """The shield that an application has, or None."""
        kind = framework_of(app)
        found = _framework_file(kind).installed(app) if kind is not None else None
        return found if isinstance(found, Shield) else None

    @property
    def protection(self) -> Protection:
        """Settings and policies, checked. Reads the environment when first asked."""
        return self._protection or self._protect({})

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.protection.settings

    @property
    def metrics(self) -> Metrics:
        """What is counted, for a page or an exporter of your own: `telemetry.exposition.collect_into(shield.metrics)`,
        `telemetry.otel.observe(shield.metrics)`."""
        return self.protection.metrics

    def revoke(
        self,
        *,
        jti: str | None = None,
        sid: str | None = None,
        subject: str | None = None,
        tenant: str | None = None,
        issuer: str | None = None,
        before: float | None = None,
    ) -> None:
        """Refuse tokens that are still valid: those with this id, of this session, subject, tenant or issuer.

        Each handle that is named counts by itself. `before` (Unix seconds, default now): what was issued earlier is
        refused, so that later logins work; a token or session is ended for good unless `before` is given. Tokens carry
        whole seconds: one issued within this very second counts as earlier, and so does one that does not say when.

        Counts here at once, and with Redis in all processes within five seconds. Blocks for one round trip, so call it
        from a thread where an event loop must not wait. Returns only when it is certain; else it raises
        `ConnectionError` (Redis did not confirm), `ValueError` or `TypeError` (nothing would be revoked),
        `RuntimeError` (no tokens are verified here), `OverflowError` (too many).
        """
        self.protection.revoke({"jti": jti, "sid": sid, "subject": subject, "tenant": tenant, "issuer": issuer}, before)

    def key_sets(self) -> dict[str, dict[str, Any]]:
        """For readiness checks: per issuer whose keys are fetched, whether there are any, how old, what went wrong."""
        return {
            name: {
                "ready": keys.ready,
                "age_s": keys.age_s,
                "generation": keys.generation,
                "failures": keys.failures,
                "unknown_kids": keys.unknown_kids,
            }
            for name, keys in self.protection.keys.items()
        }

    def routes(self) -> list[RouteReport]:
        """Every route with its protections, in the application's order of precedence."""
        return reports(self._rows())

    def survey(self) -> Survey:
        """The same as far as it can be compiled, with what keeps the application from starting."""
        rows, problems = self._rows_so_far()
        return Survey(tuple(reports(rows)), problems, senders(rows, self.protection.rows, self.settings))

    def check(self) -> list[Finding]:
        """What a deployment should know: dangerous settings, routes without a decision, wiring."""
        return findings(self.protection, self._rows(), self._app)

    def coverage(self) -> dict[str, tuple[int, int]]:
        """What the response guard could judge since the start, in this process, by route template: how many JSON
        answers to tenants carried a tenant field, and how many did not (or were streamed, compressed, too large)."""
        return self.protection.coverage()

    def _protect(self, config: Mapping[str, Any]) -> Protection:
        self._protection = Protection(
            self._settings,
            self._policies,
            self._authenticate,
            self._tenant_of,
            self._owners,
            config,
            self._detectors,
        )
        return self._protection

    def explain(self, method: str, path: str, headers: Mapping[str, str], data: bytes | None = None) -> Explanation:
        """Which layer decides what about this request, and why; nothing is sent, counted or asked of the application.

        `method` may be `WS` for a WebSocket. `data` is the body; what reads it is not judged without."""
        settings = self.settings
        table = self._table()
        sent = path.partition("?")[0]
        if sent == settings.metrics.path and method in ("GET", "HEAD"):
            return own_page(method, path, token=settings.metrics.token is not None)
        if method == "WS" and framework_of(self._app) == "flask":
            raise ValueError("Flask serves no WebSockets")
        self.protection.revocations.look()
        named = {"host": settings.hosts.example("localhost"), **{name.lower(): text for name, text in headers.items()}}
        return explain(table, method, path, named, _native(method, path, named["host"]), data)

    def _rows(self) -> list[Row]:
        """The compiled routes; raises `ConfigurationError` where the wiring is wrong."""
        rows: list[Row] = self._table().listed() if self._app is not None else []
        return rows

    def _rows_so_far(self) -> tuple[list[Row], tuple[ConfigurationProblem, ...]]:
        try:
            return self._rows(), ()
        except ConfigurationError as error:
            kind = framework_of(self._app)
            table = getattr(_framework_file(kind), "FlaskTable" if kind == "flask" else "StarletteTable")
            rows: list[Row] = table(self._app, self.protection.build(), self.protection.rows).listed()
            return rows, error.problems

    def _table(self) -> Any:
        if self._app is None:
            raise LookupError("this shield protects no application yet: call init_app(app)")
        table, _ = _framework_file(framework_of(self._app)).tabulate(
            self._app, self.protection.build(), self.protection.rows
        )
        return table


def _native(method: str, path: str, host: str) -> dict[str, Any]:
    """A scope and an environ in one, as far as the frameworks' own tables look at them."""
    sent, _, query = path.partition("?")
    decoded = unquote(sent)
    return {
        "type": "websocket" if method == "WS" else "http",
        "method": method,
        "path": decoded,
        "root_path": "",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": decoded.encode("utf-8", "surrogatepass").decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": "443",
        "HTTP_HOST": host,
        "wsgi.url_scheme": "https",
    }


def _framework_file(kind: str | None) -> Any:
    """`portalshield.flask` or `portalshield.starlette`, imported only where the application uses it."""
    return import_module(f"portalshield.{kind}")


def framework_of(app: Any) -> str | None:
    """By the names of its classes, so that no framework is imported that the application does not use."""
    for kind in type(app).__mro__:
        root = kind.__module__.partition(".")[0]
        if root == "flask" and kind.__name__ == "Flask":
            return "flask"
        if root == "starlette" and kind.__name__ == "Starlette":
            return "starlette"
    return None
