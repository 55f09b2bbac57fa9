"""
The cost of counting a request: the time of a request with a middleware, minus that of the bare application.

The time is processor time: nothing waits, and other processes of the machine must not count.
The garbage collector runs as in production, for all subjects.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from statistics import median
from types import ModuleType
from typing import Any

from benchmarks import runner
from benchmarks.report import Row, Section, Verdict, at_most
from benchmarks.subjects import PATH, Subject, asgi, wsgi

PROTOCOLS: dict[str, ModuleType] = {"asgi": asgi, "wsgi": wsgi}
_WARM_UP = 400
# Many short rounds: each subject should run while the machine is fastest. A framework's requests take longer, and a
# round needs enough of them to have its share of garbage collections.
NULL_ROUNDS, _NULL_ROUND_SECONDS = 201, 0.008
_FRAMEWORK_ROUNDS, _FRAMEWORK_ROUND_SECONDS = 101, 0.016
_COLUMNS = {"us added, best": ".2f", "us, median": ".2f", "x floor, best": ".2f", "x, median": ".2f"}

_METRICS, _EVERYTHING = "scaleobs, metrics alone", "scaleobs, everything"
_BUDGETS = {("asgi", "null"): 1.3, ("wsgi", "null"): 1.5}
_FRAMEWORK_BUDGET, _EVERYTHING_BUDGET, _SCRAPE_BUDGET = 1.6, 10, 1.2

_BATCH = 100
"""How many requests follow each scrape: those of seven seconds at 15 a second."""
_AFTER = {"bare": "", "no scrape": "", "text": "text/plain", "OpenMetrics": "application/openmetrics-text"}
_AFTER_COLUMNS = {"us added, best": ".2f", "us, median": ".2f", "x no scrape, best": ".2f", "x, median": ".2f"}


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield two sections per null application, and one per framework unless it is quick."""
    for protocol, module in PROTOCOLS.items():
        for framework in module.SUBJECTS:
            if framework == "null" or "two templates" in framework or not quick:
                yield _section(protocol, framework)
        yield _after_a_scrape(protocol)


