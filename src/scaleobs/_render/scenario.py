"""
Scenarios: synthetic series of a service, and what an alert must do with them.

`stories.py` turns them into tests for promtool. Each begins with a healthy service and changes some of its series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from scaleobs import catalog
from scaleobs._render import promql
from scaleobs._render.durations import TimeScale
from scaleobs._render.overrides import LATE_SECONDS, Thresholds, number
from scaleobs._render.promql import Targets
from scaleobs.catalog import Metric
from scaleobs.objectives import Availability, Latency, Objective

Labels = Mapping[str, str]
Series = dict[str, str]
"""Samples by series, both as promtool reads them; a series without samples does not exist."""

REQUESTS_PER_STEP = Decimal(3000)
"""The requests between two samples."""

ONSET = 20
"""The step of a sudden change."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    Series that differ from those of a healthy service, and whether the alert must fire.

    Args:
        name: what happens, in a sentence.
        series: those that differ.
        fires: whether the alert must fire.
        earliest: the step at which its condition may first be true.
        latest: the step at which it must be true.
        steps: the length of the scenario; None if the alert's wait decides.
        is_never_true: if the alert may not fire: whether its condition may not be true either.
    """

    name: str
    series: Series
    fires: bool = True
    earliest: int = 0
    latest: int = 3
    steps: int | None = None
    is_never_true: bool = False


def silent(name: str, series: Series, *, is_never_true: bool = False) -> Scenario:
    """Return a scenario in which the alert may not fire."""
    return Scenario(name, series, fires=False, is_never_true=is_never_true)


def step_change(name: str, series: Series) -> Scenario:
    """Return a scenario in which the alert's condition is true from the sudden change on."""
    return Scenario(name, series, earliest=ONSET, latest=ONSET + 1)


def around(
    threshold: Decimal, above: str, below: str, series: Callable[[Decimal], Series], *, latest: int = 3
) -> list[Scenario]:
    """
    Return two scenarios on either side of a threshold.

    Args:
        threshold: a share.
        above: the name if the share is a tenth larger, or half of the rest up to 1: the alert fires.
        below: the name if it is smaller by the same amount: the alert is silent.
        series: returns the series for a share.
        latest: the step at which the condition must be true.
    """
    low, high = below_and_above(threshold)
    return [Scenario(above, series(high), latest=latest), silent(below, series(low))]


def below_and_above(threshold: Decimal) -> tuple[Decimal, Decimal]:
    """Return the shares below and above a threshold for its scenarios."""
    margin = min(threshold / 10, (1 - threshold) / 2)
    return threshold - margin, threshold + margin


