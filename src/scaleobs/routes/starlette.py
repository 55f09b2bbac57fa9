"""The routes of Starlette and FastAPI."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.notes import Notes

_TABLE = "_scaleobs_routes"
_DEEPEST = 20
_PARAMETER = re.compile(r"\{([a-zA-Z_]\w*)(:[a-zA-Z_]\w*)?\}", re.ASCII)


def has_routes(app: Any) -> bool:
    """Return whether an object is an application or a router of Starlette's kind."""
    router = getattr(app, "router", app)
    return hasattr(router, "routes") and hasattr(router, "redirect_slashes")


def template(app: Any, scope: Notes, root: str | None = None) -> str:
    """
    Return the template of a request that the application has handled.

    Args:
        app: the outermost application.
        scope: as the application left it.
        root: the path that the application is mounted at; where it isn't mounted, the scope tells the server's.
    """
    table = getattr(app, _TABLE, None)
    if table is None:
        if not has_routes(app):
            return UNMATCHED_ROUTE
        table = RouteTable(getattr(app, "router", app))
        setattr(app, _TABLE, table)
    return str(table.find(scope, root))


class _Entry:
    """One route of an application, with the template that its mounts and routers add up to."""

    __slots__ = ("pattern", "template")

    def __init__(self, path: str, *, is_mount: bool = False) -> None:
        from starlette.routing import compile_path  # The application has loaded it, or there were no routes.

        # Starlette compiles a mount's path and those within it apart, so that they may name a parameter alike.
        numbers = itertools.count()
        unique = _PARAMETER.sub(lambda found: f"{{p{next(numbers)}{found[2] or ''}}}", path)
        self.pattern: re.Pattern[str] = compile_path(unique + "/{rest:path}" if is_mount else unique)[0]
        self.template = _PARAMETER.sub(r"{\1}", path) or "/"


class RouteTable:
    """
    Every route of a Starlette or FastAPI application, by what routing leaves in the scope.

    Routing leaves the endpoint. Mostly it alone tells the template; where one function serves several routes,
    the path decides among them. Nothing else is found by path unless routing left nothing, as for slash
    redirects and for answers that a middleware gave.
    """

    def __init__(self, router: Any) -> None:
        self._router = router
        self._entries: list[_Entry] = []
        self._by_endpoint: dict[int, list[_Entry]] = {}
        self._endpoints: list[Any] = []
        self._faults: list[Exception] = []
        self._routes_seen = -1

    def find(self, scope: Notes, root: str | None) -> str:
        """Return the template of a request; raises once what a route raised that can't be looked at."""
        endpoint = scope.get("endpoint")
        entries = self._by_endpoint.get(id(endpoint))
        if entries is None and self._routes_seen != (now := _count(self._router.routes)):
            self._read()
            self._routes_seen = now
            entries = self._by_endpoint.get(id(endpoint))
        if entries is not None and len(entries) == 1:
            return entries[0].template
        path = _path_below(scope, root)
        if entries is not None:
            return _first_match(entries, path) or UNMATCHED_ROUTE
        found = _first_match(self._entries, path) or _first_match(self._entries, toggled(path))
        if found is None and self._faults:
            raise self._faults.pop()
        return found or UNMATCHED_ROUTE

    def _read(self) -> None:
        entries: list[_Entry] = []
        endpoints: list[Any] = []
        by_endpoint: dict[int, list[_Entry]] = {}
        self._faults = []
        for endpoint, entry in _walk(self._router.routes, "", self._faults):
            entries.append(entry)
            endpoints.append(endpoint)
            by_endpoint.setdefault(id(endpoint), []).append(entry)
        # The endpoints are kept alive, so that an id never comes to mean another object.
        self._entries, self._by_endpoint, self._endpoints = entries, by_endpoint, endpoints


def _walk(routes: Any, prefix: str, faults: list[Exception], depth: int = 0) -> Iterator[tuple[Any, _Entry]]:
    if depth > _DEEPEST:  # An application that is mounted within itself.
        return
    for route in routes:
        try:
            # FastAPI keeps an included router as one object and makes the whole templates beside it (0.137 on).
            if hasattr(route, "effective_route_contexts"):
                for context in route.effective_route_contexts():
                    original = context.original_route
                    whole = context.starlette_route if context.starlette_route is not None else context
                    endpoint = getattr(original, "endpoint", None) or whole
                    yield from _entries(whole, endpoint, prefix, faults, depth)
            else:
                yield from _entries(route, getattr(route, "endpoint", None), prefix, faults, depth)
        except Exception as error:  # The other routes keep their templates.
            faults.append(error)


def _entries(
    route: Any, endpoint: Any, prefix: str, faults: list[Exception], depth: int
) -> Iterator[tuple[Any, _Entry]]:
    path = getattr(route, "path", None)
    inner = getattr(route, "routes", None)
    if hasattr(route, "host") and path is None:  # starlette.routing.Host
        yield from _walk(inner or [], prefix, faults, depth + 1)
    elif inner is not None and isinstance(path, str):  # starlette.routing.Mount
        if not inner:  # Static files, or an application whose routes can't be seen: one template for all of it.
            yield getattr(route, "app", None), _Entry(prefix + path, is_mount=True)
        yield from _walk(inner, prefix + path, faults, depth + 1)
    elif isinstance(path, str):
        yield endpoint, _Entry(prefix + path)


def _count(routes: Any, depth: int = 0) -> int:
    """Return how many routes there are now, to see when more were added."""
    if depth > _DEEPEST:
        return 0
    return sum(1 + _count(_inner(route), depth + 1) for route in routes)


def _inner(route: Any) -> Any:
    try:
        return getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", ())
    except Exception:  # Told when the routes are read.
        return ()


def _path_below(scope: Notes, root: str | None) -> str:
    """Return the path below the application's root; a mount appends to `root_path`, and keeps the first one aside."""
    path: str = scope.get("path", "")
    if root is None:
        root = scope.get("app_root_path", scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


def toggled(path: str) -> str:
    """Return a path that ends with a slash without it, and any other with one."""
    return path.rstrip("/") if path.endswith("/") else path + "/"


def _first_match(entries: list[_Entry], path: str) -> str | None:
    return next((entry.template for entry in entries if entry.pattern.match(path)), None)
