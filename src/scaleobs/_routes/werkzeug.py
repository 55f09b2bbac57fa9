"""The rules of Flask and Quart, which both leave routing to Werkzeug."""

from __future__ import annotations

from typing import Any

from scaleobs._routes.interface import (
    NOTE,
    Pairs,
    Request,
    environ_path,
    explicit_methods,
    path_below,
    recall,
    remember,
    settled,
    toggle_slash,
)
from scaleobs.catalog import UNMATCHED_ROUTE

_MADE = "scaleobs.request"
_MOST_ROOTS = 16


class FlaskRoutes:
    """The rules of an application, by what a hook around its dispatching leaves in the environ."""

    route_key = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        hook = getattr(app.full_dispatch_request, "__self__", None)
        if not isinstance(hook, _Hook):
            hook = _Hook(app)
            app.full_dispatch_request = hook.dispatch
        self._roots = hook.roots

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, of slash redirects and wrong methods too."""
        if NOTE in request:
            return recall(request)
        # Something else answered: a middleware around the application, to which the path tells the rule, or another
        # application that a dispatcher has called with a part of the path as its root.
        root = request.get("SCRIPT_NAME", "")
        if root and root not in self._roots:
            return UNMATCHED_ROUTE, False
        return _rule_of(self._app, None, environ_path(request), request.get("REQUEST_METHOD", "")), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known


class QuartRoutes:
    """The rules of an application, by what a hook around its handling leaves in the scope."""

    route_key = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        for name in ("handle_request", "handle_websocket"):
            if name not in vars(app):
                setattr(app, name, _noting(app, getattr(app, name)))

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, of slash redirects and wrong methods too."""
        if NOTE in request:
            return recall(request)
        return _rule_now(self._app, request.get(_MADE), request), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known


class _Hook:
    """
    The hook of a Flask application, which notes what was routed before its dispatching.

    Attributes:
        roots: the roots that the application was called below.
    """

    def __init__(self, app: Any) -> None:
        from flask import request

        self._app = app
        self._dispatch = app.full_dispatch_request
        # An attribute of `request` takes ten times as long as the request itself.
        self._current = request._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001 - As Flask says.
        self.roots: set[str] = set()

    def dispatch(self, *context: Any) -> Any:
        """Dispatch the request of the context that was pushed."""
        try:
            current = self._current
            made: Any = current()
            environ = made.environ
            try:
                rule = made.url_rule
                if rule is not None and environ.get("SCRIPT_NAME", "") in self.roots:
                    environ[NOTE] = rule.rule
                else:
                    environ[NOTE] = self._rule(made, environ)
            except Exception as error:
                environ[NOTE] = error  # Raised by `noted`.
        except Exception:  # noqa: S110 - There is no request, or one that can't be looked at: then the path tells.
            pass
        dispatch = self._dispatch
        return dispatch(*context) if context else dispatch()

    def _rule(self, made: Any, environ: Any) -> str:
        root = environ.get("SCRIPT_NAME", "")
        if root not in self.roots and len(self.roots) < _MOST_ROOTS:
            self.roots.add(root)
        if made.url_rule is not None:
            return str(made.url_rule.rule)
        return _rule_of(self._app, made, environ_path(environ), environ.get("REQUEST_METHOD", ""))


def _noting(app: Any, handle: Any) -> Any:
    async def handle_and_note(made: Any) -> Any:
        scope = getattr(made, "scope", {})
        # A client may go before it is handled, so it is left here; no longer than that, since it holds the scope.
        scope[_MADE] = made
        try:
            return await handle(made)
        finally:
            if scope.pop(_MADE, None) is not None:
                remember(scope, lambda: _rule_now(app, made, scope))

    return handle_and_note


def _rule_now(app: Any, made: Any, scope: Request) -> str:
    """Return the rule of a request to Quart, as far as it has come."""
    rule = getattr(made, "url_rule", None)
    if rule is not None:
        return str(rule.rule)
    if scope.get("type") != "http":
        return UNMATCHED_ROUTE
    path = path_below(scope.get("path", ""), scope.get("root_path", ""))
    return _rule_of(app, made, path, scope.get("method", ""))


def _pairs(app: Any) -> list[tuple[str, str]]:
    rules = [rule for rule in app.url_map.iter_rules() if not getattr(rule, "websocket", False)]
    return [(method, str(rule.rule)) for rule in rules for method in explicit_methods(rule.methods or ())]


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
            path = toggle_slash(path)
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
