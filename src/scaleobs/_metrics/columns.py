"""Columns: the slots of many series in one piece, so that many threads and workers are added up at once."""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Iterable

from scaleobs._metrics.child import Labels, total_of
from scaleobs._workers.entries import Entry

_AT_ONCE = 8
"""How many columns are added up at once: more would take more memory than the page."""


class LabelSetIndex:
    """
    The position of each label set in a column of numbers, which never changes. Any thread may call it.

    Attributes:
        labels: the label sets by their position.
    """

    def __init__(self) -> None:
        self._adding = threading.Lock()
        self._positions: dict[Labels, int] = {}
        self.labels: list[Labels] = []

    def position(self, labels: Labels) -> int:
        """Return the position of a label set; a new one's is behind all others."""
        position = self._positions.get(labels)
        if position is None:
            with self._adding:
                position = self._positions.get(labels, len(self.labels))
                if position == len(self.labels):
                    self.labels.append(labels)
                    self._positions[labels] = position
        return position


class RowLayout:
    """Series of one thread, of one kind and with the same bounds: their positions, and how to find their slots."""

    __slots__ = ("_end", "_format", "_struct", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._format = "="
        self._end = 0
        self._struct: struct.Struct | None = None

    def add(self, position: int, entry: Entry) -> None:
        """Add a series that is behind all the others."""
        self.positions.append(position)
        self._format += f"{entry.start * 8 - self._end}x{(entry.end - entry.start) * 8}s"
        self._end = entry.end * 8
        self._struct = None

    def reader(self) -> struct.Struct:
        """Return what reads the slots of each of them, in the order of a ledger."""
        if self._struct is None:
            self._struct = struct.Struct(self._format)
        return self._struct


class ColumnSum:
    """
    Columns of one kind and shape, added up.

    Counts are whole numbers, so that each order of adding them gives the same. Seconds are added at the end.

    Args:
        width: how many slots a series has; the last one has its seconds.

    Attributes:
        counted: the sum of all counts, once `rows` has begun.
    """

    def __init__(self, width: int) -> None:
        self.counted = 0.0
        self._width = width
        self._is_there: set[int] = set()
        self._columns: list[array[float]] = []
        self._seconds: list[array[float]] = []

    def add(self, positions: list[int], rows: Iterable[bytes], length: int) -> None:
        """Add one column of `length` label sets; row i belongs at `positions[i]`."""
        column = [bytes(8 * self._width)] * length
        for position, row in zip(positions, rows, strict=True):
            column[position] = row
        self._is_there.update(positions)
        numbers = array("d", b"".join(column))
        self._seconds.append(numbers[self._width - 1 :: self._width])
        self._columns.append(numbers)
        if len(self._columns) == _AT_ONCE:
            self._columns = [self._added()]

    def rows(self) -> Iterable[tuple[int, list[float]]]:
        """Yield the position and the slots of each child that was added."""
        # As whole numbers, which are written in a quarter of the time.
        width, numbers = self._width, list[float](map(int, self._added()))
        length = len(numbers) // width
        self.counted = sum(numbers) - sum(numbers[width - 1 :: width])
        numbers[width - 1 :: width] = map(
            total_of, zip(*(_padded(each, length) for each in self._seconds), strict=True)
        )
        for position in sorted(self._is_there):
            yield position, numbers[position * width : (position + 1) * width]

    def _added(self) -> array[float]:
        if len(self._columns) == 1:
            return self._columns[0]
        length = max(map(len, self._columns))
        return array("d", map(sum, zip(*(_padded(each, length) for each in self._columns), strict=True)))


def _padded(numbers: array[float], length: int) -> array[float]:
    """Return a column with room for the label sets that came while the others were read."""
    return numbers if len(numbers) == length else numbers + array("d", bytes(8 * (length - len(numbers))))
