"""Prometheus's protobuf format (io.prometheus.client.MetricFamily, delimited), the only one with native histograms."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from prometheus_client.core import Metric, Sample

from scaleobs._metrics.child import Child, Exemplar, Labels
from scaleobs._metrics.native import ZERO_THRESHOLD, Snapshot
from scaleobs._metrics.text import MAX_EXEMPLAR_RUNES, Chunks, is_legal, legal, legal_label
from scaleobs.catalog import Metric as Family

_ONE_BYTE = [bytes((number,)) for number in range(0x80)]
_pack_double = struct.Struct("<d").pack


def _varint(number: int) -> bytes:
    """Return a non-negative integer as a varint: seven bits in each byte, the lowest first."""
    if number < 0x80:  # noqa: PLR2004 - Seven bits.
        return _ONE_BYTE[number]
    if number < 0x4000:  # noqa: PLR2004 - Fourteen.
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number >= 0x80:  # noqa: PLR2004
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _zigzag(number: int) -> bytes:
    """Return an integer of either sign in zigzag encoding: short if it is near zero."""
    return _varint(number << 1 if number >= 0 else -(number << 1) - 1)


def _signed(number: int) -> bytes:
    """Return an integer of either sign as an int64, in two's complement."""
    return _varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def _integer_field(field: int, number: int) -> bytes:
    """Return a field that holds a varint."""
    return _varint(field << 3) + _varint(number)


def _double_field(field: int, number: float) -> bytes:
    """Return a field that holds a floating-point number."""
    return _varint(field << 3 | 1) + _pack_double(number)


def _message_field(field: int, content: bytes) -> bytes:
    """Return a field that holds a message, a text or a packed list."""
    return b"%b%b%b" % (_varint(field << 3 | 2), _varint(len(content)), content)


def _text_field(field: int, content: str) -> bytes:
    """Return a field that holds a text; a lone surrogate becomes a question mark."""
    return _message_field(field, str(content).encode("utf-8", "replace"))


_TYPES = {"counter": 0, "gauge": 1, "summary": 2, "untyped": 3, "histogram": 4, "gaugehistogram": 5}
"""The numbers of MetricType."""


def _metric_family(name: str, documentation: str, kind: str, unit: str, chunks: Chunks) -> Iterator[bytes]:
    """
    Yield the length of a MetricFamily and the family; nothing if it has no metrics.

    Args:
        name: of the family; the name of a counter ends in `_total` in this format.
        documentation: the help.
        kind: one of `_TYPES`.
        unit: may be empty.
        chunks: its Metrics, as fields.
    """
    fields = _text_field(1, name) + _text_field(2, documentation) + _integer_field(3, _TYPES[kind])
    if unit:
        fields += _text_field(5, unit)
    # The length comes first, so the whole family is made before its first byte is yielded.
    pending: deque[bytes] = deque()
    for chunk in chunks:
        if pending:
            yield b""
        pending.append(b"".join(chunk))
    if any(pending):
        yield _varint(len(fields) + sum(map(len, pending))) + fields
        while pending:
            yield pending.popleft()


