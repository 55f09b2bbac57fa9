"""Runs servers under load, sends them signals, and records the failures of clients."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from support import servers

APPS = Path(__file__).parent
UVICORN = ["uvicorn", "asgi_app:app", "--port", "PORT"]
GUNICORN = ["gunicorn", "wsgi_app:app", "-b", "127.0.0.1:PORT", "-w", "2"]
HYPERCORN = ["hypercorn", "asgi_app:app", "-b", "127.0.0.1:PORT"]
GRANIAN = ["granian", "--port", "PORT", "--interface"]

SERVERS = {
    "uvicorn": (UVICORN, 1, -signal.SIGTERM),
    "uvicorn workers": ([*UVICORN, "--workers", "2"], 2, 0),
    "gunicorn sync": (GUNICORN, 2, 0),
    "gunicorn gthread": ([*GUNICORN, "--threads", "4"], 2, 0),
    "gunicorn preload": ([*GUNICORN, "--threads", "4", "--preload"], 2, 0),
    "gunicorn gevent": ([*GUNICORN, "-k", "gevent"], 2, 0),
    "gunicorn uvicorn": (["gunicorn", "asgi_app:app", *GUNICORN[2:], "-k", "uvicorn_worker.UvicornWorker"], 2, 0),
    "hypercorn": (HYPERCORN, 1, 0),
    "hypercorn workers": ([*HYPERCORN, "-w", "2"], 2, 0),
    "hypercorn alone": ([*HYPERCORN, "-w", "0"], 1, 0),
    "granian": ([*GRANIAN, "asgi", "asgi_app:app"], 1, 0),
    "granian workers": ([*GRANIAN, "asgi", "--workers", "2", "asgi_app:app"], 2, 0),
    "granian wsgi": ([*GRANIAN, "wsgi", "wsgi_app:app"], 1, 0),
}
"""The command of each, the number of its workers, and its exit code after SIGTERM without scaleobs."""

KEEPING = ["uvicorn", "uvicorn workers", "gunicorn uvicorn", "gunicorn gthread", "hypercorn", "granian"]
"""Those that keep connections."""

WITH_WEBSOCKETS = ["uvicorn", "gunicorn uvicorn", "hypercorn", "granian"]


class Server:
    """A running server."""

    def __init__(self, process, port, folder):
        self.process, self.port, self.folder = process, port, folder

    def send_signal(self, number):
        """Send a signal to the main process, and record the time."""
        self.signalled_at = time.monotonic()
        self.process.send_signal(number)

    def status(self, path="/"):
        """Return the status of one request, 0 if it fails."""
        try:
            return servers.get(self.port, path)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def settle(self):
        """
        Wait until no process of the server uses the processor.

        gunicorn's gthread hangs at SIGQUIT, which SIGINT becomes, in the middle of handing a connection to its pool:
        its handler waits for the lock that the main thread holds.
        """
        used = None

        def is_still():
            nonlocal used
            before, used = used, _used_by(self.process.pid)
            time.sleep(0.25)
            return used == before

        servers.until(is_still)

    def gone_after(self):
        """Wait for the end, and return the seconds since the signal."""
        self.process.wait(servers.LIMIT)
        return time.monotonic() - self.signalled_at

    def printed(self):
        """Return its output."""
        return (self.folder / "output").read_text()


def _used_by(group):
    """Return the processor time, in ticks, of each process of a group."""
    used = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                used[stat.parent.name] = int(fields[11]) + int(fields[12])
    return used


@contextlib.contextmanager
def running(command, folder, workers=1, port=0, **environ):
    """Run a server until the block ends, with a free port by default; yield once each worker has answered."""
    for app in APPS.glob("*_app.py"):
        shutil.copy(app, folder)
    port = port or servers.free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    own = {name: value for name, value in os.environ.items() if not name.startswith("SCALEOBS_")}
    with (folder / "output").open("a") as output:
        process = subprocess.Popen(
            [shutil.which(words[0], path=str(servers.BIN)) or words[0], *words[1:]],
            cwd=folder,
            env={**own, "PYTHONUNBUFFERED": "1", **environ},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, port, folder)
    try:
        seen = set()

        def have_answered():
            assert process.poll() is None, server.printed()
            if server.status("/ready") == 200:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    seen.add(worker_of(server))
            return len(seen) >= workers

        servers.until(have_answered)
        yield server
    finally:
        # It is the leader of a process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(servers.LIMIT)


def worker_of(server):
    """Return the pid of the worker that answers a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=servers.LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return int(answer.getheader("x-worker"))


class WebSocket:
    """An open WebSocket of the server's."""

    def __init__(self, port):
        self._connection = socket.create_connection(("127.0.0.1", port), servers.LIMIT)
        self._connection.sendall(
            b"GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert self._connection.recv(4096).startswith(b"HTTP/1.1 101")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Close it without a word."""
        self._connection.close()

    def echo(self):
        """Return the frame that comes back for a text."""
        self._connection.sendall(b"\x81\x82\0\0\0\0hi")  # Masked with zeros.
        return self._connection.recv(4)

    def end(self):
        """Return what the server ends it with."""
        return self._connection.recv(4096)


class Load:
    """Clients that send one request after another, each on a new connection, until the block ends."""

    def __init__(self, port, clients=4, path="/"):
        self._port, self._path = port, path
        self._is_over = threading.Event()
        self._clients = [threading.Thread(target=self._send) for _ in range(clients)]
        self.answered = 0
        self.failures = []

    def __enter__(self):
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for client in self._clients:
            client.join()

    def _send(self):
        while not self._is_over.is_set():
            begun = time.monotonic()
            try:
                status, body = servers.get(self._port, self._path)
                failure = None if (status, body) == (200, b"x" * 20) else f"{status} {body!r}"
            except (OSError, http.client.HTTPException) as error:
                failure = repr(error)
            if failure is None:
                self.answered += 1
            else:
                self.failures.append((begun, failure))
                time.sleep(0.05)

    def failed_before(self, moment):
        """Return the failures of requests that began before a moment."""
        return [failure for begun, failure in self.failures if begun < moment]


class KeptConnections(Load):
    """The same on one connection each, as long as the server keeps it; a response that ends it is no failure."""

    def _send(self):
        while not self._is_over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=servers.LIMIT)
            with contextlib.closing(connection):
                for place in itertools.count():
                    try:
                        connection.request("GET", self._path)
                        answer = connection.getresponse()
                        answer.read()
                    except (OSError, http.client.HTTPException) as error:
                        if not place:  # The server has stopped listening.
                            return
                        self.failures.append((time.monotonic(), repr(error)))
                        return
                    self.answered += 1
                    if answer.will_close:
                        break
