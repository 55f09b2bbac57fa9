"""One storage among those of the other workers: what it keeps for them in its ledger, and what they keep for it."""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from scaleobs.group import Group, Sibling
from scaleobs.group.entries import Entry
from scaleobs.group.kinds import Kind
from scaleobs.metrics.columns import Order, Rows
from scaleobs.metrics.series import DURATION, HISTOGRAMS, Cells, Exemplar, Labels, exemplars_of
from scaleobs.metrics.sparse import Snapshot

_KINDS = (*HISTOGRAMS, Kind.EXEMPLARS, Kind.NATIVE, Kind.OPEN, Kind.TALLY, Kind.LINES)

_NO_LABELS = ("", "", "")

Bounds = tuple[float, ...]


class Key(NamedTuple):
    """
    What numbers are called in a ledger.

    The shard, whose numbers are one thread's own, stands in front, so that what follows is the same in all of them.
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
        """Return the key that these bytes are; `ValueError` where they are none."""
        storage, shard, rest = key.split(b" ", 2)
        return cls(int(storage), int(shard), *_unpacked(rest))


@lru_cache(maxsize=8192)
def _unpacked(rest: bytes) -> tuple[Labels, Bounds]:
    (method, route, status), bounds = json.loads(rest)
    return (str(method), str(route), str(status)), tuple(map(float, bounds))


class Place:
    """Where the numbers of one series, or of one thread, are kept."""

    __slots__ = ("_group", "_key")

    def __init__(self, group: Group, key: Key) -> None:
        self._group = group
        self._key = key.packed()

    def cells(self, kind: Kind, length: int) -> Cells:
        """Return numbers of one kind: those that are there, or new ones, which are 0."""
        return self._group.slots(kind, self._key, length)


class Reading(NamedTuple):
    """What another worker keeps of a storage, at one moment."""

    is_living: bool
    data: bytes
    found: list[tuple[Kind, Bounds, list[int], struct.Struct]]
    more: dict[Kind, list[tuple[Labels, int, int]]]

    def rows(self) -> Iterator[tuple[Kind, Bounds, list[int], tuple[bytes, ...]]]:
        """Yield the cells of all series of a thread as bytes, and their places, by kind and bounds."""
        for kind, bounds, places, reader in self.found:
            cells = reader.unpack_from(self.data)
            yield kind, bounds, places[: len(cells)], cells  # Another thread may have found more since.

    def exemplars(self) -> Iterator[tuple[Labels, dict[int, Exemplar]]]:
        """Yield the exemplars of each label set that has any."""
        for labels, start, end in self.more[Kind.EXEMPLARS]:
            yield labels, exemplars_of(self.data[start * 8 : end * 8])

    def natives(self) -> Iterator[tuple[Labels, Snapshot]]:
        """Yield the native histograms."""
        for labels, start, end in self.more[Kind.NATIVE]:
            native = Snapshot.unpacked(list(struct.unpack_from(f"={end - start}d", self.data, start * 8)))
            if native is not None:
                yield labels, native

    def sums(self, kind: Kind, length: int) -> list[float]:
        """Return the sums over its threads of so many numbers of a storage."""
        reader = struct.Struct(f"={length}d")
        rows = [reader.unpack_from(self.data, start * 8) for _, start, end in self.more[kind] if end - start == length]
        return [sum(column) for column in zip(*rows, strict=True)] or [0.0] * length

    def counted(self) -> float:
        """Return how many requests it has counted."""
        counted = 0.0
        for kind, bounds, _, rows in self.rows():
            if kind == DURATION:
                numbers, width = array("d", b"".join(rows)), len(bounds) + 2
                counted += sum(sum(numbers[bucket::width]) for bucket in range(width - 1))
        return counted


class Index:
    """Where a sibling keeps what of a storage."""

    def __init__(self, storage: int, order: Order) -> None:
        self._storage = storage
        self._order = order
        self._adding = threading.Lock()
        # By shard as well: a label set is in one of them once.
        self._rows: dict[tuple[int, Kind, Bounds], Rows] = {}
        self._label_sets: list[Labels] = []
        self._more: dict[Kind, list[tuple[Labels, int, int]]] = {kind: [] for kind in _KINDS}

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add what is new in the ledger."""
        with self._adding:
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
            self._more[entry.kind].append((key.labels, entry.start, entry.end))
        elif entry.end - entry.start == len(key.bounds) + 2:
            rows = self._rows.setdefault((key.shard, entry.kind, key.bounds), Rows())
            rows.add(self._order.place(key.labels), entry)
            if entry.kind == DURATION:
                self._label_sets.append(key.labels)

    def read(self, sibling: Sibling) -> Reading:
        """Return what is there now."""
        with self._adding:
            rows = [(kind, bounds, some.places, some.reader()) for (_, kind, bounds), some in self._rows.items()]
            more = {kind: places.copy() for kind, places in self._more.items()}
        # Another thread may add entries meanwhile; each that is indexed is in the data that is read afterwards.
        return Reading(sibling.is_living, sibling.data, rows, more)

    def new_label_sets(self) -> list[Labels]:
        """Return the label sets that it has counted since this was called."""
        with self._adding:
            found, self._label_sets = self._label_sets, []
        return found


class Theirs(NamedTuple):
    """What another worker keeps of a storage."""

    sibling: Sibling
    indexed: Index
    key: bytes

    def read(self) -> Reading:
        """Return what is there now."""
        return self.indexed.read(self.sibling)

    def request_exemplars(self, flag: float) -> None:
        """Raise the exemplar flag of the worker; if it was lower, the next request there leaves the fast path."""
        entry = self.sibling.find(Kind.FLAGS, self.key, 2)
        if entry is not None and self.sibling.part(entry)[0] < flag:
            self.sibling.write(entry, flag, 0)


class Workers:
    """
    This worker and the others, for one storage.

    Args:
        group: all that belongs together.
        storage: the number of the storage.

    Attributes:
        order: in which the label sets of all of them are added up.
    """

    def __init__(self, group: Group, storage: int) -> None:
        self.group = group
        self._storage = storage
        self.order = Order()
        self._key = Key(storage, 0).packed()

    def place(self, shard: int, labels: Labels = _NO_LABELS, bounds: Bounds = ()) -> Place:
        """Return where to keep the numbers of one series of a shard, or those that belong to none."""
        return Place(self.group, Key(self._storage, shard, labels, bounds))

    def left(self) -> Iterator[tuple[Kind, Key, Cells]]:
        """Yield what the worker has left of whom this one has taken over the ledger."""
        for kind, key, cells in self.group.ledger.kept(*_KINDS):
            try:
                unpacked = Key.unpacked(key)
            except (ValueError, TypeError):  # A ledger may be damaged.
                continue
            if unpacked.storage == self._storage:
                yield kind, unpacked, cells

    def others(self) -> list[Theirs]:
        """Return what the other workers keep, as it is now."""
        return [Theirs(sibling, self._index(sibling), self._key) for sibling in self.group.others()]

    def new_label_sets(self) -> Iterator[Labels]:
        """Yield label sets that the other workers have counted since this was called."""
        for sibling in self.group.peek():
            yield from self._index(sibling).new_label_sets()

    def _index(self, sibling: Sibling) -> Index:
        return sibling.view(self, lambda: Index(self._storage, self.order))
