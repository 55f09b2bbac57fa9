"""
prometheus_client by hand, at its best: children kept in a dict, so that `labels()` is called once per series.

What a careful team writes; the locks of the registry are the remaining cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LABELS = ("method", "route", "status_code")


class Metrics:
    """The three metrics, and the children that were used before."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge("active_connections", "Open.", registry=self.registry)
        self._requests = Counter("http_requests", "Finished.", _LABELS, registry=self.registry)
        self._seconds = Histogram("http_request_duration_seconds", "Time.", _LABELS, registry=self.registry)
        self._children: dict[Any, tuple[Any, Any]] = {}

    def finished(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count a request."""
        key = method, route, status
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._requests.labels(*key), self._seconds.labels(*key)
        children[0].inc()
        children[1].observe(seconds)

    def counted(self) -> float:
        """Return how many requests were counted."""
        return counted(self.registry, "http_requests_total")


def counted(registry: Any, name: str) -> float:
    """Return the sum of the samples of a name in a prometheus_client registry."""
    return sum(sample.value for family in registry.collect() for sample in family.samples if sample.name == name)


def asgi(app: Any, metrics: Metrics) -> Any:
    """Count the requests of an ASGI application."""

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status = 0

        def watched_send(message: Any) -> Any:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        metrics.in_flight.inc()
        begun = perf_counter()
        try:
            await app(scope, receive, watched_send)
        finally:
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.finished(scope["method"], route, str(status), perf_counter() - begun)

    return counting


def with_context(app: Any, metrics: Metrics) -> Any:
    """Count the requests of an ASGI application, bind an id to each and write its line, as a careful team would."""
    import structlog
    from asgi_correlation_id import CorrelationIdMiddleware, correlation_id

    from benchmarks.logs import structlog_by_hand

    structlog_by_hand()
    log = structlog.get_logger()
    counted = asgi(app, metrics)

    async def with_id(scope: Any, receive: Any, send: Any) -> None:
        status = 0

        def watched_send(message: Any) -> Any:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        structlog.contextvars.bind_contextvars(request_id=correlation_id.get())
        begun = perf_counter()
        try:
            await counted(scope, receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            log.info(
                "request.finished",
                method=scope["method"],
                route=route,
                path=scope["path"],
                status_code=status,
                duration_seconds=round(perf_counter() - begun, 6),
                client=scope["client"][0],
            )
            structlog.contextvars.clear_contextvars()

    return CorrelationIdMiddleware(with_id)


def wsgi(app: Any, metrics: Metrics) -> Any:
    """Count the requests of a WSGI application."""

    def counting(environ: Any, start_response: Any) -> Iterator[bytes]:
        status = ""

        def watched_start(line: str, *rest: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, *rest)

        metrics.in_flight.inc()
        begun = perf_counter()
        body = app(environ, watched_start)
        try:
            yield from body
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
            metrics.in_flight.dec()
            metrics.finished(environ["REQUEST_METHOD"], "unmatched", status, perf_counter() - begun)

    return counting