def prepare(protocol: str, framework: str, name: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a subject's worker."""
    module = PROTOCOLS[protocol]
    if framework == "after a scrape":
        return _after_a_scrape_of(module, name)
    return actions(module, module.prepare(framework, name), is_null=framework == "null")


def actions(module: ModuleType, subject: Subject, *, is_null: bool) -> dict[str, Callable[[], Any]]:
    """Return the actions of a worker with a subject of a protocol."""
    module.get(subject.app, PATH)  # Fails if the application does not answer.
    drive = module.driver(subject.app)
    drive(_WARM_UP)
    served = 1 + _WARM_UP

    def measure(requests: int | None = None) -> float:
        """Return the seconds of one request."""
        nonlocal served
        requests = per_round if requests is None else requests
        gc.collect()
        begun = time.process_time()
        drive(requests)
        seconds = time.process_time() - begun
        served += requests
        return seconds / requests

    def check() -> str:
        counted = served if subject.counted is None else subject.counted()
        return "" if counted == served else f"served {served} requests and counted {counted:g}"

    # What preparing left behind is not looked at by every collection, however much a peer has imported.
    gc.collect()
    gc.freeze()
    round_seconds = _NULL_ROUND_SECONDS if is_null else _FRAMEWORK_ROUND_SECONDS
    per_round = max(20, int(round_seconds / measure(_WARM_UP)))
    return {"measure": measure, "check": check}


def _after_a_scrape_of(module: ModuleType, name: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a worker that serves requests after a scrape, which is not timed, in one format or none."""
    subject = module.prepare("null", "bare" if name == "bare" else _METRICS)
    accept = _AFTER[name]
    scrape, drive = module.scraper_and_driver(subject.app, accept)
    drive(_WARM_UP)
    served = _WARM_UP

    def measure(batches: int = 20) -> float:
        """Return the seconds of one request."""
        nonlocal served
        seconds = 0.0
        gc.collect()
        for _ in range(batches):
            if accept:
                scrape()
            begun = time.process_time()
            drive(_BATCH)
            seconds += time.process_time() - begun
        served += batches * _BATCH
        return seconds / batches / _BATCH

    def check() -> str:
        counted = served if subject.counted is None else subject.counted()
        return "" if counted == served else f"served {served} requests and counted {counted:g}"

    gc.collect()
    gc.freeze()
    return {"measure": measure, "check": check}


def _after_a_scrape(protocol: str) -> Section:
    subjects = {name: (protocol, "after a scrape", name) for name in _AFTER}
    runs = runner.in_turns("requests", subjects, rounds=_FRAMEWORK_ROUNDS)
    rounds = {run.name: [1e6 * seconds for seconds in run.rounds] for run in runs if not run.failure}
    best = {name: min(times) - min(rounds["bare"]) for name, times in rounds.items()}
    middle = {name: median_difference(times, rounds["bare"]) for name, times in rounds.items()}
    rows = []
    for run in runs[1:]:
        title = run.name if run.name == "no scrape" else f"after a scrape, {run.name}"
        if run.failure:
            rows.append(Row(title, failure=run.failure))
            continue
        ratio = best[run.name] / best["no scrape"]
        numbers = best[run.name], middle[run.name], ratio, middle[run.name] / middle["no scrape"]
        verdicts = () if run.name == "no scrape" else (at_most(_SCRAPE_BUDGET, ratio, "x no scrape"),)
        rows.append(
            Row(title, dict(zip(_AFTER_COLUMNS, numbers, strict=True)), verdicts, rounds=tuple(rounds[run.name]))
        )
    note = f"scaleobs, metrics alone: the {_BATCH} requests after each scrape"
    return Section(f"Requests after a scrape, {protocol.upper()}, null", _AFTER_COLUMNS, tuple(rows), note)


def _section(protocol: str, framework: str) -> Section:
    names = PROTOCOLS[protocol].SUBJECTS[framework]
    subjects = {name: (protocol, framework, name) for name in names}
    round_count = NULL_ROUNDS if framework == "null" or "two templates" in framework else _FRAMEWORK_ROUNDS
    runs = runner.in_turns("requests", subjects, rounds=round_count)
    rounds = {run.name: [1e6 * seconds for seconds in run.rounds] for run in runs if not run.failure}
    bare = rounds["bare"]
    best = {name: min(times) - min(bare) for name, times in rounds.items()}
    middle = {name: median_difference(times, bare) for name, times in rounds.items()}
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
        elif run.name not in ("bare", "bare again"):
            added = best[run.name], middle[run.name]
            numbers = *added, added[0] / best["floor"], added[1] / middle["floor"]
            values = dict(zip(_COLUMNS, numbers, strict=True))
            rows.append(
                Row(run.name, values, _verdicts(protocol, framework, run.name, best), rounds=tuple(rounds[run.name]))
            )
    spread = 100 * (median(bare) / min(bare) - 1)
    note = (
        f"bare {min(bare):.2f} us a request, its median {spread:.0f} % above its best; bare measured again: "
        f"{best['bare again']:+.2f} us (best), {middle['bare again']:+.2f} us (median)"
    )
    return Section(f"Requests, {protocol.upper()}, {framework}", _COLUMNS, tuple(rows), note)


def median_difference(times: list[float], bare: list[float]) -> float:
    """Return the median difference to the bare application of the same round, which a slow machine affects alike."""
    return median(own - its for own, its in zip(times, bare, strict=True))


def _verdicts(protocol: str, framework: str, name: str, best: dict[str, float]) -> tuple[Verdict, ...]:
    """Return the verdicts of a subject on its budget."""
    ratio = best[name] / best["floor"]
    if name == _METRICS:
        return (at_most(_BUDGETS.get((protocol, framework), _FRAMEWORK_BUDGET), ratio, "x floor"),)
    if name == _EVERYTHING and framework == "null":
        return (at_most(_EVERYTHING_BUDGET, ratio, "x floor"),)
    return ()
