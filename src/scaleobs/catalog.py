"""
Every metric and label that scaleobs exposes, as plain data.

The storage registers these metrics, and alert rules and dashboards use no other ones; tests check both. Each metric is
used by a rule or a panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_BUCKETS: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of `http_request_duration_seconds`; `+Inf` is added."""

METHODS: frozenset[str] = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The methods of RFC 9110 and RFC 5789. Any other one is counted as `OTHER_METHOD`."""

OTHER_METHOD = "_OTHER"
UNMATCHED_ROUTE = "unmatched"

OTHER_CODE = "_OTHER"
"""The code of a WebSocket that closed with one that is in no range of RFC 6455."""
UNKNOWN_CODE = "unknown"
"""The code of a WebSocket whose messages scaleobs does not receive, as with WSGI."""

PROBES: tuple[str, ...] = ("live", "ready", "startup")
LOG_LEVELS: tuple[str, ...] = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family: its name, its type, its labels and its meaning."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the samples of this family in a scrape."""
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
WEBSOCKETS = Metric(
    "websocket_connections_total",
    "counter",
    ("route", "code"),
    "Accepted WebSockets that have closed.",
)
WEBSOCKET_DURATION = Metric(
    "websocket_duration_seconds",
    "histogram",
    ("route",),
    "Time from the accept of a WebSocket to its close.",
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
    "1 if the last run of a check passed, 0 if it failed; no scrape runs one.",
)
HEALTH_DURATION = Metric(
    "health_check_duration_seconds",
    "gauge",
    ("probe", "check"),
    "How long the last run of a check took, or has taken so far if it hangs.",
)
INFO = Metric(
    "service_info",
    "gauge",
    ("service_name", "version", "environment", "scaleobs_version"),
    "Always 1; the labels describe the service.",
)
DROPPED = Metric(
    "scaleobs_label_sets_dropped_total",
    "counter",
    (),
    "Requests whose label set is beyond the limit, counted in the overflow series instead.",
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
    "Delay of the event loop, measured four times a second.",
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
"""Families that `size_histograms=True` adds. No rule and no panel uses them, so they are off by default."""

SIZE_BUCKETS: tuple[float, ...] = (100.0, 1e3, 1e4, 1e5, 1e6, 1e7)
"""Upper bounds in bytes of the families above."""

EXPOSED: tuple[Metric, ...] = (
    REQUESTS,
    DURATION,
    ACTIVE,
    WEBSOCKETS,
    WEBSOCKET_DURATION,
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
"""Families that are exposed when an event loop runs, each pool of threads when it exists."""

WEBSOCKET_BUCKETS: tuple[float, ...] = (0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper bounds in seconds of `websocket_duration_seconds`: up to a day."""

LAG_BUCKETS: tuple[float, ...] = DEFAULT_BUCKETS
"""Upper bounds in seconds of `event_loop_lag_seconds`."""

PROCESS: tuple[Metric, ...] = (
    Metric("process_cpu_seconds_total", "counter", (), "CPU time the process used."),
    Metric("process_resident_memory_bytes", "gauge", (), "Memory the process holds."),
    Metric("process_start_time_seconds", "gauge", (), "When the process started."),
    Metric("process_open_fds", "gauge", (), "File descriptors the process holds."),
    Metric("process_max_fds", "gauge", (), "File descriptors the process may hold."),
)
"""Metrics of prometheus_client's process collector that rules and panels use; every `/metrics` has them."""

_POD = ("namespace", "pod", "container")
_OWNER = ("owner_kind", "owner_name")
_DEPLOYMENT = ("namespace", "deployment")

OUTSIDE: tuple[Metric, ...] = (
    Metric("up", "gauge", (), "1 if Prometheus could scrape the target."),
    Metric("ALERTS", "gauge", ("alertname", "alertstate", "severity"), "Alerts pending and firing."),
    Metric("container_cpu_usage_seconds_total", "counter", _POD, "CPU time of a container (cAdvisor)."),
    Metric(
        "container_cpu_cfs_periods_total", "counter", _POD, "Scheduler periods in which a container ran (cAdvisor)."
    ),
    Metric(
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        _POD,
        "Periods in which its CPU limit stopped it (cAdvisor).",
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
        "Always 1; the labels name the owner of a pod (kube-state-metrics).",
    ),
    Metric(
        "kube_replicaset_owner",
        "gauge",
        ("namespace", "replicaset", *_OWNER),
        "Always 1; the labels name the owner of a ReplicaSet (kube-state-metrics).",
    ),
    Metric(
        "kube_deployment_spec_replicas",
        "gauge",
        _DEPLOYMENT,
        "Desired replicas of a Deployment (kube-state-metrics).",
    ),
    Metric(
        "kube_deployment_status_replicas_available",
        "gauge",
        _DEPLOYMENT,
        "Available replicas of a Deployment (kube-state-metrics).",
    ),
)
"""Every series that rules and panels use and that Prometheus or Kubernetes makes."""

TARGET_LABELS: frozenset[str] = frozenset({"job", "instance", "namespace", "pod", "container", "service"})
"""The labels that Prometheus adds to a target's series. scaleobs exposes none of them."""
