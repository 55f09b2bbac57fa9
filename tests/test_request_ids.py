"""The id of a request: its header, how it is made, which ids of clients are used, and one id with other libraries."""

from __future__ import annotations

import asyncio
import functools
import logging

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import scaleobs
from support.exchanges import asgi, finished, log_lines, run_lifespan, wsgi


async def asgi_app(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_app(environ, start_response):
    """Answer."""
    start_response("200 OK", [])
    return [b"hello"]


@pytest.fixture(name="ids", params=["asgi", "wsgi"])
def _ids(request, registry, capsys):
    """Return a function that requests with headers, and returns the id in the line and those in the response."""

    def ids(*headers, **settings):
        async def app(scope, receive, send):
            await asgi_app(scope, receive, send)

        call, served = (asgi, app) if request.param == "asgi" else (wsgi, functools.partial(wsgi_app))
        answer = call(scaleobs.instrument(served, registry=registry, **settings), headers=headers)
        sent = {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("x-")}
        return finished(capsys)[-1]["request_id"], sent

    return ids


def test_header_of_another_name(ids):
    """It is read and sent back; the usual header is not."""
    headers = [("X-Request-ID", "other"), ("X-Correlation-Id", "r1")]

    assert ("r1", {"x-correlation-id": "r1"}) == ids(*headers, request_id_header="X-Correlation-ID")


def test_without_a_header(ids):
    """No header is read or sent; lines have an id."""
    made, sent = ids(("X-Request-ID", "r1"), request_id_header=None)

    assert 32 == len(made)
    assert {} == sent


def test_ids_of_a_generator(ids):
    """They replace those of clients that are missing or not valid."""
    settings = {"request_id_generator": iter(["a 1", "b 2"]).__next__}

    assert ("a 1", {"x-request-id": "a 1"}) == ids(**settings)
    assert ("b 2", {"x-request-id": "b 2"}) == ids(("X-Request-ID", "no/id"), **settings)
    assert "r1" == ids(("X-Request-ID", "r1"), **settings)[0]


@pytest.mark.parametrize("made", [None, 7, "", "é", "a\r\nb", " a", "x" * 201, ValueError("no id")], ids=repr)
def test_generator_that_makes_no_id(made, ids, registry):
    """The request has the usual id, and the fault is counted; nothing else than text is sent to a client."""

    def generate():
        if isinstance(made, Exception):
            raise made
        return made

    own, sent = ids(request_id_generator=generate)

    assert 32 == len(own)
    assert {"x-request-id": own} == sent
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_ids_that_a_validator_accepts(ids, registry):
    """It receives the client's id; what can't be sent back is never used, nor if the validator raises."""
    accepts = {"request_id_validator": lambda one: one.startswith("urn:")}

    assert "urn:a/b c" == ids(("X-Request-ID", "urn:a/b c"), **accepts)[0]
    for refused in ("r1", "urn:é", "urn:a\x7f", "urn:" + "x" * 200):
        assert 32 == len(ids(("X-Request-ID", refused), **accepts)[0])
    assert 32 == len(ids(("X-Request-ID", "r1"), request_id_validator=lambda one: 1 / 0)[0])
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("request_id_header", "X Request"), ("request_id_header", 7), ("request_id_generator", "uuid4")],
)
def test_bad_settings_are_refused(setting, value, registry):
    """With the name, the value and the fix."""
    with pytest.raises(scaleobs.SettingsError, match=f"{setting} is {value!r}: give "):
        scaleobs.instrument(wsgi_app, registry=registry, **{setting: value})


def test_header_by_the_environment(ids, monkeypatch):
    """Also, `off` is none."""
    monkeypatch.setenv("SCALEOBS_REQUEST_ID_HEADER", "X-Trace")
    assert "r1" == ids(("X-Trace", "r1"))[0]
    monkeypatch.setenv("SCALEOBS_REQUEST_ID_HEADER", "off")
    assert {} == ids(("X-Request-ID", "r1"))[1]


HEX, UUID = "4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


@pytest.mark.parametrize("sent", [None, "r1", HEX, UUID])
@pytest.mark.parametrize("way", ["added", "added later", "around"])
def test_one_id_with_asgi_correlation_id(way, sent, registry, capsys):
    """Its context, our lines and the one header of the response have the same id, for any id of a client."""
    from asgi_correlation_id import CorrelationIdMiddleware, correlation_id

    found = []

    async def page(request):
        found.append(correlation_id.get())
        logging.getLogger("shop").warning("line")
        return PlainTextResponse("hello")

    own = [Middleware(CorrelationIdMiddleware)] if way == "added" else []
    app = Starlette(routes=[Route("/", page)], middleware=own)
    served = scaleobs.instrument(CorrelationIdMiddleware(app) if way == "around" else app, registry=registry)
    if way == "added later":
        app.add_middleware(CorrelationIdMiddleware)
        asyncio.run(run_lifespan(served))
    answer = asgi(served, headers=[("X-Request-ID", sent)] if sent else [])
    lines = log_lines(capsys)

    assert {found[0]} == {line["request_id"] for line in lines} == {answer.headers["x-request-id"]}
    assert found[0] == sent or sent in (None, "r1")
    assert ["line", "request.finished"] == [line["event"] for line in lines]


def test_application_receives_what_its_client_sent(registry):
    """Without such a library no header is added."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["headers"])
        await asgi_app(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry))

    assert [[]] == seen
