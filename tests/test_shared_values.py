"""The values of the user's own metrics in one worker."""

from __future__ import annotations

import os
import threading

import pytest
from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.multiprocess import MultiProcessCollector

from scaleobs._metrics import user_merge, user_values
from scaleobs._metrics.user_values import SharedValue
from scaleobs._workers.ledger import FullError
from support.in_process_workers import gone, page, workers


@pytest.fixture(name="worker")
def _worker(monkeypatch, tmp_path):
    return workers(monkeypatch, tmp_path)


def test_a_metric_keeps_what_it_has_as_it_is_shared(worker, registry):
    """A metric that was created before its process joined the group keeps its value and its exemplars."""
    counter = Counter("c", "c", ["x"], registry=registry)
    counter.labels("a").inc(2, {"id": "1"})
    histogram = Histogram("h", "h", buckets=[1, 2], registry=registry)
    histogram.observe(1.5)
    summary = Summary("s", "s", registry=registry)
    summary.observe(3)
    gauge = Gauge("g", "g", registry=registry)
    gauge.set(-4)
    of_function = Gauge("f", "f", registry=registry)
    of_function.set_function(lambda: 5)
    own = worker()
    user_values.join(own, [registry])
    counter.labels("a").inc()
    histogram.observe(0.5)
    summary.observe(1)
    gauge.dec()

    assert [] == own.errors
    assert {"id": "1"} == counter.labels("a")._value.get_exemplar().labels
    assert {
        ("c_total", "a"): 3,
        ("h_bucket", "1.0"): 1,
        ("h_bucket", "2.0"): 2,
        ("h_bucket", "+Inf"): 2,
        ("h_count",): 2,
        ("h_sum",): 2,
        ("s_count",): 2,
        ("s_sum",): 4,
        ("g", "0"): -5,
        ("f", "0"): 5,
    } == page(registry)


def test_a_worker_goes_on_where_a_dead_one_ended(worker, registry):
    """Counts of a dead worker are continued, also of metrics that aren't created again; its gauges are dropped."""
    user_values.join(worker(), [registry])
    Counter("c", "c", ["x"], registry=registry).labels("a").inc(2)
    registry._collector_to_names.copy().popitem()[0].labels("b").inc(5)
    Gauge("g", "g", ["x"], registry=registry).labels("a").set(2)
    gone(registry)
    user_values.join(worker(), [registry])
    counter = Counter("c", "c", ["x"], registry=registry)
    counter.labels("a").inc()
    Gauge("g", "g", ["x"], registry=registry)

    assert 3 == counter.labels("a")._value.get()
    assert {("c_total", "a"): 3, ("c_total", "b"): 5} == page(registry)


def test_no_room(worker, registry):
    """If the ledger is full, a metric counts in this process's memory, and the error is reported."""
    own = worker()
    user_values.join(own, [registry])
    error = FullError("No space left")

    def slots(kind, key, length):
        raise error

    own.ledger.slots = slots
    counter = Counter("c", "c", registry=registry)
    counter.inc()

    assert [error] == own.errors
    assert {("c_total",): 1} == page(registry)


def test_a_child_of_a_worker(worker, registry):
    """A child counts from 0 in its own memory, even if the parent's threads held locks; gauges keep their value."""
    own = worker()
    old = Counter("old", "old", ["x"], registry=registry)
    user_values.join(own, [registry])
    old.labels("a").inc(5)
    gauge = Gauge("g", "g", registry=registry)
    gauge.set(3)
    for lock in (registry._lock, old._lock, old.labels("a")._value._lock, gauge._value._lock):
        lock.acquire()
    user_values.forked([registry])
    old.labels("a").inc()
    gauge.inc()
    own.read(own)
    positions = own.siblings[0].view(user_merge._UserValues, user_merge._UserValues).found.values()
    (place,) = [start for key, start in positions if key.family == "old"]

    assert {"old_total": 1, "g": 4} == {
        sample.name: sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert 5 == own.siblings[0].numbers[place]


def test_a_worker_that_was_forked(worker, registry):
    """Counts from before the fork are the parent's; later ones are the worker's."""
    counter = Counter("c", "c", registry=registry)
    gauge = Gauge("g", "g", registry=registry)
    counter.inc(100)
    gauge.set(3)
    user_values.forked([registry])
    counter.inc(2)
    user_values.join(worker(), [registry])

    assert {("c_total",): 2, ("g", "0"): 3} == page(registry)


def test_a_process_without_a_group_is_left_alone(registry):
    """Without a group nothing in prometheus_client is replaced, and its page is unchanged."""
    counter = Counter("c", "c", registry=registry)
    counter.inc()
    pid = os.fork()
    if pid == 0:
        os._exit(int(counter._value.get()))
    _, status = os.waitpid(pid, 0)

    assert 1 == os.waitstatus_to_exitcode(status)
    assert not isinstance(counter._value, SharedValue)
    assert list(registry.collect()) == list(user_merge.of_all_workers(registry, registry.collect(), (), pytest.fail))


def test_prometheus_clients_own_mode_is_left_alone(worker, registry, tmp_path):
    """A registry with prometheus_client's multiprocess files keeps them: otherwise nothing would write them."""
    MultiProcessCollector(registry, path=str(tmp_path))
    user_values.join(worker(), [registry])

    assert not isinstance(Counter("c", "c", registry=None)._value, SharedValue)


def test_threads(worker, registry):
    """No increment is lost, also while a metric is moved into the ledger."""
    counter = Counter("c", "c", ["x"], registry=registry)
    begun, shared_now = threading.Event(), threading.Event()
    own = worker()

    def count():
        for number in range(20000):
            counter.labels(str(number % 7)).inc()
            if number == 100:
                begun.set()
                shared_now.wait(20)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    user_values.join(own, [registry])
    shared_now.set()
    for thread in threads:
        thread.join()

    assert 80000 == sum(page(registry).values())
