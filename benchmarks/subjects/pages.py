"""Ways to store many label sets and to expose them: a counter and a histogram with three labels each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from benchmarks.subjects import asgi, floor, ours

Labels = tuple[str, str, str]

SAMPLES_PER_LABEL_SET = 1 + floor.BUCKETS + 2
"""The counter; the buckets, the sum and the count of the histogram."""


class Page(NamedTuple):
    """A storage that counts and is scraped: in pieces, as a server writes them."""

    observe: Callable[[Sequence[tuple[Labels, float]]], None]
    scrape: Callable[[], list[bytes]]


def label_sets(how_many: int) -> list[Labels]:
    """Return this number of label sets, as in a service with many routes."""
    found: Iterator[Labels] = (
        (method, f"/api/v1/resource-{number}/{{item_id}}", status)
        for number, method, status in product(range(how_many), ("GET", "POST"), ("200", "404"))
    )
    return [labels for labels, _ in zip(found, range(how_many), strict=False)]


def samples_of(page: list[bytes]) -> int:
    """Return how many samples of the two metrics a page shows."""
    ours_or_alike = b"http_requests_total{", b"http_request_duration_seconds_"
    return sum(line.startswith(ours_or_alike) for line in b"".join(page).split(b"\n"))


def requests_of(page: list[bytes]) -> float:
    """Return how many requests a page shows."""
    lines = b"".join(page).split(b"\n")
    return sum(float(line.rpartition(b" ")[2]) for line in lines if line.startswith(b"http_requests_total{"))


def _floor() -> Page:
    table = floor.Table()

    def observe(observations: Sequence[tuple[Labels, float]]) -> None:
        for labels, seconds in observations:
            table.observe(labels, seconds)

    return Page(observe, lambda: [table.text()])


def _ours(accept: str = "") -> Page:
    from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY

    # Metrics of the process are read from /proc, cost the same for all, and are no label set.
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        REGISTRY.unregister(collector)
    app = ours.instrumented(asgi.FRAMEWORKS["null"](), ours.METRICS_ALONE, REGISTRY)
    loop = asyncio.Runner()
    return Page(
        lambda observations: ours.fill(app, observations),
        lambda: asgi.pieces(app, "/metrics", accept=accept, loop=loop),
    )


def _prometheus_client(generate: Callable[[Any], bytes]) -> Page:
    from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

    disable_created_metrics()  # Two more lines per label set, which the others don't write.
    registry = CollectorRegistry()
    names = ("method", "route", "status_code")
    requests = Counter("http_requests", "Finished.", names, registry=registry)
    seconds_of = Histogram("http_request_duration_seconds", "Time.", names, buckets=floor.BOUNDS, registry=registry)
    children: dict[Labels, tuple[Any, Any]] = {}

    def observe(observations: Sequence[tuple[Labels, float]]) -> None:
        for labels, seconds in observations:
            if labels not in children:
                children[labels] = requests.labels(*labels), seconds_of.labels(*labels)
            children[labels][0].inc()
            children[labels][1].observe(seconds)

    return Page(observe, lambda: [generate(registry)])


def _prometheus_text() -> Page:
    from prometheus_client import generate_latest

    return _prometheus_client(generate_latest)


def _prometheus_openmetrics() -> Page:
    from prometheus_client.openmetrics.exposition import generate_latest

    return _prometheus_client(generate_latest)


PAGES: dict[str, Callable[[], Page]] = {
    "floor": _floor,
    "scaleobs, text": _ours,
    "scaleobs, OpenMetrics": lambda: _ours("application/openmetrics-text; version=1.0.0"),
    "prometheus_client, text": _prometheus_text,
    "prometheus_client, OpenMetrics": _prometheus_openmetrics,
}
