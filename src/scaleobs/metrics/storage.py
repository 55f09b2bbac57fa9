"""Where requests are counted: one place per prometheus_client registry, shared by the applications that use it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from scaleobs import catalog

Labels = tuple[str, str, str]
"""Method, route and status code."""


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


class Series:
    """How many requests of one label set fell into each bucket, and how long they took together."""

    __slots__ = ("bounds", "counts", "total_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_seconds = 0.0


class Storage:
    """
    The counts of every request, exact under threads.

    Everything that changes or reads a count holds one lock, and nothing that can wait, log or call the
    application runs under it. A collected object's finalizer may run while this very thread holds the lock,
    so it must not take it: `abandoned` is where it leaves word instead.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bounds: tuple[float, ...] = catalog.DEFAULT_BUCKETS
        self._requests: dict[Labels, Series] = {}
        self._active = {"http": 0, "websocket": 0}
        self._faults = 0
        self.sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self.abandoned: deque[Abandoned] = deque()

    def add_bounds(self, bounds: Iterable[float]) -> None:
        """Make each bound a bucket boundary of the label sets that are seen from now on."""
        with self._lock:
            self._bounds = tuple(sorted({*self._bounds, *map(float, bounds)}))

    def opened(self, protocol: str) -> None:
        """Count a connection that is open now."""
        with self._lock:
            self._active[protocol] += 1

    def closed(self, protocol: str) -> None:
        """Count a connection that is open no more."""
        with self._lock:
            self._active[protocol] -= 1

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count a finished request."""
        with self._lock:
            series = self._requests.get(labels)
            if series is None:
                series = self._requests[labels] = Series(self._bounds)
            series.counts[bisect_left(series.bounds, seconds)] += 1
            series.total_seconds += seconds

    def fault(self) -> None:
        """Count a fault of scaleobs itself."""
        with self._lock:
            self._faults += 1

    def snapshot(self) -> Snapshot:
        """Return a consistent copy of all counts."""
        with contextlib.suppress(IndexError):  # Another scrape may take the last one.
            while True:
                self.abandoned.popleft().collected()
        with self._lock:
            requests = [(labels, s.bounds, tuple(s.counts), s.total_seconds) for labels, s in self._requests.items()]
            return Snapshot(requests, dict(self._active), self._faults)


class Abandoned(Protocol):
    """A request that nobody ended before it was collected."""

    def collected(self) -> None:
        """End it, outside the finalizer."""
        ...


class Snapshot:
    """All counts at one moment."""

    __slots__ = ("active", "faults", "requests")

    def __init__(
        self,
        requests: list[tuple[Labels, tuple[float, ...], tuple[int, ...], float]],
        active: dict[str, int],
        faults: int,
    ) -> None:
        self.requests = requests
        self.active = active
        self.faults = faults
