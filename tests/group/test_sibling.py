"""Another worker's ledger, as it is read."""

from __future__ import annotations

import os

from scaleobs.group import Ledger, Sibling
from scaleobs.group.kinds import Kind


def test_numbers_of_one_entry(tmp_path):
    """They are those of the moment, and those of a copy where that is shown instead."""
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.cells(Kind.DURATION, b"before", 5)
    cells = ledger.cells(Kind.LINES, b"some", 3)
    ledger.cells(Kind.PULSE, b"after", 1)
    cells[0], cells[2] = 1.5, -2
    other = Sibling(ledger.path)
    other.read()
    entry = other.entries[1]
    first = other.part(entry).tolist()
    cells[1] = 7
    second = other.part(entry).tolist()
    other.take(ledger.read())
    cells[1] = 8
    copied = other.part(entry).tolist()

    assert (Kind.LINES, b"some") == (entry.kind, entry.key)
    assert [1.5, 0, -2] == first
    assert [1.5, 7, -2] == second
    assert [1.5, 7, -2] == copied


def test_entry_of_a_file_that_was_cut(tmp_path):
    """Numbers that are no more are 0."""
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.cells(Kind.DURATION, b"some", 2)[0] = 1
    other = Sibling(ledger.path)
    other.read()
    os.truncate(ledger.path, 0)

    assert [0, 0] == other.part(other.entries[0]).tolist()
