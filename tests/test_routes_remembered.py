"""Templates are cached: a second request of the same route computes none."""

from __future__ import annotations

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from fastapi import APIRouter, FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import scaleobs
import test_routes_bottle
import test_routes_falcon
import test_routes_fastapi
import test_routes_flask
import test_routes_litestar
import test_routes_pyramid
import test_routes_quart
import test_routes_starlette
from scaleobs._routes.bottle import BottleRoutes
from scaleobs._routes.django import DjangoRoutes
from scaleobs._routes.falcon import FalconRoutes
from scaleobs._routes.litestar import LitestarRoutes
from scaleobs._routes.pyramid import PyramidRoutes
from scaleobs._routes.starlette import StarletteRoutes
from scaleobs._routes.table import RouteTable
from scaleobs._routes.werkzeug import FlaskRoutes, QuartRoutes
from support import django_site  # noqa: F401 - Configures Django.
from support.exchanges import asgi, counted, wsgi

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
"""Frameworks whose hook is also called for paths without a route."""


def serve(site, monkeypatch, registry, paths):
    """Serve a request for each path, and return how many templates were computed."""
    make, call, kind, _, _ = site
    calls = []
    find = kind.template

    def template(self, request):
        calls.append(request)
        return find(self, request)

    monkeypatch.setattr(kind, "template", template)
    app = make()
    if isinstance(app, Starlette | FastAPI):
        app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") not in HIDING]
    app = scaleobs.instrument(app, registry=registry, log_format="off")
    for path in paths:
        call(app, path=path, headers=[("Host", "testserver")])
    return len(calls)


def hello(request):
    """Answer."""
    return PlainTextResponse("hello")


def starlette_function():
    """Return an application with a function behind two routes."""
    return Starlette(routes=[Route("/one/{a}", hello), Route("/two/{b}", hello)])


def fastapi_function():
    """Return an application with a function under two decorators."""
    app = FastAPI()

    def read(request: Request):
        return "hello"

    app.get("/one/{a}")(read)
    app.get("/two/{b}")(read)

    return app


def fastapi_router():
    """Return an application with a router that is included twice."""
    router, app = APIRouter(), FastAPI()
    router.get("/{a}")(lambda a: a)
    app.include_router(router, prefix="/one")
    app.include_router(router, prefix="/two")
    return app


def mounted(one, two, sub=None):
    """Return an application that is mounted twice in another one."""
    sub = Starlette(routes=[Route("/{a}", hello)]) if sub is None else sub
    return Starlette(routes=[Mount(one, sub), Mount(two, sub)])


def mounted_fastapi():
    """Return a FastAPI application that is mounted twice in another one."""
    app, sub = FastAPI(), FastAPI()
    sub.get("/{a}")(lambda a: a)
    app.mount("/one", sub)
    app.mount("/two", sub)
    return app


SHARED = {
    "function": (starlette_function, {"/one/{}": "/one/{a}", "/two/{}": "/two/{b}"}, True),
    "FastAPI function": (fastapi_function, {"/one/{}": "/one/{a}", "/two/{}": "/two/{b}"}, True),
    "FastAPI router": (fastapi_router, {"/one/{}": "/one/{a}", "/two/{}": "/two/{a}"}, False),
    "mounted": (lambda: mounted("/one", "/two"), {"/one/{}": "/one/{a}", "/two/{}": "/two/{a}"}, False),
    "mounted FastAPI": (mounted_fastapi, {"/one/{}": "/one/{a}", "/two/{}": "/two/{a}"}, False),
    "mounted with parameters": (
        lambda: mounted("/one/{tenant}", "/two/{tenant}"),
        {"/one/{}/x": "/one/{tenant}/{a}", "/two/{}/x": "/two/{tenant}/{a}"},
        False,
    ),
    "mounted behind parameters": (
        lambda: mounted("/{tenant}", "/two"),
        {"/one/{}": "/{tenant}/{a}", "/two/{}": "/{tenant}/{a}"},
        False,
    ),
    "mounted before parameters": (
        lambda: mounted("/two", "/{tenant}"),
        {"/t{0}/{0}": "/{tenant}/{a}", "/two/{}": "/two/{a}"},
        False,
    ),
}
"""Several templates of one endpoint: an application, its paths with their templates, and whether the route decides."""


