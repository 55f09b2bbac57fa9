"""The routes of Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.contract import Pairs, Request, path_below
from scaleobs.routes.table import RouteTable


def has_routes(app: Any) -> bool:
    """Return whether an object is an application or a router of Starlette's kind."""
    router = getattr(app, "router", app)
    return hasattr(router, "routes") and hasattr(router, "redirect_slashes")


class StarletteRoutes:
    """
    The routes of an application, by what routing leaves in the scope.

    Routing leaves the endpoint. Mostly it alone tells the template; where one function serves several routes,
    the path decides among them. Nothing else is found by path unless routing left nothing, as for slash
    redirects and for answers that a middleware gave.
    """

    clue = "endpoint"

    def __init__(self, app: Any) -> None:
        self._router = getattr(app, "router", app)
        self._table: RouteTable | None = None

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template; raises once what a route raised that can't be looked at."""
        table = self._current()
        entries = table.serving(request.get("endpoint"))
        if len(entries) == 1:
            return entries[0].template, True
        for path in self._paths(request):
            found = table.find(request, path, entries)
            if found is not None:
                return found, False
        table.raise_fault()
        return UNMATCHED_ROUTE, False

    def known(self) -> Pairs:
        """Return every method and template."""
        return self._current().known

    def _current(self) -> RouteTable:
        table = self._table
        if table is None or table.is_stale():
            table = self._table = RouteTable(self._router)
        return table

    def _paths(self, scope: Request) -> Iterator[str]:
        """Yield what may be the path below the application."""
        path, root = scope.get("path", ""), scope.get("root_path", "")
        # The outermost router signs the scope. A mount appends to `root_path`, and keeps the first one aside.
        if scope.get("router") in (None, self._router):
            yield path_below(path, scope.get("app_root_path", root))
            return
        # Mounted in another application, which has put its own mount's path in front of ours.
        while root:
            yield path_below(path, root)
            root = root.rpartition("/")[0]
        yield path


class HiddenStarlette:
    """
    The routes of an application that shows none of what it calls: the router that handled a request signs it.

    What handles a request without a router has no templates.
    """

    clue = "router"

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, StarletteRoutes]] = {}

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template that the router gives."""
        router = request.get("router")
        if router is None:
            return UNMATCHED_ROUTE, True
        if id(router) not in self._found:
            if not has_routes(router) or len(self._found) >= 20:  # noqa: PLR2004 - Made for each request, perhaps.
                return UNMATCHED_ROUTE, False
            self._found[id(router)] = router, StarletteRoutes(router)
        return self._found[id(router)][1].template(request)[0], False

    def known(self) -> Pairs:
        """Return nothing: a router is known once it has handled a request, and counted as others are by then."""
        return ()
