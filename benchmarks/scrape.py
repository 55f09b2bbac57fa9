"""
What a scrape costs: from storage to the bytes of `/metrics`.

Before each round every series gets a new observation, so that text kept from the scrape before is worth nothing:
the most expensive case. scaleobs is requested through its ASGI middleware, the others by a call of their function.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks import runner
from benchmarks.report import Row, Section, Verdict, at_most
from benchmarks.subjects import pages

_ROUNDS = {10_000: 15, 100_000: 5}
_COLUMNS = {
    "ms, best": ".1f",
    "ms, median": ".1f",
    "x floor, best": ".2f",
    "x, median": ".2f",
    "peak memory / text": ".1f",
    "MB of text": ".2f",
}


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield a section per size of the page."""
    for samples, rounds in _ROUNDS.items():
        # OpenMetrics of prometheus_client takes seconds for a page; the smaller page shows the same ratio.
        names = [name for name in pages.PAGES if samples == min(_ROUNDS) or "OpenMetrics" not in name]
        if not quick:
            yield _section(samples, names, rounds)
        elif samples == min(_ROUNDS):
            yield _section(samples, names, rounds // 3)


def prepare(name: str, samples: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a subject's worker."""
    page = pages.PAGES[name]()
    labels = pages.label_sets(int(samples) // pages.SAMPLES_PER_LABEL_SET)
    news = [(one, 0.02) for one in labels]
    page.observe([(one, 0.004 * number) for number, one in enumerate(labels)])
    page.scrape()
    gc.collect()
    gc.freeze()

    def measure() -> float:
        page.observe(news)
        gc.collect()
        begun = time.process_time()
        page.scrape()
        return time.process_time() - begun

    def peak() -> tuple[float, int]:
        """Return the most memory that a scrape held, divided by its text, and the text's length."""
        page.observe(news)
        gc.collect()
        tracemalloc.start()
        text = page.scrape()
        length = sum(map(len, text))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / length, length

    def check() -> str:
        expected = len(labels) * pages.SAMPLES_PER_LABEL_SET
        shown = pages.samples_of(page.scrape())
        return "" if shown == expected else f"has {expected} samples and showed {shown}"

    return {"measure": measure, "peak": peak, "check": check}


def _section(samples: int, names: list[str], rounds: int) -> Section:
    subjects = {name: (name, str(samples)) for name in names}
    runs = runner.in_turns("scrape", subjects, rounds=rounds, last="peak")
    times = {run.name: [1e3 * seconds for seconds in run.rounds] for run in runs}
    floor = times["floor"]
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
            continue
        own = times[run.name]
        peak, length = run.last
        ratios = min(own) / min(floor), median(own) / median(floor)
        values = dict(zip(_COLUMNS, (min(own), median(own), *ratios, peak, length / 1e6), strict=True))
        rows.append(Row(run.name, values, _verdicts(run.name, ratios[0], peak), rounds=tuple(own)))
    spread = 100 * (median(floor) / min(floor) - 1)
    note = f"every series has news; the floor's median is {spread:.0f} % above its best"
    return Section(f"Scrape of {samples:,} samples", _COLUMNS, tuple(rows), note)


def _verdicts(name: str, ratio: float, peak: float) -> tuple[Verdict, ...]:
    if not name.startswith("scaleobs"):
        return ()
    return at_most(2, ratio, "x floor"), at_most(2.5, peak, "x text")