def _label_pairs(field: int, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Return label pairs, each as a field."""
    return b"".join([_message_field(field, _text_field(1, name) + _text_field(2, value)) for name, value in pairs])


def _exemplar_message(pairs: Iterable[tuple[str, str]], value: float, timestamp: float | None) -> bytes:
    """Return an Exemplar."""
    content = _label_pairs(1, pairs) + _double_field(2, value)
    return content if timestamp is None else content + _message_field(3, _timestamp(timestamp))


def _timestamp(timestamp: float) -> bytes:
    """Return a google.protobuf.Timestamp."""
    seconds = math.floor(timestamp)
    nanoseconds = round((timestamp - seconds) * 1e9)
    return b"\x08" + _signed(seconds) + _integer_field(2, min(nanoseconds, 999_999_999))


def _spans_field(field: int, found: Iterable[tuple[int, int]]) -> bytes:
    """Return the spans of a native histogram: offset and length of each."""
    return b"".join(
        [_message_field(field, b"\x08" + _zigzag(offset) + _integer_field(2, length)) for offset, length in found]
    )


def _deltas_field(field: int, found: Iterable[int]) -> bytes:
    """Return the counts of the buckets of a native histogram, each as the difference to the one before."""
    packed = b"".join(map(_zigzag, found))
    return _message_field(field, packed) if packed else b""


_MAX_COUNT = 1 << 64
"""A count in this format is a 64-bit integer without a sign."""

_SAMPLES_AT_ONCE = 128
"""The samples between two pauses: half a millisecond."""

_SUFFIXES = {"counter": "_total", "info": "_info"}
_KINDS = {"unknown": "untyped", "info": "gauge", "stateset": "gauge"}

# By type: the suffix of a sample's name, and the role of such a sample in its metric.
_ROLES = {
    "counter": {"_total": "value", "_created": "created"},
    "info": {"_info": "value"},
    "histogram": {"_bucket": "bucket", "_sum": "sum", "_count": "count", "_created": "created"},
    "gaugehistogram": {"_bucket": "bucket", "_gsum": "sum", "_gcount": "count", "_created": "created"},
    "summary": {"": "quantile", "_sum": "sum", "_count": "count", "_created": "created"},
}
_ROLE_LABELS = {"bucket": "le", "quantile": "quantile"}

_Samples = list[tuple[str, str, Sample]]
"""Role, `le` or `quantile`, and the sample."""

_MetricKey = tuple[tuple[tuple[str, str], ...], float | None]
"""The labels and the timestamp of a metric."""


def _user_families(metric: Metric) -> Iterator[bytes]:
    """
    Yield a family of prometheus_client as a MetricFamily; samples that do not fit its type as further families.

    Raises:
        Exception: the error of the first metric that was left out; raised after all others are written.
    """
    roles = {metric.name + suffix: role for suffix, role in _ROLES.get(metric.type, {"": "value"}).items()}
    found: dict[_MetricKey, _Samples] = {}
    others: dict[str, list[Sample]] = {}
    faults: list[Exception] = []
    samples = iter(metric.samples)
    while batch := list(islice(samples, _SAMPLES_AT_ONCE)):
        for sample in batch:
            role = roles.get(sample.name)
            try:
                if role is None:
                    others.setdefault(sample.name, []).append(sample)
                else:
                    _group(found, role, sample)
            except Exception as error:
                faults.append(error)
        if len(batch) == _SAMPLES_AT_ONCE:
            yield b""
    kind = _KINDS.get(metric.type, metric.type)
    name = legal(metric.name + _SUFFIXES.get(metric.type, ""))
    chunks = _chunks(kind, found, faults)
    yield from _metric_family(name, metric.documentation, kind, metric.unit, chunks)
    for other, further in others.items():
        alone: dict[_MetricKey, _Samples] = {}
        for sample in further:
            _group(alone, "value", sample)
        yield from _metric_family(legal(other), metric.documentation, "untyped", "", _chunks("untyped", alone, faults))
    if faults:
        raise faults[0]


def _group(found: dict[_MetricKey, _Samples], role: str, sample: Sample) -> None:
    labels = dict(sample.labels)
    bound = labels.pop(_ROLE_LABELS[role], "") if role in _ROLE_LABELS else ""
    timestamp = None if sample.timestamp is None else float(sample.timestamp)
    key = tuple(sorted(labels.items())), timestamp
    found.setdefault(key, []).append((role, bound, sample))


def _chunks(kind: str, found: dict[_MetricKey, _Samples], faults: list[Exception]) -> Iterator[list[bytes]]:
    content = {"histogram": _histogram, "gaugehistogram": _histogram, "summary": _summary, "counter": _counter}
    write = content.get(kind, _gauge if kind == "gauge" else _untyped)
    pending = iter(found.items())
    while batch := list(islice(pending, _SAMPLES_AT_ONCE // 8)):
        chunk = []
        for (labels, timestamp), samples in batch:
            try:
                fields = _label_pairs(1, ((legal_label(name), value) for name, value in labels)) + write(samples)
                if timestamp is not None:
                    fields += b"\x30" + _signed(int(timestamp * 1000))
                chunk.append(_message_field(4, fields))
            except Exception as error:
                faults.append(error)
        yield chunk


def _gauge(samples: _Samples) -> bytes:
    return _message_field(2, _double_field(1, samples[-1][2].value))


def _untyped(samples: _Samples) -> bytes:
    return _message_field(5, _double_field(1, samples[-1][2].value))


def _counter(samples: _Samples) -> bytes:
    values = _by_role(samples)
    fields = _double_field(1, values["value"].value) + _user_exemplar(2, values["value"])
    return _message_field(3, fields + _created_field(3, values))


def _summary(samples: _Samples) -> bytes:
    values = _by_role(samples)
    fields = []
    if "count" in values:
        fields.append(_integer_field(1, min(max(0, int(values["count"].value)), _MAX_COUNT - 1)))
    if "sum" in values:
        fields.append(_double_field(2, values["sum"].value))
    for role, quantile, sample in samples:
        if role == "quantile":
            fields.append(_message_field(3, _double_field(1, float(quantile)) + _double_field(2, sample.value)))
    return _message_field(4, b"".join(fields) + _created_field(4, values))


def _histogram(samples: _Samples) -> bytes:
    values = _by_role(samples)
    ends = [(float(end), sample) for role, end, sample in samples if role == "bucket"]
    buckets = sorted(ends, key=itemgetter(0))
    fields = []
    count = values.get("count", buckets[-1][1] if buckets else None)
    if count is not None:
        fields.append(_count_field(1, 4, count.value))
    if "sum" in values:
        fields.append(_double_field(2, values["sum"].value))
    for end, sample in buckets:
        fields.append(
            _message_field(3, _count_field(1, 4, sample.value) + _double_field(2, end) + _user_exemplar(3, sample))
        )
    return _message_field(7, b"".join(fields) + _created_field(15, values))


def _by_role(samples: _Samples) -> dict[str, Sample]:
    return {role: sample for role, _, sample in samples}


def _count_field(field: int, float_field: int, value: float) -> bytes:
    """Return a count, in the field for floats if it is not a whole number."""
    value = float(value)
    is_whole = value.is_integer() and 0 <= value < _MAX_COUNT
    return _integer_field(field, int(value)) if is_whole else _double_field(float_field, value)


def _created_field(field: int, values: dict[str, Any]) -> bytes:
    return _message_field(field, _timestamp(values["created"].value)) if "created" in values else b""


def _user_exemplar(field: int, sample: Sample) -> bytes:
    exemplar = sample.exemplar
    if not exemplar or sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MAX_EXEMPLAR_RUNES:
        return b""
    timestamp = None if exemplar.timestamp is None else float(exemplar.timestamp)
    return _message_field(field, _exemplar_message(sorted(exemplar.labels.items()), exemplar.value, timestamp))


_MAX_EXEMPLARS = 10
"""The most exemplars of a native histogram, as in client_golang."""


# The first bytes of a bucket by the length of its count: field 3, the length of the bucket, field 1.
_BUCKETS = [bytes((0x1A, 1 + length + 9, 0x08)) for length in range(11)]


class _Template(NamedTuple):
    """The common part of series with the same bounds: the upper bound of each bucket as a field."""

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
        return _label_pairs(1, zip(names, values, strict=True))

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return a Metric with a counter."""
        del name
        counter = _double_field(1, value)
        if exemplar is not None:
            counter += _message_field(2, _own_exemplar(exemplar, 1.0))
        return _message_field(4, labels + _message_field(3, counter))

    def template(self, family: Family, bounds: tuple[float, ...]) -> _Template:
        """Return the common part of series with these bounds."""
        del family
        found = self._templates.get(bounds)
        if found is None:
            fields = tuple(_double_field(2, bound) for bound in (*bounds, float("inf")))
            found = self._templates.setdefault(bounds, _Template(fields))
        return found

    def body(self, template: _Template, series: Child, cumulated: list[float], seconds: float) -> bytes:
        """Return a series as the histogram field of a Metric, with the native buckets."""
        exemplars = {at: one for at, one in series.exemplars.copy().items() if is_legal(one)}
        fields = [_double_field(2, seconds)]
        for position, (bound, count) in enumerate(zip(template.bounds, cumulated, strict=True)):
            digits = _varint(int(count))
            if position in exemplars:
                exemplar = _message_field(3, _own_exemplar(exemplars[position], exemplars[position].value))
                fields.append(_message_field(3, b"\x08%b%b%b" % (digits, bound, exemplar)))
            else:
                fields += (_BUCKETS[len(digits)], digits, bound)
        total = int(cumulated[-1])
        if series.native is not None:
            native = series.native.snapshot()
            # Prometheus refuses a native histogram if its count differs from the sum of its buckets, which may lack the
            # latest request.
            total = native.total
            fields.append(_native(native))
            # Prometheus 2.42 reads the exemplars of classic buckets only; later versions read these.
            latest = sorted(exemplars.values(), key=lambda one: one.timestamp)[-_MAX_EXEMPLARS:]
            fields.extend(_message_field(16, _own_exemplar(one, one.value)) for one in latest)
        return _message_field(7, _integer_field(1, total) + b"".join(fields))

    def with_labels(self, body: bytes, labels: bytes) -> bytes:
        """Return a Metric."""
        return b"\x22%b%b%b" % (_varint(len(labels) + len(body)), labels, body)

    def own_family(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        yield from _metric_family(family.name, family.help, family.kind, "", chunks)

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        yield from _user_families(metric)


def _own_exemplar(exemplar: Exemplar, value: float) -> bytes:
    ids = (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id))
    return _exemplar_message(ids, value, exemplar.timestamp)


def _native(native: Snapshot) -> bytes:
    """Return the fields of a Histogram that make it a native one."""
    spans, deltas = native.spans()
    return b"".join(
        [
            b"\x28" + _zigzag(native.schema),
            _double_field(6, ZERO_THRESHOLD),
            _integer_field(7, native.zeros),
            # Without a span, Prometheus reads a classic histogram.
            _spans_field(12, spans or [(0, 0)]),
            _deltas_field(13, deltas),
        ]
    )
