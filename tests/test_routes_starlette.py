"""The route templates of Starlette and FastAPI."""

from __future__ import annotations

import asyncio
import random

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

import scaleobs
from support.exchanges import asgi, counted, http_scope, log_lines, serve_asgi


def hello(request):
    """Answer."""
    return PlainTextResponse("hello")


def other(request):
    """Answer the same by another function."""
    return PlainTextResponse("other")


def another():
    """Return a function that is the endpoint of a single route."""

    def answer(request):
        return PlainTextResponse("hello")

    return answer


class Item(HTTPEndpoint):
    """A class as an endpoint."""

    async def get(self, request):
        """Answer."""
        return PlainTextResponse("item")


async def raw(scope, receive, send):
    """Be mounted without any routes."""
    await PlainTextResponse("raw")(scope, receive, send)


async def chat(websocket):
    """Accept and close."""
    await websocket.accept()
    await websocket.close()


def labels(registry):
    """Return the (route, status) pairs that were counted."""
    return {(route, status) for _, route, status in counted(registry)}


def site(**more):
    """Return an application with every kind of route of Starlette."""
    inner = Starlette(routes=[Route("/deep/{x:int}", other), Route("/", other), Mount("/raw", raw)])
    return Starlette(
        routes=[
            Route("/", hello),
            Route("/items/{item_id:int}", Item),
            Route("/one/{a}", hello),
            Route("/two/{b}", hello),
            Route("/slash/{a}/", hello),
            Route("/only", another(), methods=["POST"]),
            Route("/files/{path:path}", Item),
            Mount("/a", routes=[Mount("/b", app=inner), Route("/r", Item)]),
            Mount("/users/{id}", routes=[Route("/posts/{id}", another())]),
            Mount("/router", Router([Route("/{y}", another())])),
            Mount("/compressed", routes=[Route("/{z}", Item)], middleware=[Middleware(GZipMiddleware)]),
            Mount("/raw", raw),
            Mount("/static", StaticFiles(directory="/etc")),
            Host("{tenant}.example.org", Router([Route("/tenant/{t}", another())])),
            WebSocketRoute("/chat/{room}", chat),
        ],
        **more,
    )


