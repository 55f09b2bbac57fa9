"""
The counts of requests: one storage per prometheus_client registry, one shard of it per application and thread.

Only one thread writes to a shard, so no increment is lost and none waits, with or without a global interpreter lock. A
scrape adds up the shards of all workers. A new thread continues the shard of a thread that has ended.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable

from scaleobs import _tracing, catalog
from scaleobs._metrics.child import (
    DURATION,
    HISTOGRAMS,
    HTTP,
    REQUEST_SIZE,
    RESPONSE_SIZE,
    SOCKET,
    SOCKET_DURATION,
    WEBSOCKET,
    Abandoned,
    Child,
    Counts,
    Labels,
    Shard,
    Slots,
    Source,
    ThreadShards,
    ThreadToken,
    collect_young,
)
from scaleobs._metrics.siblings import Key, LabelSetIndex, SiblingStorage, Workers
from scaleobs._metrics.totals import SiblingTotals, Totals
from scaleobs._workers import Group
from scaleobs._workers.kinds import Kind
from scaleobs.logs._sink import LINE_KINDS, count_lines_in

OVERFLOW_ROUTE = "_overflow"
DEFAULT_LABEL_SETS = 2000

_MAX_OWN_CODES = 20
"""The close codes from 4000 on that the applications themselves sent and that have series of their own."""

_FAULTS, _DROPPED = range(2)

_MAX_EXAMINED = 20
"""The requests after a scrape that are examined for a trace on the fast path; requests with a line are anyway."""

_REQUESTED, _TRACED = 1, 2
"""The values of a worker's exemplar flag: a scrape has requested exemplars; a request of some worker had a trace."""


