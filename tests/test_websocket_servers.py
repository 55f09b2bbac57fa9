"""WebSockets under real servers: what was accepted, refused, denied and failed is counted once, with one line each."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support import servers
from support.group.pages import OPENMETRICS, Page

pytestmark = pytest.mark.servers

ASGI = """
import scaleobs
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse

app = FastAPI()


@app.websocket("/echo/{room}")
async def echo(websocket: WebSocket, room: str):
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "close":
            await websocket.close(4001)
            return
        if text == "fail":
            raise ValueError("failed when it was open")
        await websocket.send_text(text)


@app.websocket("/refuse/{room}")
async def refuse(websocket: WebSocket, room: str):
    await websocket.close(1008)


@app.websocket("/deny/{status}")
async def deny(websocket: WebSocket, status: int):
    await websocket.send_denial_response(PlainTextResponse("no", status_code=status))


@app.websocket("/fail/{room}")
async def fail(websocket: WebSocket, room: str):
    raise ValueError("failed before the accept")


@app.get("/hello")
async def hello():
    return "hello"


app = scaleobs.instrument(app, log_format="json")
"""

CHANNELS = """
import scaleobs
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="tests", LOGGING_CONFIG=None)
import django
django.setup()
from django.core.asgi import get_asgi_application


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        if text_data == "close":
            await self.close(4001)
        elif text_data == "fail":
            raise ValueError("failed when it was open")
        else:
            await self.send(text_data=text_data)


class Refuse(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close()


class Fail(AsyncWebsocketConsumer):
    async def connect(self):
        raise ValueError("failed before the accept")


urlpatterns = [path("hello/<name>/", lambda request, name: HttpResponse(name))]
rooms = [path(f"{kind.__name__.lower()}/<int:room>/", kind.as_asgi()) for kind in (Echo, Refuse, Fail)]
websocket = URLRouter([path("rooms/", URLRouter(rooms))])
app = scaleobs.instrument(
    ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websocket}), log_format="json"
)
"""

WSGI = """
import scaleobs
import simple_websocket
from flask import Flask, abort, request
from flask_sock import Sock

app = Flask("rooms")
sock = Sock(app)


@sock.route("/echo/<room>")
def echo(ws, room):
    while (text := ws.receive()) != "close":
        ws.send(text)


@app.get("/plain/<room>", websocket=True)
def plain(room):
    echo_all = simple_websocket.Server.accept(request.environ)
    try:
        while True:
            echo_all.send(echo_all.receive())
    except simple_websocket.ConnectionClosed:
        return ""


@sock.route("/fail/<room>")
def fail(ws, room):
    ws.send(ws.receive())
    raise ValueError("failed when it was open")


@app.before_request
def guard():
    if request.path.startswith("/deny/"):
        abort(int(request.path.rpartition("/")[2]))


@sock.route("/deny/<status>")
def deny(ws, status):
    raise AssertionError


@app.get("/hello")
def hello():
    return "hello"


scaleobs.instrument(app, log_format="json")
"""

WERKZEUG = """
import signal
import sys

from service import app
from werkzeug.serving import run_simple

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
"""

PYWSGI = """
import signal
import sys

import gevent
from gevent import monkey

monkey.patch_all()

from gevent.pywsgi import WSGIServer

from service import app

