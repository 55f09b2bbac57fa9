"""ASGI applications, and the middlewares that count their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from benchmarks.subjects import PATH, ROUTE, UNMATCHED, Subject, cached, floor, ours, traces

# No accept-encoding: /metrics is read with these, too.
_HEADERS = [
    (b"host", b"orders.internal:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) benchmark"),
    (b"accept", b"*/*"),
    (b"accept-language", b"en"),
]
_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": _HEADERS,
    "client": ("10.0.0.7", 50000),
    "server": ("10.0.0.1", 8000),
}


def _null() -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def _starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def item(_request: Any) -> Any:
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(ROUTE, item)])


def _two_templates() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def item(_request: Any) -> Any:
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(ROUTE, item), Route("/v2" + ROUTE, item)])


def _fastapi() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get(ROUTE)
    async def item(item_id: int) -> dict[str, int]:
        return {"item_id": item_id}

    return app


def _floor(app: Any, route: str) -> Subject:
    table = floor.Table()
    return Subject(floor.asgi(app, table), lambda: table.counted(route))


def _floor_by_route(app: Any, route: str) -> Subject:
    table = floor.Table()
    return Subject(floor.asgi(app, table, by_route=True), lambda: table.counted(route))


def _ours(settings: dict[str, Any]) -> Callable[[Any, str], Subject]:
    def subject(app: Any, route: str) -> Subject:
        observed = ours.instrumented(app, settings)
        return Subject(observed, lambda: ours.counted(get(observed, "/metrics"), route))

    return subject


def _cached(app: Any, _route: str) -> Subject:
    metrics = cached.Metrics()
    return Subject(cached.asgi(app, metrics), metrics.counted)


def _starlette_exporter(app: Any, _route: str) -> Subject:
    from prometheus_client import REGISTRY
    from starlette_exporter import PrometheusMiddleware

    app.add_middleware(PrometheusMiddleware)
    return Subject(app, lambda: cached.counted(REGISTRY, "starlette_requests_total"))


def _instrumentator(app: Any, _route: str) -> Subject:
    from prometheus_client import CollectorRegistry
    from prometheus_fastapi_instrumentator import Instrumentator

    registry = CollectorRegistry()
    Instrumentator(registry=registry).instrument(app)
    return Subject(app, lambda: cached.counted(registry, "http_requests_total"))


def _opentelemetry(app: Any, _route: str) -> Subject:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    return Subject(OpenTelemetryMiddleware(app, meter_provider=provider), lambda: counted_by_opentelemetry(reader))


def _opentelemetry_traces(app: Any, _route: str) -> Subject:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.metrics import NoOpMeterProvider

    counted = traces.set_provider()
    around = OpenTelemetryMiddleware(app, meter_provider=NoOpMeterProvider())
    return Subject(around, lambda: counted("opentelemetry.instrumentation.asgi"))


def _ours_with_traces(app: Any, _route: str) -> Subject:
    counted = traces.set_provider()
    return Subject(ours.instrumented(app, ours.EVERYTHING), lambda: counted(None))


def _correlation_id(app: Any, _route: str) -> Subject:
    from asgi_correlation_id import CorrelationIdMiddleware, correlation_id

    async def with_traceparent(scope: Any, receive: Any, send: Any) -> None:
        if correlation_id.get() is None:
            msg = "asgi-correlation-id has bound no id: this subject can't be measured."
            raise RuntimeError(msg)
        await app(scope, receive, send)

    get(CorrelationIdMiddleware(with_traceparent), PATH)
    return Subject(CorrelationIdMiddleware(app))


def _by_hand(app: Any, _route: str) -> Subject:
    metrics = cached.Metrics()
    return Subject(cached.with_context(app, metrics), metrics.counted)


def counted_by_opentelemetry(reader: Any) -> float:
    """Return how many requests are in the histogram of their durations."""
    found = reader.get_metrics_data()
    metrics = [one for resource in found.resource_metrics for scope in resource.scope_metrics for one in scope.metrics]
    return sum(
        point.count
        for metric in metrics
        if metric.name in ("http.server.duration", "http.server.request.duration")
        for point in metric.data.data_points
    )


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "null": _null,
    "starlette": _starlette,
    "starlette, one endpoint, two templates": _two_templates,
    "fastapi": _fastapi,
}

_AROUND_ANY: dict[str, Callable[[Any, str], Subject]] = {
    "bare": lambda app, _route: Subject(app),
    "bare again": lambda app, _route: Subject(app),
    "floor": _floor,
    "scaleobs, metrics alone": _ours(ours.METRICS_ALONE),
    "scaleobs, everything": _ours(ours.EVERYTHING),
    "prometheus_client, cached": _cached,
    "opentelemetry, metrics": _opentelemetry,
    "scaleobs, everything with traces": _ours_with_traces,
    "opentelemetry, traces": _opentelemetry_traces,
    "asgi-correlation-id": _correlation_id,
    "cached, asgi-correlation-id, structlog": _by_hand,
}
_AROUND_STARLETTE: dict[str, Callable[[Any, str], Subject]] = {
    **_AROUND_ANY,
    "starlette-exporter": _starlette_exporter,
    "fastapi-instrumentator": _instrumentator,
}
SUBJECTS = {
    "null": _AROUND_ANY,
    "starlette": _AROUND_STARLETTE,
    "starlette, one endpoint, two templates": {
        "bare": _AROUND_ANY["bare"],
        "bare again": _AROUND_ANY["bare again"],
        "floor": _floor_by_route,
        "scaleobs, metrics alone": _ours(ours.METRICS_ALONE),
        "prometheus_client, cached": _cached,
    },
    "fastapi": _AROUND_STARLETTE,
}


def prepare(framework: str, name: str) -> Subject:
    """Return a subject, ready to serve."""
    route = UNMATCHED if framework == "null" else ROUTE
    return SUBJECTS[framework][name](FRAMEWORKS[framework](), route)


def get(app: Any, path: str) -> bytes:
    """Return the body of a response, sent in any way."""
    with asyncio.Runner() as loop:
        return b"".join(pieces(app, path, accept="", loop=loop))


def pieces(app: Any, path: str, *, accept: str, loop: asyncio.Runner) -> list[bytes]:
    """Return the body of a response, in the pieces that the server gets."""
    scope = _scope(path)
    if accept:
        scope["headers"] = [(b"accept", accept.encode())]
    parts: list[bytes] = []
    statuses: list[int] = []

    async def send(message: Any) -> None:
        parts.append(message.get("body", b""))
        if "status" in message:
            statuses.append(message["status"])

    loop.run(app(scope, _receive, send))
    if statuses != [200]:
        msg = f"GET {path} was answered with {statuses}, not with one 200: this subject can't be measured."
        raise RuntimeError(msg)
    return parts


def scraper_and_driver(app: Any, accept: str) -> tuple[Callable[[], object], Callable[[int], None]]:
    """Return a function that scrapes in a format, and one that serves a number of requests on the same loop."""
    runner = asyncio.Runner()
    return lambda: pieces(app, "/metrics", accept=accept, loop=runner), driver(app, runner)


def driver(app: Any, runner: asyncio.Runner | None = None) -> Callable[[int], None]:
    """Return a function that serves this number of requests, one after the other, on one event loop."""
    runner = runner or asyncio.Runner()
    template = _scope(PATH)

    async def drive(requests: int) -> None:
        for _ in range(requests):
            # A new dict each time, since applications write into it. The cost is the same for all subjects.
            await app(dict(template), _receive, _send)

    return lambda requests: runner.run(drive(requests))


def _scope(path: str) -> dict[str, Any]:
    return {**_SCOPE, "path": path, "raw_path": path.encode()}


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_message: Any) -> None:
    pass
