"""Applications inside one another, behind adapters, mounts and dispatchers: each template is the inner one."""

from __future__ import annotations

import asyncio
import warnings

import a2wsgi
import falcon.asgi
import pytest
import socketio
from asgiref.wsgi import WsgiToAsgi
from bottle import Bottle
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.urls import re_path
from fastapi import FastAPI
from flask import Flask
from hypercorn.middleware import DispatcherMiddleware as HypercornDispatcher
from litestar import Litestar, get
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import scaleobs
from support import django_site  # noqa: F401 - Configures Django.
from support.exchanges import asgi, counted, http_scope, run_lifespan, serve_asgi, wsgi
from support.nested_routes import _routes, known, quart  # noqa: F401 - A fixture.

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # WebOb and pkg_resources use modules that are deprecated.
    from pyramid.config import Configurator
    from pyramid.response import Response

pytestmark = [pytest.mark.filterwarnings("ignore:.*deprecated"), pytest.mark.filterwarnings("ignore:async_to_sync")]


def flask(name="shop"):
    """Return an application with an index and a rule."""
    app = Flask(name, static_folder=None)
    app.add_url_rule("/", "index", lambda: "index")
    app.add_url_rule("/items/<int:item_id>", "item", lambda item_id: f"item {item_id}")
    return app


def fastapi():
    """Return an application with one route."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/things/{thing}", lambda thing: thing)
    return app


def starlette_wsgi(app):
    """Return Starlette's adapter, whose module warns when it is imported."""
    from starlette.middleware.wsgi import WSGIMiddleware

    return WSGIMiddleware(app)


FROM_WSGI = {"a2wsgi": a2wsgi.WSGIMiddleware, "asgiref": WsgiToAsgi, "starlette": starlette_wsgi}


@pytest.mark.parametrize("log_format", ["off", "json"])
@pytest.mark.parametrize("adapter", FROM_WSGI.values(), ids=FROM_WSGI)
def test_flask_behind_an_adapter_has_its_rules(adapter, log_format, routes, registry):
    """With an index rule, not everything is the index; rules exist before the first request."""
    app = adapter(flask())
    scaleobs.instrument(app, registry=registry, log_format=log_format)

    assert {"/", "/items/<int:item_id>"} == known(app)
    assert {("/", "200"): 1, ("/items/<int:item_id>", "200"): 2, ("unmatched", "404"): 1} == routes(
        app, "/", "/items/1", "/items/2", "/nowhere", log_format=log_format
    )


@pytest.mark.parametrize(
    ("at", "template"), [("/in", "/in"), ("", ""), ("/t/{tenant}", "/t/{tenant}")], ids=["path", "root", "parameter"]
)
@pytest.mark.parametrize("adapter", FROM_WSGI.values(), ids=FROM_WSGI)
def test_flask_mounted_in_fastapi_has_its_rules_below_the_mount(adapter, at, template, routes):
    """The mount's template is the prefix; requests that Flask refuses are unmatched."""
    app = fastapi()
    app.mount(at, adapter(flask()))
    path = at.replace("{tenant}", "7")

    assert {
        (f"{template}/items/<int:item_id>", "200"): 2,
        ("/things/{thing}", "200"): 1,
        ("unmatched", "404"): 1,
        (f"{template}/", "200"): 1,
    } == routes(app, f"{path}/items/1", f"{path}/items/2", "/things/7", f"{path}/nowhere", f"{path}/")
    assert {"/things/{thing}", f"{template}/items/<int:item_id>", f"{template}/"} == known(app)


def test_fastapi_behind_an_adapter_has_its_routes(routes, registry):
    """The same for ASGI under a WSGI server, whose threads have other context variables."""
    app = a2wsgi.ASGIMiddleware(fastapi())
    scaleobs.instrument(app, registry=registry, log_format="off")

    assert {"/things/{thing}"} == known(app)
    assert {("/things/{thing}", "200"): 2, ("unmatched", "404"): 1} == routes(
        app, "/things/1", "/things/2", "/nowhere", call=wsgi
    )


def test_django_behind_an_adapter_has_its_patterns(routes):
    """Django's WSGI handler below a2wsgi."""
    assert {("/items/<int:item_id>/", "200"): 2, ("unmatched", "404"): 1} == routes(
        a2wsgi.WSGIMiddleware(get_wsgi_application()), "/items/1/", "/items/2/", "/nowhere"
    )


