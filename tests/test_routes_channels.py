"""WebSockets of Channels have the patterns that lead to their consumers."""

from __future__ import annotations

import asyncio

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.core.asgi import get_asgi_application
from django.urls import path, re_path
from starlette.responses import PlainTextResponse

import scaleobs
from support import django_site  # noqa: F401 - Configures Django.
from support.exchanges import asgi, counted, serve_asgi


async def consumer(scope, receive, send):
    """Accept and close a WebSocket, refuse one without a number, and answer a request."""
    if scope["type"] == "http":
        await PlainTextResponse("consumer")(scope, receive, send)
        return
    await receive()
    if 7 in scope["url_route"]["kwargs"].values():
        await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})


def router():
    """Return patterns of each kind, some of them in an inner router."""
    inner = [path("rooms/<int:room>/", consumer), re_path(r"^logs/(?P<day>\d+)$", consumer)]
    return URLRouter(
        [
            path("in/<slug:tenant>/", URLRouter(inner)),
            re_path(r"^in/a/rooms/other/$", consumer),
            path("chat/<int:room>/", consumer),
            re_path(r"^feed/(?P<name>\w+)/$", consumer),
        ]
    )


def websocket(app, path, **more):
    """Serve a WebSocket, and return how it was counted."""
    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "subprotocols": [], **more}
    return asyncio.run(serve_asgi(app, scope, [{"type": "websocket.connect"}]))


def sockets(registry):
    """Return the routes and codes of closed WebSockets."""
    return {
        (sample.labels["route"], sample.labels["code"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "websocket_connections_total"
    }


WRAPPERS = {
    "alone": lambda routed: routed,
    "protocols": lambda routed: ProtocolTypeRouter({"http": get_asgi_application(), "websocket": routed}),
    "middlewares": lambda routed: ProtocolTypeRouter({"websocket": OriginValidator(CookieMiddleware(routed), ["*"])}),
}


@pytest.mark.parametrize("around", WRAPPERS.values(), ids=WRAPPERS)
def test_consumers_have_their_patterns(around, registry):
    """Those of inner routers are below the outer ones; what no pattern matches is unmatched."""
    app = scaleobs.instrument(around(router()), registry=registry, log_format="off")
    for one in ("/chat/7/", "/chat/8/", "/feed/x/", "/in/a/rooms/7/", "/in/b/rooms/7/", "/in/a/logs/3"):
        websocket(app, one)
    for one in ("/in/a/rooms/other/", "/nowhere", "/chat/x/", "/in/a/"):
        websocket(app, one)
    found = {(route, status): count for (_, route, status), count in counted(registry).items()}

    assert {("/chat/<int:room>/", "1000"): 1, ("/in/<slug:tenant>/rooms/<int:room>/", "1000"): 2} == sockets(registry)
    assert {
        ("/chat/<int:room>/", "403"): 1,
        (r"/feed/(?P<name>\w+)/", "403"): 1,
        (r"/in/<slug:tenant>/logs/(?P<day>\d+)", "403"): 1,
        ("/in/a/rooms/other/", "403"): 1,
        ("unmatched", "500"): 3,
    } == found
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_consumers_below_a_root_path(registry):
    """The router matches what is left of the path, as a server passes it on that is served below another one."""
    app = scaleobs.instrument(ProtocolTypeRouter({"websocket": router()}), registry=registry, log_format="off")
    websocket(app, "/root/chat/7/", root_path="/root")

    assert {("/chat/<int:room>/", "1000"): 1} == sockets(registry)


def test_consumers_beside_django(registry):
    """Requests that a router passes on to Django have Django's patterns; two instrumented ones are not mixed up."""
    http = URLRouter([re_path("^sse/", consumer), re_path("", get_asgi_application())])
    app = ProtocolTypeRouter({"http": http, "websocket": URLRouter([path("sse/", consumer), path("", consumer)])})
    app = scaleobs.instrument(app, registry=registry, log_format="off")
    for one in ("/items/1/", "/sse/", "/nowhere"):
        asgi(app, path=one)
    websocket(app, "/sse/")
    websocket(app, "/")

    assert {
        ("/items/<int:item_id>/", "200"): 1,
        ("/sse/", "200"): 1,
        ("unmatched", "404"): 1,
        ("/sse/", "403"): 1,
        ("/", "403"): 1,
    } == {(route, status): count for (_, route, status), count in counted(registry).items() if count}


def test_router_without_scaleobs(registry):
    """A router that is in no instrumented application, and one whose scope has no path, behave as they did."""
    scaleobs.instrument(router(), registry=registry, log_format="off")
    other = URLRouter([path("other/", consumer)])
    seen = websocket(other, "/other/")

    assert [{"type": "websocket.close", "code": 1000}] == seen.messages
    assert "No route found for path 'nowhere'." == str(websocket(other, "/nowhere").error)
    with pytest.raises(ValueError, match="No 'path' key"):
        asyncio.run(other({"type": "websocket"}, None, None))
