"""
Alerts: what has to be true for somebody to be told.

Each says in its annotations what is wrong, in words and with the number, and uses only labels that its
expression keeps.
`alert_rules/RUNBOOK.md` says what to do about each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scaleobs.render import kubernetes, promql
from scaleobs.render.durations import Duration
from scaleobs.render.promql import UP, grouped, joined, summed
from scaleobs.render.records import (
    BAD,
    BAD_RATIO,
    FAST,
    LOG_ERRORS,
    ROUTE_BAD,
    ROUTE_TOTAL,
    SLOW_RATIO,
    TIMED,
    Rule,
    Scope,
)
from scaleobs.render.thresholds import Thresholds, number

if TYPE_CHECKING:
    from decimal import Decimal

    from scaleobs.render.durations import TimeScale
    from scaleobs.render.links import Links

SHARE = "{{ $value | humanizePercentage }}"
JOB = "{{ $labels.job }}"
INSTANCE = "{{ $labels.instance }}"
ROUTE = f"{{{{ $labels.{promql.ROUTE} }}}}"
POD = "{{ $labels.namespace }}/{{ $labels.pod }}"


@dataclass(frozen=True, slots=True)
class Alert:
    """
    What has to be true for somebody to be told, and what they are told.

    Args:
        name: the alert's name.
        expression: PromQL that has a value for each service or instance that it is true for.
        wait: how long it has to be true.
        severity: `critical` when users suffer now, `warning` when they do or soon will, `info` when it may
            explain something.
        summary: what is wrong, in a line.
        description: the same with the number; `{wait}` stands for the time that it has to be true.
        labels: more labels that tell alerts of one name apart.
    """

    name: str
    expression: str
    wait: Duration
    severity: str
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def rule(self, service: str | None, links: Links) -> Rule:
        """Return the rule, for one service or for every one, with links to where to read on."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": str(self.wait),
            # Alertmanager groups and inhibits by `service`, so every alert has it, whoever wrote the rules.
            "labels": {"severity": self.severity, **self.labels, "service": service or JOB},
            "annotations": {
                "summary": self.summary,
                "description": self.description.replace("{wait}", str(self.wait)),
                **links.of(self.name, self.summary + self.description),
            },
        }


