"""
The route template of a request, which is what its series are labelled with; never the path, which a client
makes up.

Each framework is asked in its own way, by looking at the objects that the application brings: none is
imported here before the application has imported it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE

Environ = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]

NOTE = "scaleobs.route"
"""The key in a WSGI environ, or an ASGI scope, under which a framework's hook leaves the template."""


def of_environ(environ: Environ) -> str:
    """Return the template that the framework's hook noted."""
    return str(environ.get(NOTE, UNMATCHED_ROUTE))


def of_scope(scope: Scope, app: Any = None) -> str:
    """
    Return the template that a hook noted, or that Starlette's or FastAPI's routing left in the scope.

    Args:
        scope: as the application left it.
        app: the outermost application; where it is not known, the innermost one that routed, which the scope names.
    """
    if NOTE in scope:
        return str(scope[NOTE])
    app = scope.get("app") if app is None else app
    if app is None or not hasattr(app, "router"):
        return UNMATCHED_ROUTE
    table = getattr(app.state, _TABLE, None) if hasattr(app, "state") else None
    if table is None:
        table = RouteTable(app)
        setattr(app.state, _TABLE, table)
    return table.find(scope)


def watch_framework(app: Any) -> None:
    """Have a Flask application or a Django handler note its templates; does nothing for any other."""
    app = getattr(app, "__self__", app)  # Flask's `app.wsgi_app` is a bound method.
    if hasattr(app, "before_request_funcs") and hasattr(app, "url_map"):
        _watch_flask(app)
    elif hasattr(app, "resolve_request") and hasattr(app, "load_middleware"):
        _watch_django(app)


# --- Starlette and FastAPI
# --------------------------------------------------------------------------------------------

_TABLE = "_scaleobs_routes"


class _Entry:
    """One route of an application, with the template that its mounts and routers add up to."""

    __slots__ = ("is_mount", "pattern", "route", "template")

    def __init__(self, route: Any, path: str, *, is_mount: bool = False) -> None:
        from starlette.routing import compile_path  # The application has loaded it, or there were no routes.

        self.route = route
        self.is_mount = is_mount
        self.pattern: re.Pattern[str]
        self.pattern, template, _ = compile_path(path + "/{scaleobs_rest:path}" if is_mount else path)
        self.template = (template.removesuffix("/{scaleobs_rest}") if is_mount else template) or "/"


