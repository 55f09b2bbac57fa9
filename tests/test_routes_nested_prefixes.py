"""Code that cuts a prefix, mounts of each framework, and containers: the inner template is below the prefix."""

from __future__ import annotations

from typing import Any

import a2wsgi
import falcon.asgi
import pytest
from asgiref.wsgi import WsgiToAsgi
from channels.routing import URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path
from fastapi import FastAPI
from flask import Flask
from hypercorn.middleware import DispatcherMiddleware as HypercornDispatcher
from litestar import Litestar, get
from litestar import asgi as mount
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from support import django_site  # noqa: F401 - Configures Django.
from support.exchanges import asgi, wsgi
from support.nested_routes import _routes, known, quart  # noqa: F401 - A fixture.

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")


def flask():
    """Return an application with an index, a rule, and one for any other path."""
    app = Flask("shop", static_folder=None)
    app.add_url_rule("/", "index", lambda: "index")
    app.add_url_rule("/items/<int:item_id>", "item", lambda item_id: f"item {item_id}")
    app.add_url_rule("/<path:page>", "page", lambda page: page)
    return app


def fastapi():
    """Return an application with a route, and one for any other path."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/things/{thing}", lambda thing: thing)
    app.add_api_route("/{page:path}", lambda page: page)
    return app


@get("/things/{thing:int}")
async def litestar_thing(thing: int) -> str:
    """Answer."""
    return str(thing)


class FalconThing:
    """Answers."""

    async def on_get(self, req, resp, thing):
        resp.text = thing


class Prefixed(falcon.asgi.App):
    """Falcon matches the whole path, so that its application is mounted at the root."""

    def __init__(self):
        super().__init__()
        self.add_route("/in/things/{thing}", FalconThing())


async def raw(scope, receive, send):
    """Answer without a framework."""
    await PlainTextResponse("raw")(scope, receive, send)


@pytest.mark.parametrize(
    ("make", "template", "path"),
    [
        (quart, "/in/things/<thing>", "/in/things/1"),
        (get_asgi_application, "/in/items/<int:item_id>/", "/in/items/1/"),
        (lambda: Litestar([litestar_thing]), "/in/things/{thing}", "/in/things/1"),
        (Prefixed, "/in/things/{thing}", "/in/things/1"),
    ],
    ids=["quart", "django", "litestar", "falcon"],
)
@pytest.mark.parametrize("outer", [FastAPI, Starlette])
def test_each_asgi_framework_mounted_in_starlette_has_its_templates(outer, make, template, path, routes):
    """The mounted application leaves the endpoint of the mount in the scope."""
    app = outer()
    app.mount("" if make is Prefixed else "/in", make())

    assert {(template, "200"): 2, ("unmatched", "404"): 1} == routes(app, path, "/in/no/where", path)


def cut(environ, prefix):
    """Return the environ below a prefix."""
    return {**environ, "SCRIPT_NAME": prefix, "PATH_INFO": environ["PATH_INFO"].removeprefix(prefix)}


def below(scope, prefix):
    """Return the scope below a prefix, which is cut from its path."""
    path = scope["path"].removeprefix(prefix)
    return {**scope, "path": path, "raw_path": path.encode()}


def wsgi_function(app):
    """Return a function that cuts a prefix, and answers other paths itself."""

    def call(environ, start_response):
        if environ["PATH_INFO"].startswith("/v1/"):
            return app(cut(environ, "/v1"), start_response)
        start_response("404 Not Found", [])
        return []

    return call


def asgi_function(app):
    """Return the same for ASGI."""

    async def call(scope, receive, send):
        if scope["path"].startswith("/v1/"):
            await app(below(scope, "/v1"), receive, send)
        else:
            await PlainTextResponse("", 404)(scope, receive, send)

    return call


@pytest.mark.parametrize(
    ("function", "make", "template", "other", "call"),
    [
        (wsgi_function, flask, "/items/<int:item_id>", "/<path:page>", wsgi),
        (asgi_function, fastapi, "/things/{thing}", "/{page}", asgi),
    ],
    ids=["wsgi", "asgi"],
)
def test_function_that_cuts_a_prefix_for_one_application(function, make, template, other, call, routes):
    """Not the template of any path, by the path that the application did not receive."""
    app = function(make())
    path = "/v1" + template.split("/", 2)[1].join(["/", "/"])

    assert {(f"/v1{template}", "200"): 2, (f"/v1{other}", "200"): 1} == routes(
        app, f"{path}1", "/v1/other", f"{path}2", call=call
    )
    assert {f"/v1{template}", f"/v1{other}"} <= known(app)
    assert template not in known(app)


class Cutting:
    """A middleware that cuts a prefix, which it holds or has in its code, from a copy or in place."""

    def __init__(self, app, prefix, *, in_place=False):
        self.app = app
        self.prefix = prefix
        self.in_place = in_place

    async def __call__(self, scope, receive, send):
        if scope["path"].startswith(self.prefix):
            cut_scope = below(scope, self.prefix)
            if self.in_place:
                scope.update(cut_scope)
            else:
                scope = cut_scope
        await self.app(scope, receive, send)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("root", ["", "/root"])
def test_middleware_that_cuts_a_prefix(root, in_place, routes):
    """The same, also below a root path of the server; a request without the prefix has its own template."""
    app = Cutting(fastapi(), "/v1", in_place=in_place)

    def call(served, path):
        return asgi(served, path=path, root_path=root)

    assert {("/v1/things/{thing}", "200"): 2, ("/v1/{page}", "200"): 1, ("/things/{thing}", "200"): 1} == routes(
        app, "/v1/things/1", "/v1/other", "/v1/things/2", "/things/1", call=call
    )


def test_middleware_that_holds_a_path_but_cuts_nothing(routes):
    """What it answers itself has the template of the path, as before."""

    class Refusing:
        def __init__(self, app):
            self.app = app
            self.exempt = ["/public", "/login"]

        async def __call__(self, scope, receive, send):
            answer = PlainTextResponse("", 401) if "secret" in scope["path"] else self.app
            await answer(scope, receive, send)

    assert {("/things/{thing}", "200"): 1, ("/things/{thing}", "401"): 1} == routes(
        Refusing(fastapi()), "/things/1", "/things/secret"
    )


class ByFirstSegment:
    """A dispatcher by the first segment of the path, without its slash."""

    def __init__(self, **apps):
        self.apps = apps

    async def __call__(self, scope, receive, send):
        first, _, rest = scope["path"][1:].partition("/")
        scope = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await self.apps.get(first, raw)(scope, receive, send)


class URLMap:
    """A dispatcher as Paste's: pairs of a host with a path, and an application."""

    def __init__(self, *applications):
        self.applications = list(applications)

    async def __call__(self, scope, receive, send):
        for (_, prefix), app in self.applications:
            if scope["path"].startswith(prefix):
                await app(below(scope, prefix), receive, send)
                return
        await raw(scope, receive, send)


