"""The collectors of a user's registry: each is called on its own, and no page waits for one that hangs."""

from __future__ import annotations

import _thread
import copy
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from scaleobs._gevent import unpatched

HANGS_SECONDS = 10.0
"""A call of a collector that takes longer hangs. A scrape of Prometheus has ended by then, with its default timeout."""

_AT_ONCE = 256
"""The samples between two pauses: about a millisecond."""

_PAUSE_SECONDS = 0.001
"""The time between two pauses of a collector that makes its families one after the other."""

_Result = TypeVar("_Result")


class CollectorHangsError(TimeoutError):
    """A collector has not returned; the stack trace is that of its thread."""


class _Call:
    """A call of a collector that has not returned yet."""

    __slots__ = ("begun", "collector", "ended", "is_unreported", "thread")

    def __init__(self, collector: Any, thread: int, lock: Any) -> None:
        self.collector = collector
        self.thread = thread
        self.begun = monotonic()
        self.ended = lock
        self.ended.acquire()
        self.is_unreported = [True]

    def wait(self) -> bool:
        """Wait until it has returned; return whether it has, before it hangs."""
        if not self.ended.acquire(timeout=max(0.0, self.begun + HANGS_SECONDS - monotonic())):
            return False
        self.ended.release()  # For others that wait.
        return True

    def report(self, on_fault: Callable[[Exception], None]) -> None:
        """Report once that it hangs, and where."""
        if self.is_unreported:
            try:
                self.is_unreported.pop()
            except IndexError:  # Another thread was faster.
                return
            kind = type(self.collector)
            msg = (
                f"The collector {kind.__module__}.{kind.__qualname__} has not returned for {HANGS_SECONDS:g} s. Until "
                "it returns, pages lack its metrics."
            )
            on_fault(CollectorHangsError(msg).with_traceback(_traceback_of(self.thread)))


_calls: dict[tuple[int, int], _Call] = {}
"""By process and id of the collector: in a forked process, no call of its parent returns."""


def collect(
    registry: CollectorRegistry, names: Collection[str], on_fault: Callable[[Exception], None]
) -> Iterator[Metric | None]:
    """
    Yield the families of a registry; `None` is a pause.

    If a collector raises, the others are collected all the same. One call of each runs at a time: a second thread waits
    for the first one. If a call hangs, others leave the collector out until it has returned. A greenlet or task does
    not wait for another one of its thread.

    Args:
        registry: of the collectors.
        names: if not empty, only samples with these names are yielded.
        on_fault: called once with each call that hangs, and with each error.
    """
    # Locks of gevent, and its ids of greenlets, don't belong to threads.
    own_id, new_lock = (unpatched(_thread, name) for name in ("get_ident", "allocate_lock"))
    for collector in _chosen(registry, names):
        try:
            for metric in _Guarded(collector, on_fault, own_id, new_lock).collect():
                if metric is None or not names:
                    yield metric
                elif restricted := metric._restricted_metric(names):  # noqa: SLF001
                    yield restricted
        except Exception as error:
            on_fault(error)


def _chosen(registry: Any, names: Collection[str]) -> Iterable[Any]:
    by_collector = getattr(registry, "_collector_to_names", None)
    # A subclass, and what is no `CollectorRegistry`, may collect in its own way.
    if by_collector is None or type(registry).collect is not CollectorRegistry.collect:
        return [registry.restricted_registry(names) if names else registry]
    target = [_Target(registry)] if registry.get_target_info() and (not names or "target_info" in names) else []
    found = list(by_collector.copy().items())
    nameless = set(map(id, getattr(registry, "_collectors_without_names", ())))
    chosen = [one for one, own in found if not names or id(one) in nameless or not set(own).isdisjoint(names)]
    return [*target, *chosen]


class _Target:
    """Collects the target info of a registry."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        return [self._registry._target_info_metric()]  # noqa: SLF001


def report_hanging(on_fault: Callable[[Exception], None]) -> None:
    """Report the calls that hang, each once."""
    for (process, _), call in list(_calls.items()):
        if process == os.getpid() and monotonic() - call.begun > HANGS_SECONDS:
            call.report(on_fault)


class _Guarded:
    """One collector."""

    def __init__(
        self,
        collector: Any,
        on_fault: Callable[[Exception], None],
        own_id: Callable[[], int],
        new_lock: Callable[[], Any],
    ) -> None:
        self._collector = collector
        self._on_fault = on_fault
        self._own_id = own_id
        self._new_lock = new_lock
        self.is_left_out = False

    def collect(self) -> Iterator[Any]:
        """Yield the families of the collector; `None` is a pause."""
        collector = self._collector
        if isinstance(collector, MetricWrapperBase) and type(collector).collect is MetricWrapperBase.collect:
            return self._wrapper_family(collector)
        return _joined(self._families())

    def _families(self) -> Iterator[Metric]:
        families = self._call(self._collector.collect, ())
        if isinstance(families, list | tuple):
            yield from families
            return
        steps = iter(families)
        while (metric := self._call(partial(next, steps, None), None)) is not None:
            yield metric

    def _wrapper_family(self, wrapper: Any) -> Iterator[Any]:
        """Yield the family of a metric of prometheus_client, which may have 100,000 series, in steps."""
        metric, samples, name = wrapper._get_metric(), iter(wrapper._samples()), wrapper._name  # noqa: SLF001
        nothing: list[Any] = []
        while batch := self._call(lambda: list(islice(samples, _AT_ONCE)), nothing):
            for sample in batch:
                metric.add_sample(name + sample[0], *sample[1:])
            if len(batch) == _AT_ONCE:
                yield None
        if metric.samples or not self.is_left_out:
            yield metric

    def _call(self, function: Callable[[], _Result], default: _Result) -> _Result:
        thread, key = self._own_id(), (os.getpid(), id(self._collector))
        while (call := _calls.setdefault(key, own := _Call(self._collector, thread, self._new_lock()))) is not own:
            if call.thread == thread:
                return function()
            if not call.wait():
                call.report(self._on_fault)
                self.is_left_out = True
                return default
        try:
            return function()
        finally:
            del _calls[key]
            own.ended.release()


def _traceback_of(thread: int) -> TracebackType | None:
    """Return where a thread is now."""
    frame, traceback = sys._current_frames().get(thread), None  # noqa: SLF001
    while frame is not None:
        traceback = TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno or 0)
        frame = frame.f_back
    return traceback


def _joined(metrics: Iterable[Metric]) -> Iterator[Metric | None]:
    """Yield families, those of the same name in a row as one: many collectors yield one for each sample."""
    pending: Metric | None = None
    is_copy = False
    last_pause = perf_counter()
    try:
        for metric in metrics:
            if perf_counter() - last_pause > _PAUSE_SECONDS:
                yield None
                last_pause = perf_counter()
            if pending is None or (pending.name, pending.type) != (metric.name, metric.type):
                if pending is not None:
                    yield pending
                pending, is_copy = metric, False
                continue
            if not is_copy:  # The collector may return the same objects again.
                pending, is_copy = copy.copy(pending), True
                pending.samples = list(pending.samples)
            pending.samples.extend(metric.samples)
    except Exception:
        if pending is not None:
            yield pending
        raise
    if pending is not None:
        yield pending
