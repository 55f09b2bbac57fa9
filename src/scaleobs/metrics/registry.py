"""From storage to a prometheus_client registry, beside the user's own metrics."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from scaleobs import catalog
from scaleobs.metrics.storage import Storage

_attached: weakref.WeakKeyDictionary[CollectorRegistry, Storage] = weakref.WeakKeyDictionary()
_attaching = threading.Lock()


def attach(registry: CollectorRegistry | None) -> tuple[CollectorRegistry, Storage]:
    """
    Return the registry, the process's default one for `None`, and its storage, registered there on the first
    call.

    Two applications on one registry share its counts, as all metrics of a registry do; with a registry each
    they are apart.

    Raises:
        ValueError: the registry holds a metric of one of our names already.
    """
    registry = REGISTRY if registry is None else registry
    with _attaching:
        storage = _attached.get(registry)
        if storage is None:
            storage = Storage()
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
            _attached[registry] = storage
    return registry, storage


def _add_runtime_collectors(registry: CollectorRegistry) -> None:
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        try:
            collector(registry=registry)
        except ValueError:  # The user has put it there.
            continue


class StorageCollector(Collector):
    """Shows a storage's counts to prometheus_client under the catalog's names."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def describe(self) -> Iterable[Metric]:
        """Return the empty families, so that a name that is taken is found at registration."""
        return [_FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels) for metric in catalog.EXPOSED]

    def collect(self) -> Iterator[Metric]:
        """Return every family with its samples."""
        counts = self._storage.snapshot()
        requests = CounterMetricFamily(catalog.REQUESTS.name, catalog.REQUESTS.help, labels=catalog.REQUESTS.labels)
        duration = HistogramMetricFamily(catalog.DURATION.name, catalog.DURATION.help, labels=catalog.DURATION.labels)
        for labels, bounds, buckets, total_seconds in counts.requests:
            cumulated = list(accumulate(buckets))
            ends = (*map(floatToGoString, bounds), "+Inf")
            requests.add_metric(labels, cumulated[-1])
            duration.add_metric(labels, list(zip(ends, cumulated, strict=True)), total_seconds)
        yield requests
        yield duration

        active = GaugeMetricFamily(catalog.ACTIVE.name, catalog.ACTIVE.help, labels=catalog.ACTIVE.labels)
        for protocol, connections in counts.active.items():
            active.add_metric((protocol,), connections)
        yield active

        sources = list(self._storage.sources)
        if sources:
            # An application that is imported and never served says nothing about the one that is.
            ready = [source.is_ready() for source in sources if source.is_served()]
            yield GaugeMetricFamily(catalog.READY.name, catalog.READY.help, value=float(bool(ready) and all(ready)))
        info = GaugeMetricFamily(catalog.INFO.name, catalog.INFO.help, labels=catalog.INFO.labels)
        for labels_of_info in sorted({source.info() for source in sources}):
            info.add_metric(labels_of_info, 1)
        yield info
        yield CounterMetricFamily(catalog.FAULTS.name, catalog.FAULTS.help, value=counts.faults)


_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
