"""The collectors of a user's registry: one scrape at a time waits for each, and none for one that hangs."""

from __future__ import annotations

import _thread
import copy
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from scaleobs._gevent import unpatched

HANGS_SECONDS = 10.0
"""A call of a collector that takes longer hangs. A scrape of Prometheus has ended by then, with its default timeout."""

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


def guarded(registry: CollectorRegistry, on_fault: Callable[[Exception], None]) -> CollectorRegistry:
    """
    Return a registry with the same collectors, one call of each at a time: a second thread waits for the first one.

    If a call hangs, others leave the collector out until it has returned. A greenlet or task does not wait for another
    one of its thread.

    Args:
        registry: of the collectors. One that is no `CollectorRegistry` is returned itself.
        on_fault: called once with each call that hangs.
    """
    try:
        view = copy.copy(registry)
        # Locks of gevent, and its ids of greenlets, don't belong to threads.
        own_id, new_lock = (unpatched(_thread, name) for name in ("get_ident", "allocate_lock"))
        with registry._lock:  # noqa: SLF001
            each = {one: _Guarded(one, on_fault, own_id, new_lock) for one in registry._collector_to_names}  # noqa: SLF001
            names = dict(registry._names_to_collectors)  # noqa: SLF001
        own: Any = view
        own._collector_to_names = dict.fromkeys(each.values(), ())  # noqa: SLF001
        own._names_to_collectors = {name: each.get(one, one) for name, one in names.items()}  # noqa: SLF001
        own._collectors_without_names = [each[one] for one in getattr(registry, "_collectors_without_names", ())]  # noqa: SLF001
    except (AttributeError, KeyError, TypeError, copy.Error):
        return registry
    return view


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

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the collector."""
        families = self._call(self._collector.collect, ())
        if isinstance(families, list | tuple):
            yield from families
            return
        steps = iter(families)
        while (metric := self._call(partial(next, steps, None), None)) is not None:
            yield metric

    def _call(self, function: Callable[[], _Result], default: _Result) -> _Result:
        thread, key = self._own_id(), (os.getpid(), id(self._collector))
        while (call := _calls.setdefault(key, own := _Call(self._collector, thread, self._new_lock()))) is not own:
            if call.thread == thread:
                return function()
            if not call.wait():
                call.report(self._on_fault)
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
