"""The timer on each event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import time
import weakref

import anyio.to_thread
import pytest
import uvloop
from prometheus_client import CollectorRegistry

from scaleobs import catalog
from scaleobs._metrics import runtime as loops
from support.event_loops import LAG, begun, measurements, pool, service, shown, until, within
from support.exchanges import asgi, http_scope, serve_asgi
from support.expositions import page, samples


def test_loop_that_is_blocked(registry):
    """If the loop is blocked for its first 0.6 seconds, the first measurement is about 0.35 seconds late."""

    async def main():
        await begun(service(registry))
        time.sleep(0.6)  # noqa: ASYNC251 - To block the loop.
        await until(lambda: measurements(registry))
        return within(registry, 0.25), shown(registry)

    early, found = asyncio.run(main())

    assert 0 == early
    assert 1 == found[f"{LAG}_count", ()]
    assert 0.35 <= found[f"{LAG}_sum", ()]
    assert [*catalog.LAG_BUCKETS, float("inf")] == [dict(labels)["le"] for name, labels in found if "bucket" in name]


@pytest.mark.usefixtures("often")
def test_one_timer_on_each_loop(registry, monkeypatch):
    """Each loop has one timer, for any number of applications, lifespans and requests."""
    apps, used_loops = [service(registry), service(CollectorRegistry()), service(registry, log_format="json")], set()

    async def lifespan(app):
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive():
            return {"type": next(messages)}

        async def send(message):
            pass

        await app({"type": "lifespan"}, receive, send)

    async def main():
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def counted(delay, call, *args, **more):
            used_loops.add(call.__self__)
            return call_later(delay, call, *args, **more)

        monkeypatch.setattr(loop, "call_later", counted)
        for app in apps:
            await lifespan(app)
            await begun(app)
            await begun(app)

    asyncio.run(main())

    assert 1 == len(used_loops)


@pytest.mark.usefixtures("often")
def test_next_loop_goes_on(registry):
    """A timer ends with its loop; the next loop, as with test clients, has its own."""
    counts, ended = [], []

    async def main(app):
        ended.append(weakref.ref(asyncio.get_running_loop()))
        seen = measurements(registry)
        # Without a lifespan, requests on the fast path do not register a loop; a probe or a scrape does.
        await serve_asgi(app, http_scope(path="/health"))
        await until(lambda: measurements(registry) > seen)

    def run():
        # The drain keeps the first loop.
        app = service(registry, drain_seconds=0)
        for _ in range(3):
            asyncio.run(main(app))
            counts.append(measurements(registry))

    run()
    last = measurements(registry)
    gc.collect()

    assert sorted(set(counts)) == counts
    assert counts[-1] == last
    assert [None] * 3 == [ref() for ref in ended]


@pytest.mark.usefixtures("often")
def test_nothing_is_kept():
    """A timer keeps neither the first application alive nor the context of its request."""

    class Held:
        pass

    variable = contextvars.ContextVar("variable")

    async def main():
        async def request():
            held = Held()
            variable.set(held)
            registry = CollectorRegistry()
            app = service(registry)
            await begun(app)
            return weakref.ref(held), weakref.ref(app.app)

        refs = await asyncio.create_task(request())
        await asyncio.sleep(0)
        gc.collect()
        return [ref() for ref in refs]

    assert [None, None] == asyncio.run(main())


def test_uvloop(registry):
    """The same holds on uvloop."""
    hold = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        await begun(service(registry))
        calls = [loop.run_in_executor(None, hold.wait) for _ in range(2)]
        calls.append(asyncio.create_task(anyio.to_thread.run_sync(hold.wait)))
        await until(lambda: pool(registry, "anyio")[:1] == [1])
        before, late_before = measurements(registry), measurements(registry) - within(registry, 0.25)
        time.sleep(0.6)  # noqa: ASYNC251 - To block the loop.
        await until(lambda: measurements(registry) > before)
        late, busy = measurements(registry) - within(registry, 0.25) - late_before, pool(registry, "asyncio")[0]
        hold.set()
        await asyncio.gather(*calls)
        return late, busy

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert (1, 2) == runner.run(main())


def test_loop_that_cannot_be_inspected(registry):
    """A loop without timers is one counted fault, and requests are served."""

    async def main():
        app, loop = service(registry), asyncio.get_running_loop()
        loop.call_later = None
        answers = [(await serve_asgi(app, http_scope(path="/health"))).status for _ in range(3)]
        del loop.call_later
        return answers

    assert [200] * 3 == asyncio.run(main())
    assert 1 == samples(page(registry))["scaleobs_internal_faults_total", ()]


@pytest.mark.usefixtures("often")
def test_fork(registry):
    """A child process has no numbers of its parent's loop, and registers its own."""
    app, (reading, writing) = service(registry), os.pipe()

    async def main():
        await begun(app)
        await until(lambda: measurements(registry) > 2)
        if pid := os.fork():
            return pid
        try:
            before = shown(registry)
            asyncio.run(again())
            os.write(writing, b"%d, then some" % len(before))
        finally:
            os._exit(0)

    async def again():
        await serve_asgi(app, http_scope(path="/health"))
        await until(lambda: measurements(registry))

    pid = asyncio.run(main())
    os.close(writing)
    with os.fdopen(reading) as pipe_output:
        assert "0, then some" == pipe_output.read()
    os.waitpid(pid, 0)


def test_fast_path_searches_no_loop(registry):
    """Requests on the fast path do not register a loop."""
    app = service(registry, log_format="off")
    asgi(app)
    loops.forked()
    asgi(app)

    assert {} == shown(registry)
