"""The event loops of all workers: their lag, and the use of their thread pools."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from itertools import accumulate
from operator import add
from time import monotonic
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from scaleobs import catalog
from scaleobs._metrics.child import Slots, total_of
from scaleobs._trio import Loop, TrioLoop, running_trio
from scaleobs._workers import Group, Sibling
from scaleobs._workers.kinds import Kind

Numbers = tuple[float, float, float]
"""Threads in use, calls that wait for a thread, the most threads; the last is 0 without a pool."""

POOLS: tuple[str, ...] = ("anyio", "asyncio")

NO_POOL: Numbers = (0.0, 0.0, 0.0)


def pool_numbers(loop: asyncio.AbstractEventLoop) -> list[float]:
    """
    Return the numbers of each of `POOLS`.

    Must be called by the loop, in a context that nothing else uses. A pool with an unexpected interface counts as
    missing.
    """
    return [*_or_no_pool(_anyio_numbers), *_or_no_pool(lambda: _asyncio_numbers(loop))]


def _or_no_pool(read: Callable[[], Numbers]) -> Numbers:
    try:
        return read()
    except Exception:  # The attributes are private and may differ in another version.
        return NO_POOL


def _anyio_numbers() -> Numbers:
    """Return the numbers of the default thread limiter of anyio, which Starlette uses, on this loop."""
    threads = sys.modules.get("anyio.to_thread")
    # If the module is not loaded, no thread was requested; reading the limiter would load it.
    if threads is None or "anyio._backends._asyncio" not in sys.modules:
        return NO_POOL
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        # Without this, anyio needs the current task, and a timer has none.
        sniffio.current_async_library_cvar.set("asyncio")
    statistics = threads.current_default_thread_limiter().statistics()
    return float(statistics.borrowed_tokens), float(statistics.tasks_waiting), float(statistics.total_tokens)


def _asyncio_numbers(loop: asyncio.AbstractEventLoop) -> Numbers:
    """Return the numbers of the executor of `asyncio.to_thread` and `run_in_executor(None, …)`."""
    executor = _default_executor(loop)
    if executor is None:
        return NO_POOL
    return _busy(executor), float(executor._work_queue.qsize()), float(executor._max_workers)  # noqa: SLF001


def _default_executor(loop: asyncio.AbstractEventLoop) -> Any:
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is None:  # No executor exists.
        return None
    if hasattr(loop, "_default_executor"):
        return loop._default_executor  # noqa: SLF001
    # Only the garbage collector can list uvloop's executor; uvloop refers to no other one.
    return next((one for one in gc.get_referents(loop) if isinstance(one, futures.ThreadPoolExecutor)), None)


def _busy(executor: Any) -> float:
    """
    Return how many threads run a call.

    The executor's own count of idle threads is wrong in Python 3.11: it grows with each call that had to wait
    (cpython#88354).
    """
    threads = tuple(executor._threads)  # noqa: SLF001 - Another thread may be adding one.
    if not threads:
        return 0.0
    idle_code = sys.modules["concurrent.futures.thread"]._worker.__code__  # noqa: SLF001
    frames = sys._current_frames()  # noqa: SLF001
    # The entry of this thread would make a reference cycle, which keeps all frames until the next garbage collection.
    del frames[threading.get_ident()]
    top_frames = [frames[thread.ident] for thread in threads if thread.ident in frames]
    return float(sum(top.f_code is not idle_code for top in top_frames))


_KEY = b"event_loop"
_LENGTHS = {Kind.LOOP_LAG: len(catalog.LAG_BUCKETS) + 2, Kind.POOLS: len(POOLS) * len(NO_POOL), Kind.PULSE: 1}
_GAUGES = (catalog.POOL_BUSY, catalog.POOL_WAITING, catalog.POOL_SIZE)


class Runtime:
    """
    The lag, pools and pulse of the event loops of this process and its siblings.

    Thread-safe. References to loops are weak. The numbers of a closed loop are dropped, except its lag.
    """

    def __init__(self) -> None:
        self._group: Group | None = None
        self._reset()

    def _reset(self) -> None:
        # Reentrant: a full ledger is reported, and the report may read these numbers.
        self._lock = threading.RLock()
        self._is_started = self._has_pulse = False
        self._loops: weakref.WeakKeyDictionary[Loop, list[float]] = weakref.WeakKeyDictionary()
        self._lag, self._pools, self._pulse = (self._private(kind) for kind in _LENGTHS)

    @staticmethod
    def _private(kind: Kind) -> Slots:
        return [0.0] * _LENGTHS[kind]

    def begin(self, loop: Loop) -> bool:
        """Register a loop, and return whether it is new."""
        with self._lock:
            if loop in self._loops:
                return False
            self._loops[loop] = []
            if not self._is_started:
                self._start()
            self._pulse[0] = monotonic()
            return True

    def has(self, loop: Loop) -> bool:
        """Return whether a loop was registered in this process; those of a parent process do not count."""
        with self._lock:
            return loop in self._loops

    @property
    def has_loops(self) -> bool:
        """Whether an event loop was registered in this process."""
        return self._is_started

    def beat(self) -> None:
        """Record that this worker makes progress; for workers without an event loop of asyncio."""
        if not self._has_pulse:
            with self._lock:
                self._pulse, self._has_pulse = self._slots(Kind.PULSE), True
        self._pulse[0] = monotonic()

    def record(self, loop: Loop, *, at: float, late: float, pools: list[float]) -> None:
        """
        Record the measurement of a running loop.

        Args:
            loop: the loop; this is called on its thread.
            at: the time, by `time.monotonic`.
            late: the seconds since the scheduled time.
            pools: the numbers of its pools.
        """
        with self._lock:
            self._pulse[0] = at
            self._lag[bisect_left(catalog.LAG_BUCKETS, late)] += 1
            self._lag[-1] += late
            self._loops[loop] = pools
            self._add_pools()

    def _add_pools(self) -> None:
        sums = self._private(Kind.POOLS)
        for loop, pools in self._loops.items():
            if pools and not loop.is_closed():
                sums = list(map(add, sums, pools))
        for position, number in enumerate(sums):
            self._pools[position] = number

    def join(self, group: Group | None) -> None:
        """Count in the group's ledger, which siblings read, from now on; `None`: in this process's memory."""
        with self._lock:
            if group is self._group:
                return
            self._group, self._has_pulse = group, False
            # The counts of an earlier worker are exposed even if this process has no loop.
            if self._is_started or (group is not None and any(group.ledger.entries(Kind.LOOP_LAG))):
                self._start()

    def forked(self) -> None:
        """Reset in a child process: the counts belong to the parent."""
        self._group = None
        self._reset()

    def _start(self) -> None:
        self._is_started = self._has_pulse = True
        lag, pulse = self._lag, self._pulse[0]
        self._lag, self._pools, self._pulse = (self._slots(kind) for kind in _LENGTHS)
        for position, number in enumerate(lag):
            self._lag[position] += number
        # These replace the numbers of a worker that died.
        self._pulse[0] = pulse
        self._add_pools()

    def _slots(self, kind: Kind) -> Slots:
        return self._private(kind) if self._group is None else self._group.slots(kind, _KEY, _LENGTHS[kind])

    def families(self) -> Iterator[tuple[catalog.Metric, Metric]]:
        """Yield the families of all workers that have samples."""
        has_lag, lag, pools = self._read()
        late = [lag[-1]]
        for sibling in () if self._group is None else self._group.peek():
            sibling_lag, sibling_pools = _numbers(sibling, Kind.LOOP_LAG), _numbers(sibling, Kind.POOLS)
            if sibling_lag is not None:
                has_lag, lag = True, list(map(add, lag, sibling_lag))
                late.append(sibling_lag[-1])
            if sibling_pools is not None:
                pools = list(map(add, pools, sibling_pools))
        if has_lag:
            yield catalog.EVENT_LOOP_LAG, _histogram([*lag[:-1], total_of(late)])
        for position, family in enumerate(_GAUGES):
            gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for pool, (*numbers, size) in zip(POOLS, _by_pool(pools), strict=True):
                if size:
                    gauge.add_metric((pool,), (*numbers, size)[position])
            if gauge.samples:
                yield family, gauge

    def exposed_families(self) -> list[catalog.Metric]:
        """Return the families for which this process has samples."""
        has_lag, _, pools = self._read()
        return [*[catalog.EVENT_LOOP_LAG] * has_lag, *(_GAUGES if any(pools) else ())]

    def pulses(self) -> dict[int, float]:
        """
        Return the time of the last progress of each living worker, by `time.monotonic` and by the worker's pid.

        It is the last time that an event loop of the worker ran, or that `beat` was called; 0 before its loop serves.
        Without a group, only this process is returned. Thread-safe: it reads the ledgers of the siblings, as a scrape
        does, and does not wait for an event loop.
        """
        found = {os.getpid(): float(self._pulse[0])}
        for sibling in () if self._group is None else self._group.siblings():
            if sibling.is_living:
                pulse = _numbers(sibling, Kind.PULSE)
                found[sibling.owner] = 0.0 if pulse is None else pulse[0]
        return found

    def _read(self) -> tuple[bool, list[float], list[float]]:
        with self._lock:
            self._add_pools()
            return self._is_started, list(self._lag), list(self._pools)


def _numbers(sibling: Sibling, kind: Kind) -> memoryview[float] | None:
    entry = sibling.find(kind, _KEY, _LENGTHS[kind])
    return None if entry is None else sibling.read_slots(entry)


def _by_pool(numbers: list[float]) -> Iterator[list[float]]:
    for start in range(0, len(numbers), len(NO_POOL)):
        yield numbers[start : start + len(NO_POOL)]


def _histogram(slots: list[float]) -> Metric:
    family, (*counts, total) = catalog.EVENT_LOOP_LAG, slots
    ends = (*map(floatToGoString, catalog.LAG_BUCKETS), "+Inf")
    histogram = HistogramMetricFamily(family.name, family.help)
    histogram.add_metric((), list(zip(ends, accumulate(counts), strict=True)), total)
    return histogram


runtime = Runtime()


LAG_INTERVAL = 0.25
"""Seconds between two measurements; a shorter lag between them may be missed."""

watched: weakref.ref[Loop] | None = None
"""The loop of the last call of `watch`: if it still runs, another call is unnecessary."""


def watch(on_fault: Callable[[Exception], None]) -> bool:
    """
    Measure the lag of the running event loop from now on; return whether there is one. Never raises.

    May be called any number of times: a loop gets one timer. The timer ends with its loop; it does not keep the loop
    running or open.

    Args:
        on_fault: called once, with the error, if a loop cannot be measured.
    """
    global watched  # noqa: PLW0603 - The fast check of all requests except the first.
    loop = asyncio._get_running_loop() or running_trio()  # noqa: SLF001
    if loop is None:
        return False
    try:
        watched = weakref.ref(loop)
        if runtime.begin(loop):
            if isinstance(loop, TrioLoop):
                loop.start(partial(_measure_trio, loop))
            else:
                _LagTimer(loop).schedule(loop)
    except Exception as error:
        on_fault(error)
    return True


def forked() -> None:
    """Reset in a child process, which has other loops."""
    global watched  # noqa: PLW0603 - See there.
    watched = None
    runtime.forked()


class _LagTimer:
    """
    The timer of one event loop.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        # A new context: that of the first request would live as long as the loop, with all its values.
        self._context = Context()
        self._due = 0.0

    def schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the next measurement on the loop."""
        # Not by the clock of the loop: uvloop's does not advance while callbacks run.
        self._due = monotonic() + LAG_INTERVAL
        loop.call_later(LAG_INTERVAL, self._measure, context=self._context)

    def _measure(self) -> None:
        at, loop = monotonic(), self._loop()
        if loop is None or not runtime.has(loop):
            return
        with contextlib.suppress(Exception):  # The loop would log the error four times a second.
            try:
                runtime.record(loop, at=at, late=max(0.0, at - self._due), pools=pool_numbers(loop))
            finally:  # Without the next pulse the worker would count as stuck.
                self.schedule(loop)


async def _measure_trio(loop: TrioLoop) -> None:
    """Measure the lag of a run of trio, in a task of that run, which ends with it."""
    while runtime.has(loop):
        due = monotonic() + LAG_INTERVAL
        await loop.sleep(LAG_INTERVAL)
        at = monotonic()
        with contextlib.suppress(Exception):
            # The pool is trio's own. anyio, which most applications use, has no other one under trio.
            pools = [*_or_no_pool(loop.threads), *NO_POOL]
            runtime.record(loop, at=at, late=max(0.0, at - due), pools=pools)
