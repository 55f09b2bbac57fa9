"""
The floor: the least pure Python with the same numbers.

One wrapper, two clock reads, the in-flight gauge, one dict look-up for the series, `bisect` for the bucket, two
additions to a list. No check of anything, no lock, no cap on the number of series, no care for clients that
leave: it is what the work costs, not what anyone should run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from time import perf_counter
from typing import Any

from benchmarks.subjects import UNMATCHED

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS = len(BOUNDS) + 1
_ENDS = (*map(str, BOUNDS), "+Inf")
_ROUTE = "floor.route"

Labels = tuple[str, str, str]
Series = list[Any]
"""One count per bucket, then the sum of the seconds."""


class Table:
    """The series by the cheapest key, and the text templates by labels."""

    def __init__(self) -> None:
        self.series: dict[Any, Series] = {}
        self.labels: dict[Any, Labels] = {}
        self.templates: dict[Any, tuple[bytes, bytes]] = {}

    def add(self, key: Any, labels: Labels) -> Series:
        """Create a series, at the first request of its kind."""
        series = self.series[key] = [0] * BUCKETS + [0.0]
        self.labels[key] = labels
        self.templates[key] = _templates(labels)
        return series

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count a request by its labels."""
        series = self.series.get(labels) or self.add(labels, labels)
        series[bisect_left(BOUNDS, seconds)] += 1
        series[BUCKETS] += seconds

    def counted(self, route: str) -> int:
        """Return how many requests of a route were counted."""
        return sum(sum(series[:BUCKETS]) for key, series in self.series.items() if self.labels[key][1] == route)

    def text(self) -> bytes:
        """Return the page: one `%` per template and one join."""
        templates = self.templates
        totals = [b"# HELP http_requests_total HTTP requests finished.\n# TYPE http_requests_total counter\n"]
        histograms = [b"# HELP http_request_duration_seconds Time.\n# TYPE http_request_duration_seconds histogram\n"]
        for key, series in self.series.items():
            total, histogram = templates[key]
            cumulated = *accumulate(series[:BUCKETS]), series[BUCKETS]
            totals.append(total % cumulated[BUCKETS - 1])
            histograms.append(histogram % (*cumulated, cumulated[BUCKETS - 1]))
        return b"".join(totals + histograms)


def _templates(labels: Labels) -> tuple[bytes, bytes]:
    shown = 'method="{}",route="{}",status_code="{}"'.format(*labels).replace("%", "%%")
    buckets = "".join(f'http_request_duration_seconds_bucket{{{shown},le="{end}"}} %d\n' for end in _ENDS)
    total = f"http_request_duration_seconds_sum{{{shown}}} %a\nhttp_request_duration_seconds_count{{{shown}}} %d\n"
    return f"http_requests_total{{{shown}}} %d\n".encode(), (buckets + total).encode()


def asgi(app: Any, table: Table, *, by_route: bool = False) -> Any:
    """Count the requests of an ASGI application, by the identity of their routes if endpoints have several."""
    in_flight = 0
    lookup = table.series.get

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal in_flight
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status = 0

        # Not async: to return the awaitable saves a coroutine per message.
        def watched_send(message: Any) -> Any:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        in_flight += 1
        begun = perf_counter()
        try:
            await app(scope, receive, watched_send)
        finally:
            seconds = perf_counter() - begun
            in_flight -= 1
            # Starlette's routes have no hash; their endpoints have one.
            key = scope["method"], id(scope.get("route")) if by_route else scope.get("endpoint"), status
            series = lookup(key)
            if series is None:
                route = getattr(scope.get("route"), "path", UNMATCHED)
                series = table.add(key, (scope["method"], route, str(status)))
            series[bisect_left(BOUNDS, seconds)] += 1
            series[BUCKETS] += seconds

    return counting


class _Body:
    """An iterable that reports its close."""

    __slots__ = ("_body", "_ended")

    def __init__(self, body: Iterable[bytes], ended: Callable[[], None]) -> None:
        self._body = body
        self._ended = ended

    def __iter__(self) -> Any:
        return iter(self._body)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
        self._ended()


def wsgi(app: Any, table: Table) -> Any:
    """Count the requests of a WSGI application."""
    in_flight = 0
    lookup = table.series.get

    def counting(environ: Any, start_response: Any) -> Any:
        nonlocal in_flight
        status = ""

        def watched_start(line: str, headers: Any, exc_info: Any = None) -> Any:
            nonlocal status
            status = line
            return start_response(line, headers, exc_info)

        def ended() -> None:
            nonlocal in_flight
            seconds = perf_counter() - begun
            in_flight -= 1
            key = environ["REQUEST_METHOD"], environ.get(_ROUTE), status
            series = lookup(key)
            if series is None:
                labels = environ["REQUEST_METHOD"], environ.get(_ROUTE, UNMATCHED), status[:3]
                series = table.add(key, labels)
            series[bisect_left(BOUNDS, seconds)] += 1
            series[BUCKETS] += seconds

        in_flight += 1
        begun = perf_counter()
        return _Body(app(environ, watched_start), ended)

    return counting


def note_flask_route(app: Any) -> None:
    """Make a Flask application leave its route for `wsgi`."""
    from flask import request

    dispatch, current = app.full_dispatch_request, request._get_current_object  # noqa: SLF001 - As Flask documents.

    # A function for `before_request` takes three times as long, most of it for the attributes of `request`.
    def note_and_dispatch() -> Any:
        made = current()
        made.environ[_ROUTE] = made.url_rule.rule
        return dispatch()

    app.full_dispatch_request = note_and_dispatch


def note_django_route(handler: Any) -> None:
    """Make a Django handler leave its route for `wsgi`."""
    resolve = handler.resolve_request

    def resolve_and_note(request: Any) -> Any:
        match = resolve(request)
        request.META[_ROUTE] = match.route
        return match

    handler.resolve_request = resolve_and_note
