"""The dashboard of a service: rate, errors, duration, saturation, as Grafana's classic JSON model."""

from __future__ import annotations

from typing import Any

from scaleobs._render import promql
from scaleobs._render.links import dashboard_uid, resource_name, service_and_job
from scaleobs._render.overrides import Thresholds, number
from scaleobs._render.panels import SHOWN, Panel, heatmap, layout, marks, table, timeseries, variables
from scaleobs._render.promql import MEMORY, ROUTE, STATUS, UP, summed
from scaleobs.catalog import ACTIVE, DROPPED, FAULTS, HEALTH_DURATION, INFO, READY, WORKERS

_RATE = "$__rate_interval"
_RANGE = "$__range"


def dashboard(service: str | None = None, job: str | None = None) -> dict[str, Any]:
    """
    Return the dashboard of one service, or one that any instrumented service can be chosen on.

    Raises:
        ValueError: a name can't be a job's.
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
        "annotations": {"list": marks()},
        "panels": layout({"Rate": _rate(), "Errors": _errors(), "Duration": _duration(), "Saturation": _saturation()}),
    }


def file_name(service: str | None = None, job: str | None = None) -> str:
    """Return the name of the file that the dashboard belongs in."""
    service, _ = service_and_job(service, job)
    return f"{resource_name(service) if service else 'service'}.json"


def _rate() -> list[list[Panel]]:
    classes = [(promql.request_rate(SHOWN, _RATE, f'{STATUS}=~"{digit}.."'), f"{digit}xx") for digit in "2345"]
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
                "Requests finished per second, by the template of their route; `unmatched` is what no route took.",
                "reqps",
                (promql.request_rate(SHOWN, _RATE, by=(ROUTE,)), f"{{{{{ROUTE}}}}}"),
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
                (promql.error_ratio(SHOWN, _RATE, by=("job",)), "{{job}}"),
            ),
            timeseries(
                "Failures by route and status",
                "Requests per second that failed with a 5xx status.",
                "reqps",
                (
                    promql.request_rate(SHOWN, _RATE, promql.FAILED, by=(ROUTE, STATUS)),
                    f"{{{{{ROUTE}}}}} {{{{{STATUS}}}}}",
                ),
            ),
            timeseries(
                "Log lines",
                "Log lines written per second, by level. What they say is where the logs are kept.",
                "short",
                (promql.log_rate(SHOWN, _RATE), "{{level}}"),
                stacked=True,
            ),
        ]
    ]


def _duration() -> list[list[Panel]]:
    slow_seconds = Thresholds().slow_seconds
    fast = promql.fast_rate(SHOWN, _RATE, slow_seconds, by=("job",))
    timed = promql.timed_rate(SHOWN, _RATE, by=("job",))
    return [
        [
            timeseries(
                "Latency",
                "The time that 50, 95 and 99 % of the requests stay below, as closely as the buckets can tell. "
                "Failures (5xx) and clients that went away (499) are left out, except from the heatmap and the means.",
                "s",
                *((promql.quantile(SHOWN, _RATE, f"0.{digits}"), f"p{digits}") for digits in ("50", "95", "99")),
            ),
            heatmap(
                "Latency of all requests",
                "How many requests fell into each bucket.",
                "s",
                (promql.latency_buckets(SHOWN, _RATE), "{{le}}"),
            ),
        ],
        [
            timeseries(
                f"Slower than {number(slow_seconds)} s",
                "Share of the requests that took longer: exact, since it is counted at a bucket's boundary. "
                "HighRequestLatency watches this share, at the boundary of the service's objective.",
                "percentunit",
                (promql.slow_share(fast, timed), "{{job}}"),
            ),
            timeseries(
                "Mean latency by route, for comparison only",
                "A mean hides what the slowest requests suffer. Compare routes with it, judge none by it.",
                "s",
                (promql.mean_latency(SHOWN, _RATE, by=(ROUTE,)), f"{{{{{ROUTE}}}}}"),
            ),
        ],
        [
            table(
                "Routes",
                "Each route over the whole time range: requests per second, share that failed, 95th percentile.",
                [
                    (promql.request_rate(SHOWN, _RANGE, by=(ROUTE,)), "requests"),
                    (promql.error_ratio(SHOWN, _RANGE, by=(ROUTE,)), "failed"),
                    (promql.quantile(SHOWN, _RANGE, "0.95", by=(ROUTE,)), "p95"),
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
                (summed(SHOWN.of(ACTIVE), "protocol"), "{{protocol}}"),
            ),
            timeseries(
                "Instances",
                "Targets that Prometheus knows, those it reaches, and those that would answer 200 to /ready; "
                "and the workers that they are made of.",
                "short",
                (summed(SHOWN.of(UP), how="count"), "known"),
                (summed(SHOWN.of(UP)), "up"),
                (summed(SHOWN.of(READY)), "ready"),
                (summed(SHOWN.of(WORKERS)), "workers"),
            ),
        ],
        [
            timeseries(
                "Checks that fail",
                "Instances whose last run of a check failed, also where that doesn't fail the probe: not critical, or "
                "below its threshold. The reason is in the log, as `check.failed`.",
                "short",
                (promql.failing_checks(SHOWN), "{{probe}} {{check}}"),
            ),
            timeseries(
                "Slowest checks",
                "How long the last run of a check took, on the instance where it took longest.",
                "s",
                (summed(SHOWN.of(HEALTH_DURATION), *HEALTH_DURATION.labels, how="max"), "{{probe}} {{check}}"),
            ),
        ],
        [
            timeseries(
                "CPU",
                "Cores that each instance keeps busy, all of its workers together.",
                "none",
                (promql.process_cpu(SHOWN, _RATE, by=instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "Memory",
                "Resident memory of each instance, all of its workers together.",
                "bytes",
                (summed(SHOWN.of(MEMORY), *instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "File descriptors",
                "Share of the file descriptors that the processes of each instance may hold and do.",
                "percentunit",
                (promql.open_files_share(SHOWN, by=instance), "{{job}} {{instance}}"),
                top=1,
            ),
        ],
        [
            timeseries(
                "Event loop lag",
                "How much later than asked the event loops of each instance run, for the slowest 1 % of the looks at "
                "them, as closely as the buckets can tell: below 0.005 s all is well. What blocks a loop, a call "
                "that doesn't await or too much computing, delays every request of its worker. ASGI only.",
                "s",
                (promql.event_loop_lag(SHOWN, _RATE, "0.99", by=instance), "{{job}} {{instance}}"),
            ),
            timeseries(
                "Worker threads",
                "Threads that run what would block an event loop: in use, that there may be, and calls that wait for "
                "one. `anyio` has those of Starlette and FastAPI, `asyncio` those of `asyncio.to_thread`. ASGI only.",
                "short",
                *((question, f"{{{{pool}}}} {what}") for what, question in promql.worker_threads(SHOWN).items()),
            ),
        ],
        [
            table(
                "Versions",
                "What runs: instances by version, environment and version of scaleobs.",
                [(summed(SHOWN.of(INFO), "job", *INFO.labels, how="count"), "instances")],
            ),
            timeseries(
                "Faults and dropped label sets",
                "Faults that scaleobs kept away from the application: any is a bug, and the log has the exception. "
                "Label sets past the limit, whose requests overflow: some route is not a template.",
                "short",
                (summed(f"increase({SHOWN.of(FAULTS)}[{_RATE}])", "job"), "{{job}} faults"),
                (summed(f"increase({SHOWN.of(DROPPED)}[{_RATE}])", "job"), "{{job}} dropped"),
            ),
        ],
    ]
