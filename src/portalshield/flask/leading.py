"""The rule that the policy was applied to is the one that runs: the application does not look for it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask, Request
from werkzeug.routing import Map, MapAdapter, Rule

from portalshield.context import CURRENT, MARK
from portalshield.model.exchange import Exchange
from portalshield.wsgi.fields import path_of

_ONLY_RULE = {"return_rule": True}


def lead(app: Flask) -> None:
    """Have the application tell that a request arrived, and answer it with the rule that the table found where it would
    ask the same map the same question."""
    create = app.create_url_adapter
    leads = _binds_as_flask_does(app)

    def leading(at: Request | None) -> MapAdapter | None:
        if at is None:
            return create(at)
        x = at.environ.get(MARK)
        if type(x) is not Exchange:
            current = CURRENT.get()  # a new environ, perhaps not for the same application
            if current is not None:
                current.reached = True
            return create(at)
        x.reached = True
        if not leads or not _would_find_the_same(app, x, at):
            return create(at)
        return _Decided(partial(create, at), x.endpoint, x.arguments)

    app.create_url_adapter = leading  # type: ignore[method-assign, assignment]


def _binds_as_flask_does(app: Flask) -> bool:
    """By path and method alone, with a map that chooses as maps do."""
    return (
        "create_url_adapter" not in vars(app)
        and type(app).create_url_adapter is Flask.create_url_adapter
        and type(app.url_map) is Map
        and not app.url_map.host_matching
        and not app.subdomain_matching
    )


def _would_find_the_same(app: Flask, x: Exchange, at: Request) -> bool:
    """The table has asked this very map about what the environ still says, and nothing else decides."""
    environ, rule = at.environ, x.endpoint
    return (
        type(rule) is Rule
        and rule.map is app.url_map
        and environ["REQUEST_METHOD"] == x.method
        and path_of(environ.get("PATH_INFO", "")) == (x.rest or x.path)
        and "HTTP_UPGRADE" not in environ  # a WebSocket is told of a rule that takes none
        and at.trusted_hosts is None
        and app.config.get("TRUSTED_HOSTS") is None  # from Flask 3.1 on
    )


class _Decided(MapAdapter):
    """The adapter of a request whose rule is known already. It is bound when anything else is asked of it."""

    def __init__(self, bind: Callable[[], MapAdapter | None], rule: Rule, arguments: Mapping[str, Any]) -> None:
        self._bind = bind
        self._rule = rule
        self._arguments = arguments

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "map" in vars(self):
            raise AttributeError(name)
        vars(self).update(vars(self._bind()))
        return getattr(self, name)

    def match(self, *args: Any, **kwargs: Any) -> Any:
        """What was found, where nothing but `return_rule=True` is asked."""
        if args or kwargs != _ONLY_RULE:
            return super().match(*args, **kwargs)
        return self._rule, dict(self._arguments)  # the application may write into what it gets
