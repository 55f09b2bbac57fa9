"""The messages of io.prometheus.client that our families and the user's are both made of."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from scaleobs.metrics import wire
from scaleobs.metrics.formats import Chunks

TYPES = {"counter": 0, "gauge": 1, "summary": 2, "untyped": 3, "histogram": 4, "gaugehistogram": 5}
"""The numbers of MetricType."""


def family(name: str, documentation: str, kind: str, unit: str, chunks: Chunks) -> Iterator[bytes]:
    """
    Yield a MetricFamily behind its length, or nothing where it would be empty.

    Args:
        name: of the family; a counter's ends in `_total` here.
        documentation: the help.
        kind: one of `TYPES`.
        unit: may be empty.
        chunks: its Metrics, as fields.
    """
    fields = wire.text(1, name) + wire.text(2, documentation) + wire.integer(3, TYPES[kind])
    if unit:
        fields += wire.text(5, unit)
    # The length stands in front, so everything is made before the first byte can go.
    waiting: deque[bytes] = deque()
    for chunk in chunks:
        if waiting:
            yield b""
        waiting.append(b"".join(chunk))
    if any(waiting):
        yield wire.varint(len(fields) + sum(map(len, waiting))) + fields
        while waiting:
            yield waiting.popleft()


def labels(field: int, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return label pairs, each as a field."""
    return b"".join([wire.message(field, wire.text(1, name) + wire.text(2, value)) for name, value in pairs])


def exemplar(pairs: Iterable[tuple[str, str]], value: float, timestamp: float | None) -> bytes:
    """Return an Exemplar."""
    content = labels(1, pairs) + wire.double(2, value)
    return content if timestamp is None else content + wire.message(3, moment(timestamp))


def moment(timestamp: float) -> bytes:
    """Return a google.protobuf.Timestamp."""
    seconds = math.floor(timestamp)
    nanoseconds = round((timestamp - seconds) * 1e9)
    return b"\x08" + wire.signed(seconds) + wire.integer(2, min(nanoseconds, 999_999_999))


def spans(field: int, found: Iterable[tuple[int, int]]) -> bytes:
    """Return the spans of a native histogram: offset and length of each."""
    return b"".join(
        [wire.message(field, b"\x08" + wire.zigzag(offset) + wire.integer(2, length)) for offset, length in found]
    )


def deltas(field: int, found: Iterable[int]) -> bytes:
    """Return the counts of a native histogram's buckets, each as the difference to the one before."""
    packed = b"".join(map(wire.zigzag, found))
    return wire.message(field, packed) if packed else b""
