"""
Where requests are counted: one storage per prometheus_client registry, one shard of it per application and thread.

Only its own thread counts in a shard, so no increment is lost and none waits, with or without a global interpreter
lock. A scrape adds the shards up. What a thread counted stays when it ends.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from scaleobs import catalog
from scaleobs.metrics.sparse import Sparse

Labels = tuple[str, str, str]
"""Method, route and status code."""

OVERFLOW_ROUTE = "_overflow"
DEFAULT_LABEL_SETS = 2000

_LOOKS = 100


class Exemplar(NamedTuple):
    """The trace of one request, to be found again from the bucket it fell into."""

    trace_id: str
    span_id: str
    value: float
    timestamp: float


class Series:
    """
    What one label set has counted.

    Attributes:
        labels: method, route and status code.
        bounds: the upper bounds of the buckets, in seconds, without `+Inf`.
        cells: the requests in each bucket, `+Inf` last, not cumulated; then the sum of their seconds.
        exemplars: the latest one of each bucket, by the bucket's position.
        sparse: the native histogram, where these are on.
    """

    __slots__ = ("bounds", "cells", "exemplars", "labels", "sparse")

    def __init__(self, labels: Labels, bounds: tuple[float, ...], *, is_native: bool = False) -> None:
        self.labels = labels
        self.bounds = bounds
        self.cells: list[float] = [0] * (len(bounds) + 2)
        self.exemplars: dict[int, Exemplar] = {}
        self.sparse = Sparse() if is_native else None

    def observe(self, seconds: float) -> None:
        """Count a request."""
        self.cells[bisect_left(self.bounds, seconds)] += 1
        self.cells[-1] += seconds
        if self.sparse is not None:
            self.sparse.observe(seconds)

    def add(self, other: Series) -> None:
        """Add what another series with the same labels has counted; where its bounds differ, by their upper ends."""
        theirs = list(other.cells)
        if self.bounds == other.bounds:
            self.cells = [mine + their for mine, their in zip(self.cells, theirs, strict=True)]
        else:
            for bound, count in zip((*other.bounds, float("inf")), theirs, strict=False):
                self.cells[bisect_left(self.bounds, bound)] += count
            self.cells[-1] += theirs[-1]
        for exemplar in list(other.exemplars.values()):
            bucket = bisect_left(self.bounds, exemplar.value)
            known = self.exemplars.get(bucket)
            if known is None or known.timestamp < exemplar.timestamp:
                self.exemplars[bucket] = exemplar
        if other.sparse is not None:
            self.sparse = self.sparse or Sparse()
            self.sparse.add(other.sparse)


class Shard:
    """
    What one thread counts, and what it remembers to find a series quickly.

    Attributes:
        opened: HTTP requests begun here; how many are open is what all shards opened, less what they have counted.
        websockets: WebSockets opened here less those closed here.
        series: by labels.
        request_sizes: by labels, where sizes are measured, like the next.
        response_sizes: by labels.
        found: by what a request brings, such as its method, endpoint and status; see `exchange`.
    """

    __slots__ = ("found", "opened", "request_sizes", "response_sizes", "series", "storage", "websockets")

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.opened = 0
        self.websockets = 0
        self.series: dict[Labels, Series] = {}
        self.request_sizes: dict[Labels, Series] = {}
        self.response_sizes: dict[Labels, Series] = {}
        self.found: dict[object, Series] = {}

    def series_of(self, labels: Labels) -> Series:
        """Return the series of a label set, or past the limit the overflow series of its status class."""
        series = self.series.get(labels)
        if series is None:
            labels = self.storage.admitted(labels)
            series = self.series.get(labels)
        if series is None:
            is_native = self.storage.is_kept_native(labels)
            series = self.series[labels] = Series(labels, self.storage.bounds, is_native=is_native)
        return series

    def measure(self, labels: Labels, request_bytes: int, response_bytes: int) -> None:
        """Count the sizes of a request and its response, under the labels of a series of this shard."""
        for series, size in ((self.request_sizes, request_bytes), (self.response_sizes, response_bytes)):
            if labels not in series:
                series[labels] = Series(labels, catalog.SIZE_BUCKETS)
            series[labels].observe(size)

    def add(self, other: Shard) -> None:
        """Add what another shard has counted."""
        self.opened += other.opened
        self.websockets += other.websockets
        _add_all(self.series, other.series)
        _add_all(self.request_sizes, other.request_sizes)
        _add_all(self.response_sizes, other.response_sizes)


def _add_all(mine: dict[Labels, Series], theirs: dict[Labels, Series]) -> None:
    for labels, series in theirs.copy().items():
        if labels not in mine:
            mine[labels] = Series(labels, series.bounds, is_native=series.sparse is not None)
        mine[labels].add(series)


class Here(threading.local):
    """
    Where one application counts: its `shard` is that of the thread that asks.

    Each application has its own, since what one of them remembers of its routes means nothing to another.
    """

    def __init__(self, storage: Storage) -> None:
        # A thread's locals go when it ends, and this token with them: that is how the storage learns of it.
        self.token = _Token()
        self.shard = storage.new_shard(self.token)


class _Token:
    __slots__ = ("__weakref__",)


class Source(Protocol):
    """A service as the metrics see it."""

    def info(self) -> tuple[str, ...]:
        """Return the label values of `service_info`."""
        ...

    def is_served(self) -> bool:
        """Return whether a server has begun to serve it."""
        ...

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200."""
        ...

    def known_routes(self) -> Iterable[tuple[str, str]]:
        """Return every method and route template that it can answer."""
        ...


