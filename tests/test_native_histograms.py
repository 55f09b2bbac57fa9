"""Native histograms: their buckets, and how they are merged."""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scaleobs._metrics.families import attach
from scaleobs._metrics.native import SCHEMA, ZERO_THRESHOLD, NativeHistogram, Snapshot
from support.expositions import PROTOBUF, families, message, native, observe, page, samples

positive = st.floats(min_value=ZERO_THRESHOLD, exclude_min=True, allow_nan=False, allow_infinity=False)


def counted(values, **more) -> Snapshot:
    """Return the snapshot of a histogram with these values."""
    sparse = NativeHistogram(**more)
    for value in values:
        sparse.observe(value)
    return sparse.snapshot()


def is_within(value, index, schema) -> bool:
    """Return, by exact fractions, whether 2 ** ((i - 1) / 2 ** s) < value <= 2 ** (i / 2 ** s)."""
    power = Fraction(value) ** (2**schema) if schema > 0 else Fraction(value)
    step = 1 if schema > 0 else 2**-schema
    return Fraction(2) ** ((index - 1) * step) < power <= Fraction(2) ** (index * step)


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (1.0, 0),
        (math.nextafter(1.0, 2), 1),
        (math.nextafter(1.0, 0), 0),
        (2.0, 8),
        (math.nextafter(2.0, 3), 9),
        (0.5, -8),
        (0.25, -16),
        (4.0, 16),
        (1.05, 1),
        (1.0905077326652577, 1),
        (1.0905077326652579, 2),
        (1.4142135623730951, 5),
        (1.414213562373095, 4),
        (0.001, -79),
        (1e300, 7973),
        (math.inf, 8192),
        (sys.float_info.max, 8192),
        (2**-127, -1016),
    ],
)
def test_bucket_of_a_value(value, index):
    """A value that equals the upper bound of a bucket belongs to it, and the next float to the next bucket."""
    assert ({index: 1}, 0) == counted([value])[2:0:-1]


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, -math.inf, 5e-324, ZERO_THRESHOLD])
def test_zero_bucket(value):
    """Values up to the threshold count as zero."""
    assert Snapshot(SCHEMA, 1, {}) == counted([value])


def test_what_is_no_number_does_not_count():
    """NaN is in no bucket."""
    assert Snapshot(SCHEMA, 0, {}) == counted([math.nan])


@given(positive)
@example(math.sqrt(2))
@example(2 ** (1 / 8))
def test_every_value_is_within_its_bucket(value):
    """The bucket is the right one by exact arithmetic, except within the last bit of a bound that no float equals."""
    ((index, _),) = counted([value]).buckets.items()
    beside = (math.nextafter(value, 0), math.nextafter(value, math.inf))

    assert any(is_within(one, index, SCHEMA) for one in (value, *beside) if one < math.inf)
    if math.frexp(value)[0] == 0.5:
        assert is_within(value, index, SCHEMA)


@given(st.lists(positive, max_size=200), st.integers(1, 12))
def test_limit_halves_the_resolution(values, limit):
    """The number of buckets is within the limit, down to schema -4, and no value is lost or in a wrong bucket."""
    found = counted(values, limit=limit)
    fine = counted(values, limit=10_000)
    steps = SCHEMA - found.schema
    coarse = {}
    for index, count in fine.buckets.items():
        coarse[math.ceil(index / 2**steps)] = coarse.get(math.ceil(index / 2**steps), 0) + count

    assert coarse == found.buckets
    assert len(found.buckets) <= limit or found.schema == -4
    assert len(values) == found.total


