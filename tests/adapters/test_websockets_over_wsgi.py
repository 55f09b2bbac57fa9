"""A WebSocket that the application of WSGI has accepted is not counted by what it starts or raises afterwards."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from types import SimpleNamespace

import pytest

import scaleobs
from support.exchanges import active, counted, environ, log_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Other systems do not show the bytes of a connection.")

UPGRADE = {"headers": [("Upgrade", "websocket"), ("Connection", "Upgrade")]}
SERVERS = ["gunicorn", "werkzeug", "eventlet", "gevent", "gevent under gunicorn's"]


@pytest.fixture(name="connection")
def _connection():
    """Return both ends of a connection whose server has answered a request before."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            yield server, client


def request(server, connection):
    """Return a handshake as a server passes it on."""
    raw = io.BufferedReader(SimpleReader(connection))
    passed = {
        "gunicorn": {"gunicorn.socket": connection},
        "werkzeug": {"werkzeug.socket": connection},
        "eventlet": {"eventlet.input": SimpleNamespace(get_socket=lambda: connection)},
        "gevent": {"wsgi.input": SimpleNamespace(rfile=raw)},
        "gevent under gunicorn's": {"wsgi.input": raw},
    }[server]
    return {**environ(path="/chat/7", **UPGRADE), **passed}


class SimpleReader(io.RawIOBase):
    """A raw reader with its socket, as `socket.makefile` returns it."""

    def __init__(self, connection):
        self._sock = connection

    def readable(self):
        """A reader is."""
        return True


def sockets(registry):
    """Return how many WebSockets closed, by code."""
    return {
        sample.labels["code"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "websocket_connections_total"
    }


def serve(app, handshake):
    """Call the application, and close what it returned; return what it raised and what it started."""
    started = []

    def start_response(status, headers, exc_info=None):
        started.append((status, headers))
        return lambda data: None

    try:
        body = app(handshake, start_response)
        list(body)
        if hasattr(body, "close"):
            body.close()
    except BaseException as error:
        return error, started
    return None, started


class Killed(BaseException):
    """What gevent raises in a greenlet that its server ends."""


def taken(ends, connection, *, closes=False):
    """Return an application that accepts the WebSocket, and ends in one of several ways."""

    def app(environ, start_response):
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        if closes:
            connection.close()
        if isinstance(ends, type):
            raise ends("when it was open")
        start_response(ends, [("Content-Length", "0")])
        return [b""]

    return app


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("log_format", ["off", "json"])
@pytest.mark.parametrize(
    ("ends", "level"),
    [("200 OK", "info"), ("401 No", "info"), ("500 Oops", "error"), (ValueError, "error"), (Killed, "info")],
)
def test_accepted_websocket_is_no_answer(ends, level, log_format, server, connection, registry, capsys):
    """Applications start a response when it has closed, or fail while it is open: the client has received a 101."""
    app = scaleobs.instrument(taken(ends, connection[0]), registry=registry, log_format=log_format)
    error, started = serve(app, request(server, connection[0]))
    lines = log_lines(capsys)

    assert (None if isinstance(ends, str) else ends) == (error and type(error))
    assert ([(ends, [("Content-Length", "0")])] if isinstance(ends, str) else []) == started
    assert {} == counted(registry)
    assert {"unknown": 1} == sockets(registry)
    assert (0, 0) == (active(registry), active(registry, "websocket"))
    assert ([("websocket.closed", level)] if log_format == "json" else []) == [
        (line["event"], line["level"]) for line in lines
    ]
    assert [ends is ValueError] * len(lines) == ["exception" in line for line in lines]
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_accepted_websocket_whose_connection_the_application_has_closed(connection, registry):
    """Libraries close it before the application starts a response that the client ignores."""
    app = scaleobs.instrument(taken("200 OK", connection[0], closes=True), registry=registry)
    serve(app, request("gunicorn", connection[0]))

    assert {} == counted(registry)
    assert {"unknown": 1} == sockets(registry)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("ends", "status"), [("200 OK", "200"), ("401 No", "401"), (ValueError, "500")])
def test_answered_handshake_on_a_used_connection(ends, status, server, connection, registry):
    """Bytes that the server has sent in answer to earlier requests accept nothing."""

    def app(environ, start_response):
        if isinstance(ends, type):
            raise ends("before it was accepted")
        write = start_response(ends, [])
        write(b"part")
        connection[0].sendall(b"part")
        start_response(ends, [], None)
        return [b"rest"]

    serve(scaleobs.instrument(app, registry=registry), request(server, connection[0]))

    assert {("GET", "unmatched", status): 1} == counted(registry)
    assert {} == sockets(registry)
    assert (0, 0) == (active(registry), active(registry, "websocket"))


@pytest.mark.parametrize("interim", ["early hints", "continue"])
def test_interim_responses_accept_nothing(interim, connection, registry):
    """Servers send them while the application runs: a 103 when it calls for one, a 100 when it reads the body."""
    server, _ = connection
    calls = []

    def early_hints(headers):
        calls.append(headers)
        server.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    def app(environ, start_response):
        if interim == "early hints":
            environ["wsgi.early_hints"]([("Link", "</style.css>")])
        else:
            server.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        start_response("200 OK", [])
        return [b""]

    more = {"wsgi.early_hints": early_hints} if interim == "early hints" else {"HTTP_EXPECT": "100-continue"}
    serve(scaleobs.instrument(app, registry=registry), {**request("gunicorn", server), **more})

    assert [[("Link", "</style.css>")]] * (interim == "early hints") == calls
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert {} == sockets(registry)


def until_blocked(function):
    """Call a function until it would block."""
    with contextlib.suppress(BlockingIOError):
        while True:
            function()


def test_unread_answers_to_earlier_requests_accept_nothing(connection, registry):
    """A client that reads nothing, and sends its handshake behind another request, gets the rest later."""
    server, client = connection
    server.setblocking(False)
    until_blocked(lambda: server.send(b"x" * 65536))

    def app(environ, start_response):
        client.setblocking(False)
        until_blocked(lambda: client.recv(65536))
        start_response("200 OK", [])
        return [b""]

    serve(scaleobs.instrument(app, registry=registry), request("gunicorn", server))

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert {} == sockets(registry)


@pytest.mark.parametrize("passed", ["a Unix socket", "something else", "nothing"])
def test_connection_that_shows_no_bytes(passed, registry):
    """A response is the answer to the handshake, as far as it is known."""
    ours, other = socket.socketpair()
    with ours, other:
        more = {"a Unix socket": {"gunicorn.socket": ours}, "something else": {"gunicorn.socket": 7}, "nothing": {}}
        handshake = {**environ(path="/chat/7", **UPGRADE), **more[passed]}
        serve(scaleobs.instrument(taken("200 OK", ours), registry=registry), handshake)

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert {} == sockets(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")
