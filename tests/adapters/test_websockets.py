"""WebSockets: a gauge while they are open, and one line when they close."""

from __future__ import annotations

import asyncio

import pytest

import scaleobs
from callers import active, counted, log_lines, serve_asgi

CONNECT, ACCEPT = {"type": "websocket.connect"}, {"type": "websocket.accept"}
SCOPE = {"type": "websocket", "path": "/chat/7", "headers": [], "client": ("10.0.0.7", 1), "query_string": b""}


def serve(app, *received):
    """Serve one WebSocket whose client sends these."""
    return asyncio.run(serve_asgi(app, dict(SCOPE), [CONNECT, *received]))


def test_websocket_is_active_until_the_application_closes_it(registry, capsys):
    """The gauge goes up at accept and down at close; a WebSocket is no HTTP request."""

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
    """The client's code is in the line, and a close that follows says nothing twice."""

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
    """A handshake that is refused moves no gauge below 0 and writes no line."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 4403})

    serve(scaleobs.instrument(app, registry=registry))

    assert 0 == active(registry, "websocket")
    assert [] == log_lines(capsys)
