"""Every line of a real server, from the start to SIGTERM, on stdout and on stderr, is one JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support import servers

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[1] / "integrations"

SHOP = """
import asyncio, logging, os, threading, warnings
import scaleobs
from fastapi import FastAPI

warnings.simplefilter("default", DeprecationWarning)
if "AT_IMPORT" in os.environ:
    warnings.warn("at import")
app = FastAPI()
kept = []

@app.get("/all")
async def all_of_them():
    logging.getLogger("shop").info("by stdlib")
    scaleobs.get_logger("shop").info("by structlog")
    warnings.warn("old news", DeprecationWarning)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    kept.append(asyncio.get_running_loop().create_task(fail()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    kept.clear()
    class Ugly:
        def __del__(self):
            raise ValueError("in __del__")
    Ugly()

async def fail():
    raise LookupError("in a task")

@app.get("/worker")
async def worker():
    return os.getpid()

@app.get("/boom")
async def boom():
    raise RuntimeError("boom")

app = scaleobs.instrument(app, service="shop")
"""

WSGI = """
import logging, os, threading, warnings
import scaleobs
from flask import Flask

warnings.simplefilter("default", DeprecationWarning)
if "AT_IMPORT" in os.environ:
    warnings.warn("at import")
app = Flask("shop")

@app.get("/all")
def all_of_them():
    logging.getLogger("shop").info("by stdlib")
    scaleobs.get_logger("shop").info("by structlog")
    warnings.warn("old news", DeprecationWarning)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return ""

@app.get("/worker")
def worker():
    return str(os.getpid())

@app.get("/boom")
def boom():
    raise RuntimeError("boom")

app = scaleobs.instrument(app, service="shop")
"""

BY_FILE = {
    "uvicorn": ("uvicorn", "shop:app", "--port", "{port}", "--log-config", f"{ROOT}/uvicorn/log_config.json"),
    "uvicorn workers": (
        *("uvicorn", "shop:app", "--port", "{port}", "--workers", "2"),
        *("--log-config", f"{ROOT}/uvicorn/log_config.json"),
    ),
    "gunicorn": ("gunicorn", "wsgi:app", "-b", "127.0.0.1:{port}", "-c", f"{ROOT}/gunicorn/gunicorn.conf.py"),
    "gunicorn uvicorn worker": (
        *("gunicorn", "shop:app", "-b", "127.0.0.1:{port}", "-c", f"{ROOT}/gunicorn/gunicorn.conf.py"),
        *("-w", "2", "-k", "uvicorn_worker.UvicornWorker"),
    ),
    "hypercorn": (
        *("hypercorn", "shop:app", "--bind", "127.0.0.1:{port}"),
        *("--log-config", f"json:{ROOT}/hypercorn/log_config.json"),
    ),
    "granian": (
        *("granian", "--interface", "asgi", "--port", "{port}", "--workers", "2", "--access-log"),
        *("--log-config", f"{ROOT}/granian/log_config.json", "shop:app"),
    ),
}
RUN = (str(servers.BIN / "scaleobs"), "run", "--")
BY_RUN = {
    "run uvicorn": (*RUN, "uvicorn", "shop:app", "--port", "{port}"),
    "run uvicorn workers": (*RUN, "uvicorn", "shop:app", "--port", "{port}", "--workers", "2"),
    "run gunicorn": (*RUN, "gunicorn", "wsgi:app", "-b", "127.0.0.1:{port}", "-w", "2", "--access-logfile", "-"),
    "run gunicorn uvicorn worker": (
        *(*RUN, "gunicorn", "shop:app", "-b", "127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker"),
    ),
    "run hypercorn": (*RUN, "hypercorn", "shop:app", "--bind", "127.0.0.1:{port}", "--access-logfile", "-"),
    "run hypercorn workers": (*RUN, "hypercorn", "shop:app", "--bind", "127.0.0.1:{port}", "--workers", "2"),
    "run granian": (*RUN, "granian", "--interface", "asgi", "--port", "{port}", "--access-log", "shop:app"),
    "run python": (*RUN, sys.executable, "-m", "uvicorn", "shop:app", "--port", "{port}"),
}
COMMANDS = BY_FILE | BY_RUN


def assert_two_workers_add_up(port):
    """Each scrape has the sum of both workers of the shipped gunicorn.conf.py."""
    answered, sent = set(), 0

    def have_both_answered():
        nonlocal sent
        sent += 1
        answered.add(servers.get(port, "/worker")[1])
        return len(answered) == 2

    def counted():
        series = dict(line.rsplit(" ", 1) for line in servers.get(port, "/metrics")[1].decode().splitlines())
        requests = 'http_requests_total{method="GET",route="/worker",status_code="200"}'
        return float(series.get(requests, 0)), float(series["scaleobs_workers"])

    servers.until(have_both_answered)
    servers.until(lambda: counted() == (sent, 2))

    assert [(sent, 2)] * 8 == [counted() for _ in range(8)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_line_is_one_object(name, tmp_path):
    """Start-up, warnings, failures, threads, tasks, requests and the end: each line is JSON, and is written once."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "wsgi.py").write_text(WSGI)
    port = servers.free_port()
    program, *arguments = (part.format(port=port) for part in COMMANDS[name])
    command = [program if "/" in program else str(servers.BIN / program), *arguments]
    # hypercorn configures logging at its first line, which is after the import of the application.
    at_import = {} if "hypercorn" in name else {"AT_IMPORT": "yes"}
    is_gunicorn_by_file = name in BY_FILE and program == "gunicorn"
    workers = {"WEB_CONCURRENCY": "2"} if is_gunicorn_by_file else {}
    with servers.running(command, port, tmp_path, SCALEOBS_SERVICE="shop", **at_import, **workers) as end:
        servers.until_workers(port, 2 if "2" in arguments or is_gunicorn_by_file else 1)
        assert 200 == servers.get(port, "/all")[0]
        assert 500 == servers.get(port, "/boom")[0]
        if is_gunicorn_by_file:
            assert_two_workers_add_up(port)
        stdout, stderr = end()
    lines = [json.loads(line) for line in (stdout + stderr).splitlines()]
    ours = [line for line in lines if line["event"] in ("by stdlib", "by structlog", "request.finished")]
    ours = [line for line in ours if line.get("path") != "/worker"]
    exceptions = [line for line in lines if "exception" in line]

    assert {"timestamp", "level", "event", "logger", "service"} <= set.intersection(*map(set, lines))
    assert {"shop"} == {line["service"] for line in lines}
    assert 4 == len(ours)
    assert [] == [line for line in lines if "GET /all" in line["event"] or "access" in line["logger"]]
    assert 1 == [line["event"] for line in lines].count("old news")
    assert bool(at_import) is ("at import" in {line["event"] for line in lines})
    assert 1 == sum("RuntimeError: boom" in line["exception"] for line in exceptions)
    assert 1 == sum("ZeroDivisionError" in line["exception"] for line in exceptions)
    if "wsgi:app" not in command:
        assert 1 == sum("LookupError: in a task" in line["exception"] for line in exceptions)
        assert 1 == sum("ValueError: in __del__" in line["exception"] for line in exceptions)
    assert len(lines) > len(ours) + 3
    assert "" == stderr
