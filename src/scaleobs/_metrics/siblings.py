"""The counts of siblings: the entries of one storage in their ledgers."""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from scaleobs._metrics.child import DURATION, HISTOGRAMS, SOCKET_DURATION, Exemplar, Labels, Slots, exemplars_of
from scaleobs._metrics.native import Snapshot
from scaleobs._workers import Group, Sibling
from scaleobs._workers.kinds import Kind
from scaleobs._workers.ledger import Entry

_KINDS = (*HISTOGRAMS, Kind.EXEMPLARS, Kind.NATIVE, Kind.OPEN, Kind.TALLY, Kind.LINES)

_NO_LABELS = ("", "", "")

Bounds = tuple[float, ...]


class Key(NamedTuple):
    """
    The key of an entry of ours in a ledger.

    The shard comes before the labels, so that the rest of the key is the same in all shards and can be cached.
    """

    storage: int
    shard: int
    labels: Labels = _NO_LABELS
    bounds: Bounds = ()

    def packed(self) -> bytes:
        """Return the key as bytes."""
        return b"%d %d %b" % (self.storage, self.shard, json.dumps([self.labels, self.bounds]).encode())

    @classmethod
    def unpacked(cls, key: bytes) -> Key:
        """Return the key in these bytes; raises `ValueError` or `TypeError` if they are malformed."""
        storage, shard, rest = key.split(b" ", 2)
        return cls(int(storage), int(shard), *_unpacked(rest))


@lru_cache(maxsize=8192)
def _unpacked(rest: bytes) -> tuple[Labels, Bounds]:
    (method, route, status), bounds = json.loads(rest)
    return (str(method), str(route), str(status)), tuple(map(float, bounds))


class ChildMemory:
    """The memory of one child, or of one thread, in this worker's ledger."""

    __slots__ = ("_group", "_key")

    def __init__(self, group: Group, key: Key) -> None:
        self._group = group
        self._key = key.packed()

    def slots(self, kind: Kind, length: int) -> Slots:
        """Return the numbers of one kind: those in the ledger, or new ones, which are 0."""
        return self._group.slots(kind, self._key, length)


class LabelSetIndex:
    """
    The position of each label set in a column of numbers; it never changes. Thread-safe.

    Attributes:
        labels: the label sets by their position.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[Labels, int] = {}
        self.labels: list[Labels] = []

    def position(self, labels: Labels) -> int:
        """Return the position of a label set; a new one is the last."""
        position = self._positions.get(labels)
        if position is None:
            with self._lock:
                position = self._positions.get(labels, len(self.labels))
                if position == len(self.labels):
                    self.labels.append(labels)
                    self._positions[labels] = position
        return position


class RowLayout:
    """The children of one thread, of one kind with the same bounds: their positions in a column and in the ledger."""

    __slots__ = ("_end", "_format", "_struct", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._format = "="
        self._end = 0
        self._struct: struct.Struct | None = None

    def add(self, position: int, entry: Entry) -> None:
        """Add a child; in the ledger, it is behind the ones before."""
        self.positions.append(position)
        self._format += f"{entry.start * 8 - self._end}x{(entry.end - entry.start) * 8}s"
        self._end = entry.end * 8
        self._struct = None

    def reader(self) -> struct.Struct:
        """Return a `Struct` that reads the slots of each child, in the order of the ledger."""
        if self._struct is None:
            self._struct = struct.Struct(self._format)
        return self._struct


class SiblingSnapshot(NamedTuple):
    """The numbers of one storage in a sibling, at one moment."""

    is_living: bool
    data: bytes
    children: list[tuple[Kind, Bounds, list[int], struct.Struct]]
    ranges: dict[Kind, list[tuple[Labels, int, int]]]

    def rows(self) -> Iterator[tuple[Kind, Bounds, list[int], tuple[bytes, ...]]]:
        """Yield the slots of all children of a thread as bytes, and their positions, by kind and bounds."""
        for kind, bounds, positions, reader in self.children:
            slots = reader.unpack_from(self.data)
            yield kind, bounds, positions[: len(slots)], slots  # Another thread may have added positions since.

    def exemplars(self) -> Iterator[tuple[Labels, dict[int, Exemplar]]]:
        """Yield each label set with exemplars, and these."""
        for labels, start, end in self.ranges[Kind.EXEMPLARS]:
            yield labels, exemplars_of(self.data[start * 8 : end * 8])

    def natives(self) -> Iterator[tuple[Labels, Snapshot]]:
        """Yield the native histograms."""
        for labels, start, end in self.ranges[Kind.NATIVE]:
            native = Snapshot.unpacked(list(struct.unpack_from(f"={end - start}d", self.data, start * 8)))
            if native is not None:
                yield labels, native

    def sums(self, kind: Kind, length: int) -> list[float]:
        """Return the sums over the threads, of `length` numbers of one kind."""
        reader = struct.Struct(f"={length}d")
        rows = [
            reader.unpack_from(self.data, start * 8) for _, start, end in self.ranges[kind] if end - start == length
        ]
        return [sum(column) for column in zip(*rows, strict=True)] or [0.0] * length

    def counted(self) -> float:
        """Return how many requests the sibling has counted."""
        counted = 0.0
        for kind, bounds, _, rows in self.rows():
            if kind == DURATION:
                numbers, width = array("d", b"".join(rows)), len(bounds) + 2
                counted += sum(sum(numbers[bucket::width]) for bucket in range(width - 1))
        return counted


class Index:
    """The positions of one storage's numbers in a sibling's ledger."""

    def __init__(self, storage: int, label_index: LabelSetIndex) -> None:
        self._storage = storage
        self._label_index = label_index
        self._lock = threading.Lock()
        # By shard, too: within a shard, a label set is unique.
        self._rows: dict[tuple[int, Kind, Bounds], RowLayout] = {}
        self._label_sets: list[Labels] = []
        self._ranges: dict[Kind, list[tuple[Labels, int, int]]] = {kind: [] for kind in _KINDS}

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add new entries of the ledger."""
        with self._lock:
            for kind in _KINDS:
                for entry in entries.get(kind, ()):
                    self._add(entry)

    def _add(self, entry: Entry) -> None:
        try:
            key = Key.unpacked(entry.key)
        except (ValueError, TypeError):  # A ledger may be damaged.
            return
        if key.storage != self._storage:
            return
        if entry.kind not in HISTOGRAMS:
            self._ranges[entry.kind].append((key.labels, entry.start, entry.end))
        elif entry.end - entry.start == len(key.bounds) + 2:
            rows = self._rows.setdefault((key.shard, entry.kind, key.bounds), RowLayout())
            rows.add(self._label_index.position(key.labels), entry)
            if entry.kind in {DURATION, SOCKET_DURATION}:
                self._label_sets.append(key.labels)

    def read(self, sibling: Sibling) -> SiblingSnapshot:
        """Return the numbers at this moment."""
        with self._lock:
            rows = [
                (kind, bounds, layout.positions, layout.reader()) for (_, kind, bounds), layout in self._rows.items()
            ]
            ranges = {kind: positions.copy() for kind, positions in self._ranges.items()}
        # The data is read after the index: it has all indexed entries, even if another thread adds some.
        return SiblingSnapshot(sibling.is_living, sibling.data, rows, ranges)

    def new_label_sets(self) -> list[Labels]:
        """Return the label sets that are new since the last call."""
        with self._lock:
            children, self._label_sets = self._label_sets, []
        return children


