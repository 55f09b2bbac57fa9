"""The ready-made checks of databases, against real servers that hang, resume, stop and start again."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time

import asyncpg
import psycopg_pool
import pytest
import redis

import scaleobs
from scaleobs import checks
from support.databases import PostgreSQL, Redis
from support.exchanges import http_scope, serve_asgi, wsgi

pytestmark = pytest.mark.servers

OPTIONS = {"timeout": 0.4, "cache": 0.05}


@pytest.fixture(scope="module")
def postgres(tool):
    """Return a PostgreSQL."""
    server = PostgreSQL(tool)
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def redis_server(tool):
    """Return a Redis."""
    server = Redis(tool)
    try:
        yield server
    finally:
        server.remove()


@contextlib.asynccontextmanager
async def by_dsn(server):
    """With psycopg, if it is installed."""
    yield checks.postgresql(server.dsn, **OPTIONS)


@contextlib.asynccontextmanager
async def by_dsn_and_asyncpg(server):
    """With asyncpg, if psycopg is not installed."""
    find = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else find(name))
        check = checks.postgresql(server.dsn, **OPTIONS)
    yield check


@contextlib.asynccontextmanager
async def by_pool(server):
    """With the application's own pool of psycopg."""
    with psycopg_pool.ConnectionPool(server.dsn, min_size=1, max_size=2, timeout=0.3) as pool:
        yield checks.postgresql(pool, **OPTIONS)


@contextlib.asynccontextmanager
async def by_async_pool(server):
    """With the application's own pool of psycopg, async."""
    async with psycopg_pool.AsyncConnectionPool(server.dsn, min_size=1, max_size=2, timeout=0.3) as pool:
        yield checks.postgresql(pool, **OPTIONS)


@contextlib.asynccontextmanager
async def by_asyncpg_pool(server):
    """With the application's own pool of asyncpg."""
    async with asyncpg.create_pool(server.dsn, min_size=1, max_size=2) as pool:
        yield checks.postgresql(pool, **OPTIONS)


@contextlib.asynccontextmanager
async def by_url(server):
    """With a connection for each run."""
    yield checks.redis(server.url, **OPTIONS)


@contextlib.asynccontextmanager
async def by_client(server):
    """With the application's own client, which has no time limit."""
    with redis.Redis.from_url(server.url) as client:
        yield checks.redis(client, **OPTIONS)


@contextlib.asynccontextmanager
async def by_async_client(server):
    """With the application's own client, async."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield checks.redis(client, **OPTIONS)


async def story(server, protocol, registry, check):
    """Make the server hang, resume, stop and start again while `/ready` follows; return the longest wait."""

    async def by_asgi(scope, receive, send):
        """Never be called."""

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    app = scaleobs.instrument(app, registry=registry, log_format="off", checks=[check])
    waits = []

    async def request():
        began = time.monotonic()
        if protocol == "asgi":
            seen = await serve_asgi(app, http_scope(path="/ready"))
        else:
            seen = await asyncio.to_thread(wsgi, app, path="/ready")
        waits.append(time.monotonic() - began)
        return seen.status

    async def becomes(status):
        end = time.monotonic() + 60
        while await request() != status:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    await becomes(200)
    server.hold()
    await becomes(503)
    for _ in range(50):
        assert 503 == await request()
    server.let_go()
    await becomes(200)
    await asyncio.to_thread(server.stop)
    await becomes(503)
    await asyncio.to_thread(server.start)
    await becomes(200)
    return max(waits)


async def longest_stall(server, protocol, registry, make):
    """Run the story with a check that is made on the application's loop."""
    async with make(server) as check:
        return await story(server, protocol, registry, check)


def run(server, protocol, registry, make):
    """Run the story; assert that it leaves at most one thread, and that no probe waited for long."""
    if server.process is None or server.process.poll() is not None:
        server.start()
    before = threading.active_count()
    try:
        longest = asyncio.run(longest_stall(server, protocol, registry, make))
    finally:
        server.let_go()
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)

    assert longest < 0.4 + 5
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("protocol", "make"),
    [
        ("asgi", by_dsn),
        ("wsgi", by_dsn),
        ("asgi", by_dsn_and_asyncpg),
        ("wsgi", by_dsn_and_asyncpg),
        ("asgi", by_pool),
        ("wsgi", by_pool),
        ("asgi", by_async_pool),
        ("asgi", by_asyncpg_pool),
    ],
)
def test_postgresql_hangs_and_comes_back(protocol, make, postgres, registry):
    """Readiness follows the server, with each kind of source, and no probe waits longer than the timeout."""
    run(postgres, protocol, registry, make)


@pytest.mark.parametrize(
    ("protocol", "make"),
    [("asgi", by_url), ("wsgi", by_url), ("asgi", by_client), ("wsgi", by_client), ("asgi", by_async_client)],
)
def test_redis_hangs_and_comes_back(protocol, make, redis_server, registry):
    """Readiness follows the server, with each kind of source, and no probe waits longer than the timeout."""
    run(redis_server, protocol, registry, make)
