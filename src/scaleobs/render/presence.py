"""Alerts about who is there: instances that don't answer, aren't ready, start again and again, or aren't asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs.catalog import HEALTH_UP, INFO, READY
from scaleobs.render import kubernetes
from scaleobs.render.alerts import INSTANCE, JOB, Alert
from scaleobs.render.promql import STARTED, UP, grouped, joined, summed
from scaleobs.render.records import TOTAL, Scope
from scaleobs.render.thresholds import Thresholds, number

if TYPE_CHECKING:
    from scaleobs.render.durations import TimeScale


def instance_down(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a target that can't be scraped."""
    return Alert(
        "InstanceDown",
        scope.instrumented(f"{scope.targets.of(UP)} == 0"),
        scale.minutes(5),
        severity="warning",
        summary=f"An instance of {JOB} doesn't answer",
        description=f"Prometheus knows {INSTANCE} of {JOB} and has not reached it for {{wait}}.",
    )


def metrics_missing(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a service that is up and shows nothing of scaleobs: all other alerts are blind."""
    up = summed(f"{scope.targets.of(UP)} == 1", "job", how="count")
    return Alert(
        "MetricsMissing",
        scope.instrumented(joined(up, "unless on (job)", scope.targets.of(INFO))),
        scale.minutes(10),
        severity="warning",
        summary=f"{JOB} is up and shows no metrics of scaleobs",
        description=(
            f"For {{wait}} none of the {{{{ $value }}}} instances of {JOB} that answer scrapes has shown service_info: "
            "no other alert can see anything."
        ),
    )


def crash_loop(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for an instance that starts again and again."""
    window = scale.minutes(15)
    return Alert(
        "CrashLoop",
        scope.instrumented(f"changes({scope.targets.of(STARTED)}[{window}]) > {lines.restarts}"),
        scale.minutes(1),
        severity="warning",
        summary=f"An instance of {JOB} starts again and again",
        description=f"{INSTANCE} of {JOB} has started {{{{ $value }}}} times within {window}.",
    )


def service_not_ready(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a service of which no instance would take requests."""
    ready = scope.targets.of(READY)
    waiting = summed(f"{ready} == 0", "job", how="count")
    return Alert(
        "ServiceNotReady",
        joined(waiting, "unless on (job)", f"{ready} == 1"),
        scale.minutes(5),
        severity="critical",
        summary=f"No instance of {JOB} is ready",
        description=f"/ready has been 503 for {{wait}} on all {{{{ $value }}}} instances of {JOB} that can be scraped.",
    )


def instance_not_ready(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for an instance that isn't ready while others are."""
    ready = scope.targets.of(READY)
    return Alert(
        "InstanceNotReady",
        joined(f"{ready} == 0", "and on (job)", f"{ready} == 1"),
        # A slow start is none of its business.
        scale.minutes(15),
        severity="warning",
        summary=f"An instance of {JOB} is not ready",
        description=f"/ready of {INSTANCE} of {JOB} has been 503 for {{wait}}, while other instances are ready.",
    )


def startup_stuck(scope: Scope, scale: TimeScale) -> Alert:
    """
    Return the alert for an instance that answers scrapes and doesn't come to the end of its start-up.

    Readiness can't tell: it is lost later, too. A container that is killed for it and starts again has gaps between
    its tries, which the range covers. A check that fails once the instance has been at work is CheckFailing's.
    """
    window, hour = scale.minutes(10), scale.minutes(60)
    passing = scope.targets.of(HEALTH_UP, 'probe="startup"')
    never = joined(f"max_over_time({passing}[{window}]) == 0", "and on (job, instance)", scope.targets.of(UP))
    is_old = f"{scope.targets.of(STARTED)} < time() - {hour.seconds}"
    at_work = joined(f"{scope.targets.of(READY)} == 1", "and on (job, instance)", is_old)
    return Alert(
        "StartupStuck",
        scope.instrumented(joined(never, "unless on (job, instance)", grouped(at_work))),
        scale.minutes(10),
        severity="warning",
        summary=f"An instance of {JOB} doesn't come to the end of its start-up",
        description=(
            f"{INSTANCE} of {JOB} answers scrapes, and {{{{ $labels.check }}}}, which /startup waits for, "
            "has not passed for {wait}."
        ),
    )


def replicas_missing(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a Deployment with fewer pods than it should have: those that never ran are no targets."""
    return Alert(
        "ReplicasMissing",
        kubernetes.replicas_missing(scope.targets),
        # A rolling deploy and an autoscaler are given their time.
        scale.minutes(15),
        severity="warning",
        summary=f"Replicas of {JOB} are missing",
        description=(
            "The Deployment {{ $labels.namespace }}/{{ $labels.deployment }} "
            f"of {JOB} has had fewer available replicas than it should have for {{wait}}, now {{{{ $value }}}} fewer."
        ),
    )


def check_failing(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a check that fails on an instance that is ready all the same."""
    failing = f"{scope.targets.of(HEALTH_UP)} == 0"
    return Alert(
        "CheckFailing",
        joined(failing, "and on (job, instance)", f"{scope.targets.of(READY)} == 1"),
        scale.minutes(15),
        severity="warning",
        summary=f"A check of {JOB} fails",
        description=(
            f"The check {{{{ $labels.check }}}} ({{{{ $labels.probe }}}}) of {INSTANCE} of {JOB} has failed for "
            "{wait}. /ready is 200 all the same."
        ),
    )


def traffic_gone(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """
    Return the alert for a service that no request reaches any more.

    A pause at this time yesterday makes it quiet: nights, and work that comes once an hour.
    """
    total, before = scope.recorded(TOTAL), scale.minutes(360)
    recently = f"avg_over_time({total}[{before}]) > {number(lines.requests_per_second)}"
    # The hour before has to be known, too: of the first hour of a new service there may be five minutes.
    steady = f"min_over_time({total}[{scale.minutes(60)}] offset {scale.days(1)}) > 0"
    yesterday = joined(steady, "and", f"{total} offset {scale.minutes(25 * 60)}")
    return Alert(
        "TrafficGone",
        joined(joined(recently, "and", f"{total} == 0"), "and", yesterday),
        scale.minutes(10),
        severity="warning",
        summary=f"No request reaches {JOB} any more",
        description=(
            f"{JOB} has finished no request for {{wait}}, after {{{{ $value | humanize }}}} per second on average over "
            f"the last {before}. At this time yesterday they came without a pause."
        ),
    )
