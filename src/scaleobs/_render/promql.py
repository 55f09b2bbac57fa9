"""
Questions to a service, as PromQL: one function for each, asked by rules and panels alike.

Names of metrics and labels come from the catalog only. A range is whatever text belongs between the brackets:
a `Duration` in a rule, `$__rate_interval` in a panel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING

from scaleobs.catalog import (
    DURATION,
    EVENT_LOOP_LAG,
    EXPOSED,
    HEALTH_UP,
    INFO,
    LOG_MESSAGES,
    OUTSIDE,
    POOL_BUSY,
    POOL_SIZE,
    POOL_WAITING,
    PROCESS,
    REQUESTS,
    RUNTIME,
    Metric,
)

if TYPE_CHECKING:
    from scaleobs._render.durations import Duration

METHOD, ROUTE, STATUS = REQUESTS.labels
FAILED = f'{STATUS}=~"5.."'
# A failure that is fast must not improve the latency, and a client that went away says nothing about it.
TIMED = f'{STATUS}!~"499|5.."'

_FAMILIES = {metric.name: metric for metric in (*EXPOSED, *RUNTIME, *PROCESS, *OUTSIDE)}
UP = _FAMILIES["up"]
ALERTS = _FAMILIES["ALERTS"]
CPU = _FAMILIES["process_cpu_seconds_total"]
MEMORY = _FAMILIES["process_resident_memory_bytes"]
STARTED = _FAMILIES["process_start_time_seconds"]
OPEN_FILES = _FAMILIES["process_open_fds"]
MAX_FILES = _FAMILIES["process_max_fds"]
CONTAINER_CPU = _FAMILIES["container_cpu_usage_seconds_total"]
CONTAINER_MEMORY = _FAMILIES["container_memory_working_set_bytes"]
CONTAINER_PERIODS = _FAMILIES["container_cpu_cfs_periods_total"]
CONTAINER_THROTTLED = _FAMILIES["container_cpu_cfs_throttled_periods_total"]
CONTAINER_LIMITS = _FAMILIES["kube_pod_container_resource_limits"]
POD_OWNER = _FAMILIES["kube_pod_owner"]
REPLICASET_OWNER = _FAMILIES["kube_replicaset_owner"]
REPLICAS_WANTED = _FAMILIES["kube_deployment_spec_replicas"]
REPLICAS_AVAILABLE = _FAMILIES["kube_deployment_status_replicas_available"]

_POD = ("namespace", "pod")
_CONTAINER = (*_POD, "container")
_DEPLOYMENT = ("namespace", "deployment")


@dataclass(frozen=True, slots=True)
class Targets:
    """
    Which targets a question is put to.

    Args:
        matchers: the label matchers that select them, e.g. `('job="orders"',)`; none means every target.
        route: a matcher that only metrics with a route get.
    """

    matchers: tuple[str, ...] = ()
    route: str = ""

    def of(self, metric: Metric, *more: str, part: str = "") -> str:
        """Return the selector of these targets' series of a metric, or of a part of it such as `_bucket`."""
        route = (self.route,) if self.route and ROUTE in metric.labels else ()
        return self.named(metric.name + part, *route, *more)

    def named(self, name: str, *more: str) -> str:
        """Return the selector of these targets' series with that name."""
        matchers = ",".join((*self.matchers, *more))
        return f"{name}{{{matchers}}}" if matchers else name


# cAdvisor also reports each pod's own control group, without a container, and the pause container as POD:
# both would count twice what the containers use.
_CONTAINERS = Targets(('container!=""', 'container!="POD"'))


def joined(left: str, operator: str, right: str) -> str:
    """Return a binary operation, with the operator on a line of its own."""
    return f"{left}\n{operator}\n{right}"


def grouped(expression: str) -> str:
    """Return an expression in parentheses, indented when it has several lines."""
    if "\n" not in expression:
        return f"({expression})"
    return f"(\n{indent(expression, '  ')}\n)"


def summed(expression: str, *by: str, how: str = "sum") -> str:
    """Return an aggregation of an expression by labels, or over everything where there are none."""
    return f"{how} by ({', '.join(by)}) {grouped(expression)}" if by else f"{how}{grouped(expression)}"


def equal(label: str, value: str) -> str:
    """Return the matcher of one value, whatever characters it has."""
    return f"{label}={json.dumps(value, ensure_ascii=False)}"


def bucket(seconds: float) -> str:
    """
    Return the matcher of the bucket with that upper bound.

    Prometheus 2 keeps `le="1"` as the service wrote it, Prometheus 3 stores `1.0`: whole numbers match both.
    """
    if float(seconds).is_integer():
        return f'le=~"{seconds:.0f}|{seconds:.0f}\\\\.0"'
    return f'le="{seconds!r}"'


def failing_checks(targets: Targets) -> str:
    """Ask on how many instances the last run of each check failed: nothing where all passed."""
    return summed(f"{targets.of(HEALTH_UP)} == 0", *HEALTH_UP.labels, how="count")