gevent.signal_handler(signal.SIGTERM, sys.exit)
WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()
"""

SOCKETS, REQUESTS = "websocket_connections_total", "http_requests_total"
UVICORN = ["uvicorn", "--port", "PORT", "--log-level", "warning", "service:app"]
GUNICORN = ["gunicorn", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "1", "service:app"]
OF_ASGI = {
    "uvicorn, websockets": [*UVICORN, "--ws", "websockets-sansio"],
    "uvicorn, wsproto": [*UVICORN, "--ws", "wsproto"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:PORT", "service:app"],
}
OF_WSGI = {
    "gunicorn, threads": [*GUNICORN, "--worker-class", "gthread", "--threads", "4"],
    "gunicorn, gevent": [*GUNICORN, "--worker-class", "gevent"],
    "gevent": ["python", "main.py", "PORT"],
    "werkzeug": ["python", "development.py", "PORT"],
}


@contextlib.contextmanager
def running(command, source, folder):
    """Run a server with this service, and yield its port and a function that ends it and returns lines and stderr."""
    (folder / "service.py").write_text(source)
    (folder / "main.py").write_text(PYWSGI)
    (folder / "development.py").write_text(WERKZEUG)
    port = servers.free_port()
    program, *arguments = [part.replace("PORT", str(port)) for part in command]
    command = [shutil.which(program, path=str(servers.BIN)), *arguments]
    with servers.running(command, port, folder) as end:

        def lines():
            stdout, stderr = end()
            return [json.loads(line) for line in stdout.splitlines()], stderr

        yield port, lines


def scraped(port, condition):
    """Return the page of a scrape as soon as a condition holds for it."""

    def page():
        _, body = servers.get(port, "/metrics", OPENMETRICS)
        found = Page(200, 0, body.decode(), is_openmetrics=True)
        return found if condition(found) else None

    return servers.until(page)


def talk(port, path, *texts, code=1000):
    """Send texts, each of which is echoed unless the application closes; return the code with which it was closed."""
    with connect(f"ws://127.0.0.1:{port}{path}", close_timeout=1) as websocket:
        for text in texts:
            websocket.send(text)
            try:
                assert text == websocket.recv(timeout=servers.LIMIT)
            except ConnectionClosed:
                return websocket.close_code
        websocket.close(code)
    return websocket.close_code


def refused(port, path):
    """Return the status of an answer by HTTP."""
    with pytest.raises(InvalidStatus) as raised, connect(f"ws://127.0.0.1:{port}{path}"):
        pass
    return raised.value.response.status_code


def closed(page):
    """Return how many WebSockets closed, by route and code."""
    return {
        (dict(labels)["route"], dict(labels)["code"]): value
        for (name, labels), value in page.items()
        if name == "websocket_connections_total"
    }


@pytest.mark.parametrize("command", OF_ASGI.values(), ids=OF_ASGI)
def test_websockets_of_fastapi(command, tmp_path):
    """Each WebSocket is counted once, by its close code, or as a GET by the status that the client received."""
    with running(command, ASGI, tmp_path) as (port, end):
        sent = [talk(port, "/echo/1", "a", "b"), talk(port, "/echo/2", "a", "close"), talk(port, "/echo/3", code=4321)]
        sent.append(talk(port, "/echo/4", "fail"))
        answers = [refused(port, path) for path in ("/refuse/1", "/deny/401", "/deny/429", "/deny/503", "/fail/1")]
        answers.append(refused(port, "/nowhere"))
        servers.get(port, "/hello")
        page = scraped(port, lambda page: 4 + 7 == page.total(SOCKETS) + page.total(REQUESTS))
        lines, _ = end()
    closed_lines = sorted(line["code"] for line in lines if line["event"] == "websocket.closed")
    finished = [line for line in lines if line["event"] == "request.finished"]

    by_client = [1006, 1006] if command[0] == "hypercorn" else [1000, 4321]  # It passes on no code of a client.
    codes = Counter({4001: 1, 1006: 1}) + Counter(by_client)

    assert [1000, 4001] == sent[:2]
    assert [403, 401, 429, 503, 500, 403] == answers
    assert {("/echo/{room}", "4xxx" if code == 4321 else str(code)): count for code, count in codes.items()} == closed(
        page
    )
    assert {
        ("/refuse/{room}", "403"): 1,
        ("/deny/{status}", "401"): 1,
        ("/deny/{status}", "429"): 1,
        ("/deny/{status}", "503"): 1,
        ("/fail/{room}", "500"): 1,
        ("unmatched", "403"): 1,
        ("/hello", "200"): 1,
    } == page.sent()
    assert sorted(codes.elements()) == closed_lines
    assert [403, 401, 429, 503, 500, 403, 200] == [line["status_code"] for line in finished]
    assert ["failed before the accept" in line["exception"] for line in finished if "exception" in line] == [True]
    assert 0 == page.total("active_connections", protocol="websocket") == page.total("scaleobs_internal_faults_total")


def test_websockets_of_channels(tmp_path):
    """Consumers have the patterns that lead to them, whether they accept, refuse or fail."""
    with running(OF_ASGI["uvicorn, websockets"], CHANNELS, tmp_path) as (port, end):
        talk(port, "/rooms/echo/1/", "a")
        talk(port, "/rooms/echo/2/", "a", "close")
        talk(port, "/rooms/echo/3/", "fail")
        answers = [refused(port, path) for path in ("/rooms/refuse/1/", "/rooms/fail/1/", "/nowhere")]
        servers.get(port, "/hello/a/")
        page = scraped(port, lambda page: 3 + 4 == page.total(SOCKETS) + page.total(REQUESTS))
        lines, _ = end()

    assert [403, 500, 500] == answers
    assert {("/rooms/echo/<int:room>/", code): 1 for code in ("1000", "4001", "1006")} == closed(page)
    assert {
        ("/rooms/refuse/<int:room>/", "403"): 1,
        ("/rooms/fail/<int:room>/", "500"): 1,
        ("unmatched", "500"): 1,
        ("/hello/<name>/", "200"): 1,
    } == page.sent()
    assert [1000, 4001, 1006] == [line["code"] for line in lines if line["event"] == "websocket.closed"]
    assert [403, 500, 500, 200] == [line["status_code"] for line in lines if line["event"] == "request.finished"]
    assert 0 == page.total("active_connections", protocol="websocket") == page.total("scaleobs_internal_faults_total")


@pytest.mark.parametrize("command", OF_WSGI.values(), ids=OF_WSGI)
def test_websockets_of_flask_sock(command, tmp_path):
    """A WebSocket is no failed request, is open until either side closes it, and has one line and no traceback."""
    with running(command, WSGI, tmp_path) as (port, end):
        with connect(f"ws://127.0.0.1:{port}/echo/1", close_timeout=1) as websocket:
            websocket.send("a")
            websocket.recv(timeout=servers.LIMIT)
            scraped(port, lambda page: 1 == page.total("active_connections", protocol="websocket"))
        with connect(f"ws://127.0.0.1:{port}/echo/2", close_timeout=1) as websocket:
            websocket.send("close")  # After it, gevent itself keeps the connection open.
        talk(port, "/plain/3", "a")
        with connect(f"ws://127.0.0.1:{port}/fail/4", close_timeout=1) as websocket:
            websocket.send("a")
            websocket.recv(timeout=servers.LIMIT)
        answers = [refused(port, "/deny/401"), refused(port, "/deny/503")]
        servers.get(port, "/hello")
        page = scraped(port, lambda page: 4 + 3 == page.total(SOCKETS) + page.total(REQUESTS))
        lines, stderr = end()
    of_websockets = [line for line in lines if line["event"] == "websocket.closed"]

    assert [401, 503] == answers
    routes = {"/echo/<room>": 2, "/plain/<room>": 1, "/fail/<room>": 1}

    assert {(route, "unknown"): count for route, count in routes.items()} == closed(page)
    assert {("/deny/<status>", "401"): 1, ("/deny/<status>", "503"): 1, ("/hello", "200"): 1} == page.sent()
    assert [("/echo/1", "info"), ("/echo/2", "info"), ("/plain/3", "info"), ("/fail/4", "error")] == [
        (line["path"], line["level"]) for line in of_websockets
    ]
    # A server with threads may write the line of a response after the client's next request.
    assert [200, 401, 503] == sorted(line["status_code"] for line in lines if line["event"] == "request.finished")
    assert "Traceback" not in stderr
    # What the application starts in an open WebSocket cannot be sent, which gunicorn logs.
    failed = {line["path"] for line in lines if "exception" in line and "gunicorn" not in line["logger"]}
    assert {"/fail/4", "/deny/503"} == failed
    assert 0 == page.total("active_connections", protocol="websocket") == page.total("scaleobs_internal_faults_total")
