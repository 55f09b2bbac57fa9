"""From a service and its objectives to the groups of rules that watch it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Availability
from scaleobs.render import alerts, burnrate, presence, records, strain
from scaleobs.render.alerts import Alert
from scaleobs.render.changes import changed, check_names, redrawn, target, wait_of
from scaleobs.render.durations import TimeScale, pace
from scaleobs.render.links import Links
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
    *,
    window_days: int = 30,
    changes: Sequence[str] = (),
    disabled: Sequence[str] = (),
    scrape_interval: int = 30,
    runbook_url: str | None = None,
    dashboard_url: str | None = None,
    boundaries: Sequence[float] = DEFAULT_BUCKETS,
) -> list[Group]:
    """
    Return the recording rules and alerts of one service, or of every instrumented service.

    Args:
        service: the service, which goes into the `service` label of its alerts. None and no job: every
            service whose targets expose `service_info`.
        job: the job that Prometheus scrapes the service under, where that isn't the service's own name.
        objectives: what good means, at most one of each kind for the service, and for each route.
        time_scale: a number that every duration is divided by, for a fire drill.
        window_days: what the objectives' budgets are for, 28 or 30 days.
        changes: what alerts should do otherwise, e.g. `HighErrorRate.for=10m`, `HighCPUUsage.severity=warning` or
            `HighMemoryUsage.above=95%`.
        disabled: the names of alerts that should not be there. What they read is recorded all the same.
        scrape_interval: how many seconds lie between two scrapes of a target. Rates are taken over four of them at
            least, alerts wait for two, and the rules are evaluated no more often; 30 or less changes nothing.
        runbook_url: the address of the runbook that alerts lead to, by its headings; see `Links`.
        dashboard_url: the address of the Grafana that has the dashboard.
        boundaries: those of the service's buckets in seconds, at which the times of latency objectives have to be.

    Raises:
        ValueError: a name can't be a job's or isn't an alert's, an objective can't be watched, or a value is out of
            range.
    """
    service, job = service_and_job(service, job)
    if window_days not in burnrate.WINDOWS_DAYS:
        msg = f"A budget for {window_days!r} days is not known: give 28 or 30."
        raise ValueError(msg)
    interval, window = pace(scrape_interval)
    lines, scale = redrawn(thresholds(objectives, boundaries), changes), TimeScale(time_scale)
    scope = Scope(job, interval=scale.seconds(interval), window=scale.seconds(window), memory=scale.days(1))
    asked = changes, scale, 2 * interval
    groups: dict[str, list[Rule | Alert]] = {
        "targets": [
            *records.seen(scope),
            alerts.service_down(scope, scale),
            alerts.service_absent(scope, scale),
            presence.instance_down(scope, scale),
            presence.metrics_missing(scope, scale),
            presence.crash_loop(scope, scale, lines),
            presence.replicas_missing(scope, scale),
        ],
        "readiness": [
            presence.service_not_ready(scope, scale),
            presence.instance_not_ready(scope, scale),
            presence.startup_stuck(scope, scale),
            presence.check_failing(scope, scale),
        ],
        "errors": [
            *records.errors(scope),
            alerts.high_error_rate(scope, scale, lines),
            alerts.high_route_error_rate(scope, scale, lines),
            presence.traffic_gone(scope, scale, lines),
            *records.log_errors(scope),
            alerts.error_log_burst(scope, scale, lines, wait_of("ErrorLogBurst", scale.minutes(2), *asked)),
        ],
        "latency": [
            *records.latency(scope, lines.slow_seconds),
            alerts.high_request_latency(scope, scale, lines),
        ],
        "saturation": [
            alerts.high_cpu_usage(scope, scale, lines),
            strain.cpu_throttled(scope, scale, lines),
            alerts.high_memory_usage(scope, scale, lines),
            strain.event_loop_late(scope, scale, lines),
            strain.thread_pool_saturated(scope, scale),
            strain.file_descriptors(scope, scale, lines),
            strain.connections_stuck(scope, scale),
        ],
        "library": [
            strain.label_sets_dropped(scope, scale),
            strain.internal_faults(scope, scale),
        ],
        "budgets": [],
    }
    about = _about(scope, number(lines.slow_seconds))
    for one in objectives:
        # In the group of what they read, so that all of it is of one moment.
        name = "errors" if isinstance(one, Availability) else "latency"
        groups[name] += burnrate.records(one, scope, scale)
        groups[name] += burnrate.alerts(one, scope, scale, lines, window_days)
        groups["budgets"] += burnrate.budget(one, scope, scale, window_days)
        about[name] = about[name].removesuffix(_BUDGETS) + _BUDGETS
    known = [rule.name for members in groups.values() for rule in members if isinstance(rule, Alert)]
    check_names([*map(target, changes), *disabled], known)
    links = Links(service, runbook_url, dashboard_url)
    prefix = f"scaleobs.{service}" if service else "scaleobs"
    rendered = (
        Group(
            f"{prefix}.{name}",
            about[name],
            # A month of samples need not be read every half minute; series that are recorded less often have gaps.
            str(scale.minutes(2) if name == "budgets" else scope.interval),
            [
                changed(rule, *asked).rule(service, links) if isinstance(rule, Alert) else rule
                for rule in members
                if not isinstance(rule, Alert) or rule.name not in disabled
            ],
        )
        for name, members in groups.items()
    )
    return [group for group in rendered if group.rules]


_BUDGETS = """
Is the error budget spent too fast? The share of bad requests is compared with what the objective allows, over a
long window, so that it matters, and a short one, so that it still goes on. Windows beyond 5m read recorded rates,
and divide their means: a mean of ratios would let a quiet night outweigh a busy day.
sum_over_time(...) counts bad requests: a few are no reason to wake anybody. QuietService* are for services that
never have more: most of the requests of six hours went wrong, and two of them did."""


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
ServiceAbsent: no target is known, which up == 0 can't see.
InstanceDown: one of several doesn't answer. MetricsMissing: targets answer and say nothing of scaleobs, so
that all other alerts are blind. CrashLoop: an instance starts again and again. ReplicasMissing: its Deployment
has fewer than it should; the pods of its targets lead to the ReplicaSet that made them, and that to the Deployment.""",
        "readiness": """\
Would it take requests? /ready decides whether a load balancer sends any, so an instance that is not ready
fails none: these are the only ones to tell. CheckFailing speaks where readiness doesn't show the fault,
StartupStuck where an instance was never ready.""",
        "errors": """\
Do requests fail? Both sides of the ratio are summed: 5xx series divided one by one are always 1.
The first rule alone reads what instances expose; those below it sum up what it has just recorded.
min_over_time ... unless ... offset adds what a series brought with it when it was born, which rate() can't
see: the first burst of errors on a route counts. A series that is new only because Prometheus was away
doesn't. No requests: no ratio and no alert. No errors: a ratio of 0.
HighRouteErrorRate: one route of many fails, which the ratio of the service hides.
TrafficGone: no request where there were some today, and no pause at this time yesterday.
ErrorLogBurst: far more log lines of errors than the mean of a day, which leaves out the last hour.""",
        "latency": f"""\
Are requests slow? The share slower than {slow_seconds} s, exact because it is counted at a bucket's boundary.
Failures (5xx) and clients that went away (499) are left out: a fast failure is not good latency.
job:request_latency_seconds:mean5m is for comparison only. Never alert on it: with two requests in a hundred
taking 10 s, a mean of 0.25 s still looks well.""",
        "saturation": """\
What may be the cause? Users may feel nothing yet: CPU is information, memory a warning, since the kernel
kills a container at its limit. Containers (cAdvisor, kube-state-metrics) are found by the pod of the
service's targets. Elsewhere an instance is measured against one core, which is what Python code in one process
can use under the interpreter lock.
Event loops and worker threads are an ASGI application's.""",
        "budgets": """\
What is left of each error budget? 1 is all of it, 0 nothing, less is more than was allowed. A day with many requests
counts for more than one with few: rates are averaged and then divided. A young service is measured by its own time.""",
        "library": """\
Does scaleobs itself work? Per instance: a sum over a fleet hides the one whose routes are no templates.""",
    }