def request_rate(targets: Targets, range_: str, *more: str, by: tuple[str, ...] = ()) -> str:
    """Ask how many requests finish per second."""
    return summed(f"rate({targets.of(REQUESTS, *more)}[{range_}])", *by)


def failed_rate(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Ask how many requests fail per second: 0, rather than nothing, where none ever failed."""
    total = request_rate(targets, range_, by=by)
    return joined(request_rate(targets, range_, FAILED, by=by), "or", f"0 * {total}")


def log_rate(targets: Targets, range_: str) -> str:
    """Ask how many log lines are written per second, by level."""
    return summed(f"rate({targets.of(LOG_MESSAGES)}[{range_}])", *LOG_MESSAGES.labels)


def error_ratio(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Ask which share of the requests fails: 0 where none does, nothing where there are no requests."""
    total = request_rate(targets, range_, by=by)
    return joined(grouped(failed_rate(targets, range_, by=by)), "/", f"({total} > 0)")


def counted_rate(series: str, targets: Targets, window: Duration, *, by: tuple[str, ...]) -> str:
    """
    Ask how fast these targets' counters rise per second, with what they brought when they were born.

    `rate()` sees only what a series gains after its first sample: 50 failures that are first scraped as 50
    are no increase (prometheus#1673). They are added while the series is younger than the window. A series
    that is new only because Prometheus was away is left alone: its target was not up a window ago, nor did
    its process just start.
    """
    started = joined(
        f"{targets.of(UP)} offset {window} == 1", "or", f"{targets.of(STARTED)} > time() - {window.seconds}"
    )
    born = joined(f"min_over_time({series}[{window}])", "unless", f"{series} offset {window}")
    new = joined(grouped(born), "and on (job, instance)", grouped(started))
    rate = f"rate({series}[{window}])"
    return summed(joined(joined(rate, "+", f"{grouped(new)} / {window.seconds}"), "or", rate), *by)


def timed_rate(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Ask how many requests per second count for latency."""
    return observed_rate(targets, DURATION, range_, TIMED, by=by)


def fast_rate(targets: Targets, range_: str, seconds: float, *, by: tuple[str, ...]) -> str:
    """Ask how many of them take no longer than a bucket's boundary."""
    return within_rate(targets, DURATION, range_, seconds, TIMED, by=by)


def slow_share(fast: str, timed: str) -> str:
    """Ask which share is slow, given the rates of the fast and of all: nothing without requests."""
    share = f"1 - {fast} / ({timed} > 0)"
    if "\n" in share:
        share = joined(f"1 - {fast}", "/", f"({timed} > 0)")
    # Two rates over one window may differ by a rounding error: never less than nothing.
    return f"clamp_min(\n{indent(share, '  ')},\n  0\n)"


def mean_latency(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Ask for the mean latency, which hides what the slowest requests suffer: good for comparison only."""
    spent = observed_rate(targets, DURATION, range_, by=by, of="sum")
    count = observed_rate(targets, DURATION, range_, by=by)
    return joined(spent, "/", f"({count} > 0)")


def quantile(targets: Targets, range_: str, q: str, *, by: tuple[str, ...] = ()) -> str:
    """Ask which latency a share `q` of the requests stays below, as closely as the buckets can tell."""
    return _quantile(targets, DURATION, range_, q, by, TIMED)


def latency_buckets(targets: Targets, range_: str) -> str:
    """Ask how many requests fell into each bucket."""
    classic = summed(f"increase({targets.of(DURATION, part='_bucket')}[{range_}])", "le")
    return joined(classic, "or on ()", summed(f"increase({targets.of(DURATION)}[{range_}])"))


# A histogram is either classic, some series for each label set, or native, a single one without `le`: Prometheus drops
# the classic series where it stores the native one. Each question holds for both, and for a fleet that has both.


def observed_rate(
    targets: Targets, metric: Metric, range_: str, *more: str, by: tuple[str, ...], of: str = "count"
) -> str:
    """Ask how many observations a histogram gets per second, or with `of="sum"` how much they are together."""
    classic = f"rate({targets.of(metric, *more, part=f'_{of}')}[{range_}])"
    return summed(joined(classic, "or", f"histogram_{of}({_native(targets, metric, range_, *more)})"), *by)


def within_rate(targets: Targets, metric: Metric, range_: str, seconds: float, *more: str, by: tuple[str, ...]) -> str:
    """Ask how many observations per second are no larger than a bucket's boundary."""
    native = _native(targets, metric, range_, *more)
    counted = f"histogram_count({native})"
    # The fraction of nothing is no number, which would make the whole sum none.
    within = joined(f"histogram_fraction(0, {seconds!r}, {native})", "*", f"({counted} > 0)")
    classic = f"rate({targets.of(metric, *more, bucket(seconds), part='_bucket')}[{range_}])"
    return summed(joined(joined(classic, "or ignoring (le)", within), "or ignoring (le)", counted), *by)


def event_loop_lag(targets: Targets, range_: str, q: str, *, by: tuple[str, ...] = ()) -> str:
    """Ask which lateness of the event loop a share `q` of the looks at it stays below."""
    return _quantile(targets, EVENT_LOOP_LAG, range_, q, by)


def worker_threads(targets: Targets) -> dict[str, str]:
    """Ask how many threads of each pool are in use, how many there may be, and how many calls wait for one."""
    asked = {"busy": POOL_BUSY, "size": POOL_SIZE, "waiting": POOL_WAITING}
    return {what: summed(targets.of(metric), *metric.labels) for what, metric in asked.items()}


def process_cpu(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Ask how many cores a process keeps busy."""
    return summed(f"rate({targets.of(CPU)}[{range_}])", *by)


def open_files_share(targets: Targets, *, by: tuple[str, ...]) -> str:
    """Ask which share of its file descriptors a process holds."""
    return f"{summed(targets.of(OPEN_FILES), *by)} / {summed(targets.of(MAX_FILES), *by)}"


def cpu_share(targets: Targets, window: Duration) -> str:
    """Ask which share of its CPU limit the busiest container of each pod uses."""
    used = summed(f"rate({_CONTAINERS.of(CONTAINER_CPU)}[{window}])", *_CONTAINER)
    return _of_pods(targets, _share_of_limit(used, "cpu"))


def memory_share(targets: Targets) -> str:
    """Ask which share of its memory limit the fullest container of each pod holds."""
    used = summed(_CONTAINERS.of(CONTAINER_MEMORY), *_CONTAINER, how="max")
    return _of_pods(targets, _share_of_limit(used, "memory"))


def throttled_share(targets: Targets, window: Duration) -> str:
    """Ask in which share of the scheduler's periods the most throttled container of each pod was held back."""
    held_back, periods = (
        summed(f"rate({_CONTAINERS.of(metric)}[{window}])", *_CONTAINER)
        for metric in (CONTAINER_THROTTLED, CONTAINER_PERIODS)
    )
    return _of_pods(targets, joined(held_back, "/", f"({periods} > 0)"))


def replicas_missing(targets: Targets) -> str:
    """Ask how many replicas the Deployments lack that made the pods of these targets."""
    wanted, available = (
        summed(Targets().of(metric), *_DEPLOYMENT, how="max") for metric in (REPLICAS_WANTED, REPLICAS_AVAILABLE)
    )
    replicasets = _makers(_pods(targets), POD_OWNER, "ReplicaSet", ("pod", "replicaset"))
    deployments = _makers(replicasets, REPLICASET_OWNER, "Deployment", ("replicaset", "deployment"))
    missing = joined(wanted, "-", available)
    return joined(deployments, f"* on ({', '.join(_DEPLOYMENT)}) group_left ()", f"{grouped(missing)} > 0")


def _makers(made: str, owner: Metric, kind: str, labels: tuple[str, str]) -> str:
    """Return what made them, by job and namespace: the first label names what was made, the second what made it."""
    one, maker = labels
    owners = summed(Targets().of(owner, f'owner_kind="{kind}"'), "namespace", one, "owner_name", how="group")
    named = f'label_replace(\n{indent(owners, "  ")},\n  "{maker}", "$1", "owner_name", "(.+)"\n)'
    found = joined(made, f"* on (namespace, {one}) group_left ({maker})", named)
    return summed(found, "job", "namespace", maker, how="group")


def _share_of_limit(used: str, resource: str) -> str:
    # A limit of 0 means that there is none. Two replicas of kube-state-metrics don't double it: max, not sum.
    limits = summed(Targets().of(CONTAINER_LIMITS, f'resource="{resource}"'), *_CONTAINER, how="max")
    return joined(used, "/", f"({limits} > 0)")


def _of_pods(targets: Targets, share: str) -> str:
    # One value per pod on the right keeps the join valid where a pod is scraped under two jobs.
    most = summed(share, *_POD, how="max")
    return joined(_pods(targets), f"* on ({', '.join(_POD)}) group_left", most)


def _pods(targets: Targets) -> str:
    # The targets know their pod, so that no container has to be named.
    return summed(targets.of(INFO), "job", *_POD, how="group")


def _native(targets: Targets, metric: Metric, range_: str, *more: str) -> str:
    return f"rate({targets.of(metric, *more)}[{range_}])"


def _quantile(targets: Targets, metric: Metric, range_: str, q: str, by: tuple[str, ...], *more: str) -> str:
    classic = summed(f"rate({targets.of(metric, *more, part='_bucket')}[{range_}])", *by, "le")
    native = summed(_native(targets, metric, range_, *more), *by)
    asked = (f"histogram_quantile(\n  {q},\n{indent(buckets, '  ')}\n)" for buckets in (classic, native))
    return "\nor\n".join(asked)
