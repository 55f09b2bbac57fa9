"""One server span per request if a provider is set, by the stable HTTP conventions of OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import scaleobs
from support.exchanges import asgi, finished, log_lines, serve_asgi, wsgi
from support.traced_apps import OPENMETRICS, PARENT, TRACE, TRACEPARENT, asgi_app, ids, route, wsgi_app


@pytest.fixture(params=[(asgi_app, asgi), (wsgi_app, wsgi)], ids=["asgi", "wsgi"])
def serve(request, exported, registry):
    """Return a function that sends one request and returns its spans."""
    app, call = request.param
    app = scaleobs.instrument(functools.partial(app), registry=registry, route=route)

    def served(path, **more):
        exported()
        call(app, more.pop("method", "GET"), path, **more)
        return exported()

    served.app = app
    return served


def test_span_follows_the_conventions(serve):
    """One span of the kind SERVER, named after method and template, with all attributes."""
    headers = [("host", "orders.example:8443"), ("user-agent", "curl/8")]
    [span] = serve("/items/200", headers=headers)

    assert ("GET /items/{id}", SpanKind.SERVER, StatusCode.UNSET) == (span.name, span.kind, span.status.status_code)
    assert {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/items/200",
        "server.address": "orders.example",
        "server.port": 8443,
        "client.address": "10.0.0.7",
        "user_agent.original": "curl/8",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
    } == {key: value for key, value in span.attributes.items() if key != "network.protocol.version"}
    assert span.attributes["network.protocol.version"] in ("1.0", "1.1")
    assert "scaleobs" == span.instrumentation_scope.name
    assert scaleobs.__version__ == span.instrumentation_scope.version
    assert span.start_time <= span.end_time


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("orders.example", "orders.example", 80),
        ("10.0.0.1:8000", "10.0.0.1", 8000),
        ("[::1]:8000", "::1", 8000),
        ("[::1]", "::1", 80),
        ("a:b", "a:b", 80),
    ],
)
def test_address_is_that_of_the_host_header(host, address, port, serve):
    """`server.address` and `server.port` are those of the Host header; without a port, it is that of the scheme."""
    [span] = serve("/items/200", headers=[("host", host)])

    assert (address, port) == (span.attributes["server.address"], span.attributes["server.port"])


def test_query_is_left_out(serve):
    """A query may contain a token."""
    query = (
        {"query": "token=secret"} if serve.app.__class__.__name__ == "WSGIMiddleware" else {"query": b"token=secret"}
    )
    [span] = serve("/items/200", **query)

    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/items/404", 404, StatusCode.UNSET), ("/items/503", 503, StatusCode.ERROR), ("/302", 302, StatusCode.UNSET)],
)
def test_status_of_the_span(path, status, code, serve):
    """5xx is an error of the server, and 4xx is not."""
    [span] = serve(path)

    assert (status, code) == (span.attributes["http.response.status_code"], span.status.status_code)
    assert (str(status) if status == 503 else None) == span.attributes.get("error.type")
    assert not span.events


@pytest.mark.parametrize(("path", "sent"), [("/items/raise", 500), ("/items/cut", 200)])
def test_exception_is_recorded_once(path, sent, serve):
    """What the application raises, before or during the response, is an event of the span, and its `error.type`."""
    [span] = serve(path)

    assert (StatusCode.ERROR, "ValueError") == (span.status.status_code, span.attributes["error.type"])
    assert sent == span.attributes["http.response.status_code"]
    assert [("exception", "no such thing")] == [(one.name, one.attributes["exception.message"]) for one in span.events]


def test_unmatched_path_has_no_route(serve):
    """A path without a route is not in the name: clients can send any number of paths."""
    [span] = serve("/whatever")

    assert ("GET", None) == (span.name, span.attributes.get("http.route"))


def test_unknown_method(serve):
    """The name and the method of the span are bounded; another attribute has the method that was sent."""
    [span] = serve("/items/200", method="BREW")

    assert "HTTP /items/{id}" == span.name
    assert ("_OTHER", "BREW") == (
        span.attributes["http.request.method"],
        span.attributes["http.request.method_original"],
    )


def test_span_is_the_clients_child_and_the_applications_parent(serve):
    """It continues the trace of `traceparent`, and is current while the application runs."""
    seen = []
    [span] = serve("/items/200", headers=[TRACEPARENT, ("tracestate", "a=1")], seen=seen)

    assert (TRACE, int(PARENT, 16)) == (ids(span)[0], span.parent.span_id)
    assert span.parent.is_remote
    assert {"a": "1"} == dict(span.context.trace_state)
    assert [span.context] == [one.get_span_context() for one in seen]
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("header", ["", f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_span_without_a_valid_parent_begins_a_trace(header, serve):
    """An invalid header is no parent, also for OpenTelemetry."""
    [span] = serve("/items/200", headers=[("traceparent", header)])

    assert span.parent is None
    assert TRACE != ids(span)[0]


def test_line_and_exemplar_have_the_spans_ids(serve, capsys):
    """The access line and the exemplar of a request have the ids of its own span, not of the client's."""
    call = wsgi if isinstance(serve.app, scaleobs.WSGIMiddleware) else asgi
    call(serve.app, path="/metrics", headers=OPENMETRICS)
    [span] = serve("/items/200", headers=[TRACEPARENT])
    trace_id, span_id = ids(span)
    page = call(serve.app, path="/metrics", headers=OPENMETRICS).body.decode()
    line = finished(capsys)[-1]

    assert (trace_id, span_id) == (line["trace_id"], line["span_id"])
    assert f'span_id="{span_id}",trace_id="{trace_id}"' in page or f'trace_id="{trace_id}",span_id="{span_id}"' in page


