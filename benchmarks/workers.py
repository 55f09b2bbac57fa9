"""
The cost of many workers: each counts in its own file, and the one that is scraped adds up all files.

Per request: one of many workers beside the same thing alone. Per scrape: each worker has news of every series, as in
`scrape`, and the copies that scaleobs keeps against damage are as old as they are at the pace of Prometheus.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks import requests, runner
from benchmarks.report import Row, Section, Verdict, at_least, at_most
from benchmarks.subjects import groups, pages
from benchmarks.subjects.groups import FLOOR, IN_GROUP, OURS, PEER

_LABEL_SETS = 680
_ROUNDS = 15
_PEERS_ROUNDS = {8: 5, 64: 2}
"""The rounds of prometheus_client by number of workers; each takes seconds."""
_FASTER = {8: 30, 64: 45}

_REQUEST_COLUMNS = {
    "us added, best": ".2f",
    "us, median": ".2f",
    "x floor, best": ".2f",
    "x, median": ".2f",
    "x alone, best": ".2f",
    "x alone, median": ".2f",
}
_SCRAPE_COLUMNS = {
    "ms, best": ".1f",
    "ms, median": ".1f",
    "x floor, best": ".2f",
    "x, median": ".2f",
    "peer / it, best": ".1f",
    "peer, median": ".1f",
    "peak memory / text": ".1f",
    "MB of text": ".2f",
}


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield a section per protocol, and one per number of workers; with `quick`, only the smaller number."""
    for protocol in requests.PROTOCOLS:
        yield _requests(protocol)
    for workers in _FASTER:
        if not quick or workers == min(_FASTER):
            yield _scrapes(workers, _ROUNDS // 3 if quick else _ROUNDS)


def prepare(what: str, name: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a subject's worker: it serves a protocol, or is scraped with this number of workers."""
    if what in requests.PROTOCOLS:
        module = requests.PROTOCOLS[what]
        return requests.actions(module, groups.prepare(module, name), is_null=True)
    labels = pages.label_sets(_LABEL_SETS)
    first = [(one, 0.004 * number) for number, one in enumerate(labels)]
    crowd = groups.crowd(name, int(what), first, [(one, 0.02) for one in labels])
    observed = 1
    crowd.scrape()
    gc.collect()
    gc.freeze()

    def observe() -> None:
        nonlocal observed
        crowd.observe()
        observed += 1
        gc.collect()

    def measure() -> float:
        observe()
        begun = time.process_time()
        crowd.scrape()
        return time.process_time() - begun

    def peak() -> tuple[float, int]:
        """Return the most memory that a scrape held, divided by its text, and the text's length."""
        observe()
        tracemalloc.start()
        length = sum(map(len, crowd.scrape()))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / length, length

    def check() -> str:
        page = crowd.scrape()
        expected = len(labels) * pages.SAMPLES_PER_LABEL_SET, int(what) * len(labels) * observed
        shown = pages.samples_of(page), pages.requests_of(page)
        return "" if shown == expected else f"has {expected} samples and requests, and showed {shown}"

    return {"measure": measure, "peak": peak, "check": check}


def _requests(protocol: str) -> Section:
    names = ["bare", "bare again", FLOOR, *(name for pair in IN_GROUP.items() for name in pair)]
    subjects = {name: (protocol, name) for name in names}
    runs = runner.in_turns("workers", subjects, rounds=requests.NULL_ROUNDS)
    times = {run.name: [1e6 * seconds for seconds in run.rounds] for run in runs if not run.failure}
    bare = times["bare"]
    added = {name: (min(its) - min(bare), requests.median_difference(its, bare)) for name, its in times.items()}
    alone = {in_group: name for name, in_group in IN_GROUP.items()}
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
        elif not run.name.startswith("bare"):
            numbers = [*added[run.name], *_divided(added[run.name], added[FLOOR])]
            verdicts: tuple[Verdict, ...] = ()
            if alone.get(run.name) in added:
                numbers += _divided(added[run.name], added[alone[run.name]])
                verdicts = (at_most(1.2, numbers[-2], "x alone"),) if run.name == IN_GROUP[OURS] else ()
            values = dict(zip(_REQUEST_COLUMNS, numbers, strict=False))
            rows.append(Row(run.name, values, verdicts, rounds=tuple(times[run.name])))
    again = added.get("bare again", (0.0, 0.0))
    note = f"bare {min(bare):.2f} us a request; measured again: {again[0]:+.2f} us (best), {again[1]:+.2f} us (median)"
    return Section(f"Requests to one of many workers, {protocol.upper()}, null", _REQUEST_COLUMNS, tuple(rows), note)


def _scrapes(workers: int, rounds: int) -> Section:
    subjects = {name: (str(workers), name) for name in (FLOOR, OURS, PEER)}
    fewer = {PEER: min(rounds, _PEERS_ROUNDS[workers])}
    runs = runner.in_turns("workers", subjects, rounds=rounds, last="peak", seldom=fewer)
    times = {run.name: [1e3 * seconds for seconds in run.rounds] for run in runs}
    both = {name: (min(its), median(its)) for name, its in times.items() if its}
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
            continue
        over, faster = _divided(both[run.name], both[FLOOR]), _divided(both.get(PEER, (0.0, 0.0)), both[run.name])
        peak, length = run.last
        numbers = (*both[run.name], *over, *faster, peak, length / 1e6)
        verdicts: tuple[Verdict, ...] = ()
        if run.name == OURS:
            faster_by = at_least(_FASTER[workers], faster[0], "x faster than prometheus_client")
            verdicts = at_most(2, over[0], "x floor"), faster_by, at_most(2.5, peak, "x text")
        values = dict(zip(_SCRAPE_COLUMNS, numbers, strict=True))
        rows.append(Row(run.name, values, verdicts, rounds=tuple(times[run.name])))
    lines = _LABEL_SETS * pages.SAMPLES_PER_LABEL_SET
    spread = 100 * (both[FLOOR][1] / both[FLOOR][0] - 1)
    note = f"{lines:,} lines from each, every series with news; the floor's median is {spread:.0f} % above its best"
    return Section(f"Scrape of {workers} workers", _SCRAPE_COLUMNS, tuple(rows), note)


def _divided(own: tuple[float, float], its: tuple[float, float]) -> list[float]:
    return [own[0] / its[0], own[1] / its[1]]
