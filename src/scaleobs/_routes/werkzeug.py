"""The rules of Flask and Quart, which both use Werkzeug's routing."""

from __future__ import annotations

from typing import Any

from scaleobs._routes.exceptions import note_error, without_trace
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
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE

_REQUEST = "scaleobs.request"
_MAX_ROOTS = 16


class FlaskRoutes:
    """The rules of an application, by what a hook around its dispatching writes into the environ."""

    route_key = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        current = app.full_dispatch_request
        hook = getattr(current, "__self__", None) or getattr(current, "hook", None)
        if not isinstance(hook, _Hook):
            hook = _Hook(app)
            app.full_dispatch_request = hook.dispatch
        self._hook = hook
        self._roots = hook.roots

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, also of slash redirects and wrong methods."""
        if NOTE in request:
            return recall(request)
        # The application was not called. Either a middleware around it answered; then the path determines the rule. Or
        # a dispatcher called another application, whose root is a part of the path.
        root = request.get("SCRIPT_NAME", "")
        if root and root not in self._roots:
            return UNMATCHED_ROUTE, False
        return _rule_of(self._app, None, environ_path(request), request.get("REQUEST_METHOD", "")), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        self._app.full_dispatch_request = self._hook.dispatch_visited


class QuartRoutes:
    """The rules of an application, by what a hook around its handling writes into the scope."""

    route_key = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        for name in ("handle_request", "handle_websocket"):
            if name not in vars(app):
                setattr(app, name, _remembering(app, getattr(app, name)))
        _note_exceptions_of_quart(app)

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, also of slash redirects and wrong methods."""
        if NOTE in request:
            return recall(request)
        return _current_rule(self._app, request.get(_REQUEST), request), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app))
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        app = self._app
        for name in ("handle_request", "handle_websocket"):
            setattr(app, name, visiting(app, getattr(app, name), lambda request: request.scope))


class _Hook:
    """
    The hook of a Flask application, which writes the rule into the environ before the request is dispatched.

    Attributes:
        roots: the roots that the application was called with.
    """

    def __init__(self, app: Any) -> None:
        from flask import request

        self._app = app
        self._dispatch = app.full_dispatch_request
        _note_exceptions_of_flask(app)
        # An attribute of the proxy `request` takes ten times as long as the request object.
        self._current = request._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001 - Flask documents it.
        self.roots: set[str] = set()
        self.dispatch_visited = visiting(app, self.dispatch, lambda *_: self._current().environ)
        self.dispatch_visited.hook = self  # type: ignore[attr-defined]

    def dispatch(self, *context: Any) -> Any:
        """Dispatch the request of the current context."""
        try:
            current = self._current
            request: Any = current()
            environ = request.environ
            try:
                rule = request.url_rule
                if rule is not None and environ.get("SCRIPT_NAME", "") in self.roots:
                    environ[NOTE] = rule.rule
                else:
                    environ[NOTE] = self._rule(request, environ)
            except Exception as error:
                environ[NOTE] = error  # Raised by `recall`.
        except Exception:  # noqa: S110 - Without a readable request, the path determines the rule.
            pass
        dispatch = self._dispatch
        return dispatch(*context) if context else dispatch()

    def _rule(self, request: Any, environ: Any) -> str:
        root = environ.get("SCRIPT_NAME", "")
        if root not in self.roots and len(self.roots) < _MAX_ROOTS:
            self.roots.add(root)
        if request.url_rule is not None:
            return str(request.url_rule.rule)
        return _rule_of(self._app, request, environ_path(environ), environ.get("REQUEST_METHOD", ""))


def _remembering(app: Any, handle: Any) -> Any:
    async def handle_and_remember(request: Any) -> Any:
        scope = getattr(request, "scope", {})
        # The scope has the request until it is handled, in case the client disconnects before. Not longer: the request
        # refers to the scope.
        scope[_REQUEST] = request
        try:
            return await handle(request)
        finally:
            if scope.pop(_REQUEST, None) is not None:
                remember(scope, lambda: _current_rule(app, request, scope))

    return handle_and_remember


def _current_rule(app: Any, request: Any, scope: Request) -> str:
    """Return the rule of a request to Quart, which may not be routed yet."""
    rule = getattr(request, "url_rule", None)
    if rule is not None:
        return str(rule.rule)
    if scope.get("type") != "http":
        return UNMATCHED_ROUTE
    path = path_below(scope.get("path", ""), scope.get("root_path", ""))
    return _rule_of(app, request, path, scope.get("method", ""))


def _pairs(app: Any) -> list[tuple[str, str]]:
    rules = [rule for rule in app.url_map.iter_rules() if not getattr(rule, "websocket", False)]
    return [(method, str(rule.rule)) for rule in rules for method in explicit_methods(rule.methods or ())]


def _rule_of(app: Any, request: Any, path: str, method: str) -> str:
    """Return the rule of a path that is not routed, or that routing redirects or refuses because of its method."""
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    error = getattr(request, "routing_exception", None)
    if error is not None and not isinstance(error, MethodNotAllowed | RequestRedirect):
        return UNMATCHED_ROUTE
    try:
        adapter = app.create_url_adapter(request) if error is not None else app.url_map.bind("", path_info=path)
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


def _note_exceptions_of_flask(app: Any) -> None:
    """Note the exceptions that an application's handlers answer, and those that Flask answers with a 500 and logs."""
    from flask import got_request_exception

    handle = app.handle_user_exception

    def note_and_handle(*args: Any) -> Any:
        note_error(args[-1], _environ_of_flask)  # A later Flask passes its context first.
        return handle(*args)

    app.handle_user_exception = note_and_handle
    app.log_exception = without_trace(app.log_exception)
    got_request_exception.connect(_note_in_flask, app)


def _note_in_flask(_app: Any, exception: BaseException, **_: Any) -> None:
    note_error(exception, _environ_of_flask)


def _environ_of_flask() -> Any:
    from flask import request

    return request.environ


def _note_exceptions_of_quart(app: Any) -> None:
    """Do the same for Quart."""
    from quart import got_request_exception, got_websocket_exception

    if "handle_user_exception" in vars(app):
        return
    handle = app.handle_user_exception

    async def note_and_handle(*args: Any) -> Any:
        note_error(args[-1], _scope_of_quart)
        return await handle(*args)

    app.handle_user_exception = note_and_handle
    app.log_exception = without_trace(app.log_exception)
    got_request_exception.connect(_note_in_quart, app)
    got_websocket_exception.connect(_note_in_quart, app)


async def _note_in_quart(_app: Any, exception: BaseException, **_: Any) -> None:
    note_error(exception, _scope_of_quart)


def _scope_of_quart() -> Any:
    from quart import has_request_context, request, websocket

    return request.scope if has_request_context() else websocket.scope
