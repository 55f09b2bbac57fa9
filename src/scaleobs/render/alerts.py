"""
Alerts: what has to be true for somebody to be told.

Each says in its annotations what is wrong, in words and with the number, and uses only labels that its
expression keeps.
`alert_rules/RUNBOOK.md` says what to do about each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs.catalog import INFO
from scaleobs.render import kubernetes, promql
from scaleobs.render.promql import UP, grouped, joined, summed
from scaleobs.render.records import BAD, BAD_RATIO, FAST, SLOW_RATIO, TIMED, Rule, Scope
from scaleobs.render.thresholds import Thresholds, number

if TYPE_CHECKING:
    from decimal import Decimal

    from scaleobs.render.durations import Duration, TimeScale

_SHARE = "{{ $value | humanizePercentage }}"
_JOB = "{{ $labels.job }}"
_POD = "{{ $labels.namespace }}/{{ $labels.pod }}"


def service_down(scope: Scope, scale: TimeScale) -> Rule:
    """Return the alert for a service of which no target can be scraped."""
    expression = scope.instrumented(f"{summed(scope.targets.of(UP), 'job')} == 0")
    return _alert(
        "ServiceDown",
        expression,
        scale.minutes(2),
        severity="critical",
        summary=f"No instance of {_JOB} answers",
        description=(f"Prometheus knows targets of {_JOB} and has reached none of them for {scale.minutes(2)}."),
    )


def service_absent(scope: Scope, scale: TimeScale) -> Rule:
    """Return the alert for a service that Prometheus knows no target of, which `up == 0` can't see."""
    if scope.job:
        expression, what = f"absent({scope.targets.of(UP)})", f"Prometheus has had no target of {_JOB}"
    else:
        expression = joined(scope.remembered(), "unless on (job)", UP.name)
        what = (
            f"{_JOB} was seen within the last {scope.memory}, with {{{{ $value }}}} instances, "
            f"and Prometheus has had no target of it"
        )
    return _alert(
        "ServiceAbsent",
        expression,
        # `absent` is true until the first scrape after Prometheus started: never without a wait.
        scale.minutes(5),
        severity="critical",
        summary=f"{_JOB} has disappeared",
        description=(f"{what} for {scale.minutes(5)}: it was deleted, or service discovery no longer finds it."),
    )


def high_error_rate(scope: Scope, scale: TimeScale, lines: Thresholds) -> Rule:
    """Return the alert for too many failed requests."""
    events = _events(scope.recorded(BAD), scope.window, lines.events)
    return _alert(
        "HighErrorRate",
        joined(f"{scope.recorded(BAD_RATIO)} > {number(lines.failed_share)}", "and", events),
        scale.minutes(5),
        severity="critical",
        summary=f"{_JOB} fails too many requests",
        description=(
            f"{_SHARE} of the requests to {_JOB} failed with a 5xx status over the last {scope.window}; "
            f"the line is {_percent(lines.failed_share)}."
        ),
    )


def high_request_latency(scope: Scope, scale: TimeScale, lines: Thresholds) -> Rule:
    """Return the alert for too many slow requests."""
    slow = grouped(f"{scope.recorded(TIMED)} - {scope.recorded(FAST)}")
    return _alert(
        "HighRequestLatency",
        joined(
            f"{scope.recorded(SLOW_RATIO)} > {number(lines.slow_share)}",
            "and",
            _events(slow, scope.window, lines.events),
        ),
        scale.minutes(10),
        severity="warning",
        summary=f"{_JOB} answers too many requests slowly",
        description=(
            f"{_SHARE} of the requests to {_JOB} took longer than {number(lines.slow_seconds)} s over the "
            f"last {scope.window}; the line is {_percent(lines.slow_share)}. Failed requests are left out."
        ),
    )


def high_cpu_usage(scope: Scope, scale: TimeScale, lines: Thresholds) -> Rule:
    """Return the alert for a container near its CPU limit, or a process near the one core that it can use."""
    cores = promql.process_cpu(scope.targets, str(scope.window), by=("job", "instance", "namespace", "pod"))
    if not scope.job:
        cores = joined(cores, "and on (job, instance)", INFO.name)
    # A pod whose container is near its limit has said so, and its process needn't say it again.
    either = joined(
        f"{grouped(kubernetes.cpu_share(scope.targets, scope.window))} > {number(lines.cpu_share)}",
        "or on (job, namespace, pod)",
        f"{grouped(cores)} > {number(lines.cpu_share)}",
    )
    return _alert(
        "HighCPUUsage",
        either,
        scale.minutes(5),
        severity="info",
        summary=f"{_JOB} is short of CPU",
        description=(
            "{{ if $labels.instance }}"
            f"A process of {_JOB} ({{{{ $labels.instance }}}}) keeps {_SHARE} of one core busy, "
            "and Python's interpreter lock lets it use no more than one."
            "{{ else }}"
            f"A container in pod {_POD} of {_JOB} uses {_SHARE} of its CPU limit."
            "{{ end }}"
        ),
    )


def high_memory_usage(scope: Scope, scale: TimeScale, lines: Thresholds) -> Rule:
    """Return the alert for a container near its memory limit, where the kernel kills it."""
    share = kubernetes.memory_share(scope.targets)
    return _alert(
        "HighMemoryUsage",
        f"{grouped(share)} > {number(lines.memory_share)}",
        scale.minutes(5),
        severity="warning",
        summary=f"{_JOB} is about to run out of memory",
        description=(
            f"A container in pod {_POD} of {_JOB} holds {_SHARE} of its memory limit; at the limit the kernel kills it."
        ),
    )


def _events(rate: str, window: Duration, count: int) -> str:
    return f"{rate} * {window.seconds} >= {count}"


def _percent(share: Decimal) -> str:
    return f"{number(share * 100)}%"


def _alert(name: str, expression: str, wait: Duration, *, severity: str, summary: str, description: str) -> Rule:
    return {
        "alert": name,
        "expr": expression,
        "for": str(wait),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }
