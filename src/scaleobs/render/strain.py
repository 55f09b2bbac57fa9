"""Alerts about what an instance runs out of, and about scaleobs itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs.catalog import ACTIVE, DROPPED, EVENT_LOOP_LAG, FAULTS, POOL_WAITING
from scaleobs.render import kubernetes, promql
from scaleobs.render.alerts import INSTANCE, JOB, POD, SHARE, Alert, percent
from scaleobs.render.promql import grouped, joined, slow_share
from scaleobs.render.thresholds import Thresholds, number

if TYPE_CHECKING:
    from scaleobs.render.durations import TimeScale
    from scaleobs.render.records import Scope

_INSTANCE = ("job", "instance")


def event_loop_late(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for an event loop that something blocks."""
    window = str(scope.window)
    in_time = promql.within_rate(scope.targets, EVENT_LOOP_LAG, window, lines.late_seconds, by=_INSTANCE)
    looks = promql.observed_rate(scope.targets, EVENT_LOOP_LAG, window, by=_INSTANCE)
    return Alert(
        "EventLoopLag",
        scope.exposing(f"{slow_share(in_time, looks)} > {number(lines.late_share)}"),
        scale.minutes(10),
        severity="warning",
        summary=f"Something blocks the event loop of {JOB}",
        description=(
            f"{INSTANCE} of {JOB}: {SHARE} of the looks at its event loops over the last {scope.window} were more than "
            f"{number(lines.late_seconds)} s late; the line is {percent(lines.late_share)}. "
            "Every request of the worker waits as long."
        ),
    )


def thread_pool_saturated(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a pool of threads that calls wait for."""
    waiting = f"min_over_time({scope.targets.of(POOL_WAITING)}[{scope.window}])"
    return Alert(
        "ThreadPoolSaturated",
        scope.exposing(f"{waiting} > 0"),
        scale.minutes(5),
        severity="warning",
        summary=f"{JOB} has too few worker threads",
        description=(
            f"{INSTANCE} of {JOB}: at least {{{{ $value }}}} calls waited for a thread of the pool "
            f"{{{{ $labels.pool }}}} at each scrape of the last {scope.window}, and so for {{wait}}."
        ),
    )


def cpu_throttled(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for a container that its CPU limit holds back, which an average of its use doesn't show."""
    share = kubernetes.throttled_share(scope.targets, scope.window)
    return Alert(
        "CPUThrottled",
        f"{grouped(share)} > {number(lines.throttled_share)}",
        scale.minutes(15),
        severity="info",
        summary=f"{JOB} is held back by its CPU limit",
        description=(
            f"A container in pod {POD} of {JOB} had used up its CPU limit in {SHARE} of the scheduler's periods over "
            f"the last {scope.window}, and waited for the next; the line is {percent(lines.throttled_share)}."
        ),
    )


def file_descriptors(scope: Scope, scale: TimeScale, lines: Thresholds) -> Alert:
    """Return the alert for an instance that soon can't open a connection or a file."""
    share = promql.open_files_share(scope.targets, by=_INSTANCE)
    return Alert(
        "HighFileDescriptorUsage",
        scope.exposing(f"{share} > {number(lines.files_share)}"),
        scale.minutes(5),
        severity="warning",
        summary=f"{JOB} is about to run out of file descriptors",
        description=(
            f"{INSTANCE} of {JOB} holds {SHARE} of the file descriptors that it may; "
            "without one it can take no connection."
        ),
    )


def connections_stuck(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for an instance that has requests open and finishes none."""
    window = scale.minutes(15)
    requests = scope.targets.of(ACTIVE, 'protocol="http"')
    is_open = f"min_over_time({requests}[{window}]) > 0"
    finishes = f"{promql.request_rate(scope.targets, str(window), by=_INSTANCE)} > 0"
    return Alert(
        "ConnectionsStuck",
        scope.exposing(joined(is_open, "unless on (job, instance)", finishes)),
        scale.minutes(5),
        severity="info",
        summary=f"An instance of {JOB} has requests open and finishes none",
        description=(
            f"{INSTANCE} of {JOB} has had at least {{{{ $value }}}} requests open for {window} and finished none."
        ),
    )


def label_sets_dropped(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for an instance that met more label sets than it keeps."""
    window = scale.minutes(15)
    return Alert(
        "LabelSetsDropped",
        f"increase({scope.targets.of(DROPPED)}[{window}]) > 0",
        scale.minutes(1),
        severity="warning",
        summary=f"{JOB} has more routes than scaleobs keeps apart",
        description=(
            f"{INSTANCE} of {JOB} has counted about {{{{ $value | humanize }}}} requests under the route _overflow "
            f"within {window}, since their label sets are past its limit: some route is not a template."
        ),
    )


def internal_faults(scope: Scope, scale: TimeScale) -> Alert:
    """Return the alert for a fault of scaleobs that it kept away from the application."""
    window = scale.minutes(15)
    return Alert(
        "InternalFaults",
        f"increase({scope.targets.of(FAULTS)}[{window}]) > 0",
        scale.minutes(1),
        severity="info",
        summary=f"scaleobs has a fault in {JOB}",
        description=(
            f"{INSTANCE} of {JOB} had about {{{{ $value | humanize }}}} faults inside scaleobs within {window}. "
            "Requests were answered; some may be missing in metrics or logs."
        ),
    )