def service_down(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a service of which no target can be scraped."""
    expression = scope.instrumented(f"{summed(scope.targets.of(UP), 'job')} == 0")
    return Alert(
        "ServiceDown",
        expression,
        scale.minutes(2),
        severity="critical",
        summary=f"No instance of {JOB} answers",
        description=(f"Prometheus knows targets of {JOB} and has reached none of them for {{wait}}."),
    )


def service_absent(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a service that Prometheus knows no target of, which `up == 0` can't see."""
    if scope.job:
        expression, what = f"absent({scope.targets.of(UP)})", f"Prometheus has had no target of {JOB}"
    else:
        expression = joined(scope.remembered(), "unless on (job)", UP.name)
        what = (
            f"{JOB} was seen within the last {scope.memory}, with {{{{ $value }}}} instances, "
            f"and Prometheus has had no target of it"
        )
    return Alert(
        "ServiceAbsent",
        expression,
        # `absent` is true until the first scrape after Prometheus started: never without a wait.
        scale.minutes(5),
        severity="critical",
        summary=f"{JOB} has disappeared",
        description=(f"{what} for {{wait}}: it was deleted, or service discovery no longer finds it."),
    )


def high_error_rate(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for too many failed requests."""
    enough = events(scope.recorded(BAD), scope.window, lines.events)
    return Alert(
        "HighErrorRate",
        joined(f"{scope.recorded(BAD_RATIO)} > {number(lines.failed_share)}", "and", enough),
        scale.minutes(5),
        severity="critical",
        summary=f"{JOB} fails too many requests",
        description=(
            f"{SHARE} of the requests to {JOB} failed with a 5xx status over the last {scope.window}; "
            f"the line is {percent(lines.failed_share)}."
        ),
    )


def high_route_error_rate(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for a route that fails while the service as a whole looks well."""
    window = scale.minutes(30)
    failed, every = (f"sum_over_time({scope.recorded(name)}[{window}])" for name in (ROUTE_BAD, ROUTE_TOTAL))
    enough = f"{scope.events(scope.recorded(ROUTE_BAD), window)} >= {lines.events}"
    return Alert(
        "HighRouteErrorRate",
        joined(f"{failed} / ({every} > 0) > {number(lines.route_failed_share)}", "and", enough),
        scale.minutes(5),
        severity="warning",
        summary=f"A route of {JOB} fails too many requests",
        description=(
            f"{SHARE} of the requests to {ROUTE} of {JOB} failed with a 5xx status over the last {window}; "
            f"the line is {percent(lines.route_failed_share)}."
        ),
    )


def error_log_burst(scope: Scope, scale: TimeScale, lines: Thresholds, wait: Duration) -> Alert:
    """Return the alert for far more log lines of errors than the service usually writes, after a wait."""
    written, day = scope.recorded(LOG_ERRORS), scale.days(1)
    # The last hour is left out, so that a burst isn't measured against itself, and more where the alert waits for
    # longer. Where no more is known, its least is.
    hour = max(scale.minutes(60), Duration(wait.milliseconds + 2 * scope.window.milliseconds))
    usual = joined(f"avg_over_time({written}[{day}] offset {hour})", "or", f"min_over_time({written}[{hour}])")
    return Alert(
        "ErrorLogBurst",
        joined(
            f"{written} * {scope.window.seconds} >= {lines.error_lines}",
            "and",
            f"{written} > {lines.error_lines_times} * {grouped(usual)}",
        ),
        wait,
        severity="warning",
        summary=f"{JOB} logs many errors",
        description=(
            f"{JOB} has written about {{{{ $value | humanize }}}} log lines of level error or critical within "
            f"{scope.window}, more than {lines.error_lines_times} times its mean of the last {day}."
        ),
    )


def high_request_latency(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for too many slow requests."""
    slow = grouped(f"{scope.recorded(TIMED)} - {scope.recorded(FAST)}")
    return Alert(
        "HighRequestLatency",
        joined(
            f"{scope.recorded(SLOW_RATIO)} > {number(lines.slow_share)}",
            "and",
            events(slow, scope.window, lines.events),
        ),
        scale.minutes(10),
        severity="warning",
        summary=f"{JOB} answers too many requests slowly",
        description=(
            f"{SHARE} of the requests to {JOB} took longer than {number(lines.slow_seconds)} s over the "
            f"last {scope.window}; the line is {percent(lines.slow_share)}. Failed requests are left out."
        ),
    )


def high_cpu_usage(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for a container near its CPU limit, or an instance near one core."""
    cores = promql.process_cpu(scope.targets, str(scope.window), by=("job", "instance", "namespace", "pod"))
    cores = scope.exposing(cores)
    # A pod whose container is near its limit has said so, and its process needn't say it again.
    either = joined(
        f"{grouped(kubernetes.cpu_share(scope.targets, scope.window))} > {number(lines.cpu_share)}",
        "or on (job, namespace, pod)",
        f"{grouped(cores)} > {number(lines.cpu_share)}",
    )
    return Alert(
        "HighCPUUsage",
        either,
        scale.minutes(5),
        severity="info",
        summary=f"{JOB} is short of CPU",
        description=(
            "{{ if $labels.instance }}"
            f"An instance of {JOB} ({INSTANCE}) keeps {SHARE} of one core busy, all its workers together. One core is "
            "what Python code in one process can use under the interpreter lock; C code that releases it, and more "
            "workers, can use more."
            "{{ else }}"
            f"A container in pod {POD} of {JOB} uses {SHARE} of its CPU limit."
            "{{ end }}"
        ),
    )


def high_memory_usage(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for a container near its memory limit, where the kernel kills it."""
    share = kubernetes.memory_share(scope.targets)
    return Alert(
        "HighMemoryUsage",
        f"{grouped(share)} > {number(lines.memory_share)}",
        scale.minutes(5),
        severity="warning",
        summary=f"{JOB} is about to run out of memory",
        description=(
            f"A container in pod {POD} of {JOB} holds {SHARE} of its memory limit; at the limit the kernel kills it."
        ),
    )


def events(rate: str, window: Duration, count: int) -> str:
    """Return the condition that so many requests were affected within the window that a rate is taken over."""
    return f"{rate} * {window.seconds} >= {count}"


def percent(share: Decimal) -> str:
    """Return a share as people write it."""
    return f"{number(share * 100)}%"
