"""An application for ASGI servers, as a user writes it, observed by one line."""

import asyncio
import os

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

import scaleobs

SETTINGS = {}
"""Settings that a test adds; most add none."""


async def hello(request):
    """Answer at once."""
    return PlainTextResponse(request.path_params["name"])


async def slow(request):
    """Answer later."""
    await asyncio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("slow")


async def boom(request):
    """Fail."""
    raise RuntimeError("boom")


async def stay(websocket):
    """Send the worker's pid, and keep the connection open."""
    await websocket.accept()
    await websocket.send_text(str(os.getpid()))
    async for text in websocket.iter_text():
        await websocket.send_text(text)


routes = [Route("/hello/{name}", hello), Route("/slow/{seconds}", slow), Route("/boom", boom)]
shop = scaleobs.instrument(Starlette(routes=[*routes, WebSocketRoute("/stay", stay)]), **SETTINGS)


async def app(scope, receive, send):
    """Add the worker's pid to each response."""

    async def sent(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-worker", b"%d" % os.getpid())]
        await send(message)

    await shop(scope, receive, sent)
