"""Prometheus's protobuf format (io.prometheus.client.MetricFamily, delimited), the only one with native histograms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.core import Metric

from scaleobs.catalog import Metric as Family
from scaleobs.metrics import foreign, messages, sparse, wire
from scaleobs.metrics.formats import Chunks, is_shown
from scaleobs.metrics.series import Exemplar, Labels, Series

_MOST_EXEMPLARS = 10
"""How many a native histogram brings, as in client_golang."""


# How a bucket begins, by the length of its count: field 3, the length of all of it, field 1.
_BUCKETS = [bytes((0x1A, 1 + length + 9, 0x08)) for length in range(11)]


class _Template(NamedTuple):
    """What series with the same bounds share: each bucket's upper bound as a field."""

    bounds: tuple[bytes, ...]


class Protobuf:
    """Writes the protobuf format."""

    content_type = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    end = b""
    has_exemplars = True

    def __init__(self) -> None:
        self._templates: dict[tuple[float, ...], _Template] = {}

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series: fields of a Metric."""
        return messages.labels(1, zip(names, values, strict=True))

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return a Metric with a counter."""
        del name
        counter = wire.double(1, value)
        if exemplar is not None:
            counter += wire.message(2, _exemplar(exemplar, 1.0))
        return wire.message(4, labels + wire.message(3, counter))

    def template(self, family: Family, bounds: tuple[float, ...]) -> _Template:
        """Return what the series with these bounds share."""
        del family
        found = self._templates.get(bounds)
        if found is None:
            fields = tuple(wire.double(2, bound) for bound in (*bounds, float("inf")))
            found = self._templates.setdefault(bounds, _Template(fields))
        return found

    def body(self, template: _Template, series: Series, cumulated: list[float], seconds: float) -> bytes:
        """Return a series as the field of a Metric that holds a histogram, the native buckets with it."""
        exemplars = {at: one for at, one in series.exemplars.copy().items() if is_shown(one)}
        fields = [wire.double(2, seconds)]
        for position, (bound, count) in enumerate(zip(template.bounds, cumulated, strict=True)):
            digits = wire.varint(int(count))
            if position in exemplars:
                exemplar = wire.message(3, _exemplar(exemplars[position], exemplars[position].value))
                fields.append(wire.message(3, b"\x08%b%b%b" % (digits, bound, exemplar)))
            else:
                fields += (_BUCKETS[len(digits)], digits, bound)
        total = int(cumulated[-1])
        if series.sparse is not None:
            native = series.sparse.snapshot()
            # Prometheus refuses a native histogram whose count isn't that of its buckets, and these may be one behind.
            total = native.total
            fields.append(_native(native))
            # Prometheus 2.42 takes exemplars from the classic buckets only, later ones from here.
            latest = sorted(exemplars.values(), key=lambda one: one.timestamp)[-_MOST_EXEMPLARS:]
            fields.extend(wire.message(16, _exemplar(one, one.value)) for one in latest)
        return wire.message(7, wire.integer(1, total) + b"".join(fields))

    def placed(self, body: bytes, labels: bytes) -> bytes:
        """Return a Metric."""
        return b"\x22%b%b%b" % (wire.varint(len(labels) + len(body)), labels, body)

    def framed(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        yield from messages.family(family.name, family.help, family.kind, "", chunks)

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        yield from foreign.families(metric)


def _exemplar(exemplar: Exemplar, value: float) -> bytes:
    ids = (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id))
    return messages.exemplar(ids, value, exemplar.timestamp)


def _native(native: sparse.Snapshot) -> bytes:
    """Return the fields of a Histogram that make it a native one."""
    spans, deltas = native.spans()
    return b"".join(
        [
            b"\x28" + wire.zigzag(native.schema),
            wire.double(6, sparse.ZERO_THRESHOLD),
            wire.integer(7, native.zeros),
            # Without any span it would be taken for a classic one.
            messages.spans(12, spans or [(0, 0)]),
            messages.deltas(13, deltas),
        ]
    )
