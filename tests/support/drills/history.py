"""Synthetic days: the counters of a service, in blocks of Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scaleobs._cli.demo.processes import Program

STEP_SECONDS = 30
_SELDOM = 4
"""What doesn't change is shown with every fourth sample."""
HOUR = 3600
LATE_SECONDS = 150
"""Rates over five minutes are those of half that time ago, on average."""

Pace = Callable[[float], tuple[float, float]]
"""From the seconds that are left of a history to the requests per second, and the share of them that fails."""


@dataclass(slots=True)
class Past:
    """
    What one job did, and exactly so.

    Attributes:
        job: whose it is.
        pace: how many requests came, and how many failed.
        deployed: how long before the end another process took over, with counters at 0.
        answered: the requests that did not fail, by rates over five minutes.
        failed: those that did.
    """

    job: str
    pace: Pace
    deployed: float = 30 * HOUR
    answered: float = 0
    failed: float = 0

    def samples(self, end: int, seconds: int) -> Iterator[tuple[str, list[tuple[float, int]]]]:
        """Yield each series of the job with its samples, and count them."""
        ok: list[tuple[float, int]] = []
        bad: list[tuple[float, int]] = []
        begun: list[tuple[float, int]] = []
        counted, failures = 0.0, 0.0
        for at in range(end - seconds, end + 1, STEP_SECONDS):
            left = end - at
            if left == self.deployed:
                counted = failures = 0.0
            rate, share = self.pace(left)
            if at > end - seconds:
                good, bad_ones = STEP_SECONDS * rate * (1 - share), STEP_SECONDS * rate * share
                counted, failures = counted + good, failures + bad_ones
                if left >= LATE_SECONDS:
                    self.answered, self.failed = self.answered + good, self.failed + bad_ones
            ok.append((counted, at))
            bad.append((failures, at))
            begun.append((float(end - seconds * 2 if left > self.deployed else end - self.deployed), at))
        target = f'job="{self.job}",instance="a"'
        always = [(1.0, at) for _, at in begun[::_SELDOM]]
        yield f"up{{{target}}}", always
        yield f'service_info{{{target},service_name="{self.job}",version="1"}}', always
        yield f"process_start_time_seconds{{{target}}}", begun[::_SELDOM]
        route = f'{target},method="GET",route="/"'
        yield f'http_requests_total{{{route},status_code="200"}}', ok
        yield f'http_requests_total{{{route},status_code="500"}}', bad


def write(pasts: list[Past], end: int, seconds: int, *, promtool: str, data: Path) -> None:
    """Put what these jobs did, up to a moment, into a Prometheus' folder."""
    families: dict[str, list[str]] = {}
    for past in pasts:
        for series, samples in past.samples(end, seconds):
            lines = families.setdefault(series.partition("{")[0], [])
            lines += [f"{series} {value:.10g} {at}" for value, at in samples]
    text = data.with_name("history.txt")
    with text.open("w", encoding="utf-8") as file:
        for name, lines in families.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            file.write(f"# TYPE {name.removesuffix('_total')} {kind}\n" + "\n".join(lines) + "\n")
        file.write("# EOF\n")
    _run(promtool, "tsdb", "create-blocks-from", "openmetrics", text, data)


def recorded(groups: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the recording rules that later ones read the history of, in steps: each reads only what came before."""
    rules = [rule for group in groups for rule in group["rules"] if "record" in rule]
    # Windows beyond 5m are queried at the present only.
    rules = [rule for rule in rules if rule["record"].endswith(("5m", ":count"))]
    while rules:
        waiting = {rule["record"] for rule in rules}
        now = [rule for rule in rules if not any(name in rule["expr"] for name in waiting - {rule["record"]})]
        assert now, f"These read each other: {waiting}"
        yield now
        rules = [rule for rule in rules if rule not in now]


def record(
    rules: list[dict[str, Any]], end: int, seconds: int, *, promtool: str, prometheus: Program, data: Path
) -> None:
    """Evaluate rules over a history of Prometheus, and add the series that they record."""
    file = data.with_name("step.yml")
    file.write_text(yaml.safe_dump({"groups": [{"name": "step", "interval": f"{STEP_SECONDS}s", "rules": rules}]}))
    span = [f"--start={end - seconds}", f"--end={end}"]
    command = ["tsdb", "create-blocks-from", "rules", *span, f"--url={prometheus.url}", f"--output-dir={data}", file]
    _run(promtool, *command)


def _run(*command: object) -> None:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert 0 == result.returncode, result.stdout + result.stderr
