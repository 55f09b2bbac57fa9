"""
The route template of a request, which labels its series. The path never does, since clients invent paths.

The templates are read from the objects of the application, differently for each framework. No framework is imported
unless the application has imported it.
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
The class that reads the routes, by the package and the name of the application's class or of a base class.

Only the modules of the frameworks in use are imported; all of them would take a tenth of scaleobs's import time.
"""


def routes_of(app: Any, route: Callable[[Request], str | None] | None = None) -> Routes:
    """
    Return the routes of an application.

    Flask, Django's handlers, Quart, Falcon and Pyramid don't write into the request what they matched. They get a hook
    that does, once; it raises nothing into the application.

    Args:
        app: the framework's object, one of its methods, or a wrapper around it.
        route: returns the template of a scope or environ, for a framework that is not supported.
    """
    if route is not None:
        return PlainRoutes(route)
    for one in unwrapped(app):
        try:
            kind = _kind(one)
            if kind is not None:
                return kind(one)
        except Exception:  # noqa: S112 - It can't be read; the next one may be.
            continue
    return HiddenStarlette() if is_async(app) else NoRoutes()


def _kind(app: Any) -> Callable[[Any], Routes] | None:
    if isinstance(app, type):
        return None
    for base in type(app).__mro__:
        target = _KINDS.get((base.__module__.partition(".")[0], base.__name__))
        # Django's handler of static files, as of `runserver`, wraps the site's own handler.
        if target is not None and not (base.__name__ == "BaseHandler" and hasattr(app, "application")):
            module, _, name = target.partition(".")
            kind: Callable[[Any], Routes] = getattr(import_module(f"{__name__}.{module}"), name)
            return kind
    return StarletteRoutes if has_routes(app) else None
