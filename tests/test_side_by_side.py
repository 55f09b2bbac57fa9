"""Several middlewares, mounts and registries around one application."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import scaleobs
from scaleobs._metrics.families import attach
from support.exchanges import active, asgi, counted, http_scope, wsgi


def hello(request):
    """Send a response."""
    return PlainTextResponse("hello")


async def asgi_hello(scope, receive, send):
    """Send a response."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_hello(environ, start_response):
    """Send a response."""
    start_response("200 OK", [])
    return [b"hello"]


@pytest.mark.parametrize("log_format", ["json", "off"])
@pytest.mark.parametrize(
    ("app", "middleware", "call"),
    [(asgi_hello, scaleobs.ASGIMiddleware, asgi), (wsgi_hello, scaleobs.WSGIMiddleware, wsgi)],
    ids=["asgi", "wsgi"],
)
def test_two_middlewares_of_one_observer(app, middleware, call, log_format, registry):
    """A request that passes two middlewares counts once."""
    observer = scaleobs.Observer(registry=registry, log_format=log_format)
    served = middleware(middleware(app, observer=observer), observer=observer)
    for _ in range(3):
        call(served)

    assert 3 == sum(counted(registry).values())


def test_endpoints_under_every_mount(registry):
    """An application that is mounted twice answers its endpoints under both prefixes."""
    inner = scaleobs.instrument(Starlette(routes=[Route("/x", hello)]), registry=registry, log_format="off")
    outer = Starlette(routes=[Mount("/v1", inner), Mount("/v2", inner)])
    for _ in range(3):
        assert 200 == asgi(outer, path="/v1/x").status

    assert [200, 200] == [asgi(outer, path=f"/v2/{name}").status for name in ("health", "metrics")]
    assert 200 == asgi(outer, path="/v1/ready").status


def test_probe_between_scrape_and_request(registry):
    """A probe without a trace does not decide whether requests have traces."""
    app = scaleobs.instrument(partial(asgi_hello), registry=registry, log_format="off")
    headers = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    openmetrics = [("accept", "application/openmetrics-text; version=1.0.0")]
    for _ in range(2):
        asgi(app, path="/metrics", headers=openmetrics)
        asgi(app, path="/health")
        asgi(app, path="/")
        asgi(app, path="/", headers=headers)

    assert b'trace_id="0af7651916cd43dd8448eb211c80319c"' in asgi(app, path="/metrics", headers=openmetrics).body


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_provider_that_can_not_be_loaded(log_format, registry, monkeypatch):
    """If OpenTelemetry's settings name an unknown provider, requests are served, and the fault is counted."""
    trace = pytest.importorskip("opentelemetry.trace")
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: next(iter(())))
    app = scaleobs.instrument(partial(asgi_hello), registry=registry, log_format=log_format)
    asgi(app, path="/metrics", headers=[("accept", "application/openmetrics-text; version=1.0.0")])

    assert [200] * 3 == [asgi(app, path="/").status for _ in range(3)]
    assert 1 <= registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_client_gone_under_two_registries(log_format):
    """Each of two middlewares recognises an error of the server as a disconnected client."""
    registries = CollectorRegistry(), CollectorRegistry()
    app = asgi_hello
    for registry in registries:
        app = scaleobs.ASGIMiddleware(app, registry=registry, log_format=log_format)

    async def send(message):
        raise OSError("gone")

    async def once():
        await app(http_scope(), None, send)

    for _ in range(2):
        coroutine = once()
        with pytest.raises(OSError, match="gone"):
            coroutine.send(None)

    assert [{("GET", "unmatched", "499"): 2}] * 2 == [counted(registry) for registry in registries]
    assert [0, 0] == [active(registry) for registry in registries]


def test_handler_that_raises_at_the_limit(registry, monkeypatch):
    """If the log cannot be written, no count and no response is lost."""
    app = scaleobs.instrument(
        partial(asgi_hello), registry=registry, max_label_sets=1, route=lambda scope: scope["path"]
    )
    log = scaleobs.observer_of(app)._service.log
    monkeypatch.setattr(log, "logger", None)
    for number in range(3):
        assert 200 == asgi(app, path=f"/{number}").status

    assert 3 == sum(counted(registry).values())
    assert 0 == active(registry)
    assert 2 == attach(registry)[1].read().dropped
