"""The dashboard of a service: rate, errors, duration, saturation, as Grafana's classic JSON model."""

from __future__ import annotations

from typing import Any

from scaleobs._render import promql
from scaleobs._render.links import dashboard_uid, resource_name, service_and_job
from scaleobs._render.overrides import Thresholds, number
from scaleobs._render.panels import SELECTED, Panel, heatmap, layout, restarts_and_alerts, table, timeseries, variables
from scaleobs._render.promql import MEMORY, ROUTE, STATUS, UP, aggregate
from scaleobs.catalog import ACTIVE, DROPPED, FAULTS, INFO, READY, WEBSOCKETS, WORKERS

_RATE = "$__rate_interval"
_RANGE = "$__range"


def dashboard(service: str | None = None, job: str | None = None) -> dict[str, Any]:
    """
    Return the dashboard of one service, or one with a variable for any instrumented service.

    Raises:
        ValueError: a name is not valid for a job.
    """
    service, job = service_and_job(service, job)
    return {
        "uid": dashboard_uid(service),
        "title": f"Service {service}" if service else "Service",
        "description": "Rate, errors, duration and saturation of a web service that scaleobs makes observable.",
        "tags": ["scaleobs"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables(job)},
        "annotations": {"list": restarts_and_alerts()},
        "panels": layout({"Rate": _rate(), "Errors": _errors(), "Duration": _duration(), "Saturation": _saturation()}),
    }


def file_name(service: str | None = None, job: str | None = None) -> str:
    """Return the name of the dashboard's file."""
    service, _ = service_and_job(service, job)
    return f"{resource_name(service) if service else 'service'}.json"


def _rate() -> list[list[Panel]]:
    classes = [(promql.request_rate(SELECTED, _RATE, f'{STATUS}=~"{digit}.."'), f"{digit}xx") for digit in "2345"]
    return [
        [
            timeseries(
                "Requests by status class",
                "Requests finished per second. Probes and scrapes are not among them.",
                "reqps",
                *classes,
                stacked=True,
            ),
            timeseries(
                "Requests by route",
                "Requests finished per second, by the template of their route; `unmatched` has those without one.",
                "reqps",
                (promql.request_rate(SELECTED, _RATE, by=(ROUTE,)), f"{{{{{ROUTE}}}}}"),
            ),
        ]
    ]


def _errors() -> list[list[Panel]]:
    return [
        [
            timeseries(
                "Error ratio",
                "Share of the requests that failed with a 5xx status. 0 without failures, a gap without requests.",
                "percentunit",
                (promql.error_ratio(SELECTED, _RATE, by=("job",)), "{{job}}"),
            ),
            timeseries(
                "Failures by route and status",
                "Requests per second that failed with a 5xx status.",
                "reqps",
                (
                    promql.request_rate(SELECTED, _RATE, promql.FAILED, by=(ROUTE, STATUS)),
                    f"{{{{{ROUTE}}}}} {{{{{STATUS}}}}}",
                ),
            ),
            timeseries(
                "Log lines",
                "Log lines written per second, by level.",
                "short",
                (promql.log_rate(SELECTED, _RATE), "{{level}}"),
                stacked=True,
            ),
        ]
    ]


def _duration() -> list[list[Panel]]:
    slow_seconds = Thresholds().slow_seconds
    fast = promql.fast_rate(SELECTED, _RATE, slow_seconds, by=("job",))
    timed = promql.timed_rate(SELECTED, _RATE, by=("job",))
    return [
        [
            timeseries(
                "Latency",
                "The time that 50, 95 and 99 % of the requests stay below, with the precision of the buckets. Failures "
                "(5xx) and disconnected clients (499) are left out, except from the heatmap and the means.",
                "s",
                *((promql.quantile(SELECTED, _RATE, f"0.{digits}"), f"p{digits}") for digits in ("50", "95", "99")),
            ),
            heatmap(
                "Latency of all requests",
                "How many requests fell into each bucket.",
                "s",
                (promql.latency_buckets(SELECTED, _RATE), "{{le}}"),
            ),
        ],
        [
            timeseries(
                f"Slower than {number(slow_seconds)} s",
                "Share of the requests that took longer: exact, since it is counted at a bucket's boundary. "
                "HighRequestLatency is the alert on it, at the boundary of the service's objective.",
                "percentunit",
                (promql.slow_share(fast, timed), "{{job}}"),
            ),
            timeseries(
                "Mean latency by route, for comparison only",
                "A mean hides the slowest requests. Compare routes with it, but judge no route by it.",
                "s",
                (promql.mean_latency(SELECTED, _RATE, by=(ROUTE,)), f"{{{{{ROUTE}}}}}"),
            ),
        ],
        [
            table(
                "Routes",
                "Each route over the whole time range: requests per second, share that failed, 95th percentile.",
                [
                    (promql.request_rate(SELECTED, _RANGE, by=(ROUTE,)), "requests"),
                    (promql.error_ratio(SELECTED, _RANGE, by=(ROUTE,)), "failed"),
                    (promql.quantile(SELECTED, _RANGE, "0.95", by=(ROUTE,)), "p95"),
                ],
                units={"requests": "reqps", "failed": "percentunit", "p95": "s"},
            )
        ],
    ]


