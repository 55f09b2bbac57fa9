"""An application on an event loop of the test, and the numbers of the loop on a page."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import scaleobs
from support import servers
from support.exchanges import http_scope, serve_asgi
from support.expositions import FORMATS, key, page, samples

LAG = "event_loop_lag_seconds"
GAUGES = ("thread_pool_busy", "thread_pool_waiting", "thread_pool_size")


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        assert "lifespan.startup" == (await receive())["type"]
        await send({"type": "lifespan.startup.complete"})
        assert "lifespan.shutdown" == (await receive())["type"]
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def service(registry, **settings):
    """Return an instrumented application."""
    return scaleobs.instrument(partial(hello), registry=registry, **settings)


async def begun(app):
    """Request the health of an application on this loop, which registers the loop."""
    await serve_asgi(app, http_scope(path="/health"))


async def until(condition):
    """Wait for a condition on the event loop."""
    limit = time.monotonic() + servers.LIMIT
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.001)


def shown(registry, names=(), content_type=FORMATS[0]):
    """Return the samples of event loops and threads on a page."""
    found = samples(page(registry, content_type, names=names), content_type)
    return {name: value for name, value in found.items() if name[0].startswith((LAG, *GAUGES))}


def measurements(registry):
    """Return the number of measurements of all loops on a page."""
    return shown(registry).get((f"{LAG}_count", ()), 0)


def within(registry, seconds):
    """Return how many measurements were at most this late."""
    return shown(registry)[key(f"{LAG}_bucket", {"le": seconds})]


def pool(registry, name):
    """Return the numbers of a pool: busy, waiting, size; an empty list if it is not on the page."""
    labels = (("pool", name),)
    return [value for gauge in GAUGES for found, value in shown(registry).items() if found == (gauge, labels)]
