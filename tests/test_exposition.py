"""The contents of a page of `/metrics`, in each format."""

from __future__ import annotations

import gzip
import subprocess

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    enable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    GaugeMetricFamily,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from scaleobs import catalog
from scaleobs._metrics.child import Exemplar, Source
from scaleobs._metrics.families import attach
from support.expositions import (
    FORMATS,
    OPENMETRICS,
    PROTOBUF,
    TEXT,
    exemplar,
    families,
    key,
    message,
    observe,
    page,
    samples,
)

every_format = pytest.mark.parametrize("content_type", FORMATS)
ODD = 'quote" back\\slash \n ü 🦊'
LABELS = [("GET", "/items/{item_id}", "200"), ("POST", ODD, "503"), ("_OTHER", "unmatched", "404")]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def filled(registry):
    """Return a storage with some requests, and a registry with the same requests in metrics of prometheus_client."""
    _, storage = attach(registry)
    other = CollectorRegistry()
    requests = Counter("http_requests", catalog.REQUESTS.help, catalog.REQUESTS.labels, registry=other)
    duration = Histogram(
        "http_request_duration_seconds",
        catalog.DURATION.help,
        catalog.DURATION.labels,
        buckets=catalog.DEFAULT_BUCKETS,
        registry=other,
    )
    for number, labels in enumerate(LABELS):
        for seconds in (0.0, 0.005, 0.3, 11.5 * number):
            observe(storage, labels, seconds)
            requests.labels(*labels).inc()
            duration.labels(*labels).observe(seconds)
    return storage, other


@pytest.fixture
def no_created():
    """Make prometheus_client leave out `_created`."""
    disable_created_metrics()
    yield
    enable_created_metrics()


@every_format
@pytest.mark.usefixtures("no_created")
def test_page_is_as_by_prometheus_client(content_type, registry):
    """The samples of our families are the same as those of prometheus_client for the same requests."""
    _, other = filled(registry)
    body = page(registry, content_type)
    ours = {name: value for name, value in samples(body, content_type).items() if name[0].startswith("http_")}

    assert samples(generate_latest(other)) == ours
    assert 3 * (1 + 12 + 2) == len(ours)


def test_order_of_the_families(registry):
    """Our families come first, in the order of the catalog, then the user's."""
    filled(registry)
    Gauge("a_gauge", "The user's.", registry=registry)
    heads = [line.split()[2] for line in page(registry).decode().splitlines() if line.startswith("# TYPE ")]
    ours = [metric.name for metric in catalog.EXPOSED if metric is not catalog.READY]

    assert ours == heads[: len(ours)]
    assert "a_gauge" == heads[-1]


@every_format
def test_known_routes_stand_at_zero(content_type, registry):
    """A label set without requests has a counter at 0 and no histogram."""
    _, storage = attach(registry)

    source = Source(
        info=lambda: ("orders", "1", "test", "0"),
        is_served=lambda: True,
        is_ready=lambda: True,
        last_runs=lambda: (),
        known_routes=lambda: [("GET", "/items")],
        on_fault=pytest.fail,
        on_memory_changed=pytest.fail,
    )
    storage.sources.add(source)
    observe(storage, ("GET", "/items", "503"), 0.1)
    found = samples(page(registry, content_type), content_type)
    counted = {name[1][2][1]: value for name, value in found.items() if name[0] == "http_requests_total"}
    timed = [name for name in found if name[0] == "http_request_duration_seconds_count"]

    assert {"500": 0, "503": 1} == counted
    assert 1 == len(timed)
    assert 1 == found[key("service_ready", {})]
    labels = dict(zip(catalog.INFO.labels, source.info(), strict=True))
    assert 1 == found[key("service_info", labels)]


@pytest.mark.usefixtures("no_created")
def test_generate_latest_still_shows_ours(registry):
    """Any other reader of the registry, such as a push gateway, gets our families once, with their samples."""
    filled(registry)
    at_once = {name for name in samples(page(registry)) if not name[0].startswith(("process_", "python_"))}
    by_them = samples(generate_latest(registry))

    assert at_once == {name for name in by_them if not name[0].startswith(("process_", "python_"))}
    labels = dict(zip(catalog.REQUESTS.labels, LABELS[0], strict=True))
    assert 4 == registry.get_sample_value("http_requests_total", labels)
    restricted = registry.restricted_registry(["http_requests_total"])
    assert {"http_requests_total"} == {name[0] for name in samples(generate_latest(restricted))}


