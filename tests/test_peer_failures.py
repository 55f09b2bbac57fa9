"""Bugs that other libraries had in production, each as a fact about this one."""

from __future__ import annotations

import asyncio
import gzip
import time
from http import HTTPStatus

import pytest
from flask import Flask, Response
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from support.exchanges import active, asgi, counted, http_scope, seconds, serve_asgi, without_id, wsgi

START, END = {"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body", "body": b""}


async def user(request):
    """Send a response."""
    return PlainTextResponse(request.path_params.get("x", ""))


def sending(*messages):
    """Return an application that sends these messages."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


def slowly(registry):
    """Yield three chunks in 300 ms, in flight at each."""
    for _ in range(3):
        assert 1 == active(registry)
        time.sleep(0.1)
        yield b"x"


def test_wsgi_stream_is_timed_whole(observe, registry):
    """A WSGI body that takes 300 ms is recorded with 300 ms, and is in flight until it is closed."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return slowly(registry)

    seen = wsgi(observe(app))

    assert (b"xxx", None) == (seen.body, seen.error)
    assert 0.3 <= seconds(registry) < 5
    assert 0 == active(registry)


def test_flask_stream_is_timed_whole(observe, registry):
    """A Flask generator is timed to its end."""
    app = Flask("shop")
    app.add_url_rule("/", "stream", lambda: Response(slowly(registry)))

    assert b"xxx" == wsgi(observe(app)).body
    assert 0.3 <= seconds(registry) < 5


def test_starlette_stream_is_timed_whole(observe, registry):
    """A streaming response of Starlette is timed to its end, and in flight until then."""
    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(slowly(registry)))])

    assert b"xxx" == asgi(observe(app)).body
    assert 0.3 <= seconds(registry) < 5


def test_length_that_one_answer_declares_is_its_own(observe, registry):
    """A Content-Length belongs to its own response and to no later one."""
    app = observe(
        Starlette(routes=[Route("/a", lambda _: PlainTextResponse("x" * 1000)), Route("/b", streamed)]),
        size_histograms=True,
    )

    for path in ("/a", "/b", "/b"):
        asgi(app, path=path)
    sums = [
        one.value for family in registry.collect() for one in family.samples if "response_size_bytes_sum" in one.name
    ]

    assert 1006 == sum(sums)


async def streamed(request):
    """Send a response without a length."""
    return StreamingResponse(iter([b"a", b"bc"]))


def test_cancelled_request_is_counted(observe, registry):
    """A cancelled handler counts once, as 500, with its duration."""

    async def app(scope, receive, send):
        if scope["path"] != "/health":
            await asyncio.sleep(3600)

    async def serve():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(app(http_scope(), None, None), 0.05)

    app = observe(app)
    asyncio.run(serve())

    assert {("GET", "unmatched", "500"): 1} == counted(registry)
    assert 0.04 < seconds(registry) < 5


@pytest.mark.parametrize("protocol", [asgi, wsgi])
def test_unhandled_exception_has_a_status_and_a_duration(protocol, observe, registry):
    """An error is a 500 in the counter and in the histogram, even if no framework made an error page of it."""

    async def failing(scope, receive, send):
        raise ZeroDivisionError

    def failing_wsgi(environ, start_response):
        raise ZeroDivisionError

    seen = protocol(observe(failing if protocol is asgi else failing_wsgi))

    assert isinstance(seen.error, ZeroDivisionError)
    assert {("GET", "unmatched", "500"): 1} == counted(registry)


def test_openmetrics_is_negotiated(observe):
    """A scraper that requests OpenMetrics gets a page that its parser accepts, without empty exemplars."""
    app = observe(Starlette(routes=[Route("/u/{x}", user)]))
    accept = [("accept", "application/openmetrics-text; version=1.0.0")]
    asgi(app, path="/metrics", headers=accept)
    asgi(app, path="/u/1")
    page = asgi(app, path="/metrics", headers=accept)
    samples = [one for family in text_string_to_metric_families(page.body.decode()) for one in family.samples]

    assert page.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {None} == {sample.exemplar for sample in samples}


@pytest.mark.parametrize(("accepted", "is_zipped"), [("gzip;q=0", False), ("gzip", True), ("identity", False)])
def test_gzip_is_sent_if_accepted(accepted, is_zipped, observe):
    """`gzip;q=0` refuses gzip."""
    page = asgi(observe(sending(START, END)), path="/metrics", headers=[("accept-encoding", accepted)])
    text = gzip.decompress(page.body) if is_zipped else page.body

    assert is_zipped is ("gzip" == page.headers.get("content-encoding"))
    assert b"# HELP http_requests_total" in text


def test_gauge_has_no_status(observe, registry):
    """Open requests have no status and no label for one."""
    asgi(observe(sending(START, END)))
    labels = {frozenset(one.labels) for family in registry.collect() for one in family.samples if "active" in one.name}

    assert {frozenset({"protocol"})} == labels


def test_status_enum_is_three_digits(observe, registry):
    """A status that is an enum is counted by its number."""
    asgi(observe(sending({**START, "status": HTTPStatus.NOT_FOUND}, END)))

    assert {("GET", "unmatched", "404"): 1} == counted(registry)


def test_message_may_lack_its_headers(observe):
    """A start without headers and a body without bytes, as ASGI allows, are passed on."""
    least = {"type": "http.response.start", "status": 200}, {"type": "http.response.body"}

    assert list(least) == list(map(without_id, asgi(observe(sending(*least))).messages))


def test_headers_that_can_be_read_once_reach_the_client(observe):
    """A one-shot iterable of headers is read by the server alone."""
    app = observe(sending({**START, "headers": iter([(b"x-a", b"1")])}, END))

    seen = asgi(app).headers
    seen.pop("x-request-id", None)

    assert {"x-a": "1"} == seen


@pytest.mark.parametrize("end", [END, {"type": "http.response.pathsend", "path": "/etc/hostname"}])
def test_background_task_is_not_in_the_latency(end, observe, registry):
    """Work after the last byte is not timed, and its failure does not change the status of the sent response."""

    async def app(scope, receive, send):
        if scope["path"] != "/health":
            await sending(START, end)(scope, receive, send)
            moments.append(time.perf_counter())
            raise ZeroDivisionError

    app = observe(app)
    moments = [time.perf_counter()]
    seen = asgi(app)
    begun, ended = moments

    assert isinstance(seen.error, ZeroDivisionError)
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert seconds(registry) <= ended - begun


def test_background_task_of_starlette_is_not_in_the_latency(observe, registry):
    """A background task of a framework is not timed."""
    task = BackgroundTask(lambda: moments.append(time.perf_counter()))
    app = observe(Starlette(routes=[Route("/", lambda request: PlainTextResponse("x", background=task))]))
    moments = [time.perf_counter()]
    asgi(app)
    begun, ended = moments

    assert {("GET", "/", "200"): 1} == counted(registry)
    assert seconds(registry) <= ended - begun


def test_client_that_left_is_499(observe, registry):
    """A client that disconnects before the response is no server error."""

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    received = [{"type": "http.request"}, {"type": "http.disconnect"}]
    asyncio.run(serve_asgi(observe(app), http_scope(), received))

    assert {("GET", "unmatched", "499"): 1} == counted(registry)
