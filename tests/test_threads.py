"""Many threads count at once: no count is lost, and no counter falls between two scrapes."""

from __future__ import annotations

import asyncio
import functools
import gc
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import scaleobs
from support.exchanges import active, asgi, counted, environ, http_scope

THREADS, EACH = 8, 100_000
STATUSES = ("200 OK", "404 Not Found", "500 Internal Server Error", "204 No Content")


def answering(environ, start_response):
    """Return a response with the status of the environ."""
    start_response(environ["status"], [])
    return [b"x"]


def streaming(environ, start_response):
    """Return a response of two chunks."""
    start_response(environ["status"], [])
    yield b"x"
    yield b"y"


def started(status, headers, exc_info=None):
    """Accept the start of a response."""


def serve(app, status="200 OK", times=1):
    """Serve requests as a server does, without its costs."""
    request = environ(status=status)
    for _ in range(times):
        body = app(request, started)
        for _ in body:
            pass
        body.close()


@pytest.fixture
def storage_of(registry):
    """Return a function that instruments an application for the fast path, which its second request takes."""

    def instrumented(app):
        served = scaleobs.instrument(functools.partial(app), registry=registry, log_format="off")
        service = scaleobs.observer_of(served)._service
        service.on_first_traffic()
        service.choose_path("")

        assert service.storage.fast_path[0]
        return served, service.storage

    return instrumented


@contextmanager
def scraping(storage):
    """Read the counts repeatedly: none ever falls, and the gauge is never negative."""
    is_over, wrong, scrapes = threading.Event(), [], [0]

    def scrape():
        last = {}
        while not is_over.wait(0.002):
            now = storage.read()
            counts = {(one.labels, bucket): cell for one in now.children for bucket, cell in enumerate(one.slots)}
            wrong.extend((key, value, counts.get(key)) for key, value in last.items() if counts.get(key, -1) < value)
            wrong.extend(kind for kind, value in now.active.items() if value < 0)
            last = counts
            scrapes[0] += 1

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

    assert [] == wrong
    assert scrapes[0] > 1


def run(*tasks):
    """Run each function in its own thread."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def test_eight_threads_count_every_request(storage_of, registry):
    """800,000 requests of eight threads are counted exactly in total, by status and by bucket, during scrapes."""
    app, storage = storage_of(answering)

    with scraping(storage):
        run(*[lambda status=STATUSES[number % 4]: serve(app, status, EACH) for number in range(THREADS)])
    series = storage.read().children

    assert {("GET", "unmatched", status[:3]): 2 * EACH for status in STATUSES} == counted(registry)
    assert [2 * EACH] * 4 == [sum(one.slots[: len(one.bounds) + 1]) for one in series]
    assert 0 == active(registry)


def test_what_a_thread_counted_stays_when_it_ends(storage_of, registry):
    """After threads have ended, their counts stay, and new threads reuse their shards."""
    app, storage = storage_of(answering)

    with scraping(storage):
        for _ in range(50):
            run(*[lambda: serve(app, times=20)] * 4)
            assert len(storage._shards) < 20

    assert {("GET", "unmatched", "200"): 4000} == counted(registry)
    assert 0 == active(registry)


def test_request_may_end_in_another_thread(storage_of, registry):
    """A body that one thread requests and another one closes, perhaps after the first has ended, counts once."""
    app, storage = storage_of(streaming)
    bodies = queue.SimpleQueue()

    def begin():
        for _ in range(2500):
            bodies.put(app(environ(status="200 OK"), started))

    def end():
        for _ in range(5000):
            body = bodies.get()
            next(body)
            body.close()

    with scraping(storage):
        run(begin, begin)  # Both have ended before anything is closed.
        storage.read()
        run(begin, end, begin, end)

    assert {("GET", "unmatched", "200"): 10_000} == counted(registry)
    assert 0 == active(registry)


def test_loops_in_several_threads_count_every_request(storage_of, registry):
    """Applications on four event loops at once, some of whose requests are cancelled, count each request once."""

    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0 if scope["path"] == "/" else 3600)
        await send({"type": "http.response.body", "body": b""})

    app, storage = storage_of(answer)

    async def take(message):
        await asyncio.sleep(0)

    async def serve_all():
        tasks = [asyncio.create_task(app(http_scope(path=path), None, take)) for path in ["/", "/stuck"] * 1000]
        for _ in range(5):
            await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with scraping(storage):
        run(*[lambda: asyncio.run(serve_all())] * 4)

    assert {("GET", "unmatched", "200"): 4000, ("GET", "unmatched", "500"): 4000} == counted(registry)
    assert 0 == active(registry)


class Never:
    """Wait for ever."""

    def __await__(self):
        yield


async def hang(scope, receive, send):
    """Accept, and never respond."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    await Never()


async def ignore(message):
    """Accept a message."""


@pytest.mark.parametrize("log_format", ["off", "json"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_request_that_is_collected_while_a_scrape_counts(kind, log_format, registry):
    """A finalizer may end a request in the thread that holds the storage's lock: it does not wait."""
    app = scaleobs.instrument(functools.partial(hang), registry=registry, log_format=log_format)
    asgi(app, path="/health")
    coroutine = app({**http_scope(), "type": kind}, None, ignore)
    starter = threading.Thread(target=coroutine.send, args=(None,))
    starter.start()
    starter.join()
    assert 1 == active(registry, kind)

    def collect():
        with scaleobs.observer_of(app)._service.storage._lock:
            coroutine.close()

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    collector.join(10)

    assert not collector.is_alive()
    assert ({("GET", "unmatched", "500"): 1} if kind == "http" else {}) == counted(registry)
    assert 0 == active(registry, kind)


def test_body_that_is_dropped_after_its_thread_has_ended(storage_of, registry):
    """Abandoned requests of a thread that has ended are counted by the next scrape."""
    app, storage = storage_of(streaming)
    bodies = []
    run(lambda: bodies.extend(app(environ(status="200 OK"), started) for _ in range(10)))
    for body in bodies:
        next(body)
    storage.read()  # The shard of the ended thread is free.
    del body
    bodies.clear()
    gc.collect()

    assert {("GET", "unmatched", "200"): 10} == counted(registry)
    assert 0 == active(registry)
