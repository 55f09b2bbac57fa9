"""Our families as metrics of prometheus_client, and the storage of each registry."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric, Sample
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scaleobs import catalog
from scaleobs._fork import Step, after_fork, catch_up
from scaleobs._metrics import process, user_values
from scaleobs._metrics import runtime as loops
from scaleobs._metrics.child import Child, Counts, Source
from scaleobs._metrics.runtime import runtime
from scaleobs._metrics.storage import Storage
from scaleobs._workers import Group, after_fork_of_uwsgi, join_group, leave_group, next_user, recognition

_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}


class OwnMetric(Metric):
    """
    One of our families, for other readers of the registry: `generate_latest`, a push gateway, a test.

    Its samples are computed when they are read. Our own exposition does not read them: it writes from the storage.
    """

    def __init__(self, family: catalog.Metric, collected: _CollectedSamples) -> None:
        self._family = family
        self._collected = collected
        super().__init__(_empty(family).name, family.help, family.kind)

    @property
    def samples(self) -> list[Sample]:
        """The samples; all families of one collection have those of the same moment."""
        return self._collected.samples.get(self._family.name, [])

    @samples.setter
    def samples(self, value: list[Sample]) -> None:
        """Ignore the empty list that `Metric.__init__` sets."""


class StorageCollector(Collector):
    """Returns the counts of a storage to prometheus_client, under the names of the catalog."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def describe(self) -> Iterable[Metric]:
        """Return the empty families, so that the registration fails if a name is already registered."""
        return [_empty(family) for family in (*catalog.EXPOSED, *catalog.RUNTIME)]

    def collect(self) -> Iterable[Metric]:
        """Return all families."""
        collected = _CollectedSamples(self._storage)
        sizes = catalog.ON_REQUEST if self._storage.has_sizes else ()
        families = [*catalog.EXPOSED, *sizes, *runtime.exposed_families()]
        return [
            OwnMetric(family, collected) for family in families if family is not catalog.READY or collected.has_sources
        ]


class _CollectedSamples:
    """The counts of a storage at the moment of the first read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.has_sources = bool(storage.sources)

    @cached_property
    def samples(self) -> dict[str, list[Sample]]:
        counts = self._storage.read()
        families = {
            catalog.REQUESTS: _requests(counts),
            catalog.DURATION: _histogram(catalog.DURATION, counts.children),
            catalog.REQUEST_SIZE: _histogram(catalog.REQUEST_SIZE, counts.request_sizes),
            catalog.RESPONSE_SIZE: _histogram(catalog.RESPONSE_SIZE, counts.response_sizes),
            **dict(gauge_families(counts, list(self._storage.sources))),
            **dict(runtime.families()),
        }
        return {family.name: metric.samples for family, metric in families.items()}


def gauge_families(counts: Counts, sources: list[Source]) -> Iterator[tuple[catalog.Metric, Metric]]:
    """Yield the families with few samples, in the order of the catalog."""
    active = GaugeMetricFamily(catalog.ACTIVE.name, catalog.ACTIVE.help, labels=catalog.ACTIVE.labels)
    for protocol, connections in counts.active.items():
        active.add_metric((protocol,), connections)
    yield catalog.ACTIVE, active
    yield from _websockets(counts.sockets)
    current = [source for source in sources if not source.is_over()] or sources
    if sources:
        # An application that is imported and never served must not affect the value of the served one.
        ready = [source.is_ready() for source in current if source.is_served()]
        value = float(bool(ready) and all(ready))
        yield catalog.READY, GaugeMetricFamily(catalog.READY.name, catalog.READY.help, value=value)
    yield from _checks(current)
    info = GaugeMetricFamily(catalog.INFO.name, catalog.INFO.help, labels=catalog.INFO.labels)
    for labels in sorted({source.info() for source in sources}):
        info.add_metric(labels, 1)
    yield catalog.INFO, info
    lines = CounterMetricFamily(catalog.LOG_MESSAGES.name, catalog.LOG_MESSAGES.help, labels=("level",))
    for level, number in zip(catalog.LOG_LEVELS, counts.lines, strict=True):
        lines.add_metric((level,), number)
    yield catalog.LOG_MESSAGES, lines
    yield catalog.DROPPED, CounterMetricFamily(catalog.DROPPED.name, catalog.DROPPED.help, value=counts.dropped)
    yield catalog.FAULTS, CounterMetricFamily(catalog.FAULTS.name, catalog.FAULTS.help, value=counts.faults)
    yield catalog.WORKERS, GaugeMetricFamily(catalog.WORKERS.name, catalog.WORKERS.help, value=counts.workers)


def _websockets(closed: list[Child]) -> Iterator[tuple[catalog.Metric, Metric]]:
    """Yield the closed WebSockets by route and code, and their durations by route."""
    sockets = CounterMetricFamily(catalog.WEBSOCKETS.name, catalog.WEBSOCKETS.help, labels=catalog.WEBSOCKETS.labels)
    family = catalog.WEBSOCKET_DURATION
    by_route: dict[str, Child] = {}
    # In an order that is the same in each worker, so that the sums of seconds are.
    for child in sorted(closed, key=lambda one: one.labels):
        _, route, code = child.labels
        slots = list(child.slots)
        sockets.add_metric((route, code), sum(slots[:-1]))
        by_route.setdefault(route, Child(child.labels, catalog.WEBSOCKET_BUCKETS)).add_slots(child.bounds, slots)
    yield catalog.WEBSOCKETS, sockets
    durations = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    ends = [*map(floatToGoString, catalog.WEBSOCKET_BUCKETS), "+Inf"]
    for route, total in by_route.items():
        *counts, seconds = total.slots
        durations.add_metric((route,), list(zip(ends, accumulate(counts), strict=True)), seconds)
    yield family, durations


def _checks(sources: list[Source]) -> Iterator[tuple[catalog.Metric, Metric]]:
    """Yield the results of the last runs; if several applications have a check of the same name, the worst one."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for source in sources:
        for run in source.last_runs():
            is_up, seconds = found.get((run.probe, run.name), (1.0, 0.0))
            found[run.probe, run.name] = min(is_up, float(run.is_up)), max(seconds, run.seconds)
    for position, family in enumerate((catalog.HEALTH_UP, catalog.HEALTH_DURATION)):
        metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for labels, values in found.items():
            metric.add_metric(labels, values[position])
        yield family, metric


