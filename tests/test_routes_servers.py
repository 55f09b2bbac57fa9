"""Applications inside one another under real servers: templates, counts and lines are right."""

from __future__ import annotations

import collections
import json
import re
import sys
from functools import partial

import pytest

from support import servers

pytestmark = pytest.mark.servers

FLASK = """
from flask import Flask

flask = Flask("shop", static_folder=None)

@flask.get("/")
def index():
    return "index"

@flask.get("/items/<int:item_id>")
def item(item_id):
    return str(item_id)
"""

FASTAPI = """
from fastapi import FastAPI

api = FastAPI(openapi_url=None)

@api.get("/things/{thing}")
async def thing(thing: int):
    return thing
"""

CHANNELS = """
import scaleobs
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="tests", LOGGING_CONFIG=None)
import django
django.setup()
from django.core.asgi import get_asgi_application

urlpatterns = [path("things/<int:thing>", lambda request, thing: HttpResponse(thing))]
app = scaleobs.instrument(ProtocolTypeRouter({"http": get_asgi_application()}), service="shop")
"""

MOUNTED = f"""{FASTAPI}{FLASK}
import a2wsgi, scaleobs

api.mount("/in", a2wsgi.WSGIMiddleware(flask))
app = scaleobs.instrument(api, service="shop")
"""

ADAPTED = f"""{FASTAPI}
import a2wsgi, scaleobs

app = scaleobs.instrument(a2wsgi.ASGIMiddleware(api), service="shop")
"""

SOCKETIO = f"""{FASTAPI}
import scaleobs, socketio

app = scaleobs.instrument(socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), api), service="shop")
"""

CONNEXION = """
import scaleobs
from connexion import {kind}

SPECIFICATION = {{
    "openapi": "3.0.3",
    "info": {{"title": "Shop", "version": "1"}},
    "servers": [{{"url": "/v1"}}],
    "paths": {{"/things/{{thing}}": {{"get": {{
        "operationId": "thing",
        "parameters": [{{"name": "thing", "in": "path", "required": True, "schema": {{"type": "integer"}}}}],
        "responses": {{"200": {{"description": "A thing."}}}},
    }}}}}},
}}


async def thing(thing):
    return f"thing {{thing}}"


shop = {kind}("shop")
shop.add_api(SPECIFICATION, resolver=lambda _: thing)
app = scaleobs.instrument(shop, service="shop")
"""


def ended(port):
    """Return the page of a scrape if no request is open."""
    page = servers.get(port, "/metrics")[1].decode()
    return page if re.search(r'^active_connections{protocol="http"} 0(\.0)?$', page, re.MULTILINE) else None


UVICORN = ["-m", "uvicorn", "app:app", "--port"]
GUNICORN = ["-m", "gunicorn", "app:app", "--threads", "4", "--bind"]
TIMES = 5


@pytest.mark.parametrize(
    ("code", "server", "requests"),
    [
        pytest.param(CHANNELS, UVICORN, {"/things/1": "/things/<int:thing>"}, id="Django in Channels"),
        pytest.param(
            MOUNTED,
            UVICORN,
            {"/in/items/1": "/in/items/<int:item_id>", "/in/": "/in/", "/things/1": "/things/{thing}"},
            id="Flask in FastAPI",
        ),
        pytest.param(ADAPTED, GUNICORN, {"/things/1": "/things/{thing}"}, id="FastAPI under gunicorn"),
        pytest.param(SOCKETIO, UVICORN, {"/things/1": "/things/{thing}"}, id="Socket.IO around FastAPI"),
        pytest.param(
            CONNEXION.format(kind="FlaskApp"),
            UVICORN,
            {"/v1/things/1": "/v1/things/<int:thing>"},
            id="Connexion around Flask",
        ),
        pytest.param(
            CONNEXION.format(kind="AsyncApp"), UVICORN, {"/v1/things/1": "/v1/things/{thing}"}, id="Connexion's own"
        ),
    ],
)
def test_templates_counts_and_lines(code, server, requests, tmp_path):
    """Each request is counted once under the inner template, and has one line; known routes have no other series."""
    (tmp_path / "app.py").write_text(code)
    port = servers.free_port()
    address = f"127.0.0.1:{port}" if server is GUNICORN else str(port)
    with servers.running([sys.executable, *server, address], port, tmp_path) as end:
        for path in (*requests, "/nowhere"):
            for _ in range(TIMES):
                servers.get(port, path)
        page = servers.until(partial(ended, port))  # A client has its answer before the server closes the body.
        output, _ = end()
    counts = collections.Counter()
    for route, status, number in re.findall(
        r'^http_requests_total{method="GET",route="([^"]+)",status_code="(\d+)"} (\S+)$', page, re.MULTILINE
    ):
        if float(number):
            counts[route, status] += float(number)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    finished = collections.Counter(line["route"] for line in lines if line["event"] == "request.finished")

    expected = {(template, "200"): TIMES for template in requests.values()}
    assert expected | {("unmatched", "404"): TIMES} == counts
    assert {**dict.fromkeys(requests.values(), TIMES), "unmatched": TIMES} == finished