def test_line_of_a_failure_has_them_too(serve, capsys):
    """The line with an exception is written after the span has ended, and has its ids."""
    [span] = serve("/items/raise", headers=[TRACEPARENT])
    [line] = [line for line in log_lines(capsys) if line["event"] == "request.finished"]

    assert ids(span) == (line["trace_id"], line["span_id"])
    assert "ValueError" in line["exception"]


def test_probes_and_scrapes_make_no_spans(serve):
    """Requests of the platform have no spans."""
    assert [(), (), ()] == [serve(path) for path in ("/health", "/ready", "/metrics")]


def test_span_that_is_not_sampled(serve, monkeypatch, capsys):
    """If the provider's sampler drops a span, the line has its ids, and there is no exemplar."""
    monkeypatch.setattr(trace.get_tracer_provider(), "sampler", ALWAYS_OFF)
    call = wsgi if isinstance(serve.app, scaleobs.WSGIMiddleware) else asgi
    call(serve.app, path="/metrics", headers=OPENMETRICS)

    assert () == serve("/items/200", headers=[TRACEPARENT])
    assert TRACE == finished(capsys)[-1]["trace_id"]
    assert TRACE not in call(serve.app, path="/metrics", headers=OPENMETRICS).body.decode()


def test_disabled_sdk(serve, monkeypatch):
    """With `OTEL_SDK_DISABLED` there are no spans."""
    monkeypatch.setattr(trace.get_tracer_provider(), "_disabled", True)

    assert () == serve("/items/200")


def test_provider_that_is_set_later(registry, monkeypatch, exported):
    """A provider that is set while requests are served is used from the next probe on."""
    provider = trace.get_tracer_provider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    app = scaleobs.instrument(functools.partial(asgi_app), registry=registry, log_format="off")
    asgi(app)

    assert scaleobs.observer_of(app)._service.storage.fast_path[0]

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    for path in ("/health", "/x"):
        asgi(app, path=path)

    assert ["/x"] == [span.attributes["url.path"] for span in exported()]


SOCKET = {"type": "websocket", "scheme": "ws", "path": "/items/7", "headers": [], "query_string": b""}


