"""The exceptions that a framework answers by itself are in the line and in the span of their request."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys

import pytest
from opentelemetry.trace import StatusCode

import scaleobs
from support import failing_apps, servers
from support.exchanges import asgi, log_lines, wsgi

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:")

APPS = {
    "flask": (failing_apps.flask_app, wsgi),
    "django-wsgi": (failing_apps.django_app, wsgi),
    "django-asgi": (functools.partial(failing_apps.django_app, is_asgi=True), asgi),
    "quart": (failing_apps.quart_app, asgi),
    "litestar": (failing_apps.litestar_app, asgi),
    "litestar-logging": (functools.partial(failing_apps.litestar_app, logging_config=...), asgi),
    "falcon-wsgi": (failing_apps.falcon_app, wsgi),
    "falcon-asgi": (functools.partial(failing_apps.falcon_app, is_asgi=True), asgi),
    "pyramid": (failing_apps.pyramid_app, wsgi),
    "starlette": (failing_apps.starlette_app, asgi),
    "fastapi": (failing_apps.fastapi_app, asgi),
    "bottle": (failing_apps.bottle_app, wsgi),
    "plain-wsgi": (lambda: functools.partial(failing_apps.plain_wsgi_app), wsgi),
}
WITHOUT_HANDLERS = {"bottle"}
"""Frameworks without handlers for single classes of exceptions."""


@pytest.fixture(params=APPS)
def app(request):
    """Return the name of a framework, a new application, and the function that calls it."""
    make, call = APPS[request.param]
    if request.param == "litestar-logging":
        from litestar.logging import LoggingConfig

        make = functools.partial(failing_apps.litestar_app, logging_config=LoggingConfig(log_exceptions="always"))
    made = make()
    made, undo = made if isinstance(made, tuple) else (made, lambda: None)
    yield request.param, made, call
    undo()


@pytest.fixture
def serve(app, registry, capsys):
    """Return the framework's name, and a function that sends a request and returns all lines that follow."""
    name, made, call = app

    def served(path, **settings):
        instrumented = scaleobs.instrument(made, registry=registry, **{"log_format": "json", **settings})
        capsys.readouterr()
        call(instrumented, path=path)
        return log_lines(capsys)

    return name, served


def test_unhandled_exception_is_in_the_line_of_its_request_once(serve):
    """`request.finished` has the stack trace, and no other line has it."""
    _, served = serve
    lines = served("/raise")
    [line] = [one for one in lines if one["event"] == "request.finished"]

    assert (500, "error") == (line["status_code"], line["level"])
    assert line["exception"].endswith("RuntimeError: no handler")
    assert 'raise RuntimeError("no handler")' in line["exception"]
    assert [line] == [one for one in lines if "no handler" in str(one)]


def test_exception_of_an_own_handler_with_5xx_is_in_the_line(serve):
    """So is an exception that a handler of the application has answered with a 503."""
    name, served = serve
    if name in WITHOUT_HANDLERS:
        return
    [line] = [one for one in served("/own503") if one["event"] == "request.finished"]

    assert (503, "error") == (line["status_code"], line["level"])
    assert line["exception"].splitlines()[-1].endswith("RefusedError: 503")
    assert "raise RefusedError" in line["exception"]


@pytest.mark.parametrize("path", ["/own409", "/gone", "/missing/path", "/fine"])
def test_no_exception_below_5xx(serve, path):
    """An answer of 4xx is no exception: neither the framework's own, nor that of a handler of the application."""
    name, served = serve
    if name in WITHOUT_HANDLERS and path == "/own409":
        return
    if name == "plain-wsgi" and path == "/missing/path":
        return
    [line] = [one for one in served(path) if one["event"] == "request.finished"]

    assert "exception" not in line
    assert {"/own409": 409, "/gone": 404, "/missing/path": 404, "/fine": 200}[path] == line["status_code"]


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_span_has_the_exception(app, exported, registry, log_format):
    """The server span records it, also if requests have no lines."""
    name, made, call = app
    if name == "fastapi":  # It makes the span itself.
        return
    served = scaleobs.instrument(made, registry=registry, log_format=log_format)
    exported()
    call(served, path="/raise")
    [span] = exported()
    [event] = span.events

    assert StatusCode.ERROR is span.status.status_code
    assert ("RuntimeError", "exception") == (span.attributes["error.type"], event.name)
    assert "no handler" == event.attributes["exception.message"]
    assert 'raise RuntimeError("no handler")' in event.attributes["exception.stacktrace"]

    if name not in WITHOUT_HANDLERS:
        call(served, path="/own503")
        [span] = exported()
        assert ["exception"] == [event.name for event in span.events]
    call(served, path="/gone")
    [span] = exported()
    assert () == tuple(span.events)


