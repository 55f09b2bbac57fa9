"""The route patterns of Pyramid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from scaleobs._routes.exceptions import note_error
from scaleobs._routes.interface import (
    DEFAULT_METHODS,
    NOTE,
    Pairs,
    Request,
    environ_path,
    explicit_methods,
    listed,
    recall,
    remember,
    with_root,
)
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE

_HOOKED = "is_scaleobs_hook"
_PARAMETER = re.compile(r"[{*:]")


class PyramidRoutes:
    """The patterns of an application, by what a hook in its mapper writes into the environ."""

    route_key = NOTE

    def __init__(self, router: Any) -> None:
        self._router = router
        self._known: Pairs = ()
        self._routes: list[Any] = []
        self._by_prefix: dict[str, list[tuple[int, Any]]] = {}
        self._lengths: list[int] = []
        mapper = router.routes_mapper
        if mapper is not None and not isinstance(mapper, _Mapper):
            router.routes_mapper = _Mapper(mapper)
        if hasattr(router, "handle_request") and not hasattr(router.handle_request, _HOOKED):
            router.handle_request = _noting(router.handle_request)

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the pattern, also of a slash redirect."""
        if NOTE in request:
            return recall(request)
        path = environ_path(request) or "/"
        # Not routed: a tween answered, or the view that appends slashes.
        pattern = self._find(path) or (None if path.endswith("/") else self._find(path + "/"))
        return pattern or UNMATCHED_ROUTE, False

    def known(self) -> Pairs:
        """Return every pattern, with the methods that its route or its views name."""
        self._refresh()
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        mapper = self._router.routes_mapper
        if mapper is not None:
            mapper.find = visiting(self._router, mapper.find, lambda request: request.environ)

    def _refresh(self) -> None:
        routes = list(getattr(self._router.routes_mapper, "routelist", ()))
        if routes == self._routes:
            return
        by_prefix: dict[str, list[tuple[int, Any]]] = {}
        for position, route in enumerate(routes):
            by_prefix.setdefault(_PARAMETER.split(with_root(route.pattern), maxsplit=1)[0], []).append(
                (position, route)
            )
        self._by_prefix, self._lengths = by_prefix, sorted({len(prefix) for prefix in by_prefix})
        self._known = listed(_pairs(self._router))
        self._routes = routes

    def _find(self, path: str) -> str | None:
        self._refresh()
        found = [pair for length in self._lengths for pair in self._by_prefix.get(path[:length], ())]
        for _, route in sorted(found, key=itemgetter(0)):
            # A route with predicates has refused the request, or its predicates would have to be called again.
            if not route.predicates and route.match(path) is not None:
                return with_root(route.pattern)
        return None


def _noting(handle: Any) -> Any:
    """Return the function of the tweens, which notes the exception that an exception view has answered."""

    def handle_and_note(request: Any) -> Any:
        response = handle(request)
        error = getattr(request, "exception", None)
        if error is not None:
            note_error(error, lambda: request.environ)
        return response

    setattr(handle_and_note, _HOOKED, True)
    return handle_and_note


class _Mapper:
    """The router's mapper, with a hook that writes the pattern into the environ."""

    def __init__(self, mapper: Any) -> None:
        self._mapper = self.find = mapper

    def __call__(self, request: Any) -> Any:
        """Find the route of a request."""
        found = self.find(request)
        remember(request.environ, lambda: None if found["route"] is None else with_root(found["route"].pattern))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mapper, name)


def _pairs(router: Any) -> Iterator[tuple[str, str]]:
    named: dict[str, set[str]] = {}
    for kind, key in (("routes", "name"), ("views", "route_name")):
        for one in router.registry.introspector.get_category(kind) or ():
            item = one["introspectable"]
            if item.get("request_methods"):
                methods = item["request_methods"]
                named.setdefault(item.get(key), set()).update([methods] if isinstance(methods, str) else methods)
    for route in getattr(router.routes_mapper, "routelist", ()):
        methods = explicit_methods(named[route.name]) if route.name in named else DEFAULT_METHODS
        yield from ((method, with_root(route.pattern)) for method in methods)
