"""The costs of a page."""

from __future__ import annotations

import gc
import time
import tracemalloc

from prometheus_client import CollectorRegistry, generate_latest

from scaleobs import catalog
from scaleobs._metrics.families import attach
from support.expositions import observe, page


def filled(registry, label_sets):
    """Return a storage with this number of label sets."""
    _, storage = attach(registry)
    storage.limit = label_sets
    for number in range(label_sets):
        observe(storage, ("GET", f"/api/v1/resource-{number}/{{item_id}}", "200"), 0.01 * number)
    return storage


def test_memory_of_a_scrape(registry):
    """If all series have changed, a scrape needs little more memory than the pieces that its reader keeps."""
    storage = filled(registry, 1500)
    for _ in range(2):
        page(registry)
    for series in list(storage.local.shard.children.values()):
        series.observe(0.02)
    gc.collect()
    tracemalloc.start()
    text = page(registry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 2.5 > peak / len(text)


def test_memory_of_a_label_set(registry):
    """A series with its cached text needs at most 2.5 kB."""
    _, storage = attach(registry)
    labels = [("GET", f"/api/v1/resource-{number}/{{item_id}}", "200") for number in range(300)]
    observe(storage, ("GET", "/", "200"), 0.1)
    page(registry)
    gc.collect()
    tracemalloc.start()
    for one in labels:
        for seconds in (*catalog.DEFAULT_BUCKETS, 20):
            observe(storage, one, seconds, times=260)  # Integers past 256 aren't shared.
    for _ in range(3):
        page(registry)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert 2500 > used / len(labels)


def test_far_faster_than_prometheus_client(registry):
    """A page is made 25 times as fast as by prometheus_client; the limit of 10 allows for a busy machine."""
    storage = filled(registry, 600)
    other = CollectorRegistry()
    from prometheus_client import Histogram

    histogram = Histogram("http_request_duration_seconds", "Time.", catalog.DURATION.labels, registry=other)
    for labels in storage.local.shard.children:
        histogram.labels(*labels).observe(0.1)

    def ours():
        for series in list(storage.local.shard.children.values()):
            series.observe(0.02)
        begun = time.thread_time()
        page(registry, names=["http_request_duration_seconds"])
        return time.thread_time() - begun

    def by_prometheus_client():
        begun = time.thread_time()
        generate_latest(other)
        return time.thread_time() - begun

    assert 10 < min(by_prometheus_client() for _ in range(3)) / min(ours() for _ in range(5))
