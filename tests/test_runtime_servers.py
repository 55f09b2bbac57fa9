"""The lag of event loops and the use of thread pools, in scrapes of real servers."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from support import servers
from support.group import fleet
from support.group.pages import OPENMETRICS

pytestmark = pytest.mark.servers

LAG = "event_loop_lag_seconds"

ROUTES = """
import pathlib, threading, time
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread


def held(request):
    while not pathlib.Path("release").exists():
        time.sleep(0.02)
    return PlainTextResponse("held")


async def executed(request):
    loop = asyncio.get_running_loop()
    if loop not in known:
        known.add(loop)
        loop.set_default_executor(ThreadPoolExecutor(2))
    return await asyncio.to_thread(held, request)


async def block(request):
    time.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("blocked")


async def limit(request):
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    return PlainTextResponse("limited")


known = set()
for path, route in {"/held": held, "/executed": executed, "/block/{seconds}": block, "/limit": limit}.items():
    shop.add_route(path, route)
"""

UVICORN = [*fleet.UVICORN[:1], *fleet.UVICORN[3:]]
SERVERS = {
    "uvicorn": ([*UVICORN, "--workers", "2"], 2),
    "gunicorn": (
        ["gunicorn", "-w", "2", "-b", "127.0.0.1:PORT", "-k", "uvicorn_worker.UvicornWorker", "asgi_shop:app"],
        2,
    ),
    "one": (UVICORN, 1),
}
each_server = pytest.mark.parametrize("kind", SERVERS)


@contextlib.contextmanager
def serving(kind, folder):
    """Run a server with the routes above; held requests are released at the end."""
    command, workers = SERVERS[kind]
    with fleet.running(command, folder, workers=workers, source=ROUTES) as shop:
        try:
            yield shop, workers
        finally:
            (folder / "release").touch()


@contextlib.contextmanager
def requesting(shop, path, number):
    """Send several requests, each on its own connection, without waiting for the responses."""
    with contextlib.ExitStack() as opened:
        for _ in range(number):
            connection = opened.enter_context(contextlib.closing(shop.connection()))
            connection.request("GET", path)
        yield


def pool(shown, name):
    """Return busy, waiting and size of a pool."""
    return [shown.total(f"thread_pool_{what}", pool=name) for what in ("busy", "waiting", "size")]


@each_server
def test_lag_and_threads(kind, tmp_path):
    """
    If a worker is blocked for half a second, a measurement is between 0.25 and 0.5 seconds late.

    Routes without a coroutine use threads of anyio: busy, waiting and size are sums over all workers.
    """
    with serving(kind, tmp_path) as (shop, workers):
        assert_late_by_block(shop, workers)
        assert_threads_of_starlette(shop, workers)


def assert_late_by_block(shop, workers):
    """The lag of a blocked loop is counted, and each scrape has that of all workers."""
    before = shop.until(lambda shown: shown.total(f"{LAG}_count") >= 2)
    for number in range(1, 5):
        shop.fetch("/block/0.5")
        after = shop.until(lambda shown, number=number: late(shown) >= late(before) + number)
    pages = shop.scrapes(4, workers=workers, headers=OPENMETRICS)

    # Half a second, plus delays of the machine.
    assert after.total(f"{LAG}_bucket", le="0.25") < after.total(f"{LAG}_bucket", le="1.0")
    assert after.total(f"{LAG}_sum") > before.total(f"{LAG}_sum") + 4 * 0.25
    assert all(late(one) >= late(after) for one in pages)
    assert {"histogram"} == {one.kinds[LAG] for one in pages}


def late(shown):
    """Return how many measurements were more than 0.25 seconds late."""
    return shown.total(f"{LAG}_count") - shown.total(f"{LAG}_bucket", le="0.25")


def assert_threads_of_starlette(shop, workers):
    """Requests hold all threads and others wait, until all are released."""
    each_limited(shop, workers)
    with requesting(shop, "/held", 9):
        full = shop.until(lambda shown: sum(pool(shown, "anyio")[:2]) == 9)
        pages = shop.scrapes(4, workers=workers)
        (shop.folder / "release").touch()
        shop.until(lambda shown: [0, 0, 2 * workers] == pool(shown, "anyio"))

    assert 2 * workers == pool(full, "anyio")[2]
    assert 2 <= pool(full, "anyio")[0] <= 2 * workers
    assert {tuple(pool(full, "anyio"))} == {tuple(pool(one, "anyio")) for one in pages}


def each_limited(shop, workers):
    """Set the size of anyio's pool to two in each worker."""
    seen = set()

    def limited():
        fleet.side_by_side(lambda: seen.add(shop.fetch("/limit")[1]), 4)
        return len(seen) == workers

    servers.until(limited)
    shop.until(lambda shown: [0, 0, 2 * workers] == pool(shown, "anyio"))


def test_threads_of_the_default_executor(tmp_path):
    """`asyncio.to_thread` uses threads of the loop's default executor, which does not exist before."""
    with serving("one", tmp_path) as (shop, _):
        before = shop.until(lambda shown: shown.total(f"{LAG}_count") >= 2)
        with requesting(shop, "/executed", 5):
            shop.until(lambda shown: [2, 3, 2] == pool(shown, "asyncio"))
            (tmp_path / "release").touch()
            shop.until(lambda shown: [0, 0, 2] == pool(shown, "asyncio"))

    assert set() == {name for name, _ in before if name.startswith("thread_pool")}


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_killed_worker(kind, tmp_path):
    """The threads of a killed worker are removed, and its measurements stay, also if a new worker replaces it."""
    with serving(kind, tmp_path) as (shop, workers):
        each_limited(shop, workers)
        with contextlib.ExitStack() as opened:
            holding = []
            for _ in range(5):
                connection, pid = shop.open("/held")
                opened.enter_context(contextlib.closing(connection))
                holding.append(pid)
            before = shop.until(lambda shown: sum(pool(shown, "anyio")[:2]) == 5)
            os.kill(holding[0], signal.SIGKILL)
            left = 5 - holding.count(holding[0])
            pages = [shop.until(lambda shown: sum(pool(shown, "anyio")[:2]) == left)]
            pages.append(shop.until(lambda shown: shown.workers == workers))
            pages += shop.scrapes(8, workers=workers)
    counts = [shown.total(f"{LAG}_count") for shown in [before, pages[0], pages[1]]]

    assert sorted(counts) == counts
    assert all(shown.total(f"{LAG}_count") >= counts[-1] for shown in pages[2:])
    assert {left} == {sum(pool(shown, "anyio")[:2]) for shown in pages}
