"""The rules of Bottle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from scaleobs._routes.interface import Pairs, Request, explicit_methods, settled
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE

_ANY_METHOD = ("ANY", "PROXY")


class BottleRoutes:
    """The rules of an application, by the route that it writes into the environ."""

    route_key = "bottle.route"

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: Pairs = ()

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the rule, also of a wrong method, or the prefix of a mounted application."""
        route = request.get("bottle.route")
        # A mounted Bottle application writes its own route.
        if route is not None and request.get("bottle.app") is self._app:
            return _template(route), True
        return self._unrouted(request), False

    def known(self) -> Pairs:
        """Return every method and rule."""
        self._known = settled(self._known, _pairs(self._app.routes))
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        if "wsgi" not in vars(self._app):  # Bottle refuses a second assignment.
            self._app.wsgi = visiting(self._app, self._app.wsgi, lambda environ, *_: environ)

    def _unrouted(self, request: Request) -> str:
        http_error: Any = sys.modules["bottle"].HTTPError  # The application imported it.
        request_line = {"PATH_INFO": request.get("PATH_INFO", ""), "REQUEST_METHOD": request.get("REQUEST_METHOD", "")}
        try:
            try:
                return _template(self._app.router.match(request_line)[0])
            except http_error as error:
                if error.status_code != 405:  # noqa: PLR2004
                    return UNMATCHED_ROUTE
                request_line["REQUEST_METHOD"] = error.get_header("Allow", "").partition(",")[0]
                return _template(self._app.router.match(request_line)[0])
        except http_error:
            return UNMATCHED_ROUTE


def _template(route: Any) -> str:
    mountpoint = route.config.get("mountpoint.prefix")
    return str(route.rule) if mountpoint is None else str(mountpoint).rstrip("/") or "/"


def _pairs(routes: Any) -> Iterator[tuple[str, str]]:
    for route in routes:
        # A route for any method is listed with the most common one.
        for method in explicit_methods(["GET"] if route.method in _ANY_METHOD else [route.method]):
            yield method, _template(route)
