"""The demo's display: samples of the service, as a live table on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scaleobs import catalog
from scaleobs._cli.demo.processes import get

WINDOW_SECONDS = 5.0
_PLAIN_EVERY_SECONDS = 5.0
_EVENTS_SHOWN = 10

_STYLES = {"firing": "bold red", "pending": "yellow", "DOWN": "bold red", "UP": "green", "no answer": "bold red"}

Counts = dict[tuple[str, str], "RouteCounts"]


@dataclass(slots=True)
class View:
    """The content of the board at one moment."""

    title: str = "starting"
    rates: list[RouteRates] = field(default_factory=list)
    probes: list[ProbeState] = field(default_factory=list)
    alerts: dict[str, str] | None = None
    """The state of each alert, `pending` or `firing`; None without a Prometheus."""


class Board:
    """
    Shows the current view and the events.

    Args:
        console: a terminal gets a live table, any other output a plain line every five seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._events: list[str] = []
        self._last_plain = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            for event in self._events:
                self._console.print(event, highlight=False)

    def event(self, text: str) -> None:
        """Add an event."""
        line = f"{self._clock()}  {text}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)

    def show(self, view: View) -> None:
        """Show a view, or not, if a plain line was printed less than five seconds ago."""
        if self._live is not None:
            self._live.update(self._table(view), refresh=True)
        elif time.monotonic() - self._last_plain >= _PLAIN_EVERY_SECONDS:
            self._last_plain = time.monotonic()
            self._console.print(f"{self._clock()}  {_plain(view)}", highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"

    def _table(self, view: View) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("route", min_width=24)
        for name in ("requests/s", "errors", "p50", "p99"):
            table.add_column(name, justify="right", min_width=8)
        for one in view.rates:
            share = Text(f"{one.failed_share:.1%}", style="bold red" if one.failed_share else "")
            table.add_row(
                f"{one.method} {one.route}",
                f"{one.per_second:.1f}",
                share,
                _milliseconds(one.p50),
                _milliseconds(one.p99),
            )
        probes = Text("probes   ")
        for probe in view.probes:
            probes.append(f"{probe.path} ")
            probes.append(probe.status, _STYLES.get(probe.status, ""))
            probes.append(f" ({', '.join(probe.down)})   " if probe.down else "   ")
        alerts = Text("alerts   ")
        if view.alerts is None:
            alerts.append("need a Prometheus")
        elif not view.alerts:
            alerts.append("none pending, none firing")
        for name, state in (view.alerts or {}).items():
            alerts.append(f"{name} ")
            alerts.append(f"{state}   ", _STYLES.get(state, ""))
        title = Text(f"scaleobs demo  {self._clock()}  {view.title}", style="bold")
        events = [Text(event) for event in self._events[-_EVENTS_SHOWN:]]
        return Group(title, Text(), table, Text(), probes, alerts, Text(), *events)


def _plain(view: View) -> str:
    requests = sum(one.per_second for one in view.rates)
    failed = sum(one.per_second * one.failed_share for one in view.rates)
    slowest = max((one for one in view.rates if one.p99 is not None), key=lambda one: one.p99 or 0, default=None)
    parts = [
        f"{requests:.1f} requests/s",
        f"errors {failed / requests if requests else 0:.1%}",
        f"slowest {slowest.method} {slowest.route} p99 {_milliseconds(slowest.p99)}" if slowest else "no requests yet",
        *(f"{probe.path} {probe.status}" for probe in view.probes),
    ]
    if view.alerts is not None:
        parts.append("alerts " + (", ".join(f"{name} {state}" for name, state in view.alerts.items()) or "none"))
    return " | ".join(parts)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


@dataclass(slots=True)
class RouteCounts:
    """The counts of one route since the service started."""

    requests: float = 0
    failed: float = 0
    buckets: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteRates:
    """The request rate, error share and latency of one route."""

    method: str
    route: str
    per_second: float
    failed_share: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The status of a probe, and the checks that are down."""

    path: str
    status: str
    down: tuple[str, ...] = ()


class Sampler:
    """Reads a service's metrics and probes, and computes rates over the last five seconds."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._samples: deque[tuple[float, Counts]] = deque()

    def sample(self) -> None:
        """Read `/metrics` once; if there is no answer, keep the samples as they are."""
        status, body = get(f"{self._url}/metrics")
        if status != 200:  # noqa: PLR2004
            return
        now = time.monotonic()
        self._samples.append((now, read_counts(body.decode())))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:  # noqa: PLR2004
            self._samples.popleft()

    def rates(self) -> list[RouteRates]:
        """Return the rates of each route, in the order of their first requests."""
        if len(self._samples) < 2:  # noqa: PLR2004
            return []
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        return [
            _rates(method, route, before.get((method, route), RouteCounts()), counts, now - then)
            for (method, route), counts in after.items()
        ]

    def totals(self) -> tuple[float, float]:
        """Return the number of requests since the service started, and the number of failed ones."""
        counts = self._samples[-1][1].values() if self._samples else []
        return sum(one.requests for one in counts), sum(one.failed for one in counts)

    def probes(self) -> list[ProbeState]:
        """Call the three probes."""
        return [self._probe(path) for path in ("/health", "/ready", "/startup")]

    def _probe(self, path: str) -> ProbeState:
        status, body = get(f"{self._url}{path}")
        if not status:
            return ProbeState(path, "no answer")
        report = json.loads(body)
        down = tuple(check["name"] for check in report["checks"] if check["status"] != "UP")
        return ProbeState(path, report["status"], down)


def read_counts(text: str) -> Counts:
    """Return the counts of each method and route of an exposition."""
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


def quantile(q: float, buckets: dict[float, float]) -> float | None:
    """Return the quantile q of cumulative buckets, like Prometheus: linear within a bucket, None without requests."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = q * buckets[bounds[-1]]
    index = bisect_left([buckets[bound] for bound in bounds], rank)
    if bounds[index] == float("inf"):
        return bounds[index - 1]
    lower = bounds[index - 1] if index else 0.0
    below = buckets[bounds[index - 1]] if index else 0.0
    within = buckets[bounds[index]] - below
    return lower + (bounds[index] - lower) * ((rank - below) / within if within else 0.0)
