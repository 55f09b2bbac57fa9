"""Families of a user with names, labels, times and exemplars that Prometheus refuses, or that become equal."""

from __future__ import annotations

from hypothesis import strategies as st
from prometheus_client import Counter, Enum, Gauge, Histogram, Info
from prometheus_client.core import (
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
    SummaryMetricFamily,
)


class Collected:
    """A user's collector that returns these families, and declares none."""

    def __init__(self, *metrics):
        self.metrics = metrics

    def describe(self):
        return []

    def collect(self):
        return self.metrics


def family(name, kind, *all_samples):
    """Return a family with any names; a sample is a name, labels, a value and further fields."""
    metric = Metric("a", "Help.", kind)
    metric.name = name
    metric.samples = [Sample(*sample) for sample in all_samples]
    return metric


def hostile(registry):
    """Register families of each kind of this file."""
    Gauge("depth", "Depth.", ["queue.name", "queue_name"], registry=registry).labels("mail", "orders").set(1)
    for name in ("a.b", "a_b", "a-b", "a:b"):
        Counter(name, "Help.", registry=registry).inc()
    Histogram("c.d", "Help.", registry=registry).observe(1)
    Gauge("c_d_sum", "Help.", registry=registry).set(4)
    Enum("job:state", "State.", states=["on"], registry=registry).state("on")
    Info("build", "Build.", registry=registry).info({"git.commit": "1", "git_commit": "2", "git-commit": "3"})
    odd_unit = family("size_by.tes", "gauge", ("size_by.tes", {}, 1))
    odd_unit.unit = "by.tes"
    odd_type = family("odd_type", "gauge", ("odd_type", {}, 1))
    odd_type.type = "invented"
    exemplar = Exemplar({"trace:id": "abc", "trace.id": "def"}, 1.0, float("nan"))
    registry.register(
        Collected(
            GaugeMetricFamily("http_requests", "Help.", value=7),
            family("e.f", "gauge", ("e.f", {}, 1)),
            family("e_f", "gauge", ("e_f", {}, 2)),
            family("twice", "gauge", ("twice", {}, 1), ("twice", {}, 2), ("twice", {"x": ""}, 3)),
            family("", "gauge", ("", {}, 1)),
            family("odd_labels", "gauge", ("odd_labels", {"x:y": "1", "": "2", "1st": "3", "__name__": "4"}, 1)),
            family("late", "gauge", ("late", {"x": "1"}, 1, 1.7e18), ("late", {"x": "2"}, 1, float("nan"))),
            family("traced", "counter", ("traced_total", {}, 1, None, exemplar)),
            odd_unit,
            odd_type,
            SummaryMetricFamily("below", "Help.", -3, 1),
            SummaryMetricFamily("above", "Help.", 1e30, 1),
            HistogramMetricFamily("far_above", "Help.", [("1.0", 1e30), ("+Inf", 1e30)], 1),
            family("ünï.cödé", "gauge", ("ünï.cödé", {"ü": "ü"}, 1)),
        )
    )


names = st.text(st.sampled_from("ab._-:1é_"), max_size=4)
kinds = st.sampled_from(["gauge", "counter", "summary", "histogram", "info", "unknown", "stateset", "gaugehistogram"])
suffixes = st.sampled_from(["", "_total", "_created", "_sum", "_count", "_bucket", "_info", ".x"])
labels = st.dictionaries(st.one_of(names, st.sampled_from(["le", "quantile", "__name__"])), names, max_size=3)
times = st.sampled_from([None, None, None, 1.0, 1.7e9, float("nan"), 1e20])
numbers = st.sampled_from([0, 1, -1, 1.5, float("nan"), 1e30, None])


@st.composite
def any_family(draw):
    """Return any family."""
    name = draw(names)
    found = [(name + draw(suffixes), draw(labels), draw(numbers), draw(times)) for _ in range(draw(st.integers(0, 4)))]
    made = family(name, draw(kinds), *found)
    made.unit = draw(st.sampled_from(["", "", "b", "a.b"]))
    return made
