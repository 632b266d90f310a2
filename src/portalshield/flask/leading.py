"""The rule that the policy was applied to is the one that runs: the application does not look for it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Flask, Request
from werkzeug.routing import Map, MapAdapter, Rule

from portalshield.context import MARK
from portalshield.model.exchange import Exchange
from portalshield.wsgi.fields import path_of

_ONLY_RULE = {"return_rule": True}


def route_once(app: Flask) -> None:
    """Answer the application with the rule that the table found, where it would ask the same map the same question."""
    if "create_url_adapter" in vars(app) or type(app).create_url_adapter is not Flask.create_url_adapter:
        return  # an application that binds its own way finds its own way
    create = app.create_url_adapter

    def deciding(at: Request | None) -> MapAdapter | None:
        x = at.environ.get(MARK) if at is not None else None
        if at is None or type(x) is not Exchange or not _would_find_the_same(app, x, at):
            return create(at)
        return _Decided(partial(create, at), x.endpoint, x.arguments)

    app.create_url_adapter = deciding  # type: ignore[method-assign, assignment]


def _would_find_the_same(app: Flask, x: Exchange, at: Request) -> bool:
    """The table has asked this very map about what the environ still says, and nothing else decides."""
    environ, rule, rules = at.environ, x.endpoint, app.url_map
    return (
        type(rule) is Rule
        and type(rules) is Map
        and rule.map is rules
        and environ["REQUEST_METHOD"] == x.method
        and path_of(environ.get("PATH_INFO", "")) == (x.rest or x.path)
        and "HTTP_UPGRADE" not in environ  # a WebSocket is told of a rule that takes none
        and at.trusted_hosts is None
        and app.config["TRUSTED_HOSTS"] is None
        and not rules.host_matching
        and not app.subdomain_matching
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
