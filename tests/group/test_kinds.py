"""The kinds of ledger entries, each with a rule that the code keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scaleobs._workers import Ledger
from scaleobs._workers.entries import DamagedError, entries_from, entries_of, has_fallen, used_of
from scaleobs._workers.kinds import Kind, Rule

SOURCE = Path(__file__).parent.parent.parent / "src" / "scaleobs"

GROWING = {"DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TALLY", "LINES", "LOOP_LAG"}


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.own()
    return ledger


def test_kinds_are_unique_and_each_has_a_rule():
    """No two kinds have one number, 0 is none, a file has room for each, and each rule has a kind."""
    numbers = [int(kind) for kind in Kind.__members__.values()]

    assert sorted(set(numbers)) == sorted(numbers)
    assert all(0 < number < 2**16 for number in numbers)
    assert all(isinstance(kind.rule, Rule) for kind in Kind)
    assert set(Rule) == {kind.rule for kind in Kind}
    assert GROWING == {kind.name for kind in Kind if kind.rule is Rule.GROWS}


def test_kinds_have_their_numbers_in_one_file():
    """No other file says what number an entry has."""
    called = re.compile(r"\b(?:cells|slots|find|kept)\(\s*\d")
    found = {path.name: called.findall(path.read_text()) for path in SOURCE.rglob("*.py")}

    assert {} == {name: calls for name, calls in found.items() if calls}


@pytest.mark.parametrize("kind", Kind)
def test_numbers_fall_by_their_rule(kind, ledger):
    """A smaller number is damage if it only grows, and is what the owner wrote otherwise."""
    cells = ledger.cells(kind, b"some", 2)
    cells[1] = 2.0
    then = ledger.read()
    cells[1] = 1.0
    now = ledger.read()

    assert (kind.rule is Rule.GROWS) is has_fallen(then, now)


@pytest.mark.parametrize("kind", Kind)
def test_kind_survives_the_file(kind, ledger):
    """An entry that is read has the kind that it was written with."""
    ledger.cells(kind, b"some", 3)

    (entry,) = entries_of(ledger.read())

    assert (kind, b"some", 3) == (entry.kind, entry.key, entry.end - entry.start)
    assert isinstance(entry.kind, Kind)


def test_entry_of_no_kind_is_damage(ledger):
    """Only another version could have written it, whose ledgers have another magic."""
    ledger.cells(Kind.PULSE, b"some", 1)
    data = bytearray(ledger.read())
    (entry,) = entries_of(bytes(data))
    data[entry.begin + 10 : entry.begin + 12] = b"\xe7\x03"

    with pytest.raises(DamagedError):
        entries_from(bytes(data), entry.begin, used_of(bytes(data))[0])
