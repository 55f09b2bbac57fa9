"""The counts of one label set, and the shard of a storage that holds them."""

from __future__ import annotations

import gc
import math
import struct
import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from scaleobs._health.check import LastRun
from scaleobs._metrics.native import SLOTS as NATIVE_SLOTS
from scaleobs._metrics.native import NativeHistogram
from scaleobs._workers.kinds import Kind

if TYPE_CHECKING:
    from scaleobs._metrics.siblings import ChildMemory
    from scaleobs._metrics.storage import Storage


Labels = tuple[str, str, str]
"""Method, route and status code; of a WebSocket, `SOCKET`, route and close code."""

SOCKET = "websocket"
"""Stands in place of a method in the labels of a WebSocket; no method has this name."""

Slots = Any
"""Numbers: a list, or shared memory that siblings read."""

DURATION, REQUEST_SIZE, RESPONSE_SIZE, SOCKET_DURATION = HISTOGRAMS = (
    *(Kind.DURATION, Kind.REQUEST_SIZE, Kind.RESPONSE_SIZE),
    Kind.WEBSOCKET,
)
"""The kinds of child that are histograms."""

_EXEMPLAR = struct.Struct("=16s8sddQ")


class Exemplar(NamedTuple):
    """The trace of one request, kept with the bucket that counted the request."""

    trace_id: str
    span_id: str
    value: float
    timestamp: float


