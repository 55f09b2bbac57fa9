"""A healthy service as Prometheus sees it, in the words of promtool's tests: what every story begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from scaleobs import catalog
from scaleobs.catalog import Metric
from scaleobs.objectives import Availability, Latency, Objective
from scaleobs.render import promql
from scaleobs.render.durations import TimeScale
from scaleobs.render.promql import Targets
from scaleobs.render.thresholds import Thresholds, number

Labels = Mapping[str, str]

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
A_STEP = Decimal(3000)
"""So many requests come from one sample to the next."""


def milliseconds(duration: str) -> int:
    """Return how long a duration of Prometheus is."""
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[dhms])", duration))


@dataclass(frozen=True, slots=True)
class World:
    """
    What a story plays in: one service with the instances a and b, and a series of samples at equal steps.

    Args:
        job: the job that the service is scraped under.
        step: the milliseconds from one sample to the next.
        steps: how many samples there are at least.
        window: how many of them there are in the window that rates are taken over.
        scale: what durations are divided by.
        lines: where alerts speak.
        objectives: what good means.
    """

    job: str
    step: int
    steps: int
    window: int
    scale: TimeScale
    lines: Thresholds
    objectives: Sequence[Objective] = ()

    def in_steps(self, minutes: float) -> int:
        """Return how many steps that many minutes have, one that has begun with them."""
        return -(-self.scale.minutes(minutes).milliseconds // self.step)

    def routes(self, kind: type[Objective]) -> list[str]:
        """Return the routes that requests come to: those that objectives of that kind are for, and another one."""
        return sorted({"/", *(one.route for one in self.objectives if isinstance(one, kind) and one.route)})

    def series(self, metric: Metric, instance: str = "a", part: str = "", **labels: str) -> str:
        """Return a series of an instance."""
        matchers = [promql.equal(name, value) for name, value in {"instance": instance, **labels}.items()]
        return Targets((promql.equal("job", self.job),)).named(metric.name + part, *matchers)

    def always(self, value: float | Decimal) -> str:
        """Return samples of one value."""
        return f"{number(value)}x{self.steps}"

    def growing(self, by: float | Decimal) -> str:
        """Return samples of a counter."""
        return f"0+{number(round(Decimal(str(by)), 6))}x{self.steps}"

    def then(self, before: float, steps: int, after: float | str) -> str:
        """Return samples of one value for so many steps, and then of another; `stale` for none."""
        rest = "stale" if after == "stale" else f"{after}x{self.steps}"
        return f"{before}x{steps - 1} {rest}"

    def healthy(self) -> dict[str, str]:
        """Return the series of the service while all is well, and their samples."""
        found: dict[str, str] = {}
        for instance in "ab":
            info = dict.fromkeys(catalog.INFO.labels, "1") | {"service_name": self.job}
            found |= {
                self.series(promql.UP, instance): self.always(1),
                self.series(promql.STARTED, instance): self.always(-86400),
                self.series(promql.CPU, instance): self.growing(0.01),
                self.series(promql.OPEN_FILES, instance): self.always(100),
                self.series(promql.MAX_FILES, instance): self.always(1000),
                self.series(catalog.INFO, instance, **info): self.always(1),
                self.series(catalog.READY, instance): self.always(1),
                self.series(catalog.HEALTH_UP, instance, probe="ready", check="database"): self.always(1),
                self.series(catalog.HEALTH_UP, instance, probe="startup", check="lifecycle"): self.always(1),
                self.series(catalog.LOG_MESSAGES, instance, level="info"): self.growing(A_STEP),
                self.series(catalog.LOG_MESSAGES, instance, level="error"): self.always(0),
                self.series(catalog.ACTIVE, instance, protocol="http"): self.always(1),
                self.series(catalog.DROPPED, instance): self.always(0),
                self.series(catalog.FAULTS, instance): self.always(0),
                self.series(catalog.POOL_WAITING, instance, pool="anyio"): self.always(0),
            }
            found |= self.loops(instance) | self.requests(instance) | self.answers(instance)
        return found

    def requests(
        self,
        instance: str = "a",
        failed: Decimal = Decimal(0),
        route: str | None = None,
        *,
        each: Decimal = A_STEP,
        status: str = "200",
    ) -> dict[str, str]:
        """Return the counters of requests, of which a share fails on one route or on each, for all of a story."""
        routes, found = self.routes(Availability), {}
        for one in routes:
            all_of_it, share = each / len(routes), failed if route in {None, one} else Decimal(0)
            counts = {"200": Decimal(0), "404": Decimal(0), status: all_of_it * (1 - share), "500": all_of_it * share}
            for code, by in counts.items():
                labels = {"method": "GET", promql.ROUTE: one, "status_code": code}
                found[self.series(catalog.REQUESTS, instance, **labels)] = self.growing(by)
        return found

    def answers(self, instance: str = "a", slow: Decimal = Decimal(0), route: str | None = None) -> dict[str, str]:
        """Return the histogram of requests, of which a share is slower than any objective, for all of a story."""
        bounds = {self.lines.slow_seconds, *(float(one.under) for one in self.objectives if isinstance(one, Latency))}
        found = {}
        for one in self.routes(Latency):
            labels = {"method": "GET", promql.ROUTE: one, "status_code": "200"}
            share = slow if route in {None, one} else Decimal(0)
            for bound in sorted(bounds):
                series = self.series(catalog.DURATION, instance, "_bucket", **labels, le=repr(bound))
                found[series] = self.growing(A_STEP * (1 - share))
            for part in ("_count", "_sum"):
                found[self.series(catalog.DURATION, instance, part, **labels)] = self.growing(A_STEP)
        return found

    def loops(self, instance: str = "a", late: Decimal = Decimal(0)) -> dict[str, str]:
        """Return what the event loop of an instance shows, a share of the looks at it late."""
        bound = repr(float(self.lines.late_seconds))
        return {
            self.series(catalog.EVENT_LOOP_LAG, instance, "_bucket", le=bound): self.growing(120 * (1 - late)),
            self.series(catalog.EVENT_LOOP_LAG, instance, "_count"): self.growing(120),
        }

    def without(self, *metrics: Metric, instances: str = "ab") -> dict[str, str]:
        """Return the healthy series of these metrics as if they had never been there."""
        starts = tuple(metric.name for metric in metrics)
        return {
            key: ""
            for key in self.healthy()
            if key.startswith(starts) and any(f'instance="{one}"' in key for one in instances)
        }