@pytest.mark.parametrize(
    ("ends", "attributes", "status"),
    [
        ("closes", {"http.response.status_code": 101}, StatusCode.UNSET),
        ("refuses", {"http.response.status_code": 403}, StatusCode.UNSET),
        ("raises", {"http.response.status_code": 101, "error.type": "ValueError"}, StatusCode.ERROR),
        ("raises at once", {"http.response.status_code": 500, "error.type": "ValueError"}, StatusCode.ERROR),
        (429, {"http.response.status_code": 429}, StatusCode.UNSET),
        (503, {"http.response.status_code": 503, "error.type": "503"}, StatusCode.ERROR),
    ],
)
def test_span_of_a_websocket(ends, attributes, status, exported, registry, capsys):
    """It has a span from the handshake until it is closed, and its lines have the ids."""
    inside = []

    async def app(scope, receive, send):
        inside.append(trace.get_current_span())
        await receive()
        if ends == "raises at once":
            raise ValueError("no such room")
        if isinstance(ends, int):
            await send({"type": "websocket.http.response.start", "status": ends})
            await send({"type": "websocket.http.response.body"})
            return
        if ends != "refuses":
            await send({"type": "websocket.accept"})
        if ends == "raises":
            raise ValueError("no such room")
        await send({"type": "websocket.close"})

    app = scaleobs.instrument(app, registry=registry, route=route)
    exported()
    scope = {**SOCKET, "headers": [(TRACEPARENT[0].encode(), TRACEPARENT[1].encode())]}
    asyncio.run(serve_asgi(app, scope, [{"type": "websocket.connect"}]))
    [span] = exported()

    assert ("GET /items/{id}", SpanKind.SERVER, status) == (span.name, span.kind, span.status.status_code)
    assert TRACE == ids(span)[0]
    assert PARENT == f"{span.parent.span_id:016x}"
    assert span.context == inside[0].get_span_context()
    assert attributes == {key: span.attributes[key] for key in attributes}
    assert ("error.type" in attributes) == ("error.type" in span.attributes)
    lines = log_lines(capsys)
    assert ["websocket.closed" if ends in ("closes", "raises") else "request.finished"] == [
        line["event"] for line in lines
    ]
    assert all(ids(span) == (line["trace_id"], line["span_id"]) for line in lines)


@pytest.mark.parametrize(("version", "status"), [("1.1", 101), ("2", 200), ("3", 200)])
def test_status_of_a_websocket_by_version_of_http(version, status, exported, registry):
    """The span has what the client has received: over HTTP/2 an accepted handshake is answered by a 200."""

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    exported()
    app = scaleobs.instrument(app, registry=registry, log_format="off")
    asyncio.run(serve_asgi(app, {**SOCKET, "http_version": version}))
    [span] = exported()

    assert status == span.attributes["http.response.status_code"]


@pytest.mark.parametrize("how", ["disconnected", "unreachable", "closed", "cancelled"])
def test_span_of_a_websocket_without_a_failure(how, exported, registry, capsys):
    """It ends at the close: frameworks raise an exception if the client has closed, and servers cancel at shutdown."""
    at_close = []

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("client gone")

    async def receive():
        return {"type": "websocket.disconnect", "code": 1001}

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        if how == "cancelled":
            raise asyncio.CancelledError
        if how == "disconnected":
            await receive()
        elif how == "unreachable":
            with contextlib.suppress(OSError):
                await send({"type": "websocket.send", "text": "hello"})
        else:
            await send({"type": "websocket.close"})
        at_close.extend(exported())
        raise RuntimeError("WebSocketDisconnect")

    app = scaleobs.instrument(app, registry=registry, route=lambda scope: "/items/{id}")
    exported()
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        asyncio.run(app(dict(SOCKET), receive, send))
    [span] = at_close + list(exported())
    line, *_ = log_lines(capsys)

    assert bool(at_close) is (how != "cancelled")
    assert (101, StatusCode.UNSET) == (span.attributes["http.response.status_code"], span.status.status_code)
    assert "error.type" not in span.attributes
    assert () == span.events
    assert ("websocket.closed", "info") == (line["event"], line["level"])


def test_span_of_a_websocket_over_wsgi(exported, registry, capsys):
    """It has the status of an accepted handshake, and the line has its ids."""
    app = scaleobs.instrument(
        lambda environ, start_response: [], registry=registry, route=lambda environ: "/rooms/{id}"
    )
    exported()
    wsgi(app, headers=[("Upgrade", "websocket")])
    [span] = exported()
    [line] = log_lines(capsys)

    assert ("GET /rooms/{id}", SpanKind.SERVER, 101, StatusCode.UNSET) == (
        *(span.name, span.kind),
        span.attributes["http.response.status_code"],
        span.status.status_code,
    )
    assert ids(span) == (line["trace_id"], line["span_id"])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_span_that_cannot_be_made_current(kind, monkeypatch, exported, registry):
    """The request is served, and the fault is counted."""

    async def app(scope, receive, send):
        start = "websocket.accept" if kind == "websocket" else "http.response.start"
        await send({"type": start, "status": 200, "headers": []})
        end = {"type": "websocket.close"} if kind == "websocket" else {"type": "http.response.body", "body": b""}
        await send(end)

    def attach(context):
        raise RuntimeError("no context")

    app = scaleobs.instrument(app, registry=registry, log_format="off")
    exported()
    monkeypatch.setattr("opentelemetry.context.attach", attach)
    seen = asyncio.run(serve_asgi(app, {**SOCKET, "type": kind, "method": "GET"}))

    assert seen.error is None
    assert 2 == len(seen.messages)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")
