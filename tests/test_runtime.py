"""The lag of event loops and the use of their thread pools, on the page of one process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest
from prometheus_client import Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_text

import scaleobs
from scaleobs import catalog
from support import servers
from support.event_loops import LAG, begun, measurements, pool, service, shown, until
from support.exchanges import wsgi
from support.expositions import FORMATS, page, samples


@pytest.mark.usefixtures("often")
def test_loops_of_several_threads(registry):
    """The measurements of the loops of several threads are added up, and so are the pools of open loops."""
    app, stop, ready = service(registry), threading.Event(), threading.Semaphore(0)

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
        await begun(app)
        await asyncio.to_thread(int)
        ready.release()
        await until(stop.is_set)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire(timeout=servers.LIMIT)
    servers.until(lambda: [0, 0, 6] == pool(registry, "asyncio"))
    stop.set()
    for thread in threads:
        thread.join()
    counted = measurements(registry)

    assert counted > 2
    assert [] == pool(registry, "asyncio")
    assert counted == measurements(registry)


@pytest.mark.usefixtures("often")
def test_pool_that_is_another_thing_than_is_known(registry, monkeypatch):
    """A pool with an unexpected interface is left out without a fault."""

    def broken():
        raise RuntimeError

    monkeypatch.setattr(anyio.to_thread, "current_default_thread_limiter", broken)

    async def main():
        loop = asyncio.get_running_loop()
        await anyio.to_thread.run_sync(int)
        monkeypatch.setattr(loop, "_default_executor", object())
        await begun(service(registry))
        await until(lambda: measurements(registry) > 1)
        monkeypatch.setattr(loop, "_default_executor", None)

    asyncio.run(main())

    assert {LAG} == {name[0].rsplit("_", 1)[0] for name in shown(registry)}
    assert 0 == samples(page(registry))["scaleobs_internal_faults_total", ()]


@pytest.mark.parametrize("content_type", FORMATS)
@pytest.mark.usefixtures("often")
def test_every_format_and_name(content_type, registry):
    """Each format has the families once, and `name[]` selects them."""

    async def main():
        await begun(service(registry))
        await asyncio.to_thread(int)
        await until(lambda: pool(registry, "asyncio"))
        everything = shown(registry, content_type=content_type)
        named = samples(page(registry, content_type, names=[f"{LAG}_count", "thread_pool_size"]), content_type)
        return everything, named

    everything, named = asyncio.run(main())

    assert len(catalog.LAG_BUCKETS) + 1 + 2 + 3 <= len(everything)
    assert {name for name in everything if name[0].startswith((LAG, "thread_pool_size"))} == set(named)


@pytest.mark.usefixtures("often")
def test_others_see_the_same(registry):
    """Any other reader of the registry gets the families with type, help and labels."""

    async def main():
        await begun(service(registry))
        await asyncio.to_thread(int)
        await until(lambda: pool(registry, "asyncio"))
        return {family.name: family for family in parse_text(generate_latest(registry).decode())}

    families = asyncio.run(main())

    for metric in catalog.RUNTIME:
        family = families[metric.name]
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert (metric.kind, metric.help, set(metric.labels)) == (family.type, family.documentation, labels)
        assert set(metric.series) <= {sample.name for sample in family.samples}


def test_nothing_is_shown_without_a_loop(registry):
    """A WSGI application has none of these families."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    app = scaleobs.instrument(app, registry=registry)
    wsgi(app)

    assert b"event_loop" not in wsgi(app, path="/metrics").body
    assert b"thread_pool" not in generate_latest(registry)


def test_names_are_taken(registry):
    """A user's metric with one of these names is an error of `instrument`, as for all families."""
    Gauge("thread_pool_size", "The user's.", registry=registry)

    with pytest.raises(ValueError, match="thread_pool_size"):
        service(registry)
