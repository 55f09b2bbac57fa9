"""What was found for one request isn't looked for again for the next one like it."""

from __future__ import annotations

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from fastapi import FastAPI
from starlette.applications import Starlette

import django_site  # noqa: F401 - Configures Django.
import scaleobs
import test_routes_bottle
import test_routes_falcon
import test_routes_fastapi
import test_routes_flask
import test_routes_litestar
import test_routes_pyramid
import test_routes_quart
import test_routes_starlette
from callers import asgi, counted, wsgi
from scaleobs.routes.bottle import BottleRoutes
from scaleobs.routes.django import DjangoRoutes
from scaleobs.routes.falcon import FalconRoutes
from scaleobs.routes.litestar import LitestarRoutes
from scaleobs.routes.pyramid import PyramidRoutes
from scaleobs.routes.rules import FlaskRoutes, QuartRoutes
from scaleobs.routes.starlette import StarletteRoutes

SITES = {
    "bottle": (lambda: test_routes_bottle.site().app, wsgi, BottleRoutes, "/items/{}", "/items/<item_id:int>"),
    "django": (get_wsgi_application, wsgi, DjangoRoutes, "/items/{}/", "/items/<int:item_id>/"),
    "django asgi": (get_asgi_application, asgi, DjangoRoutes, "/items/{}/", "/items/<int:item_id>/"),
    "falcon": (lambda: test_routes_falcon.site("wsgi").app, wsgi, FalconRoutes, "/items/{}", "/items/{item_id:int}"),
    "falcon asgi": (lambda: test_routes_falcon.site("asgi").app, asgi, FalconRoutes, "/i/{}", "/i/{item_id}"),
    "falcon sink": (lambda: test_routes_falcon.site("wsgi").app, wsgi, FalconRoutes, "/old/{}", "/old"),
    "fastapi": (test_routes_fastapi.api, asgi, StarletteRoutes, "/plain/{}", "/plain/{x}"),
    "flask": (test_routes_flask.site, wsgi, FlaskRoutes, "/items/{}", "/items/<int:item_id>"),
    "litestar": (lambda: test_routes_litestar.site().app, asgi, LitestarRoutes, "/items/{}", "/items/{item_id}"),
    "pyramid": (lambda: test_routes_pyramid.site().app, wsgi, PyramidRoutes, "/items/{}", r"/items/{item_id:\d+}"),
    "quart": (test_routes_quart.app, asgi, QuartRoutes, "/items/{}", "/items/<int:item_id>"),
    "starlette": (test_routes_starlette.site, asgi, StarletteRoutes, "/router/{}", "/router/{y}"),
}

UNKNOWN = {name: SITES[name] for name in ("flask", "quart", "falcon", "falcon asgi", "django", "django asgi")}
"""Of those whose hook hears of paths that no route has."""


def serve(site, monkeypatch, registry, paths):
    """Serve a request for each path, and return how often a template was asked for."""
    make, call, kind, _, _ = site
    asked = []
    find = kind.template

    def template(self, request):
        asked.append(request)
        return find(self, request)

    monkeypatch.setattr(kind, "template", template)
    app = make()
    if isinstance(app, Starlette | FastAPI):
        app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") not in HIDING]
    app = scaleobs.instrument(app, registry=registry, log_format="off")
    for path in paths:
        call(app, path=path, headers=[("Host", "testserver")])
    return len(asked)


HIDING = ("/raw", "/a")
"""Mounts of a function that may hide anything; `test_routes_shared` has them."""


@pytest.mark.parametrize("name", SITES)
def test_template_of_a_route_is_asked_for_once(name, monkeypatch, registry):
    """Fifty requests to one route ask for its template once."""
    site = SITES[name]

    assert 1 == serve(site, monkeypatch, registry, [site[3].format(number) for number in range(50)])
    assert {("GET", site[4], "200"): 50} == counted(registry)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unmatched_is_asked_for_once(name, monkeypatch, registry):
    """Fifty paths that no route has ask once, too, where the framework says that it found none."""
    assert 1 == serve(UNKNOWN[name], monkeypatch, registry, [f"/scan/{number}.php" for number in range(50)])
    assert {("GET", "unmatched", "404"): 50} == counted(registry)


@pytest.mark.parametrize("name", SITES)
def test_what_is_remembered_is_of_one_route(name, monkeypatch, registry):
    """Requests to the route, to none and to the route again, in turn, are counted each under its own."""
    site = SITES[name]
    paths = [path for number in range(3) for path in (site[3].format(number), f"/scan/{number}.php")]
    serve(site, monkeypatch, registry, paths)

    assert {("GET", site[4], "200"): 3, ("GET", "unmatched", "404"): 3} == counted(registry)
