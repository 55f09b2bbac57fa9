"""Real servers: every line on stdout is one JSON object, and every request has one."""

from __future__ import annotations

import itertools
import json
import sys
import threading

import pytest

from support import servers

pytestmark = pytest.mark.servers

FASTAPI = """
import logging
import scaleobs, structlog
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()

@app.get("/hello/{name}")
async def hello(name: str):
    structlog.get_logger("shop").info("by structlog")
    logging.getLogger("shop").info("by stdlib")
    return name

@app.get("/sync/{name}")
def in_a_thread(name: str):
    structlog.get_logger("shop").info("by structlog")
    logging.getLogger("shop").info("by stdlib")
    return name

@app.get("/stream")
def stream():
    return StreamingResponse(iter([b"a", b"b"]))

@app.get("/boom")
def boom():
    raise RuntimeError("boom")

app = scaleobs.instrument(app, service="shop")
"""

FLASK = """
import logging
import scaleobs, structlog
from flask import Flask

app = Flask("shop")

@app.get("/hello/<name>")
@app.get("/sync/<name>")
def hello(name):
    structlog.get_logger("shop").info("by structlog")
    logging.getLogger("shop").info("by stdlib")
    return name

@app.get("/stream")
def stream():
    return iter([b"a", b"b"])

@app.get("/boom")
def boom():
    raise RuntimeError("boom")

app = scaleobs.instrument(app, service="shop")
"""

DJANGO = """
import logging
import scaleobs, structlog
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", MIDDLEWARE=[])

def hello(request, name):
    structlog.get_logger("shop").info("by structlog")
    logging.getLogger("shop").info("by stdlib")
    return HttpResponse(name)

def stream(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))

def boom(request):
    raise RuntimeError("boom")

urlpatterns = [path("hello/<name>", hello), path("sync/<name>", hello), path("stream", stream), path("boom", boom)]

from django.core.{protocol} import get_{protocol}_application
app = scaleobs.instrument(get_{protocol}_application(), service="shop")
"""

RUN = "\nif __name__ == '__main__':\n    import uvicorn, sys\n    uvicorn.run(app, port=int(sys.argv[1]), {})\n"


def total(metrics):
    """Return how many requests a scrape shows."""
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("http_requests_total{"))


UVICORN = [str(servers.BIN / "uvicorn"), "shop:app", "--port"]
GUNICORN = [str(servers.BIN / "gunicorn"), "shop:app", "--bind"]
PYTHON = [sys.executable, "shop.py"]


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (FASTAPI, UVICORN),
        (FASTAPI + RUN.format("log_config=None"), PYTHON),
        (FASTAPI + RUN.format(""), PYTHON),
        (FASTAPI + RUN.format("lifespan='off'"), PYTHON),
        (DJANGO.format(protocol="asgi"), UVICORN),
        (FLASK, GUNICORN),
        (DJANGO.format(protocol="wsgi"), GUNICORN),
        (FLASK, [*GUNICORN[:2], "--threads", "4", "--access-logfile", "-", "--bind"]),
    ],
    ids=[
        *("uvicorn FastAPI", "uvicorn.run without log_config", "uvicorn.run", "uvicorn.run without lifespan"),
        *("uvicorn Django", "gunicorn Flask", "gunicorn Django", "gunicorn threads"),
    ],
)
def test_lines_of_a_server(source, command, tmp_path):
    """
    Every line on stdout is one JSON object; each request has one; probes have none; ids are the client's.

    The handlers' own lines, by structlog and by the standard library, carry the same id as the request's.
    """
    (tmp_path / "shop.py").write_text(source)
    port = servers.free_port()
    address = f"127.0.0.1:{port}" if "gunicorn" in command[0] else str(port)
    with servers.running([*command, address], port, tmp_path) as end:
        for path in ("/health", "/ready", "/startup", "/metrics"):
            assert 200 == servers.get(port, path)[0]
        for kind, number in itertools.product(("hello", "sync"), "12"):
            assert 200 == servers.get(port, f"/{kind}/{number}", {"X-Request-ID": f"{kind}-{number}"})[0]
        assert (200, b"ab") == servers.get(port, "/stream", {"X-Request-ID": "stream"})
        assert 500 == servers.get(port, "/boom", {"X-Request-ID": "boom"})[0]
        assert 404 == servers.get(port, "/nowhere", {"X-Request-ID": "nowhere"})[0]
        # A client has its answer before the server has closed it.
        servers.until(lambda: 7 == total(servers.get(port, "/metrics")[1].decode()))
        stdout, stderr = end()
    lines = [json.loads(line) for line in stdout.splitlines()]
    finished = {line["request_id"]: line for line in lines if line["event"] == "request.finished"}
    ids = [f"{kind}-{n}" for kind in ("hello", "sync") for n in "12"]

    assert 7 == len([line for line in lines if line["event"] == "request.finished"])
    assert {**dict.fromkeys([*ids, "stream"], 200), "boom": 500, "nowhere": 404} == {
        request_id: line["status_code"] for request_id, line in finished.items()
    }
    for event in ("by structlog", "by stdlib"):
        assert sorted(ids) == sorted(line["request_id"] for line in lines if line["event"] == event)
    assert not [line for line in lines if "/health" in json.dumps(line)]
    assert {"timestamp", "level", "event", "logger", "service"} <= set.intersection(*(set(line) for line in lines))
    assert 1 == (stdout + stderr).count("RuntimeError: boom")
    assert "unmatched" == finished["nowhere"]["route"]
    assert finished["hello-1"]["route"] in ("/hello/{name}", "/hello/<name>")


def test_concurrent_requests_keep_their_ids(tmp_path):
    """Requests that run at the same time, on the loop and in threads, never see each other's id."""
    (tmp_path / "shop.py").write_text(FASTAPI)
    port = servers.free_port()

    def request(number):
        for kind in ("hello", "sync"):
            servers.get(port, f"/{kind}/{number}", {"X-Request-ID": f"{kind}-{number}"})

    with servers.running([*UVICORN, str(port)], port, tmp_path) as end:
        threads = [threading.Thread(target=request, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = [json.loads(line) for line in end()[0].splitlines()]
    seen = {}
    for line in lines:
        if "request_id" in line:
            seen.setdefault(line["request_id"], []).append(line["event"])

    assert {f"{kind}-{number}" for kind in ("hello", "sync") for number in range(20)} == set(seen)
    assert {("by structlog", "by stdlib", "request.finished")} == {tuple(events) for events in seen.values()}


def test_file_of_gunicorn_is_sent_by_gunicorn(tmp_path):
    """A file goes through gunicorn's own wrapper, whole, and is counted once."""
    source = FLASK + "\n@app.wsgi_app.app.__self__.get('/file')\ndef file():\n    import flask\n"
    (tmp_path / "shop.py").write_text(source + "    return flask.send_file(__file__)\n")
    port = servers.free_port()
    with servers.running([*GUNICORN, f"127.0.0.1:{port}"], port, tmp_path) as end:
        assert (200, (tmp_path / "shop.py").read_bytes()) == servers.get(port, "/file")
        assert b'route="/file"' in servers.get(port, "/metrics")[1]
        servers.until(lambda: b'active_connections{protocol="http"} 0.0' in servers.get(port, "/metrics")[1])
        stdout, _ = end()

    assert 1 == stdout.count("request.finished")