@pytest.mark.parametrize("root", ["", "/root"])
def test_dispatcher_of_werkzeug_has_the_rules_of_all(root, routes, registry):
    """Each application has its rules below its key, also below a root path of the server."""
    bottle = Bottle()
    bottle.route("/things/<thing>", callback=lambda thing: thing)
    others = {"/api": flask("api"), "/bottle": bottle, "/asgi": a2wsgi.ASGIMiddleware(fastapi())}
    app = DispatcherMiddleware(flask(), others)
    scaleobs.instrument(app, registry=registry, log_format="off")

    def call(served, path):
        return wsgi(DispatcherMiddleware(None, {root: served}) if root else served, path=root + path)

    assert {
        "/items/<int:item_id>",
        "/api/items/<int:item_id>",
        "/bottle/things/<thing>",
        "/asgi/things/{thing}",
    } <= known(app)
    assert {
        ("/items/<int:item_id>", "200"): 2,
        ("/api/items/<int:item_id>", "200"): 1,
        ("/api/", "200"): 1,
        ("/bottle/things/<thing>", "200"): 1,
        ("/asgi/things/{thing}", "200"): 1,
        ("unmatched", "404"): 2,
    } == routes(
        app,
        *("/items/1", "/api/items/1", "/items/2", "/api/", "/bottle/things/1", "/asgi/things/1"),
        *("/api/nowhere", "/asgi/nowhere"),
        call=call,
    )


def test_dispatcher_inside_of_flask_has_the_rules_of_all(routes):
    """Flask's documentation replaces `wsgi_app` by a dispatcher."""
    app = flask()
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/api": a2wsgi.ASGIMiddleware(fastapi())})

    assert {("/items/<int:item_id>", "200"): 1, ("/api/things/{thing}", "200"): 1, ("unmatched", "404"): 1} == routes(
        app, "/items/1", "/api/things/1", "/api/nowhere", call=wsgi
    )


def test_dispatcher_of_hypercorn_has_the_routes_of_all(routes, registry):
    """It leaves the whole path in the scope."""
    app = HypercornDispatcher({"/api": fastapi(), "/in": a2wsgi.WSGIMiddleware(flask()), "/": fastapi()})
    scaleobs.instrument(app, registry=registry, log_format="off")

    assert {"/api/things/{thing}", "/in/", "/in/items/<int:item_id>", "/things/{thing}"} == known(app)
    assert {
        ("/api/things/{thing}", "200"): 1,
        ("/in/items/<int:item_id>", "200"): 1,
        ("/things/{thing}", "200"): 1,
        ("unmatched", "404"): 2,
    } == routes(app, "/api/things/1", "/in/items/1", "/things/1", "/in/nowhere", "/nowhere")


async def consumer(scope, receive, send):
    """Answer as a consumer of Channels."""
    await PlainTextResponse("consumer")(scope, receive, send)


@pytest.mark.parametrize(
    "http", [lambda site: site, lambda site: URLRouter([re_path("^sse/", consumer), re_path("", site)])]
)
def test_channels_has_the_patterns_of_django(http, routes, registry):
    """Django inside a mapping by protocols, and inside patterns."""
    app = ProtocolTypeRouter({"http": http(get_asgi_application()), "websocket": consumer})
    scaleobs.instrument(app, registry=registry, log_format="off")

    assert "/items/<int:item_id>/" in known(app)
    assert {("/items/<int:item_id>/", "200"): 2, ("unmatched", "404"): 1} == routes(
        app, "/items/1/", "/items/2/", "/nowhere"
    )


def test_socketio_has_the_routes_of_the_application_beside_it(routes, registry):
    """Requests that Socket.IO answers itself are unmatched, also if the application would take any path."""
    other = fastapi()
    other.add_api_route("/{path:path}", lambda path: path)
    app = socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), other)
    scaleobs.instrument(app, registry=registry, log_format="off")

    assert {"/things/{thing}", "/{path}"} == known(app)
    assert {("/things/{thing}", "200"): 1, ("unmatched", "400"): 1, ("/{path}", "200"): 1} == routes(
        app, "/things/1", "/socket.io/", "/other"
    )


def test_function_that_chooses_has_the_routes_of_both(routes, registry):
    """FastAPI or Django by path."""
    api, site = fastapi(), get_asgi_application()

    async def choose(scope, receive, send):
        await (api if scope["path"].startswith("/things") else site)(scope, receive, send)

    scaleobs.instrument(choose, registry=registry, log_format="off")

    assert {"/things/{thing}", "/items/<int:item_id>/"} <= known(choose)
    assert {("/things/{thing}", "200"): 2, ("/items/<int:item_id>/", "200"): 1, ("unmatched", "404"): 2} == routes(
        choose, "/things/1", "/items/1/", "/things/2", "/nowhere", "/things/1/2"
    )


