"""What one thread counts, and what it remembers to count quickly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scaleobs import catalog
from scaleobs.group.kinds import Kind
from scaleobs.metrics.series import DURATION, HISTOGRAMS, REQUEST_SIZE, RESPONSE_SIZE, Cells, Labels, Series

if TYPE_CHECKING:
    from scaleobs.metrics.storage import Storage

HTTP, WEBSOCKET = range(2)
"""The places in `Shard.open`."""


class Shard:
    """
    What one thread counts, and what it remembers to find a series quickly.

    Attributes:
        number: which one of its storage it is.
        open: the HTTP requests begun here, of which those are open that aren't counted yet; the WebSockets opened here
            less those closed here.
        families: the series of each of `HISTOGRAMS`, by labels.
        series: those of `DURATION`.
        found: series by what a request brings, such as its method, endpoint and status; see `Recorder`.
    """

    __slots__ = ("_storage", "families", "found", "number", "open", "series")

    def __init__(self, storage: Storage, number: int, cells: Cells) -> None:
        self._storage = storage
        self.number = number
        self.begin(cells)

    def begin(self, cells: Cells) -> None:
        """Count anew, what is open in these cells."""
        self.open = cells
        self.families: dict[Kind, dict[Labels, Series]] = {kind: {} for kind in HISTOGRAMS}
        self.series = self.families[DURATION]
        self.found: dict[object, Any] = {}

    def series_of(self, labels: Labels) -> Series:
        """Return the series of a label set, or past the limit the overflow series of its status class."""
        series = self.series.get(labels)
        if series is None:
            labels = self._storage.admitted(labels)
            series = self.series.get(labels)
        if series is None:
            series = self._storage.new_series(DURATION, self.number, labels, self._storage.bounds)
            self.series[labels] = series
        return series

    def measure(self, labels: Labels, request_bytes: int, response_bytes: int) -> None:
        """Count the sizes of a request and its response, under the labels of a series of this shard."""
        for kind, size in ((REQUEST_SIZE, request_bytes), (RESPONSE_SIZE, response_bytes)):
            family = self.families[kind]
            if labels not in family:
                family[labels] = self._storage.new_series(kind, self.number, labels, catalog.SIZE_BUCKETS)
            family[labels].observe(size)


class Token:
    """What a thread holds as long as it lives."""

    __slots__ = ("__weakref__",)


class Here(threading.local):
    """
    Where one application counts: its `shard` is that of the thread that asks.

    Each application has its own, since what one of them remembers of its routes means nothing to another.

    Args:
        new_shard: returns a shard to the holder of a token.
    """

    def __init__(self, new_shard: Callable[[Token], Shard]) -> None:
        # A thread's locals go when it ends, and this token with them: that is how the storage learns of it.
        self.token = Token()
        self.shard = new_shard(self.token)
