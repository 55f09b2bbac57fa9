"""The rules of Flask and Quart, which both leave routing to Werkzeug."""

from __future__ import annotations

import contextlib
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.contract import Pairs, Request, declared, environ_path, path_below, settled, toggled
from scaleobs.routes.notes import NOTE, note, noted

_MADE = "scaleobs.request"


class FlaskRoutes:
    """The rules of an application, by the request that a hook leaves in the environ when it is made."""

    clue = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        if "request_context" not in vars(app):
            app.request_context = _leaving(app.request_context)

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, of slash redirects and wrong methods too."""
        if NOTE not in request:
            made = request.pop(_MADE, None)  # It holds the environ, so they would keep each other.
            rule = getattr(made, "url_rule", None)
            if rule is not None:
                request[NOTE] = str(rule.rule)
            else:
                request[NOTE] = _rule_of(self._app, made, environ_path(request), request.get("REQUEST_METHOD", ""))
        return noted(request)

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known


class QuartRoutes:
    """The rules of an application, by what a hook around its handling leaves in the scope."""

    clue = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        for name in ("handle_request", "handle_websocket"):
            if name not in vars(app):
                setattr(app, name, _noting(getattr(app, name)))

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, of slash redirects and wrong methods too."""
        if NOTE in request:
            return noted(request)
        made = request.get(_MADE)
        rule = getattr(made, "url_rule", None)
        if rule is not None:
            return str(rule.rule), False
        if request.get("type") != "http":
            return UNMATCHED_ROUTE, False
        path = path_below(request.get("path", ""), request.get("root_path", ""))
        return _rule_of(self._app, made, path, request.get("method", "")), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known


def _leaving(make: Any) -> Any:
    def make_and_leave(environ: Any) -> Any:
        context = make(environ)
        with contextlib.suppress(Exception):  # Then the path tells.
            environ[_MADE] = context.request
        return context

    return make_and_leave


def _noting(handle: Any) -> Any:
    async def handle_and_note(made: Any) -> Any:
        scope = getattr(made, "scope", {})
        # A client may go before it is handled, so it is left here; no longer than that, since it holds the scope.
        scope[_MADE] = made
        try:
            return await handle(made)
        finally:
            if scope.pop(_MADE, None) is not None:
                note(scope, lambda: None if made.url_rule is None else str(made.url_rule.rule))

    return handle_and_note


def _pairs(app: Any) -> list[tuple[str, str]]:
    rules = [rule for rule in app.url_map.iter_rules() if not getattr(rule, "websocket", False)]
    return [(method, str(rule.rule)) for rule in rules for method in declared(rule.methods or ())]


def _rule_of(app: Any, made: Any, path: str, method: str) -> str:
    """Return the rule of a path that was not routed, or that routing redirects or refuses for its method."""
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    error = getattr(made, "routing_exception", None)
    if error is not None and not isinstance(error, MethodNotAllowed | RequestRedirect):
        return UNMATCHED_ROUTE
    try:
        adapter = app.create_url_adapter(made) if error is not None else app.url_map.bind("", path_info=path)
        if error is None:
            error = _refusal(adapter, path, method)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            method = next(iter(error.valid_methods))
        if isinstance(error, RequestRedirect):
            path = toggled(path)
        return str(adapter.match(path, method, return_rule=True)[0].rule)
    except HTTPException:
        return UNMATCHED_ROUTE


def _refusal(adapter: Any, path: str, method: str) -> Any:
    from werkzeug.exceptions import MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    try:
        adapter.match(path, method)
    except (MethodNotAllowed, RequestRedirect) as error:
        return error
    return None