class Storage:
    """
    The counts of every request.

    Attributes:
        number: the number of the storage in its process, the same in all workers.
        bounds: the bucket boundaries of new label sets.
        is_native: whether new label sets have a native histogram, too.
        has_sizes: whether bodies are measured.
        limit: the most label sets; further ones are counted in four overflow series.
        has_iterables: whether requests of WSGI are counted, which end when the server closes or drops their bodies.
        keeps_exemplars: whether a scrape has requested exemplars, and a request had a trace.
        needs_observe: whether a request has an exemplar, a native histogram or sizes.
        fast_path: whether a request is only counted, and logged if lines are on. If not, the next request checks again.
        unexamined: one element for each request that is still to be examined for a trace on the fast path.
        local: the calling thread's shard, for counts that belong to no application.
        workers: this worker and its siblings; `None` if the process belongs to no group.
        is_isolated: whether there are siblings whose counts cannot be added to these.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.is_native = False
        self.has_sizes = False
        self.keeps_exemplars = False
        self.needs_observe = False
        self.limit = DEFAULT_LABEL_SETS
        self.unexamined: list[None] = []
        self.bounds: tuple[float, ...] = catalog.DEFAULT_BUCKETS
        self.has_iterables = False
        self.sources: weakref.WeakSet[Source] = weakref.WeakSet()
        # A finalizer may run while its thread holds the lock, so it only appends to this queue.
        self.abandoned: deque[Abandoned] = deque()
        self._shards: list[tuple[weakref.ref[ThreadToken], Shard]] = []
        self._reset()
        self._lines: Slots = [0] * LINE_KINDS
        count_lines_in(self, self._lines)
        self.local = ThreadShards(self.new_shard)

    def _reset(self) -> None:
        self.workers: Workers | None = None
        self.is_isolated = False
        self._lock = threading.RLock()
        self._repairs = 0
        self._label_sets: dict[Labels, bool] = {}
        # Children of a dead worker with other buckets than the current ones.
        self._retired: list[tuple[Kind, Child]] = []
        self.fast_path: Slots = [0]
        self._exemplars: Slots = [0]
        self._tally: Slots = [0, 0]

    def join(self, group: Group | None) -> None:
        """
        Count in the ledger of this worker, which siblings read; `None`: in this process's memory. The counts move.

        Should be called before several threads count: what they count meanwhile may be lost.
        """
        before = [(shard, shard.open, shard.families) for _, shard in self._shards]
        tally, retired, requested = self._tally, self._retired, self._exemplars[0]
        self._reset()
        self.workers = None if group is None else Workers(group, self.number)
        for _, shard in self._shards:
            shard.reset(self._slots(Kind.OPEN, 2, shard.number))
        for kind, key, _ in self.workers.inherited() if self.workers else ():
            if kind in HISTOGRAMS:
                self._continue_child(kind, key)
        if self.workers is not None:  # The requests that were open when an earlier worker died are not open any more.
            self._close_all(self.workers)
        flags = self._slots(Kind.FLAGS, 2)
        flags[0], flags[1] = requested, 0
        self._exemplars, self.fast_path = (flags[:1], flags[1:]) if self.workers else ([requested], [0])
        self._tally = self._slots(Kind.TALLY, 2)
        for position, number in enumerate(tally):
            self._tally[position] += number
        self._lines = self._slots(Kind.LINES, LINE_KINDS)
        count_lines_in(self, self._lines, keep_counts=True)
        for shard, opened, families in before:
            shard.take(opened, families)
        for kind, child in retired:
            own = self.new_child(kind, 0, child.labels, child.bounds)
            own.take(child)
            if all(own.slots is not other.slots for _, other in self._retired):
                self._retired.append((kind, own))
        self._report_new_memory()

    def _slots(self, kind: Kind, length: int, shard: int = 0) -> Slots:
        return [0] * length if self.workers is None else self.workers.memory(shard).slots(kind, length)

    def _close_all(self, workers: Workers) -> None:
        """Set the begun requests of each shard to its counted ones, with any buckets, and close all WebSockets."""
        inherited = list(workers.inherited())
        opened = {key.shard: slots for kind, key, slots in inherited if kind == Kind.OPEN}
        for slots in opened.values():
            slots[HTTP] = slots[WEBSOCKET] = 0
        for kind, key, slots in inherited:
            if kind == DURATION and key.shard in opened:
                opened[key.shard][HTTP] += sum(slots[:-1])

    def forked(self) -> None:
        """Reset in a child process: the counts belong to the parent."""
        self._reset()
        self._lines = [0] * LINE_KINDS
        count_lines_in(self, self._lines)
        self.abandoned.clear()
        for _, shard in self._shards:
            shard.reset([0, 0])
        self._report_new_memory()

    def new_shard(self, token: ThreadToken) -> Shard:
        """Return a shard for a thread; it is free again when the token is collected."""
        with self._lock:
            free = next((position for position, (holder, _) in enumerate(self._shards) if holder() is None), None)
            shard = self._new_shard() if free is None else self._shards[free][1]
            shard.child_cache = {}
            self._shards[shard.number] = weakref.ref(token), shard
        return shard

    def new_child(self, kind: Kind, shard: int, labels: Labels, bounds: tuple[float, ...]) -> Child:
        """Return a child in this process's memory or ledger; it continues the counts there."""
        is_native = kind == DURATION and self._label_sets.get(labels, self.is_native)
        memory = None if self.workers is None else self.workers.memory(shard, labels, bounds)
        return Child(labels, bounds, memory, kind=kind, is_native=is_native)

    def _new_shard(self) -> Shard:
        shard = Shard(self, len(self._shards), self._slots(Kind.OPEN, 2, len(self._shards)))
        self._shards.append((weakref.ref(ThreadToken()), shard))
        return shard

    def _continue_child(self, kind: Kind, key: Key) -> None:
        while len(self._shards) <= key.shard:
            self._new_shard()
        if kind in {DURATION, SOCKET_DURATION}:
            self._label_sets[key.labels] = self.is_native
        child = self.new_child(kind, key.shard, key.labels, key.bounds)
        if key.bounds == self.bounds_of(kind):
            self._shards[key.shard][1].families[kind][key.labels] = child
        else:
            self._retired.append((kind, child))

    def bounds_of(self, kind: Kind) -> tuple[float, ...]:
        """Return the bucket boundaries of new label sets of a kind."""
        if kind == DURATION:
            return self.bounds
        return catalog.WEBSOCKET_BUCKETS if kind == SOCKET_DURATION else catalog.SIZE_BUCKETS

    def _report_new_memory(self) -> None:
        for source in list(self.sources):
            source.on_memory_changed()

    def merge_options(self, *, bounds: Iterable[float], limit: int, is_native: bool, has_sizes: bool) -> None:
        """
        Add the options of a service to those of other services on the same registry.

        Args:
            bounds: bucket boundaries of new label sets.
            limit: the most label sets.
            is_native: whether new label sets have native histograms.
            has_sizes: whether to measure bodies.
        """
        with self._lock:
            self.bounds = tuple(sorted({*self.bounds, *map(float, bounds)}))
            self.limit = max(limit, self.limit) if self.sources else limit
            self.is_native = self.is_native or is_native
            self.has_sizes = self.has_sizes or has_sizes
            self.needs_observe = self.needs_observe or is_native or has_sizes

    def request_exemplars(self) -> None:
        """
        Handle a scrape in a format that has exemplars: the next requests of this worker are examined for a trace.

        So is the next request of each sibling, unless a scrape has requested exemplars of it before.
        """
        if self.workers is not None:
            flag = _TRACED if self.keeps_exemplars else _REQUESTED
            for sibling in self.workers.others():
                sibling.request_exemplars(flag)
        if not self.keeps_exemplars:
            self._exemplars[0] = max(self._exemplars[0], _REQUESTED)
            try:
                has_provider = _tracing.is_configured()
            except Exception:  # OpenTelemetry cannot be loaded: the next request counts and logs the error.
                has_provider = True
            if has_provider:
                self.disable_fast_path()
            self.examine_next_requests()

    def examine_next_requests(self) -> None:
        """Examine the next requests on the fast path for a trace."""
        self.unexamined[:] = [None] * _MAX_EXAMINED

    def examine(self, traceparent: str) -> bool:
        """Return whether a request on the fast path has a trace, and count it as examined."""
        try:
            self.unexamined.pop()
        except IndexError:  # Another thread has examined the last one. `suppress` would double the cost.
            return False
        return bool(traceparent) and _tracing.parse_traceparent(traceparent) is not None

    @property
    def awaits_trace(self) -> bool:
        """Whether a scrape has requested exemplars, and no request had a trace since."""
        return bool(self._exemplars[0]) and not self.keeps_exemplars

    @property
    def traces_seen(self) -> bool:
        """Whether a request of any worker had a trace after exemplars were requested."""
        return bool(self._exemplars[0] == _TRACED)

    def enable_exemplars(self) -> None:
        """Keep the latest exemplar of each bucket; the next scrape enables this in the siblings, too."""
        self.keeps_exemplars = self.needs_observe = True
        self._exemplars[0] = _TRACED
        self.unexamined.clear()

    def disable_fast_path(self) -> None:
        """Make the next request leave the fast path, which checks again what requests need."""
        self.fast_path[0] = 0

    def clear_child_caches(self) -> None:
        """Clear the caches of all threads."""
        with self._lock:
            for _, shard in self._shards:
                shard.child_cache = {}

    def labels_or_overflow(self, labels: Labels) -> Labels:
        """Return the labels for a new label set: its own, or above the limit those of an overflow series."""
        if labels in self._label_sets:
            return labels
        self._add_label_sets_of_siblings()
        with self._lock:
            if labels in self._label_sets or len(self._label_sets) < self.limit:
                self._label_sets.setdefault(labels, self.is_native)
                return labels
            self._tally[_DROPPED] += 1
        if labels[0] == SOCKET:
            return (SOCKET, OVERFLOW_ROUTE, catalog.OTHER_CODE)
        # There are four overflow series; a status that is no final one is counted with the failures.
        status = f"{labels[2][0]}00" if labels[2][0] in "234" else "500"
        return (catalog.OTHER_METHOD, OVERFLOW_ROUTE, status)

    def admit_code(self, code: str) -> bool:
        """Return whether a close code from 4000 on that an application has sent gets series of its own."""
        self._add_label_sets_of_siblings()
        with self._lock:
            own = {labels[2] for labels in self._label_sets if labels[0] == SOCKET and labels[2][0] == "4"} - {"4xxx"}
        return code in own or len(own) < _MAX_OWN_CODES

    def _add_label_sets_of_siblings(self) -> None:
        # Without the lock: a fault while the ledgers of siblings are read takes the lock to count.
        counted_by_siblings = [] if self.workers is None else list(self.workers.new_label_sets())
        with self._lock:
            for labels in counted_by_siblings:
                self._label_sets.setdefault(labels, self.is_native)

    def fault(self) -> None:
        """Count a fault of scaleobs itself."""
        with self._lock:
            self._tally[_FAULTS] += 1

    def finish_abandoned(self) -> None:
        """End all abandoned requests and WebSockets."""
        while True:
            try:
                abandoned = self.abandoned.popleft()
            except IndexError:
                return
            abandoned.finish_abandoned()

    def begun_and_ended(self) -> tuple[float, float]:
        """Return how many requests this process has begun and ended, with those of earlier workers in its ledger."""
        with self._lock:
            shards = [shard for _, shard in self._shards]
        ended = sum(sum(child.slots[:-1]) for shard in shards for child in list(shard.children.values()))
        return sum(shard.open[HTTP] for shard in shards), ended

    def read(self) -> Counts:
        """Return all counts."""
        counts = self._read()
        if counts.active["http"] and self.has_iterables:
            collect_young()
        return self._read() if self.abandoned else counts

    def _read(self) -> Counts:
        self.finish_abandoned()
        others = [] if self.workers is None else self._read_siblings(self.workers)
        with self._lock:
            shards = [shard for _, shard in self._shards]
        # Ended requests are read before begun ones: a request that ends now cannot make the difference negative.
        families, counted, rest = self._families([one for one in shards if any(one.families.values())], others)
        children = list(families[DURATION].values())
        http, websockets = (sum(shard.open[position] for shard in shards) for position in (HTTP, WEBSOCKET))
        faults, dropped = self._tally
        *lines, lost = map(sum, zip(self._lines, *(sibling.lines for sibling in rest), strict=True))
        for sibling in rest:
            http, websockets = http + sibling.opened[HTTP], websockets + sibling.opened[WEBSOCKET]
            faults, dropped = faults + sibling.tally[_FAULTS], dropped + sibling.tally[_DROPPED]
        return Counts(
            children,
            list(families[REQUEST_SIZE].values()),
            list(families[RESPONSE_SIZE].values()),
            list(families[SOCKET_DURATION].values()),
            self._zero_children(children),
            {"http": max(0, http - counted), "websocket": websockets},
            faults + lost,
            dropped,
            tuple(lines),
            1 + sum(sibling.is_living for sibling in rest),
        )

    def _read_siblings(self, workers: Workers) -> list[SiblingStorage]:
        others = workers.others()
        with self._lock:
            if workers.group.repairs != self._repairs:
                # After a repair the numbers of begun and of counted requests would differ for ever.
                self._repairs = workers.group.repairs
                self._close_all(workers)
        return others

    def _families(
        self, shards: list[Shard], others: list[SiblingStorage]
    ) -> tuple[dict[Kind, dict[Labels, Child]], float, list[SiblingTotals]]:
        if len(shards) == 1 and self.workers is None:
            only = {kind: family.copy() for kind, family in shards[0].families.items()}
            return only, sum(sum(child.slots[:-1]) for child in only[DURATION].values()), []
        totals = Totals(self.bounds, LabelSetIndex() if self.workers is None else self.workers.label_index)
        for shard in shards:
            for kind, family in shard.families.items():
                totals.add_own(kind, family.copy().values())
        for kind, child in self._retired:
            totals.add_own(kind, [child])
        for sibling in others:
            totals.add_sibling(sibling)
        return totals.families(), totals.counted, totals.rest

    def _zero_children(self, children: list[Child]) -> list[Labels]:
        routes = {pair for source in list(self.sources) for pair in source.known_routes()}
        if not routes:
            return []
        counted = {one.labels for one in children}
        labels = [(method, route, status) for method, route in sorted(routes) for status in ("500", "503")]
        return [one for one in labels if one not in counted]
