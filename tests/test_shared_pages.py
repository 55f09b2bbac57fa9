"""The values of several workers on one page."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily

from scaleobs._metrics import user_merge, user_values
from scaleobs._workers.kinds import Kind
from support.in_process_workers import gone, page, workers


@pytest.fixture(name="worker")
def _worker(monkeypatch, tmp_path):
    return workers(monkeypatch, tmp_path)


def test_two_registries_with_one_name(worker):
    """Metrics with the same name in two registries aren't added up, in this worker or in others."""
    registries = CollectorRegistry(), CollectorRegistry()
    other = worker(1)
    user_values.join(other, [])
    for number, registry in enumerate(registries, start=1):
        Counter("c", "c", registry=registry).inc(10 * number)
    gone(*registries)
    own = worker()
    user_values.join(own, [])
    for number, registry in enumerate(registries, start=1):
        Counter("c", "c", registry=registry).inc(number)
    own.read(other)

    assert [{("c_total",): 11}, {("c_total",): 22}] == [page(registry) for registry in registries]


@pytest.mark.parametrize("are_living", [True, False])
def test_what_another_worker_has(worker, registry, are_living):
    """Counts of living and dead workers are added up, in this worker's buckets; gauges are those of living workers."""
    other = worker(1)
    user_values.join(other, [])
    Histogram("h", "h", ["x"], buckets=[1, 2, 4], registry=registry).labels("a").observe(1.5)
    Gauge("g", "g", multiprocess_mode="sum", registry=registry).set(3)
    Gauge("each", "each", ["worker"], registry=registry).labels("x").set(3)
    Counter("elsewhere", "elsewhere", registry=registry).inc()
    gone(registry)
    own = worker()
    user_values.join(own, [])
    histogram = Histogram("h", "h", ["x"], buckets=[1, 3], registry=registry)
    histogram.labels("a").observe(5)
    Gauge("g", "g", multiprocess_mode="sum", registry=registry).set(4)
    Gauge("each", "each", ["worker"], registry=registry).labels("x").set(1)
    own.read(other, are_living=are_living)

    # Families of siblings belong to the default registry.
    assert {
        ("h_bucket", "1.0", "a"): 0,
        ("h_bucket", "3.0", "a"): 1,
        ("h_bucket", "+Inf", "a"): 2,
        ("h_count", "a"): 2,
        ("h_sum", "a"): 6.5,
        ("g",): 7 if are_living else 4,
        ("each", "0", "x"): 1,
        **({("each", "1", "x"): 3} if are_living else {}),
    } == page(registry)
    assert {("h_count", "a"): 2} == page(registry, ["h_count"])
    assert {("h_bucket", "1.0", "a"): 0, ("h_bucket", "3.0", "a"): 1, ("h_bucket", "+Inf", "a"): 2} == page(
        registry, ["h_bucket"]
    )


def test_another_collectors_family_is_left_alone(worker, registry, monkeypatch):
    """The families of a custom collector aren't changed, also none, even if siblings count under its name."""

    class Custom:
        shown = (CounterMetricFamily("c", "c", value=1),)

        def describe(self):
            return Custom.shown

        def collect(self):
            return self.shown

    monkeypatch.setattr(user_merge, "REGISTRY", registry)
    other, custom = worker(1), Custom()
    user_values.join(other, [])
    Counter("c", "c", registry=registry).inc(10)
    Counter("theirs", "theirs", registry=registry).inc(10)
    gone(registry)
    registry.register(custom)
    own = worker()
    user_values.join(own, [])
    own.read(other)

    assert {("c_total",): 1, ("theirs_total",): 10} == page(registry)
    custom.shown = ()
    assert {("theirs_total",): 10} == page(registry)


def test_what_is_damaged_is_left_out(worker, registry):
    """An invalid key loses only its own value; after a fault the page has this worker's values."""
    other = worker(1)
    for key in (b"", b"[]", b"\xff", b'["counter","c","c_total",["x"],[],"","",0]', b"[1,2,3,4,5,6,7,8]", b"null"):
        other.ledger.slots(Kind.USER_VALUE, key, 2)[0] = 3
    other.ledger.slots(Kind.USER_VALUE, b'["counter","c","c_total",[],[],"","",0]', 2)[0] = 3
    other.ledger.slots(Kind.USER_VALUE, b'["counter","c","c_total",[],[],"","",1]', 2)[0] = float("nan")
    own = worker()
    user_values.join(own, [registry])
    Counter("c", "c", registry=registry).inc()
    own.read(other)
    whole = page(registry)
    own.siblings[0].view = None
    faults = []

    assert {("c_total",): 4} == whole
    assert 1 == page(registry, faults=faults)["c_total",]
    assert 1 == len(faults)


def test_exemplars_are_those_of_the_worker_that_answers(worker, registry):
    """The sum of several workers' values keeps the exemplar of this worker."""
    other = worker(1)
    user_values.join(other, [])
    Histogram("h", "h", buckets=[1], registry=registry).observe(0.5, {"id": "theirs"})
    gone(registry)
    own = worker()
    user_values.join(own, [])
    Histogram("h", "h", buckets=[1], registry=registry).observe(0.5, {"id": "mine"})
    own.read(other)
    (family,) = user_merge.of_all_workers(registry, registry.collect(), (), pytest.fail)
    (bucket,) = [sample for sample in family.samples if sample.labels.get("le") == "1.0"]

    assert (2, {"id": "mine"}) == (bucket.value, bucket.exemplar.labels)


@pytest.mark.parametrize("kind", [Counter, Histogram])
def test_what_was_left_counts_once(worker, registry, kind):
    """The values of a dead worker count once, even if this worker takes them over during a scrape."""
    user_values.join(worker(), [])
    before = kind("c", "c", ["x"], registry=registry).labels("a")
    before.inc(5) if kind is Counter else before.observe(5)
    del before
    gone(registry)
    user_values.join(worker(), [])
    again = kind("c", "c", ["x"], registry=registry)

    def collected(*, early):
        """Take them over before or after this worker's own values are read, and after those of the siblings."""
        if early:
            again.labels("a")
        found = list(registry.collect())
        again.labels("a")
        yield from found

    expected = ("c_total" if kind is Counter else "c_sum", "a")
    late = list(user_merge.of_all_workers(registry, collected(early=False), (), pytest.fail))
    again.clear()
    early = list(user_merge.of_all_workers(registry, collected(early=True), (), pytest.fail))

    assert [(*expected, 5)] * 2 == [
        (sample.name, sample.labels["x"], sample.value)
        for family in (*late, *early)
        for sample in family.samples
        if sample.name == expected[0]
    ]
