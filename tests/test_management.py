"""The management port of real servers: its answers, and its owner among the workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import servers
from support.servers import BIN, free_port, get, running, until

SHOP = """
import os, time
import scaleobs

SETTINGS = dict(service="shop", drain_seconds=0, checks=[
    scaleobs.Check("worker", lambda: {"pid": os.getpid()}, cache=0),
    scaleobs.Check("database", lambda: 1 / 0, critical=False),
])


def busy_or_asleep(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until and not os.path.exists("release"):
        if "BUSY" not in os.environ:
            time.sleep(0.05)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    seconds, pid = scope["path"][1:], str(os.getpid()).encode()
    if seconds.isdecimal():
        busy_or_asleep(int(seconds))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-worker", pid)]})
    await send({"type": "http.response.body", "body": b"shop"})


async def asgi_alone(scope, receive, send):
    assert scope["type"] == "http", "there is no lifespan"
    await asgi(scope, receive, send)


def wsgi(environ, start_response):
    start_response("200 OK", [("X-Worker", str(os.getpid()))])
    seconds = environ["PATH_INFO"][1:]
    if seconds.isdecimal():
        busy_or_asleep(int(seconds))
    return [b"shop"]


asgi_app = scaleobs.instrument(asgi, **SETTINGS) if os.environ.get("KIND") == "asgi" else None
asgi_alone_app = scaleobs.instrument(asgi_alone, **SETTINGS) if os.environ.get("KIND") == "asgi_alone" else None
wsgi_app = scaleobs.instrument(wsgi, **SETTINGS) if os.environ.get("KIND") == "wsgi" else None
"""

GUNICORN = ["gunicorn", "-b", "127.0.0.1:PORT", "--graceful-timeout", "5", "-w", "2"]
WSGIREF = [
    sys.executable,
    "-c",
    "import shop, wsgiref.simple_server as w; w.make_server('127.0.0.1', PORT, shop.wsgi_app).serve_forever()",
]
SERVERS = {
    "uvicorn": (["uvicorn", "shop:asgi_app", "--port", "PORT"], 1),
    "uvicorn, no lifespan": (["uvicorn", "shop:asgi_alone_app", "--port", "PORT"], 1),
    "uvicorn, lifespan off": (["uvicorn", "shop:asgi_alone_app", "--port", "PORT", "--lifespan", "off"], 1),
    "uvicorn workers": (["uvicorn", "shop:asgi_app", "--port", "PORT", "--workers", "2"], 2),
    "hypercorn": (["hypercorn", "shop:asgi_app", "-b", "127.0.0.1:PORT", "-w", "2"], 2),
    "granian": (["granian", "--port", "PORT", "--interface", "asgi", "--workers", "2", "shop:asgi_app"], 2),
    "granian wsgi": (["granian", "--port", "PORT", "--interface", "wsgi", "--workers", "2", "shop:wsgi_app"], 2),
    "gunicorn sync": ([*GUNICORN, "shop:wsgi_app"], 2),
    "gunicorn gthread": ([*GUNICORN, "--threads", "4", "shop:wsgi_app"], 2),
    "gunicorn preload": ([*GUNICORN, "--threads", "4", "--preload", "shop:wsgi_app"], 2),
    "gunicorn gevent": ([*GUNICORN, "-k", "gevent", "shop:wsgi_app"], 2),
    "gunicorn gevent preload": ([*GUNICORN, "-k", "gevent", "--preload", "shop:wsgi_app"], 2),
    "gunicorn uvicorn": ([*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "shop:asgi_app"], 2),
    "gunicorn uvicorn preload": ([*GUNICORN, "--preload", "-k", "uvicorn_worker.UvicornWorker", "shop:asgi_app"], 2),
    "wsgiref": (WSGIREF, 1),
}
every_server = pytest.mark.parametrize("name", SERVERS)


def command_of(name, port):
    words = [word.replace("PORT", str(port)) for word in SERVERS[name][0]]
    kinds = (kind for kind in ("asgi_alone", "asgi", "wsgi") if f"{kind}_app" in " ".join(words))
    return [shutil.which(words[0], path=str(BIN)) or words[0], *words[1:]], next(kinds)


COUNTED = b'http_requests_total{method="GET",route="unmatched",status_code="200"} 21\n'


class Shop:
    """A running shop, with its two ports."""

    def __init__(self, port, managed, end):
        self.port, self.managed, self.end = port, managed, end

    def fetch(self, path):
        """Return the status and the body of an answer on the management port; 0 if there is none."""
        try:
            return get(self.managed, path)
        except (OSError, http.client.HTTPException):
            return 0, b""

    def owner(self):
        """Return the pid of the worker that answers there; 0 if none does."""
        status, body = self.fetch("/ready")
        checks = json.loads(body)["checks"] if status == 200 else []
        return next((check["data"]["pid"] for check in checks if check["name"] == "worker"), 0)

    def worker(self):
        """Return the pid of the worker that answers a request."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=servers.LIMIT)) as fetch:
            fetch.request("GET", "/")
            return int(fetch.getresponse().getheader("x-worker"))

    def workers(self):
        """Return how many workers there are."""
        lines = self.fetch("/metrics")[1].decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith("scaleobs_workers ")), 0)


