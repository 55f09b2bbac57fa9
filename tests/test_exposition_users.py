"""The user's own metrics on our page, in each of its formats."""

from __future__ import annotations

import pytest
from prometheus_client import (
    Counter,
    Enum,
    Histogram,
    Info,
    Summary,
    generate_latest,
)
from prometheus_client.core import (
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    Timestamp,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

import scaleobs
from scaleobs._metrics.families import attach
from support.exchanges import asgi, log_lines
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, families, key, message, page, samples

every_format = pytest.mark.parametrize("content_type", FORMATS)
ODD = 'quote" back\\slash \n ü 🦊'


class Collected:
    """A user's collector that returns these families."""

    def __init__(self, *metrics):
        self.metrics = metrics

    def collect(self):
        yield from self.metrics


def everything() -> list[Metric]:
    """Return a family of each type, with labels, timestamps and exemplars."""
    histogram = HistogramMetricFamily("a_histogram", ODD, labels=["x"])
    histogram.add_metric([ODD], [("0.5", 1), ("2.0", 3), ("+Inf", 4)], 7.5)
    histogram.add_metric(["b"], [("-1.0", 1), ("+Inf", 2)], None)
    gauge = GaugeMetricFamily("a_gauge", "A gauge.", labels=["x", "y"])
    gauge.add_metric(["1", ""], float("inf"))
    gauge.add_metric(["2", ""], float("-inf"), timestamp=Timestamp(1700000000, 123000000))
    gauge.add_metric(["3", ODD], 1e300)
    summary = SummaryMetricFamily("a_summary", "A summary.", labels=["x"])
    summary.add_metric(["1"], 3, 4.5)
    summary.add_sample("a_summary", {"x": "1", "quantile": "0.5"}, 1.5)
    in_bytes = GaugeMetricFamily("a_size", "With a unit.", value=3, unit="bytes")
    return [
        histogram,
        gauge,
        summary,
        in_bytes,
        GaugeHistogramMetricFamily("a_gaugehistogram", "Help.", buckets=[("1.0", 2), ("+Inf", 5)], gsum_value=9.5),
        UnknownMetricFamily("an_unknown", "Who knows.", value=-0.0),
    ]


def register_user_metrics(registry):
    """Fill a registry with the user's metrics of every kind."""
    Counter("a_counter", "Help with \\ and\nnewline.", ["x"], registry=registry).labels(ODD).inc(2.5)
    Info("an_info", "Info.", registry=registry).info({"version": "1", "name": ODD})
    Enum("an_enum", "Enum.", states=["on", "off"], registry=registry).state("off")
    Summary("another_summary", "Summary.", registry=registry).observe(2)
    registry.register(Collected(*everything()))


def test_users_metrics_in_text(registry):
    """The lines of the user's families are those of prometheus_client, except for the notation of numbers."""
    register_user_metrics(registry)
    expected = generate_latest(registry).decode()
    attach(registry)
    shown = page(registry).decode()
    start = shown.index("# HELP a_counter_total")

    assert samples(expected.encode()).items() <= samples(shown.encode()).items()
    assert comments(expected) == [
        line for line in comments(shown[start:]) if "process_" not in line and "python_" not in line
    ]


def comments(text):
    """Return the HELP and TYPE lines."""
    return [line for line in text.split("\n") if line.startswith("#")]


def test_users_metrics_in_openmetrics(registry):
    """The user's families in OpenMetrics are those of prometheus_client, with their units."""
    register_user_metrics(registry)
    expected = generate_openmetrics(registry).decode().removesuffix("# EOF\n")
    attach(registry)
    shown = page(registry, OPENMETRICS).decode()

    assert samples((expected + "# EOF\n").encode(), OPENMETRICS).items() <= samples(shown.encode(), OPENMETRICS).items()
    assert set(comments(expected)) <= set(comments(shown))
    assert "# UNIT a_size_bytes bytes" in shown


def test_users_metrics_in_protobuf(registry):
    """The user's families have the types of protobuf, and the samples of the text format."""
    register_user_metrics(registry)
    found = {family.name: family for family in families(page(registry, PROTOBUF))}
    types = {name: found[name].type for name in found if name.startswith(("a_", "an_", "another_"))}
    text = {name: value for name, value in samples(page(registry)).items() if not name[0].endswith("_created")}
    shown = samples(page(registry, PROTOBUF), PROTOBUF)

    assert {
        "a_counter_total": 0,
        "an_info_info": 1,
        "an_enum": 1,
        "another_summary": 2,
        "a_histogram": 4,
        "a_gauge": 1,
        "a_summary": 2,
        "a_size_bytes": 1,
        "a_gaugehistogram": 5,
        "an_unknown": 3,
    } == types
    assert "bytes" == found["a_size_bytes"].unit
    for name, value in text.items():
        if name[0].startswith(("a_", "an_", "another_")):
            again = (name[0].replace("_gsum", "_sum").replace("_gcount", "_count"), name[1])
            assert value == shown[again]
    (_, fields), *_ = [one for one in found["a_gauge"].metrics if one[0]["x"] == "2"]
    assert [1700000000123] == fields[6]
    created = message(message(found["a_counter_total"].metrics[0][1][3][0])[3][0])
    assert 1_700_000_000 < created[1][0]


@pytest.mark.parametrize("content_type", [OPENMETRICS, PROTOBUF])
def test_exemplars_of_the_user(content_type, registry):
    """The formats with exemplars have the user's own ones, unless they are too long."""
    counter = Counter("a_counter", "Help.", registry=registry)
    counter.inc(2, exemplar={"trace_id": "abc"})
    Histogram("a_histogram", "Help.", registry=registry).observe(2, exemplar={"trace_id": "def"})
    broken = GaugeMetricFamily("a_gauge", "Help.", value=1)
    broken.samples[0] = broken.samples[0]._replace(exemplar=counter.collect()[0].samples[0].exemplar)
    registry.register(Collected(broken))
    body = page(registry, content_type)

    assert 1 == body.count(b"abc") == body.count(b"def")
    assert samples(body, content_type)


@every_format
def test_sample_without_a_number(content_type, registry):
    """Only a sample that cannot be written is left out, and its error is reported."""
    gauge = GaugeMetricFamily("a_gauge", "Help.", labels=["x"])
    for number in range(3):
        gauge.add_metric([str(number)], None if number == 1 else number)
    after = GaugeMetricFamily("another_gauge", "Help.", value=7)
    registry.register(Collected(gauge, after))
    faults = []
    found = samples(page(registry, content_type, faults=faults), content_type)

    assert {0, 2} == {value for name, value in found.items() if name[0] == "a_gauge"}
    assert 7 == found[key("another_gauge", {})]
    assert 1 == len(faults)


@every_format
def test_names_outside_ascii(content_type, registry):
    """Names that only Prometheus 3 accepts are written in the old characters, as prometheus_client does by default."""
    gauge = Metric("a_gauge", "Help.", "gauge")
    gauge.name = "a.gauge"
    gauge.add_sample("a.gauge", {"wo.rd": "x"}, 1)
    registry.register(Collected(gauge))

    assert key("a_gauge", {"wo_rd": "x"}) in samples(page(registry, content_type), content_type)


def test_samples_that_fit_no_metric_are_families_of_their_own(registry):
    """A sample of a custom collector that does not fit its family is untyped in protobuf."""
    odd = Metric("a_gauge", "Help.", "gauge")
    odd.add_sample("a_gauge", {}, 1)
    odd.add_sample("a_gauge_max", {"x": "y"}, 2)
    registry.register(Collected(odd))
    found = {family.name: family.type for family in families(page(registry, PROTOBUF))}

    assert (1, 3) == (found["a_gauge"], found["a_gauge_max"])


class Raising:
    """A collector whose source is gone."""

    def collect(self):
        raise RuntimeError("no cache")

    def describe(self):
        return []


def test_collector_that_raises_is_logged(registry, capsys):
    """If a collector raises, the scrape continues; the fault is counted, and logged once."""

    async def application(scope, receive, send):
        """Never called."""

    app = scaleobs.instrument(application, registry=registry)
    registry.register(Raising())

    assert [200, 200] == [asgi(app, path="/metrics").status for _ in range(2)]
    fault_lines = [line for line in log_lines(capsys) if line["event"] == "scaleobs.fault"]
    assert ["RuntimeError at Raising.collect"] == [line["kind"] for line in fault_lines]
    assert 2 <= registry.get_sample_value("scaleobs_internal_faults_total")
