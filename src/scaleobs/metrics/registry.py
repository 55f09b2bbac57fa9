"""From storage to a prometheus_client registry, beside the user's own metrics."""

from __future__ import annotations

import threading
import weakref

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from scaleobs.metrics.families import StorageCollector
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
