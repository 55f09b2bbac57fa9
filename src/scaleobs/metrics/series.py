"""What one label set has counted."""

from __future__ import annotations

import math
import struct
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from scaleobs.group.kinds import Kind
from scaleobs.metrics.sparse import CELLS as SPARSE_CELLS
from scaleobs.metrics.sparse import Sparse

if TYPE_CHECKING:
    from scaleobs.metrics.workers import Place

Labels = tuple[str, str, str]
"""Method, route and status code."""

Cells = Any
"""Numbers: a list, or memory that other workers read."""

DURATION, REQUEST_SIZE, RESPONSE_SIZE = HISTOGRAMS = (Kind.DURATION, Kind.REQUEST_SIZE, Kind.RESPONSE_SIZE)
"""What the numbers of a series may be."""

_EXEMPLAR = struct.Struct("=16s8sddQ")


class Exemplar(NamedTuple):
    """The trace of one request, to be found again from the bucket it fell into."""

    trace_id: str
    span_id: str
    value: float
    timestamp: float


class Series:
    """
    What one label set has counted.

    Args:
        labels: method, route and status code.
        bounds: the upper bounds of the buckets, in seconds, without `+Inf`.
        memory: where to count; in this process where it is not given.
        kind: one of `HISTOGRAMS`.
        is_native: keep a native histogram as well.
        cells: what was counted already, by this process alone.

    Attributes:
        cells: the requests in each bucket, `+Inf` last, not cumulated; then the sum of their seconds.
        exemplars: the latest one of each bucket, by the bucket's position.
        sparse: the native histogram.
    """

    __slots__ = ("_memory", "_shown", "bounds", "cells", "exemplars", "labels", "sparse")

    def __init__(
        self,
        labels: Labels,
        bounds: tuple[float, ...],
        memory: Place | None = None,
        *,
        kind: Kind = DURATION,
        is_native: bool = False,
        cells: list[float] | None = None,
    ) -> None:
        self.labels = labels
        self.bounds = bounds
        if cells is not None:
            self.cells: Cells = cells
        else:
            length = len(bounds) + 2
            self.cells = [0] * length if memory is None else memory.cells(kind, length)
        self.exemplars: dict[int, Exemplar] = {}
        self.sparse: Sparse | None = None
        if is_native:
            self.sparse = Sparse(cells=None if memory is None else memory.cells(Kind.NATIVE, SPARSE_CELLS))
        self._memory = memory
        self._shown: memoryview | None = None

    def observe(self, seconds: float) -> None:
        """Count a request."""
        self.cells[bisect_left(self.bounds, seconds)] += 1
        self.cells[-1] += seconds
        if self.sparse is not None:
            self.sparse.observe(seconds)

    def leave(self, exemplar: Exemplar) -> None:
        """Keep an exemplar as the latest one of its bucket."""
        bucket = bisect_left(self.bounds, exemplar.value)
        self.exemplars[bucket] = exemplar
        if self._memory is None:
            return
        if self._shown is None:
            cells = self._memory.cells(Kind.EXEMPLARS, _EXEMPLAR.size // 8 * (len(self.bounds) + 1))
            if isinstance(cells, list):  # There is no room.
                return
            self._shown = cells.cast("B")
        fields = bytes.fromhex(exemplar.trace_id), bytes.fromhex(exemplar.span_id), exemplar.value, exemplar.timestamp
        packed = _EXEMPLAR.pack(*fields, zlib.crc32(_EXEMPLAR.pack(*fields, 0)))
        self._shown[bucket * _EXEMPLAR.size : (bucket + 1) * _EXEMPLAR.size] = packed

    def add(self, other: Series) -> None:
        """Add, into new memory of this process, what another series with the same labels has counted."""
        self.add_cells(other.bounds, list(other.cells))
        self.add_exemplars(other.exemplars)
        if other.sparse is not None:
            self.sparse = self.sparse or Sparse()
            self.sparse.add(other.sparse.snapshot())

    def add_cells(self, bounds: tuple[float, ...], cells: list[float]) -> None:
        """Add cells; where their bounds differ, by the upper ends of their buckets."""
        if self.bounds == bounds:
            self.cells = list(map(add, self.cells, cells))
            return
        for bound, count in zip((*bounds, float("inf")), cells, strict=False):
            self.cells[bisect_left(self.bounds, bound)] += count
        self.cells[-1] += cells[-1]

    def add_exemplars(self, exemplars: dict[int, Exemplar]) -> None:
        """Take over exemplars that are later than those that are here."""
        for exemplar in list(exemplars.values()):
            bucket = bisect_left(self.bounds, exemplar.value)
            known = self.exemplars.get(bucket)
            if known is None or known.timestamp < exemplar.timestamp:
                self.exemplars[bucket] = exemplar


def total_of(parts: Sequence[float]) -> float:
    """
    Return the sum of what several have counted, rounded once, so that it doesn't depend on their order.

    A total that depended on which worker is asked would seem to fall between two scrapes.
    """
    try:
        return math.fsum(parts)
    except (ValueError, OverflowError):  # An infinity, or what becomes one.
        return sum(parts)


def exemplars_of(data: bytes) -> dict[int, Exemplar]:
    """Return what `Series.leave` has written; one that is being written is left out."""
    found = {}
    for bucket, (*fields, check) in enumerate(_EXEMPLAR.iter_unpack(data)):
        trace_id, span_id, value, timestamp = fields
        if timestamp and check == zlib.crc32(_EXEMPLAR.pack(*fields, 0)):
            found[bucket] = Exemplar(trace_id.hex(), span_id.hex(), value, timestamp)
    return found
