"""Every route of a Starlette or FastAPI application, with its template across mounts and routers."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from scaleobs import catalog
from scaleobs._routes.interface import ROUTE, Pairs, Request, explicit_methods, host_of, listed, toggle_slash
from scaleobs._routes.objects import has_routes, is_empty, is_without_routes, unwrapped

ENDPOINT = "endpoint"
_MAX_DEPTH = 20
_PARAMETER = re.compile(r"\{([a-zA-Z_]\w*)(:[a-zA-Z_]\w*)?\}", re.ASCII)
_WITHIN_A_SEGMENT = (None, ":str", ":int", ":float", ":uuid")


class Entry:
    """
    One route of Starlette's kind.

    Args:
        path: its pattern, from the root on.
        methods: the methods that it names; `None` for a WebSocket.
        host: the pattern of the host, if it has one.
        is_mount: whether it matches all paths below its own.
        is_front_end: whether it is one of FastAPI's front ends, which are matched last.
        accepts: the methods for which it is preferred; `None` for all.
        below: the template of the mounts around it, which `path` begins with.
        route: the framework's object.
        context: FastAPI's object of the router's inclusion, if there is one.
    """

    __slots__ = (
        *("_below", "_below_pattern", "_pattern", "context", "host", "is_mount", "is_websocket"),
        *("accepts", "methods", "path", "rank", "route", "template"),
    )

    def __init__(
        self,
        path: str,
        methods: Iterable[str] | None,
        host: re.Pattern[str] | None,
        *,
        is_mount: bool = False,
        is_front_end: bool = False,
        accepts: Collection[str] | None = None,
        below: str = "",
        route: Any = None,
        context: object = None,
    ) -> None:
        unique = _with_unique_names(path)
        self._pattern: re.Pattern[str] | None = None
        self._below = below
        self._below_pattern: re.Pattern[str] | None = None
        self.route, self.context = route, context
        self.path = unique + "/{rest:path}" if is_mount else unique
        self.template = _PARAMETER.sub(r"{\1}", path) or "/"
        self.methods = explicit_methods(methods or ())
        self.is_mount = is_mount
        self.is_websocket = methods is None
        self.accepts = accepts
        self.host = host
        # Of the front ends, the longest path is first.
        self.rank = -len(path) if is_front_end else -math.inf

    def matches(self, path: str) -> bool:
        """Return whether Starlette would match a path."""
        if self._pattern is None:  # Compiled when needed: five hundred take 0.1 s.
            self._pattern = _compiled(self.path)
        return self._pattern.match(path) is not None

    def is_below(self, root: str) -> bool:
        """Return whether Starlette's mounts around it match a root path, which may contain their parameters."""
        if "{" not in self._below:
            return self._below == root
        if self._below_pattern is None:
            self._below_pattern = _compiled(_with_unique_names(self._below))
        return self._below_pattern.match(root) is not None


def _with_unique_names(path: str) -> str:
    # Starlette compiles the paths of a mount and of its routes separately, so a parameter's name may occur twice.
    numbers = itertools.count()
    return _PARAMETER.sub(lambda found: f"{{p{next(numbers)}{found[2] or ''}}}", path)


def _compiled(path: str) -> re.Pattern[str]:
    from starlette.routing import compile_path

    return compile_path(path)[0]


class Tree:
    """
    A node of the tree of segments, and all below it; an unknown path costs the same with ten routes and a thousand.

    Attributes:
        below: the nodes behind a slash, by their segment, which has no parameter.
        any_below: the node behind a slash and a segment with parameters.
        ending: the entries that end at this node, with their positions.
        beginning: the entries whose next parameter may contain slashes.
    """

    __slots__ = ("any_below", "beginning", "below", "ending")

    def __init__(self) -> None:
        self.below: dict[str, Tree] = {}
        self.any_below: Tree | None = None
        self.ending: list[tuple[int, Entry]] = []
        self.beginning: list[tuple[int, Entry]] = []

    def add(self, position: int, entry: Entry) -> None:
        """Add an entry."""
        node = self
        for segment in entry.path.split("/"):
            kinds = [found[2] for found in _PARAMETER.finditer(segment)]
            if any(kind not in _WITHIN_A_SEGMENT for kind in kinds):
                node.beginning.append((position, entry))
                return
            if kinds:
                node.any_below = node.any_below or Tree()
                node = node.any_below
            else:
                node = node.below.setdefault(segment, Tree())
        node.ending.append((position, entry))

    def matching(self, path: str) -> Iterator[Entry]:
        """Yield the entries that match a path, in order."""
        found = sorted(self.candidates(path.split("/"), 0), key=itemgetter(0))
        return (entry for _, entry in found if entry.matches(path))

    def candidates(self, segments: list[str], at: int) -> Iterator[tuple[int, Entry]]:
        """Yield the entries with the segments of a path, and their positions."""
        yield from self.beginning
        if at == len(segments):
            yield from self.ending
            return
        named = self.below.get(segments[at])
        if named is not None:
            yield from named.candidates(segments, at + 1)
        if self.any_below is not None:
            yield from self.any_below.candidates(segments, at + 1)


