"""Who else drains: a HUP ends the old workers while new ones serve, and must not take the instance out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from scaleobs import group
from scaleobs.group.kinds import Kind
from scaleobs.group.recognition import started

_KEY = b"drain"


def mark() -> group.Slots:
    """
    Return one number that the other workers read: a worker drains where it is its pid.

    It isn't a flag, so that who takes over a dead worker's ledger doesn't seem to drain. Without a place to meet nobody
    reads it.
    """
    with contextlib.suppress(Exception):
        mine = group.join()
        if mine is not None:
            return mine.slots(Kind.DRAIN, _KEY, 1)
    return [0.0]


def all_others_drain() -> bool:
    """
    Return whether every other living worker drains as well; true where there is none, or no place to meet.

    A worker that was started after this one and hasn't loaded the application yet is one that doesn't drain. Costs as
    much as reading the others' ledgers; asked by a worker that drains, and by no other.
    """
    try:
        mine = group.join()
        if mine is None:
            return True
        known = {os.getpid()}
        for sibling in mine.others():
            if sibling.is_living:
                entry = sibling.find(Kind.DRAIN, _KEY, 1)
                if entry is None or sibling.part(entry)[0] != sibling.owner:
                    return False
                known.add(sibling.owner)
        return all(pid in known for pid in _younger_siblings(mine.root.pid))
    except Exception:  # The place is gone, or a ledger is damaged: better out of the way than silent.
        return True


def _younger_siblings(parent: int) -> Iterator[int]:
    """Yield the parent's children that are younger than this process."""
    born = started(os.getpid())
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                since = started(pid)
                if since > born:
                    yield pid
