"""From a service and its objectives to the groups of rules that watch it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaleobs.render import alerts, records
from scaleobs.render.durations import TimeScale
from scaleobs.render.names import service_and_job
from scaleobs.render.records import Rule, Scope
from scaleobs.render.thresholds import number, thresholds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scaleobs.objectives import Objective


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates one after the other, and what to say about them."""

    name: str
    about: str
    interval: str
    rules: list[Rule]

    def data(self) -> dict[str, object]:
        """Return the group as Prometheus reads it."""
        return {"name": self.name, "interval": self.interval, "rules": self.rules}


def rules(
    service: str | None = None,
    job: str | None = None,
    objectives: Sequence[Objective] = (),
    time_scale: float = 1,
) -> list[Group]:
    """
    Return the recording rules and alerts of one service, or of every instrumented service.

    Args:
        service: the service, which goes into the `service` label of its alerts. None and no job: every
            service whose targets expose `service_info`.
        job: the job that Prometheus scrapes the service under, where that isn't the service's own name.
        objectives: what good means for the service, at most one of each kind.
        time_scale: a number that every duration is divided by, for a fire drill.

    Raises:
        ValueError: a name can't be a job's, an objective can't be watched, or the time scale is out of range.
    """
    service, job = service_and_job(service, job)
    lines, scale = thresholds(objectives), TimeScale(time_scale)
    interval = scale.seconds(30)
    scope = Scope(job, window=scale.minutes(5), memory=scale.days(1))
    groups = {
        "targets": [
            *records.seen(scope),
            alerts.service_down(scope, scale),
            alerts.service_absent(scope, scale),
        ],
        "errors": [*records.errors(scope), alerts.high_error_rate(scope, scale, lines)],
        "latency": [
            *records.latency(scope, lines.slow_seconds),
            alerts.high_request_latency(scope, scale, lines),
        ],
        "saturation": [
            alerts.high_cpu_usage(scope, scale, lines),
            alerts.high_memory_usage(scope, scale, lines),
        ],
    }
    about = _about(scope, number(lines.slow_seconds))
    prefix = f"scaleobs.{service}" if service else "scaleobs"
    return [
        Group(
            f"{prefix}.{name}",
            about[name],
            str(interval),
            [_of_service(rule, service) for rule in members],
        )
        for name, members in groups.items()
    ]


def _of_service(rule: Rule, service: str | None) -> Rule:
    labels = rule.get("labels")
    if not isinstance(labels, dict):
        return rule
    # Alertmanager groups and inhibits by `service`, so every alert has it, whoever wrote the rules.
    return {**rule, "labels": {**labels, "service": service or "{{ $labels.job }}"}}


def _about(scope: Scope, slow_seconds: str) -> dict[str, str]:
    watched = (
        f"job {scope.job}"
        if scope.job
        else f"every job whose targets showed service_info within the last {scope.memory}"
    )
    return {
        "targets": f"""\
Is the service there at all? These watch {watched}.
ServiceDown: targets are known and none answers.
ServiceAbsent: no target is known, which up == 0 can't see.""",
        "errors": """\
Do requests fail? Both sides of the ratio are summed: 5xx series divided one by one are always 1.
min_over_time ... unless ... offset adds what a series brought with it when it was born, which rate() can't
see: the first burst of errors on a route counts. A series that is new only because Prometheus was away
doesn't. No requests: no ratio and no alert. No errors: a ratio of 0.""",
        "latency": f"""\
Are requests slow? The share slower than {slow_seconds} s, exact because it is counted at a bucket's boundary.
Failures (5xx) and clients that went away (499) are left out: a fast failure is not good latency.
job:request_latency_seconds:mean5m is for comparison only. Never alert on it: with two requests in a hundred
taking 10 s, a mean of 0.25 s still looks well.""",
        "saturation": """\
What may be the cause? Users may feel nothing yet: CPU is information, memory a warning, since the kernel
kills a container at its limit. Containers (cAdvisor, kube-state-metrics) are found by the pod of the
service's targets. Elsewhere a process is measured against one core: Python's interpreter lock allows no more.""",
    }
