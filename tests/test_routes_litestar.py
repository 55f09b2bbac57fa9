"""The route templates of Litestar."""

from __future__ import annotations

import pytest
from litestar import Controller, Litestar, Router, WebSocket, asgi, get, post, route, websocket
from litestar.config.cors import CORSConfig
from litestar.response.base import ASGIResponse
from litestar.static_files import create_static_files_router
from litestar.types import Receive, Scope, Send

from support.routing import Site, scan


@get("/")
async def root() -> str:
    """Answer."""
    return "hello"


@get("/items/{item_id:int}")
async def item() -> str:
    """Answer."""
    return "item"


@get("/boom")
async def boom() -> None:
    """Fail."""
    raise RuntimeError


@get(["/here/{a:str}", "/there/{b:str}"])
async def twice() -> str:
    """Answer at two paths."""
    return "hello"


@get("/shared/{x:str}")
async def shared() -> str:
    """Answer below two routers."""
    return "hello"


@route("/any/{x:str}", http_method=["PUT", "PATCH"])
async def several() -> str:
    """Answer two methods."""
    return "hello"


@asgi("/mounted", is_mount=True, copy_scope=False)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an application of its own."""
    await ASGIResponse(body=b"raw")(scope, receive, send)


@websocket("/chat/{room:str}")
async def chat(socket: WebSocket) -> None:
    """Accept and close."""
    await socket.accept()
    await socket.close()


class Orders(Controller):
    """A class with handlers."""

    path = "/orders"

    @post("/")
    async def create(self) -> str:
        """Answer."""
        return "created"

    @get("/{order_id:uuid}/lines/{line:path}")
    async def line(self) -> str:
        """Answer."""
        return "line"


def site():
    """Return an application with every kind of route of Litestar."""
    deep = Router("/v2/{tenant:str}", route_handlers=[shared])
    handlers = [root, item, boom, twice, several, mounted, chat, Orders]
    routers = [Router("/v1", route_handlers=[shared]), deep]
    static = create_static_files_router("/static", ["/etc"])
    cors = CORSConfig(allow_origins=["https://a.example"])
    return Site(Litestar([*handlers, *routers, static], cors_config=cors, openapi_config=None), "asgi")


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/items/7", "/items/{item_id}", 200),
        ("GET", "/items/7/", "/items/{item_id}", 200),
        ("GET", "/items/seven", "unmatched", 404),
        ("OPTIONS", "/items/7", "/items/{item_id}", 204),
        ("DELETE", "/items/7", "/items/{item_id}", 405),
        ("GET", "/boom", "/boom", 500),
        ("GET", "/here/1", "/here/{a}", 200),
        ("GET", "/there/1", "/there/{b}", 200),
        ("PATCH", "/any/1", "/any/{x}", 200),
        ("GET", "/v1/shared/1", "/v1/shared/{x}", 200),
        ("GET", "/v2/acme/shared/1", "/v2/{tenant}/shared/{x}", 200),
        ("GET", "/mounted", "/mounted", 200),
        ("GET", "/mounted/any/thing", "/mounted", 200),
        ("POST", "/orders", "/orders", 201),
        ("GET", "/orders", "/orders", 405),
        ("GET", "/orders/no-uuid/lines/a/b", "unmatched", 404),
        ("GET", "/static/hostname", "/static/{file_path}", 200),
        ("GET", "/static/nothing-here", "/static/{file_path}", 404),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_litestar_template(method, path, template, status, root_path):
    """The label is the path of the handler, with the names of its parameters."""
    observed = site()

    for _ in range(2):
        assert (status, template) == observed.get(method, root_path + path, root_path=root_path)


def test_litestar_preflight_keeps_the_template():
    """An answer of the CORS middleware before routing is counted under the route of the path."""
    headers = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")]
    observed = site()

    assert (204, "/items/{item_id}") == observed.get("OPTIONS", "/items/7", headers=headers)
    assert (204, "unmatched") == observed.get("OPTIONS", "/scan/.env", headers=headers)


def test_litestar_handler_is_read_once():
    """A handler with one path alone determines the template; one with two paths does not."""
    observed = site()

    for number in range(5):
        observed.get("GET", f"/items/{number}")
    assert 1 == observed.lookups

    for number in range(5):
        observed.get("GET", f"/here/{number}")
    assert 6 == observed.lookups


def test_litestar_known_is_what_is_registered():
    """The methods and paths of each handler are listed, without WebSockets; the list is the same until one is added."""
    observed = site()
    known = observed.routes.known()

    expected = {(method, one.path_format) for one in observed.app.routes for method in getattr(one, "methods", ())}
    websockets = {"/chat/{room}"}
    assert {pair for pair in expected if pair[0] not in ("HEAD", "OPTIONS")} | {("GET", "/mounted")} == set(known)
    assert not websockets & {template for _, template in known}
    assert known is observed.routes.known()

    @get("/later")
    async def later() -> str:
        return "later"

    observed.app.register(later)
    assert {("GET", "/later")} == set(observed.routes.known()) - set(known)
    assert (200, "/later") == observed.get("GET", "/later")


def test_litestar_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed template."""
    observed = site()

    found = scan(observed, ["/", "/items/", "/mounted/", "/orders/", "/v1/shared/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


def test_litestar_routes_that_raise(monkeypatch):
    """If the routes can't be read, the request is served, and `template` raises the fault."""
    observed = site()
    monkeypatch.setattr(type(observed.app.routes[1]), "path_format", property(lambda self: 1 / 0))

    with pytest.raises(ZeroDivisionError):
        observed.get("GET", "/items/7")
