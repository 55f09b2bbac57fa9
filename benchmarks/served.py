"""
The requests per second that remain under a real server: uvicorn with its fast parts, Starlette, and wrk.

The server has one processor, which it keeps busy, and wrk another. All servers are up at the same time and all but
one idle. uvicorn's own access line is off; "scaleobs, everything" writes scaleobs's.

The requests per second are those of the server's own processor time: the same number on a machine that does nothing
else, and one that can be trusted where it does. What wrk saw by the clock stands beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from benchmarks import runner
from benchmarks.report import Row, Section, Verdict, at_least
from benchmarks.subjects import PATH

_SUBJECTS = (
    "bare",
    "bare again",
    "floor",
    "scaleobs, metrics alone",
    "scaleobs, everything",
    "prometheus_client, cached",
    "starlette-exporter",
    "fastapi-instrumentator",
    "opentelemetry, metrics",
)
# Short rounds and many, as for requests; wrk has no shorter ones.
_ROUNDS, _SECONDS, _CONNECTIONS = 9, 1, 16
_COLUMNS = {"x bare, median": ".2f", "x, best": ".2f", "x by the clock": ".2f", "requests/s, best": ",.0f"}
_TITLE = "Served by uvicorn"


def sections(*, quick: bool) -> Iterator[Section]:
    """Yield the one section, without rows if wrk is not installed."""
    wrk = shutil.which("wrk")
    if wrk is None:
        yield Section(_TITLE, {}, (), "skipped: wrk is not installed (apt-get install wrk)")
        return
    names = _SUBJECTS[:5] if quick else _SUBJECTS
    before = os.sched_getaffinity(0)
    servers_on, wrk_on = _processors(before)
    with contextlib.ExitStack() as stack:
        servers = {name: _Server(name, servers_on) for name in names}
        for server in servers.values():
            stack.callback(server.end)
        os.sched_setaffinity(0, wrk_on)  # wrk inherits it.
        stack.callback(os.sched_setaffinity, 0, before)
        for number in range(_ROUNDS // 2 if quick else _ROUNDS):
            for name in runner.rotated(names, number):
                servers[name].load(wrk)
    yield _section(servers, is_pinned=len(wrk_on) < len(before))


def _processors(available: set[int]) -> tuple[str, set[int]]:
    """Return the processors of the servers and of wrk: different ones, if the machine has two."""
    first, *others = sorted(available)
    return (str(first), set(others[:1])) if others else ("any", available)


class _Server:
    """The server process of one subject, ended by its process id."""

    def __init__(self, name: str, processor: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", name, processor], stdout=subprocess.PIPE, text=True
        )
        self.rounds: list[float] = []
        self.by_clock: list[float] = []
        self.failure = ""
        self._answered = 0
        output = self._process.stdout.readline()
        if output:
            self._url = f"http://127.0.0.1:{json.loads(output)}{PATH}"
        else:
            self.failure = "the server did not start; its output is above"

    def load(self, wrk: str) -> None:
        """Make wrk send as many requests as it can."""
        if self.failure:
            return
        command = [wrk, "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}s", self._url]
        begun = _processor_seconds(self._process.pid)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        used = _processor_seconds(self._process.pid) - begun
        if "Non-2xx" in output or "Socket errors" in output:
            self.failure = "wrk met errors: " + " ".join(output.split("\n")[-5:])
            return
        answered = int(re.search(r"(\d+) requests in", output)[1])
        self._answered += answered
        self.rounds.append(answered / used)
        self.by_clock.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]))

    def end(self) -> None:
        """End the server, and read how many requests it counted: all responses of wrk, and those that wrk cut off."""
        self._process.terminate()
        output = self._process.stdout.read()
        self._process.wait()
        self._process.stdout.close()
        counted = json.loads(output) if output else 0
        cut_off = _CONNECTIONS * len(self.rounds)
        if not self.failure and counted is not None and not 0 <= counted - self._answered <= cut_off:
            self.failure = f"answered {self._answered} requests and counted {counted:g}"


def _processor_seconds(pid: int) -> float:
    """Return how long a process has run so far, by the clock that Linux keeps for it (clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)


def _section(servers: dict[str, _Server], *, is_pinned: bool) -> Section:
    bare = servers["bare"].rounds
    rows = []
    for name, server in servers.items():
        if server.failure:
            rows.append(Row(name, failure=server.failure))
        elif name != "bare":
            own = server.rounds
            ratios = median(_ratios(own, bare)), max(own) / max(bare)
            clock = median(_ratios(server.by_clock, servers["bare"].by_clock))
            values = dict(zip(_COLUMNS, (*ratios, clock, max(own)), strict=True))
            rows.append(Row(name, values, _verdicts(name, ratios[0]), rounds=tuple(own)))
    spread = 100 * (1 - min(bare) / max(bare))
    where = "server and wrk on a processor each" if is_pinned else "server and wrk share a processor"
    note = f"bare {max(bare):,.0f} requests a processor second, its worst round {spread:.0f} % below its best; {where}"
    return Section(_TITLE, _COLUMNS, tuple(rows), note)


def _ratios(own: list[float], bare: list[float]) -> list[float]:
    return [one / its for one, its in zip(own, bare, strict=True)]


def _verdicts(name: str, ratio: float) -> tuple[Verdict, ...]:
    return (at_least(0.95, ratio, "x bare"),) if name == "scaleobs, metrics alone" else ()