@dataclass(frozen=True, slots=True)
class SyntheticService:
    """
    The service of a scenario: instances a and b, and samples at equal steps.

    Args:
        job: the job that the service is scraped under.
        step: the milliseconds between two samples.
        steps: the least number of samples.
        window: the number of steps in the window of rates.
        scale: the divisor of durations.
        thresholds: those that several alerts share.
        objectives: those of the service.
        threshold: that of the scenario's alert.
    """

    job: str
    step: int
    steps: int
    window: int
    scale: TimeScale
    thresholds: Thresholds
    objectives: Sequence[Objective] = ()
    threshold: Decimal = Decimal(0)

    def in_steps(self, minutes: float) -> int:
        """Return the number of steps in some minutes, rounded up."""
        return -(-self.scale.minutes(minutes).milliseconds // self.step)

    def routes(self, kind: type[Objective]) -> list[str]:
        """Return the routes with requests: those of objectives of this kind, and another one."""
        return sorted({"/", *(one.route for one in self.objectives if isinstance(one, kind) and one.route)})

    def series(self, metric: Metric, instance: str = "a", part: str = "", **labels: str) -> str:
        """Return a series of an instance."""
        matchers = [promql.equal(name, value) for name, value in {"instance": instance, **labels}.items()]
        return Targets((promql.equal("job", self.job),)).named(metric.name + part, *matchers)

    def constant(self, value: float | Decimal) -> str:
        """Return samples of one value."""
        return f"{number(value)}x{self.steps}"

    def growing(self, by: float | Decimal) -> str:
        """Return samples of a counter."""
        return f"0+{number(round(Decimal(str(by)), 6))}x{self.steps}"

    def changing(self, before: float, after: float | str) -> str:
        """Return samples of one value up to the sudden change, then of another one; `stale` ends the series."""
        rest = "stale" if after == "stale" else f"{after}x{self.steps}"
        return f"{before}x{ONSET - 1} {rest}"

    def healthy(self) -> Series:
        """Return the series of the healthy service, and their samples."""
        result: dict[str, str] = {}
        for instance in "ab":
            info = dict.fromkeys(catalog.INFO.labels, "1") | {"service_name": self.job}
            result |= {
                self.series(promql.UP, instance): self.constant(1),
                self.series(promql.STARTED, instance): self.constant(-86400),
                self.series(promql.CPU, instance): self.growing(0.01),
                self.series(promql.OPEN_FILES, instance): self.constant(100),
                self.series(promql.MAX_FILES, instance): self.constant(1000),
                self.series(catalog.INFO, instance, **info): self.constant(1),
                self.series(catalog.READY, instance): self.constant(1),
                self.series(catalog.HEALTH_UP, instance, probe="ready", check="database"): self.constant(1),
                self.series(catalog.HEALTH_UP, instance, probe="startup", check="lifecycle"): self.constant(1),
                self.series(catalog.LOG_MESSAGES, instance, level="info"): self.growing(REQUESTS_PER_STEP),
                self.series(catalog.LOG_MESSAGES, instance, level="error"): self.constant(0),
                self.series(catalog.ACTIVE, instance, protocol="http"): self.constant(1),
                self.series(catalog.DROPPED, instance): self.constant(0),
                self.series(catalog.FAULTS, instance): self.constant(0),
                self.series(catalog.POOL_WAITING, instance, pool="anyio"): self.constant(0),
            }
            result |= self.loops(instance) | self.requests(instance) | self.latencies(instance)
        return result

    def requests(
        self,
        instance: str = "a",
        failed: Decimal = Decimal(0),
        route: str | None = None,
        *,
        each: Decimal = REQUESTS_PER_STEP,
        status: str = "200",
    ) -> Series:
        """Return the counters of requests, of which a share fails on one route or on all."""
        routes, result = self.routes(Availability), {}
        for one in routes:
            total, share = each / len(routes), failed if route in {None, one} else Decimal(0)
            counts = {"200": Decimal(0), "404": Decimal(0), status: total * (1 - share), "500": total * share}
            for code, by in counts.items():
                labels = {"method": "GET", promql.ROUTE: one, "status_code": code}
                result[self.series(catalog.REQUESTS, instance, **labels)] = self.growing(by)
        return result

    def latencies(self, instance: str = "a", slow: Decimal = Decimal(0), route: str | None = None) -> Series:
        """Return the histogram of requests, of which a share is slower than any objective on one route or on all."""
        bounds = {
            self.thresholds.slow_seconds,
            *(float(one.under) for one in self.objectives if isinstance(one, Latency)),
        }
        result = {}
        for one in self.routes(Latency):
            labels = {"method": "GET", promql.ROUTE: one, "status_code": "200"}
            share = slow if route in {None, one} else Decimal(0)
            for bound in sorted(bounds):
                series = self.series(catalog.DURATION, instance, "_bucket", **labels, le=repr(bound))
                result[series] = self.growing(REQUESTS_PER_STEP * (1 - share))
            for part in ("_count", "_sum"):
                result[self.series(catalog.DURATION, instance, part, **labels)] = self.growing(REQUESTS_PER_STEP)
        return result

    def failing(self, share: Decimal, route: str | None = None, *, each: Decimal = REQUESTS_PER_STEP) -> Series:
        """Return the requests of both instances, of which a share fails."""
        return self.requests("a", share, route, each=each) | self.requests("b", share, route, each=each)

    def slow(self, share: Decimal, route: str | None = None) -> Series:
        """Return the histograms of both instances, in which a share is slow."""
        return self.latencies("a", share, route) | self.latencies("b", share, route)

    def loops(self, instance: str = "a", late: Decimal = Decimal(0)) -> Series:
        """Return the histogram of an instance's event loop lag, in which a share is above the bucket of the alert."""
        bound = repr(LATE_SECONDS)
        return {
            self.series(catalog.EVENT_LOOP_LAG, instance, "_bucket", le=bound): self.growing(120 * (1 - late)),
            self.series(catalog.EVENT_LOOP_LAG, instance, "_count"): self.growing(120),
        }

    def without(self, *metrics: Metric, instances: str = "ab") -> Series:
        """Return the healthy series of these metrics without samples, so that they don't exist."""
        names = tuple(metric.name for metric in metrics)
        return {
            key: ""
            for key in self.healthy()
            if key.startswith(names) and any(f'instance="{one}"' in key for one in instances)
        }
