"""Real servers take their configuration, and every line they write is JSON."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
APP = """
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
CLIENT = """
import http.client, pathlib, sys
connection = http.client.HTTPConnection("localhost")
import socket
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", "/")
assert connection.getresponse().status == 200
"""


@pytest.mark.servers
@pytest.mark.parametrize(
    ("name", "command"),
    [
        (
            "uvicorn/log_config.json",
            ["uvicorn", "app:asgi", "--uds", "{socket}", "--log-config", "{config}"],
        ),
        (
            "gunicorn/gunicorn.conf.py",
            ["gunicorn", "app:wsgi", "--bind", "unix:{socket}", "--config", "{config}"],
        ),
    ],
)
def test_every_line_of_a_server_is_json(name, command, tmp_path):
    """
    From its start, through a request, to its end the server writes JSON only, and no access line of its own.
    """
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    config = tmp_path / Path(name).name
    config.write_bytes((INTEGRATIONS / name).read_bytes())
    path_of_socket = tmp_path / "s"
    program, *arguments = [part.format(socket=path_of_socket, config=config) for part in command]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (tmp_path / "output").open("w+b") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "SCALEOBS_DRAIN_SECONDS": "0"},
            stdout=output,
            stderr=output,
        )
        try:
            wait_for(path_of_socket, process)
            subprocess.run([sys.executable, "-c", CLIENT, path_of_socket], check=True, timeout=30)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    lines = (tmp_path / "output").read_text(encoding="utf-8").splitlines()

    events = [json.loads(line)["event"] for line in lines]

    assert len(events) >= 3
    assert not [event for event in events if "GET /" in event]


def wait_for(path, process):
    """Wait until a server listens, which is after its socket is there."""
    end = time.monotonic() + 30
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(str(path)):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server doesn't listen"
            time.sleep(0.05)


def test_gunicorn_listens_where_the_deployment_expects_it(monkeypatch):
    """
    Port 3000 on every address, one process unless WEB_CONCURRENCY is set, and a shorter grace period than the pod's.
    """
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    values = {}
    exec(compile((INTEGRATIONS / "gunicorn" / "gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"), values)

    assert "0.0.0.0:3000" == values["bind"]
    assert 1 == values["workers"]
    assert values["graceful_timeout"] < 30
    assert "worker_class" not in values


def test_log_configuration_is_the_same_for_all_servers():
    """
    One text for uvicorn, hypercorn and granian, also valid for gunicorn: their lines go to one handler, or are off.
    """
    texts = {(INTEGRATIONS / server / "log_config.json").read_text() for server in ("uvicorn", "hypercorn", "granian")}
    (text,) = texts
    loggers = json.loads(text)["loggers"]

    assert {name for name in loggers if name.endswith(".access")} == {
        name for name, one in loggers.items() if {"level": "CRITICAL", "handlers": [], "propagate": False} == one
    }
    # A worker of uvicorn under gunicorn takes the handlers of this logger for its own.
    assert ["stdout"] == loggers["gunicorn.error"]["handlers"]
    assert {"uvicorn", "gunicorn.error", "hypercorn.error", "_granian"} == {
        name for name, one in loggers.items() if "INFO" == one["level"]
    }
