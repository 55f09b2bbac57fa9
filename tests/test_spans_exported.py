"""Each worker of a real server exports its spans to a real collector."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from support import servers
from support.otlp_collector import collecting

pytestmark = pytest.mark.servers

STARLETTE = """
import asyncio, logging, os
import scaleobs
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route

def log(event):
    logging.getLogger("shop").warning(event)

async def item(request):
    log("handler")
    await asyncio.to_thread(log, "thread")
    if request.path_params["item_id"] == "raise":
        raise ValueError("no such thing")
    return JSONResponse({"pid": os.getpid()}, background=BackgroundTask(log, "background"))

app = scaleobs.instrument(Starlette(routes=[Route("/items/{item_id}", item)]), service="shop", version="7")
"""

FASTAPI = """
import os
import scaleobs
from fastapi import FastAPI

app = FastAPI()

@app.get("/items/{item_id}")
async def item(item_id: str):
    return {"pid": os.getpid()}

app = scaleobs.instrument(app, service="shop", version="7")
"""

FLASK = """
import os
import scaleobs
from flask import Flask

app = Flask("shop")

@app.get("/items/<item_id>")
def item(item_id):
    return {"pid": os.getpid()}

app = scaleobs.instrument(app, service="shop", version="7")
"""

RAW = """
import scaleobs

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})