class Abandoned(Protocol):
    """A request that nobody ended before it was collected."""

    def collected(self) -> None:
        """End it, outside the finalizer."""
        ...


class Counts(NamedTuple):
    """All counts at one moment. `unborn` are label sets of `http_requests_total` that have not counted yet."""

    series: list[Series]
    request_sizes: list[Series]
    response_sizes: list[Series]
    unborn: list[Labels]
    active: dict[str, float]
    faults: int
    dropped: int


class Storage:
    """
    The counts of every request.

    Attributes:
        bounds: the bucket boundaries of new label sets.
        is_native: whether new label sets keep a native histogram beside the classic one.
        has_sizes: whether bodies are measured.
        limit: how many label sets there may be; further ones are counted in four overflow series.
        wants_exemplars: whether somebody scrapes a format that has them.
        keeps_exemplars: whether there are traces as well.
        wants_more: whether a request has more to count than its bucket.
        plain: whether a request is counted and nothing more; the next one finds out again where this is not so.
        here: where to count what belongs to no application.
    """

    def __init__(self) -> None:
        self.is_native = False
        self.has_sizes = False
        self.wants_exemplars = False
        self.keeps_exemplars = False
        self.wants_more = False
        self.plain = [False]
        self.limit = DEFAULT_LABEL_SETS
        self.bounds: tuple[float, ...] = catalog.DEFAULT_BUCKETS
        self.sources: weakref.WeakSet[Source] = weakref.WeakSet()
        # A finalizer may run while this very thread holds the lock, so it takes none: it leaves word here.
        self.abandoned: deque[Abandoned] = deque()
        self._lock = threading.Lock()
        self._label_sets: dict[Labels, bool] = {}
        self._faults = 0
        self._looks = 0
        self._dropped = 0
        self._shards: list[tuple[weakref.ref[_Token], Shard]] = []
        self._ended = Shard(self)
        self.here = Here(self)

    def new_shard(self, token: _Token) -> Shard:
        """Return a shard that counts until its thread's token goes."""
        shard = Shard(self)
        with self._lock:
            self._fold_ended()
            self._shards.append((weakref.ref(token), shard))
        return shard

    def widen(self, *, bounds: Iterable[float], limit: int, is_native: bool, has_sizes: bool) -> None:
        """
        Give a service what it asks for beside what others on the same registry have asked for.

        Args:
            bounds: bucket boundaries of the label sets that are seen from now on.
            limit: how many label sets there may be.
            is_native: keep native histograms from now on.
            has_sizes: measure bodies from now on.
        """
        with self._lock:
            self.bounds = tuple(sorted({*self.bounds, *map(float, bounds)}))
            self.limit = max(limit, self.limit) if self.sources else limit
            self.is_native = self.is_native or is_native
            self.has_sizes = self.has_sizes or has_sizes
            self.wants_more = self.wants_more or is_native or has_sizes

    def want_exemplars(self) -> None:
        """Note a scrape in a format that has exemplars: the next request shows whether there are traces to tell of."""
        if not self.keeps_exemplars:
            self.wants_exemplars = True
            self._looks = 0
            self.look_again()

    def has_looked(self) -> bool:
        """Return whether requests have nothing more to count; many have to show no trace where a scrape wants some."""
        if self.wants_exemplars and not self.keeps_exemplars:
            self._looks += 1
        return not self.wants_more and not 0 < self._looks < _LOOKS

    def keep_exemplars(self) -> None:
        """Keep the latest exemplar of each bucket from now on."""
        self.keeps_exemplars = self.wants_more = True

    def look_again(self) -> None:
        """Have the next request find out again what all of them want."""
        self.plain[0] = False

    def forget_found(self) -> None:
        """Have every thread look for its series anew."""
        with self._lock:
            for _, shard in self._shards:
                shard.found = {}

    def admitted(self, labels: Labels) -> Labels:
        """Return the labels to count a new label set under: its own, or those of the overflow past the limit."""
        with self._lock:
            if labels in self._label_sets:
                return labels
            if len(self._label_sets) < self.limit:
                self._label_sets[labels] = self.is_native
                return labels
            self._dropped += 1
        # There are four, so that whatever is no status of a finished answer goes with the failures.
        status = f"{labels[2][0]}00" if labels[2][0] in "234" else "500"
        return (catalog.OTHER_METHOD, OVERFLOW_ROUTE, status)

    def is_kept_native(self, labels: Labels) -> bool:
        """Return whether a label set keeps a native histogram: all of it, in every thread, or none."""
        return self._label_sets.get(labels, self.is_native)

    def fault(self) -> None:
        """Count a fault of scaleobs itself."""
        with self._lock:
            self._faults += 1

    def settle(self) -> None:
        """End what was abandoned."""
        while True:
            try:
                abandoned = self.abandoned.popleft()
            except IndexError:
                return
            abandoned.collected()

    def read(self) -> Counts:
        """Return all counts."""
        self.settle()
        with self._lock:
            self._fold_ended()
            # Ends are read before beginnings, so that a request that ends meanwhile can't make the difference negative.
            shards = [self._ended, *(shard for _, shard in self._shards)]
            counted = self._summed([shard for shard in shards if shard.series])
            series = list(counted.series.values())
            closed = sum(sum(one.cells[:-1]) for one in series)
            opened = sum(shard.opened for shard in shards)
            websockets = sum(shard.websockets for shard in shards)
            faults, dropped = self._faults, self._dropped
        active = {"http": opened - closed, "websocket": websockets}
        return Counts(
            series,
            list(counted.request_sizes.values()),
            list(counted.response_sizes.values()),
            self._unborn(series),
            active,
            faults,
            dropped,
        )

    def _fold_ended(self) -> None:
        living = []
        for token, shard in self._shards:
            if token() is None:
                self._ended.add(shard)
            else:
                living.append((token, shard))
        self._shards = living

    def _summed(self, shards: list[Shard]) -> Shard:
        if len(shards) == 1:
            return shards[0]
        total = Shard(self)
        for shard in shards:
            total.add(shard)
        return total

    def _unborn(self, series: list[Series]) -> list[Labels]:
        known = {pair for source in list(self.sources) for pair in source.known_routes()}
        if not known:
            return []
        born = {one.labels for one in series}
        labels = [(method, route, status) for method, route in sorted(known) for status in ("500", "503")]
        return [one for one in labels if one not in born]
