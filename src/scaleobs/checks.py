"""
Ready-made checks, for `instrument(checks=[...])`.

Each function returns a `scaleobs.Check` and takes its options: `probe`, `timeout`, `every`, `cache`, `critical`,
`failure_threshold`, `restart_container`. Probes show the name to any client, so no default name contains a host. Two
checks of one kind need different names.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import shutil
import socket
from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import urlsplit

from scaleobs._health import Check, CheckFailed, CheckFunction, Options

__all__ = ["disk_space", "dns", "from_callable", "http", "postgresql", "redis", "tcp"]


def from_callable(function: CheckFunction, *, name: str | None = None, **options: Unpack[Options]) -> Check:
    """Return a check that calls a function, sync or async; by default it has the name of the function."""
    own_name: str = getattr(function, "__name__", type(function).__name__)
    return Check(own_name if name is None else name, function, **options)


def postgresql(source: Any, *, name: str = "postgresql", query: str = "SELECT 1", **options: Unpack[Options]) -> Check:
    """
    Return a check that sends a query to PostgreSQL.

    Args:
        source: a DSN, from which each run opens its own connection with psycopg or asyncpg; or the application's pool,
            of psycopg_pool, sync or async, or of asyncpg.
        name: the name in the probe.
        query: the query; its result is ignored.
        options: as for `scaleobs.Check`.

    Raises:
        ImportError: neither driver is installed.
        TypeError: the source is neither a DSN nor a pool.
    """
    timeout = options.get("timeout", 1.0)
    if isinstance(source, str):
        driver = _installed("postgresql", "psycopg", "asyncpg", install="'psycopg[binary]'")
        connect = _by_psycopg if driver == "psycopg" else _by_asyncpg
        return Check(name, connect(source, query, timeout), **options)
    if hasattr(source, "fetchval"):

        async def query_asyncpg_pool() -> None:
            await source.fetchval(query)

        return Check(name, query_asyncpg_pool, **options)
    if not hasattr(source, "getconn"):
        msg = f"checks.postgresql got {source!r}: give a DSN, or a pool of psycopg_pool or asyncpg."
        raise TypeError(msg)
    if inspect.iscoroutinefunction(source.getconn):

        async def query_async_pool() -> None:
            async with source.connection() as connection:
                await connection.execute(query)

        return Check(name, query_async_pool, **options)

    def query_pool() -> None:
        with source.connection() as connection:
            connection.execute(query)

    return Check(name, query_pool, **options)


def redis(source: Any, *, name: str = "redis", **options: Unpack[Options]) -> Check:
    """
    Return a check that pings Redis, or Valkey.

    Args:
        source: a URL, from which each run opens its own connection; or the application's client of redis-py, sync or
            async.
        name: the name in the probe.
        options: as for `scaleobs.Check`.

    Raises:
        ImportError: a URL was given, and redis-py is not installed.
        TypeError: the source is neither a URL nor a client.
    """
    if isinstance(source, str):
        _installed("redis", "redis", install="redis")
        return Check(name, _by_redis(source, options.get("timeout", 1.0)), **options)
    if not hasattr(source, "ping"):
        msg = f"checks.redis got {source!r}: give a URL, or a client of redis-py."
        raise TypeError(msg)
    if inspect.iscoroutinefunction(source.execute_command):

        async def ping_async() -> None:
            await source.ping()

        return Check(name, ping_async, **options)

    def ping() -> None:
        source.ping()

    return Check(name, ping, **options)


def http(
    url: str, *, name: str = "http", headers: Mapping[str, str] | None = None, **options: Unpack[Options]
) -> Check:
    """
    Return a check that GETs a URL, and fails if the response, after redirects, is an error (4xx, 5xx).

    Raises:
        ValueError: the URL begins neither with http:// nor with https://, or has no host.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        msg = f"checks.http got {url!r}: give a URL that begins with http:// or https://."
        raise ValueError(msg)
    timeout = options.get("timeout", 1.0)

    def get() -> None:
        from urllib.request import Request, urlopen

        request = Request(url, headers={"User-Agent": "scaleobs", **(headers or {})})  # noqa: S310 - Checked above.
        with urlopen(request, timeout=timeout):  # noqa: S310
            pass

    return Check(name, get, **options)


def tcp(host: str, port: int, *, name: str = "tcp", **options: Unpack[Options]) -> Check:
    """Return a check that opens a connection and closes it."""
    timeout = options.get("timeout", 1.0)

    def connect() -> None:
        socket.create_connection((host, port), timeout).close()

    return Check(name, connect, **options)


def dns(host: str, *, name: str = "dns", **options: Unpack[Options]) -> Check:
    """Return a check that resolves a host name with the resolver of the system."""

    def resolve() -> None:
        socket.getaddrinfo(host, None)

    return Check(name, resolve, **options)


def disk_space(
    path: str = "/",
    *,
    name: str = "disk_space",
    free_share: float = 0.05,
    free_bytes: int = 0,
    **options: Unpack[Options],
) -> Check:
    """
    Return a check of the free space of a file system.

    Args:
        path: a file or a folder of the file system.
        name: the name in the probe.
        free_share: the check fails if a smaller share is free; from 0 to 1.
        free_bytes: the check fails if fewer bytes are free.
        options: as for `scaleobs.Check`.

    Raises:
        ValueError: the share is not from 0 to 1.
    """
    if not 0 <= free_share <= 1:
        msg = f"checks.disk_space got free_share={free_share!r}: give a share from 0 to 1, e.g. 0.05 for 5 %."
        raise ValueError(msg)

    def measure() -> dict[str, float]:
        usage = shutil.disk_usage(path)
        share = usage.free / usage.total if usage.total else 1.0
        if share < free_share or usage.free < free_bytes:
            reason = f"{usage.free} bytes ({share:.1%}) of {path} are free"
            raise CheckFailed(reason)
        return {"free_bytes": usage.free, "free_share": round(share, 4)}

    return Check(name, measure, **options)


def _by_psycopg(dsn: str, query: str, timeout: float) -> CheckFunction:
    # In a thread, so that it is the same in ASGI and WSGI. libpq's shortest limit is two seconds; if the server hangs,
    # the thread ends after it.
    limit = max(2, math.ceil(timeout))

    def run_query() -> None:
        import psycopg

        with psycopg.connect(dsn, connect_timeout=limit, autocommit=True) as connection:
            connection.execute(query)  # type: ignore[arg-type, unused-ignore] # It requires a literal.

    return run_query


def _by_asyncpg(dsn: str, query: str, timeout: float) -> CheckFunction:
    async def run_query() -> None:
        import asyncpg

        connection = await asyncpg.connect(dsn, timeout=timeout)
        try:
            await connection.fetchval(query, timeout=timeout)
        except BaseException:
            connection.terminate()  # `close` would wait for the server.
            raise
        await connection.close()

    # In a thread with a loop of its own, so that it is the same in ASGI with asyncio or trio, and in WSGI.
    return lambda: asyncio.run(run_query())


def _by_redis(url: str, timeout: float) -> CheckFunction:
    def ping() -> None:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # The default is four attempts with pauses; here the next run is the next attempt.
        once = Retry(NoBackoff(), 0)
        with Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=once) as client:
            client.ping()

    return ping


def _installed(check: str, *packages: str, install: str) -> str:
    """Return the first installed one of some packages."""
    for package in packages:
        if importlib.util.find_spec(package) is not None:
            return package
    msg = f"checks.{check} needs {' or '.join(packages)}, which is not installed: pip install {install}"
    raise ImportError(msg)
