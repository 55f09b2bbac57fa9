"""How many lines were written, by level, and how many were lost."""

from __future__ import annotations

import threading
import weakref
from collections.abc import MutableSequence
from typing import Any

from scaleobs._fork import Step, after_fork
from scaleobs.catalog import LOG_LEVELS

KINDS = len(LOG_LEVELS) + 1
"""The levels, and `LOST` behind them."""

LOST = len(LOG_LEVELS)
DEBUG, INFO, WARNING, ERROR, CRITICAL = range(LOST)
LEVELS = {name: place for place, name in enumerate(LOG_LEVELS)}

Cells = MutableSequence[float]

# A signal's handler may log while its thread counts.
lock = threading.RLock()
_counted_in: weakref.WeakKeyDictionary[Any, Cells] = weakref.WeakKeyDictionary()
# What was written before anybody was there to count for.
_before: Cells = [0] * KINDS
# Where to count; with the lock, since one of them may belong to a service that another thread makes now.
places: tuple[Cells, ...] = (_before,)


def written() -> dict[str, float]:
    """Return how many lines of each level this process has written, and how many it has lost."""
    return dict(zip((*LOG_LEVELS, "lost"), places[-1], strict=True))


def count_in(owner: Any, cells: Cells, *, goes_on: bool = False) -> None:
    """
    Count lines in an owner's cells, in place of those it had, for as long as it lives.

    Args:
        owner: the first one gets what was counted before, too.
        cells: a place for each kind.
        goes_on: whether what it had counted is added to them.
    """
    global places  # noqa: PLW0603 - The lines of a process are counted together.
    with lock:
        for place, number in enumerate(_counted_in.get(owner, ()) if goes_on else ()):
            cells[place] += number
        for place, number in enumerate(_before):
            cells[place] += number
            _before[place] = 0
        _counted_in[owner] = cells
        places = tuple(_counted_in.values())


def level_of(number: int) -> int:
    """Return the place of a level of the standard library's, also of one between those that have a name."""
    return min(max(number // 10 - 1, DEBUG), CRITICAL)


def _forked() -> None:
    global lock  # noqa: PLW0603 - Another thread of the parent may have held it.
    lock = threading.RLock()
    _before[:] = [0] * KINDS


after_fork(Step.LOG_COUNTS, _forked)
