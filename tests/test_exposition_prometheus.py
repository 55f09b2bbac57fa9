"""A real Prometheus reads our pages: protobuf with native histograms, OpenMetrics, exemplars."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from scaleobs._cli.demo.processes import get, get_json, prometheus_command, running, wait_until

pytestmark = pytest.mark.servers

SERVICE = """
import random
import time

from prometheus_client import CollectorRegistry

from scaleobs._http.endpoints import is_gzip_accepted, preferred
from scaleobs._metrics.page import MEDIA_TYPES, expose
from scaleobs._metrics.families import attach
from scaleobs._metrics.child import Exemplar

registry, storage = attach(CollectorRegistry())
storage.is_native = True
one = random.Random(7)
VALUES = [one.lognormvariate(-2, 0.8) for _ in range(1000)]


def observe():
    series = storage.local.shard.child_of(("GET", "/items/{item_id}", "200"))
    for value in VALUES:
        series.observe(value)
    now = time.time()
    storage.local.shard.open[0] += len(VALUES)
    series.exemplars[6] = Exemplar("a" * 32, "b" * 16, 0.4, now)
    series.exemplars[4] = Exemplar("c" * 32, "d" * 16, 0.08, now - 0.01)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/observe":
        observe()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    received = {name.decode(): value.decode() for name, value in scope["headers"]}
    media_type = preferred(received.get("accept", ""), MEDIA_TYPES)
    is_gzipped = is_gzip_accepted(received.get("accept-encoding", ""))
    headers, pieces = expose(registry, storage, media_type, is_gzipped=is_gzipped, on_fault=print)
    headers = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""
_random = random.Random(7)
VALUES = sorted(_random.lognormvariate(-2, 0.8) for _ in range(1000))
"""The durations that the service counts at each request."""


@pytest.fixture(scope="module")
def prometheus_pair(tmp_path_factory, tool):
    """Return two real Prometheus that scrape a real service, one by protobuf and one by OpenMetrics."""
    directory = tmp_path_factory.mktemp("native")
    (directory / "native_service.py").write_text(SERVICE)
    paths = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(tool('prometheus')).parent}{os.pathsep}{paths}"

    def serve(port):
        return [sys.executable, "-m", "uvicorn", "native_service:app", "--port", str(port), "--log-level", "warning"]

    def prometheus(features, name, service):
        folder = directory / name
        folder.mkdir()
        command = prometheus_command(
            folder,
            targets={"orders": service.port},
            alertmanager=9,
            scrape_interval="200ms",
            flags=[f"--enable-feature={features}"],
        )
        return running(name, command, ready="/-/ready", directory=folder)

    try:
        with (
            running("service", serve, ready="/metrics", directory=directory) as service,
            prometheus("native-histograms,exemplar-storage", "protobuf", service) as by_protobuf,
            prometheus("exemplar-storage", "openmetrics", service) as by_openmetrics,
        ):
            programs = {"protobuf": by_protobuf, "openmetrics": by_openmetrics}
            for one in programs.values():
                wait_until(lambda one=one: value(one, 'up{job="orders"} == 1'), seconds=20, what="a scrape")
            for _ in range(12):
                assert (204, b"") == get(service.url + "/observe")
                time.sleep(0.25)
            for name, one in programs.items():
                wait_until(lambda one=one: value(one, "http_requests_total == 12000"), seconds=20, what=f"{name}: all")
            yield programs
    finally:
        os.environ["PATH"] = paths


def value(prometheus, query):
    """Return the result of a query, a single number."""
    answer = get_json(f"{prometheus.url}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    result = answer["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def test_prometheus_computes_the_quantile(prometheus_pair):
    """`histogram_quantile` of the native histogram is within its resolution, closer than by classic buckets."""
    truth = VALUES[949]
    seen = value(prometheus_pair["protobuf"], "histogram_quantile(0.95, sum(rate(http_request_duration_seconds[5m])))")

    assert truth == pytest.approx(seen, rel=0.09)
    by_buckets = "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))"
    assert abs(seen - truth) < abs(value(prometheus_pair["openmetrics"], by_buckets) - truth)


def test_prometheus_computes_count_sum_and_fraction(prometheus_pair):
    """`histogram_count`, `histogram_sum` and `histogram_fraction` return the counted values."""
    share = sum(seconds <= 0.25 for seconds in VALUES) / len(VALUES)
    fraction = value(
        prometheus_pair["protobuf"], "histogram_fraction(0, 0.25, sum(rate(http_request_duration_seconds[5m])))"
    )

    assert 12_000 == value(prometheus_pair["protobuf"], "histogram_count(http_request_duration_seconds)")
    assert 12 * sum(VALUES) == pytest.approx(
        value(prometheus_pair["protobuf"], "histogram_sum(http_request_duration_seconds)")
    )
    assert share == pytest.approx(fraction, abs=0.03)


def test_prometheus_takes_the_rest(prometheus_pair):
    """Both formats have counters and gauges, and OpenMetrics has the classic buckets."""
    below = sum(seconds <= 0.25 for seconds in VALUES)
    for prometheus in prometheus_pair.values():
        assert 12_000 == value(prometheus, 'http_requests_total{route="/items/{item_id}",status_code="200"}')
        assert 0 == value(prometheus, 'active_connections{protocol="http"}')
        assert value(prometheus, "process_resident_memory_bytes") > 1e6

    assert 12 * below == value(prometheus_pair["openmetrics"], 'http_request_duration_seconds_bucket{le="0.25"}')
    assert 12_000 == value(prometheus_pair["openmetrics"], "http_request_duration_seconds_count")


@pytest.mark.parametrize(
    ("by", "series"),
    [("protobuf", "http_request_duration_seconds"), ("openmetrics", "http_request_duration_seconds_bucket")],
)
def test_prometheus_stores_the_exemplars(by, series, prometheus_pair):
    """`query_exemplars` returns the traces; of a native histogram, Prometheus 2.42 stores the first bucket's only."""
    window = {"query": series, "start": time.time() - 60, "end": time.time() + 1}
    status, body = get(f"{prometheus_pair[by].url}/api/v1/query_exemplars?" + urllib.parse.urlencode(window))
    found = [one for entry in json.loads(body)["data"] for one in entry["exemplars"]]

    assert 200 == status
    both = {("c" * 32, "d" * 16, 0.08), ("a" * 32, "b" * 16, 0.4)}
    seen = {(one["labels"]["trace_id"], one["labels"]["span_id"], float(one["value"])) for one in found}
    assert both == seen or (by == "protobuf" and {("c" * 32, "d" * 16, 0.08)} == seen)
