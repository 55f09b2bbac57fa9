"""Series of several threads and workers, added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import add
from typing import NamedTuple

from scaleobs.metrics.series import DURATION, HISTOGRAMS, Labels, Series
from scaleobs.metrics.sparse import Snapshot, Sparse
from scaleobs.metrics.workers import OPEN, TALLY, Bounds, Theirs

_Cells = dict[Labels, Sequence[float]]


class Rest(NamedTuple):
    """What another worker has told beside its series; a dead one's requests have all ended."""

    is_living: bool
    opened: tuple[float, float]
    tally: tuple[float, float]


class Totals:
    """
    The series of each kind, by labels; nobody else holds them.

    Args:
        bounds: the bucket boundaries that those of `DURATION` get, whatever those had that were added.

    Attributes:
        rest: of each of the other workers.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.rest: list[Rest] = []
        self._cells: dict[tuple[int, Bounds], _Cells] = {}
        # Those with an exemplar or a native histogram, as yet without what they have counted.
        self._told: dict[Labels, Series] = {}

    def add_own(self, kind: int, counted: Iterable[Series]) -> None:
        """Add what this process has counted."""
        bounds: Bounds | None = None
        totals: _Cells = {}
        for series in counted:
            if series.bounds is not bounds:
                bounds = series.bounds
                totals = self._cells.setdefault((kind, bounds), {})
            labels, cells = series.labels, list(series.cells)
            total = totals.get(labels)
            totals[labels] = cells if total is None else list(map(add, total, cells))
            if kind == DURATION and (series.exemplars or series.sparse is not None):
                told = self._of(labels)
                told.add_exemplars(series.exemplars)
                if series.sparse is not None:
                    _add_native(told, series.sparse.snapshot())

    def add_theirs(self, theirs: Theirs) -> None:
        """Add what another worker has counted."""
        reading = theirs.read()
        for kind, bounds, found in reading.series():
            totals = self._cells.setdefault((kind, bounds), {})
            known = totals.get
            for cells, labels in found:
                total = known(labels)
                totals[labels] = cells if total is None else list(map(add, total, cells))
        for labels, exemplars in reading.exemplars():
            self._of(labels).add_exemplars(exemplars)
        for labels, native in reading.natives():
            _add_native(self._of(labels), native)
        opened = reading.sums(OPEN) if reading.is_living else (reading.counted(), 0.0)
        self.rest.append(Rest(reading.is_living, opened, reading.sums(TALLY)))

    def families(self) -> dict[int, dict[Labels, Series]]:
        """Return the series of each kind, by labels."""
        families: dict[int, dict[Labels, Series]] = {kind: {} for kind in HISTOGRAMS}
        families[DURATION] = self._told
        for (kind, bounds), totals in self._cells.items():
            family = families[kind]
            shape = self._bounds if kind == DURATION else bounds
            for labels, cells in totals.items():
                total = family.get(labels)
                if total is None:
                    total = family[labels] = Series(labels, shape)
                    if shape == bounds:
                        total.cells = list(cells)
                        continue
                total.add_cells(bounds, list(cells))
        return families

    def _of(self, labels: Labels) -> Series:
        """Return where what a series of `DURATION` has beside its cells is added up."""
        told = self._told.get(labels)
        if told is None:
            told = self._told[labels] = Series(labels, self._bounds)
        return told


def _add_native(total: Series, native: Snapshot) -> None:
    total.sparse = total.sparse or Sparse()
    total.sparse.add(native)
