"""The kinds of ledger entries, and their rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scaleobs._workers import Ledger
from scaleobs._workers.kinds import Kind, Rule
from scaleobs._workers.ledger import DamagedError, entries_of, has_fallen, parse_entries, read_header

SOURCE = Path(__file__).parent.parent.parent / "src" / "scaleobs"

GROWING = {"DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TALLY", "LINES", "LOOP_LAG", "WEBSOCKET"}


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.set_owner()
    return ledger


def test_kinds_are_unique_and_each_has_a_rule():
    """No two kinds have one number, none is 0, all fit into the file format, and each rule has a kind."""
    numbers = [int(kind) for kind in Kind.__members__.values()]

    assert sorted(set(numbers)) == sorted(numbers)
    assert all(0 < number < 2**16 for number in numbers)
    assert all(isinstance(kind.rule, Rule) for kind in Kind)
    assert set(Rule) == {kind.rule for kind in Kind}
    assert GROWING == {kind.name for kind in Kind if kind.rule is Rule.GROWS}


def test_kinds_have_their_numbers_in_one_file():
    """No other file contains the number of a kind."""
    called = re.compile(r"\b(?:slots|find|entries)\(\s*\d")
    found = {path.name: called.findall(path.read_text()) for path in SOURCE.rglob("*.py")}

    assert {} == {name: calls for name, calls in found.items() if calls}


@pytest.mark.parametrize("kind", Kind)
def test_numbers_fall_by_their_rule(kind, ledger):
    """A smaller number is damage if the kind only grows."""
    slots = ledger.slots(kind, b"some", 2)
    slots[1] = 2.0
    then = ledger.read()
    slots[1] = 1.0
    now = ledger.read()

    assert (kind.rule is Rule.GROWS) is has_fallen(then, now)


@pytest.mark.parametrize("kind", Kind)
def test_kind_survives_the_file(kind, ledger):
    """An entry is read with the kind with which it was written."""
    ledger.slots(kind, b"some", 3)

    (entry,) = entries_of(ledger.read())

    assert (kind, b"some", 3) == (entry.kind, entry.key, entry.end - entry.start)
    assert isinstance(entry.kind, Kind)


def test_entry_of_an_unknown_kind_is_damage(ledger):
    """Only another version could have written it, and its ledgers have another magic."""
    ledger.slots(Kind.PULSE, b"some", 1)
    data = bytearray(ledger.read())
    (entry,) = entries_of(bytes(data))
    data[entry.begin + 10 : entry.begin + 12] = b"\xe7\x03"

    with pytest.raises(DamagedError):
        parse_entries(bytes(data), entry.begin, read_header(bytes(data))[0])
