"""What one label set has counted, in one shard of a storage."""

from __future__ import annotations

import math
import struct
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scaleobs import catalog
from scaleobs._health.check import LastRun
from scaleobs._metrics.native import SLOTS as NATIVE_SLOTS
from scaleobs._metrics.native import NativeHistogram
from scaleobs._workers.kinds import Kind

if TYPE_CHECKING:
    from scaleobs._metrics.siblings import ChildMemory
    from scaleobs._metrics.storage import Storage


Labels = tuple[str, str, str]
"""Method, route and status code."""

Slots = Any
"""Numbers: a list, or memory that other workers read."""

DURATION, REQUEST_SIZE, RESPONSE_SIZE = HISTOGRAMS = (Kind.DURATION, Kind.REQUEST_SIZE, Kind.RESPONSE_SIZE)
"""What the numbers of a series may be."""

_EXEMPLAR = struct.Struct("=16s8sddQ")


class Exemplar(NamedTuple):
    """The trace of one request, to be found again from the bucket it fell into."""

    trace_id: str
    span_id: str
    value: float
    timestamp: float


class Child:
    """
    What one label set has counted.

    Args:
        labels: method, route and status code.
        bounds: the upper bounds of the buckets, in seconds, without `+Inf`.
        memory: this child's memory in a ledger; the process's own memory if it is not given.
        kind: one of `HISTOGRAMS`.
        is_native: keep a native histogram as well.
        slots: what was counted already, by this process alone.

    Attributes:
        slots: the requests in each bucket, `+Inf` last, not cumulated; then the sum of their seconds.
        exemplars: the latest one of each bucket, by the bucket's position.
        native: the native histogram.
    """

    __slots__ = ("_memory", "_shown", "bounds", "exemplars", "labels", "native", "slots")

    def __init__(
        self,
        labels: Labels,
        bounds: tuple[float, ...],
        memory: ChildMemory | None = None,
        *,
        kind: Kind = DURATION,
        is_native: bool = False,
        slots: list[float] | None = None,
    ) -> None:
        self.labels = labels
        self.bounds = bounds
        if slots is not None:
            self.slots: Slots = slots
        else:
            length = len(bounds) + 2
            self.slots = [0] * length if memory is None else memory.slots(kind, length)
        self.exemplars: dict[int, Exemplar] = {}
        self.native: NativeHistogram | None = None
        if is_native:
            self.native = NativeHistogram(slots=None if memory is None else memory.slots(Kind.NATIVE, NATIVE_SLOTS))
        self._memory = memory
        self._shown: memoryview | None = None

    def observe(self, seconds: float) -> None:
        """Count a request."""
        self.slots[bisect_left(self.bounds, seconds)] += 1
        self.slots[-1] += seconds
        if self.native is not None:
            self.native.observe(seconds)

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Keep an exemplar as the latest one of its bucket."""
        bucket = bisect_left(self.bounds, exemplar.value)
        self.exemplars[bucket] = exemplar
        if self._memory is None:
            return
        if self._shown is None:
            slots = self._memory.slots(Kind.EXEMPLARS, _EXEMPLAR.size // 8 * (len(self.bounds) + 1))
            if isinstance(slots, list):  # There is no room.
                return
            self._shown = slots.cast("B")
        fields = bytes.fromhex(exemplar.trace_id), bytes.fromhex(exemplar.span_id), exemplar.value, exemplar.timestamp
        packed = _EXEMPLAR.pack(*fields, zlib.crc32(_EXEMPLAR.pack(*fields, 0)))
        self._shown[bucket * _EXEMPLAR.size : (bucket + 1) * _EXEMPLAR.size] = packed

    def add(self, other: Child) -> None:
        """Add, into new memory of this process, what another series with the same labels has counted."""
        self.add_slots(other.bounds, list(other.slots))
        self.add_exemplars(other.exemplars)
        if other.native is not None:
            self.native = self.native or NativeHistogram()
            self.native.add(other.native.snapshot())

    def add_slots(self, bounds: tuple[float, ...], slots: list[float]) -> None:
        """Add slots; if their bounds differ, by the upper ends of their buckets."""
        if self.bounds == bounds:
            self.slots = list(map(add, self.slots, slots))
            return
        for bound, count in zip((*bounds, float("inf")), slots, strict=False):
            self.slots[bisect_left(self.bounds, bound)] += count
        self.slots[-1] += slots[-1]

    def add_exemplars(self, exemplars: dict[int, Exemplar]) -> None:
        """Take over exemplars that are later than those that are here."""
        for exemplar in list(exemplars.values()):
            bucket = bisect_left(self.bounds, exemplar.value)
            previous = self.exemplars.get(bucket)
            if previous is None or previous.timestamp < exemplar.timestamp:
                self.exemplars[bucket] = exemplar


def total_of(parts: Sequence[float]) -> float:
    """
    Return the sum of what several have counted, rounded once, so that it doesn't depend on their order.

    A total that depended on which worker answers would seem to fall between two scrapes.
    """
    try:
        return math.fsum(parts)
    except (ValueError, OverflowError):  # An infinity, or what becomes one.
        return sum(parts)


def exemplars_of(data: bytes) -> dict[int, Exemplar]:
    """Return what `Child.set_exemplar` has written; one that is being written is left out."""
    found = {}
    for bucket, (*fields, check) in enumerate(_EXEMPLAR.iter_unpack(data)):
        trace_id, span_id, value, timestamp = fields
        if timestamp and check == zlib.crc32(_EXEMPLAR.pack(*fields, 0)):
            found[bucket] = Exemplar(trace_id.hex(), span_id.hex(), value, timestamp)
    return found


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
        children: those of `DURATION`.
        child_cache: series by what a request brings, such as its method, endpoint and status; see `Recorder`.
    """

    __slots__ = ("_storage", "child_cache", "children", "families", "number", "open")

    def __init__(self, storage: Storage, number: int, slots: Slots) -> None:
        self._storage = storage
        self.number = number
        self.begin(slots)

    def begin(self, slots: Slots) -> None:
        """Count anew, what is open in these slots."""
        self.open = slots
        self.families: dict[Kind, dict[Labels, Child]] = {kind: {} for kind in HISTOGRAMS}
        self.children = self.families[DURATION]
        self.child_cache: dict[object, Any] = {}

    def child_of(self, labels: Labels) -> Child:
        """Return the series of a label set, or past the limit the overflow series of its status class."""
        child = self.children.get(labels)
        if child is None:
            labels = self._storage.labels_or_overflow(labels)
            child = self.children.get(labels)
        if child is None:
            child = self._storage.new_child(DURATION, self.number, labels, self._storage.bounds)
            self.children[labels] = child
        return child

    def measure(self, labels: Labels, request_bytes: int, response_bytes: int) -> None:
        """Count the sizes of a request and its response, under the labels of a series of this shard."""
        for kind, size in ((REQUEST_SIZE, request_bytes), (RESPONSE_SIZE, response_bytes)):
            family = self.families[kind]
            if labels not in family:
                family[labels] = self._storage.new_child(kind, self.number, labels, catalog.SIZE_BUCKETS)
            family[labels].observe(size)


