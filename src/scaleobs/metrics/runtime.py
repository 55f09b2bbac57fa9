"""What the event loops of all workers say: how late they run, and how busy their worker threads are."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import add
from time import monotonic

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from scaleobs import catalog
from scaleobs.group import Group, Sibling
from scaleobs.group.kinds import Kind
from scaleobs.metrics.pools import NO_POOL, POOLS
from scaleobs.metrics.series import Cells, total_of

_KEY = b"event_loop"
_LENGTHS = {Kind.LOOP_LAG: len(catalog.LAG_BUCKETS) + 2, Kind.POOLS: len(POOLS) * len(NO_POOL), Kind.PULSE: 1}
_GAUGES = (catalog.POOL_BUSY, catalog.POOL_WAITING, catalog.POOL_SIZE)


class Runtime:
    """
    What the event loops of this process, and of the other workers, say of themselves.

    Any thread may call anything. Loops are held weakly, and what is said of one that is closed is forgotten, but for
    how late it was.
    """

    def __init__(self) -> None:
        self._group: Group | None = None
        self._begin()

    def _begin(self) -> None:
        # One that may be taken again: what has no room is told, to whoever may ask what there is.
        self._lock = threading.RLock()
        self._is_begun = self._has_pulse = False
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[float]] = weakref.WeakKeyDictionary()
        self._lag, self._pools, self._pulse = (self._own(kind) for kind in _LENGTHS)

    @staticmethod
    def _own(kind: Kind) -> Cells:
        return [0.0] * _LENGTHS[kind]

    def begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a loop in, and return whether it is new."""
        with self._lock:
            if loop in self._loops:
                return False
            self._loops[loop] = []
            if not self._is_begun:
                self._share()
            self._pulse[0] = monotonic()
            return True

    def has(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a loop was taken in, and not by the process that this one was forked from."""
        with self._lock:
            return loop in self._loops

    @property
    def has_loops(self) -> bool:
        """Whether an event loop has served in this process."""
        return self._is_begun

    def beat(self) -> None:
        """Note that this worker goes on, where it has no event loop of asyncio's."""
        if not self._has_pulse:
            with self._lock:
                self._pulse, self._has_pulse = self._cells(Kind.PULSE), True
        self._pulse[0] = monotonic()

    def looked(self, loop: asyncio.AbstractEventLoop, *, at: float, late: float, pools: list[float]) -> None:
        """
        Note what a loop that runs says.

        Args:
            loop: the loop, on whose thread this is called.
            at: when, by `time.monotonic`.
            late: how many seconds later than asked.
            pools: the numbers of its pools.
        """
        with self._lock:
            self._pulse[0] = at
            self._lag[bisect_left(catalog.LAG_BUCKETS, late)] += 1
            self._lag[-1] += late
            self._loops[loop] = pools
            self._add_pools()

    def _add_pools(self) -> None:
        sums = self._own(Kind.POOLS)
        for loop, pools in self._loops.items():
            if pools and not loop.is_closed():
                sums = list(map(add, sums, pools))
        for place, number in enumerate(sums):
            self._pools[place] = number

    def join(self, group: Group) -> None:
        """Count where the other workers of a group read it, from now on."""
        with self._lock:
            if group is self._group:
                return
            self._group, self._has_pulse = group, False
            # What the worker before has left is to be shown whether or not a loop runs here, too.
            if self._is_begun or any(group.ledger.kept(Kind.LOOP_LAG)):
                self._share()

    def forked(self) -> None:
        """Begin anew in a child process: what its parent has counted is its parent's."""
        self._group = None
        self._begin()

    def _share(self) -> None:
        self._is_begun = self._has_pulse = True
        lag, pulse = self._lag, self._pulse[0]
        self._lag, self._pools, self._pulse = (self._cells(kind) for kind in _LENGTHS)
        for place, number in enumerate(lag):
            self._lag[place] += number
        # In the place of those of a worker that died.
        self._pulse[0] = pulse
        self._add_pools()

    def _cells(self, kind: Kind) -> Cells:
        return self._own(kind) if self._group is None else self._group.slots(kind, _KEY, _LENGTHS[kind])

    def families(self) -> Iterator[tuple[catalog.Metric, Metric]]:
        """Yield the families of all workers, those that there is anything to say of."""
        has_lag, lag, pools = self._said()
        late = [lag[-1]]
        for sibling in () if self._group is None else self._group.peek():
            its_lag, its_pools = _numbers(sibling, Kind.LOOP_LAG), _numbers(sibling, Kind.POOLS)
            if its_lag is not None:
                has_lag, lag = True, list(map(add, lag, its_lag))
                late.append(its_lag[-1])
            if its_pools is not None:
                pools = list(map(add, pools, its_pools))
        if has_lag:
            yield catalog.EVENT_LOOP_LAG, _histogram([*lag[:-1], total_of(late)])
        for place, family in enumerate(_GAUGES):
            gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for pool, (*numbers, size) in zip(POOLS, _by_pool(pools), strict=True):
                if size:
                    gauge.add_metric((pool,), (*numbers, size)[place])
            if gauge.samples:
                yield family, gauge

    def shown(self) -> list[catalog.Metric]:
        """Return the families that this process has something to say of."""
        has_lag, _, pools = self._said()
        return [*[catalog.EVENT_LOOP_LAG] * has_lag, *(_GAUGES if any(pools) else ())]

    def pulses(self) -> dict[int, float]:
        """
        Return when each living worker was last seen to go on, by `time.monotonic`, and by the worker's pid.

        That is when its event loop ran, or `beat` was called. It is 0 for a worker whose loop hasn't begun to serve; of
        several loops in one process it is that of the one that ran last. Where there is no group, there is this process
        alone. Any thread may ask: it costs as much as reading the others' ledgers for a scrape, and waits for no event
        loop.
        """
        found = {os.getpid(): float(self._pulse[0])}
        for sibling in () if self._group is None else self._group.others():
            if sibling.is_living:
                pulse = _numbers(sibling, Kind.PULSE)
                found[sibling.owner] = 0.0 if pulse is None else pulse[0]
        return found

    def _said(self) -> tuple[bool, list[float], list[float]]:
        with self._lock:
            self._add_pools()
            return self._is_begun, list(self._lag), list(self._pools)


def _numbers(sibling: Sibling, kind: Kind) -> memoryview[float] | None:
    entry = sibling.find(kind, _KEY, _LENGTHS[kind])
    return None if entry is None else sibling.part(entry)


def _by_pool(numbers: list[float]) -> Iterator[list[float]]:
    for start in range(0, len(numbers), len(NO_POOL)):
        yield numbers[start : start + len(NO_POOL)]


def _histogram(cells: list[float]) -> Metric:
    family, (*counts, total) = catalog.EVENT_LOOP_LAG, cells
    ends = (*map(floatToGoString, catalog.LAG_BUCKETS), "+Inf")
    histogram = HistogramMetricFamily(family.name, family.help)
    histogram.add_metric((), list(zip(ends, accumulate(counts), strict=True)), total)
    return histogram


runtime = Runtime()
