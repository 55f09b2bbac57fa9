"""
Recording rules: the series that the alerts read.

Names are `level:metric:operations`. They keep their `5m` on every time scale, so that their names don't change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs._render import promql
from scaleobs._render.overrides import Thresholds, number
from scaleobs._render.promql import FAILED, ROUTE, STATUS, Targets, aggregate, joined
from scaleobs.catalog import INFO, LOG_MESSAGES, REQUESTS

if TYPE_CHECKING:
    from scaleobs._render.durations import Duration, TimeScale
    from scaleobs.objectives import Objective

Rule = dict[str, object]
"""One rule, with the keys of Prometheus."""

INSTANCE_COUNT = "job:service_info:count"
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
    The targets of a set of rules, and the numbers that its rules share.

    Args:
        job: one job, or None for every job that exposes `service_info`.
        scale: what every duration is divided by.
        window: the range that rates are taken over.
        interval: the time between two evaluations of the rules.
        thresholds: those that objectives change.
        objectives: those of the service.
        budget_days: the time of the error budgets.
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
    def retention(self) -> Duration:
        """How long the rules keep a job that is gone."""
        return self.scale.days(1)

    @property
    def targets(self) -> Targets:
        """The targets of the scope, as far as matchers can select them."""
        return Targets((f'job="{self.job}"',) if self.job else ())

    @property
    def in_words(self) -> str:
        """The scope in words."""
        if self.job:
            return f"job {self.job}"
        return f"every job whose targets exposed service_info within the last {self.retention}"

    @property
    def above(self) -> str:
        """The condition that a value is above the alert's threshold."""
        return f"> {number(self.threshold)}"

    def scaled(self, text: str) -> Duration:
        """Return a written duration, e.g. `15m`, on the scale of these rules."""
        return self.scale.of(text)

    def recorded(self, name: str) -> str:
        """Return the selector of a recorded series."""
        return self.targets.named(name)

    def of_instrumented_jobs(self, expression: str) -> str:
        """Return the expression; without a job in the scope, only of jobs that scaleobs instruments."""
        if self.job:
            return expression
        return joined(expression, "and on (job)", self.last_instances())

    def of_instrumented_instances(self, expression: str) -> str:
        """Return the expression; without a job in the scope, only of instances that scaleobs instruments."""
        return expression if self.job else joined(expression, "and on (job, instance)", INFO.name)

    def event_count(self, rate: str, window: Duration) -> str:
        """Return the whole number of events within a window, from their recorded rate per second."""
        # Each sample counts for one interval: a short history is not extrapolated to the whole window.
        return f"round(sum_over_time({rate}[{window}]) * {self.interval.seconds})"

    def last_instances(self) -> str:
        """Return the last number of instances of each job."""
        return f"last_over_time({INSTANCE_COUNT}[{self.retention}])"


def instance_count(scope: Scope) -> list[Rule]:
    """Return the rule that records the jobs and their instances, which only rules for every job need."""
    return [] if scope.job else [record(INSTANCE_COUNT, aggregate(INFO.name, "job", operator="count"))]


def errors(scope: Scope) -> list[Rule]:
    """Return the rules that count requests and failures."""
    by_route, total = scope.recorded(ROUTE_TOTAL), scope.recorded(TOTAL)
    requests, by = scope.targets.of(REQUESTS), ("job", ROUTE, STATUS)
    rate = promql.rate_with_first_samples(requests, scope.targets, scope.window, by=by)
    failed = aggregate(scope.targets.named(STATUS_TOTAL, FAILED), "job", ROUTE)
    return [
        # Only the first rule reads the series of instances. The others sum its result, in this order: a rule reads what
        # those above it in its group have just recorded.
        record(STATUS_TOTAL, scope.of_instrumented_jobs(rate)),
        record(ROUTE_TOTAL, aggregate(scope.recorded(STATUS_TOTAL), "job", ROUTE)),
        record(ROUTE_BAD, joined(failed, "or", f"0 * {by_route}")),
        record(TOTAL, aggregate(by_route, "job")),
        record(BAD, aggregate(scope.recorded(ROUTE_BAD), "job")),
        record(BAD_RATIO, joined(scope.recorded(BAD), "/", f"({total} > 0)")),
    ]


def log_errors(scope: Scope) -> list[Rule]:
    """Return the rule that counts the log lines of errors."""
    lines = scope.targets.of(LOG_MESSAGES, 'level=~"error|critical"')
    rate = promql.rate_with_first_samples(lines, scope.targets, scope.window, by=("job",))
    return [record(LOG_ERRORS, scope.of_instrumented_jobs(rate))]


def latency(scope: Scope) -> list[Rule]:
    """Return the rules that count the requests slower than a bucket's boundary."""
    window, by, seconds = str(scope.window), ("job",), scope.thresholds.slow_seconds
    timed, fast = scope.recorded(TIMED), scope.recorded(FAST)
    return [
        record(TIMED, scope.of_instrumented_jobs(promql.timed_rate(scope.targets, window, by=by))),
        record(FAST, scope.of_instrumented_jobs(promql.fast_rate(scope.targets, window, seconds, by=by))),
        record(SLOW_RATIO, promql.slow_share(fast, timed)),
        record(MEAN, scope.of_instrumented_jobs(promql.mean_latency(scope.targets, window, by=by))),
    ]


def record(name: str, expression: str, **labels: str) -> Rule:
    """Return the rule that records an expression, with labels that distinguish rules of one name."""
    return {"record": name, "expr": expression, **({"labels": labels} if labels else {})}