class ThreadToken:
    """What a thread holds as long as it lives."""

    __slots__ = ("__weakref__",)


class ThreadShards(threading.local):
    """
    The shards of one application: `shard` is that of the calling thread.

    Each application has its own, since what one of them remembers of its routes means nothing to another.

    Args:
        new_shard: returns a shard to the holder of a token.
    """

    def __init__(self, new_shard: Callable[[ThreadToken], Shard]) -> None:
        # A thread's locals go when it ends, and this token with them: that is how the storage learns of it.
        self.token = ThreadToken()
        self.shard = new_shard(self.token)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Source:
    """
    What the metrics read of a service, and what they report to it.

    Attributes:
        info: returns the label values of `service_info`.
        is_served: returns whether a server has begun to serve it.
        is_ready: returns whether the readiness probe would answer 200.
        last_runs: returns how the last run of each check went; runs none.
        known_routes: returns every method and route template that it can answer.
        on_fault: called with a fault of scaleobs itself, which it counts and logs; never raises.
        on_memory_changed: called when the storage counts in other memory than before.
    """

    info: Callable[[], tuple[str, ...]]
    is_served: Callable[[], bool]
    is_ready: Callable[[], bool]
    last_runs: Callable[[], Iterable[LastRun]]
    known_routes: Callable[[], Iterable[tuple[str, str]]]
    on_fault: Callable[[Exception], None]
    on_memory_changed: Callable[[], None]


class Abandoned(Protocol):
    """A request that nobody ended before it was collected."""

    def finish_abandoned(self) -> None:
        """End it, outside the finalizer."""
        ...


class Counts(NamedTuple):
    """
    All counts at one moment. `zero_children` are label sets of `http_requests_total` that have not counted yet.

    `lines` are log lines by level, in the order of the catalog.
    """

    children: list[Child]
    request_sizes: list[Child]
    response_sizes: list[Child]
    zero_children: list[Labels]
    active: dict[str, float]
    faults: float
    dropped: float
    lines: tuple[float, ...]
    workers: int
