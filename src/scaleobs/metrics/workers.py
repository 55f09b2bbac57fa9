"""One storage among those of the other workers: what it keeps for them in its ledger, and what they keep for it."""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from scaleobs.group import Group, Sibling
from scaleobs.group.kinds import Kind
from scaleobs.metrics.columns import Order, Rows
from scaleobs.metrics.series import DURATION, HISTOGRAMS, Cells, Exemplar, Labels, exemplars_of
from scaleobs.metrics.sparse import Snapshot

_KINDS = (*HISTOGRAMS, Kind.EXEMPLARS, Kind.NATIVE, Kind.OPEN, Kind.TALLY, Kind.LINES, Kind.FLAGS)

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


class Theirs:
    """Where another worker keeps what of a storage."""

    def __init__(self, other: Sibling, storage: int, order: Order) -> None:
        self._other = other
        self._storage = storage
        self._order = order
        self._seen = 0
        self._looking = threading.Lock()
        # By shard as well: a label set is in one of them once.
        self._rows: dict[tuple[int, Kind, Bounds], Rows] = {}
        self.label_sets: list[Labels] = []
        self._more: dict[Kind, list[tuple[Labels, int, int]]] = {kind: [] for kind in _KINDS}

    def read(self) -> Reading:
        """Return what is there now."""
        with self._looking:
            rows = [(kind, bounds, some.places, some.reader()) for (_, kind, bounds), some in self._rows.items()]
            more = {kind: places.copy() for kind, places in self._more.items()}
        # Another thread may look meanwhile: what is known of is in what is read after that.
        return Reading(self._other.is_living, self._other.data, rows, more)

    def look(self) -> None:
        """Take note of what is new in the ledger."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        entries = self._other.entries
        for entry in entries[self._seen :]:
            self._seen += 1
            if entry.kind not in _KINDS:
                continue
            try:
                key = Key.unpacked(entry.key)
            except (ValueError, TypeError):  # A ledger may be damaged.
                continue
            if key.storage != self._storage:
                continue
            if entry.kind in HISTOGRAMS and entry.end - entry.start == len(key.bounds) + 2:
                rows = self._rows.setdefault((key.shard, entry.kind, key.bounds), Rows())
                rows.add(self._order.place(key.labels), entry)
                if entry.kind == DURATION:
                    self.label_sets.append(key.labels)
            elif entry.kind in self._more:
                self._more[entry.kind].append((key.labels, entry.start, entry.end))

    def tell(self, *flags: float) -> None:
        """Change what it is told by a scrape."""
        for _, start, _ in self._more[Kind.FLAGS]:
            for place, flag in enumerate(flags):
                self._other.write(start + place, flag)


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
        self._theirs: dict[Path, Theirs] = {}

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
        return self._looked(self.group.others())

    def new_label_sets(self) -> Iterator[Labels]:
        """Yield label sets that the other workers have counted since this was called."""
        for theirs in self._looked(self.group.peek()):
            yield from theirs.label_sets
            theirs.label_sets = []

    def _looked(self, others: list[Sibling]) -> list[Theirs]:
        found = {}
        for other in others:
            theirs = self._theirs.get(other.path)
            if theirs is None or theirs._other is not other:  # noqa: SLF001 - It is its kind.
                theirs = Theirs(other, self._storage, self.order)
            theirs.look()
            found[other.path] = theirs
        self._theirs = found
        return list(found.values())