def in_a_list(app):
    """Return a function that calls the only application of a list."""
    apps = [app]

    async def call(scope, receive, send):
        await apps[0](scope, receive, send)

    return call


@pytest.mark.parametrize(
    ("around", "prefix"),
    [
        (lambda app: ByFirstSegment(v1=app, other=raw), "/v1"),
        (lambda app: URLMap(((None, "/v1"), app), ((None, "/other"), raw)), "/v1"),
        (lambda app: Router([Route("/own", lambda _: PlainTextResponse("own"))], default=app), ""),
        (lambda app: HypercornDispatcher({"/other": raw, "/": app}), ""),
        (in_a_list, ""),
    ],
    ids=["first segment", "paste", "default of a router", "root of hypercorn", "a list in a closure"],
)
def test_dispatcher_of_another_form(around, prefix, routes):
    """Flask behind a2wsgi below each of them."""
    app = around(a2wsgi.WSGIMiddleware(flask()))

    assert {(f"{prefix}/items/<int:item_id>", "200"): 2} == {
        key: number
        for key, number in routes(app, f"{prefix}/items/1", f"{prefix}/items/2", "/other/1").items()
        if "items" in key[0]
    }
    assert f"{prefix}/items/<int:item_id>" in known(app)


def test_mounts_in_mounts_have_their_templates(routes):
    """Quart in Starlette in FastAPI, with parameters in the mounts."""
    inner = Starlette(routes=[Mount("/q/{shop}", quart())])
    app = FastAPI()
    app.mount("/t/{tenant}", inner)

    assert {("/t/{tenant}/q/{shop}/things/<thing>", "200"): 2, ("unmatched", "404"): 2} == routes(
        app, "/t/1/q/2/things/3", "/t/4/q/5/things/6", "/t/1/q/2/no/where", "/t/1/nowhere"
    )