@pytest.mark.parametrize("name", SHARED)
def test_shared_endpoint_is_remembered_by_its_route(name, monkeypatch, registry):
    """Requests to an endpoint with several templates match no paths, and clients cannot fill the cache."""
    make, paths, is_alone = SHARED[name]
    by_path, calls = [], []
    find, template = RouteTable.find, StarletteRoutes.template
    monkeypatch.setattr(RouteTable, "find", lambda *args: by_path.append(args) or find(*args))
    monkeypatch.setattr(StarletteRoutes, "template", lambda *args: calls.append(args) or template(*args))
    app = scaleobs.instrument(make(), registry=registry, log_format="off")
    for number in range(30):
        for path in paths:
            assert 200 == asgi(app, path=path.format(number)).status
    expected = {}
    for path in paths.values():
        expected["GET", path, "200"] = expected.get(("GET", path, "200"), 0) + 30
    (shard,) = {
        id(shard): shard for _, shard in scaleobs.observer_of(app)._service.storage._shards if shard.child_cache
    }.values()

    assert expected == counted(registry)
    assert [] == by_path
    assert len(calls) == (2 if is_alone else 60)
    assert len(shard.child_cache) <= 4


@pytest.mark.parametrize("root_path", ["", "/proxy", "/one"])
@pytest.mark.parametrize("name", SHARED)
def test_shared_endpoint_within_another_application(name, root_path, registry):
    """The template has neither outer mounts nor a server's prefix, also if its name is that of an own mount."""
    make, paths, _ = SHARED[name]
    app = scaleobs.instrument(make(), registry=registry, log_format="off")
    outer = Starlette(routes=[Mount("/two", app)])
    for _ in range(2):
        for path in paths:
            assert 200 == asgi(outer, path=f"{root_path}/two" + path.format(7), root_path=root_path).status
            assert 200 == asgi(app, path=root_path + path.format(7), root_path=root_path).status

    assert set(paths.values()) == {route for _, route, _ in counted(registry)}
    assert 4 * len(paths) == sum(counted(registry).values())


def test_routes_that_are_replaced_are_not_confused(registry):
    """A removed route is not mistaken for a later one, even if both had the same address in memory."""
    app = scaleobs.instrument(starlette_function(), registry=registry, log_format="off")
    for number in range(50):
        app.router.routes[:] = [Route(f"/{number}/{{a}}", hello), Route(f"/{number}/{{a}}/b", hello)]
        asgi(app, path=f"/{number}/x")
        asgi(app, path=f"/{number}/x/b")

    expected = {("GET", template, "200"): 1 for n in range(50) for template in (f"/{n}/{{a}}", f"/{n}/{{a}}/b")}
    assert expected == counted(registry)


HIDING = ("/raw", "/a")
"""Mounts of a function that may call any endpoint; see `test_routes_shared`."""


@pytest.mark.parametrize("name", SITES)
def test_template_of_a_route_is_computed_once(name, monkeypatch, registry):
    """Fifty requests to one route compute its template once."""
    site = SITES[name]

    assert 1 == serve(site, monkeypatch, registry, [site[3].format(number) for number in range(50)])
    assert {("GET", site[4], "200"): 50} == counted(registry)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unmatched_is_computed_once(name, monkeypatch, registry):
    """Fifty paths without a route compute one template, too, if the framework's hook is called for them."""
    assert 1 == serve(UNKNOWN[name], monkeypatch, registry, [f"/scan/{number}.php" for number in range(50)])
    assert {("GET", "unmatched", "404"): 50} == counted(registry)


@pytest.mark.parametrize("name", SITES)
def test_what_is_remembered_is_of_one_route(name, monkeypatch, registry):
    """Requests to the route, to no route and to the route again are each counted under the right template."""
    site = SITES[name]
    paths = [path for number in range(3) for path in (site[3].format(number), f"/scan/{number}.php")]
    serve(site, monkeypatch, registry, paths)

    assert {("GET", site[4], "200"): 3, ("GET", "unmatched", "404"): 3} == counted(registry)
