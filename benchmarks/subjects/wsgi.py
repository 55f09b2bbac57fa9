"""WSGI applications, and the middlewares that count their requests."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.subjects import PATH, UNMATCHED, Subject, cached, floor, ours, traces
from benchmarks.subjects.asgi import counted_by_opentelemetry

_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "orders.internal",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "10.0.0.7",
    "HTTP_HOST": "orders.internal:8000",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) benchmark",
    "HTTP_ACCEPT": "*/*",
    "HTTP_ACCEPT_LANGUAGE": "en",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}
_ROUTES = {"null": UNMATCHED, "flask": "/items/<int:item_id>", "django": "/items/<int:item_id>"}


def _null() -> Any:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    return app


def _flask() -> Any:
    from flask import Flask

    app = Flask("benchmark")

    @app.get(_ROUTES["flask"])
    def item(item_id: int) -> str:
        return f"item {item_id}"

    return app


def _django(**settings: Any) -> Any:
    import django.conf
    from django.core.wsgi import get_wsgi_application

    django.conf.settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmarks.subjects.django_urls",
        LOGGING_CONFIG=None,
        SECRET_KEY="none",  # Nothing is signed.
        **settings,
    )
    return get_wsgi_application()


def _django_prometheus() -> Any:
    before, after = (f"django_prometheus.middleware.Prometheus{when}Middleware" for when in ("Before", "After"))
    return _django(INSTALLED_APPS=["django_prometheus"], MIDDLEWARE=[before, after])


FRAMEWORKS: dict[str, Callable[[], Any]] = {"null": _null, "flask": _flask, "django": _django}


def _floor(framework: str) -> Subject:
    app, table = FRAMEWORKS[framework](), floor.Table()
    route = _ROUTES[framework]
    if framework == "flask":
        floor.note_flask_route(app)
        app.wsgi_app = floor.wsgi(app.wsgi_app, table)
        return Subject(app, lambda: table.counted(route))
    if framework == "django":
        floor.note_django_route(app)
        route = route.lstrip("/")  # As Django writes it.
    return Subject(floor.wsgi(app, table), lambda: table.counted(route))


def _ours(settings: dict[str, Any]) -> Callable[[str], Subject]:
    def subject(framework: str) -> Subject:
        observed = ours.instrumented(FRAMEWORKS[framework](), settings)
        return Subject(observed, lambda: ours.counted(get(observed, "/metrics"), _ROUTES[framework]))

    return subject


def _cached(framework: str) -> Subject:
    metrics = cached.Metrics()
    return Subject(cached.wsgi(FRAMEWORKS[framework](), metrics), metrics.counted)


def _flask_exporter(_framework: str) -> Subject:
    from prometheus_client import CollectorRegistry
    from prometheus_flask_exporter import PrometheusMetrics

    app, registry = _flask(), CollectorRegistry()
    PrometheusMetrics(app, registry=registry)
    return Subject(app, lambda: cached.counted(registry, "flask_http_request_total"))


def _with_django_prometheus(_framework: str) -> Subject:
    from prometheus_client import REGISTRY

    name = "django_http_requests_total_by_view_transport_method_total"
    return Subject(_django_prometheus(), lambda: cached.counted(REGISTRY, name))


def _opentelemetry(framework: str) -> Subject:
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    app = OpenTelemetryMiddleware(FRAMEWORKS[framework](), meter_provider=provider)
    return Subject(app, lambda: counted_by_opentelemetry(reader))


def _opentelemetry_traces(framework: str) -> Subject:
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.metrics import NoOpMeterProvider

    counted = traces.set_provider()
    around = OpenTelemetryMiddleware(FRAMEWORKS[framework](), meter_provider=NoOpMeterProvider())
    return Subject(around, lambda: counted("opentelemetry.instrumentation.wsgi"))


def _ours_with_traces(framework: str) -> Subject:
    counted = traces.set_provider()
    return Subject(ours.instrumented(FRAMEWORKS[framework](), ours.EVERYTHING), lambda: counted(None))


_AROUND_ANY: dict[str, Callable[[str], Subject]] = {
    "bare": lambda framework: Subject(FRAMEWORKS[framework]()),
    "bare again": lambda framework: Subject(FRAMEWORKS[framework]()),
    "floor": _floor,
    "scaleobs, metrics alone": _ours(ours.METRICS_ALONE),
    "scaleobs, everything": _ours(ours.EVERYTHING),
    "opentelemetry, metrics": _opentelemetry,
    "scaleobs, everything with traces": _ours_with_traces,
    "opentelemetry, traces": _opentelemetry_traces,
}
SUBJECTS = {
    "null": {**_AROUND_ANY, "prometheus_client, cached": _cached},
    "flask": {**_AROUND_ANY, "prometheus-flask-exporter": _flask_exporter},
    "django": {**_AROUND_ANY, "django-prometheus": _with_django_prometheus},
}


def prepare(framework: str, name: str) -> Subject:
    """Return a subject, ready to serve."""
    return SUBJECTS[framework][name](framework)


def get(app: Any, path: str, *, accept: str = "*/*") -> bytes:
    """Return the body of a response."""
    statuses: list[str] = []
    body = app({**_ENVIRON, "PATH_INFO": path, "HTTP_ACCEPT": accept}, lambda status, *_: statuses.append(status))
    whole = b"".join(body)
    _close(body)
    if [status[:3] for status in statuses] != ["200"]:
        msg = f"GET {path} was answered with {statuses}, not with one 200: this subject can't be measured."
        raise RuntimeError(msg)
    return whole


def scraper_and_driver(app: Any, accept: str) -> tuple[Callable[[], object], Callable[[int], None]]:
    """Return a function that scrapes in a format, and one that serves this number of requests."""
    return lambda: get(app, "/metrics", accept=accept), driver(app)


def driver(app: Any) -> Callable[[int], None]:
    """Return a function that serves this number of requests, one after the other, read to their end and closed."""
    template = {**_ENVIRON, "PATH_INFO": PATH}

    def drive(requests: int) -> None:
        for _ in range(requests):
            body = app(dict(template), _start_response)
            for _chunk in body:
                pass
            _close(body)

    return drive


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _start_response(_status: str, _headers: Any, _exc_info: Any = None) -> Any:
    return _write


def _write(_data: bytes) -> None:
    pass
