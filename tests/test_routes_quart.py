"""The route templates of Quart."""

from __future__ import annotations

import asyncio

import pytest
from quart import Blueprint, Quart, abort, websocket

from support.exchanges import http_scope, serve_asgi
from support.routing import Site, scan


async def hello(**_):
    """Answer."""
    return "hello"


async def boom():
    """Fail."""
    raise RuntimeError


async def teapot():
    """Refuse."""
    abort(418)


async def chat(room):
    """Accept and close."""
    await websocket.accept()
    await websocket.close(1000)


def app():
    """Return an application with every kind of route of Quart."""
    made = Quart("shop", static_folder="/etc")
    inner, outer = Blueprint("inner", __name__, url_prefix="/inner"), Blueprint("outer", __name__)
    inner.add_url_rule("/<int:x>", "deep", hello)
    outer.register_blueprint(inner)
    made.register_blueprint(outer, url_prefix="/outer")
    made.add_url_rule("/", "root", hello)
    made.add_url_rule("/items/<int:item_id>", "item", hello)
    made.add_url_rule("/slash/<a>/", "slash", hello)
    made.add_url_rule("/thing/<a>", "thing", hello, methods=["POST"])
    made.add_url_rule("/teapot", "teapot", teapot)
    made.add_url_rule("/boom", "boom", boom)
    made.add_websocket("/chat/<room>", "chat", chat)
    return made


@pytest.mark.parametrize("root_path", ["", "/root"])
@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("HEAD", "/items/7", "/items/<int:item_id>", 200),
        ("OPTIONS", "/items/7", "/items/<int:item_id>", 200),
        ("GET", "/items/seven", "unmatched", 404),
        ("GET", "/slash/a", "/slash/<a>/", 308),
        ("GET", "/slash/a/", "/slash/<a>/", 200),
        ("GET", "/thing/7", "/thing/<a>", 405),
        ("GET", "/outer/inner/3", "/outer/inner/<int:x>", 200),
        ("GET", "/etc/hostname", "/etc/<path:filename>", 200),
        ("GET", "/etc/nothing-here", "/etc/<path:filename>", 404),
        ("GET", "/teapot", "/teapot", 418),
        ("GET", "/boom", "/boom", 500),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_quart_template(method, path, template, status, root_path):
    """The label is the rule that matched."""
    site = Site(app(), "asgi")

    for _ in range(2):
        assert (status, template) == site.get(method, root_path + path, root_path=root_path)


def test_quart_rule_is_read_once():
    """The hook's note alone determines the template, so that each rule is computed once."""
    site = Site(app(), "asgi")
    for number in range(5):
        site.get("GET", f"/items/{number}")

    assert 1 == site.lookups


def test_quart_answer_before_routing_keeps_the_rule():
    """An answer of the application's middleware is counted under the rule of the path."""
    made = app()
    inner = made.asgi_app

    async def refusing(scope, receive, send):
        await send({"type": "http.response.start", "status": 401 if inner else 200, "headers": []})
        await send({"type": "http.response.body"})

    made.asgi_app = refusing
    site = Site(made, "asgi")

    assert (401, "/items/<int:item_id>") == site.get("GET", "/items/7")
    assert (401, "unmatched") == site.get("GET", "/scan/.env")


def test_quart_client_that_goes_early_has_its_rule():
    """The rule is available while the request is handled, and the scope has no request afterwards."""
    seen = []
    made = app()
    site = Site(made, "asgi")
    scope = http_scope(path="/slow/7", headers=[("Host", "testserver")])

    async def slow(**_):
        seen.append(site.routes.template(scope)[0])
        return "slow"

    made.add_url_rule("/slow/<x>", "slow", slow)
    asyncio.run(serve_asgi(made, scope))

    assert ["/slow/<x>"] == seen
    assert "scaleobs.request" not in scope


def test_quart_websocket_has_its_rule():
    """A WebSocket has its rule, and a path without one is unmatched."""
    site = Site(app(), "asgi")
    found = []
    for path in ("/chat/7", "/nowhere"):
        scope = {**http_scope(path=path, headers=[("Host", "testserver")]), "type": "websocket", "scheme": "ws"}
        asyncio.run(serve_asgi(site.app, scope, [{"type": "websocket.connect"}]))
        found.append(site.routes.template(scope)[0])

    assert ["/chat/<room>", "unmatched"] == found


def test_quart_known_is_what_is_registered():
    """Every rule is listed with its methods, without WebSockets and methods that Quart adds, and the list is stable."""
    site = Site(app(), "asgi")
    known = site.routes.known()

    rules = {rule.rule for rule in site.app.url_map.iter_rules()} - {"/chat/<room>"}
    assert rules == {template for _, template in known}
    assert {("POST", "/thing/<a>"), ("GET", "/items/<int:item_id>")} <= set(known)
    assert {"GET", "POST"} == {method for method, _ in known}
    assert known is site.routes.known()


def test_quart_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed rule."""
    site = Site(app(), "asgi")

    found = scan(site, ["/", "/items/", "/slash/", "/outer/inner/", "/etc/"])

    assert {template for _, template in site.routes.known()} | {"unmatched"} >= found


def test_quart_is_hooked_once():
    """A second call of `routes_of` adds no second hook to an application."""
    made = app()
    Site(made, "asgi")
    hooked = made.handle_request
    Site(made, "asgi")

    assert hooked is made.handle_request


class Broken:
    """A rule whose attributes raise."""

    rule = property(lambda self: 1 / 0)
    endpoint = "root"
    provide_automatic_options = False


def test_quart_fault_of_the_hook_reaches_scaleobs_alone():
    """If the rule can't be read, the request is answered, and `template` raises the fault."""
    made = app()

    async def answer(**_):
        request_of[0].url_rule = Broken()
        return "hello"

    request_of = []
    made.add_url_rule("/broken", "broken", answer)
    site = Site(made, "asgi")
    hooked = made.handle_request

    async def keeping(request):
        request_of.append(request)
        return await hooked(request)

    made.handle_request = keeping
    scope = http_scope(path="/broken", headers=[("Host", "testserver")])

    assert 200 == asyncio.run(serve_asgi(made, scope)).status
    with pytest.raises(ZeroDivisionError):
        site.routes.template(scope)