CASES = [
    ("GET", "/", "/", 200),
    ("GET", "/items/7", "/items/{item_id}", 200),
    ("HEAD", "/one/7", "/one/{a}", 200),
    ("GET", "/items/seven", "unmatched", 404),
    ("GET", "/one/x", "/one/{a}", 200),
    ("GET", "/two/x", "/two/{b}", 200),
    ("GET", "/slash/1", "/slash/{a}/", 307),
    ("GET", "/slash/1/", "/slash/{a}/", 200),
    ("GET", "/only", "/only", 405),
    ("GET", "/files/a/b/c", "/files/{path}", 200),
    ("GET", "/a/b/deep/3", "/a/b/deep/{x}", 200),
    ("GET", "/a/b/deep/three", "unmatched", 404),
    ("GET", "/a/b/", "/a/b/", 200),
    ("GET", "/a/b/raw/anything", "/a/b/raw", 200),
    ("GET", "/a/r", "/a/r", 200),
    ("GET", "/users/1/posts/2", "/users/{id}/posts/{id}", 200),
    ("GET", "/router/1", "/router/{y}", 200),
    ("GET", "/compressed/1", "/compressed/{z}", 200),
    ("GET", "/raw/anything/at/all", "/raw", 200),
    ("GET", "/static/hostname", "/static", 200),
    ("GET", "/static/nothing-here", "/static", 404),
    ("GET", "/nowhere", "unmatched", 404),
]


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize("outside", ["in place", "a wrapper", "behind another middleware"])
@pytest.mark.parametrize(("method", "path", "template", "status"), CASES)
def test_starlette_template(method, path, template, status, outside, root_path, registry):
    """The label is the complete template, with prefixes once, at any position of the middleware and any root path."""
    if outside == "in place":
        app = scaleobs.instrument(site(), registry=registry)
    elif outside == "a wrapper":
        app = scaleobs.ASGIMiddleware(site(), registry=registry)
    else:
        app = scaleobs.instrument(GZipMiddleware(CORSMiddleware(site())), registry=registry)

    seen = asgi(app, method, root_path + path, root_path=root_path, headers=[("Host", "testserver")])

    assert status == seen.status
    assert {(template, str(status))} == labels(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("root_path", ["", "/root"])
def test_application_that_is_mounted_has_its_own_templates(root_path, registry):
    """An observed application in one that is not observed is labelled by its own routes."""
    app = Starlette(routes=[Mount("/in/{deep}", scaleobs.instrument(site(), registry=registry))])

    for path in ("/one/x", "/two/x", "/slash/1", "/nowhere"):
        asgi(app, path=f"{root_path}/in/it{path}", root_path=root_path)

    expected = {("/one/{a}", "200"), ("/two/{b}", "200"), ("/slash/{a}/", "307"), ("unmatched", "404")}
    assert expected == labels(registry)


def test_host_route_shows_no_tenant(registry):
    """A route by host is labelled by its path's template."""
    app = scaleobs.instrument(site(), registry=registry)

    for tenant in range(15):
        asgi(app, path="/tenant/7", headers=[("Host", f"t{tenant}.example.org")])

    assert {("GET", "/tenant/{t}", "200"): 15} == counted(registry)


class Refusing:
    """Answer before routing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await PlainTextResponse("who are you?", 401)(scope, receive, send)


@pytest.mark.parametrize(
    ("middleware", "method", "status"),
    [
        (Middleware(Refusing), "GET", 401),
        (Middleware(CORSMiddleware, allow_origins=["*"]), "OPTIONS", 200),
    ],
)
def test_answer_before_routing_keeps_the_template(middleware, method, status, registry):
    """An answer of a middleware is counted under the template of the path; unknown paths are unmatched."""
    app = scaleobs.instrument(site(middleware=[middleware]), registry=registry)
    headers = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")]

    for path in ("/items/7", "/a/b/deep/3", "/static/hostname", "/scan/.env"):
        assert status == asgi(app, method, path, headers=headers).status

    templates = {"/items/{item_id}", "/a/b/deep/{x}", "/static", "unmatched"}
    assert {(template, str(status)) for template in templates} == labels(registry)


def test_websocket_has_its_template(registry, capsys):
    """The line of a WebSocket names its route."""
    app = scaleobs.instrument(site(), registry=registry)

    scope = {**http_scope(path="/chat/7"), "type": "websocket", "subprotocols": []}
    asyncio.run(serve_asgi(app, scope, [{"type": "websocket.connect"}]))

    assert ["/chat/{room}"] == [line["route"] for line in log_lines(capsys) if line["event"] == "websocket.closed"]


def test_route_added_later_is_found(registry):
    """Routes may be added after the first request."""
    app = scaleobs.instrument(site(), registry=registry)
    asgi(app, path="/later/1")
    app.router.routes.append(Route("/later/{n}", another()))
    asgi(app, path="/later/1")

    assert {("unmatched", "404"), ("/later/{n}", "200")} == labels(registry)


class Hostile(Route):
    """A route whose attributes raise."""

    path = property(lambda self: 1 / 0, lambda self, path: None)

    def matches(self, scope):
        """Match as usual."""
        return super().matches(scope)


def test_route_that_raises_when_inspected(registry, capsys):
    """Its requests are served and unmatched, the fault is logged and counted, and other routes have their templates."""
    app = Starlette(routes=[Hostile("/bad/{x}", other), Route("/good/{x}", hello)])
    scaleobs.instrument(app, registry=registry)

    for _ in range(3):
        assert 200 == asgi(app, path="/bad/1").status
        assert 200 == asgi(app, path="/good/1").status

    assert {("GET", "unmatched", "200"): 3, ("GET", "/good/{x}", "200"): 3} == counted(registry)
    assert 1 <= registry.get_sample_value("scaleobs_internal_faults_total")
    assert ["scaleobs.fault"] == [line["event"] for line in log_lines(capsys) if line["level"] == "error"]


def test_series_do_not_grow_with_what_a_client_sends(registry):
    """Two hundred random paths, methods and ids make a handful of series."""
    app = scaleobs.instrument(site(), registry=registry)
    dice = random.Random(7)
    words = ["\udc80", "..", "%2e", "\x00", "a" * 5000, "{item_id}", "ü", "\n"]
    for _ in range(200):
        path = dice.choice(["/", "/items/", "/one/", "/static/", "/a/b/raw/"]) + dice.choice(words) + str(dice.random())
        asgi(app, dice.choice(["GET", "POST", f"M{dice.random()}"]), path)

    assert {"unmatched", "/items/{item_id}", "/one/{a}", "/static", "/a/b/raw"} >= {key[1] for key in counted(registry)}
    assert {"GET", "POST", "_OTHER"} == {key[0] for key in counted(registry)}
    assert 200 == sum(counted(registry).values())