def _saturation() -> list[list[Panel]]:
    instance = ("job", "instance")
    return [
        [
            timeseries(
                "Open connections",
                "Requests and WebSockets that are open now.",
                "short",
                (aggregate(SELECTED.of(ACTIVE), "protocol"), "{{protocol}}"),
            ),
            timeseries(
                "Instances",
                "Targets of Prometheus, those that answer scrapes, those whose /ready would be 200, and the workers of "
                "all of them.",
                "short",
                (aggregate(SELECTED.of(UP), operator="count"), "targets"),
                (aggregate(SELECTED.of(UP)), "up"),
                (aggregate(SELECTED.of(READY)), "ready"),
                (aggregate(SELECTED.of(WORKERS)), "workers"),
            ),
        ],
        [
            timeseries(
                "WebSockets closed",
                "Accepted WebSockets that closed per second, by route and close code: 1000 and 1001 are usual, 1006 is "
                "a lost connection or an application that ended without a close. With WSGI the code is unknown.",
                "short",
                (
                    promql.websocket_rate(SELECTED, _RATE, by=WEBSOCKETS.labels),
                    " ".join(f"{{{{{label}}}}}" for label in WEBSOCKETS.labels),
                ),
            ),
            timeseries(
                "WebSocket duration",
                "How long 50 and 95 % of the WebSockets were open at most, when they closed, with the precision of the "
                "buckets.",
                "s",
                *((promql.websocket_duration(SELECTED, _RATE, f"0.{digits}"), f"p{digits}") for digits in ("50", "95")),
            ),
        ],
        [
            timeseries(
                "Checks that fail",
                "Instances whose last run of a check failed, also if the probe passes: the check is not critical, or "
                "below its threshold. The reason is in the log, as `check.failed`.",
                "short",
                (promql.failing_checks(SELECTED), "{{probe}} {{check}}"),
            ),
            timeseries(
                "Slowest checks",
                "How long the last run of a check took, on the instance with the longest run.",
                "s",
                (promql.slowest_checks(SELECTED), "{{probe}} {{check}}"),
            ),
        ],
        [
            timeseries(
                "CPU",
                "Cores that each instance keeps busy, all of its workers together.",
                "none",
                (promql.process_cpu(SELECTED, _RATE, by=instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "Memory",
                "Resident memory of each instance, all of its workers together.",
                "bytes",
                (aggregate(SELECTED.of(MEMORY), *instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "File descriptors",
                "Share of their file descriptors that the processes of each instance use.",
                "percentunit",
                (promql.open_files_share(SELECTED, by=instance), "{{job}} {{instance}}"),
                top=1,
            ),
        ],
        [
            timeseries(
                "Event loop lag",
                "How late the event loops of each instance are in the slowest 1 % of the measurements, with the "
                "precision of the buckets: below 0.005 s all is well. A call that blocks the loop, or too much "
                "computing, delays every request of its worker. ASGI only.",
                "s",
                (promql.event_loop_lag(SELECTED, _RATE, "0.99", by=instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "Worker threads",
                "Threads for calls that would block an event loop: those in use, the size of the pool, and calls that "
                "wait for a thread. `anyio` is the pool of Starlette and FastAPI, `asyncio` that of "
                "`asyncio.to_thread`. ASGI only.",
                "short",
                *((query, f"{{{{pool}}}} {name}") for name, query in promql.worker_threads(SELECTED).items()),
            ),
        ],
        [
            table(
                "Versions",
                "Running instances, by version, environment and version of scaleobs.",
                [(aggregate(SELECTED.of(INFO), "job", *INFO.labels, operator="count"), "instances")],
            ),
            timeseries(
                "Faults and dropped label sets",
                "Faults inside scaleobs that did not affect the application: each is a bug, and the log has the "
                "exception. Requests whose label sets are past the limit: some route is not a template.",
                "short",
                (aggregate(f"increase({SELECTED.of(FAULTS)}[{_RATE}])", "job"), "{{job}} faults"),
                (aggregate(f"increase({SELECTED.of(DROPPED)}[{_RATE}])", "job"), "{{job}} dropped"),
            ),
        ],
    ]
