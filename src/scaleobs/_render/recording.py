"""
Recording rules: what the alerts read, counted once.

Names are `level:metric:operations`. They keep their `5m` on every time scale, so that readers find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs._render import promql
from scaleobs._render.overrides import Thresholds, number
from scaleobs._render.promql import FAILED, ROUTE, STATUS, Targets, joined, summed
from scaleobs.catalog import INFO, LOG_MESSAGES, REQUESTS

if TYPE_CHECKING:
    from scaleobs._render.durations import Duration, TimeScale
    from scaleobs.objectives import Objective

Rule = dict[str, object]
"""One rule, with the keys that Prometheus gives it."""

SEEN = "job:service_info:count"
TOTAL = "job:http_requests:rate5m"
BAD = "job:http_requests_bad:rate5m"
STATUS_TOTAL = "job_route_status_code:http_requests:rate5m"
ROUTE_TOTAL = "job_route:http_requests:rate5m"
ROUTE_BAD = "job_route:http_requests_bad:rate5m"
BAD_RATIO = "job:http_requests_bad:ratio_rate5m"
TIMED = "job:http_requests_timed:rate5m"
FAST = "job:http_requests_fast:rate5m"
SLOW_RATIO = "job:http_requests_slow:ratio_rate5m"
LOG_ERRORS = "job:log_messages_error:rate5m"
MEAN = "job:request_latency_seconds:mean5m"


@dataclass(frozen=True, slots=True)
class Scope:
    """
    What a set of rules watches, and the numbers that they share.

    Args:
        job: one job, or None for every job that exposes `service_info`.
        scale: what every duration is divided by.
        window: the range that rates are taken over.
        interval: the time between two evaluations of the rules.
        thresholds: those that objectives change.
        objectives: those that are watched.
        budget_days: how many days the error budgets are for.
        wait: the wait of the alert that the expression is for.
        threshold: the threshold of the alert that the expression is for.
    """

    job: str | None
    scale: TimeScale
    window: Duration
    interval: Duration
    thresholds: Thresholds
    objectives: Sequence[Objective]
    budget_days: int
    wait: Duration | None = None
    threshold: Decimal = Decimal(0)

    @property
    def memory(self) -> Duration:
        """How long the rules remember a job that is gone."""
        return self.scale.days(1)

    @property
    def targets(self) -> Targets:
        """The targets of the scope, as far as matchers can select them."""
        return Targets((f'job="{self.job}"',) if self.job else ())

    @property
    def watched(self) -> str:
        """The same in words."""
        if self.job:
            return f"job {self.job}"
        return f"every job whose targets showed service_info within the last {self.memory}"

    @property
    def above(self) -> str:
        """The condition that a value is above the alert's threshold."""
        return f"> {number(self.threshold)}"

    def over(self, text: str) -> Duration:
        """Return a written duration, e.g. `15m`, on the scale of these rules."""
        return self.scale.of(text)

    def recorded(self, name: str) -> str:
        """Return the selector of a recorded series."""
        return self.targets.named(name)

    def instrumented(self, expression: str) -> str:
        """Return the expression, without the jobs that scaleobs doesn't instrument where no job is named."""
        if self.job:
            return expression
        return joined(expression, "and on (job)", self.remembered())

    def exposing(self, expression: str) -> str:
        """Return the expression, without instances that scaleobs doesn't instrument where no job is named."""
        return expression if self.job else joined(expression, "and on (job, instance)", INFO.name)

    def events(self, rate: str, window: Duration) -> str:
        """Return how many events a recorded rate of them per second saw within a window, each of which is one."""
        # What there is of the window, each sample for as long as it stood: a short history counts for no more than
        # it saw.
        return f"round(sum_over_time({rate}[{window}]) * {self.interval.seconds})"

    def remembered(self) -> str:
        """Return the number of instances that each job was last seen with."""
        return f"last_over_time({SEEN}[{self.memory}])"


def seen(scope: Scope) -> list[Rule]:
    """Return the rule that notes which jobs there are, which only rules for every job need."""
    return [] if scope.job else [record(SEEN, summed(INFO.name, "job", how="count"))]


def errors(scope: Scope) -> list[Rule]:
    """Return the rules that count requests and failures."""
    by_route, total = scope.recorded(ROUTE_TOTAL), scope.recorded(TOTAL)
    counted = promql.counted_rate(scope.targets.of(REQUESTS), scope.targets, scope.window, by=("job", ROUTE, STATUS))
    failed = summed(scope.targets.named(STATUS_TOTAL, FAILED), "job", ROUTE)
    return [
        # What a fleet exposes is read once. All else is a sum of that, in this order: a rule sees what those above it
        # in its group have just recorded.
        record(STATUS_TOTAL, scope.instrumented(counted)),
        record(ROUTE_TOTAL, summed(scope.recorded(STATUS_TOTAL), "job", ROUTE)),
        record(ROUTE_BAD, joined(failed, "or", f"0 * {by_route}")),
        record(TOTAL, summed(by_route, "job")),
        record(BAD, summed(scope.recorded(ROUTE_BAD), "job")),
        record(BAD_RATIO, joined(scope.recorded(BAD), "/", f"({total} > 0)")),
    ]


def log_errors(scope: Scope) -> list[Rule]:
    """Return the rule that counts the log lines of errors."""
    lines = scope.targets.of(LOG_MESSAGES, 'level=~"error|critical"')
    counted = promql.counted_rate(lines, scope.targets, scope.window, by=("job",))
    return [record(LOG_ERRORS, scope.instrumented(counted))]


def latency(scope: Scope) -> list[Rule]:
    """Return the rules that count the requests slower than a bucket's boundary."""
    window, by, seconds = str(scope.window), ("job",), scope.thresholds.slow_seconds
    timed, fast = scope.recorded(TIMED), scope.recorded(FAST)
    return [
        record(TIMED, scope.instrumented(promql.timed_rate(scope.targets, window, by=by))),
        record(FAST, scope.instrumented(promql.fast_rate(scope.targets, window, seconds, by=by))),
        record(SLOW_RATIO, promql.slow_share(fast, timed)),
        record(MEAN, scope.instrumented(promql.mean_latency(scope.targets, window, by=by))),
    ]


def record(name: str, expression: str, **labels: str) -> Rule:
    """Return the rule that records an expression, with labels that tell rules of one name apart."""
    return {"record": name, "expr": expression, **({"labels": labels} if labels else {})}
