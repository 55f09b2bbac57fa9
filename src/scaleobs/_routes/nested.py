"""The routes of several applications in one: behind adapters, mounts, and dispatchers of any kind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from scaleobs._routes.interface import Pairs, Request, settled
from scaleobs._routes.objects import has_routes, takes_asgi
from scaleobs._routes.search import Part, Search, joined
from scaleobs._routes.starlette import HiddenStarlette
from scaleobs._routes.visits import VISITS, Visits, current_visits, own_path
from scaleobs.catalog import UNMATCHED_ROUTE

_PARAMETER = re.compile(r"[{<][^/]*[}>]")
_MAX_SEARCHES = 3
_MAX_PREFIXES = 16


class _Level(NamedTuple):
    """
    An application that a request has reached.

    Attributes:
        prefix: what was cut from the path before.
        below: the template of the prefix; `None` if it may be a client's invention.
        part: the application.
        request: the application's request.
    """

    prefix: str
    below: str | None
    part: Part
    request: Request


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
        self._prefixes: dict[int, set[str]] = {}
        self._use(parts)

    def around(self, app: Any) -> Any:
        """Return the application, with the visits of each request recorded."""

        async def record_asgi(scope: Request, receive: Any, send: Any) -> None:
            if scope["type"] not in {"http", "websocket"}:
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
                self._search.is_served = True
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
        self._mounts = {id(mount) for mount in self._search.mounts}

    def _places(self) -> Iterator[tuple[Part, str]]:
        """Yield each application with its prefix; if requests came with others, which code has cut, with those."""
        found = {id(part.app): {one.prefix for one in self._parts if one.app is part.app} for part in self._parts}
        for part in self._parts:
            cut = self._prefixes.get(id(part.app), set()) - found[id(part.app)]
            yield from ((part, prefix) for prefix in sorted(cut) or [part.prefix])

    def _pairs(self) -> list[tuple[str, str]]:
        hiding = {part.prefix or "/" for part in self._parts if part.is_mounted}
        pairs, repeated = list[tuple[str, str]](), list[tuple[str, str]]()
        for part, prefix in self._places():
            with contextlib.suppress(Exception):
                own = [pair for pair in part.routes.known() if joined(prefix, pair[1]) not in hiding or part.is_mounted]
                # A dispatcher may leave its prefix in the path, so that the application's own routes have it.
                is_complete = all(template.startswith(prefix + "/") for _, template in own)
                below = [(method, joined("" if is_complete else prefix, template)) for method, template in own]
                is_bypassed = has_routes(part.app) and part.routes.is_bypassed()  # type: ignore[attr-defined]
                (repeated if is_bypassed else pairs).extend(below)
        # A router that passes on each request may have the routes of the next application in another notation.
        shapes = {(method, _PARAMETER.sub("{}", template)) for method, template in pairs}
        return pairs + [pair for pair in repeated if (pair[0], _PARAMETER.sub("{}", pair[1])) not in shapes]

    def _composed(self, request: Request, path: str, reached: list[tuple[Any, Request, str]]) -> str:
        levels: list[_Level] = []
        for app, own, left in reached:
            part, prefix = self._by_app.get(id(app)), _prefix(path, left)
            if part is None or prefix is None:
                continue
            while levels and not prefix.startswith(levels[-1].prefix):
                levels.pop()
            levels.append(_Level(prefix, self._prefix_template(prefix, levels), part, own))
        if not levels:
            return UNMATCHED_ROUTE if reached else self._template_without_visit(request)
        last = levels[-1]
        if last.below is None or self._is_passed_on(last):
            return UNMATCHED_ROUTE
        template = last.part.routes.template(last.request)[0]
        if template == UNMATCHED_ROUTE:
            return UNMATCHED_ROUTE
        self._remember_prefix(last.part, last.below)
        return joined(last.below, template)

    def _is_passed_on(self, last: _Level) -> bool:
        """Return whether an application passed on a request to a part that shows no visit: an adapter may answer."""
        passed_to = getattr(last.part.routes, "passed_to", None)
        return passed_to is not None and id(passed_to(last.request)) in self._mounts

    def _template_without_visit(self, request: Request) -> str:
        """Return the template of a request that reached no application: perhaps a middleware has answered."""
        if len(self._parts) == 1:
            (one,) = self._parts
            if one.is_wrapped and not one.is_mounted and takes_asgi(one.app) is self._is_asgi:
                return one.routes.template(request)[0]
        return self._hidden.template(request)[0] if self._is_asgi else UNMATCHED_ROUTE

    def _remember_prefix(self, part: Part, prefix: str) -> None:
        found = self._prefixes.setdefault(id(part.app), set())
        if len(found) < _MAX_PREFIXES:
            found.add(prefix)

    def _prefix_template(self, prefix: str, levels: list[_Level]) -> str | None:
        """Return the template of the prefix of an application, by the mounts before it."""
        if not levels:
            return prefix if self._search.holds(prefix) else None
        outer = levels[-1]
        above, rest = outer.below, prefix[len(outer.prefix) :]
        if not rest or above is None:
            return above
        template = outer.part.routes.template(outer.request)[0]
        if template != UNMATCHED_ROUTE:
            more = _rest_below(template, rest)
            if more is not None and self._search.holds(more):
                return joined(joined(above, template), more) if template != "/" else joined(above, more)
        return joined(above, rest) if self._search.holds(rest) else None


def _prefix(path: str, left: str) -> str | None:
    """Return what mounts have cut from a path, or `None` if it is another request's path."""
    if left.endswith("/") and not path.endswith("/"):  # An application appends a slash, as Litestar's mounts do.
        left = left.rstrip("/")
    if left and not left.startswith("/"):  # Below a root path with a slash at its end, as hypercorn's dispatcher has.
        left = f"/{left}"
    return path[: len(path) - len(left)].rstrip("/") if path.endswith(left) else None


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
