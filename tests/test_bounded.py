"""No input of a client grows the number of series, the caches, or memory."""

from __future__ import annotations

import asyncio
import functools
import random
import string
import sys
import tracemalloc
from http import HTTPStatus

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import scaleobs
from support.exchanges import active, asgi, counted, environ, http_scope, log_lines, wsgi

MODES = {"plain": {"log_format": "off"}, "logged": {"log_format": "json"}}
ODD_PATHS = ["/\udcff\udc80", "/\x00", "/a\nb", '/"}', "//", "", "/%00%ff", "/" + "x" * 70_000, "/ü/\u2028", "*"]
MADE_UP = random.Random(7)


def made_up(characters=string.ascii_letters, size=12):
    """Return a random word."""
    return "".join(MADE_UP.choices(characters, k=size))


async def hello(request):
    """Return a response of Starlette."""
    return PlainTextResponse("hello")


def starlette_app():
    """Return an application with one route."""
    return Starlette(routes=[Route("/hello/{name}", hello)])


def flask_app():
    """Return the same application in Flask."""
    app = Flask("shop")
    app.add_url_rule("/hello/<name>", "hello", lambda name: "hello")
    return app


def raw_asgi():
    """Return an application without routes."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})

    return app


def raw_wsgi():
    """Return the same for WSGI."""

    def app(environ, start_response):
        start_response("404 Not Found", [])
        return [b""]

    return app


class Null:
    """A stdout that discards all output."""

    def write(self, text):
        """Discard the text."""

    def flush(self):
        """Do nothing."""


async def take(message=None):
    """Receive or send a message."""
    return {"type": "http.request"}


def serve_all(app, requests):
    """Serve requests, each a method, a path and a Host header."""
    if isinstance(app, Flask | scaleobs.WSGIMiddleware):
        for method, path, host in requests:
            raw = path.encode("utf-8", "surrogateescape").decode("latin-1")
            body = app(environ(method, raw, **{**INPUT, "HTTP_HOST": host}), lambda *_: lambda data: None)
            body.close()
        return

    async def serve():
        for method, path, host in requests:
            await app(http_scope(method, path) | {"headers": [(b"host", host.encode())]}, take, take)

    asyncio.run(serve())


INPUT = {"wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "wsgi.input": None}


def state(app):
    """Return the number of series and of cached keys."""
    storage = scaleobs.observer_of(app)._service.storage
    return len(storage.read().children), sum(len(shard.child_cache) for _, shard in storage._shards)


def page_of(app):
    """Return the labels of all requests on a page."""
    is_wsgi = isinstance(app, Flask | scaleobs.WSGIMiddleware)
    text = (wsgi if is_wsgi else asgi)(app, path="/metrics").body.decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    return [(sample.labels, sample.value) for sample in families["http_requests"] if sample.value]


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
@pytest.mark.parametrize("make", [starlette_app, flask_app, raw_asgi, raw_wsgi])
def test_what_clients_make_up_adds_nothing(make, settings, registry):
    """5,000 paths, 500 methods, 500 hosts and undecodable bytes make no more series and keys than a few do."""
    app = scaleobs.instrument(make(), registry=registry, **settings)
    known = [("GET", "/hello/you", "shop"), ("GET", "/nowhere", "shop"), ("PROPFIND", "/hello/you", "shop")]
    known += [("PROPFIND", "/nowhere", "shop"), ("POST", "/hello/you", "shop")]
    for _ in range(3):
        serve_all(app, known)
        before = state(app)
    requests = [("GET", f"/{made_up()}/{made_up()}", "shop") for _ in range(5000)]
    requests += [(made_up(string.ascii_uppercase), "/hello/you", "shop") for _ in range(500)]
    requests += [("GET", "/hello/you", f"{made_up()}.example") for _ in range(500)]
    requests += [(method, path, "shop") for path in ODD_PATHS for method in ("GET", "\udcff", "G\nT", "get", "")]

    serve_all(app, requests)
    shown = page_of(app)

    assert before == state(app)
    assert len(requests) + len(known) * 3 == sum(value for _, value in shown)
    assert {"GET", "POST", "_OTHER"} >= {labels["method"] for labels, _ in shown}
    assert {"unmatched", "/hello/{name}", "/hello/<name>"} >= {labels["route"] for labels, _ in shown}
    assert 0 == active(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("settings", MODES.values(), ids=MODES)
def test_beyond_the_limit_are_four_more_series(settings, registry, capsys, caplog):
    """Label sets beyond the limit count in four overflow series, for any status; one line is logged, once."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": scope["status"]})
        await send({"type": "http.response.body"})

    # A route function that returns paths: the reason for the limit.
    app = scaleobs.instrument(app, registry=registry, max_label_sets=10, route=lambda scope: scope["path"], **settings)
    statuses = [200, 204, 301, 404, 418, 500, 503, 599, 100, 700, 999, 0, "no number", HTTPStatus.CREATED]
    for number in range(10):
        asgi(app, path=f"/{number}", status=200)
    for number in range(10, 30):
        for status in statuses:
            asgi(app, path=f"/{number}", method="PUT", status=status)
    asgi(app, path="/3", status=200)
    overflow = {labels: count for labels, count in counted(registry).items() if labels[1] == "_overflow"}
    logged_texts = [one["event"] for one in log_lines(capsys)] if settings == MODES["logged"] else caplog.messages

    assert {("_OTHER", "_overflow", status) for status in ("200", "300", "400", "500")} == set(overflow)
    assert 20 * len(statuses) == sum(overflow.values())
    assert {("GET", f"/{number}", "200"): 1 + (number == 3) for number in range(10)} == {
        labels: count for labels, count in counted(registry).items() if labels not in overflow
    }
    assert 20 * len(statuses) == registry.get_sample_value("scaleobs_label_sets_dropped_total")
    assert 1 == sum("label_sets.limit_reached" in line for line in logged_texts)


