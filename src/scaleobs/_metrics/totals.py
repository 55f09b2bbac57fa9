"""The sums over threads and workers, and the format for workers that can't be added up."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from scaleobs._metrics.child import DURATION, HISTOGRAMS, Child, Labels, Slots
from scaleobs._metrics.columns import ColumnSum, LabelSetIndex
from scaleobs._metrics.native import NativeHistogram, Snapshot
from scaleobs._metrics.siblings import Bounds, SiblingStorage
from scaleobs._metrics.text import Format
from scaleobs._workers.kinds import Kind
from scaleobs.logs._sink import LINE_KINDS


class SiblingTotals(NamedTuple):
    """The counts of a sibling beside its children; the requests of a dead one have all ended."""

    is_living: bool
    opened: Sequence[float]
    tally: Sequence[float]
    lines: Sequence[float]


class Totals:
    """
    The series of each kind, by labels; nobody else holds them.

    Children of one kind and shape are added up column by column, without reading a single one: a column has
    the slots of all label sets that a thread of a worker has counted, in the same order as any other column.

    Args:
        bounds: the bucket boundaries that those of `DURATION` get, also if the added ones had others.
        order: the position of each label set in a column.

    Attributes:
        rest: of each of the other workers.
        counted: how many requests are counted in all, once `families` was called.
    """

    def __init__(self, bounds: Bounds, order: LabelSetIndex) -> None:
        self._bounds = bounds
        self._order = order
        self.rest: list[SiblingTotals] = []
        self.counted = 0.0
        self._sums: dict[tuple[Kind, Bounds], ColumnSum] = {}
        # Those with an exemplar or a native histogram, as yet without what they have counted.
        self._detailed: dict[Labels, Child] = {}

    def add_own(self, kind: Kind, counted: Iterable[Child]) -> None:
        """Add what a thread of this process has counted."""
        rows: dict[Bounds, tuple[list[int], list[bytes]]] = {}
        for child in counted:
            positions, slots = rows.setdefault(child.bounds, ([], []))
            positions.append(self._order.position(child.labels))
            slots.append(_packed(child.slots))
            if kind == DURATION and (child.exemplars or child.native is not None):
                detailed = self._detailed_child(child.labels)
                detailed.add_exemplars(child.exemplars)
                if child.native is not None:
                    _add_native(detailed, child.native.snapshot())
        for bounds, (positions, slots) in rows.items():
            self._add(kind, bounds, positions, slots)

    def add_sibling(self, sibling: SiblingStorage) -> None:
        """Add what another worker has counted."""
        reading = sibling.read()
        for kind, bounds, positions, rows in reading.rows():
            self._add(kind, bounds, positions, rows)
        for labels, exemplars in reading.exemplars():
            self._detailed_child(labels).add_exemplars(exemplars)
        for labels, native in reading.natives():
            _add_native(self._detailed_child(labels), native)
        opened = reading.sums(Kind.OPEN, 2) if reading.is_living else (reading.counted(), 0.0)
        lines = reading.sums(Kind.LINES, LINE_KINDS)
        self.rest.append(SiblingTotals(reading.is_living, opened, reading.sums(Kind.TALLY, 2), lines))

    def families(self) -> dict[Kind, dict[Labels, Child]]:
        """Return the series of each kind, by labels."""
        families: dict[Kind, dict[Labels, Child]] = {kind: {} for kind in HISTOGRAMS}
        families[DURATION] = self._detailed
        labels = self._order.labels
        # In an order that doesn't depend on which worker adds them up.
        for (kind, bounds), added in sorted(self._sums.items()):
            family = families[kind]
            shape = self._bounds if kind == DURATION else bounds
            for position, slots in added.rows():
                total = family.get(labels[position])
                if total is None and shape == bounds:
                    family[labels[position]] = Child(labels[position], shape, slots=slots)
                    continue
                if total is None:
                    total = family[labels[position]] = Child(labels[position], shape)
                total.add_slots(bounds, slots)
            if kind == DURATION:
                self.counted += added.counted
        return families

    def _add(self, kind: Kind, bounds: Bounds, positions: list[int], rows: Iterable[bytes]) -> None:
        added = self._sums.get((kind, bounds))
        if added is None:
            added = self._sums[kind, bounds] = ColumnSum(len(bounds) + 2)
        added.add(positions, rows, len(self._order.labels))

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
    Writes as another format does, with one label more.

    Without it, the counts of each worker that happens to answer would seem to be the service's, and fall with the next.

    Args:
        to: the format.
        worker: what to call this worker.
    """

    def __init__(self, to: Format, worker: str) -> None:
        self._to = to
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series as they stand within a sample."""
        return self._to.labels((*names, _WORKER), (*values, self._worker))  # type: ignore[arg-type] # One more.

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        detailed = copy.copy(metric)
        detailed.samples = [one._replace(labels={**one.labels, _WORKER: self._worker}) for one in metric.samples]
        return self._to.family(detailed)
