"""What siblings have counted: one storage's entries in their ledgers, and values of the user's metrics."""

from __future__ import annotations

import json
import math
import struct
import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from scaleobs._metrics import user_values
from scaleobs._metrics.child import DURATION, HISTOGRAMS, Exemplar, Labels, Slots, exemplars_of
from scaleobs._metrics.columns import LabelSetIndex, RowLayout
from scaleobs._metrics.native import Snapshot
from scaleobs._metrics.user_values import NOBODYS, TYPES
from scaleobs._workers import Group, Sibling
from scaleobs._workers.entries import Entry
from scaleobs._workers.kinds import Kind

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
        """Return the key in these bytes; raises `ValueError` if they hold none."""
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
        """Return numbers of one kind: those that are there, or new ones, which are 0."""
        return self._group.slots(kind, self._key, length)


class SiblingSnapshot(NamedTuple):
    """The numbers of one storage in a sibling, at one moment."""

    is_living: bool
    data: bytes
    found: list[tuple[Kind, Bounds, list[int], struct.Struct]]
    more: dict[Kind, list[tuple[Labels, int, int]]]

    def rows(self) -> Iterator[tuple[Kind, Bounds, list[int], tuple[bytes, ...]]]:
        """Yield the slots of all series of a thread as bytes, and their places, by kind and bounds."""
        for kind, bounds, positions, reader in self.found:
            slots = reader.unpack_from(self.data)
            yield kind, bounds, positions[: len(slots)], slots  # Another thread may have found more since.

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
    """The positions of one storage's numbers in a sibling's ledger."""

    def __init__(self, storage: int, order: LabelSetIndex) -> None:
        self._storage = storage
        self._order = order
        self._adding = threading.Lock()
        # By shard as well: a label set is in one of them once.
        self._rows: dict[tuple[int, Kind, Bounds], RowLayout] = {}
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
            rows = self._rows.setdefault((key.shard, entry.kind, key.bounds), RowLayout())
            rows.add(self._order.position(key.labels), entry)
            if entry.kind == DURATION:
                self._label_sets.append(key.labels)

    def read(self, sibling: Sibling) -> SiblingSnapshot:
        """Return what is there now."""
        with self._adding:
            rows = [(kind, bounds, some.positions, some.reader()) for (_, kind, bounds), some in self._rows.items()]
            more = {kind: positions.copy() for kind, positions in self._more.items()}
        # Another thread may add entries meanwhile; each that is indexed is in the data that is read afterwards.
        return SiblingSnapshot(sibling.is_living, sibling.data, rows, more)

    def new_label_sets(self) -> list[Labels]:
        """Return the label sets that it has counted since this was called."""
        with self._adding:
            found, self._label_sets = self._label_sets, []
        return found


class SiblingStorage(NamedTuple):
    """One storage in the ledger of a sibling."""

    sibling: Sibling
    indexed: Index
    key: bytes

    def read(self) -> SiblingSnapshot:
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
        self.order = LabelSetIndex()
        self._key = Key(storage, 0).packed()

    def memory(self, shard: int, labels: Labels = _NO_LABELS, bounds: Bounds = ()) -> ChildMemory:
        """Return the memory of one child of a shard, or of the shard's numbers that belong to no child."""
        return ChildMemory(self.group, Key(self._storage, shard, labels, bounds))

    def left(self) -> Iterator[tuple[Kind, Key, Slots]]:
        """Yield what the worker has left of whom this one has taken over the ledger."""
        for kind, key, slots in self.group.ledger.kept(*_KINDS):
            try:
                unpacked = Key.unpacked(key)
            except (ValueError, TypeError):  # A ledger may be damaged.
                continue
            if unpacked.storage == self._storage:
                yield kind, unpacked, slots

    def others(self) -> list[SiblingStorage]:
        """Return what the other workers keep, as it is now."""
        return [SiblingStorage(sibling, self._index(sibling), self._key) for sibling in self.group.others()]

    def new_label_sets(self) -> Iterator[Labels]:
        """Yield label sets that the other workers have counted since this was called."""
        for sibling in self.group.peek():
            yield from self._index(sibling).new_label_sets()

    def _index(self, sibling: Sibling) -> Index:
        return sibling.view(self, lambda: Index(self._storage, self.order))


UserLabels = frozenset[tuple[str, str]]
LabelPairs = tuple[tuple[str, str], ...]

