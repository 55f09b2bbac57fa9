"""Every route of a Starlette or FastAPI application, with the template that its mounts and routers add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scaleobs import catalog
from scaleobs.routes.contract import Pairs, Request, listed, toggled
from scaleobs.routes.tree import Entry, Tree

_DEEPEST = 20


class RouteTable:
    """
    The routes of an application as they were at one moment.

    Args:
        router: the application's outermost.

    Attributes:
        known: each method and template.
    """

    def __init__(self, router: Any) -> None:
        self._faults: list[Exception] = []
        walk = _Walk(self._faults)
        pairs = list(walk.through(router, "", None))
        self._seen = walk.seen
        self._entries = sorted((entry for _, entry in pairs), key=lambda entry: entry.rank)
        self._serving: dict[Any, list[Entry]] = {}
        for endpoint, entry in pairs:
            if endpoint is not None and _is_hashable(endpoint):
                self._serving.setdefault(endpoint, []).append(entry)
        self.known: Pairs = listed((method, entry.template) for _, entry in pairs for method in entry.methods)
        self._tree = Tree()
        for place, entry in enumerate(self._entries):
            if not entry.is_websocket:
                self._tree.add(place, entry)

    def is_stale(self) -> bool:
        """Return whether a router has other routes by now."""
        return any(_routes_of(owner) != routes for owner, routes in self._seen)

    def serving(self, endpoint: Any) -> list[Entry]:
        """Return the routes that an endpoint serves; two that are equal count as the same one."""
        return self._serving.get(endpoint, []) if endpoint is not None and _is_hashable(endpoint) else []

    def find(self, scope: Request, path: str, entries: list[Entry]) -> str | None:
        """Return the template of a path among these routes, or, where they are none, all, with or without a slash."""
        if entries or scope.get("type") == "websocket":
            return next((one.template for one in entries or self._entries if one.matches(path)), None)
        return self._find(scope, path) or self._find(scope, toggled(path))

    def raise_fault(self) -> None:
        """Raise what a route raised when it was looked at, once."""
        if self._faults:
            raise self._faults.pop()

    def _find(self, scope: Request, path: str) -> str | None:
        entry = self._tree.find(path)
        is_here = entry is not None and (entry.host is None or entry.host.match(_host(scope)))
        return entry.template if entry is not None and is_here else None


@dataclass
class _Walk:
    """A walk through the routes, which remembers whose it has seen."""

    faults: list[Exception]

    def __post_init__(self) -> None:
        self.seen: list[tuple[Any, list[Any]]] = []

    def through(self, owner: Any, prefix: str, host: Any, depth: int = 0) -> Iterator[tuple[Any, Entry]]:
        """Yield the endpoint and the entry of each route of a router or a mount."""
        routes = self._watched(owner)
        if depth > _DEEPEST:  # An application that is mounted within itself.
            return
        for route in routes:
            try:
                # FastAPI keeps an included router as one object and makes the whole templates beside it (0.137 on).
                if hasattr(route, "effective_route_contexts"):
                    self._watch_included(route.original_router, depth)
                    contexts = [*route.effective_route_contexts(), *route.effective_low_priority_routes()]
                    for context in contexts:
                        original = context.original_route
                        whole = context.starlette_route if context.starlette_route is not None else context
                        endpoint = getattr(original, "endpoint", None) or getattr(whole, "app", None)
                        at = prefix + getattr(context, "frontend_prefix", "")
                        inside = original if whole is context and hasattr(original, "routes") else whole
                        yield from self._entries(inside, endpoint, at, host, depth)
                else:
                    yield from self._entries(route, getattr(route, "endpoint", None), prefix, host, depth)
            except Exception as error:  # The other routes keep their templates.
                self.faults.append(error)

    def _entries(self, route: Any, endpoint: Any, prefix: str, host: Any, depth: int) -> Iterator[tuple[Any, Entry]]:
        path = getattr(route, "path", None)
        if hasattr(route, "host") and path is None:  # starlette.routing.Host
            yield from self.through(route, prefix, route.host_regex, depth + 1)
        elif hasattr(route, "routes"):  # starlette.routing.Mount, or FastAPI's group of front ends, which has no path.
            below = prefix + (path or "")
            if path is not None and not route.routes:  # Static files, or routes that can't be seen: one template.
                yield getattr(route, "app", None), Entry(below, ["GET"], host, is_mount=True)
            yield from self.through(route, below, host, depth + 1)
        elif isinstance(path, str) and hasattr(route, "matches_with_path"):  # One of FastAPI's front ends.
            yield None, Entry((prefix + path).rstrip("/"), ["GET"], host, is_mount=True, is_front_end=True)
        elif isinstance(path, str):
            yield endpoint, Entry(prefix + path, _methods(route, endpoint), host)

    def _watched(self, owner: Any) -> list[Any]:
        routes = _routes_of(owner)
        self.seen.append((owner, routes))
        return routes

    def _watch_included(self, router: Any, depth: int) -> None:
        for route in self._watched(router):
            inner = getattr(route, "original_router", None)
            if inner is not None and depth < _DEEPEST:
                self._watch_included(inner, depth + 1)


def _routes_of(owner: Any) -> list[Any]:
    return [*(owner.routes or ()), *getattr(owner, "_low_priority_routes", ())]


def _methods(route: Any, endpoint: Any) -> Iterable[str] | None:
    """Return the methods that a route names or whose functions a class has; `None` for a WebSocket."""
    if not hasattr(route, "methods"):
        return None
    if route.methods:
        methods: Iterable[str] = route.methods
        return methods
    return [method for method in catalog.METHODS if hasattr(endpoint, method.lower())] or ["GET"]


def _is_hashable(endpoint: Any) -> bool:
    try:
        hash(endpoint)
    except Exception:
        return False
    return True


def _host(scope: Request) -> str:
    found = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"")
    return str(found.decode("latin-1").partition(":")[0])
