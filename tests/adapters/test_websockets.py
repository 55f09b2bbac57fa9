"""WebSockets: a gauge while they are open, and one line when they close."""

from __future__ import annotations

import asyncio

import pytest

import scaleobs
from support.exchanges import active, counted, log_lines, serve_asgi

CONNECT, ACCEPT = {"type": "websocket.connect"}, {"type": "websocket.accept"}
SCOPE = {"type": "websocket", "path": "/chat/7", "headers": [], "client": ("10.0.0.7", 1), "query_string": b""}


def serve(app, *received):
    """Serve one WebSocket with these messages of the client."""
    return asyncio.run(serve_asgi(app, dict(SCOPE), [CONNECT, *received]))


def test_websocket_is_active_until_the_application_closes_it(registry, capsys):
    """The gauge rises at accept and falls at close; a WebSocket is no HTTP request."""

    async def app(scope, receive, send):
        await receive()
        assert 0 == active(registry, "websocket")
        await send(ACCEPT)
        assert 1 == active(registry, "websocket")
        await send({"type": "websocket.close", "code": 4001})
        assert 0 == active(registry, "websocket")

    seen = serve(scaleobs.instrument(app, registry=registry))
    lines = log_lines(capsys)

    assert seen.error is None
    assert {} == counted(registry)
    assert [("websocket.closed", 4001, "/chat/7", "unmatched")] == [
        (line["event"], line["code"], line["path"], line["route"]) for line in lines
    ]


def test_websocket_that_the_client_closes(registry, capsys):
    """The client's code is in the line, and a following close writes no second line."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        assert 0 == active(registry, "websocket")
        await send({"type": "websocket.close"})

    seen = serve(scaleobs.instrument(app, registry=registry), {"type": "websocket.disconnect", "code": 1001})

    assert seen.error is None
    assert [1001] == [line["code"] for line in log_lines(capsys)]
    assert 0 == active(registry, "websocket")


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), None])
def test_websocket_that_ends_abnormally(error, registry, capsys):
    """An application that raises, is cancelled or returns leaves the gauge at 0, with 1006 in the line."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        if error is not None:
            raise error

    seen = serve(scaleobs.instrument(app, registry=registry))

    assert error is seen.error
    assert [1006] == [line["code"] for line in log_lines(capsys)]
    assert 0 == active(registry, "websocket")


def test_rejected_websocket_was_never_open(registry, capsys):
    """A refused handshake does not change the gauge and writes no line."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 4403})

    serve(scaleobs.instrument(app, registry=registry))

    assert 0 == active(registry, "websocket")
    assert [] == log_lines(capsys)


def test_websocket_is_accepted_with_its_id(registry, capsys):
    """The client gets the id of the line: its own, or a new one; a header of the application is kept."""

    async def app(scope, receive, send):
        await receive()
        own = [(b"X-Request-Id", b"mine")] if scope["path"] == "/own" else []
        await send({**ACCEPT, "headers": own} if own else ACCEPT)
        await send({"type": "websocket.close"})

    app = scaleobs.instrument(app, registry=registry)
    scopes = [dict(SCOPE), {**SCOPE, "headers": [(b"x-request-id", b"abc-7")]}, {**SCOPE, "path": "/own"}]
    accept_headers = [dict(asyncio.run(serve_asgi(app, scope, [CONNECT])).messages[0]["headers"]) for scope in scopes]
    lines = log_lines(capsys)

    assert [lines[0]["request_id"].encode(), b"abc-7"] == [one[b"x-request-id"] for one in accept_headers[:2]]
    assert {b"X-Request-Id": b"mine"} == accept_headers[2]
    assert "abc-7" == lines[1]["request_id"]


def test_malformed_headers_of_an_accept_are_refused_by_the_server(registry):
    """Messages of the application are passed on unchanged."""

    async def app(scope, receive, send):
        await receive()
        await send({**ACCEPT, "headers": None})

    seen = serve(scaleobs.instrument(app, registry=registry))

    assert seen.error is None
    assert {**ACCEPT, "headers": None} == seen.messages[0]


def test_line_of_a_websocket_has_what_the_application_raised(registry, capsys):
    """If the application raises, the line is an error with the exception."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        raise ValueError("no such room")

    serve(scaleobs.instrument(app, registry=registry))
    [line] = log_lines(capsys)

    assert ("websocket.closed", "error") == (line["event"], line["level"])
    assert "ValueError: no such room" in line["exception"]
