"""The work for a record is bounded, for any values: circles, shared objects, megabytes, many texts, many names."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from scaleobs.logs import _encoding
from scaleobs.logs._levels import DropBelow, Levels
from scaleobs.logs._redaction import Redact
from support import costly_records

MAX_LINE_BYTES = 16_384
LOOPS = 4
"""A record may take as long as a loop over that many times 100,000 numbers: about 10 ms, of which 3 are usual."""


def line_of(**fields):
    """Return the line of a record as an object."""
    return json.loads(costly_records.seconds_of(fields, runs=1)[0])


def test_records_take_bounded_time():
    """Each record is one whole line, and takes a few milliseconds of the processor."""
    for fields in costly_records.records(100):
        line, seconds = costly_records.seconds_of(fields)
        found = json.loads(line)

        assert ("message", "shop") == (found["event"], found["service"])
        assert len(line) < MAX_LINE_BYTES
        if seconds > LOOPS * costly_records.seconds_of_a_loop():  # Another process may have slowed this one down.
            seconds = min(seconds, costly_records.seconds_of(fields, runs=9)[1])
        assert seconds < LOOPS * costly_records.seconds_of_a_loop(), costly_records.description(fields)


@pytest.mark.parametrize("piece", costly_records.TEXTS, ids=range(len(costly_records.TEXTS)))
def test_time_grows_with_the_length_of_a_text(piece):
    """A text of twice the length takes at most two and a half times as long."""
    redact = Redact()

    def seconds(length):
        text = costly_records.text_of(piece, length)
        begun = time.thread_time()
        redact.text(text)
        return time.thread_time() - begun

    least = dict.fromkeys((16_384, 32_768, 65_536), float("inf"))
    for _ in range(40):  # What is measured is the least of several runs, taken by turns.
        for length in least:
            least[length] = min(least[length], seconds(length))
        short, middle, long = least.values()
        if middle <= 2.5 * short and long <= 2.5 * middle:
            return
    pytest.fail(f"{piece!r}: {least}")


def test_circle_is_marked():
    """An object within itself is a mark, and all around it stays."""
    line = line_of(value=costly_records.parents(2), after=7)

    assert {"parent": _encoding.CIRCULAR, "siblings": _encoding.CIRCULAR, "i": 1} == line["value"]["children"][1]
    assert 7 == line["after"]


def test_shared_object_is_in_each_place():
    """An object that is in several places, but not within itself, is in each of them."""
    address = {"city": "Berlin"}

    assert {"a": address, "b": [address, address]} == line_of(value={"a": address, "b": [address, address]})["value"]


def test_other_fields_stay_beside_a_costly_one():
    """The fields and the event beside one that takes too long are in the line."""
    costly = [costly_records.text_of("token=a ", 16_000)] * 2000
    line = line_of(before="a: b", costly=costly, after="c: d", last={"e": "f"})

    assert ("a: b", "c: d", True) == (line["before"], line["after"], line["truncated"])


def test_end_of_a_long_text_stays_if_it_cannot_be_a_secret():
    """A long text keeps its end if there is no name in the part between; if there is one, it has no end."""
    words = "word " * 100_000

    assert line_of(text=words + "the end")["text"].endswith("the end")
    assert line_of(text=f"{words}a: {words}the end")["text"].endswith(" characters]…")


def test_names_are_not_kept():
    """Names that clients make up, and long ones, take no memory."""
    redact = Redact()
    redact(None, "info", {"event": "x", "path": "/a=b"})
    tracemalloc.start()
    for number in range(4000):
        redact(
            None, "info", {"event": "x", "path": f"/{number}{'token' * 3000}=x", "value": {f"{number}-{'k' * 5000}": 1}}
        )
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert 200_000 > used


def test_short_names_are_kept_in_bounds():
    """Of short names, some thousand are cached."""
    redact, levels = Redact(), DropBelow(Levels(20, {}))
    tracemalloc.start()
    for number in range(20_000):
        redact(None, "info", {"event": "x", "value": {f"name{number}": 1}})
        levels(type("Named", (), {"name": "x" * 1000})() if number % 2000 == 0 else None, "info", {})
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert 1_500_000 > used