@pytest.mark.parametrize(("settings", "times"), [(MODES["plain"], 100_000), (MODES["logged"], 10_000)], ids=MODES)
@pytest.mark.parametrize("make", [raw_asgi, raw_wsgi])
def test_memory_stays_flat_over_odd_requests(make, settings, times, registry, monkeypatch):
    """
    A hundred thousand requests that are all different leave no memory behind.

    All of them are measured in blocks of memory, which costs nothing, and some in bytes.
    """
    monkeypatch.setattr(sys, "stdout", Null())
    app = scaleobs.instrument(make(), registry=registry, **settings)

    def odd(count):
        return ((made_up(size=3), f"/{number}{made_up(size=3)}", f"{number}.example") for number in range(count))

    serve_all(app, odd(1000))
    before = sys.getallocatedblocks()
    serve_all(app, odd(times))
    blocks = sys.getallocatedblocks() - before
    tracemalloc.start()
    try:
        serve_all(app, odd(1000))
        before, _ = tracemalloc.get_traced_memory()
        serve_all(app, odd(3000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert blocks < 1000
    assert after - before < 3000
    assert times + 5000 == sum(counted(registry).values())


def test_unclosed_answers_are_released(registry):
    """If a server drops bodies, the next scrape counts them, and no body stays in memory."""
    dropped = []

    class Body:
        def __iter__(self):
            return iter([b"x"])

        def __del__(self):
            dropped.append(1)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    app = scaleobs.instrument(functools.partial(app), registry=registry, log_format="off")
    for _ in range(1000):
        app(environ(), lambda *_: None)

    assert 1000 == len(dropped)
    assert {("GET", "unmatched", "200"): 1000} == counted(registry)
    assert 0 == active(registry)


def test_prefixes_that_clients_make_up_are_not_kept(registry):
    """Under a mount whose path has parameters, only the first few prefixes have the endpoints."""
    app = scaleobs.ASGIMiddleware(raw_asgi(), registry=registry)

    for number in range(1000):
        asgi(app, path=f"/{number}/x", root_path=f"/{number}")

    assert len(app._endpoints) < 100