class Child:
    """
    The counts of one label set.

    One thread writes; any thread may read.

    Args:
        labels: method, route and status code.
        bounds: the upper bounds of the buckets, in seconds, without `+Inf`.
        memory: this child's memory in a ledger; without it, the process's own memory.
        kind: one of `HISTOGRAMS`.
        is_native: whether to keep a native histogram, too.
        slots: counts to start with; replaces `memory`.

    Attributes:
        slots: the count of each bucket, `+Inf` last, not cumulated; then the sum of the values.
        exemplars: the latest exemplar of each bucket, by the bucket's position.
        native: the native histogram, if there is one.
        sum_at: the position of the sum in `slots`; an index of -1 costs twice as much.
    """

    __slots__ = ("_exemplar_memory", "_memory", "bounds", "exemplars", "labels", "native", "slots", "sum_at")

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
        self.sum_at = len(bounds) + 1
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
        self._exemplar_memory: memoryview | None = None

    def observe(self, seconds: float) -> None:
        """Count one value."""
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
        if self._exemplar_memory is None:
            slots = self._memory.slots(Kind.EXEMPLARS, _EXEMPLAR.size // 8 * (len(self.bounds) + 1))
            if isinstance(slots, list):  # The ledger is full.
                return
            self._exemplar_memory = slots.cast("B")
        fields = bytes.fromhex(exemplar.trace_id), bytes.fromhex(exemplar.span_id), exemplar.value, exemplar.timestamp
        packed = _EXEMPLAR.pack(*fields, zlib.crc32(_EXEMPLAR.pack(*fields, 0)))
        self._exemplar_memory[bucket * _EXEMPLAR.size : (bucket + 1) * _EXEMPLAR.size] = packed

    def take(self, other: Child) -> None:
        """Add the counts of another child with the same labels and bounds, into this child's memory."""
        for position, number in enumerate(other.slots):
            self.slots[position] += number
        for exemplar in list(other.exemplars.values()):
            self.set_exemplar(exemplar)
        if self.native is not None and other.native is not None:
            self.native.add(other.native.snapshot())

    def add(self, other: Child) -> None:
        """Add the counts of another child with the same labels, into new memory of this process."""
        self.add_slots(other.bounds, list(other.slots))
        self.add_exemplars(other.exemplars)
        if other.native is not None:
            self.native = self.native or NativeHistogram()
            self.native.add(other.native.snapshot())

    def add_slots(self, bounds: tuple[float, ...], slots: list[float]) -> None:
        """Add slots; if their bounds differ, each bucket goes by its upper bound."""
        if self.bounds == bounds:
            self.slots = list(map(add, self.slots, slots))
            return
        for bound, count in zip((*bounds, float("inf")), slots, strict=False):
            self.slots[bisect_left(self.bounds, bound)] += count
        self.slots[-1] += slots[-1]

    def add_exemplars(self, exemplars: dict[int, Exemplar]) -> None:
        """Keep those of these exemplars that are later than the ones of their buckets."""
        for exemplar in list(exemplars.values()):
            bucket = bisect_left(self.bounds, exemplar.value)
            previous = self.exemplars.get(bucket)
            if previous is None or previous.timestamp < exemplar.timestamp:
                self.exemplars[bucket] = exemplar


def total_of(parts: Sequence[float]) -> float:
    """
    Return the sum of numbers, rounded once, so that it does not depend on their order.

    The order depends on the worker that answers. With another rounding, a counter could fall between two scrapes.
    """
    try:
        return math.fsum(parts)
    except (ValueError, OverflowError):  # An infinity, or a sum above the largest number.
        return sum(parts)


def exemplars_of(data: bytes) -> dict[int, Exemplar]:
    """Return the exemplars that `Child.set_exemplar` has written, without one that is being written."""
    found = {}
    for bucket, (*fields, check) in enumerate(_EXEMPLAR.iter_unpack(data)):
        trace_id, span_id, value, timestamp = fields
        if timestamp and check == zlib.crc32(_EXEMPLAR.pack(*fields, 0)):
            found[bucket] = Exemplar(trace_id.hex(), span_id.hex(), value, timestamp)
    return found


HTTP, WEBSOCKET = range(2)
"""The positions in `Shard.open`."""


class Shard:
    """
    The children of one thread, and its cache to find them.

    Attributes:
        number: the number of the shard in its storage.
        open: the HTTP requests that this thread has begun, including ended ones; the WebSockets that it has opened,
            minus those that it has closed.
        families: the children of each of `HISTOGRAMS`, by labels.
        children: the children of `DURATION`.
        child_cache: children by method, endpoint and status of a request; see `Recorder`.
    """

    __slots__ = ("_storage", "child_cache", "children", "families", "number", "open")

    def __init__(self, storage: Storage, number: int, slots: Slots) -> None:
        self._storage = storage
        self.number = number
        self.reset(slots)

    def reset(self, slots: Slots) -> None:
        """Drop all children, and count open requests in these slots."""
        self.open = slots
        self.families: dict[Kind, dict[Labels, Child]] = {kind: {} for kind in HISTOGRAMS}
        self.children = self.families[DURATION]
        self.child_cache: dict[object, Any] = {}

    def take(self, opened: Slots, families: dict[Kind, dict[Labels, Child]]) -> None:
        """Add the counts that this shard had before it was reset."""
        for position, number in enumerate(opened):
            self.open[position] += number
        for kind, family in families.items():
            for child in family.values():
                own = self.families[kind].get(child.labels)
                if own is None:
                    own = self._storage.new_child(kind, self.number, child.labels, child.bounds)
                    self.families[kind][child.labels] = own
                own.take(child)

    def child_of(self, labels: Labels, kind: Kind = DURATION) -> Child:
        """Return the child of a label set; above the limit, an overflow child."""
        family = self.families[kind]
        child = family.get(labels)
        if child is None:
            labels = self._storage.labels_or_overflow(labels)
            child = family.get(labels)
        if child is None:
            child = self._storage.new_child(kind, self.number, labels, self._storage.bounds_of(kind))
            family[labels] = child
        return child

    def measure(self, labels: Labels, request_bytes: int, response_bytes: int) -> None:
        """Count the sizes of a request and its response, under the labels of a child of this shard."""
        for kind, size in ((REQUEST_SIZE, request_bytes), (RESPONSE_SIZE, response_bytes)):
            family = self.families[kind]
            if labels not in family:
                family[labels] = self._storage.new_child(kind, self.number, labels, self._storage.bounds_of(kind))
            family[labels].observe(size)


class ThreadToken:
    """An object that lives as long as its thread."""

    __slots__ = ("__weakref__",)


class ThreadShards(threading.local):
    """
    The shards of one application: `shard` is that of the calling thread.

    Each application has its own shards, since a cache belongs to the routes of one application.

    Args:
        new_shard: returns a shard for a thread with this token.
    """

    def __init__(self, new_shard: Callable[[ThreadToken], Shard]) -> None:
        # The locals of a thread are collected when it ends, and so is this token: its shard is free then.
        self.token = ThreadToken()
        self.shard = new_shard(self.token)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Source:
    """
    The functions that the metrics call of one service.

    Attributes:
        info: returns the label values of `service_info`.
        is_served: returns whether a server serves the application.
        is_ready: returns whether the readiness probe would answer 200.
        last_runs: returns the result of the last run of each check; runs none.
        known_routes: returns all pairs of method and route template of the application.
        on_fault: counts and logs an error of scaleobs itself; never raises.
        on_memory_changed: called after the storage has moved to other memory.
        is_over: returns whether the application was shut down; it does not affect the values of others.
    """

    info: Callable[[], tuple[str, ...]]
    is_served: Callable[[], bool]
    is_ready: Callable[[], bool]
    last_runs: Callable[[], Iterable[LastRun]]
    known_routes: Callable[[], Iterable[tuple[str, str]]]
    on_fault: Callable[[Exception], None]
    on_memory_changed: Callable[[], None]
    is_over: Callable[[], bool] = lambda: False


_MAX_YOUNG = 50_000
"""How many young objects a scrape collects at most: a few milliseconds."""


def collect_young() -> None:
    """
    Collect the young garbage, which may hold a dropped response.

    Flask keeps the exception of a 404 in a circle with all frames of its request: a test client that drops the response
    without closing it leaves the request open until Python collects garbage, perhaps much later.
    """
    objects, collections, _ = gc.get_count()
    if objects + collections * gc.get_threshold()[0] < _MAX_YOUNG:
        gc.collect(1)


class Abandoned(Protocol):
    """A request or WebSocket that was collected before it ended."""

    def finish_abandoned(self) -> None:
        """End it; not called in a finalizer."""
        ...


class Counts(NamedTuple):
    """
    All counts at one moment.

    `sockets` are the closed WebSockets, by route and close code.
    `zero_children` are label sets of `http_requests_total` without a request. `lines` are log lines by level, in the
    order of the catalog.
    """

    children: list[Child]
    request_sizes: list[Child]
    response_sizes: list[Child]
    sockets: list[Child]
    zero_children: list[Labels]
    active: dict[str, float]
    faults: float
    dropped: float
    lines: tuple[float, ...]
    workers: int
