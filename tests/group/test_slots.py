"""The slots of a worker: in its ledger, or in its own memory if that has no room."""

from __future__ import annotations

import os

import pytest

from scaleobs._workers import Group, Root, ledger
from scaleobs._workers.kinds import Kind
from scaleobs._workers.recognition import start_ticks


@pytest.fixture
def own_group(monkeypatch, tmp_path):
    """Make this process a worker, alone in its group."""
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    return Group(Root("gunicorn", os.getpid(), start_ticks(os.getpid()), 0))


def test_slots_are_those_of_the_ledger(own_group):
    """They are plain memory, the same for the same kind and key, and 0 at first; another kind has others."""
    slots = own_group.slots(Kind.TALLY, b"some", 2)
    slots[1] += 3

    assert memoryview is type(slots)
    assert "d" == slots.format
    assert (
        [0, 3]
        == own_group.slots(Kind.TALLY, b"some", 2).tolist()
        == own_group.ledger.slots(Kind.TALLY, b"some", 2).tolist()
    )
    assert [0, 0] == own_group.slots(Kind.OPEN, b"some", 2).tolist()


def test_slots_without_room(own_group, monkeypatch):
    """They are a new list in this process; this is reported once, for all of them together."""

    def full(*_):
        raise OSError(28, "No space left on device")

    reported = []
    own_group.on_error = reported.append
    monkeypatch.setattr(ledger.os, "posix_fallocate", full)
    one, other = (own_group.slots(kind, b"some", 100_000) for kind in (Kind.TALLY, Kind.OPEN))
    one[0] = 1

    assert [[1, *[0] * 99_999], [0] * 100_000] == [one, other]
    assert ["No space left on device"] == list(map(str, reported))