def test_exemplars(registry):
    """The formats with exemplars have them on the buckets, and the latest one on the counter."""
    _, storage = attach(registry)
    series = observe(storage, LABELS[0], 0.02)
    observe(storage, LABELS[0], 0.3)
    series.exemplars[2] = Exemplar(TRACE, SPAN, 0.02, 1700000000.25)
    series.exemplars[6] = Exemplar("f" * 32, SPAN, 0.3, 1700000001.5)
    found = {
        (sample.name, sample.labels.get("le")): (its.labels, its.value, float(its.timestamp))
        for family in parse_openmetrics(page(registry, OPENMETRICS).decode())
        for sample in family.samples
        if (its := sample.exemplar)
    }
    first = {"trace_id": TRACE, "span_id": SPAN}
    second = {**first, "trace_id": "f" * 32}

    assert {
        ("http_requests_total", None): (second, 1.0, 1700000001.5),
        ("http_request_duration_seconds_bucket", "0.025"): (first, 0.02, 1700000000.25),
        ("http_request_duration_seconds_bucket", "0.5"): (second, 0.3, 1700000001.5),
    } == found
    assert TRACE not in page(registry).decode()
    proto = {family.name: family for family in families(page(registry, PROTOBUF))}
    counter = message(proto["http_requests_total"].metrics[0][1][3][0])
    assert (second, 1.0, 1700000001.5) == exemplar(counter[2][0])
    buckets = message(proto["http_request_duration_seconds"].metrics[0][1][7][0])[3]
    shown = {at: exemplar(message(raw)[3][0]) for at, raw in enumerate(buckets) if message(raw)[3]}
    assert {2: (first, 0.02, 1700000000.25), 6: (second, 0.3, 1700000001.5)} == shown


@every_format
@pytest.mark.parametrize("ids", [("f" * 100, "e" * 30), ('"', SPAN), ("", ""), (TRACE, "ü"), (TRACE, "\n")])
def test_exemplar_that_is_illegal_is_left_out(ids, content_type, registry):
    """An exemplar that is too long or has invalid ids is not on the page."""
    _, storage = attach(registry)
    observe(storage, LABELS[0], 0.02).exemplars[2] = Exemplar(*ids, 0.02, 1700000000.25)

    assert b"trace_id" not in page(registry, content_type)


@every_format
def test_requesting_exemplars_begins_to_keep_them(content_type, registry):
    """Exemplars are kept after the first scrape of a format that has them, and cost nothing before."""
    _, storage = attach(registry)
    page(registry, content_type)

    assert (content_type != TEXT) is storage.awaits_trace


@every_format
def test_names_restrict_what_is_shown(content_type, registry):
    """`name[]` selects families: our own by any of their names, and always whole."""
    filled(registry)
    Counter("a_counter", "The user's.", ["x"], registry=registry).labels(ODD).inc(2.5)
    names = ["http_request_duration_seconds_count", "active_connections", "a_counter_total", "no_such"]
    found = {name[0] for name in samples(page(registry, content_type, names=names), content_type)}

    assert {*catalog.DURATION.series, "active_connections", "a_counter_total"} == found
    only = page(registry, content_type, names=["a_counter_total"])
    assert {"a_counter_total"} == {name[0] for name in samples(only, content_type)}
    assert {} == samples(page(registry, content_type, names=["no_such"]), content_type)


class Broken:
    """A collector that raises between two families."""

    def collect(self):
        """Yield one family."""
        yield GaugeMetricFamily("before_it_broke", "Fine.", value=1)
        msg = "broken"
        raise RuntimeError(msg)


@every_format
@pytest.mark.parametrize("accept_encoding", ["", "gzip"])
def test_collector_that_raises(content_type, accept_encoding, registry):
    """If a collector raises, the page has the families before it and is well-formed, and the fault is reported."""
    filled(registry)
    registry.register(Broken())
    faults = []
    body = page(registry, content_type, accept_encoding=accept_encoding, faults=faults)
    found = {name[0] for name in samples(gzip.decompress(body) if accept_encoding else body, content_type)}

    assert ["broken"] == list(map(str, faults))
    assert {"http_requests_total", "active_connections", "before_it_broke", "process_open_fds"} <= found


def test_promtool_finds_nothing(registry, tool):
    """`promtool check metrics` finds no problem in a whole page."""
    filled(registry)
    command = [tool("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=page(registry), capture_output=True, timeout=30, check=False)

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