class SiblingStorage(NamedTuple):
    """One storage in the ledger of a sibling."""

    sibling: Sibling
    positions: Index
    key: bytes

    def read(self) -> SiblingSnapshot:
        """Return the numbers at this moment."""
        return self.positions.read(self.sibling)

    def request_exemplars(self, flag: float) -> None:
        """Raise the exemplar flag of the sibling; if it was lower, its next request leaves the fast path."""
        entry = self.sibling.find(Kind.FLAGS, self.key, 2)
        if entry is not None and self.sibling.read_slots(entry)[0] < flag:
            self.sibling.write(entry, flag, 0)


class Workers:
    """
    One storage in the ledgers of this worker and its siblings.

    Args:
        group: the workers.
        storage: the number of the storage.

    Attributes:
        label_index: the position of each label set in a column of numbers.
    """

    def __init__(self, group: Group, storage: int) -> None:
        self.group = group
        self._storage = storage
        self.label_index = LabelSetIndex()
        self._key = Key(storage, 0).packed()

    def memory(self, shard: int, labels: Labels = _NO_LABELS, bounds: Bounds = ()) -> ChildMemory:
        """Return the memory of one child of a shard; without labels, that of the shard's other numbers."""
        return ChildMemory(self.group, Key(self._storage, shard, labels, bounds))

    def inherited(self) -> Iterator[tuple[Kind, Key, Slots]]:
        """Yield the entries of the dead worker whose ledger this worker continues."""
        for kind, key, slots in self.group.ledger.entries(*_KINDS):
            try:
                unpacked = Key.unpacked(key)
            except (ValueError, TypeError):  # A ledger may be damaged.
                continue
            if unpacked.storage == self._storage:
                yield kind, unpacked, slots

    def others(self) -> list[SiblingStorage]:
        """Return the storage of each sibling, by its current ledger."""
        return [SiblingStorage(sibling, self._index(sibling), self._key) for sibling in self.group.siblings()]

    def can_be_read(self) -> bool:
        """Return whether this user may read the ledgers of all siblings; if not, their counts are missing."""
        self.group.peek()
        return self.group.is_complete

    def new_label_sets(self) -> Iterator[Labels]:
        """Yield the label sets of siblings that are new since the last call."""
        for sibling in self.group.peek():
            yield from self._index(sibling).new_label_sets()

    def _index(self, sibling: Sibling) -> Index:
        return sibling.view(self, lambda: Index(self._storage, self.label_index))
