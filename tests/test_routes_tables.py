"""The table of Starlette's and FastAPI's routes: what determines a template, what is listed, when it is read again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from support.exchanges import http_scope, serve_asgi
from support.routing import Site, scan


def hello(request):
    """Answer."""
    return PlainTextResponse("hello")


def answering():
    """Return a new endpoint."""
    return lambda request: PlainTextResponse("hello")


async def raw(scope, receive, send):
    """Be mounted without any routes."""
    await PlainTextResponse("raw")(scope, receive, send)


async def chat(websocket):
    """Accept and close."""
    await websocket.accept()
    await websocket.close()


class Both(HTTPEndpoint):
    """A class as an endpoint."""

    async def get(self, request):
        """Answer."""
        return PlainTextResponse("got")

    async def delete(self, request):
        """Answer."""
        return PlainTextResponse("deleted")


class Views:
    """Functions that are equal and not identical."""

    def answer(self, request):
        """Answer."""
        return PlainTextResponse("hello")


@dataclass
class Unhashable:
    """An endpoint without a hash."""

    text: str

    async def __call__(self, scope, receive, send):
        """Answer."""
        await PlainTextResponse(self.text)(scope, receive, send)


def site():
    """Return an application with ambiguous endpoints."""
    views = Views()
    routes = [
        Route("/alone/{x}", answering()),
        Route("/one/{a}", hello),
        Route("/two/{b}", hello),
        Route("/equal/{a}", views.answer),
        Route("/same/{b}", views.answer, methods=["POST", "GET"]),
        Route("/unhashable/{x}", Unhashable("hello")),
        Route("/class", Both),
        Mount("/raw", make_asgi_app()),
        Mount("/static", StaticFiles(directory="/etc")),
        Mount("/router", Router([Route("/{y}/", answering())])),
        Host("{tenant}.example.org", Router([Route("/tenant/{t}", answering())])),
        WebSocketRoute("/chat/{room}", chat),
    ]
    return Site(Starlette(routes=routes), "asgi")


@pytest.mark.parametrize(
    ("path", "template", "lookups"),
    [
        ("/alone/", "/alone/{x}", 1),
        ("/class?", "/class", 1),
        ("/raw/", "/raw", 1),
        ("/static/", "/static", 1),
        ("/one/", "/one/{a}", 1),
        ("/two/", "/two/{b}", 1),
        ("/equal/", "/equal/{a}", 1),
        ("/same/", "/same/{b}", 1),
        ("/unhashable/", "/unhashable/{x}", 1),
        ("/nowhere/", "unmatched", 5),
    ],
)
def test_endpoint_or_route_gives_the_template(path, template, lookups):
    """A template is found once, also if its endpoint has others, equals another one or has no hash."""
    observed = site()

    assert {template} == {observed.get("GET", path.rstrip("?") + ("" if "?" in path else "7"))[1] for _ in range(5)}
    assert lookups == observed.lookups


def test_starlette_known_is_what_is_routed():
    """Every route is listed with its methods, a mount with the most common one, a WebSocket not at all."""
    observed = site()
    known = observed.routes.known()

    alone = ["/alone/{x}", "/one/{a}", "/two/{b}", "/equal/{a}", "/unhashable/{x}", "/raw", "/static", "/router/{y}/"]
    expected = {("GET", template) for template in (*alone, "/tenant/{t}")}
    more = {("GET", "/same/{b}"), ("POST", "/same/{b}"), ("GET", "/class"), ("DELETE", "/class")}
    assert expected | more == set(known)
    assert known is observed.routes.known()


def test_second_route_of_a_function_is_seen_by_what_is_known():
    """The template of an endpoint is valid while the list is the same object; a second route makes a new list."""
    observed = site()
    known = observed.routes.known()
    assert "/alone/{x}" == observed.get("GET", "/alone/7")[1]

    routes = observed.app.router.routes
    routes.append(Route("/again/{x}", routes[0].endpoint))
    assert known is not observed.routes.known()

    observed.remembered.clear()
    assert "/alone/{x}" == observed.get("GET", "/alone/7")[1]
    assert "/again/{x}" == observed.get("GET", "/again/7")[1]


@pytest.mark.parametrize("change", ["add", "remove", "replace", "in a mount"])
def test_changed_routes_are_read_again(change):
    """Routes that are added, removed or replaced in any router are read at the next request."""
    inner = Router([Route("/a", answering())])
    observed = Site(Starlette(routes=[Mount("/in", inner), Route("/old", answering())]), "asgi")
    observed.routes.known()
    routes = observed.app.router.routes
    if change == "add":
        routes.append(Route("/new/", answering()))
    elif change == "remove":
        routes[:] = [Mount("/new", raw)]
    elif change == "replace":
        routes[1] = Route("/new/", answering())
    else:
        inner.routes.append(Route("/new/", answering()))

    path = "/in/new" if change == "in a mount" else "/new"
    assert path == observed.get("GET", path)[1].rstrip("/")
    assert (change == "remove") is ("/in/a" not in {template for _, template in observed.routes.known()})


def test_route_of_a_websocket_or_another_host_is_none():
    """A plain request to a WebSocket's path is unmatched, as is one to another host."""
    observed = site()

    assert (404, "unmatched") == observed.get("GET", "/chat/7")
    assert (404, "unmatched") == observed.get("GET", "/tenant/7")
    assert (200, "/tenant/{t}") == observed.get("GET", "/tenant/7", headers=[("Host", "a.example.org")])


