"""The routes of several applications in one: behind adapters, mounts, and dispatchers of any kind."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scaleobs._routes.interface import (
    VISITS,
    WRAPPED,
    Pairs,
    Request,
    VisitedRoutes,
    Visits,
    count_parameters,
    current_visits,
    has_routes,
    may_be_app,
    own_path,
    settled,
    wrapped_by,
)
from scaleobs._routes.starlette import HiddenStarlette
from scaleobs._routes.table import ENDPOINT
from scaleobs.catalog import UNMATCHED_ROUTE

Kind = Callable[[Any], VisitedRoutes]

_PARAMETER = re.compile(r"[{<][^/]*[}>]")
_MAX_OBJECTS = 300
_MAX_ITEMS = 100
_MAX_SEARCHES = 3
_MAX_LENGTH = 200
_MAX_PREFIXES = 4


@dataclass
class Part:
    """
    An application of a known kind.

    Attributes:
        app: the framework's object; the router of Starlette's applications.
        routes: its routes.
        prefix: the template of the mounts and the keys of the mappings around it.
        is_wrapped: whether only wrappers lie around it, which pass on each request.
        is_mounted: whether a mount of another part leads to it.
    """

    app: Any
    routes: VisitedRoutes
    prefix: str
    is_wrapped: bool
    is_mounted: bool


@dataclass
class _Step:
    """An object of the search, and how it was reached."""

    thing: Any
    prefix: str = ""
    is_wrapped: bool = True
    is_mounted: bool = False

    def to(self, thing: Any, prefix: str = "", *, is_wrapped: bool = True) -> _Step:
        whole = joined(self.prefix, prefix) if prefix else self.prefix
        return _Step(thing, whole, self.is_wrapped and is_wrapped, self.is_mounted)


class Search:
    """
    A search for all applications of known kinds, the nearest first. An object that can't be read shows nothing.

    Args:
        kind_of: returns the class of routes of an application, or `None`.

    Attributes:
        mounts: the mounted applications that contain a part.
        prefixes: the paths that the objects hold; a part may lie below each of them.
    """

    def __init__(self, kind_of: Callable[[Any], Kind | None]) -> None:
        self._kind_of = kind_of
        self._routes: dict[int, tuple[Any, VisitedRoutes]] = {}
        self.prefixes: set[str] = set()
        self.mounts: list[Any] = []

    def parts(self, *roots: Any) -> list[Part]:
        """Return the applications that the roots are or call; the same application has the same routes each time."""
        pending = [_Step(root) for root in roots if root is not None]
        seen, kept, found = set[tuple[int, str]](), list[Any](), list[Part]()
        mounts = []
        while pending and len(seen) < _MAX_OBJECTS:
            step = pending.pop(0)
            if (id(step.thing), step.prefix) in seen:
                continue
            seen.add((id(step.thing), step.prefix))
            kept.append(step.thing)  # So that no other object gets the same id.
            try:
                routes = self._routes_of(step.thing)
                if routes is None:
                    pending += self._next(step)
                    continue
                app = _identity(step.thing)
                pending += [step.to(value) for name, value in _held_by(step.thing) if name in WRAPPED]
                if step.is_mounted and step.is_wrapped and has_routes(app):
                    continue  # The outer application of the same kind has its requests under the mount.
                if not any(one.app is app and one.prefix == step.prefix for one in found):
                    found.append(Part(app, routes, step.prefix, step.is_wrapped, step.is_mounted))
                for mounted, prefix in getattr(routes, "mounts", list)():
                    pending.append(_Step(mounted, joined(step.prefix, prefix), is_mounted=True))
                    mounts.append(mounted)
            except Exception:  # noqa: S112 - The others may be readable.
                continue
        self.mounts = mounts
        return found

    def _routes_of(self, thing: Any) -> VisitedRoutes | None:
        try:
            key = id(_identity(thing))
            kind = None if key in self._routes else self._kind_of(thing)
        except Exception:  # Its attributes may be readable.
            return None
        if kind is not None:
            self._routes[key] = _identity(thing), kind(thing)
        return self._routes[key][1] if key in self._routes else None

    def _next(self, step: _Step) -> Iterator[_Step]:
        """Yield what an object calls: what it wraps, then the values of its attributes that may be applications."""
        thing = step.thing
        with contextlib.suppress(Exception):
            yield from [step.to(one) for one in wrapped_by(thing)]
        for name, value in list(_held_by(thing))[:_MAX_ITEMS]:
            with contextlib.suppress(Exception):
                if isinstance(value, str):
                    self._add_prefix(value)
                elif isinstance(value, Mapping | list | tuple):
                    items = list(self._items(step, value))
                    # A module's mapping with one application may have any purpose.
                    if not inspect.isfunction(thing) or len(items) > 1:
                        yield from items
                elif self._may_be_part(name, value):
                    yield step.to(value, is_wrapped=False)

    def _items(self, step: _Step, items: Any) -> Iterator[_Step]:
        """Yield the applications in a container, below the paths that are their keys or lie beside them."""
        pairs = list(items.items()) if isinstance(items, Mapping) else [(None, one) for one in items]
        for key, value in pairs[:_MAX_ITEMS]:
            prefix = next((part for part in _texts(key) if part.startswith("/")), "").rstrip("/*")
            self._add_prefix(prefix)
            if isinstance(value, list | tuple):
                own = next((one for one in value if isinstance(one, str) and one.startswith("/")), prefix).rstrip("/*")
                self._add_prefix(own)
                yield from (step.to(one, own, is_wrapped=False) for one in value if may_be_app(one))
            elif may_be_app(value):
                yield step.to(value, prefix, is_wrapped=False)
            elif may_be_app(getattr(value, "callback", None)):  # One of Django's patterns, as Channels takes them.
                yield step.to(value.callback, is_wrapped=False)

    def _may_be_part(self, name: str, value: Any) -> bool:
        if value is None or isinstance(value, type):
            return False
        if self._kind_of(value) is not None:
            return True
        return may_be_app(value) and ("app" in name or count_parameters(value) in {2, 3})

    def _add_prefix(self, text: str) -> None:
        prefix = text.rstrip("/*")
        if prefix.startswith("/") and prefix.isprintable() and len(prefix) <= _MAX_LENGTH and len(self.prefixes) < 1000:  # noqa: PLR2004
            self.prefixes.add(prefix)


class NestedRoutes:
    """
    The routes of applications inside one another, by the visits that each of them records.

    The template is that of the last application that a request has reached, below the templates of the mounts before.
    An application that was not reached has no part in it. Each template is composed anew: applications side by side
    may share the values by which single ones are cached.

    Args:
        search: finds the applications.
        roots: where it begins.
        parts: what it has found.
        is_asgi: whether the outermost application is one of ASGI.
    """

    route_key = VISITS

    def __init__(self, search: Search, roots: tuple[Any, ...], parts: list[Part], *, is_asgi: bool) -> None:
        self._search = search
        self._roots = roots
        self._is_asgi = is_asgi
        self._known: Pairs = ()
        self._hidden = HiddenStarlette()
        self._needs_search, self._searches = True, 0
        self._use(parts)

    def around(self, app: Any) -> Any:
        """Return the application, with the visits of each request recorded."""

        async def record_asgi(scope: Request, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            token = current_visits.set(self._begin(scope))
            try:
                await app(scope, receive, send)
            finally:
                with contextlib.suppress(ValueError):  # It is collected in another context.
                    current_visits.reset(token)

        def record_wsgi(request: Request, start_response: Any) -> Any:
            token = current_visits.set(self._begin(request))
            try:
                return app(request, start_response)
            finally:
                with contextlib.suppress(ValueError):
                    current_visits.reset(token)

        record: Any = record_asgi if self._is_asgi else record_wsgi
        record.app = app  # Other tools follow it to find a middleware.
        return record

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template, or raise, once, what an application raised when its routes were read."""
        visits = request.get(VISITS)
        while visits is not None and visits.owner is not self:
            visits = visits.outer
        if visits is None:
            return UNMATCHED_ROUTE, False
        if visits.template is None:
            # The visits are dropped: they refer to requests that refer to the visits.
            reached, visits.reached = visits.reached or [], None
            visits.template = UNMATCHED_ROUTE
            visits.template = self._composed(request, visits.path, reached)
            if visits.template == UNMATCHED_ROUTE and self._searches < _MAX_SEARCHES:
                self._searches += 1
                self._needs_search = True
        return visits.template, False

    def known(self) -> Pairs:
        """Return every method and template of all applications, as they are now."""
        self._use(self._search.parts(*self._roots))
        self._known = settled(self._known, self._pairs())
        return self._known

    def _begin(self, request: Request) -> Visits | None:
        try:
            if self._needs_search:  # Some applications build what they call in their lifespan, or at the first request.
                self._needs_search = False
                self._use(self._search.parts(*self._roots))
            outer = request.get(VISITS)
            visits = request[VISITS] = Visits(self, own_path(request), outer)
        except Exception:
            return None
        return visits

    def _use(self, parts: list[Part]) -> None:
        for part in parts:
            with contextlib.suppress(Exception):
                part.routes.announce()
        self._parts = parts
        self._by_app = {id(part.app): part for part in parts}
        self._mounts = {id(mount) for mount in self._search.mounts if self._has_part(mount)}

    def _has_part(self, mount: Any) -> bool:
        return any(part.is_mounted for part in self._parts) and bool(Search(self._search._kind_of).parts(mount))  # noqa: SLF001

    def _pairs(self) -> list[tuple[str, str]]:
        hiding = {part.prefix or "/" for part in self._parts if part.is_mounted}
        pairs, repeated = list[tuple[str, str]](), list[tuple[str, str]]()
        for part in self._parts:
            with contextlib.suppress(Exception):
                own = [pair for pair in part.routes.known() if pair[1] not in hiding or part.is_mounted]
                is_complete = all(template.startswith(part.prefix + "/") for _, template in own)
                prefix = "" if is_complete else part.prefix
                below = [(method, joined(prefix, template)) for method, template in own]
                is_bypassed = has_routes(part.app) and part.routes.is_bypassed()  # type: ignore[attr-defined]
                (repeated if is_bypassed else pairs).extend(below)
        # A router that passes on each request may have the routes of the next application in another notation.
        shapes = {(method, _PARAMETER.sub("{}", template)) for method, template in pairs}
        return pairs + [pair for pair in repeated if (pair[0], _PARAMETER.sub("{}", pair[1])) not in shapes]

    def _composed(self, request: Request, path: str, reached: list[tuple[Any, Request, str]]) -> str:
        levels: list[tuple[str, str | None, VisitedRoutes, Request]] = []
        for app, own, left in reached:
            part, prefix = self._by_app.get(id(app)), _prefix(path, left)
            if part is None or prefix is None:
                continue
            while levels and not prefix.startswith(levels[-1][0]):
                levels.pop()
            levels.append((prefix, self._prefix_template(prefix, levels), part.routes, own))
        if not levels:
            return self._hidden.template(request)[0] if self._is_asgi and not reached else UNMATCHED_ROUTE
        _, above, routes, own = levels[-1]
        template = (
            UNMATCHED_ROUTE if above is None or id(own.get(ENDPOINT)) in self._mounts else routes.template(own)[0]
        )
        return template if template == UNMATCHED_ROUTE else joined(above or "", template)

    def _prefix_template(self, prefix: str, levels: list[tuple[str, str | None, VisitedRoutes, Request]]) -> str | None:
        """Return the template of the prefix of an application, by the mounts before it."""
        before, above, routes, request = levels[-1] if levels else ("", "", None, {})
        rest = prefix[len(before) :]
        if not rest or above is None:
            return above
        template = None if routes is None else routes.template(request)[0]
        if template is not None and template != UNMATCHED_ROUTE:
            more = _rest_below(template, rest)
            if more is not None and self._is_held(more):
                return joined(joined(above, template), more) if template != "/" else joined(above, more)
        return joined(above, rest) if self._is_held(rest) else None

    def _is_held(self, prefix: str, times: int = _MAX_PREFIXES) -> bool:
        """Return whether a prefix consists of paths that the application's objects hold: clients can't invent it."""
        if not prefix or prefix in self._search.prefixes:
            return True
        ends = [at for at, character in enumerate(prefix) if character == "/" and at] if times else []
        return any(prefix[:at] in self._search.prefixes and self._is_held(prefix[at:], times - 1) for at in ends)


