"""
What a label set costs in memory, with its counter and its histogram, after it was scraped once.

Every bucket is counted past 256, up to where CPython shares small integers: a young process would flatter those
who count in integers. What a scrape leaves behind to be faster the next time is counted; its text is not.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import runner
from benchmarks.report import Row, Section, at_most
from benchmarks.subjects import floor, pages

_LABEL_SETS = 200
_PER_BUCKET = 260
_COLUMNS = {"bytes": ".0f", "x floor": ".2f"}
_SUBJECTS = {name: (name,) for name in pages.PAGES if "OpenMetrics" not in name}


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield the one section; it is quick."""
    del quick
    runs = runner.in_turns("memory", _SUBJECTS, rounds=1)
    [least] = next(run.rounds for run in runs if run.name == "floor")
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
        else:
            [used] = run.rounds
            verdicts = (at_most(2500, used, "bytes"),) if run.name.startswith("scaleobs") else ()
            rows.append(Row(run.name, dict(zip(_COLUMNS, (used, used / least), strict=True)), verdicts))
    yield Section("Memory per label set", _COLUMNS, tuple(rows))


def prepare(name: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a subject's worker."""
    page = pages.PAGES[name]()
    first, *labels = pages.label_sets(1 + _LABEL_SETS)
    middles = [bound * 0.99 for bound in (*floor.BOUNDS, 2 * floor.BOUNDS[-1])]
    page.observe([(first, 1.0)])
    page.scrape()  # Objects that the first use creates are created now.

    def measure() -> float:
        """Return the bytes per label set."""
        gc.collect()
        tracemalloc.start()
        for one in labels:
            page.observe([(one, seconds) for seconds in middles] * _PER_BUCKET)
        page.scrape()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used / len(labels)

    def check() -> str:
        expected = (1 + len(labels)) * pages.SAMPLES_PER_LABEL_SET
        shown = pages.samples_of(page.scrape())
        return "" if shown == expected else f"has {expected} samples and showed {shown}"

    return {"measure": measure, "check": check}