def _requests(counts: Counts) -> Metric:
    requests = CounterMetricFamily(catalog.REQUESTS.name, catalog.REQUESTS.help, labels=catalog.REQUESTS.labels)
    for series in counts.children:
        requests.add_metric(series.labels, sum(series.slots[:-1]))
    for labels in counts.zero_children:
        requests.add_metric(labels, 0)
    return requests


def _histogram(family: catalog.Metric, counted: list[Child]) -> Metric:
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for series in counted:
        *slots, total = series.slots
        ends = (*map(floatToGoString, series.bounds), "+Inf")
        histogram.add_metric(series.labels, list(zip(ends, accumulate(slots), strict=True)), total)
    return histogram


def _empty(family: catalog.Metric) -> Metric:
    metric: Metric = _KINDS[family.kind](family.name, family.help, labels=family.labels)
    return metric


_attached: weakref.WeakKeyDictionary[CollectorRegistry, Storage] = weakref.WeakKeyDictionary()
_attaching = threading.Lock()
_numbers = itertools.count()
_is_isolated = False
_user = os.geteuid()


def attach(registry: CollectorRegistry | None) -> tuple[CollectorRegistry, Storage]:
    """
    Return the registry and its storage, which the first call registers; `None` is prometheus_client's default registry.

    Two applications on one registry share its counts. Applications with different registries do not.

    Raises:
        ValueError: the registry already has a metric with one of our names.
    """
    registry = REGISTRY if registry is None else registry
    with _attaching:
        storage = _attached.get(registry)
        if storage is None:
            storage = Storage(next(_numbers))
            try:
                registry.register(StorageCollector(storage))
            except ValueError as error:
                msg = (
                    f"Another library has registered a metric that scaleobs exposes ({error}). Remove the other one, "
                    "or give scaleobs a registry of its own: instrument(app, registry=CollectorRegistry())."
                )
                raise ValueError(msg) from None
            if registry is not REGISTRY:
                _add_runtime_collectors(registry)
            storage.is_isolated = _is_isolated
            _attached[registry] = storage
    return registry, storage


def join_workers() -> None:
    """
    Count in the ledger of this worker, which siblings read, if this process is a worker; may be called again.

    If the process has another user than before, which may not use the files of the former one, it joins the group of
    that user with all its counts.
    """
    global _user  # noqa: PLW0603 - A process has one user.
    if recognition.find_root() is None:
        return
    has_moved = is_user_changed()
    if _is_isolated and not has_moved:
        return
    with _attaching:
        left = leave_group() if has_moved else None
        _user = _next_user()
        try:
            own_group = join_group(_report)
            if own_group is not None:
                _count_in(own_group)
                own_group.ledger.set_owner()
                _isolate(False)
        except OSError as error:
            if left is not None:
                _count_in(None)
            _isolate(True)
            _report(error)
        if left is not None:
            left.ledger.retire()


def follow_process() -> None:
    """Do what a fork requires if this process was forked in C, as by uWSGI; then join its group."""
    catch_up()
    join_workers()


def follow_forks() -> None:
    """Have `follow_process` called in each process that Python or uWSGI forks from this one."""
    after_fork_of_uwsgi(follow_process)


def is_user_changed() -> bool:
    """Return whether this process has another user than it had when it joined its group."""
    return os.geteuid() != _user and _next_user() != _user


def _next_user() -> int:
    user = next_user()
    return os.geteuid() if user is None else user[0]


def _count_in(group: Group | None) -> None:
    for storage in list(_attached.values()):
        if group is None or storage.workers is None or storage.workers.group is not group:
            storage.join(group)
    user_values.join(group, list(_attached))
    process.join(group)
    runtime.join(group)


def _isolate(is_isolated: bool) -> None:
    global _is_isolated  # noqa: PLW0603 - A process is in one group.
    _is_isolated = is_isolated
    for storage in list(_attached.values()):
        storage.is_isolated = is_isolated


def _report(error: Exception) -> None:
    """Make one service of this process count and log an error."""
    sources = [source for storage in list(_attached.values()) for source in list(storage.sources)]
    for source in sources[:1]:
        source.on_fault(error)


def _forked() -> None:
    global _attaching, _is_isolated
    # Another thread of the parent may have held the lock.
    _attaching, _is_isolated = threading.Lock(), False
    leave_group()
    for storage in list(_attached.values()):
        storage.forked()
    user_values.forked(list(_attached))
    process.forked()
    loops.forked()
    join_workers()


after_fork(Step.METRICS, _forked)


def _add_runtime_collectors(registry: CollectorRegistry) -> None:
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        try:
            collector(registry=registry)
        except ValueError:  # The user has registered it.
            continue
