"""A native histogram: exponential buckets, stored only if they are not empty."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any, NamedTuple

SCHEMA = 3
"""The upper bound of a bucket is 2 ** (1 / 8) times the one before: about 4.4 % to either side of its middle."""

ZERO_THRESHOLD = 2.938735877055719e-39
"""Values up to 2 ** -128 count as zero, as in prometheus/client_golang."""

DEFAULT_LIMIT = 160

SLOTS = 4 + 2 * (DEFAULT_LIMIT + 1)
"""The length of a histogram in shared memory: a version, odd during a write; the schema; the zeros; the number of
buckets; then the index and the count of each bucket."""

_COARSEST = -4
_HIGHEST = 1.7976931348623157e308

# The upper bounds of the buckets between 0.5 and 1: 2 ** (i / 8) / 2, with the same bits as in client_golang and
# Prometheus. A logarithm may be wrong by one bucket for a value at a bound.
_EIGHTHS = (
    0.5,
    0.5452538663326288,
    0.5946035575013605,
    0.6484197773255048,
    0.7071067811865475,
    0.7711054127039704,
    0.8408964152537144,
    0.9170040432046711,
)


class Spans(NamedTuple):
    """The buckets as in protobuf: runs of adjacent buckets, and the difference of each count to the one before."""

    spans: list[tuple[int, int]]
    deltas: list[int]


class Snapshot(NamedTuple):
    """The counts at one moment; bucket `i` has values up to `2 ** (i / 2 ** schema)`."""

    schema: int
    zeros: int
    buckets: dict[int, int]

    @property
    def total(self) -> int:
        """The number of values."""
        return self.zeros + sum(self.buckets.values())

    @classmethod
    def unpacked(cls, slots: list[float]) -> Snapshot | None:
        """Return the counts in the slots of a `NativeHistogram`, or `None` during a write."""
        version, schema, zeros, length = map(int, slots[:4])
        if version % 2:
            return None
        pairs = zip(slots[4 : 4 + 2 * length : 2], slots[5 : 5 + 2 * length : 2], strict=True)
        return cls(schema, zeros, {int(index): int(count) for index, count in pairs})

    def spans(self) -> Spans:
        """
        Return the buckets as spans and deltas.

        The offset of the first span is the index of its first bucket; that of another is the gap to the span before.
        Gaps of one or two empty buckets are filled, which takes fewer bytes than a new span.
        """
        spans: list[tuple[int, int]] = []
        deltas: list[int] = []
        before = after = 0
        for index in sorted(self.buckets):
            gap = index - after
            if not spans or gap > 2:  # noqa: PLR2004
                spans.append((gap, 1))
            else:
                offset, length = spans[-1]
                spans[-1] = (offset, length + gap + 1)
                for _ in range(gap):
                    deltas.append(-before)
                    before = 0
            count = self.buckets[index]
            deltas.append(count - before)
            before, after = count, index + 1
        return Spans(spans, deltas)


class NativeHistogram:
    """
    Counts by exponential bucket.

    Only one thread may write; any other may take a `snapshot` at the same time.

    Args:
        limit: the most buckets; above it, the resolution is halved.
        slots: memory that siblings read; the histogram continues the counts in it.
    """

    __slots__ = ("_limit", "_positions", "_shape", "_slots", "zeros")

    def __init__(self, limit: int = DEFAULT_LIMIT, slots: Any = None) -> None:
        self._limit = limit
        self._slots = slots
        self._positions: dict[int, int] = {}
        # In one attribute, so that a reader never gets the buckets of one schema with the number of another.
        self._shape: tuple[int, dict[int, int]] = (SCHEMA, {})
        self.zeros = 0
        if slots is not None and slots[0]:
            slots[0] += slots[0] % 2  # Its writer was killed during a write.
            self.add(Snapshot.unpacked(slots.tolist()) or Snapshot(SCHEMA, 0, {}))

    def observe(self, value: float) -> None:
        """Count a value; a negative one counts as zero, and a NaN is ignored."""
        if value > ZERO_THRESHOLD:
            schema, buckets = self._shape
            fraction, exponent = math.frexp(min(value, _HIGHEST))
            # Eight buckets for each power of two; exact also for a value that is a bound.
            index = bisect_left(_EIGHTHS, fraction) + 8 * (exponent - 1)
            if schema != SCHEMA:
                index = _coarser(index, SCHEMA - schema)
            if index in buckets:
                buckets[index] += 1
                if self._slots is not None:
                    self._slots[self._positions[index]] += 1
            else:
                buckets[index] = 1
                if len(buckets) > self._limit:
                    self._halve()
                self._publish()
        elif value <= ZERO_THRESHOLD:
            self.zeros += 1
            self._publish()

    def add(self, other: Snapshot) -> None:
        """Add the counts of another histogram, at the coarser resolution of the two."""
        schema, own = self._shape
        coarser = min(schema, other.schema)
        # A new dict, because a reader may hold the old one.
        buckets: dict[int, int] = {}
        for counted, steps in ((own, schema - coarser), (other.buckets, other.schema - coarser)):
            _merge(buckets, counted, steps)
        self._shape = (coarser, buckets)
        self.zeros += other.zeros
        self._halve()
        self._publish()

    def snapshot(self) -> Snapshot:
        """Return the counts."""
        schema, buckets = self._shape
        return Snapshot(schema, self.zeros, buckets.copy())

    def _publish(self) -> None:
        """Write the histogram to shared memory."""
        if self._slots is None:
            return
        slots, (schema, buckets) = self._slots, self._shape
        slots[0] += 1
        self._positions = {}
        slots[1], slots[2], slots[3] = schema, self.zeros, len(buckets)
        for position, (index, count) in enumerate(buckets.items()):
            slots[4 + 2 * position], slots[5 + 2 * position] = index, count
            self._positions[index] = 5 + 2 * position
        slots[0] += 1

    def _halve(self) -> None:
        schema, buckets = self._shape
        while len(buckets) > self._limit and schema > _COARSEST:
            schema -= 1
            halved: dict[int, int] = {}
            _merge(halved, buckets, 1)
            buckets = halved
        self._shape = (schema, buckets)


def _merge(target: dict[int, int], counts: dict[int, int], steps: int) -> None:
    for index, count in counts.items():
        coarse = _coarser(index, steps)
        target[coarse] = target.get(coarse, 0) + count


def _coarser(index: int, steps: int) -> int:
    """Return the bucket of a coarser schema that includes this one: the next upper bound."""
    return -(-index >> steps)
