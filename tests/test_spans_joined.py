"""If another instrumentation makes the server span, scaleobs uses it: there are never two."""

from __future__ import annotations

import contextvars
import functools
import warnings

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribASGI
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as ContribWSGI
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import scaleobs
from support.exchanges import asgi, finished, wsgi

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = [("traceparent", f"00-{TRACE}-{PARENT}-01")]


def fastapi(**settings):
    """Return an application with one route."""
    app = FastAPI(**settings)

    @app.get("/items/{item_id}")
    async def item(item_id: int):
        if item_id == 500:
            raise ValueError("no such thing")
        return {"id": item_id}

    return app


def starlette(**settings):
    """Return another one."""
    return Starlette(routes=[Route("/items/{item_id}", lambda request: PlainTextResponse("ok"))], **settings)


def with_starlettes_own():
    """Return one with Starlette's middleware, which makes spans."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

        return starlette(middleware=[Middleware(OpenTelemetryMiddleware)])


async def plain_asgi(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def plain_wsgi(environ, start_response):
    """Answer."""
    start_response("200 OK", [])
    return [b""]


def around(wrapper, app):
    """Return a function that instruments an application and wraps the result."""
    return lambda instrument: wrapper(instrument(functools.partial(app)))


def inside(app):
    """Return a function that instruments an application."""
    return lambda instrument: instrument(app())


MAKERS = {
    "FastAPI": (inside(fastapi), "fastapi"),
    "FastAPI in a middleware": (inside(lambda: CORSMiddleware(fastapi())), "fastapi"),
    "FastAPI without traces": (inside(lambda: fastapi(telemetry={"tracing": False})), "scaleobs"),
    "FastAPI mounted in Starlette": (inside(lambda: Starlette(routes=[Mount("/", fastapi())])), "scaleobs"),
    "Starlette": (inside(starlette), "scaleobs"),
    "Starlette's own": (inside(with_starlettes_own), "starlette"),
    "contrib in ASGI": (inside(lambda: ContribASGI(plain_asgi)), "opentelemetry.instrumentation.asgi"),
    "contrib around ASGI": (around(ContribASGI, plain_asgi), "opentelemetry.instrumentation.asgi"),
    "contrib in WSGI": (inside(lambda: ContribWSGI(plain_wsgi)), "scaleobs"),
    "contrib around WSGI": (around(ContribWSGI, plain_wsgi), "opentelemetry.instrumentation.wsgi"),
}


@pytest.mark.parametrize("headers", [HEADERS, []], ids=["in a trace", "alone"])
@pytest.mark.parametrize("name", MAKERS)
def test_one_server_span(name, headers, exported, registry, capsys):
    """Each request has one span of the kind SERVER, and the access line has its ids."""
    make, maker = MAKERS[name]
    app = make(functools.partial(scaleobs.instrument, registry=registry))
    call = wsgi if "WSGI" in name else asgi
    for _ in range(3):
        exported()
        capsys.readouterr()
        call(app, path="/items/3", headers=headers)
        [span] = [span for span in exported() if span.kind is SpanKind.SERVER]
        [line] = finished(capsys)

        assert maker == span.instrumentation_scope.name
        assert f"{span.context.trace_id:032x}" == line["trace_id"]
        assert f"{span.context.span_id:016x}" == line["span_id"]
        assert (int(PARENT, 16) if headers else None) == (span.parent.span_id if span.parent else None)


@pytest.mark.parametrize("name", ["FastAPI", "FastAPI in a middleware"])
def test_failure_in_fastapi(name, exported, registry, capsys):
    """The line of a failure has the ids of FastAPI's span, though it is written after the application has ended."""
    app = MAKERS[name][0](functools.partial(scaleobs.instrument, registry=registry))
    asgi(app, path="/items/500")
    [span] = [span for span in exported() if span.kind is SpanKind.SERVER]
    [line] = finished(capsys)

    assert f"{span.context.span_id:016x}" == line["span_id"]
    assert "ValueError" in line["exception"]


def test_probes_make_no_spans_in_fastapi(exported, registry):
    """FastAPI's own telemetry makes no span for the endpoints of scaleobs."""
    app = fastapi(telemetry={"exclude": lambda scope: scope["path"] == "/items/4"})
    app = scaleobs.instrument(app, registry=registry)
    for path in ("/health", "/ready", "/startup", "/metrics", "/items/3"):
        assert 200 == asgi(app, path=path).status

    assert {"/items/3"} == {span.attributes["url.path"] for span in exported() if span.kind is SpanKind.SERVER}


def test_excluded_request_has_our_span(exported, registry):
    """A request that the user excludes from FastAPI's telemetry has a span of scaleobs."""
    app = fastapi(telemetry={"exclude": lambda scope: scope["path"] == "/items/4"})
    asgi(scaleobs.instrument(app, registry=registry), path="/items/4")

    assert ["scaleobs"] == [span.instrumentation_scope.name for span in exported()]


def test_span_of_a_caller_is_the_parent(exported, registry):
    """If a test client calls within a span, the request has a span of its own below it."""
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        wsgi(scaleobs.instrument(functools.partial(plain_wsgi), registry=registry))
    [server] = [span for span in exported() if span.kind is SpanKind.SERVER]

    assert caller.get_span_context().span_id == server.parent.span_id


def test_span_of_an_earlier_request_is_no_parent(exported, registry):
    """A connection or thread may still have the span of an earlier request as its current one."""
    app = scaleobs.instrument(functools.partial(plain_wsgi), registry=registry)
    span = trace.get_tracer("other").start_span("last", kind=SpanKind.SERVER)
    span.end()

    def next_request():
        trace.context_api.attach(trace.set_span_in_context(span))
        wsgi(app)

    contextvars.copy_context().run(next_request)
    [server] = [one for one in exported() if one.instrumentation_scope.name == "scaleobs"]

    assert server.parent is None