def test_starlette_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed template."""
    observed = site()

    found = scan(observed, ["/", "/one/", "/raw/", "/static/", "/router/", "/class/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


def api(tmp_path):
    """Return a FastAPI application with a router that is included twice, and front ends."""
    (tmp_path / "index.html").write_text("home")
    items = APIRouter(prefix="/items")
    items.get("/{item_id}")(lambda item_id: item_id)
    app = FastAPI(openapi_url=None)
    app.include_router(items, prefix="/v1")
    app.include_router(items, prefix="/v2")
    if hasattr(app, "frontend"):
        app.frontend("/", directory=tmp_path)
        app.frontend("/admin", directory=tmp_path)
        inner = APIRouter(prefix="/inner")
        inner.frontend("/site", directory=tmp_path)
        app.include_router(inner, prefix="/deep")
    return app


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="This FastAPI has no front ends.")
@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/index.html", "/"),
        ("/admin/index.html", "/admin"),
        ("/deep/inner/site/index.html", "/deep/inner/site"),
        ("/v1/items/7", "/v1/items/{item_id}"),
    ],
)
def test_front_end_is_its_mount(path, template, tmp_path):
    """Files of a front end are counted under its path, behind the routes."""
    assert (200, template) == Site(api(tmp_path), "asgi").get("GET", path)


def test_fastapi_router_that_grows_after_it_was_included(tmp_path):
    """A route that is added to an included router is listed for each inclusion."""
    app = api(tmp_path)
    observed = Site(app, "asgi")
    known = observed.routes.known()
    router = next(route for route in app.routes if hasattr(route, "original_router")).original_router
    router.get("/late/{x}/y")(lambda x: x)

    assert {"/v1/items/late/{x}/y", "/v2/items/late/{x}/y"} == {
        template for _, template in set(observed.routes.known()) - set(known)
    }


def test_websocket_is_found_by_its_path():
    """A WebSocket has the template of its route."""
    observed = site()
    scope = {**http_scope(path="/chat/7"), "type": "websocket"}
    asyncio.run(serve_asgi(observed.app, scope, [{"type": "websocket.connect"}]))

    assert "/chat/{room}" == observed.routes.template(scope)[0]


def test_unknown_path_is_cheap_among_many_routes():
    """An unknown path costs little with five hundred routes (about 15 µs; the bound is for slow machines)."""
    routes = [Route(f"/api/v1/resource{n}/{{x}}/part{n}", answering()) for n in range(500)]
    observed = Site(Starlette(routes=routes), "asgi")
    scope = {**http_scope(path="/api/v1/resource/wp-login.php"), "router": observed.app.router}
    observed.routes.template(scope)

    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        observed.routes.template(scope)
        best = min(best, time.perf_counter() - begun)
    assert 0.0003 > best