class RouteTable:
    """
    The routes of an application at one moment.

    Args:
        router: the outermost router of the application.

    Attributes:
        known: each method and template.
        mounts: each mounted application that shows no routes, with the template of its mount.
        is_shared: whether an endpoint has several templates.
    """

    def __init__(self, router: Any) -> None:
        self._faults: list[Exception] = []
        walk = _Walk(self._faults)
        pairs = list(walk.through(router, "", None))
        self._seen = walk.seen
        self.known: Pairs = listed((method, entry.template) for _, entry in pairs for method in entry.methods)
        pairs.sort(key=lambda pair: pair[1].rank)
        self._entries = [entry for _, entry in pairs]
        hiding = (entry for entry in self._entries if entry.is_mount and hasattr(entry.route, "app"))
        self.mounts: list[tuple[Any, str]] = [(entry.route.app, entry.template) for entry in hiding]
        self._serving, self._templates = _by_route_key(pairs, walk)
        endpoints = [endpoint for endpoint, entry in pairs if endpoint is not None and not entry.is_websocket]
        self.is_shared = not all(_is_key(endpoint) and endpoint in self._templates for endpoint in endpoints)
        self._tree = Tree()
        for position, entry in enumerate(self._entries):
            if not entry.is_websocket:
                self._tree.add(position, entry)

    def is_stale(self) -> bool:
        """Return whether the routes of a router have changed."""
        return any(_routes_of(owner) != routes for owner, routes in self._seen)

    def endpoint_template(self, scope: Request) -> str | None:
        """Return the template of all routes of an endpoint; equal endpoints count as one."""
        endpoint = scope.get(ENDPOINT)
        return self._templates.get(endpoint) if _is_key(endpoint) else None

    def route_template(self, scope: Request) -> str | None:
        """Return the template of a route that has only one."""
        return self._templates.get(id(scope.get(ROUTE)))

    def mounted_at(self, scope: Request, root: str) -> str | None:
        """
        Return the template of a route that has several, by the mounts of the request.

        Args:
            scope: the routed scope; its application is not mounted in another one.
            root: the path of the mounts, which may contain parts that clients choose.
        """
        route = scope.get(ROUTE)
        context = (scope.get("fastapi") or {}).get("effective_route_context")
        if getattr(context, "original_route", None) is not route:  # It belongs to an outer mount.
            context = None
        for entry in self._serving.get(id(route), ()):
            if entry.host is not None:
                return None
            if entry.is_mount:
                is_found = entry.matches(root + "/")
            else:
                is_found = entry.context is context and entry.is_below(root)
            if is_found:
                return entry.template
        return None

    def find(self, scope: Request, path: str) -> str | None:
        """Return the template of a path among the endpoint's routes, or among all; then with the slash toggled."""
        endpoint = scope.get(ENDPOINT)
        entries = self._serving.get(endpoint, ()) if _is_key(endpoint) else ()
        if entries or scope.get("type") == "websocket":
            return _chosen(scope, (one for one in entries or self._entries if one.matches(path)))
        found = _chosen(scope, self._tree.matching(path))
        return found or _chosen(scope, self._tree.matching(toggle_slash(path)))

    def raise_fault(self) -> None:
        """Raise, once, what a route raised when it was read."""
        if self._faults:
            raise self._faults.pop()


def _by_route_key(pairs: list[tuple[Any, Entry]], walk: _Walk) -> tuple[dict[Any, list[Entry]], dict[Any, str]]:
    """
    Return the entries of each endpoint and of each route (by its id), and the template of those with only one.

    If a mount that hides its routes may call an endpoint, the endpoint's entries include the mounts.
    """
    positioned: dict[Any, list[tuple[int, Entry]]] = {}
    unseen = set[Any]()
    for position, (endpoint, entry) in enumerate(pairs):
        keys = [endpoint] if _is_key(endpoint) else []
        if entry.route is not None:
            keys.append(id(entry.route))
        for key in keys:
            positioned.setdefault(key, []).append((position, entry))
            if walk.hides or (_is_key(endpoint) and endpoint in walk.hidden):
                unseen.add(key)
    mounts = [(position, entry) for position, (_, entry) in enumerate(pairs) if entry.is_mount]
    serving, alone = dict[Any, list[Entry]](), dict[Any, str]()
    for key, own in positioned.items():
        found = dict(sorted(own + mounts if key in unseen else own, key=itemgetter(0)))
        serving[key] = list(found.values())
        templates = {entry.template for entry in found.values()}
        if len(templates) == 1:
            alone[key] = templates.pop()
    return serving, alone


def _chosen(scope: Request, entries: Iterable[Entry]) -> str | None:
    """Return the template that Starlette would choose: the first that accepts the method, or else the first."""
    method, is_plain = scope.get("method"), scope.get("type") != "websocket"
    refusing = None
    for entry in entries:
        if (entry.is_websocket and is_plain) or (entry.host is not None and not entry.host.match(host_of(scope))):
            continue
        if entry.accepts is None or method in entry.accepts:
            return entry.template
        refusing = refusing or entry
    return None if refusing is None else refusing.template