class RouteTable:
    """
    Every route of a Starlette or FastAPI application, by what routing leaves in the scope.

    Routing leaves the endpoint, and in newer versions the route. Mostly the endpoint alone tells the
    template; where one function serves several routes, the route or the path decides among them. Nothing is
    found by path unless routing left nothing, as for slash redirects and for answers that a middleware gave.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._entries: list[_Entry] = []
        self._by_endpoint: dict[int, list[_Entry]] = {}
        self._routes_seen = -1

    def find(self, scope: Scope) -> str:
        """Return the template of a request that the application has handled."""
        endpoint = scope.get("endpoint")
        candidates = self._by_endpoint.get(id(endpoint)) if endpoint is not None else None
        if candidates is None and self._routes_seen != (now := _count(self._app.router.routes)):
            self._read()
            self._routes_seen = now
            candidates = self._by_endpoint.get(id(endpoint)) if endpoint is not None else None
        if candidates is not None and len(candidates) == 1:
            return candidates[0].template
        path = _route_path(scope)
        if candidates is None:
            candidates = [entry for entry in self._entries if not entry.is_mount]
            return _first_match(candidates, path) or _first_match(candidates, _toggled(path)) or UNMATCHED_ROUTE
        return _first_match(candidates, path) or UNMATCHED_ROUTE

    def _read(self) -> None:
        # The entries keep the endpoints alive, so that an id never comes to mean another object.
        self._entries, self._by_endpoint = [], {}
        for endpoint, entry in _walk(self._app.router.routes, "", depth=0):
            self._entries.append(entry)
            self._by_endpoint.setdefault(id(endpoint), []).append(entry)


def _walk(routes: Any, prefix: str, depth: int) -> Iterator[tuple[Any, _Entry]]:
    if depth > 20:  # noqa: PLR2004 - An application that is mounted within itself.
        return
    for route in routes:
        # FastAPI keeps an included router as one object and makes the whole templates beside it (0.137 on).
        if hasattr(route, "effective_route_contexts"):
            for context in route.effective_route_contexts():
                original = context.original_route
                whole = context.starlette_route if context.starlette_route is not None else context
                yield from _entries(whole, getattr(original, "endpoint", None) or whole, prefix, depth)
        else:
            yield from _entries(route, getattr(route, "endpoint", None), prefix, depth)


def _entries(route: Any, endpoint: Any, prefix: str, depth: int) -> Iterator[tuple[Any, _Entry]]:
    path = getattr(route, "path", None)
    app = getattr(route, "app", None)
    inner = getattr(route, "routes", None)
    if hasattr(route, "host") and path is None:  # starlette.routing.Host
        yield from _walk(inner or [], prefix, depth + 1)
    elif inner is not None and isinstance(path, str):  # starlette.routing.Mount
        if not inner:  # Static files, or an application whose routes can't be seen: one template for all of it.
            yield app, _Entry(route, prefix + path, is_mount=True)
        yield from _walk(inner, prefix + path, depth + 1)
    elif isinstance(path, str):
        yield endpoint, _Entry(route, prefix + path)


def _count(routes: Any, depth: int = 0) -> int:
    """Return how many routes there are now, to see when more were added."""
    if depth > 20:  # noqa: PLR2004
        return 0
    return sum(
        1
        + _count(
            getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", ()),
            depth + 1,
        )
        for route in routes
    )


def _route_path(scope: Scope) -> str:
    """Return the path below the server's `root_path`; a mount appends to it, and keeps the first one aside."""
    path: str = scope.get("path", "")
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def _toggled(path: str) -> str:
    return path.rstrip("/") if path.endswith("/") else path + "/"


def _first_match(entries: list[_Entry], path: str) -> str | None:
    return next((entry.template for entry in entries if entry.pattern.match(path)), None)


# --- Flask
# ------------------------------------------------------------------------------------------------------------


def _watch_flask(app: Any) -> None:
    def note_route() -> None:
        from flask import request

        rule = request.url_rule
        if rule is None:
            rule = _flask_rule_of_error(app, request)
        if rule is not None:
            request.environ[NOTE] = rule.rule

    # First of all, so that a hook of the application that answers by itself finds the note made.
    app.before_request_funcs.setdefault(None, []).insert(0, note_route)


def _flask_rule_of_error(app: Any, request: Any) -> Any:
    """Return the rule that a slash redirect leads to, or whose methods don't include the request's, or `None`."""
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    error = request.routing_exception
    adapter = app.create_url_adapter(request)
    try:
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            return adapter.match(method=next(iter(error.valid_methods)), return_rule=True)[0]
        if isinstance(error, RequestRedirect):
            return adapter.match(path_info=_toggled(request.path), return_rule=True)[0]
    except HTTPException:
        return None
    return None


# --- Django
# -----------------------------------------------------------------------------------------------------------


def _watch_django(handler: Any) -> None:
    resolve = handler.resolve_request

    def resolve_and_note(request: Any) -> Any:
        from django.urls import Resolver404

        notes = request.scope if hasattr(request, "scope") else request.META
        try:
            match = resolve(request)
        except Resolver404:
            template = _django_slash_route(request)
            if template is not None:
                notes[NOTE] = template
            raise
        notes[NOTE] = _django_template(match.route)
        return match

    handler.resolve_request = resolve_and_note


def _django_slash_route(request: Any) -> str | None:
    """Return the route that `APPEND_SLASH` redirects to."""
    from django.conf import settings
    from django.urls import Resolver404, resolve

    if not settings.APPEND_SLASH or request.path_info.endswith("/"):
        return None
    try:
        return _django_template(resolve(f"{request.path_info}/", getattr(request, "urlconf", None)).route)
    except Resolver404:
        return None


def _django_template(route: str) -> str:
    """Return a route as the others are written: from the root, without the anchors of `re_path`."""
    return "/" + route.replace("^", "").removesuffix("$").removesuffix(r"\Z").lstrip("/")