def test_prefix_that_a_client_invents_is_no_route(routes):
    """A function that cuts any first segment: only paths that its objects hold are prefixes."""
    app = flask()

    def cut(environ, start_response):
        first, _, rest = environ["PATH_INFO"][1:].partition("/")
        root = {"SCRIPT_NAME": f"/{first}", "PATH_INFO": f"/{rest}"}
        return (app if first == "/api"[1:] else other)({**environ, **root}, start_response)

    other = flask("other")

    assert {("/api/items/<int:item_id>", "200"): 1, ("unmatched", "200"): 5} == routes(
        cut, "/api/items/1", *(f"/invented-{number}/items/1" for number in range(5)), call=wsgi
    )


def test_application_that_requests_another_one_has_its_own_route(routes):
    """A handler that calls another application in the process does not take over the other one's route."""
    inner = flask()
    outer = fastapi()

    def request_inner():
        return wsgi(inner, path="/items/7").status

    outer.add_api_route("/ask", request_inner)
    outer.mount("/in", a2wsgi.WSGIMiddleware(inner))

    assert {("/ask", "200"): 2, ("/in/items/<int:item_id>", "200"): 1} == routes(outer, "/ask", "/in/items/1", "/ask")


def test_answer_of_a_middleware_before_all_is_unmatched_or_right(routes):
    """A preflight that no application receives has no template of a wrong one."""
    app = Starlette(
        routes=[Mount("/", a2wsgi.WSGIMiddleware(flask()))],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    )
    preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")]

    def call(served, path):
        return asgi(served, "OPTIONS", path, headers=preflight)

    assert {("unmatched", "200"): 1} == routes(app, "/items/1", call=call)


class Hostile:
    """An application whose attributes raise, but one."""

    def __init__(self, app):
        self.__dict__["served"] = app
        self.__dict__["worse"] = Worse()
        self.__dict__["itself"] = {"/": self, "/more": [self, (self, "/more")]}

    def __getattr__(self, name):
        raise RuntimeError(name)

    async def __call__(self, scope, receive, send):
        await self.served(scope, receive, send)


class Worse:
    """An object that can't be read."""

    @property
    def __class__(self):
        raise ValueError("class")

    def __getattribute__(self, name):
        raise ValueError(name)

    def __eq__(self, other):
        raise ValueError("equal")

    __hash__ = None


def test_object_that_cannot_be_read_shows_nothing(routes):
    """Its other attributes are found; objects that contain themselves end the search."""
    assert {("/things/{thing}", "200"): 1, ("unmatched", "404"): 1} == routes(
        HypercornDispatcher({"/": Hostile(fastapi())}), "/things/1", "/nowhere"
    )


class Chain:
    """An application that holds ten of its kind, each of which does the same."""

    def __init__(self, depth=0):
        self.depth = depth

    @property
    def app(self):
        return Chain(self.depth + 1)

    @property
    def application(self):
        return Chain(self.depth + 1)

    async def __call__(self, scope, receive, send):
        await consumer(scope, receive, send)


def test_search_has_limits(routes):
    """An object that makes more objects each time is searched for a bounded time."""
    assert {("unmatched", "200"): 1} == routes(Chain(), "/")


@get("/things/{thing:int}")
async def litestar_thing(thing: int) -> str:
    """Answer."""
    return str(thing)


class FalconThing:
    """Answers."""

    async def on_get(self, req, resp, thing):
        resp.text = thing


def falcon_app():
    """Return an application of Falcon."""
    app = falcon.asgi.App()
    app.add_route("/things/{thing}", FalconThing())
    return app


def pyramid():
    """Return an application of Pyramid behind an adapter."""
    with Configurator() as config:
        config.add_route("thing", "/things/{thing}")
        config.add_view(lambda request: Response("thing"), route_name="thing")
        return a2wsgi.WSGIMiddleware(config.make_wsgi_app())