@given(st.lists(positive), st.lists(positive), st.integers(2, 20), st.integers(2, 20))
def test_adding_up(first_values, second_values, first_limit, second_limit):
    """The sum of two histograms has the counts of one with all values, at the coarser resolution or one below."""
    one, other = NativeHistogram(first_limit), NativeHistogram(second_limit)
    for sparse, values in ((one, first_values), (other, second_values)):
        for value in values:
            sparse.observe(value)
    schemas = one.snapshot().schema, other.snapshot().schema
    before = other.snapshot()
    one.add(other.snapshot())
    found = one.snapshot()
    steps = SCHEMA - found.schema
    expected = {}
    for index, count in counted(first_values + second_values, limit=10_000).buckets.items():
        coarse = math.ceil(index / 2**steps)
        expected[coarse] = expected.get(coarse, 0) + count

    assert expected == found.buckets
    assert found.schema <= min(schemas)
    assert before == other.snapshot()


@given(st.dictionaries(st.integers(-500, 500), st.integers(1, 1000), max_size=60))
def test_spans(buckets):
    """Spans and deltas contain all buckets; a gap of one or two is filled with zeros, a longer one ends the span."""
    spans, deltas = Snapshot(SCHEMA, 0, buckets).spans()
    found, index, count, left = {}, 0, 0, iter(deltas)
    for offset, length in spans:
        index += offset
        for _ in range(length):
            count += next(left)
            found[index] = count
            index += 1

    assert buckets == {index: count for index, count in found.items() if count}
    assert all(offset > 2 for offset, _ in spans[1:])
    assert [] == list(left)


def test_exposition_shows_both_kinds(registry):
    """Protobuf has the classic buckets and the native ones, with equal counts."""
    _, storage = attach(registry)
    storage.is_native = True
    values = [0.0, 0.001, 0.02, 0.021, 0.3, 0.3, 7, 20]
    for value in values:
        observe(storage, ("GET", "/", "200"), value)
    (family,) = (one for one in families(page(registry, PROTOBUF)) if one.name == "http_request_duration_seconds")
    histogram = message(family.metrics[0][1][7][0])
    found = counted(values)
    schema, count, zeros, buckets = native(histogram)

    assert (3, 8, 1, found.buckets) == (schema, count, zeros, {index: n for index, n in buckets.items() if n})
    assert 12 == len(histogram[3])
    text, proto = samples(page(registry)), samples(page(registry, PROTOBUF), PROTOBUF)
    assert {name for name in text if name[0].startswith("http_")} <= proto.keys()


def test_empty_native_histogram_is_native(registry):
    """An empty native histogram has a span, without which Prometheus would read a classic one."""
    _, storage = attach(registry)
    storage.is_native = True
    storage.local.shard.child_of(("GET", "/", "200"))
    (family,) = (one for one in families(page(registry, PROTOBUF)) if one.name == "http_request_duration_seconds")
    histogram = message(family.metrics[0][1][7][0])

    assert [b"\x08\x00\x10\x00"] == histogram[12]
    assert [] == histogram[13]


def test_count_is_that_of_the_buckets_at_every_moment(registry):
    """A scrape during increments has a native histogram with a correct count; Prometheus refuses any other."""
    _, storage = attach(registry)
    storage.is_native = True
    stop = threading.Event()

    def count():
        while not stop.is_set():
            observe(storage, ("GET", "/", "200"), random.lognormvariate(-3, 3))

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = []
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            for family in families(page(registry, PROTOBUF)):
                if family.name == "http_request_duration_seconds":
                    _, total, zeros, buckets = native(message(family.metrics[0][1][7][0]))
                    assert total == zeros + sum(buckets.values())
                    seen.append(total)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert all(before <= after for before, after in pairwise(seen))


def test_turned_on_later(registry):
    """A label set has either all of its requests in a native histogram, or none."""
    storage = attach(registry)[1]
    seen = ("GET", "/seen", "200")
    observe(storage, seen, 0.1, times=5)
    storage.merge_options(bounds=(), limit=10, is_native=True, has_sizes=False)

    def count():
        observe(storage, seen, 0.1)
        observe(storage, ("GET", "/new", "200"), 0.1)

    for target in (count, count):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    found = {one.labels[1]: one for one in storage.read().children}
    assert found["/seen"].native is None
    assert 7 == sum(found["/seen"].slots[:-1])
    assert 2 == found["/new"].native.snapshot().total
