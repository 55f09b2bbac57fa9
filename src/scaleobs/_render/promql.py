"""
PromQL expressions, one function for each, which rules and panels share.

Names of metrics and labels come from the catalog only. A range is the text between the brackets: a `Duration` in a
rule, `$__rate_interval` in a panel.
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
    HEALTH_DURATION,
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
    WEBSOCKET_DURATION,
    WEBSOCKETS,
    Metric,
)

if TYPE_CHECKING:
    from scaleobs._render.durations import Duration

METHOD, ROUTE, STATUS = REQUESTS.labels
FAILED = f'{STATUS}=~"5.."'
# Left out: a fast failure must not improve the latency, and a request whose client disconnected has none.
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
REPLICAS_DESIRED = _FAMILIES["kube_deployment_spec_replicas"]
REPLICAS_AVAILABLE = _FAMILIES["kube_deployment_status_replicas_available"]

_POD = ("namespace", "pod")
_CONTAINER = (*_POD, "container")
_DEPLOYMENT = ("namespace", "deployment")


@dataclass(frozen=True, slots=True)
class Targets:
    """
    The targets whose series an expression selects.

    Args:
        matchers: the label matchers that select them, e.g. `('job="orders"',)`; none means every target.
        route: a matcher for the metrics that have a route.
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
    """Return an expression in parentheses, indented if it has several lines."""
    if "\n" not in expression:
        return f"({expression})"
    return f"(\n{indent(expression, '  ')}\n)"


def aggregate(expression: str, *by: str, operator: str = "sum") -> str:
    """Return an aggregation of an expression, by labels if there are any."""
    return f"{operator} by ({', '.join(by)}) {grouped(expression)}" if by else f"{operator}{grouped(expression)}"


def equal(label: str, value: str) -> str:
    """Return the matcher of one value, whose special characters are escaped."""
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
    """Return the number of instances on which the last run of each check failed; empty if all passed."""
    return aggregate(f"{targets.of(HEALTH_UP)} == 0", *HEALTH_UP.labels, operator="count")


def slowest_checks(targets: Targets) -> str:
    """Return the duration of the last run of each check, on the instance with the longest run."""
    return aggregate(targets.of(HEALTH_DURATION), *HEALTH_DURATION.labels, operator="max")


def request_rate(targets: Targets, range_: str, *more: str, by: tuple[str, ...] = ()) -> str:
    """Return the rate of finished requests."""
    return aggregate(f"rate({targets.of(REQUESTS, *more)}[{range_}])", *by)


