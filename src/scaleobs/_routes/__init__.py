"""
The route template of a request, which is what its series are labelled with; never the path, which a client
makes up.

Each framework is asked in its own way, by looking at the objects that the application brings: none is
imported here before the application has imported it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from scaleobs._routes.interface import ROUTE, NoRoutes, PlainRoutes, Request, Routes, is_async, unwrapped
from scaleobs._routes.starlette import HiddenStarlette, StarletteRoutes
from scaleobs._routes.table import has_routes

__all__ = ["ROUTE", "Request", "Routes", "routes_of"]

_KINDS = {
    ("bottle", "Bottle"): "bottle.BottleRoutes",
    ("django", "BaseHandler"): "django.DjangoRoutes",
    ("falcon", "App"): "falcon.FalconRoutes",
    ("flask", "Flask"): "werkzeug.FlaskRoutes",
    ("litestar", "Litestar"): "litestar.LitestarRoutes",
    ("pyramid", "Router"): "pyramid.PyramidRoutes",
    ("quart", "Quart"): "werkzeug.QuartRoutes",
}
"""
By the package and the name of the application's class, or of one that it inherits: what knows its routes.

That is loaded for the frameworks that are there; all of them would take a tenth of what loading scaleobs does.
"""


def routes_of(app: Any, route: Callable[[Request], str | None] | None = None) -> Routes:
    """
    Return the routes of an application.

    Flask, Django's handlers, Quart, Falcon and Pyramid don't leave in the request what they matched; they get a hook
    that does, once, which raises nothing into the application.

    Args:
        app: the framework's object, one of its methods, or whatever is wrapped around it.
        route: a function that finds the template of a scope or environ, for a framework that isn't known here.
    """
    if route is not None:
        return PlainRoutes(route)
    for one in unwrapped(app):
        try:
            kind = _kind(one)
            if kind is not None:
                return kind(one)
        except Exception:  # noqa: S112 - An object that can't be looked at, or has changed since: as if it weren't there.
            continue
    return HiddenStarlette() if is_async(app) else NoRoutes()


def _kind(app: Any) -> Callable[[Any], Routes] | None:
    if isinstance(app, type):
        return None
    for base in type(app).__mro__:
        known = _KINDS.get((base.__module__.partition(".")[0], base.__name__))
        # Django's handler of static files, as of `runserver`, goes before the site's own.
        if known is not None and not (base.__name__ == "BaseHandler" and hasattr(app, "application")):
            module, _, name = known.partition(".")
            kind: Callable[[Any], Routes] = getattr(import_module(f"{__name__}.{module}"), name)
            return kind
    return StarletteRoutes if has_routes(app) else None
