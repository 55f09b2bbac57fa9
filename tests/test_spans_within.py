"""A span is current while its application runs, in any thread, and ends with its request."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.trace import SpanKind

import scaleobs
from support.exchanges import asgi, environ, http_scope, serve_asgi, wsgi
from support.traced_apps import PARENT, TRACE, TRACEPARENT, asgi_app, ids, wsgi_app


def test_baggage_reaches_the_application(exported, registry):
    """The application can read the baggage that the propagators extract."""
    found = []

    async def app(scope, receive, send):
        found.append(baggage.get_baggage("tenant"))
        await asgi_app(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[("baggage", "tenant=blue")])

    assert ["blue"] == found


def test_wsgi_body_runs_in_the_span(exported, registry):
    """A generator has the span as its current one in any thread, and its thread has none in between."""
    current = []

    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(2):
            current.append(trace.get_current_span().get_span_context())
            yield b"x"

    app = scaleobs.instrument(app, registry=registry)
    body = app(environ(), lambda *_: None)
    chunks = iter(body)
    next(chunks)
    between = trace.get_current_span()
    thread = threading.Thread(target=lambda: (list(chunks), body.close()))
    thread.start()
    thread.join()
    [span] = exported()

    assert between is trace.get_current_span() is trace.INVALID_SPAN
    assert [span.context] * 2 == current


def test_span_of_a_dropped_request_ends(exported, registry, caplog):
    """The next scrape ends the span of a request that was dropped, and OpenTelemetry logs nothing."""

    class Never:
        def __await__(self):
            yield

    async def hanging(scope, receive, send):
        await Never()

    app = scaleobs.instrument(hanging, registry=registry)
    coroutine = app(http_scope(), None, None)
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    del coroutine
    gc.collect()
    asgi(app, path="/metrics")

    assert [500] == [span.attributes["http.response.status_code"] for span in exported()]
    assert [] == [one for one in caplog.records if one.name.startswith("opentelemetry")]


def test_concurrent_requests_have_a_span_each(exported, registry):
    """Of fifty concurrent requests with a child span each, every child is below its own request."""
    tracer = trace.get_tracer("shop")

    async def app(scope, receive, send):
        await asyncio.sleep(0)
        with tracer.start_as_current_span("child", attributes={"path": scope["path"]}):
            await asyncio.to_thread(lambda: trace.get_current_span().set_attribute("thread", True))
        await asgi_app(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry)

    async def all_at_once():
        await asyncio.gather(*[serve_asgi(app, http_scope(path=f"/x/{number + 200}")) for number in range(50)])

    asyncio.run(all_at_once())
    spans = exported()
    servers = {span.context.span_id: span for span in spans if span.kind is SpanKind.SERVER}
    children = [span for span in spans if span.kind is not SpanKind.SERVER]

    assert (50, 50) == (len(servers), len(children))
    assert all(one.attributes["thread"] for one in children)
    assert all(servers[one.parent.span_id].attributes["url.path"] == one.attributes["path"] for one in children)


def test_provider_that_raises_fails_no_request(exported, registry, monkeypatch):
    """If the provider raises, a fault is counted, and the request is served."""
    monkeypatch.setattr(trace.get_tracer_provider(), "get_tracer", lambda *_, **__: next(iter(())))
    for app, call in ((asgi_app, asgi), (wsgi_app, wsgi)):
        seen = call(scaleobs.instrument(functools.partial(app), registry=registry))

        assert (200, None) == (seen.status, seen.error)
    assert 2 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_injected_traceparent_is_the_span(exported, registry):
    """The `traceparent` of a request that the application makes has the span's ids."""
    carrier = {}

    async def app(scope, receive, send):
        propagate.inject(carrier)
        await asgi_app(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[TRACEPARENT])
    [span] = exported()

    assert f"00-{TRACE}-{ids(span)[1]}-01" == carrier["traceparent"]


@pytest.mark.parametrize("more", ["", "import opentelemetry.trace;"])
def test_without_a_provider_nothing_is_loaded(more):
    """Without a provider and an endpoint, requests load nothing of OpenTelemetry and start no thread."""
    code = f"""
import sys, threading
{more}
sys.path.insert(0, "tests")
import scaleobs
from support.exchanges import asgi
async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})
app = scaleobs.instrument(app)
for _ in range(3):
    asgi(app, headers=[("traceparent", "00-{TRACE}-{PARENT}-01")])
assert threading.active_count() == 1, threading.enumerate()
assert not any(name.startswith("opentelemetry.sdk") or "requests" == name for name in sys.modules)
{"" if more else 'assert "opentelemetry" not in sys.modules'}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (0, "") == (done.returncode, done.stderr)