def litestar_around(app, *, copy_scope=True):
    """Return an application of Litestar with a mount; it appends a slash to the paths below."""

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return Litestar([mount("/v1", is_mount=True, copy_scope=copy_scope)(mounted), litestar_thing], openapi_config=None)


@pytest.mark.parametrize("copy_scope", [True, False])
def test_application_mounted_in_litestar_has_its_templates(copy_scope, routes):
    """Not one template for all; what it refuses is unmatched."""
    inner = Starlette(routes=[Route("/items/{item}/", lambda _: PlainTextResponse("item"))])
    app = litestar_around(inner, copy_scope=copy_scope)

    assert {("/v1/items/{item}/", "200"): 2, ("/things/{thing}", "200"): 1, ("unmatched", "404"): 2} == routes(
        app, "/v1/items/1", "/v1/items/2", "/things/1", "/v1/no/where", "/nowhere"
    )
    assert {"/v1/items/{item}/", "/things/{thing}"} == known(app)


def test_mount_of_litestar_that_shows_no_application_has_one_template(routes):
    """As before: the mount's own."""
    assert {("/v1", "200"): 2} == routes(litestar_around(raw), "/v1/items/1", "/v1")


def test_answer_of_a_middleware_behind_an_adapter_is_unmatched(routes):
    """Files that WhiteNoise serves before Flask are not Flask's index."""
    app = flask()

    class Files:
        def __init__(self, application):
            self.application = application
            self.files = {"/static/": "a.css"}

        def __call__(self, environ, start_response):
            if environ["PATH_INFO"].startswith("/static/"):
                start_response("200 OK", [])
                return [b"file"]
            return self.application(environ, start_response)

    assert {("unmatched", "200"): 2, ("/items/<int:item_id>", "200"): 1, ("/", "200"): 1} == routes(
        a2wsgi.WSGIMiddleware(Files(app)), "/static/a.css", "/static/b.css", "/items/1", "/"
    )


def test_mount_in_a_mount_is_no_route_of_its_own(routes):
    """What contains an application below a key of a dispatcher stands at zero for its routes only."""
    inner = FastAPI(openapi_url=None)
    inner.mount("/m", a2wsgi.WSGIMiddleware(flask()))
    app = HypercornDispatcher({"/a": inner})

    assert {("/a/m/items/<int:item_id>", "200"): 1} == routes(app, "/a/m/items/1")
    assert {"/a/m/", "/a/m/items/<int:item_id>", "/a/m/<path:page>"} == known(app)


def twice(adapter):
    """Return Flask behind an adapter of ASGI, which is behind one of WSGI, inside patterns of Channels."""
    return a2wsgi.ASGIMiddleware(URLRouter([re_path("", adapter(flask()))]))


def test_two_adapters_keep_the_template(routes):
    """From WSGI to ASGI and back, with a router between."""
    assert {("/items/<int:item_id>", "200"): 2, ("/", "200"): 1} == routes(
        twice(a2wsgi.WSGIMiddleware), "/items/1", "/items/2", "/", call=wsgi
    )


@pytest.mark.filterwarnings("ignore:async_to_sync")
def test_adapter_that_loses_the_request_has_no_wrong_template(routes):
    """Asgiref's adapter passes on a context, which a2wsgi's does not enter: not the template of the router."""
    assert {("unmatched", "200"): 3} == routes(twice(WsgiToAsgi), "/items/1", "/items/2", "/", call=wsgi)
