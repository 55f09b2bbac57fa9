"""
What a log line costs, from the call to the write, to /dev/null and into a pipe that is read.

The floor is `orjson.dumps` and a write. Each line has three fields of its own; scaleobs adds logger, service, version
and what identifies a request, looks for secrets, bounds the line and counts it, which the others don't.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from statistics import median
from typing import Any

from benchmarks import runner
from benchmarks.report import Row, Section, Verdict, at_most

_COLUMNS = {"us a line, best": ".2f", "us, median": ".2f", "x floor, best": ".2f"}
_ROUNDS, _ROUND_SECONDS, _WARM_UP = 201, 0.008, 400
_FLOOR = "orjson and a write"
_BY_HAND, _OURS = "structlog with orjson, by hand", "scaleobs, structlog"
_BARE, _OURS_STDLIB = "stdlib, a bare orjson formatter", "scaleobs, stdlib"
_TARGETS = ("/dev/null", "a pipe")

Line = Callable[[int], None]


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield a section per target; with `quick`, only the one with budgets."""
    for target in _TARGETS[: 1 if quick else None]:
        yield _section(target, rounds=_ROUNDS // (2 if quick else 1))


def prepare(target: str, name: str) -> dict[str, Callable[[], Any]]:
    """Return the actions of a subject's worker."""
    written = _written_to(target)
    log = _SUBJECTS[name]()

    def drive(lines: int) -> None:
        for number in range(lines):
            log(number)

    def measure(lines: int | None = None) -> float:
        """Return the seconds of one line."""
        lines = per_round if lines is None else lines
        gc.collect()
        begun = time.thread_time()
        drive(lines)
        return (time.thread_time() - begun) / lines

    def check() -> str:
        if target == "/dev/null":
            return ""
        log(-1)
        return written()

    measure(_WARM_UP)
    gc.collect()
    gc.freeze()
    per_round = max(20, int(_ROUND_SECONDS / measure(_WARM_UP)))
    return {"measure": measure, "check": check}


def _written_to(target: str) -> Callable[[], str]:
    """Make stdout a pipe that a thread reads, if that is the target; return a function that checks for a JSON line."""
    if target == "/dev/null":
        return str
    read, write = os.pipe()
    os.dup2(write, 1)
    last: list[bytes] = []

    def empty() -> None:
        while piece := os.read(read, 1 << 16):
            last[:] = [piece]

    threading.Thread(target=empty, daemon=True).start()

    def check() -> str:
        time.sleep(0.2)
        line = last[0].splitlines()[-1]
        return "" if "order.placed" in json.loads(line).values() else f"wrote {line!r}"

    return check


def _floor() -> Line:
    import orjson

    def log(number: int) -> None:
        line = {"timestamp": time.time(), "level": "info", "event": "order.placed", "order": number}
        os.write(1, orjson.dumps({**line, "customer": "anna", "amount": 12.5}) + b"\n")

    return log


def structlog_by_hand() -> Line:
    """Configure structlog as its page on performance recommends, and return a function that writes a line."""
    import orjson
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return _output_of(structlog.get_logger())


def _ours() -> Line:
    import scaleobs

    scaleobs.configure_logging(service="orders", version="1.4.2", log_format="json")
    return _output_of(scaleobs.get_logger("shop"))


def _output_of(logger: Any) -> Line:
    def log(number: int) -> None:
        logger.info("order.placed", order=number, customer="anna", amount=12.5)

    return log


def _stdlib() -> Line:
    def log(number: int) -> None:
        logger.info("order.placed", extra={"order": number, "customer": "anna", "amount": 12.5})

    logger = logging.getLogger("shop")
    return log


def _ours_stdlib() -> Line:
    _ours()
    return _stdlib()


def _formatted_by(formatter: logging.Formatter) -> Line:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return _stdlib()


_USUAL = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"taskName"}


class _Bare(logging.Formatter):
    """The least formatter with time, level, message, logger and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "event": record.getMessage(),
            "logger": record.name,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _USUAL}
        return orjson.dumps(line).decode()


def _python_json_logger(module: str) -> Line:
    import importlib

    library = importlib.import_module(f"pythonjsonlogger.{module}")
    kind = library.OrjsonFormatter if module == "orjson" else library.JsonFormatter
    return _formatted_by(kind("{asctime}{levelname}{name}{message}", style="{"))


_SUBJECTS: dict[str, Callable[[], Line]] = {
    _FLOOR: _floor,
    "the same again": _floor,
    _BY_HAND: structlog_by_hand,
    _OURS: _ours,
    _BARE: lambda: _formatted_by(_Bare()),
    _OURS_STDLIB: _ours_stdlib,
    "python-json-logger with orjson": lambda: _python_json_logger("orjson"),
    "python-json-logger": lambda: _python_json_logger("json"),
}


def _section(target: str, *, rounds: int) -> Section:
    runs = runner.in_turns("logs", {name: (target, name) for name in _SUBJECTS}, rounds=rounds)
    times = {run.name: [1e6 * seconds for seconds in run.rounds] for run in runs if not run.failure}
    best = {name: min(values) for name, values in times.items()}
    rows = []
    for run in runs:
        if run.failure:
            rows.append(Row(run.name, failure=run.failure))
            continue
        numbers = best[run.name], median(times[run.name]), best[run.name] / best[_FLOOR]
        values = dict(zip(_COLUMNS, numbers, strict=True))
        rows.append(Row(run.name, values, _verdicts(target, run.name, best), rounds=tuple(times[run.name])))
    spread = 100 * (median(times[_FLOOR]) / best[_FLOOR] - 1)
    return Section(
        f"Log lines to {target}", _COLUMNS, tuple(rows), f"the floor's median is {spread:.0f} % above its best"
    )


def _verdicts(target: str, name: str, best: dict[str, float]) -> tuple[Verdict, ...]:
    """Return the verdicts of a subject on its budgets, which apply to /dev/null."""
    if target != "/dev/null":
        return ()
    if name == _OURS:
        return (at_most(1, best[name] / best[_BY_HAND], "x by hand"),)
    return (at_most(1.15, best[name] / best[_BARE], "x bare"),) if name == _OURS_STDLIB else ()
