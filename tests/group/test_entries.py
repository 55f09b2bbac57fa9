"""A ledger is compared with a copy of it: all slots at once, or one by one."""

from __future__ import annotations

import math
import os

import pytest

from scaleobs._workers import Ledger, Sibling
from scaleobs._workers.kinds import Kind
from scaleobs._workers.ledger import MAX_COUNT, EntryLayout, entries_of, has_fallen, numbers_of

GROWING, FREE = Kind.DURATION, Kind.USER_VALUE


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.set_owner()
    for number in range(20):
        ledger.slots(GROWING, b"counted %d" % number, 3)[1] = number
        ledger.slots(FREE, b"a gauge %d" % number, 2)[0] = number
    return ledger


def layout_of(data):
    layout = EntryLayout()
    layout.add(entries_of(data))
    return layout


@pytest.mark.parametrize(
    ("number", "has"),
    [
        (7.0, False),
        (7.5, False),
        (8.0, False),
        (MAX_COUNT - 1, False),
        (5e-324, True),
        (6.999999999999999, True),
        (0.0, True),
        (-0.0, True),
        (-7.0, True),
        (-math.inf, True),
        (MAX_COUNT, True),
        (math.inf, True),
        (math.nan, True),
        (-math.nan, True),
    ],
)
def test_number_that_has_fallen(number, has, ledger):
    """It is found in any position, and both comparisons agree; a gauge may fall."""
    ledger.slots(GROWING, b"counted 7", 3)[:] = memoryview(bytes(24)).cast("d")
    ledger.slots(GROWING, b"counted 7", 3)[0] = 7.0
    then = ledger.read()
    ledger.slots(FREE, b"a gauge 7", 2)[0] = -5
    ledger.slots(GROWING, b"counted 19", 3)[2] = 0.25
    ledger.slots(GROWING, b"counted 7", 3)[0] = number
    now = ledger.read()

    assert has == has_fallen(then, now)
    assert has == has_fallen(then, now, layout_of(now))
    assert layout_of(now).has_grown(then, now) is not has


def test_key_that_has_changed(ledger):
    """Keys are compared, too."""
    then = ledger.read()
    now = then.replace(b"counted 11", b"counted 99")

    assert not layout_of(then).has_grown(then, now)
    assert has_fallen(then, now, layout_of(then))


def test_copy_that_is_older_than_an_entry(ledger):
    """It has fewer entries, so that slots are compared one by one; the next copy has all."""
    then = ledger.read()
    ledger.slots(GROWING, b"new", 4)[3] = 1
    now = ledger.read()

    assert not layout_of(now).has_grown(then, now)
    assert not has_fallen(then, now, layout_of(now))
    assert layout_of(now).has_grown(now, now)
    assert numbers_of(now)[entries_of(now)[-1].end - 1] == 1


def test_ledger_that_grows_while_it_is_read(ledger, monkeypatch):
    """Entries that were appended after the length was read are read, too, and are no damage."""
    for number in range(2000):
        ledger.slots(GROWING, b"many %d" % number, 14)
    other, length = Sibling(ledger.path), os.fstat
    grown = iter(range(2))

    def grows(file):
        before = length(file)
        for more in range(3000 if next(grown, None) is not None else 0):
            ledger.slots(GROWING, b"more %d %d" % (before.st_size, more), 14)
        return before

    monkeypatch.setattr(os, "fstat", grows)

    assert len(entries_of(other.read())) == len(other._entries[GROWING]) + len(other._entries[FREE]) > 5000
