"""Sizes of bodies, if they are enabled: equal in ASGI and WSGI."""

from __future__ import annotations

from functools import partial

import pytest

import scaleobs
from scaleobs import catalog
from support.exchanges import asgi, wsgi


async def asgi_echo(scope, receive, send):
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for half in (message["body"], message["body"]):
        await send({"type": "http.response.body", "body": half, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def wsgi_list(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * 700, b"y" * 800]


def wsgi_generator(environ, start_response):
    start_response("200 OK", [])
    yield b"x" * 700
    yield b"y" * 800


def sizes(registry, family):
    labels = {"method": "POST", "route": "unmatched", "status_code": "200"}
    return [registry.get_sample_value(f"{family.name}_{part}", labels) for part in ("count", "sum")]


@pytest.mark.parametrize("log_format", ["off", "json"])
def test_asgi_bodies_are_measured(log_format, registry):
    """
    What was received and every piece that was sent add up.
    """
    app = scaleobs.instrument(partial(asgi_echo), registry=registry, size_histograms=True, log_format=log_format)
    for _ in range(2):
        asgi(app, "POST", "/", received=[{"type": "http.request", "body": b"x" * 750, "more_body": False}])

    assert [2, 1500] == sizes(registry, catalog.REQUEST_SIZE)
    assert [2, 3000] == sizes(registry, catalog.RESPONSE_SIZE)


@pytest.mark.parametrize("app", [wsgi_list, wsgi_generator])
def test_wsgi_bodies_are_measured(app, registry):
    """
    A whole body and one that comes in pieces are as long as they are.
    """
    instrumented = scaleobs.instrument(partial(app), registry=registry, size_histograms=True, log_format="off")
    for _ in range(2):
        wsgi(instrumented, "POST", "/")

    assert 2 == sizes(registry, catalog.REQUEST_SIZE)[0]
    assert [2, 3000] == sizes(registry, catalog.RESPONSE_SIZE)


def test_sizes_are_absent_by_default(registry):
    """
    Without the setting there is no family of sizes.
    """
    app = scaleobs.instrument(partial(wsgi_list), registry=registry, log_format="off")
    wsgi(app, "POST", "/")

    assert b"size_bytes" not in wsgi(app, "GET", "/metrics").body


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_page_shows_sizes(accept, registry):
    """
    The page has the buckets of both families.
    """
    app = scaleobs.instrument(partial(wsgi_list), registry=registry, size_histograms=True, log_format="off")
    wsgi(app, "POST", "/")
    body = wsgi(app, "GET", "/metrics", headers=[("Accept", accept)]).body.decode()

    assert 'http_response_size_bytes_bucket{method="POST",route="unmatched",status_code="200",le="10000' in body
    assert "http_request_size_bytes_count" in body


@pytest.mark.parametrize("length", ["9" * 400, "9" * 5000, "1" + "0" * 18, "-5", "x"])
def test_length_that_a_client_makes_up(length, registry):
    """A declared length of a body that is never sent does not count."""
    both = [
        (scaleobs.instrument(partial(asgi_echo), registry=registry, size_histograms=True), asgi),
        (scaleobs.instrument(partial(wsgi_list), registry=registry, size_histograms=True), wsgi),
    ]
    for app, call in both:
        more = {"received": [{"type": "http.request", "body": b""}]} if call is asgi else {}
        call(app, "POST", "/", headers=[("Content-Length", length)], **more)

    assert [2, 0] == sizes(registry, catalog.REQUEST_SIZE)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_wsgi_written_and_head(method, registry):
    """Written bytes count; a response to HEAD has none, even if a length is declared."""

    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "700")] if method == "HEAD" else [])
        if method == "POST":
            write(b"x" * 700)
        return []

    wsgi(scaleobs.instrument(app, registry=registry, size_histograms=True), method, "/")
    labels = {"method": method, "route": "unmatched", "status_code": "200"}

    expected = 700 if method == "POST" else 0
    assert expected == registry.get_sample_value("http_response_size_bytes_sum", labels)
