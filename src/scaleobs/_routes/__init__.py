"""
The route template of a request, which labels its series. The path never does, since clients invent paths.

The templates are read from the objects of the application, differently for each framework. No framework is imported
unless the application has imported it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

from scaleobs._routes.interface import ROUTE, NoRoutes, PlainRoutes, Request, Routes, VisitedRoutes
from scaleobs._routes.nested import NestedRoutes
from scaleobs._routes.objects import (
    attributes,
    count_parameters,
    entries,
    has_routes,
    is_a,
    is_container,
    may_be_app,
    router_of,
    takes_asgi,
    wrapped_by,
)
from scaleobs._routes.search import Search
from scaleobs._routes.starlette import HiddenStarlette, StarletteRoutes

__all__ = ["ROUTE", "PlainRoutes", "Request", "Routes", "around", "dispatched", "routes_of"]

App = TypeVar("App")

_MAX_DISPATCHERS = 20

_KINDS = {
    ("bottle", "Bottle"): "bottle.BottleRoutes",
    ("channels", "URLRouter"): "channels.ChannelsRoutes",
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


def routes_of(
    app: Any,
    route: Callable[[Request], str | None] | None = None,
    *,
    served: Any = None,
    is_asgi: bool | None = None,
) -> Routes:
    """
    Return the routes of an application, and of all applications inside it.

    Flask, Django's handlers, Quart, Falcon and Pyramid don't write into the request what they matched. They get a hook
    that does, once; it raises nothing into the application.

    Args:
        app: the framework's object, one of its methods, or a wrapper around it.
        route: returns the template of a scope or environ, for a framework that is not supported.
        served: what is called, if it is another object than `app`.
        is_asgi: whether `served` is an ASGI application; by default, by the parameters of `app`.
    """
    if route is not None:
        return PlainRoutes(route)
    search, roots = Search(_kind), (app, served)
    parts = search.parts(*roots)
    if is_asgi is None:
        is_asgi = takes_asgi(parts[0].app if parts and count_parameters(app) == 0 else app)
    if not parts and not search.may_grow:
        return HiddenStarlette() if is_asgi else NoRoutes()
    if len(parts) == 1:
        (one,) = parts
        is_in_place = any(one.app is root for root in (app, router_of(app)))
        # A wrapper that holds a path may cut it from the paths of requests.
        is_alone = one.is_wrapped and not one.is_mounted and (is_in_place or not search.prefixes)
        if is_alone and takes_asgi(one.app) is is_asgi:
            return one.routes
    return NestedRoutes(search, roots, parts, is_asgi=is_asgi)


def around(routes: Routes, app: App) -> App:
    """Return the callable to serve in place of an application, which records what each request reaches."""
    return cast("App", routes.around(app)) if isinstance(routes, NestedRoutes) else app


def dispatched(app: Any) -> set[str]:
    """
    Return the paths for which a dispatcher outside all frameworks calls an application, which may be of any kind.

    These are the keys of mappings, as of `DispatcherMiddleware(app, {"/metrics": make_wsgi_app()})`.
    """
    paths, pending, seen = set[str](), [app], list[Any]()
    while pending and len(seen) < _MAX_DISPATCHERS:
        one = pending.pop(0)
        if any(one is other for other in seen):
            continue
        seen.append(one)
        try:
            if _kind(one) is not None:  # Its routes are known.
                continue
            pending += wrapped_by(one)
            containers = [value for _, value in attributes(one) if is_container(value)]
            pairs = [pair for container in containers for pair in entries(container)]
        except Exception:  # noqa: S112 - An object that can't be read shows nothing.
            continue
        paths.update(key for key, value in pairs if isinstance(key, str) and key[:1] == "/" and may_be_app(value))
    return paths


def _kind(app: Any) -> Callable[[Any], VisitedRoutes] | None:
    if is_a(app, type):
        return None
    for base in type(app).__mro__:
        target = _KINDS.get((base.__module__.partition(".")[0], base.__name__))
        # Django's handler of static files, as of `runserver`, wraps the site's own handler.
        if target is not None and not (base.__name__ == "BaseHandler" and hasattr(app, "application")):
            module, _, name = target.partition(".")
            kind: Callable[[Any], VisitedRoutes] = getattr(import_module(f"{__name__}.{module}"), name)
            return kind
    return StarletteRoutes if has_routes(app) else None
