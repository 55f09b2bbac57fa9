"""Readers of a page of `/metrics` that share no code with its writers."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from scaleobs._http.endpoints import is_gzip_accepted, preferred
from scaleobs._metrics.families import attach
from scaleobs._metrics.page import MEDIA_TYPES, expose

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
FORMATS = (TEXT, OPENMETRICS, PROTOBUF)


def scrape(registry, storage, *, accept="", accept_encoding="", names=(), on_fault):
    """Return the headers and the pieces of a scrape, as the endpoint does."""
    media_type, is_gzipped = preferred(accept, MEDIA_TYPES), is_gzip_accepted(accept_encoding)
    return expose(registry, storage, media_type, is_gzipped=is_gzipped, names=names, on_fault=on_fault)


def page(registry, accept="", *, accept_encoding="", names=(), faults=None) -> bytes:
    """Return the body of a scrape; faults are collected in a list, or not allowed."""
    reported = [] if faults is None else faults
    registry, storage = attach(registry)
    _, pieces = scrape(
        registry,
        storage,
        accept=accept,
        accept_encoding=accept_encoding,
        names=names,
        on_fault=reported.append,
    )
    body = b"".join(pieces)
    assert faults is not None or not reported, reported
    return body


def observe(storage, labels, seconds, *, times=1):
    """Count requests."""
    series = storage.local.shard.child_of(labels)
    for _ in range(times):
        series.observe(seconds)
    return series


def samples(body, content_type=TEXT) -> dict[tuple, float]:
    """Return all samples of a page by name and labels, `le` as a number; a duplicate is an error."""
    if content_type == PROTOBUF:
        found = [pair for family in families(body) for pair in family.samples()]
    else:
        parse = parse_openmetrics if content_type == OPENMETRICS else parse_text
        found = [
            (key(sample.name, sample.labels), sample.value)
            for family in parse(body.decode())
            for sample in family.samples
        ]
    assert len(dict(found)) == len(found)
    return dict(found)


def key(name, labels) -> tuple:
    """Return the key of a sample: its name and labels."""
    numbers = {name: float(labels[name]) for name in ("le", "quantile") if name in labels}
    return name, tuple(sorted({**labels, **numbers}.items()))


@dataclass
class Family:
    """A MetricFamily; a metric is a pair of labels and fields by their numbers."""

    name: str
    help: str
    type: int
    unit: str = ""
    metrics: list[tuple[dict, dict]] = field(default_factory=list)

    def samples(self):
        """Yield the samples that Prometheus makes of it."""
        for labels, fields in self.metrics:
            if self.type in (0, 1, 3):
                (value,) = fields[{0: 3, 1: 2, 3: 5}[self.type]]
                yield key(self.name, labels), double(message(value)[1][0])
                continue
            content = message(fields[4 if self.type == 2 else 7][0])
            for raw in content[3]:
                one = message(raw)
                if self.type == 2:
                    yield key(self.name, {**labels, "quantile": double(one[1][0])}), double(one[2][0])
                else:
                    yield key(f"{self.name}_bucket", {**labels, "le": double(one[2][0])}), float(one[1][0])
            for suffix, number in (("_count", 1), ("_sum", 2)):
                for value in content[number]:
                    shown = float(value) if number == 1 else double(value)
                    yield key(self.name + suffix, labels), shown


def families(body) -> list[Family]:
    """Return the delimited messages of a page; a duplicate name is an error."""
    found, at = [], 0
    while at < len(body):
        length, at = varint(body, at)
        assert at + length <= len(body)
        fields = message(body[at : at + length])
        at += length
        name, help_text, unit = ("".join(raw.decode() for raw in fields[number]) for number in (1, 2, 5))
        metrics = []
        for raw in fields[4]:
            one = message(raw)
            metrics.append((pairs(one[1]), one))
        assert metrics, "Prometheus has no use for an empty family."
        found.append(Family(name, help_text, fields[3][0], unit, metrics))
    assert len({family.name for family in found}) == len(found)
    return found


def pairs(raw_pairs) -> dict[str, str]:
    """Return LabelPairs as a dict."""
    decoded = [message(raw) for raw in raw_pairs]
    return {one[1][0].decode(): one[2][0].decode() for one in decoded}


def exemplar(raw) -> tuple[dict[str, str], float, float]:
    """Return the labels, the value and the time of an Exemplar."""
    fields = message(raw)
    time = message(fields[3][0])
    return pairs(fields[1]), double(fields[2][0]), time[1][0] + (time[2][0] if time[2] else 0) / 1e9


def message(data) -> defaultdict[int, list]:
    """Return the values of a message by field: integers, or bytes for anything longer."""
    found, at = defaultdict(list), 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = data[at : at + 8], at + 8
        else:
            assert kind == 2
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        assert at <= len(data)
        found[tag >> 3].append(value)
    return found


def varint(data, at) -> tuple[int, int]:
    """Return a number and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def packed(data) -> list[int]:
    """Return a packed list of numbers of either sign."""
    found, at = [], 0
    while at < len(data):
        number, at = varint(data, at)
        found.append(unzigzag(number))
    return found


def unzigzag(number) -> int:
    """Return a number of either sign."""
    return (number >> 1) ^ -(number & 1)


def double(data) -> float:
    """Return a floating-point number."""
    return struct.unpack("<d", data)[0]


def native(histogram) -> tuple[int, int, int, dict[int, int]]:
    """Return the schema, the count, the zeros and the buckets of a native histogram."""
    buckets, index, count = {}, 0, 0
    deltas = iter(packed(histogram[13][0]) if histogram[13] else [])
    for raw in histogram[12]:
        span = message(raw)
        index += unzigzag(span[1][0])
        for _ in range(span[2][0]):
            count += next(deltas)
            buckets[index] = count
            index += 1
    assert next(deltas, None) is None
    return unzigzag(histogram[5][0]), histogram[1][0], histogram[7][0], buckets