@pytest.mark.parametrize(
    ("make", "template"),
    [
        (lambda: Litestar([litestar_thing]), "/things/{thing}"),
        (falcon_app, "/things/{thing}"),
        (quart, "/things/<thing>"),
        (pyramid, "/things/{thing}"),
        (lambda: Starlette(routes=[Route("/things/{thing}", lambda _: PlainTextResponse("x"))]), "/things/{thing}"),
    ],
    ids=["litestar", "falcon", "quart", "pyramid", "starlette"],
)
def test_each_framework_beside_flask_has_its_templates(make, template, routes):
    """Below a key of a dispatcher, with Flask beside it, in any order of requests."""
    apps = {"/other": make(), "/in": a2wsgi.WSGIMiddleware(flask())}

    async def dispatch(scope, receive, send):
        root = next(root for root in apps if scope["path"].startswith(root))
        path = scope["path"].removeprefix(root)
        await apps[root]({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    assert {
        (f"/other{template}", "200"): 3,
        ("/in/items/<int:item_id>", "200"): 2,
        ("unmatched", "404"): 2,
    } == routes(
        dispatch,
        *("/other/things/1", "/in/items/1", "/other/things/2", "/in/nowhere", "/other/things/3", "/in/items/3"),
        "/other/nowhere",
    )


def test_applications_side_by_side_share_no_template(routes):
    """The same endpoint in two applications, and equal values by which single applications cache."""

    def shared(request):
        return PlainTextResponse("shared")

    one, two = (Starlette(routes=[Route(path, shared)]) for path in ("/one/{x}", "/two/{y}"))

    async def choose(scope, receive, send):
        await (one if scope["path"].startswith("/one") else two)(scope, receive, send)

    assert {("/one/{x}", "200"): 2, ("/two/{y}", "200"): 2} == routes(choose, "/one/1", "/two/1", "/one/2", "/two/2")


def test_requests_of_nested_applications_leave_no_garbage(registry):
    """What is recorded of a request refers to the request, and is dropped at its end."""
    served = scaleobs.instrument(HypercornDispatcher({"/api": fastapi()}), registry=registry, log_format="off")
    scope = http_scope(path="/api/things/2")
    asyncio.run(serve_asgi(served, scope))

    assert "/api/things/{thing}" == scope["scaleobs.visits"].template
    assert scope["scaleobs.visits"].reached is None


def test_front_end_of_a_mounted_fastapi_has_its_template(tmp_path, routes):
    """The front end belongs to the router of the mounted application."""
    (tmp_path / "index.html").write_text("<html></html>")
    inner, outer = FastAPI(openapi_url=None), FastAPI(openapi_url=None)
    if not hasattr(inner, "frontend"):
        pytest.skip("this FastAPI has no front ends")
    inner.frontend("/ui", directory=str(tmp_path))
    outer.mount("/in", inner)

    assert {("/in/ui", "200"): 2, ("unmatched", "404"): 1} == routes(
        outer, "/in/ui/index.html", "/in/ui/", "/in/nowhere"
    )
    assert {"/in/ui"} == known(outer)


class Cutting(Starlette):
    """An application that cuts the prefix of its mount from the path, as NiceGUI's does."""

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope["path"] = scope["path"].removeprefix(scope["root_path"])
        await super().__call__(scope, receive, send)


def test_mount_that_cuts_its_path_has_its_templates(routes):
    """The template is found by the path that the application has left."""

    def shared(request):
        return PlainTextResponse("shared")

    inner = Cutting(routes=[Route("/a/{x}", shared), Route("/b/{x}", shared), Route("/c/{x}", shared)])
    app = Starlette(routes=[Mount("/in", inner), Mount("/t/{tenant}", inner), Route("/a/{x}", shared)])

    assert {
        ("/in/a/{x}", "200"): 1,
        ("/in/b/{x}", "200"): 1,
        ("/t/{tenant}/c/{x}", "200"): 1,
        ("/a/{x}", "200"): 1,
        ("/in/c/{x}", "307"): 1,
        ("unmatched", "404"): 1,
    } == routes(app, "/in/a/1", "/in/b/1", "/t/7/c/1", "/a/1", "/in/c/1/", "/in/nowhere")


SPECIFICATION = {
    "openapi": "3.0.3",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "/v1"}],
    "paths": {
        "/items/{item_id}": {
            "get": {
                "operationId": "item",
                "parameters": [{"name": "item_id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "An item."}},
            }
        }
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize(
    ("kind", "template"), [("FlaskApp", "/v1/items/<int:item_id>"), ("AsyncApp", "/v1/items/{item_id}")]
)
def test_connexion_has_the_paths_of_its_specification(kind, template, has_lifespan, routes, registry):
    """Once, in the notation of the framework; without a lifespan they are found at the first request."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import connexion

    async def item(item_id):
        return f"item {item_id}"

    app = getattr(connexion, kind)("shop")
    app.add_api(SPECIFICATION, resolver=lambda _: item)
    served = scaleobs.instrument(app, registry=registry, log_format="off")
    if has_lifespan:
        asyncio.run(run_lifespan(served))
        assert [template] == [one for one in known(app) if "item" in one]
    else:
        asgi(served, "OPTIONS", "/nowhere")
    expected = {(template, "200"): 2, ("unmatched", "404"): 2 if has_lifespan else 3}
    paths = ["/v1/items/1", "/v1/items/2", "/v1/items/x", "/v1/nowhere"]
    for path in paths:
        asgi(served, path=path)
    found = {}
    for (_, route, status), number in counted(registry).items():
        found[route, status] = found.get((route, status), 0) + number

    assert expected == found
