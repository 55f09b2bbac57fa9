"""Real servers, each ended by its own pid, and what it has started by its process group."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
LIMIT = 20

# Of pytest-xdist, each of which takes other ports; one that follows a worker that crashed has a larger number.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_OWN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_given: set[int] = set()

PROGRAMS = {
    "alertmanager",
    "anycorn",
    "granian",
    "gunicorn",
    "haproxy",
    "hypercorn",
    "postgres",
    "prometheus",
    "redis-server",
    "uwsgi",
    "uvicorn",
}

running_test: pytest.Item | None = None
"""The test that runs now, with its fixtures."""


def assert_marked():
    """Fail a test that starts a server and lacks the marker for it, by which a quick run leaves it out."""
    if running_test is not None and running_test.get_closest_marker("servers") is None:
        pytest.fail(f"{running_test.nodeid} starts a server: it needs @pytest.mark.servers.", pytrace=False)


def assert_server_is_marked(command):
    """Fail a test that lacks the marker if its command has the name of a server's program."""
    words = command.split() if isinstance(command, str) else command
    if PROGRAMS.intersection(Path(os.fsdecode(word)).name for word in words):
        assert_marked()


def free_port() -> int:
    """Return a free port, which no other test of this run gets before it is in use."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # Linux gives every second port to servers, and the others to clients.
        if port // 2 % _WORKERS == _OWN and port not in _given:
            _given.add(port)
            return port


def until(condition):
    """Wait for a condition, and return its first true value."""
    limit = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < limit, f"The condition did not become true within {LIMIT} s."
        time.sleep(0.02)
    return value


def get(port, path, headers=None, method="GET"):
    """Return the status and the body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until_workers(port, number):
    """Wait until a page shows so many workers: the first one answers while others may still load the application."""
    until(lambda: f"\nscaleobs_workers {number}." in get(port, "/metrics")[1].decode())


def children_of(pid):
    """Return the processes that the main thread of a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def has_own_handlers(pid):
    """Return whether a worker of gunicorn has replaced its master's signal handlers, or has ended."""
    try:
        caught = int(Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0], 16)
    except (FileNotFoundError, ProcessLookupError):
        return True
    return not caught >> (signal.SIGHUP - 1) & 1


def until_booted(process, number):
    """
    Wait until gunicorn has started so many workers, unless it ends.

    A worker that receives SIGTERM before that loses it, and its master waits for 30 seconds.
    """

    def has_booted():
        workers = children_of(process.pid)
        return process.poll() is not None or (len(workers) >= number and all(map(has_own_handlers, workers)))

    until(has_booted)


def end_group(process):
    """Kill what a process has started, which leads its own process group; its number is free when all have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(command, port, folder, **environ):
    """
    Run a server until the block ends, and yield a function that ends it and returns its stdout and stderr.

    It has started when it answers on its port. What it started ends with it, even if it was killed itself. It has no
    drain unless a test requests it.
    """
    assert_marked()
    has_ended = []
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SCALEOBS_", "OTEL_"))}
    out, err = folder / "stdout", folder / "stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**own, "PYTHONUNBUFFERED": "1", "SCALEOBS_DRAIN_SECONDS": "0", **environ},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def end():
        if "gunicorn" in (Path(part).name for part in command) and not has_ended:
            flags = dict(itertools.pairwise(command))
            until_booted(process, int(flags.get("--workers", flags.get("-w", "1"))))
        has_ended.append(True)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(LIMIT)
        end_group(process)
        return out.read_text(), err.read_text()

    try:
        limit = time.monotonic() + LIMIT
        while True:
            try:
                get(port, "/health")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > limit:
                    output = "\n".join(end())
                    msg = f"{command} doesn't answer:\n{output}"
                    raise RuntimeError(msg) from None
                time.sleep(0.02)
        end.process = process
        yield end
    finally:
        end()