def test_line_of_the_framework_keeps_the_trace_without_ours(app, registry, capsys):
    """With `log_format="off"` the line of the framework's logger has the stack trace as before."""
    name, made, call = app
    if name not in ("flask", "quart", "django-wsgi", "django-asgi", "falcon-asgi", "litestar-logging"):
        return
    call(scaleobs.instrument(made, registry=registry, log_format="off"), path="/raise")
    with scaleobs.configure_logging(log_format="json"):
        capsys.readouterr()
        call(made, path="/raise")
        lines = log_lines(capsys)

    assert any("no handler" in line.get("exception", "") for line in lines)


def test_exception_that_a_middleware_hides_is_not_lost(registry, capsys):
    """If a middleware makes a 200 of the 500, the access line has the trace that the framework's line leaves out."""
    app = failing_apps.flask_app()
    app.after_request(lambda response: setattr(response, "status_code", 200) or response)
    served = scaleobs.instrument(app, registry=registry, log_format="json")
    capsys.readouterr()
    wsgi(served, path="/raise")
    lines = log_lines(capsys)

    assert 1 == sum("no handler" in line.get("exception", "") for line in lines)


def test_one_exception_that_is_raised_again_and_again(registry, capsys):
    """Each line has the stack trace, also if all requests raise the same object."""
    from flask import Flask
    from starlette.applications import Starlette
    from starlette.routing import Route

    error = RuntimeError("the same")

    def view(*_):
        raise error

    flask = Flask("shop")
    flask.add_url_rule("/", "view", view)
    for app, call in ((flask, wsgi), (Starlette(routes=[Route("/", view)]), asgi)):
        served = scaleobs.instrument(app, registry=registry, log_format="json")
        capsys.readouterr()
        for _ in range(3):
            call(served)
        lines = [line for line in log_lines(capsys) if line["event"] == "request.finished"]
        assert [True] * 3 == ["the same" in line.get("exception", "") for line in lines]


def test_exception_in_a_line_below_the_lowest_level(registry, capsys):
    """If 5xx have a level that is not written, those with an exception are written as errors."""
    settings = {"log_format": "json", "access_levels": {"5xx": "debug"}}
    served = scaleobs.instrument(failing_apps.flask_app(), registry=registry, **settings)
    capsys.readouterr()
    wsgi(served, path="/raise")
    [line] = [line for line in log_lines(capsys) if "no handler" in line.get("exception", "")]

    assert ("request.finished", "error") == (line["event"], line["level"])


def test_own_lines_of_a_handler_keep_their_trace(registry, capsys):
    """What an application logs in its own handler stays as it is."""
    app = failing_apps.flask_app()

    @app.errorhandler(RuntimeError)
    def failed(error):
        logging.getLogger("mine").error("my own line", exc_info=error)
        return "sorry", 500

    served = scaleobs.instrument(app, registry=registry, log_format="json")
    capsys.readouterr()
    wsgi(served, path="/raise")
    lines = {line["event"]: line for line in log_lines(capsys)}

    assert "no handler" in lines["my own line"]["exception"]
    assert "no handler" in lines["request.finished"]["exception"]