def run_script(script, folder, environ):
    """Run a script to its end."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def shop(tmp_path):
    """Return a function that runs a server until the test ends."""
    with contextlib.ExitStack() as stack:

        def run(name, **environ):
            (tmp_path / "shop.py").write_text(SHOP)
            port, managed = free_port(), free_port()
            words, kind = command_of(name, port)
            environ = {"KIND": kind, "SCALEOBS_MANAGEMENT_PORT": str(managed), **environ}
            end = stack.enter_context(running(words, port, tmp_path, **environ))
            return Shop(port, managed, end)

        yield run


@pytest.mark.servers
@every_server
def test_management_port_of_a_server(name, shop):
    """
    The endpoints are there from the start, another worker takes over from one that is killed, and the end is quick.
    """
    server = shop(name)
    assert_endpoints(server, SERVERS[name][1])
    if name in SLOW_CLIENTS:
        assert_slow_client_is_answered(server)
    if name.startswith(("gunicorn", "uvicorn workers")):
        assert_another_worker_takes_over(server)
    assert_end_is_not_delayed(server, SERVERS[name][1])


MOST_REQUESTS = 64
SLOW_CLIENTS = {"gunicorn gevent", "gunicorn gevent preload", "gunicorn gthread"}


def assert_endpoints(server, workers):
    """
    The management port has all four endpoints with details before any request; the application's has three without.

    The metrics are those of all workers.
    """
    until(server.owner)
    ready, startup, health = (server.fetch(path) for path in ("/ready", "/startup", "/livez"))
    short, gone = get(server.port, "/ready"), get(server.port, "/metrics")
    for _ in range(20):
        get(server.port, "/")

    until(lambda: server.workers() == workers and COUNTED in server.fetch("/metrics")[1])
    database = json.loads(ready[1])["checks"][1]

    assert [200, 200, 200] == [status for status, _ in (ready, startup, health)]
    assert "DEGRADED" == database["data"]["state"]
    assert "ZeroDivisionError" in database["data"]["reason"]
    assert (200, b"shop") == gone
    assert b"reason" not in short[1]
    assert b"pid" not in short[1]
    assert 404 == server.fetch("/nothing")[0]


def assert_slow_client_is_answered(server):
    """A request that comes a while after its connection is answered: a real thread waits for it, not a greenlet."""
    with socket.create_connection(("127.0.0.1", server.managed), timeout=servers.LIMIT) as client:
        time.sleep(0.2)  # The server has accepted and reads.
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b" 200 " in client.makefile("rb").readline()


def assert_another_worker_takes_over(server):
    """
    If the owner is killed, another worker answers within two seconds, and no count is lost.

    granian and hypercorn stop as a whole when a worker is killed.
    """
    first = server.owner()
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: server.owner() not in (0, first))
    after = time.monotonic() - killed
    until(lambda: COUNTED in server.fetch("/metrics")[1])

    assert after < 2


def assert_end_is_not_delayed(server, workers):
    """With a management port the server stops as soon as without one."""
    seen = set()

    def has_seen_all():
        # granian forgets a signal that comes before its worker serves. A request may be lost with a killed worker.
        with contextlib.suppress(OSError, http.client.HTTPException):
            seen.add(server.worker())
        return len(seen) == workers

    until(has_seen_all)
    until(server.owner)
    begun = time.monotonic()
    server.end()

    assert time.monotonic() - begun < 3


@pytest.mark.servers
@every_server
def test_port_in_use(name, tmp_path):
    """The server does not start, and its error has the port and the fix; if that is too late, the log has it."""
    (tmp_path / "shop.py").write_text(SHOP)
    port = free_port()
    words, kind = command_of(name, port)
    with socket.create_server(("127.0.0.1", 0)) as other, (tmp_path / "output").open("w") as output:
        taken = other.getsockname()[1]
        own = {key: value for key, value in os.environ.items() if not key.startswith("SCALEOBS_")}
        process = subprocess.Popen(
            words,
            cwd=tmp_path,
            env={**own, "KIND": kind, "SCALEOBS_MANAGEMENT_PORT": str(taken), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            output_file = tmp_path / "output"
            until(lambda: f"management port {taken} can't be opened: Address already in use" in output_file.read_text())
            if name in ("uvicorn", "gunicorn sync", "gunicorn gthread", "gunicorn gevent", "gunicorn uvicorn") or (
                "preload" in name
            ):
                assert process.wait(servers.LIMIT) in (1, 3)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_port_is_free_again_after_the_lifespan(tmp_path):
    """Each lifespan of a test client opens the port and closes it."""
    script = (
        SHOP
        + """