def failed_rate(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the rate of failed requests; 0, not empty, if none ever failed."""
    total = request_rate(targets, range_, by=by)
    return joined(request_rate(targets, range_, FAILED, by=by), "or", f"0 * {total}")


def log_rate(targets: Targets, range_: str) -> str:
    """Return the rate of log lines, by level."""
    return aggregate(f"rate({targets.of(LOG_MESSAGES)}[{range_}])", *LOG_MESSAGES.labels)


def error_ratio(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the share of failed requests: 0 without failures, empty without requests."""
    total = request_rate(targets, range_, by=by)
    return joined(grouped(failed_rate(targets, range_, by=by)), "/", f"({total} > 0)")


def rate_with_first_samples(series: str, targets: Targets, window: Duration, *, by: tuple[str, ...]) -> str:
    """
    Return the rate of these targets' counters, with the first values of new series.

    `rate()` ignores the first sample: 50 failures that are first scraped as 50 are no increase (prometheus#1673). They
    are added while the series is younger than the window. This excludes a series that is new only because Prometheus
    was away: its target was not up a window ago, and its process did not just start.
    """
    started = joined(
        f"{targets.of(UP)} offset {window} == 1", "or", f"{targets.of(STARTED)} > time() - {window.seconds}"
    )
    born = joined(f"min_over_time({series}[{window}])", "unless", f"{series} offset {window}")
    new = joined(grouped(born), "and on (job, instance)", grouped(started))
    rate = f"rate({series}[{window}])"
    return aggregate(joined(joined(rate, "+", f"{grouped(new)} / {window.seconds}"), "or", rate), *by)


def timed_rate(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the rate of the requests that count for latency."""
    return observed_rate(targets, DURATION, range_, TIMED, by=by)


def fast_rate(targets: Targets, range_: str, seconds: float, *, by: tuple[str, ...]) -> str:
    """Return the rate of those that take no longer than a bucket's boundary."""
    return within_rate(targets, DURATION, range_, seconds, TIMED, by=by)


def slow_share(fast: str, timed: str) -> str:
    """Return the share of slow requests, from the rates of fast ones and of all; empty without requests."""
    share = f"1 - {fast} / ({timed} > 0)"
    if "\n" in share:
        share = joined(f"1 - {fast}", "/", f"({timed} > 0)")
    # Two rates over one window may differ by a rounding error: the share must not be negative.
    return f"clamp_min(\n{indent(share, '  ')},\n  0\n)"


def mean_latency(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the mean latency, for comparison only: it hides the slowest requests."""
    spent = observed_rate(targets, DURATION, range_, by=by, of="sum")
    count = observed_rate(targets, DURATION, range_, by=by)
    return joined(spent, "/", f"({count} > 0)")


def quantile(targets: Targets, range_: str, q: str, *, by: tuple[str, ...] = ()) -> str:
    """Return the latency that a share `q` of the requests stays below, with the precision of the buckets."""
    return _quantile(targets, DURATION, range_, q, by, TIMED)


def latency_buckets(targets: Targets, range_: str) -> str:
    """Return the number of requests in each bucket."""
    classic = aggregate(f"increase({targets.of(DURATION, part='_bucket')}[{range_}])", "le")
    return joined(classic, "or on ()", aggregate(f"increase({targets.of(DURATION)}[{range_}])"))


# A histogram is classic, with several series for each label set, or native, with one series without `le`: Prometheus
# drops the classic series if it stores the native one. Each expression is for both, and for a fleet that has both.


def observed_rate(
    targets: Targets, metric: Metric, range_: str, *more: str, by: tuple[str, ...], of: str = "count"
) -> str:
    """Return the rate of a histogram's observations, or with `of="sum"` that of their sum."""
    classic = f"rate({targets.of(metric, *more, part=f'_{of}')}[{range_}])"
    return aggregate(joined(classic, "or", f"histogram_{of}({_native(targets, metric, range_, *more)})"), *by)


def within_rate(targets: Targets, metric: Metric, range_: str, seconds: float, *more: str, by: tuple[str, ...]) -> str:
    """Return the rate of the observations that are no larger than a bucket's boundary."""
    native = _native(targets, metric, range_, *more)
    counted = f"histogram_count({native})"
    # The fraction of an empty histogram is NaN, which would make the whole sum NaN.
    within = joined(f"histogram_fraction(0, {seconds!r}, {native})", "*", f"({counted} > 0)")
    classic = f"rate({targets.of(metric, *more, bucket(seconds), part='_bucket')}[{range_}])"
    return aggregate(joined(joined(classic, "or ignoring (le)", within), "or ignoring (le)", counted), *by)


def websocket_rate(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the rate of closed WebSockets."""
    return aggregate(f"rate({targets.of(WEBSOCKETS)}[{range_}])", *by)


def websocket_duration(targets: Targets, range_: str, q: str) -> str:
    """Return the time that a share `q` of the closed WebSockets were open at most."""
    return _quantile(targets, WEBSOCKET_DURATION, range_, q, ())


def event_loop_lag(targets: Targets, range_: str, q: str, *, by: tuple[str, ...] = ()) -> str:
    """Return the lag of the event loop that a share `q` of the measurements stays below."""
    return _quantile(targets, EVENT_LOOP_LAG, range_, q, by)


def worker_threads(targets: Targets) -> dict[str, str]:
    """Return the threads in use of each pool, its size, and the calls that wait for a thread."""
    metrics = {"busy": POOL_BUSY, "size": POOL_SIZE, "waiting": POOL_WAITING}
    return {name: aggregate(targets.of(metric), *metric.labels) for name, metric in metrics.items()}


def process_cpu(targets: Targets, range_: str, *, by: tuple[str, ...]) -> str:
    """Return the number of cores that a process keeps busy."""
    return aggregate(f"rate({targets.of(CPU)}[{range_}])", *by)


def open_files_share(targets: Targets, *, by: tuple[str, ...]) -> str:
    """Return the share of its file descriptors that a process uses."""
    return f"{aggregate(targets.of(OPEN_FILES), *by)} / {aggregate(targets.of(MAX_FILES), *by)}"


def cpu_share(targets: Targets, window: Duration) -> str:
    """Return the share of its CPU limit that the busiest container of each pod uses."""
    used = aggregate(f"rate({_CONTAINERS.of(CONTAINER_CPU)}[{window}])", *_CONTAINER)
    return _of_pods(targets, _share_of_limit(used, "cpu"))


def memory_share(targets: Targets) -> str:
    """Return the share of its memory limit that the fullest container of each pod uses."""
    used = aggregate(_CONTAINERS.of(CONTAINER_MEMORY), *_CONTAINER, operator="max")
    return _of_pods(targets, _share_of_limit(used, "memory"))


def throttled_share(targets: Targets, window: Duration) -> str:
    """Return the share of the scheduler's periods in which the most throttled container of each pod was throttled."""
    throttled, periods = (
        aggregate(f"rate({_CONTAINERS.of(metric)}[{window}])", *_CONTAINER)
        for metric in (CONTAINER_THROTTLED, CONTAINER_PERIODS)
    )
    return _of_pods(targets, joined(throttled, "/", f"({periods} > 0)"))


def replicas_missing(targets: Targets) -> str:
    """Return the number of replicas that are missing in the Deployments of these targets' pods."""
    desired, available = (
        aggregate(Targets().of(metric), *_DEPLOYMENT, operator="max")
        for metric in (REPLICAS_DESIRED, REPLICAS_AVAILABLE)
    )
    replicasets = _owners(_pods(targets), POD_OWNER, "ReplicaSet", ("pod", "replicaset"))
    deployments = _owners(replicasets, REPLICASET_OWNER, "Deployment", ("replicaset", "deployment"))
    missing = joined(desired, "-", available)
    return joined(deployments, f"* on ({', '.join(_DEPLOYMENT)}) group_left ()", f"{grouped(missing)} > 0")


def _owners(objects: str, metric: Metric, kind: str, labels: tuple[str, str]) -> str:
    """Return the owners of objects, by job and namespace: the first label names an object, the second its owner."""
    name, owner = labels
    owners = aggregate(Targets().of(metric, f'owner_kind="{kind}"'), "namespace", name, "owner_name", operator="group")
    renamed = f'label_replace(\n{indent(owners, "  ")},\n  "{owner}", "$1", "owner_name", "(.+)"\n)'
    pairs = joined(objects, f"* on (namespace, {name}) group_left ({owner})", renamed)
    return aggregate(pairs, "job", "namespace", owner, operator="group")


def _share_of_limit(used: str, resource: str) -> str:
    # A limit of 0 means that there is none. Two replicas of kube-state-metrics don't double it: max, not sum.
    limits = aggregate(Targets().of(CONTAINER_LIMITS, f'resource="{resource}"'), *_CONTAINER, operator="max")
    return joined(used, "/", f"({limits} > 0)")


def _of_pods(targets: Targets, share: str) -> str:
    # One value per pod on the right keeps the join valid if a pod is scraped under two jobs.
    highest = aggregate(share, *_POD, operator="max")
    return joined(_pods(targets), f"* on ({', '.join(_POD)}) group_left", highest)


def _pods(targets: Targets) -> str:
    # Targets have the labels of their pod, so that no container has to be named.
    return aggregate(targets.of(INFO), "job", *_POD, operator="group")


def _native(targets: Targets, metric: Metric, range_: str, *more: str) -> str:
    return f"rate({targets.of(metric, *more)}[{range_}])"


def _quantile(targets: Targets, metric: Metric, range_: str, q: str, by: tuple[str, ...], *more: str) -> str:
    classic = aggregate(f"rate({targets.of(metric, *more, part='_bucket')}[{range_}])", *by, "le")
    native = aggregate(_native(targets, metric, range_, *more), *by)
    quantiles = (f"histogram_quantile(\n  {q},\n{indent(buckets, '  ')}\n)" for buckets in (classic, native))
    return "\nor\n".join(quantiles)
