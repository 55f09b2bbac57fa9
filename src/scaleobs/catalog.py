"""
Every metric and label that scaleobs exposes, as plain data.

The storage registers what stands here, the alert rules and dashboards name only what stands here, and tests
hold both to it. A metric that no rule and no panel uses has no place here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_BUCKETS: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of `http_request_duration_seconds`; `+Inf` follows by itself."""

METHODS: frozenset[str] = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The methods of RFC 9110 and RFC 5789. Any other is counted as `OTHER_METHOD`."""

OTHER_METHOD = "_OTHER"
UNMATCHED_ROUTE = "unmatched"

PROBES: tuple[str, ...] = ("live", "ready", "startup")
LOG_LEVELS: tuple[str, ...] = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family: what it is called, which labels it carries and what it means."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The sample names that a scrape shows for this family."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum")
        return (self.name,)


REQUESTS = Metric(
    "http_requests_total",
    "counter",
    ("method", "route", "status_code"),
    "HTTP requests finished.",
)
DURATION = Metric(
    "http_request_duration_seconds",
    "histogram",
    ("method", "route", "status_code"),
    "Time from the server's call to the last byte handed back to it.",
)
ACTIVE = Metric(
    "active_connections",
    "gauge",
    ("protocol",),
    "Requests and WebSockets open now.",
)
READY = Metric(
    "service_ready",
    "gauge",
    (),
    "1 while the readiness probe would answer 200, by the last results of its checks.",
)
HEALTH_UP = Metric(
    "health_check_up",
    "gauge",
    ("probe", "check"),
    "1 where the last run of a check passed, 0 where it failed; no scrape runs one.",
)
HEALTH_DURATION = Metric(
    "health_check_duration_seconds",
    "gauge",
    ("probe", "check"),
    "How long the last run of a check took, or has taken where it hangs.",
)
INFO = Metric(
    "service_info",
    "gauge",
    ("service_name", "version", "environment", "scaleobs_version"),
    "Always 1; the labels say which service this is.",
)
DROPPED = Metric(
    "scaleobs_label_sets_dropped_total",
    "counter",
    (),
    "Requests whose label set is past the limit, counted in the overflow series instead.",
)
FAULTS = Metric(
    "scaleobs_internal_faults_total",
    "counter",
    (),
    "Faults inside scaleobs that were kept away from the application.",
)
LOG_MESSAGES = Metric(
    "log_messages_total",
    "counter",
    ("level",),
    "Log lines written.",
)
WORKERS = Metric(
    "scaleobs_workers",
    "gauge",
    (),
    "Processes whose counts are added up here: the living workers of one server.",
)

EVENT_LOOP_LAG = Metric(
    "event_loop_lag_seconds",
    "histogram",
    (),
    "How much later than asked the event loop runs, looked at four times a second.",
)
POOL_BUSY = Metric(
    "thread_pool_busy",
    "gauge",
    ("pool",),
    "Worker threads that are in use.",
)
POOL_WAITING = Metric(
    "thread_pool_waiting",
    "gauge",
    ("pool",),
    "Calls that wait for a worker thread.",
)
POOL_SIZE = Metric(
    "thread_pool_size",
    "gauge",
    ("pool",),
    "Worker threads that may be in use at a time.",
)

REQUEST_SIZE = Metric(
    "http_request_size_bytes",
    "histogram",
    ("method", "route", "status_code"),
    "Size of request bodies.",
)
RESPONSE_SIZE = Metric(
    "http_response_size_bytes",
    "histogram",
    ("method", "route", "status_code"),
    "Size of response bodies.",
)

ON_REQUEST: tuple[Metric, ...] = (REQUEST_SIZE, RESPONSE_SIZE)
"""Families that `size_histograms=True` adds. No rule and no panel uses them, so they are not there unasked."""

SIZE_BUCKETS: tuple[float, ...] = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7)
"""Upper bounds in bytes of the families above."""

EXPOSED: tuple[Metric, ...] = (
    REQUESTS,
    DURATION,
    ACTIVE,
    READY,
    HEALTH_UP,
    HEALTH_DURATION,
    INFO,
    LOG_MESSAGES,
    DROPPED,
    FAULTS,
    WORKERS,
)
"""Every family that scaleobs itself exposes."""

RUNTIME: tuple[Metric, ...] = (EVENT_LOOP_LAG, POOL_BUSY, POOL_WAITING, POOL_SIZE)
"""Families that are there once an event loop runs, each pool of threads once there is one."""

LAG_BUCKETS: tuple[float, ...] = DEFAULT_BUCKETS
"""Upper bounds in seconds of `event_loop_lag_seconds`."""

PROCESS: tuple[Metric, ...] = (
    Metric("process_cpu_seconds_total", "counter", (), "CPU time the process used."),
    Metric("process_resident_memory_bytes", "gauge", (), "Memory the process holds."),
    Metric("process_start_time_seconds", "gauge", (), "When the process started."),
    Metric("process_open_fds", "gauge", (), "File descriptors the process holds."),
    Metric("process_max_fds", "gauge", (), "File descriptors the process may hold."),
)
"""What rules and panels use of prometheus_client's process collector, which every `/metrics` carries."""

_POD = ("namespace", "pod", "container")
_OWNER = ("owner_kind", "owner_name")
_DEPLOYMENT = ("namespace", "deployment")

OUTSIDE: tuple[Metric, ...] = (
    Metric("up", "gauge", (), "1 where Prometheus could scrape the target."),
    Metric("ALERTS", "gauge", ("alertname", "alertstate", "severity"), "Alerts pending and firing."),
    Metric("container_cpu_usage_seconds_total", "counter", _POD, "CPU time of a container (cAdvisor)."),
    Metric(
        "container_cpu_cfs_periods_total", "counter", _POD, "Scheduler periods in which a container ran (cAdvisor)."
    ),
    Metric(
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        _POD,
        "Those in which its CPU limit held it back (cAdvisor).",
    ),
    Metric("container_memory_working_set_bytes", "gauge", _POD, "Memory of a container (cAdvisor)."),
    Metric(
        "kube_pod_container_resource_limits",
        "gauge",
        (*_POD, "resource"),
        "Limits of a container (kube-state-metrics).",
    ),
    Metric(
        "kube_pod_owner",
        "gauge",
        ("namespace", "pod", *_OWNER),
        "Always 1; the labels say what made a pod (kube-state-metrics).",
    ),
    Metric(
        "kube_replicaset_owner",
        "gauge",
        ("namespace", "replicaset", *_OWNER),
        "Always 1; the labels say what made a ReplicaSet (kube-state-metrics).",
    ),
    Metric(
        "kube_deployment_spec_replicas",
        "gauge",
        _DEPLOYMENT,
        "Replicas that a Deployment should have (kube-state-metrics).",
    ),
    Metric(
        "kube_deployment_status_replicas_available",
        "gauge",
        _DEPLOYMENT,
        "Replicas of it that are ready to take requests (kube-state-metrics).",
    ),
)
"""The one list of series that rules and panels use and that Prometheus or Kubernetes makes."""

TARGET_LABELS: frozenset[str] = frozenset({"job", "instance", "namespace", "pod", "container", "service"})
"""What Prometheus puts on a target's series. scaleobs never exposes one of these itself."""