import http.client, asyncio
from starlette.testclient import TestClient

def status_of(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/health")
    return connection.getresponse().status

port = int(os.environ["SCALEOBS_MANAGEMENT_PORT"])
for _ in range(5):
    with TestClient(asgi_app):
        print(status_of(port))
    try:
        status_of(port)
    except ConnectionRefusedError:
        print("refused")
"""
    )
    environ = {**os.environ, "KIND": "asgi", "SCALEOBS_MANAGEMENT_PORT": str(free_port()), "SCALEOBS_LOG_FORMAT": "off"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ["200", "refused"] * 5 == done.stdout.split(), done.stderr


def test_two_services_of_one_process(tmp_path):
    """Two services share a port: a probe fails if one of them fails."""
    script = """
import http.client, threading, time
import scaleobs
from scaleobs import Check
from wsgiref.simple_server import make_server, WSGIRequestHandler

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b""]

port = int(__import__("os").environ["SCALEOBS_MANAGEMENT_PORT"])
first = scaleobs.instrument(wsgi, service="first", checks=[Check("good", lambda: True)])
second = scaleobs.WSGIMiddleware(wsgi, service="second", checks=[Check("bad", lambda: False)])
for app in (first, second):
    server = make_server("127.0.0.1", 0, app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()

def fetch(path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()

print(fetch("/health")[0], fetch("/ready")[0], "bad" in fetch("/ready")[1], "first" in fetch("/metrics")[1])
"""
    environ = {**os.environ, "SCALEOBS_MANAGEMENT_PORT": str(free_port()), "SCALEOBS_LOG_FORMAT": "off"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "200 503 True True\n" == done.stdout, done.stderr


@pytest.mark.servers
@pytest.mark.parametrize(
    "name",
    ["uvicorn", "uvicorn workers", "gunicorn sync", "gunicorn gthread", "gunicorn gevent", "gunicorn uvicorn"],
)
def test_stuck_workers(name, shop, tmp_path):
    """Liveness fails while each worker's event loop, or all its threads, are stuck, and passes after that."""
    server = shop(name, SCALEOBS_STALL_SECONDS="1", **({"BUSY": "1"} if "gevent" in name else {}))
    until(lambda: server.workers() == SERVERS[name][1])
    for _ in range(20):
        get(server.port, "/")
    before = server.fetch("/health")[0]
    sent, answers = [], []

    def fails():
        # One worker may accept many requests and let them wait, so more are sent until each worker is stuck.
        if len(sent) < MOST_REQUESTS:
            sent.append(pool.submit(get, server.port, "/60"))
        answers.append(server.fetch("/health"))
        return answers[-1][0] == 503

    with ThreadPoolExecutor(MOST_REQUESTS) as pool:
        try:
            until(fails)
        finally:
            (tmp_path / "release").touch()
    until(lambda: server.fetch("/health")[0] == 200)
    (progress, *_) = json.loads(answers[-1][1])["checks"]

    assert 200 == before
    assert ("progress", "DOWN") == (progress["name"], progress["status"])
    assert "have been stuck" in progress["data"]["reason"]


@pytest.mark.servers
def test_one_stuck_worker_of_two(shop):
    """While one worker makes progress, liveness passes."""
    server = shop("uvicorn workers", SCALEOBS_STALL_SECONDS="1")
    until(lambda: server.workers() == 2)
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        stuck = pool.submit(get, server.port, "/3")
        answers = {}
        while not stuck.done():
            answers[time.monotonic() - begun] = server.fetch("/health")[0]
            time.sleep(0.05)

    assert {200} == set(answers.values())
    assert max(answers) > 2  # Longer than a worker may be stuck.
