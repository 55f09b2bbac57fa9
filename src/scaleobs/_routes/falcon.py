"""The URI templates of Falcon, under WSGI and ASGI."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from scaleobs._routes.exceptions import note_error
from scaleobs._routes.interface import (
    NOTE,
    Pairs,
    Request,
    environ_path,
    explicit_methods,
    listed,
    path_below,
    recall,
    remember,
)
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE


class FalconRoutes:
    """The templates of an application, by what a hook in its search writes into the request."""

    route_key = NOTE

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()
        self._seen: tuple[list[Any], list[Any]] | None = None
        search = getattr(app, "_router_search", None)
        if search is not None and not isinstance(search, _Search):
            app._router_search = _Search(app, search)  # noqa: SLF001 - Falcon has no public place for the matched template.
        handlers = getattr(app, "_error_handlers", None)
        if type(handlers) is dict:  # An application has no other place for a function that handles every exception.
            app._error_handlers = _Handlers(handlers)  # noqa: SLF001

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template, or the prefix of static files or a sink."""
        if NOTE in request:
            return recall(request)
        if "PATH_INFO" in request:
            path = environ_path(request) or "/"
        else:
            path = path_below(request.get("path", ""), request.get("root_path", "")) or "/"
        if self._app.req_options.strip_url_path_trailing_slash and path != "/":
            path = path.rstrip("/")
        return self._unrouted(path), False

    def known(self) -> Pairs:
        """Return every method that a resource answers, with its template."""
        nodes = [node for node in _nodes(getattr(self._router(), "_roots", ())) if node.resource is not None]
        seen = [node.method_map for node in nodes], list(_fallbacks(self._app))
        if seen != self._seen:
            self._known = listed([*_pairs(nodes), *self._prefixes()])
            self._seen = seen
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        self._app._router_search.announce()  # noqa: SLF001

    def _unrouted(self, path: str) -> str:
        found = self._router().find(path)
        if found is not None and found[0] is not None:  # A middleware answered.
            return str(found[3])
        return _unrouted(self._app, path)

    def _router(self) -> Any:
        return self._app._router  # noqa: SLF001

    def _prefixes(self) -> Iterator[tuple[str, str]]:
        for matcher, _, is_sink in _fallbacks(self._app):
            yield "GET", _prefix(matcher, is_sink=is_sink)


class _Search:
    """The router's search, with a hook that writes the template, or the prefix of static files or a sink."""

    def __init__(self, app: Any, search: Any) -> None:
        self._app = app
        self._search = search

    def announce(self) -> None:
        """Record a visit of each search with a request."""
        self._search = visiting(self._app, self._search, lambda _path, req: _request_of(req))

    def __call__(self, path: str, req: Any = None) -> Any:
        """Search."""
        found = self._search(path, req=req)
        if req is not None:
            request = _request_of(req)
            is_found = found is not None and found[0] is not None
            remember(request, lambda: found[3] if is_found else _unrouted(self._app, path))
        return found


class _Handlers(dict[Any, Any]):
    """The handlers of exceptions, which note what they handle."""

    def __init__(self, handlers: dict[Any, Any]) -> None:
        super().__init__(handlers)
        self._noting: dict[Any, Any] = {}

    def get(self, kind: Any, default: Any = None) -> Any:
        """Return the handler of a class of exceptions."""
        handle = super().get(kind, default)
        if handle is None or handle in self._noting:
            return self._noting.get(handle)
        noting = self._noting[handle] = _noting(handle)
        return noting


def _noting(handle: Any) -> Any:
    # Falcon's own handler of unexpected exceptions logs them, under ASGI.
    is_logged = _is_falcons(getattr(handle, "__func__", handle))

    @functools.wraps(handle, updated=())  # Falcon reads which arguments a handler takes.
    def note_and_handle(req: Any, resp: Any, error: Any, *args: Any, **named: Any) -> Any:
        note_error(error, lambda: _request_of(req), is_logged=is_logged)
        return handle(req, resp, error, *args, **named)

    return note_and_handle


def _request_of(req: Any) -> Any:
    return getattr(req, "scope", None) or getattr(req, "env", {})


def _fallbacks(app: Any) -> Any:
    """Return the static files and sinks, which Falcon matches after the router."""
    return app._sink_and_static_routes  # noqa: SLF001


def _unrouted(app: Any, path: str) -> str:
    for matcher, _, is_sink in _fallbacks(app):
        if matcher.match(path):
            return _prefix(matcher, is_sink=is_sink)
    return UNMATCHED_ROUTE


def _prefix(matcher: Any, *, is_sink: bool) -> str:
    prefix = matcher.pattern if is_sink else matcher._prefix  # noqa: SLF001
    return str(prefix).rstrip("/") or "/"


def _pairs(nodes: list[Any]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        own = (method for method, responder in (node.method_map or {}).items() if not _is_falcons(responder))
        yield from ((method, node.uri_template) for method in explicit_methods(own))


def _nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        yield from _nodes(node.children)


def _is_falcons(responder: Any) -> bool:
    while isinstance(responder, functools.partial):
        responder = responder.func
    return str(getattr(responder, "__module__", "")).startswith("falcon.")
