"""Our own families, which may have thousands of series: from what the storage has read to the pieces of a page."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from scaleobs.catalog import Metric as Family
from scaleobs.metrics.formats import Format, is_shown
from scaleobs.metrics.series import Exemplar, Labels, Series
from scaleobs.metrics.storage import Storage

_AT_ONCE = 32
"""How many series are written at a time: 64 KiB of text, 0.1 ms."""

_AT_ONCE_READ = 256

_Item = TypeVar("_Item")

_Kept = tuple[Any, float, bytes | None, bytes]
"""The template; what all cells added up to; the body, where it is worth keeping; the labels."""

_Row = tuple[Series, list[float], float, bytes, bytes | None, bool]
"""A series; its cumulated counts; its seconds; its labels; the kept body; whether the scrape before saw the same."""


class Kept:
    """
    What a scrape leaves for the next one.

    The text of a series that counted nothing between two scrapes is kept from then on, until it counts again. So what
    is busy costs no memory, what sleeps costs no time, and what was read while another thread was in the middle of
    counting is never kept. The labels aren't in the text, which halves it. Any number of scrapes may share this:
    entries are replaced and never changed.
    """

    def __init__(self) -> None:
        self.series: dict[Labels, _Kept] = {}

    def drop_all_but(self, series: Sequence[Series]) -> None:
        """Forget series that are no more."""
        if len(self.series) > len(series):
            there = {one.labels for one in series}
            for labels in list(self.series):
                if labels not in there:
                    self.series.pop(labels, None)


_kept: weakref.WeakKeyDictionary[Storage, dict[str, Kept]] = weakref.WeakKeyDictionary()


def kept_for(storage: Storage, family: Family) -> Kept:
    """Return what was kept of a histogram."""
    return _kept.setdefault(storage, {}).setdefault(family.name, Kept())


class Histogram:
    """
    The series of one family as they were at one moment.

    Args:
        family: its name, help and labels.
        series: its series.
        kept: what the scrape before has left.
        to: the format to write.
    """

    def __init__(self, family: Family, series: Sequence[Series], kept: Kept, to: Format) -> None:
        self._family = family
        self._series = series
        self._kept = kept
        self._to = to
        self._rows: list[_Row] = []

    def read(self) -> Iterator[bytes]:
        """Read the counts, and yield pauses."""
        kept, to, names = self._kept.series, self._to, self._family.labels
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for some in _portions(self._series, _AT_ONCE_READ):
            for series in some:
                if series.bounds is not bounds:
                    bounds = series.bounds
                    template = to.template(self._family, bounds)
                cells = series.cells.copy()
                # The last of these, requests and seconds added up, changes whenever a cell does.
                cumulated = list(accumulate(cells))
                news = cumulated.pop()
                entry = kept.get(series.labels)
                if entry is not None and entry[0] is template:
                    is_idle, body, labels = entry[1] == news, entry[2], entry[3]
                else:
                    is_idle, body, labels = False, None, to.labels(names, series.labels)
                if not is_idle:
                    body = None
                    kept[series.labels] = (template, news, None, labels)
                self._rows.append((series, cumulated, cells[-1], labels, body, is_idle))
            if len(some) == _AT_ONCE_READ:
                yield b""
        self._kept.drop_all_but(self._series)

    def counter(self, family: Family, unborn: Sequence[Labels]) -> Iterator[bytes]:
        """Yield the family that counts what this one times."""
        yield from self._to.framed(family, self._counters(family, unborn))

    def pieces(self) -> Iterator[bytes]:
        """Yield the family."""
        yield from self._to.framed(self._family, self._bodies())

    def _counters(self, family: Family, unborn: Sequence[Labels]) -> Iterator[list[bytes]]:
        write, has_exemplars, name = self._to.counter, self._to.has_exemplars, family.name.encode()
        for rows in _portions(self._rows, _AT_ONCE_READ):
            yield [
                write(name, labels, cumulated[-1], _latest(series) if has_exemplars and series.exemplars else None)
                for series, cumulated, _, labels, _, _ in rows
            ]
        for portion in _portions(unborn, _AT_ONCE_READ):
            yield [write(name, self._to.labels(family.labels, labels), 0, None) for labels in portion]

    def _bodies(self) -> Iterator[list[bytes]]:
        kept, to, has_exemplars = self._kept.series, self._to, self._to.has_exemplars
        placed = to.placed
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for rows in _portions(self._rows, _AT_ONCE):
            chunk = []
            for series, cumulated, seconds, labels, known, is_idle in rows:
                body = known
                # An exemplar may come a moment after its count, so that its series is written anew.
                is_told = has_exemplars and series.exemplars
                if body is None or is_told:
                    if series.bounds is not bounds:
                        bounds = series.bounds
                        template = to.template(self._family, bounds)
                    body = to.body(template, series, cumulated, seconds)
                    if is_idle and not is_told:
                        kept[series.labels] = (template, cumulated[-1] + seconds, body, labels)
                chunk.append(placed(body, labels))
            yield chunk


def _portions(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _latest(series: Series) -> Exemplar | None:
    shown = [one for one in list(series.exemplars.values()) if is_shown(one)]
    return max(shown, key=lambda one: one.timestamp, default=None)
