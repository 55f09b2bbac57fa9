"""The routes of Litestar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from scaleobs._routes.exceptions import note_error
from scaleobs._routes.interface import Pairs, Request, explicit_methods, listed
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.logs._handled import log_without_trace

_SERVER_ERROR = 500


class LitestarRoutes:
    """
    The routes of an application, by the handler that routing writes into the scope.

    Litestar writes the template, too, but for a mounted application it is that of the root.
    """

    route_key = "route_handler"

    def __init__(self, app: Any) -> None:
        self._app = app
        self._seen: list[Any] = []
        self._templates: dict[Any, set[str]] = {}
        self._known: Pairs = ()
        if _note_exception not in app.after_exception:
            app.after_exception.append(_note_exception)
            _leave_out_trace(app.logging_config)

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template, also of a wrong method."""
        self._refresh()
        handler, template = request.get("route_handler"), request.get("path_template", "")
        if handler is None:
            handler, template = self._unrouted(request)
        templates = self._templates.get(handler, set())
        if len(templates) == 1:
            return next(iter(templates)), "route_handler" in request
        return (template if template in templates else UNMATCHED_ROUTE), False

    def known(self) -> Pairs:
        """Return every method and template."""
        self._refresh()
        return self._known

    def mounts(self) -> list[tuple[Any, str]]:
        """Return each function of a mount, with the template of the mount."""
        handlers = [(route.route_handler, route.path_format) for route in self._app.routes if _is_mount(route)]
        return [(handler.fn, template) for handler, template in handlers]

    def passed_to(self, request: Request) -> Any:
        """Return the function that routing has selected."""
        return getattr(request.get("route_handler"), "fn", None)

    def announce(self) -> None:
        """Record a visit of each request."""
        self._app.asgi_handler = visiting(self._app, self._app.asgi_handler, lambda scope, *_: scope)

    def _refresh(self) -> None:
        routes = list(self._app.routes)
        if routes == self._seen:
            return
        templates: dict[Any, set[str]] = {}
        for route in routes:
            for handler in _handlers(route):
                templates.setdefault(handler, set()).add(route.path_format)
        self._templates, self._known = templates, listed(_pairs(routes))
        self._seen = routes

    def _unrouted(self, request: Request) -> tuple[Any, str]:
        """Return handler and template of a request that the router refuses for its method or answers for CORS."""
        from litestar.exceptions import MethodNotAllowedException
        from litestar.utils import normalize_path

        path, root = request.get("path", ""), request.get("root_path", "")
        path = normalize_path(path.split(root, maxsplit=1)[-1] if root else path)
        find = self._app.asgi_router.handle_routing
        try:
            try:
                found = find(path=path, method=request.get("method"))
            except MethodNotAllowedException as error:
                allowed = (error.headers or {}).get("allow", "")
                found = find(path=path, method=allowed.partition(",")[0])
        except Exception:  # Not found; the classes of the exceptions differ.
            return None, ""
        return found[1], found[4]


async def _note_exception(error: Exception, scope: Request) -> None:
    note_error(error, lambda: scope)


def _leave_out_trace(config: Any) -> None:
    """Make Litestar log no stack trace that the line of the request has."""
    log = getattr(config, "exception_logging_handler", None)
    if log is None:
        return

    def log_and_leave_out(logger: Any, scope: Request, trace: list[str]) -> None:
        error = sys.exc_info()[1]
        if error is None or getattr(error, "status_code", _SERVER_ERROR) < _SERVER_ERROR:
            log(logger, scope, trace)
            return
        note_error(error, lambda: scope)
        log_without_trace(error, lambda: log(logger, scope, trace))

    config.exception_logging_handler = log_and_leave_out


def _is_mount(route: Any) -> bool:
    return getattr(getattr(route, "route_handler", None), "is_mount", False) is True


def _handlers(route: Any) -> list[Any]:
    return list(getattr(route, "route_handlers", None) or [route.route_handler])


def _pairs(routes: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "route_handlers"):
            methods = {str(method) for one in route.route_handlers for method in one.http_methods}
            yield from ((method, route.path_format) for method in explicit_methods(methods))
        elif str(getattr(route, "scope_type", "")).lower().endswith("asgi"):
            yield "GET", route.path_format
