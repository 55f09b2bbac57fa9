"""
What an import adds to the start of Python, bytecode already compiled.

Wall time is measured: a start waits for files. There is no floor, so the budgets are in milliseconds and depend
on the machine; the time of prometheus_client shows how fast this one is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from benchmarks.report import Row, Section, at_most

_ROUNDS = 15
_COLUMNS = {"ms added, best": ".0f", "ms, median": ".0f"}
_BARE = "bare"
_INSTRUMENT = """
import scaleobs
async def app(scope, receive, send): ...
scaleobs.instrument(app)
"""
_DEPENDENCIES = "prometheus_client and structlog"
_FIRST_CALL = "scaleobs, first instrument()"
_PROGRAMS = {
    _BARE: "pass",
    "bare again": "pass",
    "scaleobs": "import scaleobs",
    _FIRST_CALL: _INSTRUMENT,
    _DEPENDENCIES: "import prometheus_client, structlog",
    "prometheus_client": "import prometheus_client",
    "structlog": "import structlog",
    "starlette-exporter": "import starlette_exporter",
    "fastapi-instrumentator": "import prometheus_fastapi_instrumentator",
    "prometheus-flask-exporter": "import prometheus_flask_exporter",
    "opentelemetry asgi, with sdk": "import opentelemetry.instrumentation.asgi, opentelemetry.sdk.metrics",
}
_BESIDE = f"{_FIRST_CALL}, beside both"
_BUDGETS = {"scaleobs": 20, _FIRST_CALL: 150, _BESIDE: 40}


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield the one section."""
    names = list(_PROGRAMS)[:5] if quick else list(_PROGRAMS)
    failures = {name: failure for name in names if (failure := _failure(name))}  # Also compiles the bytecode.
    times: dict[str, list[float]] = {name: [] for name in names if name not in failures}
    for _ in range(_ROUNDS // 3 if quick else _ROUNDS):
        for name, rounds in times.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", _PROGRAMS[name]], check=True, stdout=subprocess.DEVNULL)
            rounds.append(1e3 * (time.perf_counter() - begun))
    bare = times[_BARE]
    rows = []
    for name in names[1:]:
        if name in failures:
            rows.append(Row(name, failure=failures[name]))
        else:
            rows.append(_row(name, times[name], bare))
        if name == _DEPENDENCIES and not failures.keys() & {_FIRST_CALL, _DEPENDENCIES}:
            rows.append(_row(_BESIDE, times[_FIRST_CALL], times[_DEPENDENCIES]))
    spread = 100 * (median(bare) / min(bare) - 1)
    note = f"bare Python starts in {min(bare):.0f} ms, its median {spread:.0f} % above its best"
    yield Section("Imports", _COLUMNS, tuple(rows), note)


def _failure(name: str) -> str:
    # Bytecode is kept even if the environment disables it: compiling is not part of a start.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", _PROGRAMS[name]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    return (done.stderr.strip().splitlines() or ["no word"])[-1] if done.returncode else ""


def _row(name: str, rounds: list[float], base: list[float]) -> Row:
    """Return what the rounds of a program take longer than those of another one."""
    best = min(rounds) - min(base)
    middle = median(one - other for one, other in zip(rounds, base, strict=True))
    verdicts = (at_most(_BUDGETS[name], best, "ms"),) if name in _BUDGETS else ()
    return Row(name, dict(zip(_COLUMNS, (best, middle), strict=True)), verdicts, rounds=tuple(rounds))
