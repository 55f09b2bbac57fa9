"""The sums over threads and workers, column by column; the format of workers that cannot be added up."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from scaleobs._metrics.child import DURATION, HISTOGRAMS, Child, Labels, Slots, total_of
from scaleobs._metrics.native import NativeHistogram, Snapshot
from scaleobs._metrics.siblings import Bounds, LabelSetIndex, SiblingStorage
from scaleobs._metrics.text import Format
from scaleobs._workers.kinds import Kind
from scaleobs.logs._sink import LINE_KINDS

_MAX_COLUMNS = 8
"""The columns that are added up at once: more would take more memory than the page."""


class ColumnSum:
    """
    The sum of columns of one kind with the same bounds.

    Counts are whole numbers, so their sum does not depend on the order. Seconds are added at the end.

    Args:
        width: the slots of a child; the last one has its seconds.

    Attributes:
        counted: the sum of all counts; set by `rows`.
    """

    def __init__(self, width: int) -> None:
        self.counted = 0.0
        self._width = width
        self._present: set[int] = set()
        self._columns: list[array[float]] = []
        self._seconds: list[array[float]] = []

    def add(self, positions: list[int], rows: Iterable[bytes], length: int) -> None:
        """Add one column of `length` label sets; row i belongs at `positions[i]`."""
        column = [bytes(8 * self._width)] * length
        for position, row in zip(positions, rows, strict=True):
            column[position] = row
        self._present.update(positions)
        numbers = array("d", b"".join(column))
        self._seconds.append(numbers[self._width - 1 :: self._width])
        self._columns.append(numbers)
        if len(self._columns) == _MAX_COLUMNS:
            self._columns = [self._total()]

    def rows(self) -> Iterable[tuple[int, list[float]]]:
        """Yield the position and the slots of each child that was added."""
        # Whole numbers are written four times as fast as floats.
        width, numbers = self._width, list[float](map(int, self._total()))
        length = len(numbers) // width
        self.counted = sum(numbers) - sum(numbers[width - 1 :: width])
        numbers[width - 1 :: width] = map(
            total_of, zip(*(_padded(each, length) for each in self._seconds), strict=True)
        )
        for position in sorted(self._present):
            yield position, numbers[position * width : (position + 1) * width]

    def _total(self) -> array[float]:
        if len(self._columns) == 1:
            return self._columns[0]
        length = max(map(len, self._columns))
        return array("d", map(sum, zip(*(_padded(each, length) for each in self._columns), strict=True)))


def _padded(numbers: array[float], length: int) -> array[float]:
    """Return a column with zeros for the label sets that were added while the others were read."""
    return numbers if len(numbers) == length else numbers + array("d", bytes(8 * (length - len(numbers))))


class SiblingTotals(NamedTuple):
    """The counts of a sibling besides its children; all requests of a dead worker have ended."""

    is_living: bool
    opened: Sequence[float]
    tally: Sequence[float]
    lines: Sequence[float]


class Totals:
    """
    The sums of the children of each kind, by labels.

    Children of one kind with the same bounds are added up as columns: a column has the slots of all label sets of one
    thread, in the same order as any other column. No child is read on its own.

    Args:
        bounds: the bucket boundaries of the sums of `DURATION`; children may have other ones.
        label_index: the position of each label set in a column.

    Attributes:
        rest: the other counts of each sibling.
        counted: the number of requests; set by `families`.
    """

    def __init__(self, bounds: Bounds, label_index: LabelSetIndex) -> None:
        self._bounds = bounds
        self._label_index = label_index
        self.rest: list[SiblingTotals] = []
        self.counted = 0.0
        self._sums: dict[tuple[Kind, Bounds], ColumnSum] = {}
        # The children with an exemplar or a native histogram, without slots until `families`.
        self._detailed: dict[Labels, Child] = {}

    def add_own(self, kind: Kind, counted: Iterable[Child]) -> None:
        """Add the children of one kind of one thread of this process."""
        rows: dict[Bounds, tuple[list[int], list[bytes]]] = {}
        for child in counted:
            positions, slots = rows.setdefault(child.bounds, ([], []))
            positions.append(self._label_index.position(child.labels))
            slots.append(_packed(child.slots))
            if kind == DURATION and (child.exemplars or child.native is not None):
                detailed = self._detailed_child(child.labels)
                detailed.add_exemplars(child.exemplars)
                if child.native is not None:
                    _add_native(detailed, child.native.snapshot())
        for bounds, (positions, slots) in rows.items():
            self._add(kind, bounds, positions, slots)

    def add_sibling(self, sibling: SiblingStorage) -> None:
        """Add the counts of a sibling."""
        snapshot = sibling.read()
        for kind, bounds, positions, rows in snapshot.rows():
            self._add(kind, bounds, positions, rows)
        for labels, exemplars in snapshot.exemplars():
            self._detailed_child(labels).add_exemplars(exemplars)
        for labels, native in snapshot.natives():
            _add_native(self._detailed_child(labels), native)
        opened = snapshot.sums(Kind.OPEN, 2) if snapshot.is_living else (snapshot.counted(), 0.0)
        lines = snapshot.sums(Kind.LINES, LINE_KINDS)
        self.rest.append(SiblingTotals(snapshot.is_living, opened, snapshot.sums(Kind.TALLY, 2), lines))

    def families(self) -> dict[Kind, dict[Labels, Child]]:
        """Return the children of each kind, by labels."""
        families: dict[Kind, dict[Labels, Child]] = {kind: {} for kind in HISTOGRAMS}
        families[DURATION] = self._detailed
        labels = self._label_index.labels
        # In an order that is the same in each worker.
        for (kind, bounds), column_sum in sorted(self._sums.items()):
            family = families[kind]
            shape = self._bounds if kind == DURATION else bounds
            for position, slots in column_sum.rows():
                total = family.get(labels[position])
                if total is None and shape == bounds:
                    family[labels[position]] = Child(labels[position], shape, slots=slots)
                    continue
                if total is None:
                    total = family[labels[position]] = Child(labels[position], shape)
                total.add_slots(bounds, slots)
            if kind == DURATION:
                self.counted += column_sum.counted
        return families

    def _add(self, kind: Kind, bounds: Bounds, positions: list[int], rows: Iterable[bytes]) -> None:
        column_sum = self._sums.get((kind, bounds))
        if column_sum is None:
            column_sum = self._sums[kind, bounds] = ColumnSum(len(bounds) + 2)
        column_sum.add(positions, rows, len(self._label_index.labels))

    def _detailed_child(self, labels: Labels) -> Child:
        """Return the child to which the exemplars and native histograms of one label set of `DURATION` are added."""
        detailed = self._detailed.get(labels)
        if detailed is None:
            detailed = self._detailed[labels] = Child(labels, self._bounds)
        return detailed


def _packed(slots: Slots) -> bytes:
    return array("d", slots).tobytes() if isinstance(slots, list) else bytes(slots)


def _add_native(total: Child, native: Snapshot) -> None:
    total.native = total.native or NativeHistogram()
    total.native.add(native)


_WORKER = "worker"


class PerWorkerFormat:
    """
    Writes another format, with the label `worker`.

    Without the label, the counts of the worker that answers would seem to be those of the service, and would fall if
    the next scrape reaches another worker.

    Args:
        to: the format.
        worker: the value of the label.
    """

    def __init__(self, format_: Format, worker: str) -> None:
        self._format = format_
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._format, name)

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series in the form of a sample."""
        return self._format.labels((*names, _WORKER), (*values, self._worker))  # type: ignore[arg-type] # One more.

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        detailed = copy.copy(metric)
        detailed.samples = [one._replace(labels=self._detailed(one.labels)) for one in metric.samples]
        return self._format.family(detailed)

    def _detailed(self, labels: dict[str, str]) -> dict[str, str]:
        label = _WORKER
        while label in labels:  # A label of the user.
            label = f"scaleobs_{label}"
        return {**labels, label: self._worker}
