"""From requests to the page of a scrape."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import scaleobs
from scaleobs import catalog
from scaleobs._metrics.families import attach
from scaleobs._metrics.storage import Storage
from support.exchanges import asgi, counted, http_scope, serve_asgi


def service(registry, **settings):
    """Return an instrumented application."""

    async def hello(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    return scaleobs.instrument(hello, registry=registry, **settings)


def test_counts_are_exact_under_threads():
    """Eight threads that count at once lose no count, also after they have ended."""
    storage = Storage()

    def count():
        for number in range(5000):
            shard = storage.local.shard
            shard.open[0] += 1
            shard.child_of(("GET", "/", "200")).observe(number % 2)
            storage.fault()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = storage.read()
    (series,) = counts.children
    *cells, seconds = series.slots

    assert 40_000 == sum(cells) == counts.faults
    assert 20_000 == seconds
    assert {"http": 0, "websocket": 0} == counts.active


def test_abandoned_requests_are_ended_by_one_of_many_scrapes():
    """Concurrent scrapes end each abandoned request once, and none of them fails."""
    storage, ended = Storage(), []

    class Abandoned:
        def finish_abandoned(self):
            ended.append(self)

    def scrape():
        barrier.wait()
        try:
            storage.read()
        except Exception as error:
            failed.append(error)

    failed = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for _ in range(300):
        storage.abandoned.extend(Abandoned() for _ in range(20))
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=scrape) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    sys.setswitchinterval(interval)

    assert [] == failed
    assert 6000 == len(ended)


@pytest.mark.parametrize(
    ("seconds", "le"),
    [(0.0, "0.005"), (0.005, "0.005"), (0.0050001, "0.01"), (0.5, "0.5"), (10.0, "10.0"), (11, "+Inf")],
)
def test_bucket_boundary_belongs_to_its_bucket(seconds, le, registry):
    """A bucket counts durations up to its bound, the bound included, as `le` means."""
    _, storage = attach(registry)
    storage.local.shard.child_of(("GET", "/", "200")).observe(seconds)
    labels = {"method": "GET", "route": "/", "status_code": "200"}
    bounds = [*map(str, catalog.DEFAULT_BUCKETS), "+Inf"]
    found = [registry.get_sample_value("http_request_duration_seconds_bucket", {**labels, "le": b}) for b in bounds]

    assert [float(at >= bounds.index(le)) for at in range(len(bounds))] == found
    assert seconds == registry.get_sample_value("http_request_duration_seconds_sum", labels)


def test_latency_objective_is_a_bucket_boundary(registry):
    """The bound of an objective is a bucket, so that its requests are counted exactly."""
    app = service(registry, objectives=[scaleobs.Latency(99, under=0.3), scaleobs.Availability(99.9)])
    asgi(app)
    labels = {"method": "GET", "route": "unmatched", "status_code": "200", "le": "0.3"}

    assert 1 == registry.get_sample_value("http_request_duration_seconds_bucket", labels)


def test_registries_are_apart_or_shared(registry):
    """Two applications on one registry share its counts; with different registries they do not."""
    other = CollectorRegistry()
    for app in (service(registry, service="a"), service(registry, service="b"), service(other, service="c")):
        asgi(app)

    assert {("GET", "unmatched", "200"): 2} == counted(registry)
    assert {("GET", "unmatched", "200"): 1} == counted(other)


def test_service_info_names_each_service(registry):
    """The labels are those of the settings, with the library's version."""
    apps = [service(registry, service=name, version="7", environment="test") for name in ("a", "b")]
    for name in ("a", "b"):
        labels = {"service_name": name, "version": "7", "environment": "test"}

        assert 1 == registry.get_sample_value("service_info", {**labels, "scaleobs_version": scaleobs.__version__})
    assert 2 == len(apps)


def test_name_of_another_library_is_a_clear_error(registry):
    """A name that is already registered is an error at start, with the fix."""
    Counter("http_requests", "Somebody else's.", registry=registry)

    with pytest.raises(
        ValueError, match=r"http_requests.*Remove the other one, or give scaleobs a registry of its own"
    ):
        service(registry)


def test_scrape_shows_the_catalog(registry):
    """A page has all our families, with type and labels, and those of the user."""
    Gauge("shop_stock", "The user's.", registry=registry).set(3)
    app = service(registry)
    scaleobs.observer_of(app).check("database")(lambda: True)
    asgi(app)
    asgi(app, path="/ready")
    asyncio.run(serve_asgi(app, {**http_scope(), "type": "websocket"}, [{"type": "websocket.connect"}]))
    families = {f.name: f for f in parse_text(asgi(app, path="/metrics").body.decode())}

    assert 3 == families["shop_stock"].samples[0].value
    for metric in catalog.EXPOSED:
        family = families[metric.name.removesuffix("_total")]
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert (metric.kind, set(metric.labels)) == (family.type, labels)
        assert {sample.name for sample in family.samples} == set(metric.series)
    for metric in catalog.PROCESS:
        assert metric.name.removesuffix("_total") in families


def test_headers_choose_format_and_encoding(registry):
    """The application answers in the requested format and encoding, and forbids caches."""
    app = service(registry)
    asgi(app)
    request_headers = [("Accept", "application/openmetrics-text; version=1.0.0"), ("Accept-Encoding", "gzip")]
    seen = asgi(app, path="/metrics", headers=request_headers)

    assert 200 == seen.status
    assert ("gzip", "no-store") == (seen.headers["content-encoding"], seen.headers["cache-control"])
    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == seen.headers["content-type"]
    families = parse_openmetrics(gzip.decompress(seen.body).decode())
    assert "http_requests" in {family.name for family in families}


def test_names_restrict_what_is_shown(registry):
    """`name[]` chooses families by the names of their samples."""
    app = service(registry)
    asgi(app)
    query = b"name[]=http_requests_total&name%5B%5D=active_connections&name[]=no_such"
    body = asgi(app, path="/metrics", query=query).body.decode()

    assert {"http_requests", "active_connections"} == {family.name for family in parse_text(body)}


def test_collector_that_raises_harms_no_other(registry):
    """If a user's collector raises, only its families are missing; the scrape is a 200, and the fault is counted."""

    class Broken:
        def collect(self):
            yield GaugeMetricFamily("ok", "Fine.", value=1)
            msg = "broken"
            raise RuntimeError(msg)

        def describe(self):
            return []

    registry.register(Broken())
    app = service(registry)
    seen = asgi(app, path="/metrics")
    names = {family.name for family in parse_text(seen.body.decode())}

    assert 200 == seen.status
    assert {"ok", "active_connections"} <= names
    assert b"scaleobs_internal_faults_total 1.0" in asgi(app, path="/metrics").body
    assert 200 == asgi(app).status
    assert 200 == asgi(app, path="/health").status


def test_promtool_finds_nothing(registry, tool):
    """`promtool check metrics` finds no problem in a whole scrape of an application."""
    app = service(registry, service='quote" back\\slash ü')
    asgi(app)
    body = asgi(app, path="/metrics").body
    command = [tool("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=30, check=False)

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
