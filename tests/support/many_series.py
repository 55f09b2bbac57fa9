"""A service with very many series of the user, and many scrapes of it at once."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import threading
from pathlib import Path

from support import servers

APP = """
import asyncio
import os

import scaleobs
from prometheus_client import CollectorRegistry, Counter

registry = CollectorRegistry()
counter = Counter("orders", "Orders.", ["customer", "country"], registry=registry)
for number in range(int(os.environ["SERIES"])):
    counter.labels(f"customer-{number}", "DE").inc()


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"content"})


def wsgi_application(environ, start_response):
    start_response("200 OK", [])
    return [b"content"]


is_wsgi = "WSGI" in os.environ
app = scaleobs.instrument(
    wsgi_application if is_wsgi else application, service="orders", registry=registry, log_format="off"
)
"""
MEBIBYTE = 1 << 20


def peak_memory(pid) -> float:
    """Return the peak of the resident memory of a process, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def reset_peak(pid):
    """Begin a new peak with the present memory of a process; return it, in MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_memory(pid)


def scrape(port, *, headers):
    """Return the status and the length of one scrape, read without being kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        length = 0
        while part := answer.read(MEBIBYTE):
            length += len(part)
        return answer.status, length


PROBER = """
import http.client, sys, threading, time

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
slowest = 0.0
while not ended.is_set():
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    connection.request("GET", "/health")
    assert 200 == connection.getresponse().status
    connection.close()
    slowest = max(slowest, time.monotonic() - begun)
    ended.wait(0.1)
print(slowest)
"""
"""Requests `/health` ten times a second until its stdin is closed; a process, since 32 threads read beside it."""


UVICORN = ("uvicorn", "many_series_app:app", "--log-level", "warning", "--port")
GEVENT = ("gunicorn", "many_series_app:app", "--worker-class", "gevent", "--bind")
GUNICORN = ("gunicorn", "many_series_app:app", "--worker-class", "gthread", "--threads", "8", "--bind")


def measure(folder, *, series, scrapes, headers=None, server=UVICORN):
    """
    Scrape a real service once, then many times at once.

    Return the memory of one scrape and of all, in MiB above that of the service at rest; their statuses; and the
    longest answer of `/health` meanwhile.
    """
    (folder / "many_series_app.py").write_text(APP)
    port = servers.free_port()
    is_wsgi = server is not UVICORN
    command = [str(servers.BIN / server[0]), *server[1:], f"127.0.0.1:{port}" if is_wsgi else str(port)]
    environ = {"SERIES": str(series), "PYTHONPATH": os.pathsep.join(sys.path), **({"WSGI": "1"} if is_wsgi else {})}
    with servers.running(command, port, folder, **environ):
        pids = [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]
        (pid,) = [pid for pid in pids if is_server(pid, command[-1])]
        pid = servers.children_of(pid)[0] if is_wsgi else pid
        at_rest = reset_peak(pid)
        assert 200 == scrape(port, headers=headers or {})[0]
        one = peak_memory(pid) - at_rest
        reset_peak(pid)
        answers = []
        prober = subprocess.Popen(
            [sys.executable, "-c", PROBER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threads = [
            threading.Thread(target=lambda: answers.append(scrape(port, headers=headers or {}))) for _ in range(scrapes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        slowest, _ = prober.communicate(timeout=60)
        return one, peak_memory(pid) - at_rest, [status for status, _ in answers], float(slowest)


def is_server(pid, last):
    """Return whether a process is the server whose command line has this last word, and not one of its workers."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parent == os.getpid() and Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2] == last.encode()
    except (OSError, IndexError):
        return False
