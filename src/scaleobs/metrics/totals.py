"""Series of several threads and workers, added up."""

from __future__ import annotations

from collections.abc import Iterable
from operator import add

from scaleobs.metrics.series import DURATION, HISTOGRAMS, Labels, Series
from scaleobs.metrics.sparse import Sparse
from scaleobs.metrics.workers import Theirs


class Totals:
    """The series of each kind, by labels; nobody else holds them."""

    def __init__(self) -> None:
        self.families: dict[int, dict[Labels, Series]] = {kind: {} for kind in HISTOGRAMS}

    def add_own(self, kind: int, counted: Iterable[Series]) -> None:
        """Add what this process has counted."""
        totals = self.families[kind]
        for series in counted:
            total = totals.get(series.labels)
            if total is None:
                total = totals[series.labels] = Series(series.labels, series.bounds)
            total.add(series)

    def add_theirs(self, theirs: Theirs) -> None:
        """Add what another worker has counted."""
        numbers = theirs.numbers
        for kind, labels, bounds, start, end in theirs.series:
            family = self.families[kind]
            total = family.get(labels)
            if total is None:
                total = family[labels] = Series(labels, bounds)
                total.cells = numbers[start:end]
            elif total.bounds == bounds:
                total.cells = list(map(add, total.cells, numbers[start:end]))
            else:
                total.add_cells(bounds, numbers[start:end])
        durations = self.families[DURATION]
        for labels, exemplars in theirs.exemplars():
            durations[labels].add_exemplars(exemplars)
        for labels, native in theirs.natives():
            total = durations[labels]
            total.sparse = total.sparse or Sparse()
            total.sparse.add(native)
