"""The routes of Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scaleobs._routes.handlers import note_handled
from scaleobs._routes.interface import ROUTE, Pairs, Request, path_below
from scaleobs._routes.objects import has_routes, router_of
from scaleobs._routes.table import ENDPOINT, RouteTable
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE


class StarletteRoutes:
    """
    The routes of an application, by the objects that routing writes into the scope.

    Routing writes the endpoint. The endpoint determines the template, unless it has several: one function may serve
    several routes, or another route in a mount that hides its routes. Then the route determines the template; FastAPI
    writes it, and Starlette from 1.7 on. If the route is in several mounts, the template of its mount is needed, too.
    Otherwise method, host and path select one of the endpoint's routes, for each request. If routing wrote nothing,
    which is so for slash redirects and for answers of a middleware, the path is matched with all routes.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._router = router_of(app)
        self._table: RouteTable | None = None
        self.route_key = ENDPOINT
        note_handled(app)

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template; raises, once, what a route raised when it was read."""
        if self._table is not None and self.route_key == ROUTE:
            # The template of a route is valid until `known` returns another object, like cached series.
            found = self._without_path(self._table, request)
            if found is not None:
                return found
        table = self._current()
        if table.is_shared and ROUTE in request:
            self.route_key = ROUTE
        found = self._without_path(table, request)
        if found is not None:
            return found
        for path in self._paths(request):
            template = table.find(request, path)
            if template is not None:
                return template, False
        table.raise_fault()
        return UNMATCHED_ROUTE, False

    def _without_path(self, table: RouteTable, request: Request) -> tuple[str, bool] | None:
        template = table.route_template(request) if self.route_key == ROUTE else table.endpoint_template(request)
        if template is not None:
            return template, True
        if self.route_key == ROUTE:
            template = table.endpoint_template(request) or self._mounted_template(table, request)
        return None if template is None else (template, False)

    def _mounted_template(self, table: RouteTable, request: Request) -> str | None:
        if request.get("router") is not self._router:  # Mounted in another application; the root path has its mounts.
            return None
        root = request.get("root_path", "")
        first = request.get("app_root_path", root)
        return table.mounted_at(request, root[len(first) :]) if root.startswith(first) else None

    def known(self) -> Pairs:
        """Return every method and template."""
        return self._current().known

    def announce(self) -> None:
        """Record a visit of each request."""
        router = self._router
        router.middleware_stack = visiting(router, router.middleware_stack, lambda scope, *_: scope)

    def mounts(self) -> list[tuple[Any, str]]:
        """Return each mounted application that shows no routes, with the template of its mount."""
        return self._current().mounts

    def passed_to(self, request: Request) -> Any:
        """Return the endpoint or the mounted application that routing has selected."""
        return request.get(ENDPOINT)

    def is_bypassed(self) -> bool:
        """Return whether the router passes on a request without a route, so that the next application may have one."""
        default = self._router.default
        return getattr(default, "__self__", None) is not self._router

    def _current(self) -> RouteTable:
        table = self._table
        if table is None or table.is_stale():
            table = self._table = RouteTable(self._router)
        return table

    def _paths(self, scope: Request) -> Iterator[str]:
        """Yield the possible paths below the application."""
        path, root = scope.get("path", ""), scope.get("root_path", "")
        # The outermost router writes itself into the scope. A mount extends `root_path`; `app_root_path` is the first.
        first, router = scope.get("app_root_path", root), scope.get("router")
        if router is None or router is self._router:
            if root != first and root.startswith(first) and not path.startswith(root):
                yield root[len(first) :] + path  # A mounted application has cut the path of its mount.
            yield path_below(path, first)
            return
        # Mounted in another application; the scope has nothing else than its mount.
        if scope.get(ENDPOINT) is self._app:
            yield path_below(path, root)
            return
        # Perhaps in one of our own mounts: its path is part of the template, so the shortest root is first.
        steps = root[len(first) :].split("/") if root.startswith(first) else [root]
        for length in range(1, len(steps) + 1):
            yield path_below(path, first + "/".join(steps[:length]))


class HiddenStarlette:
    """
    The routes of an application that hides what it calls: the router that handles a request writes itself into it.

    Requests without a router have no templates.
    """

    route_key = "router"

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, StarletteRoutes]] = {}

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template by the request's router."""
        router = request.get("router")
        if router is None:
            return UNMATCHED_ROUTE, True
        if id(router) not in self._found:
            if not has_routes(router) or len(self._found) >= 20:  # noqa: PLR2004 - Each request may have its own.
                return UNMATCHED_ROUTE, False
            self._found[id(router)] = router, StarletteRoutes(router)
        return self._found[id(router)][1].template(request)[0], False

    def known(self) -> Pairs:
        """Return nothing: a router is found at its first request, too late for series at zero."""
        return ()
