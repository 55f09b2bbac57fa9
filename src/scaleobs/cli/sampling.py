"""What a service does now, read from its own `/metrics` and probes."""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from scaleobs import catalog
from scaleobs.cli.stack import get

WINDOW_SECONDS = 5.0

Counts = dict[tuple[str, str], "RouteCounts"]


@dataclass(slots=True)
class RouteCounts:
    """What one route has counted since the service started."""

    requests: float = 0
    failed: float = 0
    buckets: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteRates:
    """What one route does per second, and how long it takes."""

    method: str
    route: str
    per_second: float
    failed_share: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What a probe answers, and the checks that are down."""

    path: str
    status: str
    down: tuple[str, ...] = ()


class Sampler:
    """Reads a service again and again, and tells the difference over the last five seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._samples: deque[tuple[float, Counts]] = deque()

    def sample(self) -> None:
        """Read `/metrics` once; where it can't be read, nothing changes."""
        status, body = get(f"{self._url}/metrics")
        if status != 200:  # noqa: PLR2004
            return
        now = time.monotonic()
        self._samples.append((now, read_counts(body.decode())))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:  # noqa: PLR2004
            self._samples.popleft()

    def rates(self) -> list[RouteRates]:
        """Return each route's rates, in the order in which the routes were first asked."""
        if len(self._samples) < 2:  # noqa: PLR2004
            return []
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        return [
            _rates(method, route, before.get((method, route), RouteCounts()), counts, now - then)
            for (method, route), counts in after.items()
        ]

    def totals(self) -> tuple[float, float]:
        """Return how many requests there were since the service started, and how many of them failed."""
        counts = self._samples[-1][1].values() if self._samples else []
        return sum(one.requests for one in counts), sum(one.failed for one in counts)

    def probes(self) -> list[ProbeState]:
        """Ask the three probes."""
        return [self._probe(path) for path in ("/health", "/ready", "/startup")]

    def _probe(self, path: str) -> ProbeState:
        status, body = get(f"{self._url}{path}")
        if not status:
            return ProbeState(path, "no answer")
        report = json.loads(body)
        down = tuple(check["name"] for check in report["checks"] if check["status"] != "UP")
        return ProbeState(path, report["status"], down)


def read_counts(text: str) -> Counts:
    """Return what each method and route of an exposition has counted."""
    counts: Counts = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not {"method", "route", "status_code"} <= sample.labels.keys():
                continue
            labels = sample.labels
            route = counts.setdefault((labels["method"], labels["route"]), RouteCounts())
            if sample.name == catalog.REQUESTS.name:
                route.requests += sample.value
                route.failed += sample.value if labels["status_code"].startswith("5") else 0
            elif sample.name == f"{catalog.DURATION.name}_bucket":
                bound = float(labels["le"])
                route.buckets[bound] = route.buckets.get(bound, 0) + sample.value
    return counts


def _rates(method: str, route: str, before: RouteCounts, after: RouteCounts, seconds: float) -> RouteRates:
    requests = after.requests - before.requests
    failed = after.failed - before.failed
    buckets = {bound: count - before.buckets.get(bound, 0) for bound, count in after.buckets.items()}
    return RouteRates(
        method,
        route,
        requests / seconds,
        failed / requests if requests else 0.0,
        quantile(0.5, buckets),
        quantile(0.99, buckets),
    )


def quantile(wanted: float, buckets: dict[float, float]) -> float | None:
    """Return a quantile of cumulative buckets as Prometheus does: linear within a bucket, None without requests."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = wanted * buckets[bounds[-1]]
    index = bisect_left([buckets[bound] for bound in bounds], rank)
    if bounds[index] == float("inf"):
        return bounds[index - 1]
    lower = bounds[index - 1] if index else 0.0
    below = buckets[bounds[index - 1]] if index else 0.0
    within = buckets[bounds[index]] - below
    return lower + (bounds[index] - lower) * ((rank - below) / within if within else 0.0)