def joined(prefix: str, template: str) -> str:
    """Return a template below a prefix."""
    return prefix.rstrip("/") + template


def _identity(app: Any) -> Any:
    """Return the object that stands for an application: Starlette's have a router, which is found by itself, too."""
    return getattr(app, "router", app) if has_routes(app) else app


def _prefix(path: str, left: str) -> str | None:
    """Return what mounts have cut from a path, or `None` if it is another request's path."""
    if left == "/" and not path.endswith("/"):
        left = ""
    return path[: len(path) - len(left)] if path.endswith(left) else None


def _rest_below(template: str, path: str) -> str | None:
    """Return the part of a path that a template does not match, from its beginning on."""
    segments = template.split("/")[1:] if template != "/" else []
    given = path.split("/")[1:]
    if len(given) < len(segments):
        return None
    if not all(one == other or one[:1] in "{<" for one, other in zip(segments, given, strict=False)):
        return None
    rest = given[len(segments) :]
    return "/" + "/".join(rest) if rest else ""


def _held_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an object's attributes, or the constants of a function."""
    if inspect.isfunction(thing):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        named = [thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__]
        for value in (*thing.__code__.co_consts, *cells, *(thing.__defaults__ or ()), *named):
            if isinstance(value, str | Mapping | list | tuple):
                yield "", value
        return
    if inspect.ismethod(thing) or inspect.ismodule(thing):
        return
    yield from getattr(thing, "__dict__", {}).items()
    for base in type(thing).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            with contextlib.suppress(Exception):
                yield name, getattr(thing, name)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _texts(key: Any) -> list[str]:
    return [one for one in (key if isinstance(key, tuple) else (key,)) if isinstance(one, str)]
