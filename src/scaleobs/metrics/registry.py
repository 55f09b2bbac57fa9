"""From storage to a prometheus_client registry, beside the user's own metrics."""

from __future__ import annotations

import itertools
import threading
import weakref

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from scaleobs import group
from scaleobs._fork import Step, after_fork
from scaleobs.metrics import loops, processes, values
from scaleobs.metrics.families import StorageCollector
from scaleobs.metrics.runtime import runtime
from scaleobs.metrics.storage import Storage

_attached: weakref.WeakKeyDictionary[CollectorRegistry, Storage] = weakref.WeakKeyDictionary()
_attaching = threading.Lock()
_numbers = itertools.count()
_is_apart = False


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
            storage.is_apart = _is_apart
            _attached[registry] = storage
    return registry, storage


def join_workers() -> None:
    """Count where the other workers of this service read it, if this process is one and doesn't yet."""
    global _is_apart  # noqa: PLW0603 - A process is in one group.
    if _is_apart:
        return
    with _attaching:
        try:
            mine = group.join(_report)
            if mine is not None:
                for storage in list(_attached.values()):
                    if storage.workers is None:
                        storage.join(mine)
                values.join(mine, list(_attached))
                processes.join(mine)
                runtime.join(mine)
                mine.ledger.own()
        except OSError as error:
            _is_apart = True
            for storage in list(_attached.values()):
                storage.is_apart = True
            _report(error)


def _report(error: Exception) -> None:
    """Have one service of this process count a fault and log it."""
    sources = [source for storage in list(_attached.values()) for source in list(storage.sources)]
    for source in sources[:1]:
        source.on_fault(error)


def _forked() -> None:
    global _attaching, _is_apart
    # Another thread of the parent may have held it.
    _attaching, _is_apart = threading.Lock(), False
    group.leave()
    for storage in list(_attached.values()):
        storage.forked()
    values.forked(list(_attached))
    processes.forked()
    loops.forked()
    join_workers()


after_fork(Step.METRICS, _forked)


def _add_runtime_collectors(registry: CollectorRegistry) -> None:
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        try:
            collector(registry=registry)
        except ValueError:  # The user has put it there.
            continue