_VALUE_SLOTS = 2
"""The number and its mark."""


class GaugeValue(NamedTuple):
    """The value of a gauge in one living worker."""

    worker: str
    value: float
    mark: float


class UserFamily:
    """
    What others have of one family.

    Attributes:
        key: of any of its numbers.
        parts: of everything that adds up: of the living and the dead, as long as it isn't cumulated.
        left: the same of the worker before this one, of what this one hasn't counted when the page was begun.
        gauges: of the living, by labels.
    """

    def __init__(self, key: UserKey) -> None:
        self.key = key
        self.parts: dict[UserKey, list[float]] = {}
        self.left: dict[UserKey, float] = {}
        self.gauges: dict[UserLabels, tuple[LabelPairs, list[GaugeValue]]] = {}


class UserKey:
    """What a number in a ledger is. The same bytes give the same object, so that it is found by identity."""

    __slots__ = ("bound", "bytes", "family", "help", "labels", "mode", "pairs", "sample", "type")

    def __init__(self, key: bytes) -> None:
        kind, family, sample, names, label_values, help_text, mode, _ = json.loads(key)
        pairs = tuple(zip(map(str, names), map(str, label_values), strict=True))
        self.bound = math.nan
        if kind == "histogram" and sample.endswith("_bucket"):
            *pairs_before, (_, bound) = pairs
            pairs, self.bound = tuple(pairs_before), float(bound)
        self.bytes, self.type, self.family, self.sample = key, str(kind), str(family), str(sample)
        self.help, self.mode, self.pairs, self.labels = str(help_text), str(mode), pairs, frozenset(pairs)


@lru_cache(maxsize=8192)
def _user_key(key: bytes) -> UserKey | None:
    try:
        found = UserKey(key)
    except (ValueError, TypeError, AttributeError):  # A ledger may be damaged.
        return None
    return found if found.type in TYPES else None


class _UserValues:
    """The positions of the user's values in a sibling's ledger."""

    def __init__(self) -> None:
        self.found: dict[bytes, tuple[UserKey, int]] = {}

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add what is new in the ledger."""
        for entry in entries.get(Kind.USER_VALUE, ()):
            key = _user_key(entry.key)
            if key is not None and entry.end - entry.start == _VALUE_SLOTS:
                self.found[entry.key] = key, entry.start


def held_by_siblings(registry: CollectorRegistry, group: Group) -> dict[tuple[str, str], UserFamily]:
    """
    Return the families that others have values of, by type and name: of the living, of the dead, and of the worker
    before in this one's ledger.

    Values of metrics that are another registry's in this process are left out.
    """
    families: dict[tuple[str, str], UserFamily] = {}
    foreign = user_values.foreign_to(registry)
    parts: dict[UserKey, list[float]] = defaultdict(list)
    for other in group.peek():
        # Another thread may find more meanwhile.
        positions, numbers = list(other.view(_UserValues, _UserValues).found.values()), other.numbers
        end, is_living, worker = len(numbers) - 1, other.is_living, other.path.stem
        for key, position in positions:
            if position >= end:  # Another thread is reading it.
                continue
            if key.type != "gauge":
                parts[key].append(numbers[position])
            elif is_living and numbers[position + 1] != NOBODYS and key.bytes not in foreign:
                gauges = _family_of(key, families).gauges
                gauges.setdefault(key.labels, (key.pairs, []))[1].append(
                    GaugeValue(worker, *numbers[position : position + _VALUE_SLOTS])
                )
    for key, number in _left_by_the_one_before(group):
        if key.bytes not in foreign:
            _family_of(key, families).left[key] = number
    for key, each in parts.items():
        if key.bytes not in foreign and not math.isnan(sum(each)):
            _family_of(key, families).parts[key] = each
    return families


def _left_by_the_one_before(group: Group) -> Iterator[tuple[UserKey, float]]:
    for _, packed, slots in group.ledger.kept(Kind.USER_VALUE):
        key = _user_key(packed) if not user_values.is_of_living(packed) else None
        if key is not None and key.type != "gauge" and len(slots) == _VALUE_SLOTS and not math.isnan(slots[0]):
            yield key, slots[0]


def _family_of(key: UserKey, families: dict[tuple[str, str], UserFamily]) -> UserFamily:
    name = key.type, key.family
    found = families.get(name)
    if found is None:
        found = families[name] = UserFamily(key)
    return found