def test_exception_of_an_application_inside_another_one(registry, capsys):
    """Flask inside FastAPI: the exception is in the line of the outer request."""
    from fastapi import FastAPI

    a2wsgi = pytest.importorskip("a2wsgi")
    app = FastAPI()
    app.mount("/legacy", a2wsgi.WSGIMiddleware(failing_apps.flask_app()))
    served = scaleobs.instrument(app, registry=registry, log_format="json")
    capsys.readouterr()
    asgi(served, path="/legacy/raise")
    [line] = [line for line in log_lines(capsys) if line["event"] == "request.finished"]

    assert (500, True) == (line["status_code"], "no handler" in line["exception"])


def test_nothing_refers_to_the_request_afterwards(registry):
    """The exception is dropped with its request, without the garbage collector."""
    import gc
    import weakref

    class Marked(failing_apps.RefusedError):
        pass

    marks = []

    def view():
        error = Marked("409")
        marks.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    app = failing_apps.flask_app()
    app.add_url_rule("/", "marked", view)
    served = scaleobs.instrument(app, registry=registry, log_format="json")
    gc.collect()
    gc.disable()
    try:
        wsgi(served)
        assert [None] == [mark() for mark in marks]
    finally:
        gc.enable()


def litestar_sockets():
    """Return an application of Litestar with a WebSocket whose handler raises."""
    from litestar import Litestar, WebSocket, websocket

    async def socket(socket):
        await socket.accept()
        raise RuntimeError("no handler")

    socket.__annotations__ = {"socket": WebSocket, "return": None}
    return Litestar([websocket("/socket")(socket)])


def falcon_sockets():
    """Return the same by Falcon."""
    import falcon.asgi

    class Resource:
        async def on_websocket(self, _req, ws):
            await ws.accept()
            raise RuntimeError("no handler")

    app = falcon.asgi.App()
    app.add_route("/socket", Resource())
    return app


def quart_sockets():
    """Return the same by Quart."""
    from quart import Quart, websocket

    app = Quart("shop")

    @app.websocket("/socket")
    async def socket():
        await websocket.accept()
        raise RuntimeError("no handler")

    return app


@pytest.mark.parametrize("make", [litestar_sockets, falcon_sockets, quart_sockets])
def test_exception_of_a_websocket_is_in_its_line(make, registry, capsys):
    """`websocket.closed` has the exception that the framework has answered by closing, once."""
    served = scaleobs.instrument(make(), registry=registry, log_format="json")
    capsys.readouterr()
    scope = {"type": "websocket", "subprotocols": [], "scheme": "ws", "method": None}
    asgi(served, path="/socket", received=[{"type": "websocket.connect"}], **scope)
    lines = log_lines(capsys)
    [line] = [one for one in lines if one["event"] == "websocket.closed"]

    assert "error" == line["level"]
    assert line["exception"].splitlines()[-1].endswith("RuntimeError: no handler")
    assert [line] == [one for one in lines if "no handler" in str(one)]


SERVED = """
import scaleobs
from support import failing_apps, servers

app = scaleobs.instrument(failing_apps.{make}(), log_format="json")
"""


@pytest.mark.servers
@pytest.mark.parametrize(
    ("make", "command"),
    [
        ("flask_app", ("gunicorn", "served:app", "-b", "127.0.0.1:{port}")),
        ("quart_app", ("hypercorn", "served:app", "--bind", "127.0.0.1:{port}")),
        ("litestar_app", ("uvicorn", "served:app", "--port", "{port}")),
    ],
)
def test_exceptions_under_a_server(make, command, tmp_path):
    """With a real server and client, each exception is in one line: that of its request."""
    (tmp_path / "served.py").write_text(SERVED.format(make=make))
    port = servers.free_port()
    program, *arguments = (part.format(port=port) for part in command)
    words = [str(servers.BIN / program), *arguments]
    with servers.running(words, port, tmp_path, PYTHONPATH=os.pathsep.join(sys.path)) as end:
        statuses = [servers.get(port, path)[0] for path in ("/raise", "/own503", "/own409", "/gone", "/fine")]
        stdout, stderr = end()
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    found = [(line["event"], line["path"]) for line in lines if "exception" in line]

    assert [500, 503, 409, 404, 200] == statuses
    assert [("request.finished", "/raise"), ("request.finished", "/own503")] == found
    assert "Traceback" not in stderr
