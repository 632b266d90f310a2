"""What an application serves: its rules as routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

from portalshield.model.policy import terms_of, terms_of_view
from portalshield.routes import Route
from portalshield.rules.patterns import PARAMETER, REST

_CONVERTER = re.compile(r"<(?:(?P<kind>[a-zA-Z_]\w*)(?:\((?P<arguments>[^>]*?)\))?:)?(?P<name>[a-zA-Z_]\w*)>")
_LASTING = ("werkzeug.routing.converters",)


def listed(app: Flask, rule: Rule) -> Route:
    view = app.view_functions.get(rule.endpoint)
    return Route(
        template=_CONVERTER.sub(lambda match: "{" + match["name"] + "}", rule.rule),
        segments=_segments(app, rule),
        methods=frozenset(rule.methods) if rule.methods else None,
        key=rule,
        terms=lambda method: _terms(view, method),
        source=f"{getattr(view, '__module__', '?')}.{getattr(view, '__qualname__', '?')}",
        parameters=tuple(sorted(rule.arguments)),
        static=_serves_files(app, rule, view),
        lasting=all(app.url_map.converters[kind].__module__ in _LASTING for kind in _kinds(rule.rule)),
    )


def _serves_files(app: Flask, rule: Rule, view: Any) -> bool:
    """The rule that Flask itself made for a static folder; a view that is only called so is like any other."""
    if rule.endpoint == "static":
        return app.has_static_folder and rule.rule == f"{app.static_url_path}/<path:filename>"
    blueprint = app.blueprints.get(rule.endpoint.removesuffix(".static"))
    owner = getattr(view, "__self__", None)
    return blueprint is not None and blueprint.has_static_folder and isinstance(owner, type(blueprint))


def _segments(app: Flask, rule: Rule) -> tuple[str, ...]:
    segments: list[str] = []
    for part in _CONVERTER.sub(lambda match: match[0].replace("/", ""), rule.rule)[1:].split("/"):
        kinds = _kinds(part)
        if any(not app.url_map.converters[kind].part_isolating for kind in kinds):
            return (*segments, REST)
        segments.append(PARAMETER if kinds else part)
    return tuple(segments)


def _terms(view: Any, method: str) -> Mapping[str, Any]:
    """The view's decorators; of a class-based view the class first, then its method, then the view function."""
    view_class = getattr(view, "view_class", None)
    return {**(terms_of_view(view_class, method) if view_class is not None else {}), **terms_of(view)}


def _kinds(text: str) -> list[str]:
    """The names of the converters in a rule, or in a part of one."""
    return [match["kind"] or "default" for match in _CONVERTER.finditer(text)]