app = scaleobs.instrument(app)
"""

GUNICORN = ("gunicorn", "shop:app", "--bind", "127.0.0.1:{port}")
UVICORN = ("uvicorn", "shop:app", "--port", "{port}")
SERVERS = {
    "uvicorn": (STARLETTE, [*UVICORN], 1),
    "uvicorn, FastAPI": (FASTAPI, [*UVICORN], 1),
    "uvicorn, 2 workers": (STARLETTE, [*UVICORN, "--workers", "2"], 2),
    "gunicorn": (FLASK, [*GUNICORN, "--workers", "2"], 2),
    "gunicorn, preload": (FLASK, [*GUNICORN, "--workers", "2", "--preload"], 2),
    "gunicorn, preload, threads": (FLASK, [*GUNICORN, "--workers", "2", "--preload", "--threads", "4"], 2),
    "gunicorn, uvicorn": (
        STARLETTE,
        [*GUNICORN, "--workers", "2", "--preload", "--worker-class", "uvicorn_worker.UvicornWorker"],
        2,
    ),
    "hypercorn": (STARLETTE, ["hypercorn", "shop:app", "--bind", "127.0.0.1:{port}"], 1),
    "granian": (STARLETTE, ["granian", "--interface", "asgi", "--port", "{port}", "shop:app"], 1),
}


def started(name, folder, endpoint, **environ):
    """Start a server, and return its port and the context of `servers.running`."""
    source, command, _ = SERVERS[name]
    (folder / "shop.py").write_text(source)
    # The control socket of gunicorn would be a thread of the master.
    (folder / "gunicorn.conf.py").write_text("control_socket_disable = True")
    port = servers.free_port()
    command = [str(servers.BIN / command[0]), *(part.format(port=port) for part in command[1:])]
    # With this delay, a process exports only at its end.
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000", **environ}
    return port, servers.running(command, port, folder, **more)


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED = {"X-Request-ID": "r1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def page_with_trace(port):
    """Return a page of metrics if it has an exemplar of the traced request."""
    page = servers.get(port, "/metrics", OPENMETRICS)[1].decode()
    return page if TRACE in page else None


@pytest.mark.parametrize("name", SERVERS)
def test_every_request_has_its_span_at_the_collector(name, tmp_path):
    """
    Each worker exports the spans of its requests before it ends by SIGTERM, and none of its probes.

    Lines of the handler, a thread, a background task and the request, the span, the exemplar: the same ids. A master
    that preloads the application starts no thread; its workers export.
    """
    source, _, workers = SERVERS[name]
    with collecting() as (endpoint, received):
        port, running = started(name, tmp_path, endpoint)
        with running as end:
            # A worker keeps exemplars from its first request after a scrape on; it must run at that scrape.
            servers.until_workers(port, workers)
            servers.get(port, "/metrics", OPENMETRICS)
            pids = set()
            sent = 0

            def has_met_all():
                nonlocal sent
                sent += 1
                pids.add(json.loads(servers.get(port, f"/items/{sent}")[1])["pid"])
                return len(pids) == workers and sent >= 20

            servers.until(has_met_all)
            assert 200 == servers.get(port, "/items/traced", TRACED)[0]
            for path in ("/health", "/ready"):
                assert 200 == servers.get(port, path)[0]
            # A WSGI server closes a response, which ends its request, after the client has received it.
            page = servers.until(lambda: page_with_trace(port))
            if "preload" in name:
                assert 1 == threads_of(parent_of(min(pids)))
                assert 1 < threads_of(min(pids))
            out, err = end()
    spans = [span for span in received if span.kind == 2]
    lines = [json.loads(line) for line in out.splitlines() if '"request_id":"r1"' in line.replace(" ", "")]
    [traced] = [span for span in spans if span.trace_id == TRACE]

    assert "Traceback" not in out + err
    assert sorted(["/items/traced", *(f"/items/{number}" for number in range(1, sent + 1))]) == sorted(
        span.attributes["url.path"] for span in spans
    )
    assert {("shop", "7")} == {(span.resource["service.name"], span.resource["service.version"]) for span in received}
    assert {"GET /items/{item_id}", "GET /items/<item_id>"} >= {span.name for span in spans}
    assert len({span.span_id for span in spans}) == sent + 1
    expected = ["background", "handler", "request.finished", "thread"] if source == STARLETTE else ["request.finished"]
    assert expected == sorted(line["event"] for line in lines)
    assert {(TRACE, traced.span_id)} == {(line["trace_id"], line["span_id"]) for line in lines}
    assert PARENT != traced.span_id
    assert f'trace_id="{TRACE}",span_id="{traced.span_id}"' in page


def test_drain_exports_without_a_lifespan(tmp_path):
    """A server may end by the signal itself, without `atexit`: the drain exports the remaining spans."""
    port = servers.free_port()
    (tmp_path / "shop.py").write_text(RAW)
    command = [str(servers.BIN / "uvicorn"), "shop:app", "--port", str(port)]
    with collecting() as (endpoint, received):
        more = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        with servers.running(command, port, tmp_path, SCALEOBS_DRAIN_SECONDS="0.3", **more) as end:
            assert 200 == servers.get(port, "/x")[0]
            end()

    assert ["/x"] == [span.attributes["url.path"] for span in received]


def threads_of(pid):
    """Return the number of threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def parent_of(pid):
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_no_endpoint_no_threads(tmp_path):
    """Without an endpoint, or with `OTEL_SDK_DISABLED`, a worker starts no thread."""
    for name, more in (("none", {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}), ("disabled", {"OTEL_SDK_DISABLED": "true"})):
        folder = tmp_path / name
        folder.mkdir()
        port, running = started("gunicorn", folder, "http://127.0.0.1:9", **more)
        with running:
            worker = json.loads(servers.get(port, "/items/1")[1])["pid"]

            assert 1 == threads_of(worker)


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn, preload"])
def test_missing_collector_delays_nothing(name, tmp_path):
    """If no collector answers, requests are served, and the process ends in time."""
    port, running = started(name, tmp_path, f"http://127.0.0.1:{servers.free_port()}")
    with running as end:
        begun = time.monotonic()
        for number in range(20):
            assert 200 == servers.get(port, f"/items/{number}")[0]
        answered = time.monotonic()
        _, err = end()
        ended = time.monotonic()

    assert answered - begun < 5
    assert ended - answered < 8
    assert "Traceback" not in err


def test_later_worker_exports(tmp_path):
    """A worker that gunicorn forks later has its own exporter."""
    with collecting() as (endpoint, received):
        port, running = started("gunicorn, preload", tmp_path, endpoint)
        with running as end:
            first = json.loads(servers.get(port, "/items/1")[1])["pid"]
            os.kill(first, signal.SIGKILL)

            def is_new():
                try:
                    return json.loads(servers.get(port, "/items/new")[1])["pid"] not in seen
                except OSError:
                    return False

            seen = {first}
            servers.until(is_new)
            end()

    assert "/items/new" in [span.attributes["url.path"] for span in received]
