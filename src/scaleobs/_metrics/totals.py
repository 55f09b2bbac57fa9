"""The sums over threads and workers; and the format for workers that can't be added up."""

from __future__ import annotations

import copy
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from scaleobs._metrics.child import DURATION, HISTOGRAMS, Cells, Labels, Series
from scaleobs._metrics.columns import Order, Sum
from scaleobs._metrics.native import Snapshot, Sparse
from scaleobs._metrics.siblings import Bounds, Theirs
from scaleobs._metrics.text import Format
from scaleobs.group.kinds import Kind
from scaleobs.logs import counts


class Rest(NamedTuple):
    """What another worker has told beside its series; a dead one's requests have all ended."""

    is_living: bool
    opened: Sequence[float]
    tally: Sequence[float]
    lines: Sequence[float]


class Totals:
    """
    The series of each kind, by labels; nobody else holds them.

    What there is of one kind and shape is added up column by column, without a look at a single series: a column has
    the cells of all label sets that a thread of a worker has counted, in the same order as any other column.

    Args:
        bounds: the bucket boundaries that those of `DURATION` get, whatever those had that were added.
        order: where each label set is in a column.

    Attributes:
        rest: of each of the other workers.
        counted: how many requests are counted in all, once `families` was called.
    """

    def __init__(self, bounds: Bounds, order: Order) -> None:
        self._bounds = bounds
        self._order = order
        self.rest: list[Rest] = []
        self.counted = 0.0
        self._sums: dict[tuple[Kind, Bounds], Sum] = {}
        # Those with an exemplar or a native histogram, as yet without what they have counted.
        self._told: dict[Labels, Series] = {}

    def add_own(self, kind: Kind, counted: Iterable[Series]) -> None:
        """Add what a thread of this process has counted."""
        rows: dict[Bounds, tuple[list[int], list[bytes]]] = {}
        for series in counted:
            places, cells = rows.setdefault(series.bounds, ([], []))
            places.append(self._order.place(series.labels))
            cells.append(_packed(series.cells))
            if kind == DURATION and (series.exemplars or series.sparse is not None):
                told = self._of(series.labels)
                told.add_exemplars(series.exemplars)
                if series.sparse is not None:
                    _add_native(told, series.sparse.snapshot())
        for bounds, (places, cells) in rows.items():
            self._add(kind, bounds, places, cells)

    def add_theirs(self, theirs: Theirs) -> None:
        """Add what another worker has counted."""
        reading = theirs.read()
        for kind, bounds, places, rows in reading.rows():
            self._add(kind, bounds, places, rows)
        for labels, exemplars in reading.exemplars():
            self._of(labels).add_exemplars(exemplars)
        for labels, native in reading.natives():
            _add_native(self._of(labels), native)
        opened = reading.sums(Kind.OPEN, 2) if reading.is_living else (reading.counted(), 0.0)
        lines = reading.sums(Kind.LINES, counts.KINDS)
        self.rest.append(Rest(reading.is_living, opened, reading.sums(Kind.TALLY, 2), lines))

    def families(self) -> dict[Kind, dict[Labels, Series]]:
        """Return the series of each kind, by labels."""
        families: dict[Kind, dict[Labels, Series]] = {kind: {} for kind in HISTOGRAMS}
        families[DURATION] = self._told
        labels = self._order.labels
        # In an order that doesn't depend on which worker adds them up.
        for (kind, bounds), added in sorted(self._sums.items()):
            family = families[kind]
            shape = self._bounds if kind == DURATION else bounds
            for place, cells in added.rows():
                total = family.get(labels[place])
                if total is None and shape == bounds:
                    family[labels[place]] = Series(labels[place], shape, cells=cells)
                    continue
                if total is None:
                    total = family[labels[place]] = Series(labels[place], shape)
                total.add_cells(bounds, cells)
            if kind == DURATION:
                self.counted += added.counted
        return families

    def _add(self, kind: Kind, bounds: Bounds, places: list[int], rows: Iterable[bytes]) -> None:
        added = self._sums.get((kind, bounds))
        if added is None:
            added = self._sums[kind, bounds] = Sum(len(bounds) + 2)
        added.add(places, rows, len(self._order.labels))

    def _of(self, labels: Labels) -> Series:
        """Return where what a series of `DURATION` has beside its cells is added up."""
        told = self._told.get(labels)
        if told is None:
            told = self._told[labels] = Series(labels, self._bounds)
        return told


def _packed(cells: Cells) -> bytes:
    return array("d", cells).tobytes() if isinstance(cells, list) else bytes(cells)


def _add_native(total: Series, native: Snapshot) -> None:
    total.sparse = total.sparse or Sparse()
    total.sparse.add(native)


_WORKER = "worker"


class Apart:
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
        told = copy.copy(metric)
        told.samples = [one._replace(labels={**one.labels, _WORKER: self._worker}) for one in metric.samples]
        return self._to.family(told)