@dataclass
class _Walk:
    """
    A walk through the routes, which records the routers that it visits.

    Attributes:
        hidden: the endpoints of mounted applications that are inside a wrapper.
        hides: whether a mount hides its routes, so that it may call any endpoint.
    """

    faults: list[Exception]

    def __post_init__(self) -> None:
        self.seen: list[tuple[Any, list[Any]]] = []
        self.hidden: set[Any] = set()
        self.hides = False
        self._behind: list[Any] = []

    def through(self, owner: Any, prefix: str, host: Any, depth: int = 0) -> Iterator[tuple[Any, Entry]]:
        """Yield the endpoint and the entry of each route of a router or a mount."""
        routes = self._record(owner)
        if depth > _MAX_DEPTH:  # An application is mounted within itself.
            return
        for route in routes:
            try:
                # From 0.137 on, FastAPI keeps an included router as one object, with the complete templates beside it.
                if hasattr(route, "effective_route_contexts"):
                    self._record_included(route.original_router, depth)
                    contexts = [*route.effective_route_contexts(), *route.effective_low_priority_routes()]
                    for context in contexts:
                        original = context.original_route
                        whole = context.starlette_route if context.starlette_route is not None else context
                        endpoint = getattr(original, "endpoint", None) or getattr(whole, "app", None)
                        at = prefix + getattr(context, "frontend_prefix", "")
                        inside = original if whole is context and hasattr(original, "routes") else whole
                        yield from self._entries(inside, endpoint, at, host, depth, context=context)
                else:
                    yield from self._entries(route, getattr(route, "endpoint", None), prefix, host, depth)
            except Exception as error:  # The other routes keep their templates.
                self.faults.append(error)

    def _entries(
        self, route: Any, endpoint: Any, prefix: str, host: Any, depth: int, *, context: Any = None
    ) -> Iterator[tuple[Any, Entry]]:
        path = getattr(route, "path", None)
        if hasattr(route, "host") and path is None:  # starlette.routing.Host
            if not route.routes:
                self._search_behind(route.app, depth)
            yield from self.through(route, prefix, route.host_regex, depth + 1)
        elif hasattr(route, "routes"):  # starlette.routing.Mount, or FastAPI's front ends, which have no path.
            below = prefix + (path or "")
            # Static files or hidden routes: one template.
            if path is not None and not _routes_of(route) and not is_empty(route.app):
                yield getattr(route, "app", None), Entry(below, ["GET"], host, is_mount=True, route=route)
                self._search_behind(getattr(route, "app", None), depth)
            yield from self.through(route, below, host, depth + 1)
        elif isinstance(path, str) and hasattr(route, "matches_with_path"):  # One of FastAPI's front ends.
            yield None, Entry((prefix + path).rstrip("/"), ["GET"], host, is_mount=True, is_front_end=True)
        elif isinstance(path, str):
            accepts = getattr(route, "methods", None) or None
            methods, original = _methods(route, endpoint), getattr(context, "original_route", route)
            entry = Entry(prefix + path, methods, host, accepts=accepts, below=prefix, route=original, context=context)
            yield endpoint, entry

    def _search_behind(self, app: Any, depth: int) -> None:
        """Record the endpoints that an application without visible routes may call: those in its wrappers, or any."""
        if any(app is one for one in self._behind):
            return
        self._behind.append(app)
        try:
            found = list(unwrapped(app))
            routers = [one for one in found if has_routes(one)]
            for router in routers:
                pairs = self.through(router, "", None, depth + 1)
                self.hidden.update(endpoint for endpoint, _ in pairs if _is_key(endpoint))
            is_seen = bool(routers) or any(is_without_routes(one) for one in found)
        except Exception:  # It can't be read.
            is_seen = False
        self.hides = self.hides or not is_seen

    def _record(self, owner: Any) -> list[Any]:
        routes = _routes_of(owner)
        self.seen.append((owner, routes))
        return routes

    def _record_included(self, router: Any, depth: int) -> None:
        for route in self._record(router):
            inner = getattr(route, "original_router", None)
            if inner is not None and depth < _MAX_DEPTH:
                self._record_included(inner, depth + 1)


def _routes_of(owner: Any) -> list[Any]:
    app = getattr(
        owner, "_base_app", owner
    )  # A mount shows the routes of its application, but not those of low priority.
    return [*(owner.routes or ()), *getattr(getattr(app, "router", app), "_low_priority_routes", ())]


def _methods(route: Any, endpoint: Any) -> Iterable[str] | None:
    """Return the methods that a route names, or for which its class has functions; `None` for a WebSocket."""
    if not hasattr(route, "methods"):
        return None
    if route.methods:
        methods: Iterable[str] = route.methods
        return methods
    return [method for method in catalog.METHODS if hasattr(endpoint, method.lower())] or ["GET"]


def _is_key(endpoint: Any) -> bool:
    try:
        hash(endpoint)
    except Exception:
        return False
    return endpoint is not None
