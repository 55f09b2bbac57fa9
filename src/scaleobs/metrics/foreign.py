"""Families of prometheus_client in the protobuf format: samples of text put together to metrics again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from typing import Any

from prometheus_client.core import Metric, Sample

from scaleobs.metrics import messages, wire
from scaleobs.metrics.formats import MAX_EXEMPLAR_RUNES
from scaleobs.metrics.lines import legal

_AT_ONCE = 128
"""How many samples are worked on between two pauses: half a millisecond."""

_SUFFIXES = {"counter": "_total", "info": "_info"}
_KINDS = {"unknown": "untyped", "info": "gauge", "stateset": "gauge"}

# By type: what follows a family's name in a sample's, and what such a sample says of its metric.
_ROLES = {
    "counter": {"_total": "value", "_created": "created"},
    "info": {"_info": "value"},
    "histogram": {"_bucket": "bucket", "_sum": "sum", "_count": "count", "_created": "created"},
    "gaugehistogram": {"_bucket": "bucket", "_gsum": "sum", "_gcount": "count", "_created": "created"},
    "summary": {"": "quantile", "_sum": "sum", "_count": "count", "_created": "created"},
}
_WITHIN = {"bucket": "le", "quantile": "quantile"}

_Found = list[tuple[str, str, Sample]]
"""Role, `le` or `quantile`, and the sample."""

_Key = tuple[tuple[tuple[str, str], ...], float | None]
"""The labels and the timestamp of a metric."""


def families(metric: Metric) -> Iterator[bytes]:
    """
    Yield a family of prometheus_client as a MetricFamily; samples that no such family can have as others behind it.

    Raises:
        Exception: after everything else, what was wrong with the first metric that was left out.
    """
    roles = {metric.name + suffix: role for suffix, role in _ROLES.get(metric.type, {"": "value"}).items()}
    found: dict[_Key, _Found] = {}
    others: dict[str, list[Sample]] = {}
    faults: list[Exception] = []
    samples = iter(metric.samples)
    while some := list(islice(samples, _AT_ONCE)):
        for sample in some:
            role = roles.get(sample.name)
            try:
                if role is None:
                    others.setdefault(sample.name, []).append(sample)
                else:
                    _sort_in(found, role, sample)
            except Exception as error:
                faults.append(error)
        if len(some) == _AT_ONCE:
            yield b""
    kind = _KINDS.get(metric.type, metric.type)
    name = legal(metric.name + _SUFFIXES.get(metric.type, ""))
    chunks = _chunks(kind, found, faults)
    yield from messages.family(name, metric.documentation, kind, metric.unit, chunks)
    for other, their in others.items():
        alone: dict[_Key, _Found] = {}
        for sample in their:
            _sort_in(alone, "value", sample)
        yield from messages.family(legal(other), metric.documentation, "untyped", "", _chunks("untyped", alone, faults))
    if faults:
        raise faults[0]


def _sort_in(found: dict[_Key, _Found], role: str, sample: Sample) -> None:
    labels = dict(sample.labels)
    within = labels.pop(_WITHIN[role], "") if role in _WITHIN else ""
    timestamp = None if sample.timestamp is None else float(sample.timestamp)
    key = tuple(sorted(labels.items())), timestamp
    found.setdefault(key, []).append((role, within, sample))


def _chunks(kind: str, found: dict[_Key, _Found], faults: list[Exception]) -> Iterator[list[bytes]]:
    content = {"histogram": _histogram, "gaugehistogram": _histogram, "summary": _summary, "counter": _counter}
    write = content.get(kind, _gauge if kind == "gauge" else _untyped)
    waiting = iter(found.items())
    while some := list(islice(waiting, _AT_ONCE // 8)):
        chunk = []
        for (labels, timestamp), samples in some:
            try:
                fields = messages.labels(1, ((legal(name), value) for name, value in labels)) + write(samples)
                if timestamp is not None:
                    fields += b"\x30" + wire.signed(int(timestamp * 1000))
                chunk.append(wire.message(4, fields))
            except Exception as error:
                faults.append(error)
        yield chunk


def _gauge(samples: _Found) -> bytes:
    return wire.message(2, wire.double(1, samples[-1][2].value))


def _untyped(samples: _Found) -> bytes:
    return wire.message(5, wire.double(1, samples[-1][2].value))


def _counter(samples: _Found) -> bytes:
    values = _by_role(samples)
    fields = wire.double(1, values["value"].value) + _exemplar(2, values["value"])
    return wire.message(3, fields + _created(3, values))


def _summary(samples: _Found) -> bytes:
    values = _by_role(samples)
    fields = []
    if "count" in values:
        fields.append(wire.integer(1, int(values["count"].value)))
    if "sum" in values:
        fields.append(wire.double(2, values["sum"].value))
    for role, quantile, sample in samples:
        if role == "quantile":
            fields.append(wire.message(3, wire.double(1, float(quantile)) + wire.double(2, sample.value)))
    return wire.message(4, b"".join(fields) + _created(4, values))


def _histogram(samples: _Found) -> bytes:
    values = _by_role(samples)
    ends = [(float(end), sample) for role, end, sample in samples if role == "bucket"]
    buckets = sorted(ends, key=itemgetter(0))
    fields = []
    count = values.get("count", buckets[-1][1] if buckets else None)
    if count is not None:
        fields.append(_count(1, 4, count.value))
    if "sum" in values:
        fields.append(wire.double(2, values["sum"].value))
    for end, sample in buckets:
        fields.append(wire.message(3, _count(1, 4, sample.value) + wire.double(2, end) + _exemplar(3, sample)))
    return wire.message(7, b"".join(fields) + _created(15, values))


def _by_role(samples: _Found) -> dict[str, Sample]:
    return {role: sample for role, _, sample in samples}


def _count(field: int, of_floats: int, value: float) -> bytes:
    """Return a count, in the field for fractions where it is one."""
    value = float(value)
    return wire.integer(field, int(value)) if value.is_integer() and value >= 0 else wire.double(of_floats, value)


def _created(field: int, values: dict[str, Any]) -> bytes:
    return wire.message(field, messages.moment(values["created"].value)) if "created" in values else b""


def _exemplar(field: int, sample: Sample) -> bytes:
    exemplar = sample.exemplar
    if not exemplar or sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MAX_EXEMPLAR_RUNES:
        return b""
    timestamp = None if exemplar.timestamp is None else float(exemplar.timestamp)
    return wire.message(field, messages.exemplar(sorted(exemplar.labels.items()), exemplar.value, timestamp))
